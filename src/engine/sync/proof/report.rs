//! What a proof found.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock;
use crate::engine::compare::pinned::Subject;
use crate::engine::compare::{Difference, DocumentDifferences, What};
use crate::format::manifest::ClusterTime;
use crate::mongo::MongoUri;

/// How many documents of a collection are named at most.
const NAMED: usize = 100;

/// What was found when a target was proven while it followed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProofReport {
    /// The target: scheme, hosts and database.
    pub target: String,
    /// Whether everything is proven to be the same. Indexes that are still being built do not
    /// count.
    pub same: bool,
    /// When it began.
    pub began: DateTime<Utc>,
    /// When it ended.
    pub ended: DateTime<Utc>,
    /// The position of the target when its last part was read.
    pub at: ClusterTime,
    /// How many collections and time series were read.
    pub namespaces: u64,
    /// How many documents of the source were read. Those of time series are buckets.
    pub documents: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Every difference, as `compare` tells it.
    #[schema(value_type = Vec<Object>)]
    pub differences: Vec<Difference>,
    /// What could not be proven, and why.
    pub unproven: Vec<Unproven>,
    /// How many indexes the target still lacks.
    pub debts: u64,
}

/// A collection that could not be proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unproven {
    /// Its name in the source.
    pub namespace: String,
    /// Why.
    pub reason: String,
}

impl ProofReport {
    pub(super) fn begun(target: &MongoUri) -> Self {
        let now = clock::now();
        Self {
            target: target.to_string(),
            same: false,
            began: now,
            ended: now,
            at: ClusterTime { t: 0, i: 0 },
            namespaces: 0,
            documents: 0,
            bytes: 0,
            differences: Vec::new(),
            unproven: Vec::new(),
            debts: 0,
        }
    }

    pub(super) fn count(&mut self, documents: u64, bytes: u64) {
        (self.documents, self.bytes) = (self.documents + documents, self.bytes + bytes);
    }

    pub(super) fn leave(&mut self, subject: &Subject, why: &str) {
        self.unproven.push(Unproven { namespace: subject.names().0, reason: why.to_owned() });
    }

    pub(super) fn end(&mut self) {
        self.differences.sort_by(|one, other| one.namespace.cmp(&other.namespace));
        self.same = self.differences.is_empty() && self.unproven.is_empty();
        self.ended = clock::now();
    }
}

/// Adds what differs of another part of the same collection.
pub(super) fn merge(found: &mut Vec<What>, more: Vec<What>) {
    for what in more {
        let What::Documents(documents) = what else {
            if !found.contains(&what) {
                found.push(what);
            }
            continue;
        };
        match found.iter_mut().find_map(documents_of) {
            Some(known) => add(known, documents),
            None => found.push(What::Documents(documents)),
        }
    }
}

fn documents_of(what: &mut What) -> Option<&mut DocumentDifferences> {
    match what {
        What::Documents(documents) => Some(documents),
        _ => None,
    }
}

fn add(known: &mut DocumentDifferences, more: DocumentDifferences) {
    known.differing += more.differing;
    known.missing += more.missing;
    known.extra += more.extra;
    known.complete &= more.complete;
    known.reason = known.reason.take().or(more.reason);
    let left = NAMED.saturating_sub(known.ids.len());
    known.ids.extend(more.ids.into_iter().take(left));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::compare::{HowDocument, NamedDocument};

    #[test]
    fn differences_of_parts_add_up() {
        let part = |differing: u64, complete| {
            let ids = (0..differing.min(80)).map(|n| NamedDocument { id: json!(n), what: HowDocument::Differs }).collect();
            What::Documents(DocumentDifferences { differing, complete, ids, ..DocumentDifferences::default() })
        };
        let mut found = Vec::new();
        merge(&mut found, vec![part(70, true)]);
        merge(&mut found, vec![part(1_000, false), What::Order]);
        merge(&mut found, vec![What::Order]);
        let [What::Documents(documents), What::Order] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((documents.differing, documents.complete, documents.ids.len()), (1_070, false, 100));
    }
}
