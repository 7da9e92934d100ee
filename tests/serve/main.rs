//! The service as a process: how it starts, how it ends, what a kill leaves, and who works beside it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::allow_attributes, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod beside;
mod ending;
mod kills;
mod schedule;
mod secrets;
mod starting;

use bson::doc;
use serde_json::Value;
use support::backups::fill_large;
use support::cli::Cli;
use support::server::Server;
use support::service::configured;

/// Collections that a backup of the tests reads.
const COLLECTIONS: usize = 6;

/// A replica set that holds a database `shop`, and a standalone to import into.
struct Pair {
    source: Server,
    target: Server,
}

impl Pair {
    async fn start() -> Self {
        let (source, target) = tokio::join!(Server::replica_set("atlas"), Server::standalone());
        let shop = source.client().await.database("shop");
        for number in 0..COLLECTIONS {
            fill_large(&shop, &format!("part{number}"), 1000).await;
        }
        Self { source, target }
    }

    /// A service between both; a scheduler that is not asked for is off.
    fn service(&self) -> Cli {
        configured()
            .env("MONGO_URI_ATLAS", self.source.uri())
            .env("MONGO_URI_LOCAL", self.target.uri())
            .env("BACKUP_ENABLED", "false")
            .env("AUTO_IMPORT_TO_LOCAL", "false")
    }
}

/// Everything that the program asks a server by these commands takes its time.
async fn slow_down(server: &Server, commands: &[&str], milliseconds: i32) {
    let slow = doc! { "failCommands": commands, "appName": "bsonvault", "blockConnection": true, "blockTimeMS": milliseconds };
    server.fail_command("alwaysOn", slow).await;
}

async fn full_speed(server: &Server) {
    server.admin(doc! { "configureFailPoint": "failCommand", "mode": "off" }).await.unwrap();
}

fn is_reading(job: &Value) -> bool {
    job["state"] == "running" && job["progress"]["phase"] == "reading"
}
