//! Scenarios: growing data, many collections, large documents, and a distant source. Each has its
//! own servers.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc, rawdoc};
use bsonvault::format::document::Writer;
use mongodb::Client;

use crate::figures::{Meter, Results, Taken};
use crate::shop::data::{Orders, build_indexes, fill_huge, fill_orders, indexes};
use crate::shop::median;
use crate::support::link::{Link, LinkOptions};
use crate::support::server::Server;
use crate::{Asked, directory};

/// Documents per collection of `--many`.
const MANY: usize = 20;
/// Collections of `--wide`, and documents per collection: about 4 MB.
const WIDE: (usize, usize) = (200, 4_800);
/// Documents of `--huge`.
const HUGE: i32 = 3;
/// How many times more documents the larger database of `--scaling` has.
const TIMES: usize = 10;
/// The most runs of a scenario.
const RUNS: usize = 3;

/// A scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Ten times the documents.
    Scaling,
    /// Thousands of small collections.
    Many,
    /// Hundreds of collections of several megabytes each.
    Wide,
    /// Documents of 16 MiB.
    Huge,
    /// A distant source.
    SlowLink,
}

impl Scenario {
    pub const ALL: [Self; 5] = [Self::Scaling, Self::Many, Self::Wide, Self::Huge, Self::SlowLink];

    pub fn flag(self) -> &'static str {
        match self {
            Self::Scaling => "--scaling",
            Self::Many => "--many",
            Self::Wide => "--wide",
            Self::Huge => "--huge",
            Self::SlowLink => "--slow-link",
        }
    }

    pub async fn run(self, asked: &Asked, results: &mut Results) {
        let runs = asked.runs.min(RUNS);
        match self {
            Self::Scaling => scaling(asked, runs, results).await,
            Self::Many => many(asked, runs, results).await,
            Self::Wide => wide(asked, runs, results).await,
            Self::Huge => huge(asked, runs, results).await,
            Self::SlowLink => slow_link(asked, results).await,
        }
    }
}

/// A server, its meter, and the path of its backups.
struct Place {
    server: Server,
    client: Client,
    meter: Meter,
    directory: tempfile::TempDir,
}

impl Place {
    async fn new(asked: &Asked) -> Self {
        let server = asked.server(2.0).await;
        let client = server.client().await;
        Self { meter: Meter::of(&client).await, server, client, directory: directory() }
    }

    fn path(&self) -> &str {
        self.directory.path().to_str().unwrap()
    }

    /// Takes a backup of a database with this many documents. Returns its path.
    async fn backup(&self, database: &str, documents: usize) -> (Taken, String) {
        let arguments = ["backup", "--source", &self.server.uri(), "--database", database, "--path", self.path()];
        let (taken, report) = self.meter.bsonvault(&arguments).await;
        assert_eq!(report["documents"], documents, "{report}");
        (taken, report["path"].as_str().unwrap().to_owned())
    }

    /// Imports a backup of this many collections and documents, and drops the result.
    async fn import(&self, backup: &str, collections: usize, documents: usize) -> Taken {
        let target = self.server.uri();
        let arguments =
            ["import", backup, "--target", &target, "--allow-same", "--database", "bench_copy", "--path", self.path()];
        let (taken, report) = self.meter.bsonvault(&arguments).await;
        assert_eq!(report["documents"], documents, "the documents of {backup}");
        let copy = self.client.database("bench_copy");
        let there = copy.list_collection_names().await.unwrap();
        assert_eq!(
            there.iter().filter(|name| !name.starts_with("bsonvault.")).count(),
            collections,
            "the collections of {backup}"
        );
        copy.drop().await.unwrap();
        taken
    }
}

