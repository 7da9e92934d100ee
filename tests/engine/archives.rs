//! Archived oplogs at rest: what is wrong with one is told, and what is out of the window is
//! removed.

mod cleaned;
mod damaged;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bson::doc;
use bsonvault::context::Context;
use bsonvault::engine::archive::{self, ArchiveOptions};
use bsonvault::engine::backup::BackupOptions;
use bsonvault::engine::verify::VerifyOptions;
use bsonvault::engine::verify_archive::{self, VerifyArchiveReport};
use bsonvault::format::manifest::ClusterTime;
use bsonvault::mongo::{MongoUri, Role};
use bsonvault::names::BackupName;
use bsonvault::repository::chain::ChainPlace;

use crate::support::on_disk::OnDisk as _;
use crate::support::server::Server;
use crate::support::vault::Vault;

/// An archive that nobody writes any more: some links and some pieces.
struct Made {
    vault: Vault,
    place: ChainPlace,
    /// One taken before the links were made, and one after.
    bases: [BackupName; 2],
    /// Its last entry.
    end: ClusterTime,
}

impl Made {
    fn directory(&self) -> PathBuf {
        self.place.objects().directory()
    }

    async fn verified(&self, deep: bool) -> VerifyArchiveReport {
        verify_archive::run(&self.place, &VerifyOptions { deep }, &Context::default()).await.unwrap()
    }

    /// The names of the links.
    async fn links(&self) -> Vec<String> {
        self.place.parts().await.unwrap().unwrap().links.into_iter().map(|link| link.name).collect()
    }
}

/// Archives while documents are written, until this many links or pieces are there.
async fn archived(server: &Server, vault: &Vault, roll: Duration, wanted: (usize, usize)) -> (ChainPlace, BackupName) {
    let source = MongoUri::parse(Role::Source, &server.uri()).unwrap();
    let (repository, cx) = (vault.repository(), Context::default());
    let options = ArchiveOptions { roll, bases: None, ..ArchiveOptions::default() };
    let (status, mut changes) = archive::status();
    let archiving = {
        let (repository, cx) = (repository.clone(), cx.clone());
        tokio::spawn(async move { archive::run(&source, &repository, &options, &status, &cx).await.unwrap() })
    };
    changes.wait_for(|status| status.source_time.is_some()).await.unwrap();
    let collection = server.client().await.database("d").collection("c");
    collection.insert_one(doc! { "text": "the first" }).await.unwrap();
    let base = vault.take(&server.uri(), &BackupOptions::default()).await.unwrap().name;
    let place = repository.chains().await.unwrap().remove(0);
    let begun = Instant::now();
    loop {
        collection.insert_one(doc! { "text": "x".repeat(100) }).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let parts = place.parts().await.unwrap().unwrap();
        if parts.links.len() >= wanted.0 && parts.pieces.len() >= wanted.1 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{} links, {} pieces", parts.links.len(), parts.pieces.len());
    }
    cx.cancel.cancel();
    archiving.await.unwrap();
    (place, base)
}

async fn made() -> Made {
    let server = Server::replica_set("made").await;
    let vault = Vault::new();
    let (_, first) = archived(&server, &vault, Duration::from_secs(2), (3, 0)).await;
    let (place, second) = archived(&server, &vault, Duration::from_secs(3600), (3, 4)).await;
    let end = place.archiver().await.unwrap().unwrap().position.unwrap();
    Made { vault, place, bases: [first, second], end }
}
