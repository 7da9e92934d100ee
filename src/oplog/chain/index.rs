//! Makes the index of a link while its entries pass: pure.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use crate::error::Result;
use crate::format::chain::{Burst, CollectionCounts, Ddl, FrameRecord, IndexRecord, Minute};
use crate::format::manifest::ClusterTime;
use crate::oplog::{Entry, Head, Operation, OperationKind, text};

/// This many deletes from a collection, none long after the one before, are a burst.
const BURST: u64 = 100;
/// The longest pause in a burst, in seconds.
const PAUSE: u32 = 5;

/// The index of the entries so far.
#[derive(Debug, Default)]
pub(super) struct IndexBuilder {
    records: Vec<IndexRecord>,
    frame: FrameRecord,
    collections: HashMap<Uuid, CollectionCounts>,
    minutes: BTreeMap<u32, u64>,
    bursts: HashMap<String, Burst>,
}

impl IndexBuilder {
    /// Takes the next entry.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if it is no entry of an oplog.
    pub(super) fn take(&mut self, raw: &[u8]) -> Result<()> {
        let time = Head::of(raw)?.time;
        if self.frame.entries == 0 {
            self.frame.from = time;
        }
        self.frame.to = time;
        self.frame.entries += 1;
        // What a later server writes is kept, and needed by everybody.
        let Ok(entry) = Entry::parse(raw) else {
            self.frame.needed = true;
            return Ok(());
        };
        self.frame.needed |= entry.operation.kind == OperationKind::Command;
        let known = entry.each(&mut |operation| {
            self.operation(time, &operation);
            Ok(())
        });
        self.frame.needed |= known.is_err();
        Ok(())
    }

    fn operation(&mut self, time: ClusterTime, operation: &Operation<'_>) {
        if operation.kind == OperationKind::Nothing {
            return;
        }
        *self.minutes.entry(time.t - time.t % 60).or_default() += 1;
        if operation.kind == OperationKind::Command {
            if let Some(ddl) = ddl(time, operation) {
                self.records.push(IndexRecord::Ddl(ddl));
            }
            return;
        }
        // Views and time series are written as documents of `system.views`.
        self.frame.needed |= operation.target().is_some_and(|target| target.collection == "system.views");
        let Some(uuid) = operation.collection else {
            self.frame.needed = true;
            return;
        };
        let counts = self.collections.entry(uuid).or_insert_with(|| CollectionCounts {
            uuid,
            namespace: operation.namespace.to_owned(),
            inserts: 0,
            updates: 0,
            deletes: 0,
        });
        match operation.kind {
            OperationKind::Insert => counts.inserts += 1,
            OperationKind::Update => counts.updates += 1,
            _ => {
                counts.deletes += 1;
                self.delete(time, operation.namespace);
            }
        }
    }

    fn delete(&mut self, time: ClusterTime, namespace: &str) {
        match self.bursts.get_mut(namespace) {
            Some(burst) if time.t.saturating_sub(burst.to.t) <= PAUSE => {
                burst.to = time;
                burst.deletes += 1;
            }
            Some(burst) => {
                let next = Burst { from: time, to: time, namespace: namespace.to_owned(), deletes: 1 };
                let ended = std::mem::replace(burst, next);
                self.records.extend((ended.deletes >= BURST).then_some(IndexRecord::Burst(ended)));
            }
            None => {
                let burst = Burst { from: time, to: time, namespace: namespace.to_owned(), deletes: 1 };
                self.bursts.insert(namespace.to_owned(), burst);
            }
        }
    }

    /// The frame of entries ends here.
    pub(super) fn end_frame(&mut self) {
        let mut frame = std::mem::take(&mut self.frame);
        frame.collections = self.collections.drain().map(|(_, counts)| counts).collect();
        frame.collections.sort_by_key(|counts| counts.uuid);
        self.records.push(IndexRecord::Frame(frame));
    }

    /// All records.
    pub(super) fn finish(mut self) -> Vec<IndexRecord> {
        let mut bursts: Vec<Burst> = self.bursts.into_values().filter(|burst| burst.deletes >= BURST).collect();
        bursts.sort_by_key(|burst| burst.from);
        self.records.extend(bursts.into_iter().map(IndexRecord::Burst));
        let minutes = self.minutes.into_iter().map(|(minute, operations)| Minute { minute, operations });
        self.records.extend(minutes.map(IndexRecord::Minute));
        self.records
    }
}

/// What a command changes; `None` for one that changes no collection, such as a commit.
pub(super) fn ddl(time: ClusterTime, operation: &Operation<'_>) -> Option<Ddl> {
    let command = operation.command().ok()?;
    if matches!(command, "applyOps" | "commitTransaction" | "abortTransaction") {
        return None;
    }
    let first = operation.first().ok()?;
    let namespace = match (command, text(first)) {
        ("renameCollection", Ok(from)) => from.to_owned(),
        (_, Ok(name)) => format!("{}.{name}", operation.database()),
        (_, Err(_)) => operation.database().to_owned(),
    };
    Some(Ddl { time, namespace, command: command.to_owned(), documents: operation.dropped_documents() })
}
