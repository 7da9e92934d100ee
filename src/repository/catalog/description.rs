//! Describes a backup for programs: its manifest, its location, and how its last checks ended.

use serde::ser::{Error as _, SerializeMap as _, SerializeSeq as _};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::Backup;
use crate::error::{Error, ErrorKind, Result};
use crate::format::checks::Checks;
use crate::format::manifest::{Collection, LeftOut, Segment};

/// The fields of a manifest, with `path` and `verified`. It is written piece by piece: as one JSON
/// tree it would take many times the size of its text.
#[derive(Debug)]
pub struct Described {
    /// Everything that is short.
    fields: Map<String, Value>,
    collections: Vec<Collection>,
    left_out: Vec<LeftOut>,
    slice: Vec<Segment>,
    /// Whether segments are listed.
    segments: bool,
}

impl Backup {
    /// The manifest's fields, with `path` and `verified`. The segment lists, by far the longest
    /// part, are included only on request.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`].
    pub async fn describe(self, segments: bool) -> Result<Described> {
        let (location, verified) = (self.location(), verified(&self.checks().await));
        let mut manifest = self.manifest;
        let buckets = manifest.buckets();
        let mut collections = std::mem::take(&mut manifest.collections);
        if !segments {
            collections.iter_mut().for_each(|collection| collection.segments = Vec::new());
        }
        let left_out = std::mem::take(&mut manifest.left_out);
        let slice = manifest.oplog.as_mut().map(|slice| std::mem::take(&mut slice.segments)).unwrap_or_default();
        let value = serde_json::to_value(&manifest)
            .map_err(|e| Error::new(ErrorKind::Internal, format!("the manifest cannot be written as JSON: {e}")).cause(e))?;
        let Value::Object(mut fields) = value else {
            return Err(Error::new(ErrorKind::Internal, "the manifest is not a JSON object"));
        };
        fields.insert("buckets".to_owned(), json!(buckets));
        fields.insert("path".to_owned(), json!(location));
        fields.insert("verified".to_owned(), verified);
        Ok(Described { fields, collections, left_out, slice, segments })
    }
}

impl Described {
    /// Adds a field.
    pub fn insert(&mut self, name: &str, value: Value) {
        self.fields.insert(name.to_owned(), value);
    }
}

impl Serialize for Described {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.fields.len()))?;
        for (name, value) in &self.fields {
            match (name.as_str(), value) {
                ("collections", _) => map.serialize_entry(name, &Collections(&self.collections, self.segments))?,
                ("leftOut", _) => map.serialize_entry(name, &self.left_out)?,
                ("oplog", Value::Object(slice)) => {
                    let mut slice = slice.clone();
                    slice.remove("segments");
                    map.serialize_entry(name, &Slice { fields: &slice, segments: self.segments.then_some(&self.slice) })?;
                }
                _ => map.serialize_entry(name, value)?,
            }
        }
        map.end()
    }
}

/// An oplog slice, with or without its segments.
#[derive(Serialize)]
struct Slice<'a> {
    #[serde(flatten)]
    fields: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segments: Option<&'a Vec<Segment>>,
}

/// Collections, with or without their segments.
struct Collections<'a>(&'a [Collection], bool);

impl Serialize for Collections<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let mut list = to.serialize_seq(Some(self.0.len()))?;
        for collection in self.0 {
            let mut value = serde_json::to_value(collection).map_err(S::Error::custom)?;
            if let Some(fields) = value.as_object_mut() {
                if !self.1 {
                    fields.remove("segments");
                }
                fields.insert("countedIn".to_owned(), json!(collection.kind.counted_in()));
            }
            list.serialize_element(&value)?;
        }
        list.end()
    }
}

/// How the last checks ended: `state` is `never`, `passed` or `failed`, with the check that
/// decides, and all of them.
#[must_use]
pub fn verified(checks: &Checks) -> Value {
    let verdict = checks.verdict();
    let state = verdict.map_or("never", |check| if check.passed { "passed" } else { "failed" });
    json!({
        "state": state,
        "kind": verdict.map(|check| check.kind),
        "finished": verdict.map(|check| check.finished),
        "checks": checks.by_time(),
    })
}
