//! Copies documents from one target collection to another through this program, when the server
//! cannot rename.

use std::sync::Arc;
use std::time::Duration;

use bson::{RawDocumentBuf, rawdoc};
use futures::TryStreamExt as _;
use mongodb::error::Error as DriverError;
use uuid::Uuid;

use super::insert::Inserter;
use super::step::Staged;
use super::{Attempts, CollectionSpec, Target};
use crate::context::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::Elements;
use crate::mongo::command;
use crate::names::Namespace;

/// How long one reply of the cursor may take.
const BATCH_LIMIT: Duration = Duration::from_secs(90);

/// How often reading begins again from the start.
const RESTARTS: u32 = 20;

/// Calls `take` with every batch of documents of a collection, in turn. If `uuid` is given, it must
/// be the collection's. If the read breaks, it begins again from the start, so `take` must be safe
/// to repeat.
pub(super) async fn each_batch<F: Future<Output = Result<()>>>(
    target: &Target,
    what: &str,
    from: &Namespace,
    uuid: Option<Uuid>,
    mut take: impl FnMut(Vec<u8>) -> F,
) -> Result<()> {
    let mut attempts = Attempts::new(target, what);
    for _ in 0..RESTARTS {
        let mut batches = 0;
        let take = |batch| {
            batches += 1;
            take(batch)
        };
        let Err(e) = target.unless_stopped(read(target, from, uuid, take)).await?? else { return Ok(()) };
        if batches > 0 {
            attempts.progress();
        }
        attempts.again(e).await?;
    }
    Err(Error::new(ErrorKind::Unreachable, format!("{what}: interrupted too often"))
        .hint("run the import again once the target is stable"))
}

async fn read<F: Future<Output = Result<()>>>(
    target: &Target,
    from: &Namespace,
    uuid: Option<Uuid>,
    mut take: impl FnMut(Vec<u8>) -> F,
) -> Result<Result<(), DriverError>> {
    let database = target.connection.database(&from.database);
    let mut find = rawdoc! { "find": from.collection.as_str(), "hint": { "$natural": 1 } };
    // Without a UUID, a dropped collection reads as empty.
    target.name_uuid(&mut find, uuid);
    let mut cursor = match command::bounded(BATCH_LIMIT, database.run_raw_cursor_command(find).batch().into_future()).await {
        Ok(cursor) => cursor,
        Err(e) => return Ok(Err(e)),
    };
    loop {
        let batch = match command::bounded(BATCH_LIMIT, cursor.try_next()).await {
            Ok(None) => return Ok(Ok(())),
            Ok(Some(batch)) => batch,
            Err(e) => return Ok(Err(e)),
        };
        let array = match command::batch_array(&batch) {
            Ok(array) => array,
            Err(e) => return Ok(Err(e)),
        };
        let mut documents = Vec::with_capacity(array.len());
        for element in Elements::of(array)? {
            documents.extend_from_slice(element?.value);
        }
        drop(batch);
        if !documents.is_empty() {
            take(documents).await?;
        }
    }
}

/// Inserts every bucket of a staged time series into `to`, which was just created.
pub(super) async fn documents(target: &Target, staged: &Staged, to: &CollectionSpec) -> Result<()> {
    let item = Progress::default().item(to.namespace.to_string(), 0, 0);
    let inserter = Inserter::new(target.clone(), Arc::new(to.clone()));
    let what = format!("reading the staged buckets of {}", staged.to);
    each_batch(target, &what, &staged.place.buckets(), Some(staged.uuid), |frame| {
        let insertion = inserter.insert(frame, &item);
        async { insertion.await.map(|_| ()) }
    })
    .await
}

/// Builds the indexes of `from` on `to`, unless they exist there. Every collection has the one on
/// `_id`.
pub(super) async fn indexes(target: &Target, from: &Namespace, to: &Namespace) -> Result<()> {
    let found = super::indexes::standing(target, from).await?;
    let specifications: Vec<RawDocumentBuf> = found.into_iter().filter(|i| i.get_str("name").ok() != Some("_id_")).collect();
    if specifications.is_empty() {
        return Ok(());
    }
    let command = super::indexes::command(target, &to.collection, specifications.iter().map(|i| i.as_bytes()))?;
    let what = format!("building the indexes of {to}");
    let mut attempts = Attempts::new(target, &what);
    loop {
        let tried = target.try_run(&to.database, command.clone(), None).await?;
        if attempts.judge(tried).await?.is_some() {
            return Ok(());
        }
    }
}
