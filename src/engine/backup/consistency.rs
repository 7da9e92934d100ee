//! The consistency point of a backup: its snapshot time, a time to which its oplog slice leads, or
//! none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bson::Timestamp;

use super::outcome::Read;
use super::plan::BackupContext;
use super::slice::{Reliance, RunningSlice, Slice};
use crate::context::Context;
use crate::context::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::format::checkpoint::ResumeState;
use crate::format::manifest::{ClusterTime, Consistency, ConsistencyException, ConsistencyKind, OplogSlice};
use crate::oplog::window;
use crate::source::{discover, optime};

/// The time at which the ranges are read, and what makes up for ranges that cannot be read at it.
#[derive(Debug)]
pub(super) struct ConsistencyPoint {
    /// The time of the listing.
    pub(super) time: Option<Timestamp>,
    reliance: Option<Arc<Reliance>>,
    why_no_slice: Option<String>,
    allow_inconsistent: bool,
    without_snapshot: AtomicBool,
    inconsistent: AtomicBool,
    progress: Progress,
}

impl ConsistencyPoint {
    /// The state when reading begins, or goes on with `resumed`.
    pub(super) fn new(context: &BackupContext, slice: Option<&Slice>, resumed: ResumeState, cx: &Context) -> Self {
        // A slice that is needed and lost stays, and fails the backup.
        let reliance = slice.map(|slice| slice.reliance().clone()).filter(|r| r.is_needed() || r.why_lost().is_none());
        let has_moment = match context.kind {
            ConsistencyKind::Snapshot => true,
            ConsistencyKind::Oplog => reliance.is_some(),
            ConsistencyKind::None => false,
        };
        Self {
            time: context.time(),
            reliance,
            why_no_slice: context.why_no_slice.clone(),
            allow_inconsistent: context.allow_inconsistent,
            without_snapshot: AtomicBool::new(context.kind != ConsistencyKind::Snapshot || resumed.without_snapshot),
            inconsistent: AtomicBool::new(!has_moment || resumed.inconsistent),
            progress: cx.progress.clone(),
        }
    }

    /// What the reading depends on now.
    pub(super) fn resume_state(&self) -> ResumeState {
        ResumeState {
            without_snapshot: self.without_snapshot.load(Ordering::Relaxed),
            needs_oplog: self.relies(),
            inconsistent: self.inconsistent.load(Ordering::Relaxed),
        }
    }

    /// The time to read at. None if the newest committed documents are read.
    pub(super) fn snapshot(&self) -> Option<Timestamp> {
        self.time.filter(|_| !self.without_snapshot.load(Ordering::Relaxed))
    }

    /// Makes the oplog slice make up for what is not read at the snapshot time. False if there is
    /// none. A note says why the backup becomes one with an oplog.
    pub(super) fn rely(&self, why: impl FnOnce() -> String) -> bool {
        let Some(reliance) = &self.reliance else { return false };
        let is_new = !reliance.is_needed();
        let relies = reliance.rely();
        if relies && is_new {
            self.progress.note(format!("the backup keeps an oplog slice: {}", why()));
        }
        relies
    }

    /// Whether an oplog slice could make up for what is not read at the snapshot time.
    pub(super) fn may_rely(&self) -> bool {
        self.reliance.is_some()
    }

    /// Whether the oplog slice makes up for what is not read at the snapshot time.
    pub(super) fn relies(&self) -> bool {
        self.reliance.as_ref().is_some_and(|reliance| reliance.is_needed())
    }

    /// Waits until the slice that the backup needs is lost, so that reading on is of no use.
    pub(super) async fn failed(&self) -> Error {
        match &self.reliance {
            Some(reliance) if !self.allow_inconsistent => reliance.failed().await,
            _ => std::future::pending().await,
        }
    }

    /// Handles the loss of the snapshot time's history: the rest is read without it, if possible.
    ///
    /// # Errors
    /// [`ErrorKind::SnapshotLost`].
    pub(super) async fn give_up_snapshot(&self, cause: Error, connection: &crate::mongo::Connection) -> Result<()> {
        if self.rely(|| "the source no longer has the history of the snapshot time".to_owned()) {
            self.without_snapshot.store(true, Ordering::Relaxed);
        } else if self.allow_inconsistent {
            self.without_snapshot.store(true, Ordering::Relaxed);
            self.inconsistent.store(true, Ordering::Relaxed);
        } else {
            return Err(self.too_old(cause, connection).await);
        }
        Ok(())
    }

