//! The lease of an import: one document per database, so that two imports never write to the same
//! database at a time.
//!
//! The lease names its holder and the time when it expires, by the server's own clock (`$$NOW`). A
//! live holder renews it several times before that. Another import waits until an unrenewed lease
//! has expired, and then takes it over, with all publish decisions that its former holders left
//! unfinished. An import that cannot finish those passes them on.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, doc, rawdoc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::step::Step;
use super::{MAJORITY_LIMIT, Target, record, write_concern_error};
use crate::error::{Error, ErrorKind, Result};
use crate::mongo::failure::{code, code_of};
use crate::mongo::{catalog, command};
use crate::names::IMPORT_COLLECTION;

/// How long a lease is valid without renewal.
pub const EXPIRY: Duration = Duration::from_secs(5);

/// How often a lease is renewed within its expiry.
const RENEWALS: u32 = 5;

/// The minimum time limit of one renewal, if half of the expiry is less. One hanging connection
/// must not cost the lease.
const RENEWAL_LIMIT: Duration = Duration::from_secs(1);

/// How long a target may leave renewals unanswered before it counts as lost. No command of an
/// import waits longer, except an index build, which has no limit.
const SILENCE: Duration = Duration::from_secs(300);

/// How many times the drop of a lease's collection is tried.
const DROPS: u32 = 3;

/// The minimum time limit for dropping a lease's collection.
const DROP_LIMIT: Duration = Duration::from_secs(1);

/// The purpose of a lease. A database may have one lease for each purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// An import writes to the database.
    Import,
    /// The whole database belongs to a test restore and is dropped with it.
    TestRestore,
}

impl Purpose {
    /// The `_id` of the lease in its collection.
    fn id(self) -> &'static str {
        match self {
            Self::Import => "lease",
            Self::TestRestore => "drill",
        }
    }
}

/// Who holds a test restore's database, after an attempt to take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// The caller: its test restore is dead.
    Taken,
    /// Its test restore, until this time unless it renews the lease.
    Held(bson::DateTime),
    /// No test restore: the database may be a user's.
    Absent,
}

/// Takes a database from its test restore if that is dead. A database without a test restore's
/// lease is left unchanged.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
pub async fn take_from_dead_test_restore(target: &Target, database: &str, expiry: Duration) -> Result<Hold> {
    let what = format!("checking whether the test restore of {database} is alive");
    let ask = Ask { database: database.to_owned(), home: database.to_owned(), ..Ask::new(Purpose::TestRestore, expiry) };
    let reply = target.run(&what, &ask.database, ask.command(false)?).await?;
    let Ok(lease) = reply.get_document("value") else { return Ok(Hold::Absent) };
    match (lease.get_str("id"), lease.get_datetime("expires")) {
        (Ok(holder), _) if holder == ask.id => Ok(Hold::Taken),
        (Ok(_), Ok(expires)) => Ok(Hold::Held(*expires)),
        _ => Ok(Hold::Absent),
    }
}

/// A lease in a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What it is for.
    pub purpose: Purpose,
    /// The id of its holder.
    pub id: String,
    /// The backup that its holder imports.
    pub backup: String,
    /// The machine that its holder runs on.
    pub host: String,
    /// The process ID of its holder on that machine.
    pub process: i64,
    /// Whether it has not expired yet.
    pub lives: bool,
}

/// Reads the leases of a database, without taking any.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
pub async fn seen(target: &Target, database: &str) -> Result<Vec<Seen>> {
    let what = format!("reading the leases of {database}");
    let command = rawdoc! {
        "aggregate": IMPORT_COLLECTION,
        "pipeline": [
            { "$match": { "_id": { "$in": [Purpose::Import.id(), Purpose::TestRestore.id()] } } },
            { "$addFields": { "lives": { "$gt": ["$expires", "$$NOW"] } } },
        ],
        "cursor": {},
    };
    let reply = target.run(&what, database, command).await?;
    let found = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let text = |lease: &Document, field| lease.get_str(field).unwrap_or("?").to_owned();
    let seen = |lease: &Document| Seen {
        purpose: if lease.get_str("_id").is_ok_and(|id| id == Purpose::TestRestore.id()) {
            Purpose::TestRestore
        } else {
            Purpose::Import
        },
        id: text(lease, "id"),
        backup: text(lease, "backup"),
        host: text(lease, "host"),
        process: lease.get_i64("process").unwrap_or(0),
        lives: lease.get_bool("lives").unwrap_or(false),
    };
    Ok(found.into_iter().flatten().filter_map(Bson::as_document).map(seen).collect())
}

