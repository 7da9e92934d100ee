//! Reads and stores every range of a backup, several at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::consistency::ConsistencyPoint;
use super::outcome::{Outcome, Read, ReadCollection};
use super::plan::BackupContext;
use super::range::read_range;
use super::run::Run;
use super::shared::{Done, Halt, Shared, share_out};
use super::{steer, throttle};
use crate::context::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::format::checkpoint::RangeDone;
use crate::format::key::{self, Stems};
use crate::format::manifest::Segment;
use crate::repository::backend::Objects;
use crate::repository::checkpoint::{self, Checkpoint};

/// Reads everything that was planned into `place`, except ranges that an interrupted attempt
/// stored.
pub(super) async fn read(
    context: &BackupContext,
    stems: &[String],
    resumed: Option<&Checkpoint>,
    moment: &Arc<ConsistencyPoint>,
    run: &Run<'_>,
) -> Result<Outcome> {
    let Run { place, cx, .. } = *run;
    cx.progress.begin("reading");
    let shared = Arc::new(share_out(context, stems, resumed, moment.clone(), run));

    let halt = cx.cancel.child_token();
    let mut workers = JoinSet::new();
    let begin = |workers: &mut JoinSet<_>| {
        for number in 0..context.room.most_readers {
            workers.spawn(work(number, shared.clone(), halt.clone()));
        }
    };
    begin(&mut workers);
    let mut steering = steer::Steering::new(context, shared.clone(), cx.progress.clone());
    let asked_of = throttle::place(&context.listing.collections);
    let throttling = async {
        match &context.usual {
            Some(usual) => throttle::throttle(&context.connection, asked_of.as_ref(), usual.clone(), &shared.pace).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(throttling);
    let mut first: Option<Halt> = None;
    loop {
        let ended = tokio::select! {
            ended = workers.join_next() => match ended {
                Some(ended) => ended.unwrap_or_else(|e| Err(Error::new(ErrorKind::Internal, "a reading task died").cause(e).into())),
                None if first.is_none() && shared.goes_on_with_temporary() => {
                    begin(&mut workers);
                    continue;
                }
                None => break,
            },
            lost = moment.failed(), if first.is_none() => Err(lost.into()),
            () = steering.go_on() => continue,
            () = &mut throttling => continue,
        };
        if let Err(why) = ended {
            // The first error counts; the others follow from it.
            halt.cancel();
            first.get_or_insert(why);
        }
    }
    if cx.cancel.is_cancelled() {
        return Err(Error::interrupted());
    }
    match first {
        Some(Halt::Failed(error)) => Err(error),
        Some(Halt::Again(why)) => Ok(Outcome::Again(why)),
        None => Ok(Outcome::Read(gather(&shared, place).await?)),
    }
}

/// Removes the objects of an attempt before the next one.
pub(super) async fn clear(place: &Objects) -> Result<()> {
    checkpoint::remove(place).await?;
    for entry in place.list().await? {
        if entry.key != key::PROGRESS {
            place.delete(&entry.key).await?;
        }
    }
    Ok(())
}

/// The key prefixes of each collection's objects.
pub(super) fn stems(context: &BackupContext) -> Vec<String> {
    let mut stems = Stems::default();
    context.listing.collections.iter().map(|found| stems.assign(&found.namespace)).collect()
}

/// Takes one range after the other until none is left.
async fn work(number: usize, shared: Arc<Shared>, halt: CancellationToken) -> Result<(), Halt> {
    let mut allowed = shared.allowed.subscribe();
    loop {
        tokio::select! {
            () = halt.cancelled() => return Err(Error::interrupted().into()),
            _always_there = allowed.wait_for(|readers| number < *readers) => {}
        }
        let unit = lock(&shared.queue).pop_front();
        let Some(unit) = unit else {
            // Wake the waiting workers: they find the queue empty.
            shared.allowed.send_replace(usize::MAX);
            return Ok(());
        };
        let reading = &shared.collections[unit.collection];
        if lock(&reading.gone).is_none() {
            let mut writer = reading.writer.range();
            let read = match read_range(&shared, reading, &unit, &mut writer, &halt).await {
                Ok(end) => writer.finish().await.map(|segments| (segments, end)).map_err(Halt::from),
                Err(why) => Err(why),
            };
            match read {
                Ok((segments, end)) => {
                    shared.durable.range(RangeDone {
                        collection: unit.collection,
                        range: unit.number,
                        segments: segments.iter().map(|(_, segment)| segment.clone()).collect(),
                        end: end.map(Into::into),
                        gone: lock(&reading.gone).clone(),
                    });
                    let mut done = lock(&reading.done);
                    done.segments.extend(segments);
                    done.end = done.end.max(end);
                }
                Err(why) => {
                    writer.abandon().await;
                    return Err(why);
                }
            }
        }
        shared.state.range_done();
        if reading.ranges_left.fetch_sub(1, Ordering::Relaxed) == 1 {
            reading.item.finish();
        }
    }
}

/// Collects the results of all ranges in order.
async fn gather(shared: &Shared, place: &Objects) -> Result<Read> {
    let mut collections = Vec::with_capacity(shared.collections.len());
    for reading in &shared.collections {
        let Done { mut segments, end } = std::mem::take(&mut *lock(&reading.done));
        let gone = lock(&reading.gone).clone();
        if gone.is_some() {
            for (_, segment) in segments.drain(..) {
                place.delete(&segment.object.key).await?;
            }
        }
        segments.sort_by_key(|(number, _)| *number);
        let segments: Vec<Segment> = segments.into_iter().map(|(_, segment)| segment).collect();
        let content = segments.iter().map(Segment::content).sum();
        collections.push(ReadCollection { stem: reading.stem.clone(), segments, content, gone, end });
    }
    Ok(Read { collections })
}