    /// Explains error 239: what history the source keeps, and why the oplog does not help.
    async fn too_old(&self, cause: Error, connection: &crate::mongo::Connection) -> Error {
        let time = self.time.map(|t| ClusterTime::from(t).to_string()).unwrap_or_default();
        let kept = match discover::history_seconds(connection).await {
            Some(seconds) => format!("it keeps {seconds} seconds (minSnapshotHistoryWindowInSeconds)"),
            None => "it keeps minSnapshotHistoryWindowInSeconds, 300 by default".to_owned(),
        };
        let lost = self.reliance.as_ref().and_then(|reliance| reliance.why_lost());
        let oplog = match lost.or_else(|| self.why_no_slice.clone()) {
            Some(why) => format!("; the oplog could make up for it, but cannot be kept: {why}"),
            None => String::new(),
        };
        Error::new(
            ErrorKind::SnapshotLost,
            format!(
                "the source no longer has the history of the snapshot time {time} (error 239, SnapshotTooOld): {kept}, and \
                 reading took longer{oplog}"
            ),
        )
        .hint(
            "grant the login the role backup or clusterMonitor on admin: with the oplog, a backup may take longer; or raise the \
             source's history, db.adminCommand({setParameter: 1, minSnapshotHistoryWindowInSeconds: 3600}); or read faster \
             (closer to the source, more [[readers]], fewer namespaces at a time); or pass [[allow-inconsistent]] for a backup without a \
             consistency point",
        )
        .cause(cause)
    }

    /// Determines the consistency point once everything is read, and ends the slice. The slice is
    /// kept if the backup needs it.
    ///
    /// Capped collections cannot be read at a snapshot time. One belongs to it if the oplog shows
    /// no write to it between that time and the end of its read. The others need the slice, or are
    /// exceptions.
    ///
    /// # Errors
    /// Those of [`Slice::finish`] if the backup needs the slice, else those of [`Slice::discard`].
    pub(super) async fn conclude(
        &self,
        read: &Read,
        context: &BackupContext,
        slice: &mut RunningSlice,
    ) -> Result<(Consistency, Option<OplogSlice>)> {
        let time = self.time.filter(|_| !self.inconsistent.load(Ordering::Relaxed));
        let Some(time) = time else {
            slice.end(false).await?;
            // With nothing to read there may be no time, and nothing can disagree.
            let nothing_read = self.time.is_none() && context.kind == ConsistencyKind::Snapshot;
            return Ok((plain(if nothing_read { ConsistencyKind::Snapshot } else { ConsistencyKind::None }, None), None));
        };
        // A listing after a restart may be of a member that is behind.
        let start = slice.get().map(Slice::start).filter(|start| start.since <= time);
        let replay_from = start.map(|start| start.from.into());
        let exceptions = if self.relies() { Vec::new() } else { self.exceptions(read, context, time).await };
        if !self.relies() {
            slice.end(false).await?;
            let snapshot = plain(ConsistencyKind::Snapshot, Some(time));
            return Ok((Consistency { replay_from, exceptions, ..snapshot }, None));
        }
        let now = optime::now(&context.connection).await?;
        let to = read.collections.iter().filter_map(|c| c.end).fold(now, Timestamp::max);
        match slice.finish(to, !self.allow_inconsistent).await {
            Ok(slice) => {
                let consistency = plain(ConsistencyKind::Oplog, Some(time));
                Ok((Consistency { from: Some(slice.from), to: Some(slice.to), replay_from, ..consistency }, Some(slice)))
            }
            Err(e) if self.allow_inconsistent && e.kind() != ErrorKind::Interrupted => {
                self.progress.note(format!("the backup has no consistency point: {e}"));
                Ok((plain(ConsistencyKind::None, None), None))
            }
            Err(e) => Err(e),
        }
    }

    /// The capped collections that do not belong to the snapshot. None if the slice can make up for
    /// them.
    async fn exceptions(&self, read: &Read, context: &BackupContext, time: Timestamp) -> Vec<ConsistencyException> {
        let mut exceptions = Vec::new();
        for (found, read) in context.listing.collections.iter().zip(&read.collections) {
            let (Some(uuid), true, None) = (found.uuid, found.is_capped(), &read.gone) else { continue };
            let reason = match window::touches(&context.connection, uuid, time, read.end.unwrap_or(time)).await {
                Ok(false) => continue,
                Ok(true) if self.rely(|| format!("{} is capped, and was written to meanwhile", found.namespace)) => {
                    return Vec::new();
                }
                Err(_) if self.rely(|| format!("{} is capped, and may have been written to meanwhile", found.namespace)) => {
                    return Vec::new();
                }
                Ok(true) => "capped, and written to while the backup ran".to_owned(),
                Err(e) if e.kind() == ErrorKind::Denied => {
                    "capped, and the login cannot read the oplog to prove that it was not written to while the backup ran"
                        .to_owned()
                }
                Err(e) => format!("capped, and it cannot be proven that it was not written to while the backup ran: {e}"),
            };
            let (database, collection) = (found.namespace.database.clone(), found.namespace.collection.clone());
            exceptions.push(ConsistencyException { database, collection, reason });
        }
        exceptions
    }
}

fn plain(kind: ConsistencyKind, time: Option<Timestamp>) -> Consistency {
    let cluster_time = time.map(Into::into);
    Consistency { kind, cluster_time, from: None, to: None, replay_from: None, exceptions: Vec::new() }
}
