//! Finds and finishes leftovers of crashed imports and test restores in a target: staging, records,
//! leases, scratch databases.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::ddl::Standing;
use super::lease::{self, Lease, Purpose, Seen};
use super::publish::{self, Finished};
use super::{Target, in_place, record, staging};
use crate::error::{Error, ErrorKind, Result};
use crate::mongo::catalog::{self, ListedCollection};
use crate::names::{IMPORT_COLLECTION, Namespace};

/// How many databases to inspect at a time.
const AT_A_TIME: usize = 8;

/// Databases that no import writes to. `admin` is not one of them: users and roles are staged
/// there.
const LEFT_ALONE: [&str; 2] = ["local", "config"];

/// Stands in the lease for a cleanup, in place of a backup's name.
const CLEANING: &str = "(cleanup of the target)";

/// The leftovers found in one database.
#[derive(Debug, Clone, Default)]
pub struct Leftovers {
    /// Collections and time series that an import fills or filled.
    pub staging: BTreeSet<Namespace>,
    /// What imports had decided to publish, by import id; `None` for an unreadable or undecided
    /// record.
    pub records: BTreeMap<String, Option<Vec<Namespace>>>,
    /// The leases.
    pub leases: Vec<Seen>,
    /// The markers of restores that fill collections under final names, as seen.
    pub markers: Vec<ListedCollection>,
    /// What these markers name and still exists.
    pub half_filled: BTreeSet<Namespace>,
}

impl Leftovers {
    /// The lease of a live import or test restore.
    #[must_use]
    pub fn living(&self) -> Option<&Seen> {
        self.leases.iter().find(|lease| lease.lives)
    }

    /// Whether the database is or was a test restore's.
    #[must_use]
    pub fn is_scratch(&self) -> bool {
        self.leases.iter().any(|lease| lease.purpose == Purpose::TestRestore)
    }

    /// Whether imports or test restores left anything here.
    #[must_use]
    pub fn is_of_imports(&self) -> bool {
        !(self.staging.is_empty() && self.records.is_empty() && self.leases.is_empty())
    }
}

/// What imports and test restores have in the databases of a target, by database, and the databases
/// that the login may not read.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
pub async fn look(target: &Target) -> Result<(BTreeMap<String, Leftovers>, Vec<String>)> {
    let databases = target.unless_stopped(catalog::databases(&target.connection)).await??;
    let looking = databases.into_iter().filter(|d| !LEFT_ALONE.contains(&d.as_str())).map(|database| async move {
        match look_at(target, &database).await {
            Ok(found) => Ok((database, found)),
            Err(e) if e.kind() == ErrorKind::Denied => Ok((database, None)),
            Err(e) => Err(e),
        }
    });
    let all: Vec<_> = stream::iter(looking).buffered(AT_A_TIME).try_collect().await?;
    let (mut found, mut unseen) = (BTreeMap::new(), Vec::new());
    for (database, leftovers) in all {
        match leftovers {
            None => unseen.push(database),
            Some(leftovers) if !leftovers.is_of_imports() && leftovers.markers.is_empty() => {}
            Some(leftovers) => drop(found.insert(database, leftovers)),
        }
    }
    Ok((found, unseen))
}

async fn look_at(target: &Target, database: &str) -> Result<Option<Leftovers>> {
    let standing = Standing::of(target, database).await?;
    let mut found = Leftovers {
        staging: staging::standing(database, &standing),
        markers: in_place::markers(&standing).cloned().collect(),
        half_filled: in_place::left(database, &standing).into_iter().collect(),
        ..Leftovers::default()
    };
    if standing.get(IMPORT_COLLECTION).is_some() {
        found.leases = lease::seen(target, database).await?;
        for id in record::ids(target, database).await? {
            let steps = record::read(target, database, &id).await.unwrap_or_default();
            found.records.insert(id, steps.map(|steps| steps.iter().map(|step| step.name().clone()).collect()));
        }
    }
    Ok(Some(found))
}

/// What happened to the leftovers of a database, and to those that belong to them.
#[derive(Debug, Default)]
pub struct Cleared {
    /// The databases concerned.
    pub databases: BTreeSet<String>,
    /// What crashed imports had begun to publish, and what of it was given up.
    pub finished: Finished,
    /// Staging that was dropped.
    pub dropped: BTreeSet<Namespace>,
}

/// Finishes what crashed imports had decided, in the databases of a lease, and removes the
/// leftovers of those that had decided nothing.
///
/// # Errors
/// Server errors; [`ErrorKind::Refused`] if a record cannot be read; [`ErrorKind::Interrupted`].
/// The next import finishes what is left then.
pub async fn settle(target: &Target, lease: &Lease) -> Result<Cleared> {
    let databases = lease.databases();
    let finished = Box::pin(publish::roll_forward(target, lease)).await?;
    lease.settle();
    let dropped = staging::sweep(target, &databases).await?;
    Ok(Cleared { databases, finished, dropped })
}

/// The same for everything that belongs to one database. Leaves a live import alone.
///
/// # Errors
/// Those of [`settle`]; [`ErrorKind::Busy`] if a live import has the lease.
pub async fn clear(target: &Target, database: &str, expiry: Duration) -> Result<Cleared> {
    let lease = match Lease::take(target, &[database.to_owned()], CLEANING, expiry).await {
        Ok(lease) => lease,
        Err(e) if e.kind() == ErrorKind::Refused && matches!(living(target, database).await, Ok(Some(_))) => {
            return Err(Error::new(ErrorKind::Busy, e.to_string()));
        }
        Err(e) => return Err(e),
    };
    let done = lease.unless_lost(settle(target, &lease)).await;
    lease.release().await;
    done
}

/// The lease of a live import in this database.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
pub async fn living(target: &Target, database: &str) -> Result<Option<Seen>> {
    let leases = lease::seen(target, database).await?;
    Ok(leases.into_iter().find(|lease| lease.lives && lease.purpose == Purpose::Import))
}
