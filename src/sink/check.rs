//! Reads back the content of a collection, and counts and digests it.

use std::time::Duration;

use bson::oid::ObjectId;
use bson::raw::cstr;
use bson::{RawDocumentBuf, rawdoc};
use futures::TryStreamExt as _;
use mongodb::error::Error as DriverError;
use mongodb::options::RunCursorCommandOptions;
use mongodb::raw_batch_cursor::RawBatch;

use super::{Attempts, CollectionSpec, Target};
use crate::context::cpu::CpuPool;
use crate::context::memory::MemoryBudget;
use crate::context::progress::Item;
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::Content;
use crate::format::document::Elements;
use crate::format::manifest::{CollectionKind, Topology};
use crate::mongo::command;
use crate::mongo::failure::{describe, is_transient};
use crate::names::Namespace;

/// How long one reply of the cursor may take.
const BATCH_LIMIT: Duration = Duration::from_secs(90);
/// Memory for two replies of at most 16 MiB each: one is digested while the next arrives.
const REPLIES: u64 = 2 * LARGEST_REPLY;
/// The size of a reply without a limit.
const LARGEST_REPLY: u64 = 16 * 1024 * 1024;
/// How often a read may begin again from the start of a collection.
const RESTARTS: u32 = 20;
/// The smallest reply size to ask for on a bad network.
const SMALLEST_REPLY: u64 = 256 * 1024;

/// The largest number of documents to ask for in a single reply.
const MOST_IN_ONE: u64 = 100_000;

/// What the collection of this spec holds now, as a majority of the target's members has it. For a
/// time series, these are its buckets.
///
/// # Errors
/// Server errors, naming the namespace; [`ErrorKind::Interrupted`].
pub async fn content(
    target: &Target,
    spec: &CollectionSpec,
    cpu: &CpuPool,
    budget: &MemoryBudget,
    item: &Item,
) -> Result<Content> {
    let what = format!("reading back {}", spec.namespace);
    let mut attempts = Attempts::new(target, &what);
    let mut restarts = 0;
    let _share = target.unless_stopped(budget.take(REPLIES)).await?;
    let mut reading = Reading { target, spec, cpu, item, content: Content::default(), place: None, reply_bytes: None };
    loop {
        let (before, resumed) = (reading.content, reading.place.is_some());
        let Err(e) = target.unless_stopped(reading.go_on()).await?? else {
            item.finish();
            return Ok(reading.content);
        };
        if reading.content.documents > before.documents {
            attempts.progress();
        }
        if reading.place.is_none() || !is_transient(&e) {
            reading.forget();
            restarts += 1;
            if restarts > RESTARTS {
                let once = "it can only be read from the start, and was interrupted too often";
                return Err(describe(target.connection.role(), &what, e).context(once));
            }
        }
        // The server no longer knows the resume token: begin from the start.
        if resumed && !is_transient(&e) {
            continue;
        }
        // A network that keeps breaking lets smaller replies through.
        reading.reply_bytes = Some((reading.reply_bytes.unwrap_or(LARGEST_REPLY) / 4).max(SMALLEST_REPLY));
        attempts.again(e).await?;
    }
}

/// The same for an existing collection of about this size.
///
/// # Errors
/// As for [`content`].
pub async fn content_of(
    target: &Target,
    namespace: &Namespace,
    is_series: bool,
    about: Content,
    (cpu, budget): (&CpuPool, &MemoryBudget),
    item: &Item,
) -> Result<Content> {
    let kind = if is_series { CollectionKind::TimeSeries } else { CollectionKind::Collection };
    let spec = CollectionSpec { kind, content: about, ..CollectionSpec::standing(namespace.clone()) };
    content(target, &spec, cpu, budget, item).await
}

/// How many documents the collection of this spec has, as the server counts them.
///
/// # Errors
/// Server errors, naming the namespace; [`ErrorKind::Interrupted`].
pub async fn count(target: &Target, spec: &CollectionSpec) -> Result<u64> {
    let what = format!("counting {}", spec.namespace);
    let count = rawdoc! { "count": spec.data_collection() };
    let reply = target.run(&what, &spec.place.database, count).await?;
    crate::mongo::catalog::number(&reply, "n")
        .ok_or_else(|| Error::new(ErrorKind::Server, format!("{what}: the reply has no count")))
}

/// A collection being read, and its progress.
struct Reading<'a> {
    target: &'a Target,
    spec: &'a CollectionSpec,
    cpu: &'a CpuPool,
    item: &'a Item,
    content: Content,
    /// Where to resume: the server's token, and the only process that understands it.
    place: Option<(ObjectId, RawDocumentBuf)>,
    /// The approximate reply size; by default the largest possible.
    reply_bytes: Option<u64>,
}