/// The leases of one import on its databases.
#[derive(Debug)]
pub struct Lease {
    target: Target,
    id: String,
    asks: Vec<Ask>,
    /// The dead imports that held them before.
    formers: Vec<Former>,
    /// The record of publish steps may exist.
    decided: AtomicBool,
    /// Everything that former holders left is finished.
    settled: Arc<AtomicBool>,
    /// Cancelled if another import has taken one of the leases, or the target does not answer.
    lost: CancellationToken,
    end: CancellationToken,
    beating: JoinSet<()>,
}

/// An import that held the lease before and did not release it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Former {
    /// Its id.
    pub id: String,
    /// The database with its publish record, if it got that far.
    pub home: String,
}

impl Lease {
    /// Takes the leases of these databases, and of all databases that unfinished imports in them
    /// also write to, and begins to renew them. The first database will have the record.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if another live import holds one of them, after waiting a little
    /// longer than `expiry` for its release; server errors; [`ErrorKind::Interrupted`].
    pub async fn take(target: &Target, databases: &[String], backup: &str, expiry: Duration) -> Result<Self> {
        Self::take_for(Purpose::Import, target, databases, backup, expiry).await
    }

    /// The same for another purpose.
    ///
    /// # Errors
    /// As for [`take`](Self::take).
    pub async fn take_for(
        purpose: Purpose,
        target: &Target,
        databases: &[String],
        backup: &str,
        expiry: Duration,
    ) -> Result<Self> {
        let ask =
            Ask { home: databases.first().cloned().unwrap_or_default(), backup: backup.to_owned(), ..Ask::new(purpose, expiry) };
        let mut lease = Self {
            target: target.unstoppable(),
            id: ask.id.clone(),
            asks: Vec::new(),
            formers: Vec::new(),
            decided: AtomicBool::new(false),
            settled: ask.settled.clone(),
            lost: CancellationToken::new(),
            end: CancellationToken::new(),
            beating: JoinSet::new(),
        };
        match lease.take_all(target, databases, &ask).await {
            Ok(formers) => {
                lease.formers = formers.into_iter().collect();
                Ok(lease)
            }
            Err(e) => {
                lease.release().await;
                Err(e)
            }
        }
    }

    async fn take_all(&mut self, target: &Target, databases: &[String], ask: &Ask) -> Result<BTreeSet<Former>> {
        let mut formers = BTreeSet::new();
        let mut wanted: VecDeque<String> = databases.iter().cloned().collect();
        let mut seen: BTreeSet<Former> = BTreeSet::new();
        while let Some(database) = wanted.pop_front() {
            let ask = Ask { database, ..ask.clone() };
            // Also if taking it fails: if the reply is lost, the lease may have been granted.
            self.asks.push(ask.clone());
            let found = ask.patiently(target).await.map_err(|e| match databases.contains(&ask.database) {
                true => e,
                false => e.context("a crashed import must be finished first, in other databases too"),
            })?;
            self.beating.spawn(beat(self.target.clone(), ask.clone(), self.lost.clone(), self.end.clone()));
            // Only one import at a time finishes leftovers, so it holds the leases of all databases
            // concerned.
            let home = ask.database;
            let ids = record::ids(target, &home).await?;
            formers.extend(found.into_iter().chain(ids.into_iter().map(|id| Former { id, home: home.clone() })));
            for former in formers.iter().filter(|former| seen.insert((*former).clone())) {
                let steps = record::read(target, &former.home, &former.id).await?.unwrap_or_default();
                for database in steps.iter().map(Step::database).chain(steps.first().map(|_| former.home.as_str())) {
                    if !wanted.iter().any(|w| w == database) && self.asks.iter().all(|a| a.database != database) {
                        wanted.push_back(database.to_owned());
                    }
                }
            }
        }
        Ok(formers)
    }

    /// The id in the names of its staging collections.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The database with the record.
    #[must_use]
    pub fn home(&self) -> &str {
        self.asks.first().map_or("", |ask| &ask.home)
    }

    pub(super) fn formers(&self) -> &[Former] {
        &self.formers
    }

    /// Sets whether the record of publish steps may exist.
    pub(super) fn decide(&self, decided: bool) {
        self.decided.store(decided, Ordering::Relaxed);
    }

