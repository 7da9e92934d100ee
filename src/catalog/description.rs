//! A backup as programs are shown it: its manifest, with where it is and how its last checks ended.

use serde_json::{Map, Value, json};

use super::Backup;
use crate::error::{Error, ErrorKind, Result};
use crate::format::checks::Checks;

impl Backup {
    /// The manifest's fields, with `path` and `verified`; its segment lists, by far the longest part of it, only where they are asked for.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`].
    pub async fn describe(&self, segments: bool) -> Result<Map<String, Value>> {
        let value = serde_json::to_value(&self.manifest)
            .map_err(|e| Error::new(ErrorKind::Internal, format!("the manifest cannot be shown as JSON: {e}")).cause(e))?;
        let Value::Object(mut fields) = value else {
            return Err(Error::new(ErrorKind::Internal, "the manifest is no JSON object"));
        };
        if !segments {
            let collections = fields.get_mut("collections").and_then(Value::as_array_mut).into_iter().flatten();
            for collection in collections.filter_map(Value::as_object_mut) {
                collection.remove("segments");
            }
            if let Some(slice) = fields.get_mut("oplog").and_then(Value::as_object_mut) {
                slice.remove("segments");
            }
        }
        let collections = fields.get_mut("collections").and_then(Value::as_array_mut).into_iter().flatten();
        for (collection, of) in collections.filter_map(Value::as_object_mut).zip(&self.manifest.collections) {
            collection.insert("countedIn".to_owned(), json!(of.kind.counted_in()));
        }
        fields.insert("buckets".to_owned(), json!(self.manifest.buckets()));
        fields.insert("path".to_owned(), json!(self.location()));
        fields.insert("verified".to_owned(), verified(&self.checks().await));
        Ok(fields)
    }
}

/// How the last checks ended: `state` is `never`, `passed` or `failed`, with the check that decides, and all of them.
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
