//! A job's progress, as it is stored and as programs read it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::context::progress::CollectionProgress;

/// A job's progress. For a successful job, all that it did.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobProgress {
    /// What the job is doing, as a short phrase: `reading`.
    pub phase: String,
    /// Documents done in this phase.
    pub documents: u64,
    /// About how many documents there are; 0 if unknown.
    pub expected_documents: u64,
    /// Bytes done in this phase, uncompressed.
    pub bytes: u64,
    /// About how many bytes there are; 0 if unknown.
    pub expected_bytes: u64,
    /// Documents per second, over the last few seconds.
    pub documents_per_second: u64,
    /// Bytes per second, over the last few seconds.
    pub bytes_per_second: u64,
    /// Finished collections.
    pub collections_done: u64,
    /// All collections of this phase.
    pub collections_total: u64,
    /// Each collection of this phase. Events list only those in progress, fifty at most.
    pub collections: Vec<CollectionProgress>,
}

impl JobProgress {
    /// The progress of finished work: namespaces with their documents and bytes.
    pub(super) fn done(collections: impl Iterator<Item = (String, u64, u64)>) -> Self {
        let collections: Vec<CollectionProgress> = collections
            .map(|(namespace, documents, bytes)| CollectionProgress {
                namespace,
                documents,
                expected_documents: documents,
                bytes,
                expected_bytes: bytes,
                finished: true,
            })
            .collect();
        let documents = collections.iter().map(|c| c.documents).sum();
        let bytes = collections.iter().map(|c| c.bytes).sum();
        Self {
            documents,
            expected_documents: documents,
            bytes,
            expected_bytes: bytes,
            collections_done: collections.len() as u64,
            collections_total: collections.len() as u64,
            collections,
            ..Self::default()
        }
    }
}
