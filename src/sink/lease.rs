//! The lease: one document in each database that an import writes to, so that two imports never work on one database at a time.
//!
//! It names its holder and when it expires by the server's own clock (`$$NOW`); a holder that lives renews it several times
//! before that. A newcomer waits until a lease that nobody renews has expired, and then takes it over with all that its holder left.

use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Target;
use crate::error::{Error, ErrorKind, Result};
use crate::mongo::command;
use crate::names::IMPORT_COLLECTION;

/// How long a lease holds that is not renewed.
pub const EXPIRY: Duration = Duration::from_secs(5);

/// How often a lease is renewed before it would expire.
const RENEWALS: u32 = 5;

/// How long one renewal may take.
const RENEWAL_LIMIT: Duration = Duration::from_secs(10);

/// What a lease is for. A database may have one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// An import writes to the database.
    Import,
    /// The database belongs to a drill as a whole, and goes with it.
    Drill,
}

impl Purpose {
    /// The `_id` of the lease in its collection.
    fn id(self) -> &'static str {
        match self {
            Self::Import => "lease",
            Self::Drill => "drill",
        }
    }
}

/// Who has a database that was a drill's, after it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Who asked: its drill is dead.
    Taken,
    /// Its drill, until then unless it renews that.
    Held(bson::DateTime),
    /// No drill: it may be a user's.
    Absent,
}

/// Takes a database from its drill if that does not live any more. A database that has no drill's lease is left as it is.
///
/// # Errors
/// The server's; [`ErrorKind::Interrupted`].
pub async fn take_from_dead_drill(target: &Target, database: &str, expiry: Duration) -> Result<Hold> {
    let what = format!("looking whether the drill of {database} lives");
    let (database, id) = (database.to_owned(), new_id());
    let ask = Ask { purpose: Purpose::Drill, home: database.clone(), database, id, backup: String::new(), expiry };
    let reply = target.run(&what, &ask.database, ask.command(false)?).await?;
    let Ok(lease) = reply.get_document("value") else { return Ok(Hold::Absent) };
    match (lease.get_str("id"), lease.get_datetime("expires")) {
        (Ok(holder), _) if holder == ask.id => Ok(Hold::Taken),
        (Ok(_), Ok(expires)) => Ok(Hold::Held(*expires)),
        _ => Ok(Hold::Absent),
    }
}

fn new_id() -> String {
    Uuid::new_v4().simple().to_string()[..12].to_owned()
}

/// The leases of one import on its databases.
#[derive(Debug)]
pub struct Lease {
    target: Target,
    purpose: Purpose,
    id: String,
    databases: Vec<String>,
    /// Cancelled when another import has taken one of them.
    lost: CancellationToken,
    end: CancellationToken,
    beating: JoinSet<()>,
}

/// An import that had the lease before and did not give it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Former {
    /// Its id.
    pub id: String,
    /// The database that has the record of what it publishes, if it got that far.
    pub home: String,
}

impl Lease {
    /// Takes the import's lease of each of these databases, the first of which will have the record, and begins to renew them. Gives those who had them and are gone, too.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] where another import that lives has one of them, after waiting a little longer than `expiry` for it to be gone; the server's;
    /// [`ErrorKind::Interrupted`].
    pub async fn take(target: &Target, databases: &[String], backup: &str, expiry: Duration) -> Result<(Self, Vec<Former>)> {
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
    ) -> Result<(Self, Vec<Former>)> {
        let id = new_id();
        let home = databases.first().cloned().unwrap_or_default();
        let mut lease = Self {
            target: target.unstoppable(),
            purpose,
            id,
            databases: Vec::new(),
            lost: CancellationToken::new(),
            end: CancellationToken::new(),
            beating: JoinSet::new(),
        };
        let mut formers = Vec::new();
        for database in databases {
            let ask = Ask {
                purpose,
                database: database.clone(),
                id: lease.id.clone(),
                home: home.clone(),
                backup: backup.to_owned(),
                expiry,
            };
            // Also the one that fails: whether it was given is unknown where the reply is lost.
            lease.databases.push(database.clone());
            match ask.patiently(target).await {
                Ok(former) => formers.extend(former),
                Err(e) => {
                    lease.release().await;
                    return Err(e);
                }
            }
            lease.beating.spawn(beat(lease.target.clone(), ask, lease.lost.clone(), lease.end.clone()));
        }
        formers.sort_by(|a, b| a.id.cmp(&b.id));
        formers.dedup();
        Ok((lease, formers))
    }

    /// The id that staging carries.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Waits until another import has taken the lease, which happens where this one was suspended for long.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Whether another import has it.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// The error of an import that lost its lease.
    #[must_use]
    pub fn lost_error(target: &Target) -> Error {
        Error::new(
            ErrorKind::Refused,
            format!("another import has taken over {}: this one did not renew its lease in time", target.connection.uri),
        )
        .hint("the process was suspended, or the target did not answer it; run it again when the other one has ended")
    }

    /// Renews the leases no more, and leaves them to expire.
    pub async fn end(&mut self) {
        self.end.cancel();
        while self.beating.join_next().await.is_some() {}
    }

