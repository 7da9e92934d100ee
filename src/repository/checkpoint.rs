//! The checkpoint of an unfinished backup, which makes it resumable: what it is to hold, what of
//! that is durable, and what the reading depends on. [`CheckpointWriter`] writes it while a backup
//! runs; [`Checkpoint`] is what is read back.

mod writer;

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use chrono::{DateTime, Utc};

pub use self::writer::{CheckpointWriter, Durable, ResumeStateOf, remove};
use crate::clock;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::format::checkpoint::{Head, OplogStep, RangeDone, ResumeState, Step};
use crate::format::manifest::{self, Segment, Source};
use crate::names::BackupName;
use crate::repository::Repository;
use crate::repository::backend::{Entry, Lock, Objects};
use crate::repository::catalog::{Catalog, State, Summary};
use crate::repository::layout;
use crate::system;

/// An unfinished backup that nobody else works on.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its name.
    pub name: BackupName,
    /// Where it is.
    pub place: Objects,
    /// What it is to hold.
    pub head: Head,
    /// What is durable of each range, by the places of collection and range.
    pub ranges: HashMap<(usize, usize), RangeDone>,
    /// Why nothing is kept of these collections.
    pub gone: HashMap<usize, String>,
    /// What is durable of its oplog slice.
    pub oplog: Option<OplogStep>,
    /// What the reading depends on.
    pub state: ResumeState,
    /// The number of the checkpoint's next object.
    pub next: usize,
    /// Recorded objects that do not exist any more.
    lost: Vec<String>,
    /// Held until the backup is complete, or given up.
    pub lock: Option<Lock>,
}

/// Finds the unfinished backup of this name, or the newest one of this source, and reads its
/// checkpoint. If `is_of` accepts none, it takes the newest of all: the deployment's identity then
/// decides.
///
/// # Errors
/// [`ErrorKind::NotFound`] if there is none; [`ErrorKind::Refused`] if it is running or complete,
/// or crashed before it had a checkpoint; [`ErrorKind::Damaged`]; [`ErrorKind::Storage`].
pub async fn open(catalog: &Catalog, name: Option<&BackupName>, is_of: impl Fn(&Source) -> bool) -> Result<Checkpoint> {
    let (repository, backups) = (catalog.repository(), catalog.list(clock::now()).await?);
    if let Some(name) = name {
        let found = backups.iter().find(|b| b.name == *name).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("Database backup not found: {:?} in {}", name.as_str(), repository.location()),
            )
            .hint("`bsonvault list` shows all backups")
        })?;
        return take(repository, found).await;
    }
    let (mut refused, mut other) = (None, None);
    for found in backups.iter().filter(|b| matches!(b.state, State::Incomplete | State::Running(_))) {
        match take(repository, found).await {
            Err(e) if e.kind() == ErrorKind::Refused => refused = refused.or(Some(e)),
            Ok(checkpoint) if !is_of(&checkpoint.head.source) => other = other.or(Some(checkpoint)),
            done => return done,
        }
    }
    if let Some(other) = other {
        return Ok(other);
    }
    Err(refused.unwrap_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("there is no unfinished backup in {}", repository.location()))
            .hint("take a new backup without [[resume]]; `bsonvault list` shows all backups")
    }))
}

async fn take(repository: &Repository, found: &Summary) -> Result<Checkpoint> {
    let (name, place) = (found.name.clone(), repository.place(&found.name));
    let refused = |what: String| Error::new(ErrorKind::Refused, format!("backup {} {what}", found.location));
    let running = || refused("is running".to_owned()).hint("wait for it, or stop it; `bsonvault list` shows how far it is");
    let seen_alive = match &found.state {
        State::Complete(_) => {
            return Err(refused("is complete".to_owned()).hint("there is nothing to resume; take a new one without [[resume]]"));
        }
        State::Damaged(reason) => return Err(Error::damaged(format!("backup {}: {reason}", found.location))),
        // For processes of this machine, the lock is more reliable.
        State::Running(progress) => progress.host != system::host(),
        State::Incomplete => false,
    };
    let lock = place.lock().await?.filter(|_| !seen_alive).ok_or_else(running)?;
    if matches!(found.state, State::Running(_)) && !lock.holds() {
        return Err(
            running().hint("without file system locks, it counts as running for half a minute after its last sign of life")
        );
    }
    let head = match read(&place, 0).await {
        Ok(bytes) => Head::from_bytes(&bytes)?,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(refused("cannot be resumed: it was interrupted before it read anything".to_owned())
                .hint(format!("take a new one without [[resume]], and remove {}", found.location)));
        }
        Err(e) => return Err(e),
    };
    let mut checkpoint = Checkpoint {
        name,
        place,
        head,
        ranges: HashMap::new(),
        gone: HashMap::new(),
        oplog: None,
        state: ResumeState::default(),
        next: 1,
        lost: Vec::new(),
        lock: Some(lock),
    };
    checkpoint.read_steps().await?;
    checkpoint.leave_out_what_is_lost().await?;
    Ok(checkpoint)
}

