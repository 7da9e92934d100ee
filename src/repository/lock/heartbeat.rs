//! The heartbeat of a backup: tells others, every few seconds until just before the commit, that it
//! runs and how far it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::context::lock;
use crate::context::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::format::heartbeat::{HEARTBEAT_SECONDS, Heartbeat};
use crate::format::manifest::{ClusterTime, FORMAT_VERSION};
use crate::repository::backend::Objects;
use crate::repository::layout;
use crate::system;

/// The heartbeat of one backup. It ends with [`HeartbeatWriter::stop`], or soon after it is
/// dropped.
pub struct HeartbeatWriter {
    state: Arc<HeartbeatState>,
    end: CancellationToken,
    task: JoinHandle<()>,
}

/// What a heartbeat reports beside the counters of [`Progress`].
#[derive(Debug, Default)]
pub struct HeartbeatState {
    snapshot_time: Mutex<Option<ClusterTime>>,
    oplog_time: Mutex<Option<ClusterTime>>,
    ranges: AtomicU64,
    ranges_done: AtomicU64,
}

impl HeartbeatState {
    /// An attempt begins: with this many ranges at this time, some of which are stored already.
    pub fn begin(&self, snapshot_time: Option<ClusterTime>, ranges: u64, done: u64) {
        set(&self.snapshot_time, snapshot_time);
        self.ranges.store(ranges, Ordering::Relaxed);
        self.ranges_done.store(done, Ordering::Relaxed);
    }

    /// The time up to which the oplog is kept. None if it is not kept any more.
    pub fn oplog_at(&self, time: Option<ClusterTime>) {
        set(&self.oplog_time, time);
    }

    /// All documents of one more range are stored.
    pub fn range_done(&self) {
        self.ranges_done.fetch_add(1, Ordering::Relaxed);
    }
}

impl HeartbeatWriter {
    /// Starts the heartbeat, after the [first] one was written.
    pub fn start(place: Objects, progress: Progress, first: Heartbeat) -> Self {
        let (state, end) = (Arc::new(HeartbeatState::default()), CancellationToken::new());
        let task = tokio::spawn(beat(state.clone(), place, progress, first, end.clone()));
        Self { state, end, task }
    }

    /// What the heartbeat reports. The attempts keep it up to date.
    pub fn state(&self) -> &Arc<HeartbeatState> {
        &self.state
    }

    /// Ends it. After the return, nothing writes any more.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if it had died.
    pub async fn stop(self) -> Result<()> {
        self.end.cancel();
        self.task.await.map_err(|e| Error::new(ErrorKind::Internal, "the heartbeat died").cause(e))
    }
}

fn get(time: &Mutex<Option<ClusterTime>>) -> Option<ClusterTime> {
    *lock(time)
}

fn set(time: &Mutex<Option<ClusterTime>>, to: Option<ClusterTime>) {
    *lock(time) = to;
}

/// A heartbeat of this process, before anything is read.
pub fn first(started: DateTime<Utc>, source: Vec<String>, job: Option<String>, locked: bool) -> Heartbeat {
    Heartbeat {
        format_version: FORMAT_VERSION,
        host: system::host(),
        process: std::process::id(),
        source,
        job,
        undecided: false,
        locked,
        started,
        heartbeat: clock::now(),
        snapshot_time: None,
        oplog_time: None,
        ranges_done: 0,
        ranges: 0,
        documents: 0,
        raw_bytes: 0,
    }
}

/// Writes a heartbeat.
///
/// # Errors
/// [`ErrorKind::Storage`].
pub async fn write(heartbeat: &Heartbeat, place: &Objects) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(heartbeat)
        .map_err(|e| Error::new(ErrorKind::Internal, format!("{} cannot be written", layout::PROGRESS)).cause(e))?;
    place.put(layout::PROGRESS, vec![bytes.into()]).await
}

async fn beat(state: Arc<HeartbeatState>, place: Objects, progress: Progress, first: Heartbeat, end: CancellationToken) {
    loop {
        let (documents, raw_bytes, ..) = progress.view().sums();
        let heartbeat = Heartbeat {
            heartbeat: clock::now(),
            snapshot_time: get(&state.snapshot_time),
            oplog_time: get(&state.oplog_time),
            ranges_done: state.ranges_done.load(Ordering::Relaxed),
            ranges: state.ranges.load(Ordering::Relaxed),
            documents,
            raw_bytes,
            ..first.clone()
        };
        // If it cannot be written, the segments cannot either, and that fails the backup.
        if let Err(e) = write(&heartbeat, &place).await {
            tracing::warn!("the heartbeat could not be written: {e}");
        }
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(HEARTBEAT_SECONDS)) => {}
        }
    }
}
