//! A job, and the sync, as server-sent events.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bodies::Pair;
use super::jobs::{begin, slow, when};
use super::place::{Ask, Place};

const PATIENCE: Duration = Duration::from_secs(60);

/// An event: its name, id and data.
fn events(text: &str) -> Vec<(String, u64, Value)> {
    let field = |event: &str, name: &str| {
        event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(|value| value.trim_start().to_owned())
    };
    let events = text.split("\n\n").filter(|event| field(event, "data").is_some());
    events
        .map(|event| {
            let data = serde_json::from_str(&field(event, "data").unwrap()).unwrap();
            (field(event, "event").unwrap(), field(event, "id").unwrap().parse().unwrap(), data)
        })
        .collect()
}

#[tokio::test]
async fn progress_comes_every_second_and_the_end_last() {
    let pair = Pair::start().await;
    let place = pair.place().await;
    slow(&pair.source, 3500).await;
    let id = begin(&place, "/api/backups/create?wait=false", "").await;
    let begun = Instant::now();
    let answer = place.ask(Ask::new(rocket::http::Method::Get, &format!("/api/jobs/{id}/events"))).await;
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("text/event-stream")));
    assert!(answer.text.contains("retry:2000\n"), "{answer:?}");
    let events = events(&answer.text);
    let (last, before) = events.split_last().unwrap();
    assert_eq!((last.0.as_str(), &last.2["state"], &last.2["id"]), ("end", &json!("succeeded"), &json!(id)));
    assert!(before.iter().all(|(name, _, job)| name == "progress" && job["id"] == json!(id)), "{before:?}");
    assert!(events.iter().zip(1..).all(|(event, number)| event.1 == number), "{events:?}");
    assert!(seconds > 3.0, "{seconds}: it was not slow");
    let least = (seconds - 1.0) as usize;
    let most = (seconds / 0.45) as usize + 3;
    assert!((least..=most).contains(&events.len()), "{} events in {seconds} s", events.len());
}

#[tokio::test]
async fn a_job_that_ended_gives_its_end_alone() {
    let pair = Pair::start().await;
    let place = pair.place().await;
    let id = place.post("/api/backups/create", "").await.data()["jobId"].as_str().unwrap().to_owned();
    for token in [super::place::ADMIN, super::place::READER] {
        let path = format!("/api/jobs/{id}/events");
        let answer = place.ask(Ask::new(rocket::http::Method::Get, &path).token(Some(token))).await;
        let events = events(&answer.text);
        assert_eq!((events.len(), events[0].0.as_str(), &events[0].2["state"]), (1, "end", &json!("succeeded")));
    }
}

#[tokio::test]
async fn streams_end_with_the_server_and_jobs_do_not() {
    let pair = Pair::start().await;
    let place = pair.place().await;
    slow(&pair.source, 3000).await;
    let id = begin(&place, "/api/backups/create?wait=false", "").await;
    let path = format!("/api/jobs/{id}/events");
    let shutdown = place.client.rocket().shutdown();
    let end = async {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        shutdown.notify();
    };
    let (answer, ()) = tokio::join!(place.get(&path), end);
    // No `end` of the job: the stream did not wait for it.
    assert!(events(&answer.text).iter().all(|event| event.0 == "progress"), "{answer:?}");
    pair.source.fail_no_more().await;
    let job = when(&place, &id, |job| job["finished"].is_string()).await;
    assert_eq!(job["state"], "succeeded", "{job}");
}

#[tokio::test]
async fn two_hundred_clients_follow_one_job() {
    let pair = Pair::start().await;
    let place: Place = pair.place().await;
    slow(&pair.source, 3000).await;
    let id = begin(&place, "/api/backups/create?wait=false", "").await;
    let path = format!("/api/jobs/{id}/events");
    let answers = futures::future::join_all((0..200).map(|_| place.get(&path))).await;
    for answer in answers {
        let events = events(&answer.text);
        assert!(events.len() >= 3, "{answer:?}");
        assert_eq!(events.last().map(|event| event.0.as_str()), Some("end"));
    }
}

#[tokio::test]
async fn each_state_of_the_sync_is_told_and_its_end_last() {
    let pair = Pair::start().await;
    let place = pair.place().await;
    let stopped = events(&place.get("/api/sync/events").await.text);
    assert_eq!((stopped.len(), stopped[0].0.as_str(), &stopped[0].2["state"]), (1, "end", &json!("stopped")));

    assert_eq!(place.post("/api/sync/start", "").await.status, 200);
    let stop = async {
        let mut sync = place.service.watch_sync();
        let follows = sync.wait_for(|sync| json!(sync)["state"] == "following");
        tokio::time::timeout(PATIENCE, follows).await.unwrap().unwrap();
        place.post("/api/sync/stop", "").await
    };
    let (answer, _) = tokio::join!(place.get("/api/sync/events"), stop);
    assert_eq!(answer.header("Content-Type"), Some("text/event-stream"));
    let events = events(&answer.text);
    let (first, last) = (events.first().unwrap(), events.last().unwrap());
    assert!(first.0 == "state" && ["starting", "copying"].contains(&first.2["state"].as_str().unwrap()), "{answer:?}");
    assert_eq!((last.0.as_str(), &last.2["state"]), ("end", &json!("stopped")), "{answer:?}");
    assert_eq!(events.iter().filter(|event| event.0 == "end").count(), 1, "{answer:?}");
    assert!(events.iter().zip(1..).all(|(event, number)| event.1 == number), "{answer:?}");
    // What says the same state is progress.
    let same = events.windows(2).filter(|pair| ["state", "problem"].iter().all(|field| pair[0].2[field] == pair[1].2[field]));
    assert!(same.into_iter().all(|pair| pair[1].0 == "progress"), "{answer:?}");
}

#[tokio::test]
async fn the_stream_of_a_sync_ends_with_the_server() {
    let nobody = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100";
    let environment = [("MONGO_URI_ATLAS", nobody), ("MONGO_URI_LOCAL", nobody)];
    let place = Place::with(&environment, Default::default()).await;
    place.post("/api/sync/start", "").await;
    let mut sync = place.service.watch_sync();
    let waits = sync.wait_for(|sync| json!(sync)["state"] == "waiting");
    tokio::time::timeout(PATIENCE, waits).await.unwrap().unwrap();
    let shutdown = place.client.rocket().shutdown();
    let end = async { shutdown.notify() };
    let (answer, ()) = tokio::join!(place.get("/api/sync/events"), end);
    let events = events(&answer.text);
    assert!(!events.is_empty() && events.iter().all(|event| event.0 != "end"), "{answer:?}");
}
