//! Reads back what a collection holds, by means of its own, and counts and digests it.

use std::time::Duration;

use bson::rawdoc;
use futures::TryStreamExt as _;
use mongodb::error::Error as DriverError;
use mongodb::raw_batch_cursor::RawBatch;

use super::{Attempts, Blueprint, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::Content;
use crate::format::document::Elements;
use crate::format::manifest::Topology;
use crate::mongo::command;
use crate::pipeline::budget::Budget;
use crate::pipeline::cpu::Cpu;
use crate::pipeline::progress::Item;

/// How long one reply of the cursor may take.
const BATCH_LIMIT: Duration = Duration::from_secs(180);
/// What two replies take, each of which has 16 MiB at most: one is digested while the next is on its way.
const REPLIES: u64 = 2 * 16 * 1024 * 1024;

/// What the collection of this blueprint holds now, as a majority of the target's members has it. For a time series that is its
/// buckets.
///
/// # Errors
/// The server's, naming the namespace; [`ErrorKind::Interrupted`].
pub async fn content(target: &Target, blueprint: &Blueprint, cpu: &Cpu, budget: &Budget, item: &Item) -> Result<Content> {
    let what = format!("reading back {}", blueprint.namespace);
    let mut attempts = Attempts::new(target, &what);
    let _share = target.unless_stopped(budget.take(REPLIES)).await?;
    loop {
        let mut content = Content::default();
        match target.unless_stopped(read(target, blueprint, cpu, &mut content, item)).await?? {
            Ok(()) => {
                item.finish();
                return Ok(content);
            }
            // A cursor cannot be resumed: from the start.
            Err(e) => {
                item.take_back(content.documents, content.bytes);
                attempts.again(e).await?;
            }
        }
    }
}

async fn read(
    target: &Target,
    blueprint: &Blueprint,
    cpu: &Cpu,
    content: &mut Content,
    item: &Item,
) -> Result<Result<(), DriverError>> {
    // A standalone has no majority; what it wrote was made durable before.
    let level = if target.connection.topology == Topology::Standalone { "local" } else { "majority" };
    let find = rawdoc! {
        "find": blueprint.data_collection(),
        "hint": { "$natural": 1 },
        "readConcern": { "level": level },
    };
    let database = target.connection.database(&blueprint.namespace.database);
    let mut cursor = match command::bounded(BATCH_LIMIT, database.run_raw_cursor_command(find).batch().into_future()).await {
        Ok(cursor) => cursor,
        Err(e) => return Ok(Err(e)),
    };
    let mut batch = match command::bounded(BATCH_LIMIT, cursor.try_next()).await {
        Ok(batch) => batch,
        Err(e) => return Ok(Err(e)),
    };
    while let Some(arrived) = batch {
        let digested = cpu.run(move || digest(&arrived));
        let (next, digested) = tokio::join!(command::bounded(BATCH_LIMIT, cursor.try_next()), digested);
        let digested = digested?;
        content.merge(&digested);
        item.add(digested.documents, digested.bytes);
        batch = match next {
            Ok(batch) => batch,
            Err(e) => return Ok(Err(e)),
        };
    }
    Ok(Ok(()))
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
