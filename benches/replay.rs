//! Measures how fast an oplog is replayed, compared with one operation per command.
//!
//! `cargo bench --bench replay -- [--operations N] [--runs N] [--single N] [--lanes 1,2,4]
//! [--standalone]`
//!
//! The entries are those of a real oplog. Eight writers fill four collections of a replica set, in
//! commands of 1 to 20 operations: 45 % inserts of documents of 100 to 500 bytes, 40 % updates
//! (three differences for each replacement), and 15 % deletes. Every twentieth command is a
//! transaction. Seven tenths of the updates and deletes are of any document of their writer, the
//! others of one of its 200 latest.
//!
//! Each run first replays some of them one by one, each in its own command. Then it replays all of
//! them into empty collections, and once more over the result. Both times, the documents must be
//! those of the source. It prints medians of operations per second, ratios, and the processor time
//! per operation, here and of the server. Compare the ratios.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a measurement prints, and ends where something is wrong"
)]

#[path = "../tests/support/mod.rs"]
mod support;

mod shop;

use std::time::Instant;

use bson::{Document, RawDocumentBuf, doc};
use bsonvault::context::Context;
use bsonvault::format::digest::Content;
use bsonvault::format::document::Documents;
use bsonvault::format::manifest::ClusterTime;
use bsonvault::mongo::connect::ConnectOptions;
use bsonvault::mongo::{Connection, MongoUri, Role, catalog};
use bsonvault::names::Namespace;
use bsonvault::oplog::apply::{Applier, Commits, Destination, Holds};
use bsonvault::oplog::{Committed, Entry, OperationKind};
use bsonvault::sink::Target;
use mongodb::Database;
use shop::arguments::Arguments;
use shop::median;
use shop::process::{cpu_seconds, server_process};
use shop::writer::{self, COLLECTIONS, name};
use support::server::{Server, ServerOptions};
use uuid::Uuid;

const FRAME: usize = 4 * 1024 * 1024;

#[tokio::main]
async fn main() {
    let mut arguments =
        Arguments::read("cargo bench --bench replay -- [--operations N] [--runs N] [--single N] [--lanes 1,2,4] [--standalone]");
    let operations = arguments.number("--operations", 300_000);
    let (runs, single) = (arguments.number("--runs", 3), arguments.number("--single", 4_000));
    let lanes = arguments.text("--lanes").unwrap_or_else(|| "2".to_owned());
    let lanes: Vec<usize> = lanes.split(',').map(|n| n.parse().unwrap()).collect();
    let repl_set = (!arguments.flag("--standalone")).then(|| "bench".to_owned());
    arguments.finish();
    let source = Source::record(operations).await;
    println!("{} operations in {} frames", source.operations, source.frames.len());
    let kind = if repl_set.is_some() { "replica set of one" } else { "standalone" };
    let server = Server::start(ServerOptions { repl_set, cache_gb: Some(2.0), ..ServerOptions::default() }).await;
    let process = server_process(&server.client().await).await.unwrap();
    let mut one = Vec::new();
    let mut many = vec![[Figures::default(), Figures::default()]; lanes.len()];
    for _ in 0..runs {
        one.push(source.one_by_one(&server, single).await);
        for (figures, lanes) in many.iter_mut().zip(&lanes) {
            source.empty(&server).await;
            for figures in figures {
                figures.take(source.replayed(&server, &process, *lanes).await);
            }
        }
    }
    let one = median(&one);
    println!("{kind}: one operation a command: {one:.0} operations a second");
    for (figures, lanes) in many.iter().zip(&lanes) {
        for (figures, over) in figures.iter().zip(["empty collections", "the result"]) {
            let (rate, [here, there]) = (median(&figures.rates), [&figures.here, &figures.there].map(|f| median(f)));
            println!(
                "{kind}: {lanes} lanes, over {over}: {rate:.0} operations a second, {:.1} times as fast; processor time of \
                 one: {here:.1} µs here, {there:.1} µs there",
                rate / one
            );
        }
    }
}

/// Operations per second, and microseconds of processor time per operation.
#[derive(Clone, Default)]
struct Figures {
    rates: Vec<f64>,
    here: Vec<f64>,
    there: Vec<f64>,
}

impl Figures {
    fn take(&mut self, [rate, here, there]: [f64; 3]) {
        self.rates.push(rate);
        self.here.push(here);
        self.there.push(there);
    }
}

/// What a source did, and what it holds in the end.
struct Source {
    frames: Vec<Vec<u8>>,
    operations: u64,
    /// The first operations that are no commands, as `applyOps` takes them.
    first: Vec<Document>,
    collections: Vec<(Uuid, String, Content)>,
}

