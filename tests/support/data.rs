//! Test data, and the content of servers.

use bson::{Bson, Document, RawDocumentBuf, doc};
use bsonvault::format::digest::Content;
use futures::TryStreamExt as _;
use mongodb::{Client, Database};

use super::compare::{CompareOptions, compare};

/// The content of a collection according to a plain scan.
pub async fn content(database: &Database, collection: &str) -> Content {
    let mut content = Content::default();
    let mut cursor = database.collection::<RawDocumentBuf>(collection).find(doc! {}).await.unwrap();
    while let Some(document) = cursor.try_next().await.unwrap() {
        content.add(document.as_bytes());
    }
    content
}

pub async fn fill(database: &Database, collection: &str, ids: impl IntoIterator<Item = Bson>) {
    let documents: Vec<Document> = ids.into_iter().map(|id| doc! { "_id": id, "pad": "x".repeat(60) }).collect();
    database.collection::<Document>(collection).insert_many(documents).await.unwrap();
}

pub async fn assert_same(a: &Client, b: &Client, options: CompareOptions) {
    let comparison = compare(a, b, options).await;
    assert_eq!(comparison.differences, Vec::<String>::new());
    assert!(comparison.namespaces > 0);
}

pub fn only(database: &str) -> CompareOptions {
    CompareOptions { databases: Some(vec![database.to_owned()]), ..CompareOptions::default() }
}

/// Everything on a server, in a form that shows any change.
pub async fn snapshot(client: &Client) -> Vec<String> {
    let mut lines = Vec::new();
    for name in client.list_database_names().await.unwrap() {
        let database = client.database(&name);
        if ["admin", "config", "local"].contains(&name.as_str()) {
            continue;
        }
        let mut infos: Vec<Document> =
            database.run_cursor_command(doc! { "listCollections": 1 }).await.unwrap().try_collect().await.unwrap();
        infos.sort_by_key(|i| i.get_str("name").unwrap().to_owned());
        for info in infos {
            let collection = info.get_str("name").unwrap();
            lines.push(format!("{name} {info}"));
            lines.extend(documents(&database, collection).await.iter().map(|d| format!("{name}.{collection} {d:?}")));
        }
    }
    assert!(!lines.is_empty());
    lines
}

pub async fn documents(database: &Database, collection: &str) -> Vec<RawDocumentBuf> {
    let found = database.collection::<RawDocumentBuf>(collection).find(doc! {}).await.unwrap();
    found.try_collect().await.unwrap()
}

pub async fn insert(database: &Database, collection: &str, documents: impl IntoIterator<Item = Document>) {
    let documents: Vec<Document> = documents.into_iter().collect();
    for part in documents.chunks(5000) {
        database.collection::<Document>(collection).insert_many(part).await.unwrap();
    }
}

/// `n` documents of about 1,000 bytes.
pub fn numbered(n: i32) -> impl Iterator<Item = Document> {
    (0..n).map(|i| doc! { "_id": i, "n": i % 7, "pad": "x".repeat(970) })
}
