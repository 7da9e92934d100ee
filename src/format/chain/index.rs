//! `index.bson.zst` of a link: what is where in it, without reading the entries.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::format::document::Documents;
use crate::format::manifest::ClusterTime;

/// One document of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum IndexRecord {
    /// A frame of the link, in their order.
    Frame(FrameRecord),
    /// A minute in which something was written.
    Minute(Minute),
    /// A command that changed collections, indexes or views.
    Ddl(Ddl),
    /// Many deletes from one collection in a short time.
    Burst(Burst),
}

/// What a frame holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrameRecord {
    /// The first entry's time.
    pub from: ClusterTime,
    /// The last entry's time.
    pub to: ClusterTime,
    /// Its entries.
    pub entries: u64,
    /// Whether every reader needs it: it has commands, or parts of transactions.
    pub needed: bool,
    /// The collections that it writes to, with the number of operations.
    pub collections: Vec<CollectionCounts>,
}

/// How often a collection is written to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CollectionCounts {
    /// The collection's UUID, as text.
    pub uuid: Uuid,
    /// Its namespace at the first of the operations.
    pub namespace: String,
    /// Inserts.
    pub inserts: u64,
    /// Updates.
    pub updates: u64,
    /// Deletes.
    pub deletes: u64,
}

/// How much was written in a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Minute {
    /// The minute's first second since 1970.
    pub minute: u32,
    /// Operations on documents, and commands.
    pub operations: u64,
}

/// A command that changed the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ddl {
    /// Its time.
    pub time: ClusterTime,
    /// What it changed.
    pub namespace: String,
    /// The command's name.
    pub command: String,
    /// The documents of a collection that was dropped, if the entry says so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub documents: Option<i64>,
}

/// Many deletes in a short time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Burst {
    /// The first delete.
    pub from: ClusterTime,
    /// The last one.
    pub to: ClusterTime,
    /// The namespace.
    pub namespace: String,
    /// How many.
    pub deletes: u64,
}

impl IndexRecord {
    /// Its BSON.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal).
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        bson::serialize_to_vec(self)
            .map_err(|e| Error::new(crate::error::ErrorKind::Internal, "a record of an index cannot be written").cause(e))
    }

    /// The records of a frame of an index.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged).
    pub fn all_in(frame: &[u8]) -> Result<Vec<Self>> {
        let parse = |document: Result<&[u8]>| {
            bson::deserialize_from_slice(document?)
                .map_err(|e| Error::damaged(format!("a record of an index cannot be read: {e}")).cause(e))
        };
        Documents::of(frame).map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let time = |t| ClusterTime { t, i: 1 };
        let counts =
            CollectionCounts { uuid: Uuid::from_u128(7), namespace: "d.c".to_owned(), inserts: 1, updates: 2, deletes: 3 };
        let records = vec![
            IndexRecord::Frame(FrameRecord { from: time(1), to: time(2), entries: 6, needed: true, collections: vec![counts] }),
            IndexRecord::Minute(Minute { minute: 60, operations: 6 }),
            IndexRecord::Ddl(Ddl { time: time(2), namespace: "d.c".to_owned(), command: "drop".to_owned(), documents: Some(9) }),
            IndexRecord::Burst(Burst { from: time(1), to: time(2), namespace: "d.c".to_owned(), deletes: 1_000 }),
        ];
        let bytes: Vec<u8> = records.iter().flat_map(|record| record.to_bytes().unwrap()).collect();
        assert_eq!(IndexRecord::all_in(&bytes).unwrap(), records);
        assert!(IndexRecord::all_in(&bytes[..bytes.len() - 1]).is_err());
    }
}
