//! Dumps that mongodump made, and some that it could have made, imported: whole and right, or not at all.

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

use std::io::Read as _;
use std::path::{Path, PathBuf};

use bsonvault::context::Context;
use bsonvault::engine::import::{self, DumpOptions, DumpSource, ImportOptions, ImportReport};
use bsonvault::error::Error;
use bsonvault::mongo::{MongoUri, Role};
use mongodb::Client;

/// A dump that the real mongodump made.
fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/mongodump").join(name)
}

/// What a gzip file holds.
fn gunzip(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

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

/// Drops everything but what belongs to the server.
async fn empty(client: &Client) {
    for database in client.list_database_names().await.unwrap() {
        if !["admin", "config", "local"].contains(&&*database) {
            client.database(&database).drop().await.unwrap();
        }
    }
}
