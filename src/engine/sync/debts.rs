//! Indexes that the source has and the target still lacks. They are built beside, while documents
//! go on to follow.
//!
//! What is owed is not recorded: it is what the recorded collections have and the target lacks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::status::StatusSender;
use crate::context::lock;
use crate::context::progress::Progress;
use crate::error::Result;
use crate::format::manifest::Collection;
use crate::mongo::Version;
use crate::names::Namespace;
use crate::sink::indexes::{self, IndexBuilder, IndexFailure, Which};
use crate::sink::{CollectionSpec, Index, Target, evolve};

/// The pause before an index that could not be built is tried again.
const PAUSE: Duration = Duration::from_secs(30);
/// The pause between two attempts to abort a build.
const ABORT: Duration = Duration::from_millis(50);

/// How many collections are looked at together.
const AT_A_TIME: usize = 8;

/// The indexes that a target lacks, by the UUID of their collection in the source. They are built
/// as long as this exists.
#[derive(Debug)]
pub(super) struct Debts {
    target: Target,
    /// Whether the target can abort a build.
    aborts: bool,
    shared: Arc<Shared>,
    _building: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shared {
    owed: Mutex<BTreeMap<Uuid, Owed>>,
    more: Notify,
    status: StatusSender,
}

/// What one collection lacks.
#[derive(Debug)]
struct Owed {
    /// The collection, with only these indexes.
    spec: CollectionSpec,
    /// They are being built.
    is_building: bool,
    /// Why they could not be built.
    problem: Option<String>,
    /// When to try them again.
    due: Instant,
}

impl Debts {
    /// No debts yet.
    pub(super) fn new(target: &Target, version: Version, status: &StatusSender) -> Self {
        let shared = Arc::new(Shared { owed: Mutex::default(), more: Notify::new(), status: status.clone() });
        shared.tell();
        let work = build(IndexBuilder::new(target.clone()), shared.clone());
        let building = AbortOnDropHandle::new(tokio::spawn(work));
        Self { target: target.unstoppable(), aborts: version >= Version(4, 4, 0), shared, _building: building }
    }

    /// From now on, these indexes of a collection are owed.
    pub(super) fn owe(&self, collection: Uuid, spec: CollectionSpec) {
        self.owe_after(collection, spec, None);
    }

    /// The same for indexes that just could not be built.
    pub(super) fn owe_refused(&self, collection: Uuid, spec: CollectionSpec, problem: String) {
        self.owe_after(collection, spec, Some(problem));
    }

    fn owe_after(&self, collection: Uuid, spec: CollectionSpec, problem: Option<String>) {
        if spec.indexes.is_empty() {
            return;
        }
        let due = if problem.is_some() { Instant::now() + PAUSE } else { Instant::now() };
        lock(&self.shared.owed).insert(collection, Owed { spec, is_building: false, problem, due });
        self.shared.tell();
        self.shared.more.notify_one();
    }