/// The memory of a process that does next to nothing: one lists no backups, one backs up a single
/// document.
pub async fn resting(asked: &Asked, results: &mut Results) {
    let place = Place::new(asked).await;
    results.keep_version(&place.client, "mongod").await;
    let (list, _) = place.meter.bsonvault(&["list", "--path", place.path()]).await;
    let tiny = place.client.database("bench_tiny").collection("tiny");
    tiny.insert_one(doc! { "_id": 1 }).await.unwrap();
    let (backup, _) = place.backup("bench_tiny", 1).await;
    let (list, backup) = (list.peak_mib.unwrap(), backup.peak_mib.unwrap());
    println!("resting memory: {list:.0} MiB to list nothing, {backup:.0} MiB to back up one document");
    results.figure("list of nothing, peak MiB", list);
    results.figure("backup of one document, peak MiB", backup);
    results.resting = backup;
}

async fn scaling(asked: &Asked, runs: usize, results: &mut Results) {
    let place = Place::new(asked).await;
    let documents = asked.documents;
    let sizes = [("bench_small", documents), ("bench_large", documents * TIMES)];
    for (database, documents) in sizes {
        fill_orders(&place.client, database, documents).await;
        build_indexes(&place.client, database, &indexes()).await;
    }
    let (mut backups, mut imports) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
    for _ in 0..runs {
        for (size, (database, documents)) in sizes.into_iter().enumerate() {
            let (taken, backup) = place.backup(database, documents).await;
            backups[size].push(taken);
            imports[size].push(place.import(&backup, 1, documents).await);
            std::fs::remove_dir_all(backup).unwrap();
        }
    }
    for (verb, taken) in [("backup", backups), ("import", imports)] {
        let [small, large] = &taken;
        results.tell(&format!("{verb} of {documents} documents"), small);
        results.tell(&format!("{verb} of {} documents", documents * TIMES), large);
        let seconds = |taken: &[Taken]| median(&taken.iter().map(|taken| taken.seconds).collect::<Vec<_>>());
        let peak = |taken: &[Taken]| taken.iter().filter_map(|taken| taken.peak_mib).fold(0.0, f64::max);
        results.figure(format!("scaling: time of the {verb}"), seconds(large) / seconds(small));
        results.figure(format!("scaling: peak of the {verb}"), peak(large) / peak(small));
    }
}

async fn many(asked: &Asked, runs: usize, results: &mut Results) {
    let (collections, each) = (asked.collections, MANY);
    let frames = frames(collections, each);
    let (mut created, mut backups, mut imports) = ([const { Vec::new() }; 2], Vec::new(), Vec::new());
    for _ in 0..runs {
        // One server each: with three files per collection, one server reaches the limit of open
        // files.
        let mut source = None;
        for (taken, tasks) in created.iter_mut().zip([2, 8]) {
            drop(source.take());
            let place = Place::new(asked).await;
            taken.push(place.meter.own(create(&place.client, &frames, tasks)).await.0);
            source = Some(place);
        }
        let source = source.unwrap();
        let (taken, backup) = source.backup("bench_many", collections * each).await;
        backups.push(taken);
        let Place { server, directory, .. } = source;
        drop(server);
        imports.push(Place::new(asked).await.import(&backup, collections, collections * each).await);
        drop(directory);
    }
    let seconds = |taken: &[Taken]| median(&taken.iter().map(|taken| taken.seconds).collect::<Vec<_>>());
    results.tell("many: creating, 2 at a time", &created[0]);
    results.tell("many: creating, 8 at a time", &created[1]);
    results.tell("many: backup", &backups);
    results.tell("many: import", &imports);
    let limit = seconds(&created[0]).min(seconds(&created[1]));
    results.figure("many: import / creating limit", seconds(&imports) / limit);
}

/// The documents of each collection, ready to send.
fn frames(collections: usize, each: usize) -> Vec<Vec<Document>> {
    let mut orders = Orders::new();
    (0..collections).map(|_| orders.by_ref().take(each).collect()).collect()
}

