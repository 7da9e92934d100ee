//! Commits a backup: metadata files, `SHA256SUMS`, and the manifest last.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};
use uuid::Uuid;

use super::outcome::Read;
use super::plan::BackupContext;
use crate::clock;
use crate::context::Context;
use crate::engine::asked_for::AskedFor;
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::Sha256Hex;
use crate::format::manifest::{
    Collection, Consistency, LeftOut, Manifest, OplogSlice, RawValue, Settings, Source, StoredObject, TEMPORARY, Tool, Totals,
};
use crate::format::{key, metadata};
use crate::names::BackupName;
use crate::repository::backend::Objects;
use crate::repository::checkpoint;

/// How many metadata files are stored at a time.
const AT_A_TIME: usize = 32;
/// The memory that their documents may take meanwhile.
const METADATA_BYTES: u64 = 16 * 1024 * 1024;
/// About how many copies of a document are in memory while it becomes JSON.
const TIMES_AS_JSON: u64 = 8;

/// What a manifest holds beside its collections.
pub(in crate::engine) struct About {
    pub(in crate::engine) name: BackupName,
    pub(in crate::engine) source: Source,
    pub(in crate::engine) settings: Settings,
    /// The consistency point. If it is in the future because the source's clock is fast, the
    /// present time counts.
    pub(in crate::engine) created: DateTime<Utc>,
    pub(in crate::engine) started: DateTime<Utc>,
    pub(in crate::engine) finished: DateTime<Utc>,
    pub(in crate::engine) consistency: Consistency,
    pub(in crate::engine) oplog: Option<OplogSlice>,
    pub(in crate::engine) left_out: Vec<LeftOut>,
}

/// Stores the metadata files of what was read. Returns the manifest, not stored yet.
pub(super) async fn describe(
    context: &BackupContext,
    name: &BackupName,
    read: Read,
    (consistency, oplog): (Consistency, Option<OplogSlice>),
    (started, finished): (DateTime<Utc>, DateTime<Utc>),
    place: &Objects,
    cx: &Context,
) -> Result<Manifest> {
    let mut left_out = context.listing.left_out.clone();
    let mut collections = Vec::new();
    for (found, read) in context.listing.collections.iter().zip(read.collections) {
        let (database, collection) = (found.namespace.database.clone(), found.namespace.collection.clone());
        if let Some(why) = read.gone {
            let reason = if found.is_temporary() { TEMPORARY.to_owned() } else { why };
            if context.selection.filter.takes(&found.namespace) {
                left_out.push(LeftOut { database, collection, uuid: found.uuid, reason });
            }
            continue;
        }
        let collection = Collection {
            database,
            name: collection,
            kind: found.kind,
            uuid: found.uuid,
            options: RawValue::of(&found.options),
            indexes: found.indexes.iter().map(|index| RawValue::of(index)).collect(),
            metadata: StoredObject { key: key::metadata(&read.stem), bytes: 0, sha256: Sha256Hex::zero() },
            documents: read.content.documents,
            bytes: read.content.bytes,
            digest: read.content.digest(),
            segments: read.segments,
        };
        collections.push(collection);
    }
    let (name, settings) = (name.clone(), context.settings.clone());
    let source = context.connection.describe().await;
    let created = consistency.moment().unwrap_or(finished);
    let about = About { name, source, settings, created, started, finished, consistency, oplog, left_out };
    manifest(about, collections, place, cx).await
}