impl Reading<'_> {
    /// Reads to the end, or to a driver error.
    async fn go_on(&mut self) -> Result<Result<(), DriverError>> {
        let database = self.target.connection.database(&self.spec.place.database);
        let opened = async {
            // A single reply needs no resume token.
            let process = if self.is_one_reply() { None } else { self.process().await? };
            if self.place.as_ref().is_some_and(|(of, _)| Some(*of) != process) {
                self.forget();
            }
            let options = RunCursorCommandOptions::builder().batch_size(self.batch_size()).build();
            let cursor =
                database.run_raw_cursor_command(self.find(process.is_some())).with_options(options).batch().into_future();
            let cursor = command::bounded(BATCH_LIMIT, cursor).await?;
            // Another process may have become primary meanwhile.
            Ok::<_, DriverError>((cursor, process, if self.is_one_reply() { None } else { self.process().await? }))
        };
        let (mut cursor, process) = match opened.await {
            Ok((cursor, before, after)) if before == after => (cursor, before),
            Ok(_) => return Ok(Err(std::io::Error::other("the target's primary changed").into())),
            Err(e) => return Ok(Err(e)),
        };
        let mut batch = match command::bounded(BATCH_LIMIT, cursor.try_next()).await {
            Ok(batch) => batch,
            Err(e) => return Ok(Err(e)),
        };
        while let Some(arrived) = batch {
            let token = token(&arrived);
            let digested = self.cpu.run(move || digest(&arrived));
            let (next, digested) = tokio::join!(command::bounded(BATCH_LIMIT, cursor.try_next()), digested);
            let digested = digested?;
            self.content.merge(&digested);
            self.item.add(digested.documents, digested.bytes);
            self.place = process.zip(token);
            batch = match next {
                Ok(batch) => batch,
                Err(e) => return Ok(Err(e)),
            };
        }
        Ok(Ok(()))
    }

    fn find(&self, resumable: bool) -> RawDocumentBuf {
        // A standalone has no majority; its writes were made durable before.
        let level = if self.target.connection.topology == Topology::Standalone { "local" } else { "majority" };
        let mut find = rawdoc! {
            "find": self.spec.data_collection(),
            "hint": { "$natural": 1 },
            "readConcern": { "level": level },
        };
        if let Some(documents) = self.batch_size() {
            find.append(cstr!("batchSize"), i64::from(documents));
        }
        if resumable {
            find.append(cstr!("$_requestResumeToken"), true);
            if let Some((_, token)) = &self.place {
                find.append(cstr!("$_resumeAfter"), token.clone());
            }
        }
        find
    }

    fn batch_size(&self) -> Option<u32> {
        let average = self.spec.content.bytes / self.spec.content.documents.max(1);
        if self.is_one_reply() {
            // One more than the collection has, so that the server closes the cursor.
            return Some(u32::try_from(self.spec.content.documents).unwrap_or(u32::MAX).saturating_add(1));
        }
        self.reply_bytes.map(|bytes| u32::try_from(bytes / average.max(1)).unwrap_or(u32::MAX).max(2))
    }

    fn is_one_reply(&self) -> bool {
        self.reply_bytes.is_none() && self.spec.content.bytes < SMALLEST_REPLY && self.spec.content.documents < MOST_IN_ONE
    }

    fn forget(&mut self) {
        self.item.take_back(self.content.documents, self.content.bytes);
        self.content = Content::default();
        self.place = None;
    }

    /// The process that answers, if it can resume from a token: mongos cannot.
    async fn process(&self) -> Result<Option<ObjectId>, DriverError> {
        if self.target.connection.topology == Topology::Sharded {
            return Ok(None);
        }
        let hello = command::run(&self.target.connection.database("admin"), rawdoc! { "hello": 1 }).await?;
        Ok(hello.get_document("topologyVersion").and_then(|v| v.get_object_id("processId")).ok())
    }
}

/// The resume token at the end of a reply.
fn token(batch: &RawBatch) -> Option<RawDocumentBuf> {
    let cursor = batch.as_raw_document().get_document("cursor").ok()?;
    cursor.get_document("postBatchResumeToken").ok().map(|token| token.to_owned())
}

fn digest(batch: &RawBatch) -> Result<Content> {
    let array = command::batch_array(batch)
        .map_err(|e| Error::new(ErrorKind::Server, "the target's reply to a read holds no documents").cause(e))?;
    let mut content = Content::default();
    for element in Elements::of(array)? {
        content.add(element?.value);
    }
    Ok(content)
}
