//! Counts what the target's collections hold: what an import would remove.

use bson::rawdoc;

use super::Target;
use crate::error::{ErrorKind, Result};
use crate::mongo::catalog::{self, ListedCollection};
use crate::names::Namespace;

/// The documents of an existing collection in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holdings {
    /// None. A view holds none of its own.
    Nothing,
    /// This number, as the server counts them; for a time series, its buckets.
    Documents(u64),
    /// The login may not read it.
    Unknown,
}

impl Holdings {
    /// What a collection or a time series holds.
    ///
    /// # Errors
    /// Server errors, naming the namespace; [`ErrorKind::Interrupted`].
    pub async fn of(target: &Target, database: &str, there: &ListedCollection) -> Result<Self> {
        if there.kind == "view" {
            return Ok(Self::Nothing);
        }
        let namespace = Namespace::new(database, &*there.name);
        let what = format!("counting {namespace}");
        // The server's counter is wrong after a crash, so a read checks whether there is anything.
        let first = rawdoc! { "find": &*there.name, "limit": 1, "singleBatch": true, "projection": { "_id": 1 } };
        match target.run(&what, database, first).await {
            Ok(reply) if is_empty(&reply) => return Ok(Self::Nothing),
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::Denied => return Ok(Self::Unknown),
            Err(e) => return Err(e),
        }
        let counted = if there.kind == "timeseries" { namespace.buckets().collection } else { namespace.collection };
        match target.run(&what, database, rawdoc! { "count": counted }).await {
            Ok(reply) => Ok(Self::Documents(catalog::number(&reply, "n").unwrap_or(0).max(1))),
            Err(e) if e.kind() == ErrorKind::Denied => Ok(Self::Unknown),
            Err(e) => Err(e),
        }
    }

    /// The number, if it is known.
    #[must_use]
    pub fn documents(self) -> Option<u64> {
        match self {
            Self::Nothing => Some(0),
            Self::Documents(documents) => Some(documents),
            Self::Unknown => None,
        }
    }
}

/// Whether the first batch of a cursor is empty.
fn is_empty(reply: &bson::Document) -> bool {
    reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch")).is_ok_and(Vec::is_empty)
}