/// Stores the metadata files of these collections under their keys. Returns the manifest, not
/// stored yet.
pub(in crate::engine) async fn manifest(
    about: About,
    mut collections: Vec<Collection>,
    place: &Objects,
    cx: &Context,
) -> Result<Manifest> {
    put_metadata(&mut collections, place, cx).await?;
    let mut manifest = Manifest {
        format_version: about.settings.format_version(about.consistency.replay_from.as_ref()),
        tool: Tool { name: env!("CARGO_PKG_NAME").to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
        id: Uuid::new_v4(),
        name: about.name,
        source: about.source,
        created: about.created.min(clock::now()),
        started: about.started,
        finished: about.finished,
        consistency: about.consistency,
        settings: about.settings,
        totals: Totals::of(&collections, about.oplog.as_ref()),
        collections,
        left_out: about.left_out,
        oplog: about.oplog,
        checksums: Sha256Hex::zero(),
        sha256: Sha256Hex::zero(),
    };
    if cx.cancel.is_cancelled() {
        return Err(Error::interrupted());
    }
    manifest.checksums = Sha256Hex::of(manifest.sums().as_bytes());
    Ok(manifest)
}

/// Stores the metadata files, several at a time: each waits for the disk twice, and there may be
/// 100,000 of them.
async fn put_metadata(collections: &mut [Collection], place: &Objects, cx: &Context) -> Result<()> {
    let (ending, budget) = (cx.cancel.child_token(), cx.memory.part(METADATA_BYTES));
    let puts = collections.iter_mut().map(|collection| async {
        let documents = collection.indexes.iter().chain([&collection.options]);
        let about = TIMES_AS_JSON * documents.map(|document| document.bson.as_bytes().len() as u64).sum::<u64>();
        let _share = budget.take(about).await;
        // Stop between two writes, never during one: it would go on while the directory is removed.
        if ending.is_cancelled() {
            return Ok(());
        }
        let indexes = collection.indexes.iter().map(|index| &*index.bson);
        let bytes = metadata::write(&collection.name, collection.kind, collection.uuid, &collection.options.bson, indexes);
        (collection.metadata.bytes, collection.metadata.sha256) = (bytes.len() as u64, Sha256Hex::of(&bytes));
        place.put(&collection.metadata.key, vec![Bytes::from(bytes)]).await.inspect_err(|_| ending.cancel())
    });
    // Wait for all of them, for the same reason.
    let failed =
        stream::iter(puts).buffer_unordered(AT_A_TIME).boxed().filter_map(|put| async { put.err() }).collect::<Vec<_>>().await;
    match failed.into_iter().next() {
        Some(error) => Err(error),
        None if cx.cancel.is_cancelled() => Err(Error::interrupted()),
        None => Ok(()),
    }
}

/// Removes collections that are still temporary at the end from the manifest and the store. The end
/// is that of the oplog slice, which leaves these collections, or else that of the reading.
///
/// # Errors
/// [`ErrorKind::Storage`].
pub(in crate::engine) async fn leave_out_temporary(
    manifest: &mut Manifest,
    at_the_end: &[Collection],
    place: &Objects,
) -> Result<()> {
    let asked_for = AskedFor::of(manifest)?;
    let stays = |c: &Collection| !c.is_temporary() || at_the_end.iter().any(|end| end.uuid.is_some() && end.uuid == c.uuid);
    let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(&mut manifest.collections).into_iter().partition(stays);
    manifest.collections = stay;
    for collection in go {
        for segment in &collection.segments {
            place.delete(&segment.object.key).await?;
        }
        place.delete(&collection.metadata.key).await?;
        if asked_for.has(&collection.namespace()) {
            let Collection { database, name, uuid, .. } = collection;
            manifest.left_out.push(LeftOut { database, collection: name, uuid, reason: TEMPORARY.to_owned() });
        }
    }
    manifest.totals = Totals::of(&manifest.collections, manifest.oplog.as_ref());
    manifest.checksums = Sha256Hex::of(manifest.sums().as_bytes());
    Ok(())
}

/// Checks once more that every object exists, and commits.
pub(in crate::engine) async fn commit(manifest: &Manifest, place: &Objects) -> Result<()> {
    for object in manifest.objects() {
        let size = place.size(&object.key).await?;
        if size != object.bytes {
            return Err(Error::new(
                ErrorKind::Storage,
                format!(
                    "{} has {size} bytes in {}, expected the {} that were written",
                    object.key,
                    place.location(),
                    object.bytes
                ),
            )
            .hint("something else changed the backup while it was written"));
        }
    }
    place.put(key::SHA256SUMS, vec![Bytes::from(manifest.sums())]).await?;
    place.put(key::MANIFEST, vec![Bytes::from(manifest.to_bytes()?)]).await?;
    // From here on the backup exists. What cannot be removed now does not undo it.
    if let Err(e) = checkpoint::remove(place).await {
        tracing::warn!("the checkpoint of a complete backup could not be removed: {e}");
    }
    if let Err(e) = place.delete(key::PROGRESS).await {
        tracing::warn!("{} of a complete backup could not be removed: {e}", key::PROGRESS);
    }
    Ok(())
}
