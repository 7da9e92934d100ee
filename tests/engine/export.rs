//! Exports backups in mongodump's formats, and reads them with a separate reader that knows only
//! the formats' grammar.

mod archives;
mod directories;
mod endings;
mod places;
mod reader;
mod slices;

use std::path::Path;

use bson::{Binary, Bson, DateTime, Document, RawDocumentBuf, doc, spec::BinarySubtype};
use bsonvault::engine::export::{self, Destination, ExportOptions, ExportReport, Format};
use bsonvault::error::Error;
use bsonvault::format::manifest::{Collection, Segment};
use bsonvault::repository::catalog::Backup;

use crate::support::data::insert;
use crate::support::on_disk::OnDisk as _;
use crate::support::server::Server;
use crate::support::vault::Vault;

/// A document with two fields `v` and one field with an empty name.
const TWICE: [u8; 30] =
    [30, 0, 0, 0, 0x10, b'_', b'i', b'd', 0, 1, 0, 0, 0, 0x10, b'v', 0, 1, 0, 0, 0, 0x10, b'v', 0, 2, 0, 0, 0, 0x0A, 0, 0];

/// A backup with one of each kind; on request with 37 MB of incompressible documents.
async fn taken(vault: &Vault, large: bool) -> Backup {
    let server = Server::standalone().await;
    let client = server.client().await;
    let database = client.database("kinds");
    insert(&database, "plain", (0..3000).map(|i| doc! { "_id": i, "n": i % 7, "pad": "x".repeat(200) })).await;
    let indexes = [doc! { "key": { "z": 1, "a": -1 }, "name": "zb", "sparse": true }];
    database.run_command(doc! { "createIndexes": "plain", "indexes": indexes.to_vec() }).await.unwrap();
    database.run_command(doc! { "create": "empty" }).await.unwrap();
    database
        .run_command(doc! { "create": "view", "viewOn": "plain", "pipeline": [{ "$match": { "n": { "$gt": 3 } } }] })
        .await
        .unwrap();
    database.run_command(doc! { "create": "capped", "capped": true, "size": 40_000, "max": 500 }).await.unwrap();
    insert(&database, "capped", (0..700).map(|i| doc! { "_id": i })).await;
    database.run_command(doc! { "create": "series", "timeseries": { "timeField": "t", "metaField": "m" } }).await.unwrap();
    insert(&database, "series", (0..50i64).map(|i| doc! { "t": DateTime::from_millis(i * 1000), "m": i % 3 })).await;
    let twice = RawDocumentBuf::from_bytes(TWICE[..].to_vec()).unwrap();
    database.collection::<RawDocumentBuf>("twice").insert_one(twice).await.unwrap();
    for name in
        ["with space", "slash/and\\back", "per%cent", "%2F", "ünï-日本", "new\nline", "x.metadata.json", "oplog", &"é".repeat(80)]
    {
        insert(&client.database("names_ü"), name, [doc! { "_id": name }]).await;
    }
    insert(&client.database("oplog"), "prelude.json", [doc! { "_id": 1 }]).await;
    if large {
        let noise = |seed: u32, n: usize| {
            let mut state = seed;
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: (0..n).map(|_| next()).collect() })
        };
        for i in 0..37i32 {
            insert(&database, "many", [doc! { "_id": i, "v": noise(i.cast_unsigned(), 1_000_000) }]).await;
        }
        // As large as documents get.
        let largest = doc! { "_id": 1, "v": noise(99, 16 * 1024 * 1024 - 22) };
        assert_eq!(largest.to_vec().unwrap().len(), 16 * 1024 * 1024);
        insert(&database, "largest", [largest]).await;
    }
    vault.backup(&server, &[]).await
}

/// The documents of these segments, concatenated in order.
fn raw(backup: &Backup, segments: &[Segment]) -> Vec<u8> {
    let decoded = |s: &Segment| {
        let file = std::fs::read(backup.store.directory().join(&s.object.key)).unwrap();
        zstd::stream::decode_all(&file[..]).unwrap()
    };
    segments.iter().flat_map(decoded).collect()
}

fn collection<'a>(backup: &'a Backup, name: &str) -> &'a Collection {
    backup.manifest.collections.iter().find(|c| c.name == name).unwrap()
}

/// Checks the text of a metadata file against the server's listing: options, indexes and their
/// order.
fn check_metadata(text: &str, collection: &Collection, has_uuid: bool) {
    let mut expected = String::from("{");
    let json = |raw: &RawDocumentBuf| {
        // The fields of these few are in the document's order, and hold no number that JSON can
        // write in two ways.
        let document = Document::try_from(raw).unwrap();
        reader::json(&Bson::Document(document))
    };
    if collection.options.bson.iter().next().is_some() {
        expected += &format!("\"options\":{},", json(&collection.options.bson));
    }
    let indexes: Vec<String> = collection.indexes.iter().map(|i| json(&i.bson)).collect();
    expected += &format!("\"indexes\":[{}],", indexes.join(","));
    if let Some(uuid) = collection.uuid.filter(|_| has_uuid) {
        expected += &format!("\"uuid\":\"{}\",", uuid.to_string().replace('-', ""));
    }
    let name = reader::json(&Bson::String(collection.name.clone()));
    let kind = format!("{:?}", collection.kind).to_lowercase();
    expected += &format!("\"collectionName\":{name},\"type\":\"{kind}\"}}");
    assert_eq!(text, expected);
}

async fn exported(vault: &Vault, backup: &Backup, options: &ExportOptions, to: &Path) -> Result<ExportReport, Error> {
    export::run(backup, options, &Destination::Path(to.to_owned()), &vault.cx).await
}

fn gzip(format: Format) -> ExportOptions {
    ExportOptions { gzip: Some(1), ..ExportOptions::of(format) }
}
