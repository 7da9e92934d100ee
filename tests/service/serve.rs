//! The service as a process: how it starts and ends, what a kill leaves, and other processes beside
//! it.

mod archive;
mod beside;
mod ending;
#[path = "../../examples/service.rs"]
#[expect(dead_code, reason = "its main function is the program's")]
mod example;
mod hostile;
mod kills;
mod notices;
mod schedule;
mod secrets;
mod starting;
mod sync;

use bson::doc;
use bsonvault::config::{Config, Flags};
use serde_json::Value;

use crate::support::cli::Cli;
use crate::support::data::{insert, numbered};
use crate::support::server::Server;
use crate::support::service::configured;

/// The number of collections in a backup.
const COLLECTIONS: usize = 6;

/// A replica set with a database `shop`, and a standalone to import into.
struct Pair {
    source: Server,
    target: Server,
}

impl Pair {
    async fn start() -> Self {
        let (source, target) = tokio::join!(Server::replica_set("atlas"), Server::standalone());
        let shop = source.client().await.database("shop");
        for number in 0..COLLECTIONS {
            insert(&shop, &format!("part{number}"), numbered(1000)).await;
        }
        Self { source, target }
    }

    /// A service between both. The scheduler is off by default.
    fn service(&self) -> Cli {
        configured()
            .env("MONGO_URI_ATLAS", self.source.uri())
            .env("MONGO_URI_LOCAL", self.target.uri())
            .env("BACKUP_ENABLED", "false")
            .env("AUTO_IMPORT_TO_LOCAL", "false")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_the_library_works() {
    let pair = Pair::start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("backups").to_str().unwrap().to_owned();
    let environment = [("MONGO_URI_ATLAS", pair.source.uri()), ("MONGO_URI_LOCAL", pair.target.uri()), ("BACKUP_PATH", path)];
    let environment = environment.map(|(name, value)| (name.into(), value.into()));
    example::run(Config::load(directory.path(), environment, &Flags::default()).unwrap()).await.unwrap();
    let copied = pair.target.client().await.database("shop").collection::<bson::Document>("part0");
    assert_eq!(copied.count_documents(doc! {}).await.unwrap(), 1000);
}

fn is_reading(job: &Value) -> bool {
    job["state"] == "running" && job["progress"]["phase"] == "reading"
}
