//! Scratch databases, which a test restore fills and drops. Each holds the test restore's lease
//! from before its first collection until it is dropped. The lease distinguishes an abandoned one
//! from one in use, and both from a user's database.

use std::time::Duration;

use bson::rawdoc;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;

use super::ddl::{self, Standing};
use super::lease::{self, Hold, Lease, Purpose};
use super::{Target, prepare};
use crate::error::{Error, ErrorKind, Result};
use crate::mongo::catalog;
use crate::mongo::rights::{Place, Rights};
use crate::names::{self, IMPORT_COLLECTION, Namespace};

/// The number of collections to drop at a time.
const AT_A_TIME: usize = 8;

/// How many times a database is dropped until it stays away: a last interrupted command may
/// recreate it.
const DROPS: u32 = 20;

/// The pause between two checks.
const PAUSE: Duration = Duration::from_millis(100);

/// The scratch databases of one test restore.
#[derive(Debug)]
pub struct Scratch {
    target: Target,
    databases: Vec<String>,
    lease: Lease,
}

/// A scratch database of another test restore that has not expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    database: String,
    expires: bson::DateTime,
}

impl Scratch {
    /// Claims these databases for the test restore. None of them may exist.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if the login could not drop them again; [`ErrorKind::Refused`] if
    /// another test restore has one of them; server errors; [`ErrorKind::Interrupted`].
    pub async fn claim(target: &Target, databases: Vec<String>, backup: &str, expiry: Duration) -> Result<Self> {
        let rights = target.unless_stopped(Rights::ask(&target.connection)).await??;
        if let Some(lacking) = databases.iter().find(|d| !rights.allows(&Place::Database((*d).clone()), "dropDatabase")) {
            return Err(prepare::lacking_rights(&format!("dropDatabase on {lacking}")));
        }
        // Not stoppable: an abandoned command could create a database that nobody drops any more.
        let target = target.unstoppable();
        let lease = Lease::take_for(Purpose::TestRestore, &target, &databases, backup, expiry).await?;
        Ok(Self { target, databases, lease })
    }

    /// Waits until another test restore has taken one of them. That happens if this one was
    /// suspended for long.
    pub async fn lost(&self) {
        self.lease.lost().await;
    }

    /// Drops them. The next test restore drops those that cannot be dropped now.
    ///
    /// # Errors
    /// Server errors.
    pub async fn drop(mut self) -> Result<()> {
        self.lease.end().await;
        for database in &self.databases {
            drop_database(&self.target, database).await?;
        }
        Ok(())
    }
}

/// Drops the databases of dead test restores. Returns what was dropped, and those that have not
/// expired.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
pub async fn drop_dead(target: &Target, expiry: Duration) -> Result<(Vec<String>, Vec<Held>)> {
    let (mut dropped, mut held) = (Vec::new(), Vec::new());
    let databases = target.unless_stopped(catalog::databases(&target.connection)).await??;
    for database in databases.into_iter().filter(|d| names::may_be_scratch(d)) {
        match lease::take_from_dead_test_restore(target, &database, expiry).await? {
            Hold::Taken => {
                drop_database(target, &database).await?;
                dropped.push(database);
            }
            Hold::Held(expires) => held.push(Held { database, expires }),
            Hold::Absent => {}
        }
    }
    Ok((dropped, held))
}

/// Drops those that nobody has renewed since, after waiting until they expire. A renewed one is
/// left alone.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
pub async fn drop_unrenewed(target: &Target, mut held: Vec<Held>, expiry: Duration) -> Result<Vec<String>> {
    let (began, patience) = (Instant::now(), expiry + expiry / 2);
    let mut dropped = Vec::new();
    while !held.is_empty() && began.elapsed() < patience {
        let mut waiting = Vec::new();
        for one in held {
            match lease::take_from_dead_test_restore(target, &one.database, expiry).await? {
                Hold::Taken => {
                    drop_database(target, &one.database).await?;
                    dropped.push(one.database);
                }
                Hold::Held(expires) if expires == one.expires => waiting.push(one),
                Hold::Held(_) | Hold::Absent => {}
            }
        }
        held = waiting;
        if !held.is_empty() {
            target.unless_stopped(tokio::time::sleep(PAUSE)).await?;
        }
    }
    Ok(dropped)
}

/// Drops a database, its lease last, so that leftovers of a crash are recognized.
async fn drop_database(target: &Target, database: &str) -> Result<()> {
    let what = format!("dropping the scratch database {database}");
    for _ in 0..DROPS {
        let standing = Standing::of(target, database).await?;
        let others = standing.iter().filter(|c| c.name != IMPORT_COLLECTION && !c.name.starts_with("system."));
        let drops = others.map(|c| {
            let namespace = Namespace::new(database, &*c.name);
            async move { ddl::drop(target, &namespace).await }
        });
        let drops: Vec<_> = drops.collect();
        stream::iter(drops).buffer_unordered(AT_A_TIME).try_collect::<()>().await?;
        target.run(&what, database, rawdoc! { "dropDatabase": 1, "writeConcern": { "w": "majority" } }).await?;
        target.unless_stopped(tokio::time::sleep(PAUSE)).await?;
        if Standing::of(target, database).await?.iter().next().is_none() {
            return Ok(());
        }
    }
    Err(Error::new(ErrorKind::Server, format!("{what}: something keeps recreating it")))
}
