//! The progress of an operation: counters that the engine adds to and a face reads.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::mutex::lock;
use crate::names::BackupName;

/// The progress of one operation. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Every phase so far. The last one is current.
    phases: Mutex<Vec<String>>,
    items: Mutex<Vec<Item>>,
    notes: Mutex<Vec<String>>,
    backup: OnceLock<BackupName>,
}

/// One collection's progress. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Item(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    name: String,
    expected_documents: u64,
    expected_bytes: u64,
    documents: AtomicU64,
    bytes: AtomicU64,
    finished: AtomicBool,
}

/// One collection at a point in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CollectionProgress {
    /// Its namespace.
    pub namespace: String,
    /// Documents done.
    pub documents: u64,
    /// About how many there are. 0 if unknown.
    pub expected_documents: u64,
    /// Bytes done, uncompressed.
    pub bytes: u64,
    /// About how many there are. 0 if unknown.
    pub expected_bytes: u64,
    /// Whether all of it is done.
    pub finished: bool,
}

/// The operation at a point in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The current phase, as a short phrase: `reading`.
    pub phase: String,
    /// Every collection of this phase.
    pub items: Vec<CollectionProgress>,
}

impl View {
    /// Documents and bytes done, then expected, over all collections.
    #[must_use]
    pub fn sums(&self) -> (u64, u64, u64, u64) {
        self.items.iter().fold((0, 0, 0, 0), |s, i| {
            (s.0 + i.documents, s.1 + i.bytes, s.2 + i.expected_documents.max(i.documents), s.3 + i.expected_bytes.max(i.bytes))
        })
    }
}

impl Progress {
    /// Begins a phase. Its collections are announced anew.
    pub fn begin(&self, phase: &str) {
        let mut phases = lock(&self.0.phases);
        phases.push(phase.to_owned());
        lock(&self.0.items).clear();
    }

    /// Announces a collection, with about how much is expected of it.
    pub fn item(&self, name: impl Into<String>, expected_documents: u64, expected_bytes: u64) -> Item {
        let item = Item(Arc::new(Counters {
            name: name.into(),
            expected_documents,
            expected_bytes,
            documents: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            finished: AtomicBool::new(false),
        }));
        lock(&self.0.items).push(item.clone());
        item
    }

    /// Adds a note for people to read now, for example why it waits. A face shows it and removes
    /// it.
    pub fn note(&self, text: impl Into<String>) {
        lock(&self.0.notes).push(text.into());
    }

    /// Names the backup that the operation makes, once it has a name. Only the first call counts.
    pub fn makes(&self, backup: BackupName) {
        let _first_is_kept = self.0.backup.set(backup);
    }

    /// The backup that the operation makes, as soon as it has a name.
    #[must_use]
    pub fn backup(&self) -> Option<&BackupName> {
        self.0.backup.get()
    }

    /// Takes the notes that were not shown yet.
    #[must_use]
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.0.notes))
    }

    /// The current state.
    #[must_use]
    pub fn view(&self) -> View {
        self.since(0).1
    }

    /// The phases after the first `seen`, however short they were, and the current state, in the
    /// last of them.
    #[must_use]
    pub fn since(&self, seen: usize) -> (Vec<String>, View) {
        let phases = lock(&self.0.phases);
        let view = View {
            phase: phases.last().cloned().unwrap_or_default(),
            items: lock(&self.0.items).iter().map(Item::view).collect(),
        };
        (phases.iter().skip(seen).cloned().collect(), view)
    }
}

impl Item {
    /// Counts documents and their bytes.
    pub fn add(&self, documents: u64, bytes: u64) {
        self.0.documents.fetch_add(documents, Ordering::Relaxed);
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Uncounts what will be done again.
    pub fn take_back(&self, documents: u64, bytes: u64) {
        self.0.documents.fetch_sub(documents, Ordering::Relaxed);
        self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Marks it as completely done.
    pub fn finish(&self) {
        self.0.finished.store(true, Ordering::Relaxed);
    }

    fn view(&self) -> CollectionProgress {
        CollectionProgress {
            namespace: self.0.name.clone(),
            documents: self.0.documents.load(Ordering::Relaxed),
            bytes: self.0.bytes.load(Ordering::Relaxed),
            expected_documents: self.0.expected_documents,
            expected_bytes: self.0.expected_bytes,
            finished: self.0.finished.load(Ordering::Relaxed),
        }
    }
}

/// The speed over the last few seconds of the current phase.
#[derive(Debug)]
pub struct Rates {
    window: Duration,
    phase: String,
    seen: VecDeque<(Instant, u64, u64)>,
}

impl Rates {
    /// Less time than this gives no speed.
    const LEAST: Duration = Duration::from_millis(500);

    /// Measures over this time.
    #[must_use]
    pub fn over(window: Duration) -> Self {
        Self { window, phase: String::new(), seen: VecDeque::new() }
    }

    /// Observes the state at this time. Returns documents and bytes per second; 0 if unknown yet.
    pub fn observe(&mut self, view: &View, now: Instant) -> (f64, f64) {
        let (documents, bytes, ..) = view.sums();
        // Counts that start over or go back are no speed.
        if self.phase != view.phase || self.seen.back().is_some_and(|last| documents < last.1 || bytes < last.2) {
            self.phase.clone_from(&view.phase);
            self.seen.clear();
        }
        self.seen.push_back((now, documents, bytes));
        while self.seen.len() > 2 && self.seen.get(1).is_some_and(|(at, ..)| now - *at >= self.window) {
            self.seen.pop_front();
        }
        let Some((begun, documents_then, bytes_then)) = self.seen.front().copied() else { return (0.0, 0.0) };
        let passed = now - begun;
        if passed < Self::LEAST {
            return (0.0, 0.0);
        }
        let rate = |count: u64| count as f64 / passed.as_secs_f64();
        (rate(documents - documents_then), rate(bytes - bytes_then))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_last_seconds_of_the_phase_that_is_on() {
        let (mut rates, start) = (Rates::over(Duration::from_secs(5)), Instant::now());
        let mut of = |phase: &str, documents, bytes, seconds| {
            let (namespace, finished) = ("a.b".to_owned(), false);
            let item = CollectionProgress { namespace, documents, expected_documents: 0, bytes, expected_bytes: 0, finished };
            let view = View { phase: phase.to_owned(), items: vec![item] };
            let (documents, bytes) = rates.observe(&view, start + Duration::from_secs(seconds));
            (documents as u64, bytes as u64)
        };
        assert_eq!(of("reading", 0, 0, 0), (0, 0));
        assert_eq!(of("reading", 100, 1000, 2), (50, 500));
        assert_eq!(of("reading", 100, 1000, 6), (16, 166));
        assert_eq!(of("reading", 100, 1000, 8), (0, 0));
        assert_eq!(of("reading", 90, 900, 9), (0, 0), "taken back");
        assert_eq!(of("reading", 190, 1000, 10), (100, 100));
        assert_eq!(of("committing", 500, 5000, 11), (0, 0), "another phase");
    }
}
