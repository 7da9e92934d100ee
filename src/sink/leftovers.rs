//! What imports and test restores that died left in a target: staging, records, leases, scratch databases. Looking, and bringing it to its end.

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

/// Databases that are looked at at a time.
const AT_A_TIME: usize = 8;

/// Databases that no import writes to. `admin` is none of them: users and roles are staged there.
const LEFT_ALONE: [&str; 2] = ["local", "config"];

/// What takes the lease for a cleaning, where an import names its backup.
const CLEANING: &str = "what a cleaning of the target removes";

/// What was found in one database.
#[derive(Debug, Clone, Default)]
pub struct Leftovers {
    /// Collections and time series that an import fills or filled.
    pub staging: BTreeSet<Namespace>,
    /// What imports had decided to publish, by their ids; none of one that had not.
    pub records: BTreeMap<String, Option<Vec<Namespace>>>,
    /// The leases.
    pub leases: Vec<Seen>,
    /// What says what a restore fills under final names, as it was seen.
    pub markers: Vec<ListedCollection>,
    /// What these name, and is still there.
    pub half_filled: BTreeSet<Namespace>,
}

impl Leftovers {
    /// The lease of an import or a test restore that lives.
    #[must_use]
    pub fn living(&self) -> Option<&Seen> {
        self.leases.iter().find(|lease| lease.lives)
    }

    /// Whether the database is or was a test restore's.
    #[must_use]
    pub fn is_scratch(&self) -> bool {
        self.leases.iter().any(|lease| lease.purpose == Purpose::TestRestore)
    }

    /// Whether imports or test restores have something here.
    #[must_use]
    pub fn is_of_imports(&self) -> bool {
        !(self.staging.is_empty() && self.records.is_empty() && self.leases.is_empty())
    }
}

/// What imports and test restores have in the databases of a target, by database, and the databases that the login may not look into.
///
/// # Errors
/// The server's; [`ErrorKind::Interrupted`].
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

/// What became of the leftovers of a database, and of those that belong to them.
#[derive(Debug, Default)]
pub struct Cleared {
    /// The databases that it was about.
    pub databases: BTreeSet<String>,
    /// What dead imports had begun to publish, and what of it was given up.
    pub finished: Finished,
    /// Staging that was dropped.
    pub dropped: BTreeSet<Namespace>,
}

/// Brings to its end what imports that died had decided, in the databases of a lease, and removes what is left of those that had not.
///
/// # Errors
/// The server's; [`ErrorKind::Refused`] where a record cannot be read; [`ErrorKind::Interrupted`]: what is left then is left to the next.
pub async fn settle(target: &Target, lease: &Lease) -> Result<Cleared> {
    let databases = lease.databases();
    let finished = Box::pin(publish::roll_forward(target, lease)).await?;
    lease.settle();
    let dropped = staging::sweep(target, &databases).await?;
    Ok(Cleared { databases, finished, dropped })
}

/// The same for all that belongs to one database. An import that lives is left alone.
///
/// # Errors
/// Those of [`settle`]; [`ErrorKind::Busy`] where an import that lives has the lease.
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

/// The lease of an import that lives, in this database.
///
/// # Errors
/// The server's; [`ErrorKind::Interrupted`].
pub async fn living(target: &Target, database: &str) -> Result<Option<Seen>> {
    let leases = lease::seen(target, database).await?;
    Ok(leases.into_iter().find(|lease| lease.lives && lease.purpose == Purpose::Import))
}
