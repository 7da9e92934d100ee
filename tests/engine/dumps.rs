//! Imports dumps that mongodump made, and some that it could have made: completely and correctly,
//! or not at all.

mod accounts;
mod damage;
mod expected;
mod flags;
mod forms;
mod ids;
mod indexes;
mod made;
mod maker;
mod roles;
mod samples;

use std::path::Path;

use bsonvault::context::Context;
use bsonvault::engine::import::{self, DumpOptions, DumpSource, ImportOptions, ImportReport};
use bsonvault::error::Error;
use bsonvault::mongo::{MongoUri, Role};
use mongodb::Client;

fn options() -> DumpOptions {
    DumpOptions { memory_bytes: 256 << 20, ..DumpOptions::default() }
}

async fn open(place: &Path, options: DumpOptions) -> Result<DumpSource, Error> {
    DumpSource::open(place.to_str().unwrap(), options, &Context::default()).await
}

async fn import(place: &Path, target: &str, options: &ImportOptions) -> Result<ImportReport, Error> {
    import_with(place, self::options(), target, options).await
}

async fn import_with(place: &Path, dump: DumpOptions, target: &str, options: &ImportOptions) -> Result<ImportReport, Error> {
    let dumped = open(place, dump).await?;
    let target = MongoUri::parse(Role::Target, target).unwrap();
    import::run(&dumped, &target, None, options, &Context::default()).await
}

/// Drops everything except what belongs to the server.
async fn empty(client: &Client) {
    for database in client.list_database_names().await.unwrap() {
        if !["admin", "config", "local"].contains(&&*database) {
            client.database(&database).drop().await.unwrap();
        }
    }
}