    /// Whether the record of publish steps may exist. If so, the next import finishes the rest.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        self.decided.load(Ordering::Relaxed)
    }

    /// Runs the work to its end, unless another import takes the lease.
    ///
    /// # Errors
    /// Errors of the work; [`ErrorKind::Refused`] if the lease is lost.
    pub async fn unless_lost<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.lost.run_until_cancelled(work).await.unwrap_or_else(|| Err(Self::lost_error(&self.target)))
    }

    /// Waits until another import has taken the lease. That happens if this one was suspended for
    /// long.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// The databases of all its leases: those asked for, and those of unfinished imports that were
    /// found.
    #[must_use]
    pub fn databases(&self) -> BTreeSet<String> {
        self.asks.iter().map(|ask| ask.database.clone()).collect()
    }

    /// Everything that former holders left is finished: from now on, the lease covers this import
    /// alone.
    pub(super) fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    /// Renews the leases now, before a step that must not be done without them.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if another import has it; server errors.
    pub async fn confirm(&self) -> Result<()> {
        for ask in &self.asks {
            let what = format!("renewing the lease of {}", ask.database);
            let reply = self.target.run(&what, &ask.database, ask.renewal()?).await?;
            if !ask.is_given(&reply) {
                self.lost.cancel();
                return Err(Self::lost_error(&self.target));
            }
        }
        Ok(())
    }

    /// Whether another import has taken a lease.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// The error of an import that lost its lease.
    #[must_use]
    pub fn lost_error(target: &Target) -> Error {
        Error::new(
            ErrorKind::Refused,
            format!("the import did not renew its lease in time: another import has taken over {}, or it did not answer", target.connection.uri),
        )
        .hint("the process was suspended, or the target did not answer; run it again when the target answers and no other import writes to it")
    }

    /// Stops renewing the leases and leaves them to expire.
    pub async fn end(&mut self) {
        self.end.cancel();
        while self.beating.join_next().await.is_some() {}
    }

    /// Releases the leases. A lease that cannot be released now expires.
    pub async fn release(mut self) {
        self.end().await;
        for ask in &self.asks {
            if let Err(e) = give_back(&self.target, ask).await {
                tracing::warn!("the lease of {} was not released and expires by itself: {e}", ask.database);
            }
        }
    }
}

/// A request for a database's lease.
#[derive(Debug, Clone)]
struct Ask {
    purpose: Purpose,
    database: String,
    id: String,
    home: String,
    backup: String,
    expiry: Duration,
    settled: Arc<AtomicBool>,
}

impl Ask {
    fn new(purpose: Purpose, expiry: Duration) -> Self {
        let id = Uuid::new_v4().simple().to_string()[..12].to_owned();
        let (database, home, backup) = (String::new(), String::new(), String::new());
        Self { purpose, database, id, home, backup, expiry, settled: Arc::default() }
    }

    /// Asks until the lease is granted, or its holder is clearly alive. Returns the dead former
    /// holders.
    async fn patiently(&self, target: &Target) -> Result<Vec<Former>> {
        let what = format!("taking the lease of {}", self.database);
        let (began, patience) = (Instant::now(), self.expiry + self.expiry / RENEWALS);
        loop {
            let reply = target.run(&what, &self.database, self.command(true)?).await?;
            let lease = reply.get_document("value").cloned().unwrap_or_default();
            if self.is_given(&reply) {
                return Ok(formers(&lease));
            }
            if began.elapsed() > patience {
                return Err(taken(&self.database, &lease));
            }
            target.unless_stopped(tokio::time::sleep(self.expiry / (2 * RENEWALS))).await?;
        }
    }

    /// Never recreates a test restore's lease: its database is dropped with the lease, and the
    /// renewal would create it again.
    fn renewal(&self) -> Result<RawDocumentBuf> {
        self.command(self.purpose == Purpose::Import)
    }

    fn is_given(&self, reply: &Document) -> bool {
        reply.get_document("value").and_then(|lease| lease.get_str("id")).is_ok_and(|id| id == self.id)
    }

    /// Takes the lease if it is free, expired or held by this import, and returns the lease as it
    /// is then, in one atomic step of the server. If `made`, a missing lease is created.
    fn command(&self, made: bool) -> Result<RawDocumentBuf> {
        let millis = i64::try_from(self.expiry.as_millis()).unwrap_or(i64::MAX);
        let mine = doc! { "$eq": ["$id", &*self.id] };
        let free = doc! { "$eq": [{ "$type": "$expires" }, "missing"] };
        let expired = doc! { "$lt": ["$expires", "$$NOW"] };
        // They are passed on until what they left is finished.
        let known = if self.settled.load(Ordering::Relaxed) {
            doc! { "$literal": [] }
        } else {
            doc! { "$ifNull": ["$formers", []] }
        };
        let before = doc! { "$cond": [free.clone(), [], [{ "id": "$id", "home": "$home" }]] };
        let held = doc! {
            // A text that begins with `$` would be taken for a field name.
            "_id": self.purpose.id(), "id": &*self.id, "home": { "$literal": &*self.home }, "backup": { "$literal": &*self.backup },
            "host": { "$literal": rustix::system::uname().nodename().to_string_lossy().into_owned() }, "process": i64::from(std::process::id()),
            "expires": { "$add": ["$$NOW", millis] },
            "formers": { "$cond": [mine.clone(), known, { "$setUnion": [{ "$ifNull": ["$formers", []] }, before] }] },
        };
        let command = doc! {
            "findAndModify": IMPORT_COLLECTION, "query": { "_id": self.purpose.id() }, "upsert": made, "new": true,
            "update": [{ "$replaceWith": { "$cond": [{ "$or": [mine, free, expired] }, held, "$$ROOT"] } }],
            "writeConcern": { "w": "majority", "wtimeout": MAJORITY_LIMIT },
        };
        RawDocumentBuf::try_from(&command)
            .map_err(|e| Error::new(ErrorKind::Internal, "the command for a lease is not a valid document").cause(e))
    }
}

