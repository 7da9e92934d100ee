//! Finds documents that an older target refuses, by reading the backup before anything is written.

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::select::Selected;
use crate::context::Context;
use crate::context::cpu::CpuPool;
use crate::error::{Error, Result};
use crate::format::document::{self, Documents};
use crate::format::manifest::{Collection, CollectionKind, Segment};
use crate::mongo::Version;
use crate::pipeline::read::SegmentReader;
use crate::repository::backend::Objects;
use crate::repository::catalog::Backup;
use crate::sink::{Target, limits};

/// How many segments are read at a time.
const READERS: usize = 2;
/// From this version on, servers accept field names that begin with `$` at the top of a document.
const TAKES_DOLLARS: Version = Version(5, 0, 0);

/// Refuses a backup with documents that the target does not accept. Only a target older than the
/// backup's source can refuse any, so only then is the backup read for it.
///
/// # Errors
/// [`ErrorKind::Refused`](crate::error::ErrorKind::Refused), which names each collection;
/// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged);
/// [`ErrorKind::Interrupted`](crate::error::ErrorKind::Interrupted).
pub(super) async fn refuse(backup: &Backup, selected: &[Selected<'_>], target: &Target, cx: &Context) -> Result<()> {
    let connection = &target.connection;
    let version = cx.cancel.run_until_cancelled(connection.behaves_as()).await.ok_or_else(Error::interrupted)?;
    let source = Version::parse(&backup.manifest.source.server_version);
    if version >= TAKES_DOLLARS || source.is_some_and(|source| source < TAKES_DOLLARS) {
        return Ok(());
    }
    let mut reasons = Vec::new();
    for Selected { collection, to } in selected {
        let counting = with_dollars(&backup.store, collection, &cx.cpu);
        let count = cx.unless_cancelled(counting).await?;
        if count > 0 {
            reasons.push(format!(
                "{to} holds {count} documents with a field name that begins with $, which servers accept from {}.{} on",
                TAKES_DOLLARS.0, TAKES_DOLLARS.1
            ));
        }
    }
    limits::refusal(connection, version, &reasons).map_or(Ok(()), Err)
}

/// How many documents of a collection have such a name at their top.
async fn with_dollars(store: &Objects, collection: &Collection, cpu: &CpuPool) -> Result<u64> {
    if collection.kind != CollectionKind::Collection {
        return Ok(0);
    }
    let counts = collection.segments.iter().map(|segment| with_dollars_in(store, segment, cpu));
    stream::iter(counts).buffer_unordered(READERS).boxed().try_fold(0, |sum, count| async move { Ok(sum + count) }).await
}

async fn with_dollars_in(store: &Objects, segment: &Segment, cpu: &CpuPool) -> Result<u64> {
    let mut reader = SegmentReader::open(store, segment, cpu).await?;
    let mut count = 0;
    while let Some(frame) = reader.next().await? {
        count += cpu.run(move || count_dollars(&frame)).await?;
    }
    Ok(count)
}

fn count_dollars(frame: &[u8]) -> Result<u64> {
    let mut count = 0;
    for document in Documents::of(frame) {
        let document = document?;
        // `insert` checks the names at the top. Documents with an empty timestamp there are written
        // by `update`, which checks all names.
        let counts = match document::has_empty_timestamp(document)? {
            true => document::has_operator_names(document)?,
            false => document::has_operator_names_at_top(document)?,
        };
        count += u64::from(counts);
    }
    Ok(count)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]
mod tests {
    use bson::{Timestamp, rawdoc};

    use super::*;

    #[test]
    fn names_count_at_the_top_and_beside_an_empty_timestamp_anywhere() {
        let empty = Timestamp { time: 0, increment: 0 };
        for (document, counts) in [
            (rawdoc! { "_id": 1, "$x": 1 }, true),
            (rawdoc! { "_id": 1, "x$": 1, "in": { "$x": 1 } }, false),
            (rawdoc! { "_id": 1, "at": empty, "in": { "x": [{ "$x": 1 }] } }, true),
            (rawdoc! { "_id": 1, "at": empty, "in": { "x$": 1, "at": empty } }, false),
            (rawdoc! { "_id": 1, "in": { "at": empty, "$x": 1 } }, false),
        ] {
            assert_eq!(count_dollars(document.as_bytes()).unwrap(), u64::from(counts), "{document:?}");
        }
    }
}
