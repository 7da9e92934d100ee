//! `tune`: its measurements and choices, and that it leaves nothing behind.

use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};

use crate::support::cli::{Cli, Output, finish};
use crate::support::link::{Link, LinkOptions};
use crate::support::server::{Server, ServerOptions, free_port};

/// Its phases after a first look and a short read.
const PHASES: [&str; 3] = ["reading with more and more cursors", "writing to the path", "compressing the sample"];

/// Documents of about 600 bytes that compress as real ones do.
async fn fill(server: &Server, documents: u32) {
    let orders = server.client().await.database("shop").collection::<Document>("orders");
    let words = ["paid", "shipped", "returned", "street", "customer", "note", "of", "the", "tuesday"];
    for from in (0..documents).step_by(5000) {
        let made = (from..documents.min(from + 5000)).map(|i| {
            let word = |n: u32| words[(i.wrapping_mul(2_654_435_761).wrapping_add(n * n * 40_503) >> 7) as usize % words.len()];
            let note: Vec<String> = (0..60).map(|n| format!("{}{}", word(n), i.wrapping_mul(n) % 97)).collect();
            doc! { "_id": i, "customer": i.wrapping_mul(7919) % 100_003, "status": word(1), "note": note.join(" ") }
        });
        orders.insert_many(made).await.unwrap();
    }
}

/// Checks that it failed with this message, and wrote nothing.
fn refused(cli: &Cli, output: &Output, code: i32, message: &str) {
    assert_eq!((output.code, output.stdout.as_str()), (Some(code), ""), "{output:?}");
    assert!(output.stderr.contains(message), "{message:?} is not in {output:?}");
    assert!(!cli.dir().join("backups").exists() && !cli.dir().join(".env").exists());
}