async fn read(place: &Objects, number: usize) -> Result<Vec<u8>> {
    let key = layout::checkpoint(number);
    let size = place.size(&key).await?;
    if size > manifest::LIMIT {
        return Err(Error::damaged(format!("{key} has {size} bytes, more than the limit of {}", manifest::LIMIT)));
    }
    Ok(place.get(&key).await?.to_vec())
}

impl Checkpoint {
    async fn read_steps(&mut self) -> Result<()> {
        loop {
            let step = match read(&self.place, self.next).await {
                Ok(bytes) => Step::from_bytes(&bytes, self.next)?,
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
                Err(e) => return Err(e),
            };
            self.next += 1;
            self.state = self.state.or(step.state);
            for done in step.ranges {
                let listed = self.head.collections.get(done.collection).filter(|c| done.range < c.ranges.len());
                let stem = listed.map(|c| c.stem.as_str()).ok_or_else(|| self.contradiction())?;
                if done.segments.iter().any(|s| layout::segment_number(stem, &s.object.key).is_none()) {
                    return Err(self.contradiction());
                }
                if let Some(why) = &done.gone {
                    self.gone.insert(done.collection, why.clone());
                }
                self.ranges.insert((done.collection, done.range), done);
            }
            if let Some(more) = step.oplog {
                if self.head.oplog.is_none()
                    || more.segments.iter().any(|s| layout::segment_number(layout::OPLOG, &s.object.key).is_none())
                {
                    return Err(self.contradiction());
                }
                let mut segments = self.oplog.take().map(|before| before.segments).unwrap_or_default();
                segments.extend(more.segments);
                self.oplog = Some(OplogStep { segments, ..more });
            }
        }
    }

    /// The error for a checkpoint that contradicts itself.
    #[must_use]
    pub fn contradiction(&self) -> Error {
        Error::damaged(format!("{} contradicts the beginning of the checkpoint", layout::checkpoint(self.next - 1)))
            .hint(format!("take a new backup without [[resume]], and remove {}", self.place.location()))
    }

    /// Keeps only objects that still exist with their size. `verify` proves their content; reading
    /// all of it here would take about as long as the backup.
    async fn leave_out_what_is_lost(&mut self) -> Result<()> {
        let named = self.ranges.values().flat_map(|done| &done.segments).chain(self.oplog.iter().flat_map(|o| &o.segments));
        let mut sizes: HashMap<String, Option<u64>> = named.map(|s| (s.object.key.clone(), None)).collect();
        let look = |entry: Entry| {
            if let Some(size) = sizes.get_mut(&entry.key) {
                *size = Some(entry.size);
            }
            ControlFlow::Continue(())
        };
        self.place.each(look).await?;
        let is_there = |s: &Segment| sizes.get(&s.object.key) == Some(&Some(s.object.bytes));
        let lost = &mut self.lost;
        let mut missing = |segments: &[Segment]| {
            let first = segments.iter().find(|s| !is_there(s)).map(|s| s.object.key.clone());
            lost.extend(first.clone());
            first.is_some()
        };
        let gone = &self.gone;
        self.ranges.retain(|(collection, _), done| gone.contains_key(collection) || !missing(&done.segments));
        // A slice that is not needed is removed before the commit.
        if self.oplog.as_ref().is_some_and(|oplog| oplog.segments.iter().any(|s| !is_there(s))) {
            self.oplog = None;
        }
        Ok(())
    }

    /// When the backup began.
    pub fn started(&self) -> DateTime<Utc> {
        self.head.started
    }

    /// How many ranges are durable, of how many.
    pub fn ranges(&self) -> (usize, usize) {
        (self.ranges.len(), self.head.collections.iter().map(|c| c.ranges.len()).sum())
    }

    /// How many ranges of this collection are durable.
    pub fn ranges_of(&self, collection: usize) -> usize {
        self.ranges.keys().filter(|(of, _)| *of == collection).count()
    }

    /// Removes what does not count: half-written objects, and segments of unfinished ranges.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn tidy_up(&self, cx: &Context) -> Result<()> {
        let segments = self.ranges.iter().filter(|((collection, _), _)| !self.gone.contains_key(collection));
        let mut keep: HashSet<String> = segments
            .flat_map(|(_, done)| &done.segments)
            .chain(self.oplog.iter().flat_map(|o| &o.segments))
            .map(|s| s.object.key.clone())
            .collect();
        keep.extend((0..self.next).map(layout::checkpoint));
        keep.insert(layout::PROGRESS.to_owned());
        let swept = self.place.sweep(keep).await?;
        tracing::info!(swept, "objects of the interrupted attempt removed");
        for key in &self.lost {
            cx.progress.note(format!("{key} is missing or has another size: its range is read again"));
        }
        let (done, all) = self.ranges();
        cx.progress.note(format!("resuming {}: {done} of {all} ranges are stored already", self.name));
        Ok(())
    }
}
