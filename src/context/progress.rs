//! What has been done so far, for whoever shows it: counters that the engine adds to and a face reads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::names::BackupName;

/// The progress of one operation. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Every phase that was begun; the last is the one it is in.
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

/// One collection at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CollectionProgress {
    /// Its namespace.
    pub namespace: String,
    /// Documents done.
    pub documents: u64,
    /// About how many there are; 0 where that is not known.
    pub expected_documents: u64,
    /// Bytes done, uncompressed.
    pub bytes: u64,
    /// About how many there are; 0 where that is not known.
    pub expected_bytes: u64,
    /// Whether all of it is done.
    pub finished: bool,
}

/// The operation at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// What it is doing, as a short phrase: `reading`.
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
    /// Begins a phase: its collections are announced anew.
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

    /// Says something that a person should read now, such as why it waits. A face shows it and takes it away.
    pub fn note(&self, text: impl Into<String>) {
        lock(&self.0.notes).push(text.into());
    }

    /// Says which backup it makes, once that has a name: the first counts.
    pub fn makes(&self, backup: BackupName) {
        let _first_is_kept = self.0.backup.set(backup);
    }

    /// The backup that it makes, as soon as that has a name.
    #[must_use]
    pub fn backup(&self) -> Option<&BackupName> {
        self.0.backup.get()
    }

    /// Takes the notes that were not shown yet.
    #[must_use]
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.0.notes))
    }

    /// Where it stands.
    #[must_use]
    pub fn view(&self) -> View {
        self.since(0).1
    }

    /// The phases that were begun after the first `seen`, however short they were, and where it stands: in the last of them.
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
    /// Counts documents and their bytes in.
    pub fn add(&self, documents: u64, bytes: u64) {
        self.0.documents.fetch_add(documents, Ordering::Relaxed);
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes back what was counted and will be done again.
    pub fn take_back(&self, documents: u64, bytes: u64) {
        self.0.documents.fetch_sub(documents, Ordering::Relaxed);
        self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// All of it is done.
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