#[tokio::test]
async fn it_measures_and_chooses_and_leaves_nothing() {
    let server = Server::standalone().await;
    fill(&server, 12_000).await;
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri());
    let json = cli.json(&["tune"]).await;
    assert_eq!(json["success"], true);
    // A source with late answers counts as far, and so does a server under load.
    let near = json["source"]["far"] == false;
    assert_eq!((&json["source"]["documents"], &json["source"]["local"]), (&12_000.into(), &near.into()), "{json}");
    let limits = json["rows"].as_array().unwrap().iter().map(|row| row["prediction"]["limit"].as_str().unwrap());
    assert!(limits.clone().count() > 5, "{json}");
    assert_eq!(limits.filter(|limit| !["source", "rate", "cpu", "disk"].contains(limit)).count(), 0, "{json}");
    assert_eq!(
        (&json["sample"]["collections"][0]["namespace"], &json["sample"]["documents"]),
        (&"shop.orders".into(), &12_000.into())
    );
    assert!(json["readers"][0]["bytesPerSecond"].as_f64().unwrap() > 1e5, "{json}");
    assert!(json["path"]["writeBytesPerSecond"].as_f64().unwrap() > 1e3 && json["path"]["freeBytes"].as_u64().unwrap() > 0);
    assert!(json["sha256BytesPerSecond"].as_f64().unwrap() > 1e6 && json["xxh3BytesPerSecond"].as_f64().unwrap() > 1e6);
    assert!(json["seconds"].as_f64().unwrap() > 0.0);
    let rows = json["rows"].as_array().unwrap();
    let levels: Vec<i64> = rows.iter().filter_map(|row| row["level"].as_i64()).collect();
    // Under load, the slowest levels may be skipped; a note says so.
    let untold = [-5, 3, 19]
        .iter()
        .filter(|level| !levels.contains(level) && !json["notes"].to_string().contains(&format!("level {level}")));
    assert_eq!(untold.count(), 0, "{levels:?} {}", json["notes"]);
    assert!(levels.contains(&-5) && levels.contains(&3), "{levels:?}");
    assert!(rows.iter().any(|row| row["longDistance"] == true) && rows.iter().any(|row| row["frameBytes"] == 1 << 20));
    let ratio = |level: i64| rows.iter().find(|row| row["level"] == level).unwrap()["ratio"].as_f64().unwrap();
    assert!(ratio(3) > ratio(-5) && ratio(-5) > 1.0, "{json}");
    let chosen: Vec<_> = rows.iter().filter(|row| row["chosen"] == true).collect();
    assert_eq!(chosen.len(), 1);
    for (of_row, of_choice) in [("level", "level"), ("longDistance", "longDistance")] {
        assert_eq!(chosen[0][of_row], json["choice"][of_choice]);
    }
    assert_eq!(chosen[0]["prediction"]["readers"], json["choice"]["readers"]);
    assert!(json["reasons"][0].is_string(), "{json}");
    let choice = &json["choice"];
    let lines = [format!("BACKUP_FRAME_MB={}", choice["frameMb"]), format!("BACKUP_LONG_DISTANCE={}", choice["longDistance"])];
    assert_eq!(json["lines"], serde_json::json!(lines), "and nothing that would keep readers and level from adapting");

    // The predicted size is close to what a backup stores.
    let level = format!("--level={}", json["choice"]["level"]);
    let frame = format!("--frame-mb={}", json["choice"]["frameMb"]);
    let long = format!("--long={}", json["choice"]["longDistance"]);
    let made = cli.json(&["backup", "--path", "made", &level, &frame, &long]).await;
    let (predicted, stored) = (&chosen[0]["prediction"]["storedBytes"], &made["storedBytes"]);
    let off = predicted.as_f64().unwrap() / stored.as_f64().unwrap();
    assert!((0.9..1.1).contains(&off), "{predicted} is not about {stored}");

    let text = cli.run(&["tune", "--level", "3"]).await;
    assert_eq!(text.code, Some(0), "{text:?}");
    for part in
        ["\nchoice       level 3, ", "\nreason  ", "\nrule  ", "against the choice", "times as long", "####", "shop.orders"]
    {
        assert!(text.stdout.contains(part), "{part:?} is not in {}", text.stdout);
    }
    let phases = ["looking at the source", "reading a sample", PHASES[0], PHASES[1], PHASES[2]];
    let mut told: Vec<&str> = text.stderr.lines().collect();
    // A phase of several seconds is reported again.
    told.dedup();
    assert_eq!(told, phases, "each is told, however short it was");
    let (_, paste) = text.stdout.split_once("\npaste        BACKUP_FRAME_MB=").unwrap();
    assert!(paste.contains("\n             BACKUP_LONG_DISTANCE=") && !text.stdout.contains("BACKUP_LEVEL="), "{}", text.stdout);
    assert_eq!(std::fs::read_dir(cli.dir()).unwrap().count(), 1, "only the backup that was made elsewhere");
}

#[tokio::test]
async fn what_cannot_be_is_told_and_changes_nothing() {
    let server = Server::standalone().await;
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri());
    refused(&cli, &cli.run(&["tune"]).await, 1, "the source has nothing to back up");
    let shop = server.client().await.database("shop");
    shop.run_command(doc! { "create": "empty" }).await.unwrap();
    shop.run_command(doc! { "create": "seen", "viewOn": "empty" }).await.unwrap();
    refused(
        &cli,
        &cli.run(&["tune"]).await,
        1,
        "no documents to measure: every collection that a backup would read (1) is empty",
    );
    refused(&cli, &cli.run(&["tune", "--include", "shop.seen"]).await, 1, "only views (1), which hold no documents");
    refused(&cli, &cli.run(&["tune", "--level", "20"]).await, 2, "expected a whole number from -7 to 19");
    std::fs::write(cli.dir().join("file"), "").unwrap();
    refused(&cli, &cli.run(&["tune", "--path", "file/below"]).await, 1, "file");
    let nobody = format!("mongodb://127.0.0.1:{}/?directConnection=true&serverSelectionTimeoutMS=60000", free_port());
    let begin = Instant::now();
    refused(&cli, &cli.run(&["tune", "--source", &nobody]).await, 1, "the source does not answer");
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    refused(&cli, &cli.run(&["tune", "--apply"]).await, 2, "tune writes nothing; paste the two lines that it prints into .env");
}

