//! The content of the samples, according to `expected.json` beside them.

use std::collections::BTreeMap;

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt as _;
use mongodb::{Client, Database};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::support::files::sample;

/// Every difference between a server's content of these databases (default: all of the samples')
/// and the expected content.
pub(super) async fn differences(client: &Client, databases: &[&str]) -> Vec<String> {
    let expected: BTreeMap<String, BTreeMap<String, Value>> =
        serde_json::from_slice(&std::fs::read(sample("expected.json")).unwrap()).unwrap();
    let mut found = Vec::new();
    let mut namespaces = 0;
    for (name, collections) in expected.iter().filter(|(name, _)| databases.is_empty() || databases.contains(&name.as_str())) {
        let database = client.database(name);
        let infos = infos(&database).await;
        let known = |info: &str| collections.contains_key(info) || info.starts_with("system.");
        found.extend(infos.keys().filter(|info| !known(info)).map(|extra| format!("{name}.{extra} is too much")));
        for (collection, expected) in collections {
            namespaces += 1;
            let at = format!("{name}.{collection}");
            match infos.get(collection) {
                None => found.push(format!("{at} is missing")),
                Some(info) => {
                    found.extend(of_collection(&database, info, expected).await.iter().map(|what| format!("{at}: {what}")))
                }
            }
        }
    }
    assert!(namespaces >= 1, "nothing was compared");
    found
}

async fn infos(database: &Database) -> BTreeMap<String, Document> {
    let cursor = database.run_cursor_command(doc! { "listCollections": 1 }).await.unwrap();
    let infos: Vec<Document> = cursor.try_collect().await.unwrap();
    infos.into_iter().map(|info| (info.get_str("name").unwrap().to_owned(), info)).collect()
}

async fn of_collection(database: &Database, info: &Document, expected: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, is: String, should: String| {
        if is != should {
            found.push(format!("{what} {is}, expected {should}"));
        }
    };
    let name = info.get_str("name").unwrap();
    compare("type", info.get_str("type").unwrap().to_owned(), expected["type"].as_str().unwrap().to_owned());
    let options = info.get_document("options").unwrap().clone();
    compare("options", text(&json(options)), text(&parsed(&expected["options"])));
    if let Some(listed) = expected["indexes"].as_array() {
        let cursor = database.run_cursor_command(doc! { "listIndexes": name }).await.unwrap();
        let indexes: Vec<Document> = cursor.try_collect().await.unwrap();
        compare("indexes", sorted(indexes.into_iter().map(json)), sorted(listed.iter().map(parsed)));
    }
    if let Some(count) = expected["count"].as_u64() {
        let documents: Vec<RawDocumentBuf> = database.collection(name).find(doc! {}).await.unwrap().try_collect().await.unwrap();
        compare("count", documents.len().to_string(), count.to_string());
        compare("documents", sum(&documents), expected["documents"].as_str().unwrap().to_owned());
    }
    found
}

fn json(document: Document) -> Value {
    Bson::Document(document).into_canonical_extjson()
}

fn parsed(text: &Value) -> Value {
    serde_json::from_str(text.as_str().unwrap()).unwrap()
}

fn sorted(values: impl Iterator<Item = Value>) -> String {
    let mut texts: Vec<String> = values.map(|value| text(&value)).collect();
    texts.sort();
    texts.join("\n")
}

/// The order of keys matters, except at the top level.
fn text(value: &Value) -> String {
    let mut fields: Vec<String> = value.as_object().unwrap().iter().map(|(name, value)| format!("{name}: {value}")).collect();
    fields.sort();
    fields.join(", ")
}

/// The sum modulo 2^256 of the SHA-256 of each document, in hexadecimal.
fn sum(documents: &[RawDocumentBuf]) -> String {
    let mut sum = [0u8; 32];
    for document in documents {
        let mut carry = 0u16;
        for (a, b) in sum.iter_mut().zip(Sha256::digest(document.as_bytes())).rev() {
            carry += u16::from(*a) + u16::from(b);
            *a = carry as u8;
            carry >>= 8;
        }
    }
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}
