//! The adaptive throttle: probes the source's latency and eases the load accordingly.

use std::time::Duration;

use bson::rawdoc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::format::manifest::CollectionKind;
use crate::mongo::{Connection, command};
use crate::names::Namespace;
use crate::pipeline::pace::{LatencyThrottle, RateLimiter};
use crate::source::discover::CollectionInfo;

/// How many times a second the adaptive throttle probes the latency.
const ASKED_A_SECOND: u32 = 5;

/// How long a probe may take; a source that is slower is late.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How many probes establish the usual latency.
const USUAL: usize = 9;

/// The collection that the adaptive throttle probes: the first that is not a view.
pub(in crate::engine) fn place(listed: &[CollectionInfo]) -> Option<Namespace> {
    listed.iter().find(|found| found.kind != CollectionKind::View).map(CollectionInfo::data)
}

/// Probes the source's latency again and again and eases the load accordingly, until dropped.
/// `place` is the collection to probe.
pub(in crate::engine) async fn throttle(
    connection: &Connection,
    place: Option<&Namespace>,
    usual: Vec<Duration>,
    pace: &RateLimiter,
) {
    let mut throttle = LatencyThrottle::new(&usual);
    let mut tick = interval(Duration::from_secs(1) / ASKED_A_SECOND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answers = Vec::new();
    loop {
        tick.tick().await;
        answers.push(latency(connection, place).await);
        if answers.len() as u32 >= ASKED_A_SECOND {
            let (before, ease) = (pace.ease(), throttle.take(&answers));
            if (before > 0.0) != (ease > 0.0) {
                tracing::info!(
                    ?answers,
                    ?usual,
                    ease,
                    "the source answers {}",
                    if ease > 0.0 { "late: readers pause" } else { "as usual" }
                );
            }
            pace.ease_by(ease);
            answers.clear();
        }
    }
}

/// The source's latencies before the reading.
pub(in crate::engine) async fn usual_latencies(connection: &Connection, place: Option<&Namespace>) -> Vec<Duration> {
    let mut answers = Vec::with_capacity(USUAL);
    for _ in 0..USUAL {
        answers.push(latency(connection, place).await);
    }
    answers
}

/// The time of a small command: the first document of a collection, as any client would ask for it.
/// Without a collection, a ping.
async fn latency(connection: &Connection, place: Option<&Namespace>) -> Duration {
    let begun = Instant::now();
    let (database, question) = match place {
        Some(place) => {
            let find = rawdoc! {
                "find": place.collection.as_str(), "limit": 1, "singleBatch": true, "projection": { "_id": 1 },
            };
            (place.database.as_str(), find)
        }
        None => ("admin", rawdoc! { "ping": 1 }),
    };
    // The content does not matter. An error arrives as late or as soon as an answer.
    let _answer = tokio::time::timeout(ANSWER_LIMIT, command::run(&connection.documents(database), question)).await;
    begun.elapsed()
}