#[tokio::test]
async fn a_login_that_may_not_read_is_told_so() {
    let server = Server::start(ServerOptions { auth: true, ..ServerOptions::default() }).await;
    fill(&server, 300).await;
    let role = doc! { "createRole": "lister", "roles": [],
    "privileges": [{ "resource": { "db": "shop", "collection": "" }, "actions": ["listCollections", "listIndexes"] }] };
    let shop = server.client().await.database("shop");
    shop.run_command(role).await.unwrap();
    shop.run_command(doc! { "createUser": "looker", "pwd": "secret", "roles": ["lister"] }).await.unwrap();
    let uri = server.uri().replace("root:", "looker:").replace("authSource=admin", "authSource=shop").replace("/?", "/shop?");
    let cli = Cli::new().env("MONGO_URI_ATLAS", uri);
    let output = cli.run(&["tune", "--json"]).await;
    assert_eq!((output.code, output.json()["error"]["kind"].as_str()), (Some(1), Some("denied")), "{output:?}");
}

#[tokio::test]
async fn a_stop_in_the_middle_leaves_nothing() {
    let server = Server::standalone().await;
    fill(&server, 12_000).await;
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri());
    for phase in PHASES {
        let mut child = cli.spawn(&["tune"]);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == phase), "{phase}");
        let begin = Instant::now();
        let kill = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        assert_eq!(finish(child).await.code, Some(130), "{phase}: {rest:?}");
        assert!(begin.elapsed() < Duration::from_secs(10), "{phase}: {:?}", begin.elapsed());
        assert_eq!(std::fs::read_dir(cli.dir()).unwrap().count(), 0, "{phase}");
    }
    let open = async || {
        let status = server.admin(doc! { "serverStatus": 1 }).await.unwrap();
        let cursor = status.get_document("metrics").and_then(|m| m.get_document("cursor"));
        cursor.and_then(|c| c.get_document("open")).and_then(|o| o.get_i64("total")).unwrap()
    };
    // The server kills them in its own time.
    let begin = Instant::now();
    while open().await > 0 {
        assert!(begin.elapsed() < Duration::from_secs(10), "{} cursors stay open", open().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_slow_link_is_measured_within_a_minute() {
    let server = Server::standalone().await;
    fill(&server, 60_000).await;
    let link = Link::to(
        server.port(),
        LinkOptions { round_trip: Duration::from_millis(40), mbit: Some(20.0), ..LinkOptions::default() },
    );
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri_through(link.port()));
    let begin = Instant::now();
    let json = cli.json(&["tune"]).await;
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    assert_eq!((&json["source"]["far"], &json["source"]["local"]), (&true.into(), &false.into()), "{json}");
    assert!(json["wireCompression"]["withoutBytesPerSecond"].as_f64().unwrap() < 4e6, "{json}");
    let chosen = json["rows"].as_array().unwrap().iter().find(|row| row["chosen"] == true).unwrap();
    let fastest =
        json["readers"].as_array().unwrap().iter().filter_map(|read| read["bytesPerSecond"].as_f64()).fold(0.0, f64::max);
    let predicted = chosen["prediction"]["bytesPerSecond"].as_f64().unwrap();
    assert!(predicted > 0.85 * fastest, "as fast as the source is read, or nearly: {json}");
    assert!(chosen["level"].as_i64().unwrap() >= 3, "there is time to compress: {chosen}");
    assert!(link.bytes_down() < 80_000_000, "{}", link.bytes_down());
}

#[tokio::test]
async fn a_source_that_hangs_fails_in_time() {
    let mut server = Server::standalone().await;
    fill(&server, 300).await;
    server.pause();
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri());
    let begin = Instant::now();
    let output = cli.run(&["tune", "--json"]).await;
    server.resume();
    assert!(begin.elapsed() < Duration::from_secs(40), "{:?}", begin.elapsed());
    assert_eq!((output.code, output.json()["error"]["kind"].as_str()), (Some(1), Some("unreachable")), "{output:?}");
}