impl Source {
    async fn record(operations: usize) -> Self {
        let server = Server::start(ServerOptions {
            repl_set: Some("source".to_owned()),
            cache_gb: Some(1.0),
            extra_args: vec!["--oplogSize".to_owned(), "4000".to_owned()],
            ..ServerOptions::default()
        })
        .await;
        let client = server.client().await;
        let database = client.database("src");
        for n in 0..COLLECTIONS {
            database.run_command(doc! { "create": name(n) }).await.unwrap();
        }
        writer::write(&client, operations).await;
        let connection = connect(&server, Role::Source).await;
        let mut collections = Vec::new();
        for listed in catalog::collections(&connection, "src").await.unwrap().0 {
            collections.push((listed.uuid.unwrap(), listed.name.clone(), content(&database, &listed.name).await));
        }
        let oplog = client.database("local").collection::<RawDocumentBuf>("oplog.rs");
        let mut entries = oplog.find(doc! { "$or": [{ "ns": { "$regex": "^src[.]" } }, { "ns": "admin.$cmd" }] }).await.unwrap();
        let (mut frames, mut operations, mut first) = (vec![Vec::with_capacity(FRAME)], 0, Vec::new());
        while entries.advance().await.unwrap() {
            let entry = entries.current().as_bytes();
            Entry::parse(entry)
                .unwrap()
                .each(&mut |operation| {
                    operations += u64::from(operation.kind != OperationKind::Command);
                    Ok(())
                })
                .unwrap();
            if frames.last().unwrap().len() + entry.len() > FRAME {
                frames.push(Vec::with_capacity(FRAME));
            }
            frames.last_mut().unwrap().extend(entry);
        }
        for entry in Documents::of(&frames[0]) {
            let entry = Document::from_reader(entry.unwrap()).unwrap();
            if entry.get_str("op").unwrap() == "c" {
                continue;
            }
            let place = entry.get_str("ns").unwrap().replace("src.", "bench.");
            let mut operation = doc! { "op": entry.get_str("op").unwrap(), "ns": place, "o": entry.get_document("o").unwrap() };
            if let Ok(o2) = entry.get_document("o2") {
                operation.extend(doc! { "o2": o2, "b": true });
            }
            first.push(operation);
        }
        Self { frames, operations, first, collections }
    }

    async fn empty(&self, server: &Server) {
        let database = server.client().await.database("bench");
        database.drop().await.unwrap();
        for (_, name, _) in &self.collections {
            database.run_command(doc! { "create": name }).await.unwrap();
        }
    }

    async fn one_by_one(&self, server: &Server, operations: usize) -> f64 {
        self.empty(server).await;
        let admin = server.client().await.database("admin");
        let some = &self.first[..operations.min(self.first.len())];
        let begin = Instant::now();
        for operation in some {
            admin.run_command(doc! { "applyOps": [operation], "writeConcern": { "w": 1 } }).await.unwrap();
        }
        some.len() as f64 / begin.elapsed().as_secs_f64()
    }

    async fn replayed(&self, server: &Server, process: &str, lanes: usize) -> [f64; 3] {
        let connection = connect(server, Role::Target).await;
        let behaves_as = connection.behaves_as().await;
        let commits = Commits::Known(Committed::new(ClusterTime { t: 1, i: 1 }));
        // Reading the slice is not measured.
        let frames = self.frames.clone();
        let cpu = || [cpu_seconds("self").unwrap(), cpu_seconds(process).unwrap()];
        let (begin, before) = (Instant::now(), cpu());
        let target = Target::new(connection, behaves_as, &Context::default());
        let mut applier = Applier::with_lanes(target, commits, lanes).await.unwrap();
        for (uuid, name, _) in &self.collections {
            let namespace = Namespace::new("bench", &**name);
            let destination =
                Destination { namespace, holds: Holds::Documents, has_rules: false, collated: false, unique: false };
            applier.direct(*uuid, destination).unwrap();
        }
        for frame in frames {
            applier.take(frame).await.unwrap();
        }
        assert_eq!(applier.make_durable().await.unwrap().operations, self.operations);
        let (seconds, after) = (begin.elapsed().as_secs_f64(), cpu());
        let operations = self.operations as f64;
        let database = server.client().await.database("bench");
        for (_, name, expected) in &self.collections {
            assert!(content(&database, name).await == *expected, "{name} does not hold what the source holds");
        }
        let [here, there] = [0, 1].map(|n| (after[n] - before[n]) / operations * 1e6);
        [operations / seconds, here, there]
    }
}

async fn connect(server: &Server, role: Role) -> Connection {
    let uri = MongoUri::parse(role, &server.uri()).unwrap();
    Connection::open(&uri, ConnectOptions { pool: 16, selection_timeout: None }).await.unwrap()
}

async fn content(database: &Database, collection: &str) -> Content {
    let mut content = Content::default();
    let mut found = database.collection::<RawDocumentBuf>(collection).find(doc! {}).await.unwrap();
    while found.advance().await.unwrap() {
        content.add(found.current().as_bytes());
    }
    content
}
