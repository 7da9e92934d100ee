//! Reads one range to its end, even if the snapshot is lost or the collection moves meanwhile.

use std::sync::atomic::Ordering;

use bson::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::shared::{Halt, Reading, Shared, Unit};
use crate::context::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::write::RangeWriter;
use crate::source::discover::{CollectionState, whereabouts};
use crate::source::scan::{Event, Failure, Scan};

/// How often a range is read again because its collection moved.
const MOVES: u32 = 20;

/// Reads one range and returns the operation time of the last reply. Nothing of it counts if its
/// collection is found to be gone.
pub(super) async fn read_range(
    shared: &Shared,
    reading: &Reading,
    unit: &Unit,
    writer: &mut RangeWriter,
    halt: &CancellationToken,
) -> Result<Option<Timestamp>, Halt> {
    let moment = &shared.moment;
    let mut moves = 0;
    loop {
        let data = lock(&reading.data).clone();
        let snapshot = moment.snapshot().filter(|_| !reading.found.is_capped() && !reading.altered.load(Ordering::Relaxed));
        let topology = shared.connection.topology;
        let scan = Scan {
            connection: shared.connection.clone(),
            collection: reading.found.clone(),
            data: data.clone(),
            size: reading.size,
            range: if snapshot.is_none() { unit.range.in_order(&reading.found, topology) } else { unit.range.clone() },
            filter: shared.filter.clone(),
            only_ids: false,
            snapshot,
            not_before: moment.time,
            reply_bytes: shared.pace.reply_bytes(shared.reply_bytes),
            pace: shared.pace.clone(),
        };
        let failure = match transfer(scan, writer, shared, halt).await? {
            Ok(end) => return Ok(end),
            Err(failure) => failure,
        };
        match failure {
            // Documents read so far count only at the same snapshot time as the rest. Reading the
            // range again is simple.
            Failure::TooOld(cause) if snapshot.is_some() => {
                writer.restart().await?;
                moment.give_up_snapshot(cause, &shared.connection).await?;
            }
            Failure::Moved(cause) => {
                writer.restart().await?;
                moves += 1;
                let found = halt
                    .run_until_cancelled(whereabouts(&shared.connection, &reading.found, &data))
                    .await
                    .ok_or_else(Error::interrupted)??;
                tracing::info!(?found, "{cause}");
                if moves > MOVES {
                    return Err(restless(reading, cause).into());
                }
                if moved(shared, reading, found)? {
                    return Ok(None);
                }
            }
            Failure::Stopped => return Err(Error::interrupted().into()),
            Failure::TooOld(error) | Failure::Other(error) => return Err(error.into()),
        }
    }
}

/// Decides what follows from where a collection is now. True if there is nothing more to read of
/// it. With the oplog slice the reading goes on. Without it the backup starts again, unless the
/// collection is simply gone.
fn moved(shared: &Shared, reading: &Reading, found: CollectionState) -> Result<bool, Halt> {
    let namespace = &reading.found.namespace;
    let change = match &found {
        CollectionState::Dropped => "was dropped".to_owned(),
        CollectionState::Replaced => "was replaced".to_owned(),
        CollectionState::Renamed(now) => format!("was renamed to {now}"),
        CollectionState::Unmoved => "was altered (its options or indexes)".to_owned(),
    };
    let what = format!("{namespace} {change} while the backup ran");
    let bridged = shared.moment.rely(|| what.clone());
    match found {
        CollectionState::Dropped => {
            lock(&reading.gone).get_or_insert_with(|| "dropped while the backup ran".to_owned());
            Ok(true)
        }
        CollectionState::Replaced if bridged => {
            lock(&reading.gone)
                .get_or_insert_with(|| "replaced by another collection of the same name while the backup ran".to_owned());
            Ok(true)
        }
        CollectionState::Renamed(now) if bridged => {
            *lock(&reading.data) = now;
            reading.altered.store(true, Ordering::Relaxed);
            Ok(false)
        }
        CollectionState::Unmoved if bridged => {
            reading.altered.store(true, Ordering::Relaxed);
            Ok(false)
        }
        // The backup would hold neither the dropped collection nor the new one, which is not
        // listed.
        CollectionState::Replaced | CollectionState::Renamed(_) | CollectionState::Unmoved => Err(Halt::Again(what)),
    }
}

fn restless(reading: &Reading, cause: Error) -> Error {
    let namespace = &reading.found.namespace;
    Error::new(
        ErrorKind::Server,
        format!("{namespace} was renamed or altered {MOVES} times while one part of it was read: {cause}"),
    )
    .hint("run the backup when no collection is renamed or altered, or exclude the namespace")
    .cause(cause)
}

/// Lets a scan run one batch ahead of the writer. The outer error is the writer's.
async fn transfer(
    scan: Scan,
    writer: &mut RangeWriter,
    shared: &Shared,
    halt: &CancellationToken,
) -> Result<Result<Option<Timestamp>, Failure>> {
    let (to, mut from) = mpsc::channel(1);
    let end = halt.child_token();
    let scanning = tokio::spawn({
        let (budget, end) = (shared.budget.clone(), end.clone());
        async move { scan.run(&budget, &to, &end).await }
    });
    let mut written = Ok(());
    loop {
        let begun = Instant::now();
        let event = from.recv().await;
        shared.starved_for(begun.elapsed());
        let Some(event) = event else { break };
        written = match event {
            Event::Batch(batch, share) => {
                let written = writer.write(batch).await;
                drop(share);
                written
            }
            Event::Restart => writer.restart().await,
        };
        if written.is_err() {
            end.cancel();
            break;
        }
    }
    drop(from);
    let scanned = scanning.await.map_err(|e| Error::new(ErrorKind::Internal, "a reading task died").cause(e))?;
    written.map(|()| scanned)
}
