//! mongodump's metadata files: real ones are read as they are, and no text makes the reader panic.

use std::path::{Path, PathBuf};

use bson::{Bson, Document, RawDocument, RawDocumentBuf, rawdoc};
use bsonvault::error::ErrorKind;
use bsonvault::format::key;
use bsonvault::format::manifest::CollectionKind;
use bsonvault::format::metadata::read::{Metadata, Versions};
use bsonvault::format::metadata::{self, text::canonical};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::documents::any_document;
use crate::mongodump::{gunzip, samples};

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.to_str().unwrap().contains(".metadata.json") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The text of every metadata file of the samples, with the file's name.
fn texts() -> Vec<(String, Vec<u8>)> {
    let text = |path: &Path| {
        let stored = std::fs::read(path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        match name.strip_suffix(".gz") {
            Some(name) => (name.to_owned(), gunzip(&stored)),
            None => (name.to_owned(), stored),
        }
    };
    files(&samples()).iter().map(|path| text(path)).collect()
}

/// Canonical Extended JSON with sorted keys.
fn ordered(value: Bson) -> String {
    match value {
        Bson::Document(document) => {
            let members: Vec<String> =
                document.into_iter().map(|(k, v)| format!("{}:{}", serde_json::to_string(&k).unwrap(), ordered(v))).collect();
            format!("{{{}}}", members.join(","))
        }
        Bson::Array(values) => format!("[{}]", values.into_iter().map(ordered).collect::<Vec<_>>().join(",")),
        leaf => leaf.into_canonical_extjson().to_string(),
    }
}

fn text_of(metadata: &Metadata) -> String {
    let document = |raw: &RawDocument| ordered(Bson::Document(Document::try_from(raw).unwrap()));
    let mut parts = Vec::new();
    if !metadata.options.is_empty() {
        parts.push(format!(r#""options":{}"#, document(&metadata.options)));
    }
    let indexes: Vec<String> = metadata.indexes.iter().map(|index| document(index)).collect();
    parts.push(format!(r#""indexes":[{}]"#, indexes.join(",")));
    parts.extend(metadata.uuid.map(|uuid| format!(r#""uuid":"{}""#, uuid.simple())));
    parts.extend(metadata.collection.as_ref().map(|name| format!(r#""collectionName":{}"#, ordered(name.clone().into()))));
    parts.extend(metadata.kind.as_ref().map(|kind| format!(r#""type":"{kind}""#)));
    format!("{{{}}}", parts.join(","))
}

#[test]
fn what_the_real_mongodump_wrote_is_read_as_it_stands() {
    let texts = texts();
    assert!(texts.len() > 100);
    for (name, text) in texts {
        let read = Metadata::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(text_of(&read), String::from_utf8(text.clone()).unwrap(), "{name}");
        let kind = match read.kind.as_deref() {
            Some("collection") => CollectionKind::Collection,
            Some("view") => CollectionKind::View,
            Some("timeseries") => CollectionKind::TimeSeries,
            other => panic!("{name}: {other:?}"),
        };
        let collection = read.collection.clone().unwrap();
        let again = metadata::write(&collection, kind, read.uuid, &read.options, read.indexes.iter().map(RawDocumentBuf::as_ref));
        let value = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&again), value(&text), "{name}");

        let escaped = name.strip_suffix(".metadata.json").unwrap();
        assert_eq!(key::escape_collection(&collection), escaped);
        match key::is_cut_short(escaped) {
            true => assert_ne!(key::unescape_collection(escaped), Some(collection)),
            false => assert_eq!(key::unescape_collection(escaped), Some(collection)),
        }
    }
}

#[test]
fn the_versions_that_the_real_mongodump_wrote_are_read() {
    let read = Versions::parse(&std::fs::read(samples().join("dir/prelude.json")).unwrap()).unwrap();
    assert_eq!((read.server.as_str(), read.tool.as_str()), ("6.0.5", "built-without-version-string"));
    for directory in ["dir-gzip", "oplog-dir-gzip"] {
        let text = gunzip(&std::fs::read(samples().join(directory).join("prelude.json.gz")).unwrap());
        assert_eq!(Versions::parse(&text).unwrap(), read);
    }
}

/// JSON made of the words of Extended JSON, so that almost valid wrappers are frequent.
fn any_json() -> impl Strategy<Value = String> {
    let words = [
        "$oid",
        "$numberInt",
        "$numberLong",
        "$numberDouble",
        "$numberDecimal",
        "$date",
        "$timestamp",
        "$binary",
        "$type",
        "$uuid",
        "$code",
        "$scope",
        "$symbol",
        "$regex",
        "$options",
        "$regularExpression",
        "$dbPointer",
        "$ref",
        "$id",
        "$undefined",
        "$minKey",
        "$maxKey",
        "t",
        "i",
        "base64",
        "subType",
        "pattern",
        "options",
        "indexes",
        "type",
        "a\\u0000",
    ];
    let texts =
        ["", "1", "-1", "1e5", "00", "AQI=", "0123456789abcdef01234567", "NaN", "1970-01-01T00:00:00Z", "\\u0000", "\\ud83d"];
    let leaf = prop_oneof![
        prop::sample::select(texts.map(|text| format!("\"{text}\"")).to_vec()),
        prop::sample::select(
            ["null", "true", "false", "0", "1", "-1", "1.5", "1e400", "99999999999999999999", "NaN"].map(str::to_owned).to_vec()
        ),
    ];
    leaf.prop_recursive(5, 40, 4, move |inner| {
        let members = vec((prop::sample::select(words.to_vec()), inner.clone()), 0..4);
        prop_oneof![
            vec(inner, 0..4).prop_map(|values| format!("[{}]", values.join(","))),
            members.prop_map(|members| {
                let members: Vec<String> = members.into_iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

/// The result must be valid BSON throughout, and an error must name a place.
fn feed(text: &[u8]) -> bool {
    let _whatever = Versions::parse(text);
    match Metadata::parse(text) {
        Ok(read) => {
            for document in [&read.options].into_iter().chain(&read.indexes) {
                bsonvault::format::document::check(document.as_bytes()).unwrap();
            }
            true
        }
        Err(error) => {
            assert!(error.kind() == ErrorKind::Damaged && error.to_string().starts_with("at "), "{error}");
            false
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn random_text_never_panics(text in ".{0,80}", bytes in vec(any::<u8>(), 0..80)) {
        feed(text.as_bytes());
        feed(&bytes);
    }

    #[test]
    fn any_json_is_read_or_refused(json in any_json(), modern in any::<bool>()) {
        feed(json.as_bytes());
        let kind = if modern { ",\"type\":\"view\"" } else { "" };
        feed(format!("{{\"options\":{{\"a\":{json}}},\"indexes\":[{json}]{kind}}}").as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_document_that_is_written_is_read(document in any_document(true), index in any_document(true)) {
        let [document, index] = [document, index].map(|d| RawDocumentBuf::from_bytes(d).unwrap());
        let text = metadata::write("c", CollectionKind::Collection, None, &document, [index.as_ref()]);
        // Text is lost only if JSON cannot express it.
        if let (Some(options), Some(index)) = (canonical(&document), canonical(&index)) {
            let read = Metadata::parse(&text).unwrap();
            prop_assert_eq!(canonical(&read.options), Some(options));
            prop_assert_eq!(canonical(&read.indexes[0]), Some(index));
        }
    }
}

#[test]
fn changed_metadata_never_panics() {
    let texts = texts();
    let mut read = 0;
    proptest!(ProptestConfig::with_cases(3000), |(
        of in any::<prop::sample::Index>(),
        changes in vec((any::<prop::sample::Index>(), ".{0,2}", 0usize..3), 1..4),
    )| {
        let (_, mut text) = of.get(&texts).clone();
        for (at, put, replaced) in changes {
            let at = at.index(text.len());
            let end = (at + replaced).min(text.len());
            text.splice(at..end, put.into_bytes());
        }
        feed(&text);
    });
    for (_, text) in &texts {
        for end in 0..text.len() {
            read += usize::from(feed(&text[..end]));
        }
    }
    // Only the empty file says nothing.
    assert_eq!(read, texts.len());
    assert!(!feed(rawdoc! { "a": 1 }.as_bytes()));
}