fn formers(lease: &Document) -> Vec<Former> {
    let former = |former: &Document| {
        Some(Former { id: former.get_str("id").ok()?.to_owned(), home: former.get_str("home").ok()?.to_owned() })
    };
    lease.get_array("formers").into_iter().flatten().filter_map(Bson::as_document).filter_map(former).collect()
}

fn taken(database: &str, lease: &Document) -> Error {
    let text = |field| lease.get_str(field).unwrap_or("?");
    let process = lease.get_i64("process").unwrap_or(0);
    Error::new(
        ErrorKind::Refused,
        format!(
            "another import writes to {database}: {}, by process {process} on {}; nothing has been changed",
            text("backup"),
            text("host")
        ),
    )
    .hint("wait until it has ended, or stop it")
}

/// Renews one lease until the end, or until another import has it.
async fn beat(target: Target, ask: Ask, lost: CancellationToken, end: CancellationToken) {
    let database = target.connection.database(&ask.database);
    let mut answered = Instant::now();
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(ask.expiry / RENEWALS) => {}
        }
        let Ok(command) = ask.renewal() else { return };
        let renewal = command::reply(&database, command, Some((ask.expiry / 2).max(RENEWAL_LIMIT)));
        match renewal.await {
            Ok(reply) if ask.is_given(&reply) => answered = Instant::now(),
            Ok(_) => {
                lost.cancel();
                return;
            }
            Err(e) if answered.elapsed() > SILENCE => {
                tracing::warn!("the lease of {} could not be renewed for a long time: {e}", ask.database);
                lost.cancel();
                return;
            }
            // The next renewal tries again and shows who holds the lease then.
            Err(e) => tracing::debug!("the lease of {} was not renewed: {e}", ask.database),
        }
    }
}

/// Releases the lease. Drops its collection if nothing else is in it. If the leftovers of former
/// holders are not finished, they are passed on.
async fn give_back(target: &Target, ask: &Ask) -> Result<()> {
    let what = format!("releasing the lease of {}", ask.database);
    let mine = rawdoc! { "_id": ask.purpose.id(), "id": ask.id.as_str() };
    let concern = rawdoc! { "w": "majority", "wtimeout": MAJORITY_LIMIT };
    let renewed = target.run(&what, &ask.database, ask.renewal()?).await?;
    if !ask.is_given(&renewed) {
        return Ok(());
    }
    if !formers(renewed.get_document("value").unwrap_or(&Document::new())).is_empty() {
        let update = rawdoc! {
            "update": IMPORT_COLLECTION,
            "updates": [{ "q": mine, "u": { "$set": { "expires": bson::DateTime::from_millis(0) } } }],
            "writeConcern": concern,
        };
        return target.run(&what, &ask.database, update).await.map(|_| ());
    }
    // The collection is dropped while the lease is still held, within its validity: a later import
    // finds nothing, and an earlier one waits. So the server must not execute the drop late, and
    // each try renews the lease.
    let limit = (ask.expiry / 2).max(DROP_LIMIT);
    for _ in 0..DROPS {
        if !ask.is_given(&target.run(&what, &ask.database, ask.renewal()?).await?) {
            return Ok(());
        }
        // Without a query, the reply is the server's own counter, which is wrong after a crash.
        let count = rawdoc! { "count": IMPORT_COLLECTION, "query": { "_id": { "$exists": true } } };
        let held = target.run(&what, &ask.database, count).await?;
        if catalog::number(&held, "n") != Some(1) {
            break;
        }
        let drop = rawdoc! { "drop": IMPORT_COLLECTION, "maxTimeMS": i64::try_from(limit.as_millis()).unwrap_or(i64::MAX) };
        match target.try_run(&ask.database, drop, Some(limit)).await? {
            Ok(reply) if write_concern_error(&reply).is_none() => return Ok(()),
            Err(e) if code_of(&e) == Some(code::NAMESPACE_NOT_FOUND) => return Ok(()),
            Ok(_) | Err(_) => tokio::time::sleep(limit / 10).await,
        }
    }
    let delete = rawdoc! {
        "delete": IMPORT_COLLECTION, "deletes": [{ "q": mine, "limit": 1 }], "writeConcern": concern,
    };
    target.run(&what, &ask.database, delete).await.map(|_| ())
}