    /// Takes back what a collection is owed, before the collection changes: none of these indexes
    /// exists afterwards, and none is being built. Returns their names.
    ///
    /// # Errors
    /// Server errors.
    pub(super) async fn take_back(&self, collection: Uuid) -> Result<Vec<String>> {
        let Some((namespace, names)) = self.shared.owed_of(collection) else { return Ok(Vec::new()) };
        let mut was_building = false;
        while self.shared.is_building_or_forget(collection) {
            was_building = true;
            if self.aborts {
                evolve::drop_indexes(&self.target, &namespace, &names).await?;
            }
            tokio::time::sleep(ABORT).await;
        }
        if was_building {
            // They may have been finished before they were aborted.
            evolve::drop_indexes(&self.target, &namespace, &names).await?;
        }
        self.shared.tell();
        Ok(names)
    }
}

/// The indexes that these collections have in the source and lack in the target, or that the target
/// has not finished.
///
/// # Errors
/// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if a recorded collection is not what
/// the source described; server errors.
pub(super) async fn missing(
    target: &Target,
    version: Version,
    followed: &[(Collection, Namespace)],
) -> Result<Vec<(Uuid, CollectionSpec)>> {
    let mut specs = Vec::new();
    for (source, to) in followed {
        let Some(uuid) = source.uuid.filter(|_| !source.indexes.is_empty()) else { continue };
        specs.push((uuid, CollectionSpec::of(source, to.clone(), version)?));
    }
    let looking = specs.into_iter().map(|(uuid, spec)| {
        let target = target.clone();
        async move {
            let missing = indexes::unfinished(&target, &spec).await?;
            Ok((uuid, spec.in_place(missing)))
        }
    });
    let found: Vec<_> = stream::iter(looking).buffer_unordered(AT_A_TIME).boxed().try_collect().await?;
    Ok(found.into_iter().filter(|(_, spec)| !spec.indexes.is_empty()).collect())
}

fn names(indexes: &[Index]) -> Vec<String> {
    indexes.iter().map(|index| index.name.clone()).collect()
}

impl Shared {
    /// What a collection is owed: its name in the target, and those of its indexes.
    fn owed_of(&self, collection: Uuid) -> Option<(Namespace, Vec<String>)> {
        let owed = lock(&self.owed);
        owed.get(&collection).map(|owed| (owed.spec.namespace.clone(), names(&owed.spec.indexes)))
    }

    /// Whether indexes of a collection are being built. If not, it is owed nothing any more.
    fn is_building_or_forget(&self, collection: Uuid) -> bool {
        let mut owed = lock(&self.owed);
        let is_building = owed.get(&collection).is_some_and(|owed| owed.is_building);
        if !is_building {
            owed.remove(&collection);
        }
        is_building
    }

    /// Says how many indexes are owed, and why one could not be built.
    fn tell(&self) {
        let owed = lock(&self.owed);
        let debts = owed.values().map(|owed| owed.spec.indexes.len() as u64).sum();
        let problem = owed.values().find_map(|owed| owed.problem.clone());
        drop(owed);
        self.status.change(|s| (s.debts, s.debt_problem) = (debts, problem));
    }

    /// The next collection to build indexes of, or how long to wait for one.
    fn next(&self) -> Result<(Uuid, CollectionSpec), Option<Instant>> {
        let mut owed = lock(&self.owed);
        let now = Instant::now();
        match owed.iter_mut().min_by_key(|(_, owed)| owed.due) {
            None => Err(None),
            Some((_, owed)) if owed.due > now => Err(Some(owed.due)),
            Some((uuid, owed)) => {
                owed.is_building = true;
                Ok((*uuid, owed.spec.clone()))
            }
        }
    }

    /// Takes the result of a build.
    fn ended(&self, collection: Uuid, built: Result<Vec<IndexFailure>>) {
        let mut all = lock(&self.owed);
        let Some(owed) = all.get_mut(&collection) else { return };
        owed.is_building = false;
        let problem = match built {
            Ok(failures) => {
                owed.spec.indexes.retain(|index| failures.iter().any(|failure| failure.name == index.name));
                failures.into_iter().next().map(|failure| failure.error.to_string())
            }
            Err(error) => Some(error.to_string()),
        };
        match problem {
            Some(problem) => {
                tracing::warn!("an index is still missing in the target, and is tried again: {problem}");
                (owed.problem, owed.due) = (Some(problem), Instant::now() + PAUSE);
            }
            None => drop(all.remove(&collection)),
        }
    }
}

/// Builds what is owed, one collection after the other.
async fn build(builder: IndexBuilder, shared: Arc<Shared>) {
    loop {
        let more = shared.more.notified();
        match shared.next() {
            Ok((collection, spec)) => {
                let item = Progress::default().item(format!("indexes of {}", spec.namespace), spec.indexes.len() as u64, 0);
                let built = builder.build(&spec, Which::All, &item).await;
                shared.ended(collection, built);
                shared.tell();
            }
            Err(None) => more.await,
            Err(Some(due)) => {
                let _more = tokio::time::timeout_at(due, more).await;
            }
        }
    }
}