    /// Gives the leases back. What cannot be given back now expires.
    pub async fn release(mut self) {
        self.end().await;
        for database in &self.databases {
            if let Err(e) = give_back(&self.target, database, self.purpose, &self.id).await {
                tracing::warn!("the lease of {database} was not given back, and expires by itself: {e}");
            }
        }
    }
}

/// What is asked of a database's lease.
#[derive(Debug, Clone)]
struct Ask {
    purpose: Purpose,
    database: String,
    id: String,
    home: String,
    backup: String,
    expiry: Duration,
}

impl Ask {
    /// Asks until it is given or nobody can be expected to give it up.
    async fn patiently(&self, target: &Target) -> Result<Option<Former>> {
        let what = format!("taking the lease of {}", self.database);
        let (began, patience) = (Instant::now(), self.expiry + self.expiry / RENEWALS);
        loop {
            let reply = target.run(&what, &self.database, self.command(true)?).await?;
            let lease = reply.get_document("value").cloned().unwrap_or_default();
            if lease.get_str("id").is_ok_and(|id| id == self.id) {
                return Ok(former(&lease));
            }
            if began.elapsed() > patience {
                return Err(taken(&self.database, &lease));
            }
            target.unless_stopped(tokio::time::sleep(self.expiry / (2 * RENEWALS))).await?;
        }
    }

    /// Takes the lease where it is free (or not there at all, if `made`), expired or held already, and gives it as it is then: all in one step of the
    /// server's.
    fn command(&self, made: bool) -> Result<RawDocumentBuf> {
        let millis = i64::try_from(self.expiry.as_millis()).unwrap_or(i64::MAX);
        let mine = doc! { "$eq": ["$id", &*self.id] };
        let free = doc! { "$eq": [{ "$type": "$expires" }, "missing"] };
        let expired = doc! { "$lt": ["$expires", "$$NOW"] };
        let held = doc! {
            "_id": self.purpose.id(), "id": &*self.id, "home": &*self.home, "backup": &*self.backup,
            "host": rustix::system::uname().nodename().to_string_lossy().into_owned(), "process": i64::from(std::process::id()),
            "expires": { "$add": ["$$NOW", millis] },
            "former": { "$cond": [mine.clone(), "$former", { "id": "$id", "home": "$home" }] },
        };
        let command = doc! {
            "findAndModify": IMPORT_COLLECTION, "query": { "_id": self.purpose.id() }, "upsert": made, "new": true,
            "update": [{ "$replaceWith": { "$cond": [{ "$or": [mine, free, expired] }, held, "$$ROOT"] } }],
            "writeConcern": { "w": "majority" },
        };
        RawDocumentBuf::try_from(&command)
            .map_err(|e| Error::new(ErrorKind::Internal, "a command was not put together as a document").cause(e))
    }
}

fn former(lease: &Document) -> Option<Former> {
    let former = lease.get_document("former").ok()?;
    Some(Former { id: former.get_str("id").ok()?.to_owned(), home: former.get_str("home").ok()?.to_owned() })
}

fn taken(database: &str, lease: &Document) -> Error {
    let text = |field| lease.get_str(field).unwrap_or("?");
    let process = lease.get_i64("process").unwrap_or(0);
    Error::new(
        ErrorKind::Refused,
        format!(
            "another import writes to {database}: of {}, by process {process} on {}; nothing has been changed",
            text("backup"),
            text("host")
        ),
    )
    .hint("wait until it has ended, or stop it")
}

/// Renews one lease until the end, or until it is another's.
async fn beat(target: Target, ask: Ask, lost: CancellationToken, end: CancellationToken) {
    let database = target.connection.database(&ask.database);
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(ask.expiry / RENEWALS) => {}
        }
        // The database of a drill is dropped with its lease: made anew, it would be there again.
        let Ok(command) = ask.command(ask.purpose == Purpose::Import) else { return };
        let renewal = command::bounded(RENEWAL_LIMIT, database.run_raw_command(command).into_future());
        match renewal.await {
            Ok(reply) => {
                let holder = reply.get_document("value").and_then(|v| v.get_str("id")).ok();
                if holder.map_or(ask.purpose == Purpose::Drill, |id| id != ask.id) {
                    lost.cancel();
                    return;
                }
            }
            // Tried again the next time; who has it then will show.
            Err(e) => tracing::debug!("the lease of {} was not renewed: {e}", ask.database),
        }
    }
}

/// Removes the lease, and its collection where nothing else is in it.
async fn give_back(target: &Target, database: &str, purpose: Purpose, id: &str) -> Result<()> {
    let what = format!("giving back the lease of {database}");
    let delete = bson::rawdoc! {
        "delete": IMPORT_COLLECTION,
        "deletes": [{ "q": { "_id": purpose.id(), "id": id }, "limit": 1 }],
        "writeConcern": { "w": "majority" },
    };
    target.run(&what, database, delete).await?;
    let left = target.run(&what, database, bson::rawdoc! { "count": IMPORT_COLLECTION }).await?;
    // Whoever comes in between finds its lease gone at the next renewal, and takes it again.
    if crate::mongo::catalog::number(&left, "n") == Some(0) {
        super::ddl::drop(target, &crate::names::Namespace::new(database, IMPORT_COLLECTION)).await
    } else {
        Ok(())
    }
}