/// Creates the collections with one index each, with as few commands as possible, this many at a
/// time.
async fn create(client: &Client, frames: &[Vec<Document>], tasks: usize) {
    let next = AtomicUsize::new(0);
    let database = client.database("bench_many");
    let work = async || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(documents) = frames.get(number) else { return };
            let name = format!("c{number:05}");
            // This also creates the collection.
            let index = doc! { "key": { "customer": 1 }, "name": "customer" };
            let command = doc! { "createIndexes": &name, "indexes": [index], "writeConcern": { "w": 1 } };
            database.run_command(command).await.unwrap();
            let insert = doc! { "insert": &name, "documents": documents, "writeConcern": { "w": 1, "j": false } };
            let reply = database.run_command(insert).await.unwrap();
            assert_eq!(reply.get_i32("n").unwrap(), documents.len() as i32, "{reply}");
        }
    };
    futures::future::join_all((0..tasks).map(|_| work())).await;
    crate::inserts::make_durable(client, "bench_many").await;
}

async fn wide(asked: &Asked, runs: usize, results: &mut Results) {
    let (collections, each) = WIDE;
    let place = Place::new(asked).await;
    // All collections hold the same; their content does not matter here.
    let documents: Vec<Vec<u8>> = Orders::new().take(each).map(|document| bson::serialize_to_vec(&document).unwrap()).collect();
    for number in 0..collections {
        let mut command = Writer::default();
        command.string("insert", &format!("c{number:03}"));
        command.documents("documents", documents.iter().map(Vec::as_slice));
        command.document("writeConcern", rawdoc! { "w": 1 }.as_bytes());
        let command: RawDocumentBuf = command.raw().unwrap();
        let reply = place.client.database("bench_wide").run_raw_command(command).await.unwrap();
        assert_eq!(reply.get_i32("n").unwrap(), each as i32, "{reply}");
    }
    both(&place, "wide", "bench_wide", (collections, collections * each), runs, results).await;
}

async fn huge(asked: &Asked, runs: usize, results: &mut Results) {
    let place = Place::new(asked).await;
    fill_huge(&place.client, "bench_huge", HUGE).await;
    both(&place, "huge", "bench_huge", (1, HUGE as usize), runs, results).await;
}

/// Backups and imports of one database.
async fn both(place: &Place, name: &str, database: &str, holds: (usize, usize), runs: usize, results: &mut Results) {
    let (collections, documents) = holds;
    let (mut backups, mut imports) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let (taken, backup) = place.backup(database, documents).await;
        backups.push(taken);
        imports.push(place.import(&backup, collections, documents).await);
        std::fs::remove_dir_all(Path::new(&backup)).unwrap();
    }
    results.tell(&format!("{name}: backup"), &backups);
    results.tell(&format!("{name}: import"), &imports);
}

/// A backup over a round trip of 40 ms, 400 Mbit/s, and 100 Mbit/s per connection, compared with
/// one uncompressed stream.
async fn slow_link(asked: &Asked, results: &mut Results) {
    let place = Place::new(asked).await;
    let documents = asked.documents;
    fill_orders(&place.client, "bench_far", documents).await;
    let (_, near) = place.backup("bench_far", documents).await;
    let bytes: f64 = {
        let stats = place.client.database("bench_far").run_command(doc! { "dbStats": 1 }).await.unwrap();
        stats.get("dataSize").and_then(|size| size.as_f64().or(size.as_i64().map(|size| size as f64))).unwrap()
    };
    std::fs::remove_dir_all(near).unwrap();
    let how = LinkOptions {
        round_trip: Duration::from_millis(40),
        mbit: Some(400.0),
        stream_mbit: Some(100.0),
        ..LinkOptions::default()
    };
    let link = Link::to(place.server.port(), how);
    let uri = place.server.uri_through(link.port());
    let arguments = ["backup", "--source", &uri, "--database", "bench_far", "--path", place.path()];
    let (taken, report) = place.meter.bsonvault(&arguments).await;
    assert_eq!(report["documents"], documents, "{report}");
    results.tell("slow link: backup", &[taken]);
    results.figure("slow link: backup / one plain stream", taken.seconds / (bytes * 8.0 / 100e6));
}
