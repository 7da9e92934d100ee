//! Writes backups to MongoDB: creates collections with their raw options, fills them with raw
//! documents, reads them back to verify them, and builds their indexes.

mod aside;
pub mod check;
mod collection_spec;
mod copy;
mod ddl;
pub mod evolve;
pub mod first_copy;
pub mod holdings;
pub mod in_place;
pub mod indexes;
pub mod insert;
pub mod kept;
pub mod lease;
pub mod leftovers;
pub mod limits;
pub(crate) mod masked;
mod merge;
pub mod prepare;
pub mod proven;
pub mod publish;
mod record;
mod same_index;
pub mod scratch;
mod series;
pub(crate) mod settle;
mod specification;
pub mod staging;
mod step;
pub mod synced;
pub mod users;

use std::time::Duration;

use bson::oid::ObjectId;
use bson::raw::cstr;
use bson::{Document, RawDocumentBuf, rawdoc};
use mongodb::error::Error as DriverError;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use collection_spec::{Alterations, CollectionSpec, Index};
pub use ddl::Standing;

use crate::context::Context;
use crate::context::cpu::CpuPool;
use crate::context::memory::MemoryBudget;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::Topology;
use crate::mongo::failure::{code, describe, is_transient, is_transient_code};
use crate::mongo::retry::{self, Retry};
use crate::mongo::{Connection, Version, command};

/// How long a majority may take to confirm one command, in milliseconds. This is less than the
/// limit of the command itself, so that the reply says what is missing.
const MAJORITY_LIMIT: i32 = 50_000;

/// The process of a primary, and the term of the election that made it primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    process: Option<ObjectId>,
    term: Option<ObjectId>,
}

/// The target deployment, with the stop token, the CPU pool and the memory budget. Clones share all
/// of it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The connection.
    pub connection: Connection,
    /// Whether its servers check the UUID that a write names. Then a late command never recreates a
    /// collection.
    pub checks_uuids: bool,
    /// The pool for CPU work on documents before they are written.
    pub cpu: CpuPool,
    /// The memory budget shared by all concurrent work.
    pub memory: MemoryBudget,
    /// How long a command is repeated that fails for reasons that may pass.
    patience: Duration,
    stop: CancellationToken,
}

impl Target {
    /// A new target. Everything done through it ends with [`ErrorKind::Interrupted`] once the
    /// context is cancelled.
    #[must_use]
    pub fn new(connection: Connection, behaves_as: Version, cx: &Context) -> Self {
        let checks_uuids = behaves_as >= Version(6, 0, 0) && connection.topology != Topology::Sharded;
        let (cpu, memory, stop) = (cx.cpu.clone(), cx.memory.clone(), cx.cancel.clone());
        Self { connection, checks_uuids, cpu, memory, patience: retry::STEP, stop }
    }

    /// The same, which repeats a command for so long.
    #[must_use]
    pub fn patient_for(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The same target, without the stop: for work that must be finished, and for cleanup after a
    /// stop.
    #[must_use]
    pub fn unstoppable(&self) -> Self {
        Self { stop: CancellationToken::new(), ..self.clone() }
    }

    /// The token that stops it.
    #[must_use]
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Awaits a future unless the target is stopped first.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`].
    pub async fn unless_stopped<T>(&self, future: impl Future<Output = T>) -> Result<T> {
        self.stop.run_until_cancelled(future).await.ok_or_else(Error::interrupted)
    }

    /// Names the collection's UUID in a command, if it is known and the servers check it.
    fn name_uuid(&self, command: &mut RawDocumentBuf, uuid: Option<Uuid>) {
        if let (true, Some(uuid)) = (self.checks_uuids, uuid) {
            command.append(cstr!("collectionUUID"), bson::Binary::from(bson::Uuid::from_bytes(uuid.into_bytes())));
        }
    }

    /// Runs a command with a limit of `limit`. An unmet write concern is a server error in the
    /// reply.
    pub(crate) async fn try_run(
        &self,
        database: &str,
        command: RawDocumentBuf,
        limit: Option<Duration>,
    ) -> Result<Result<Document, DriverError>> {
        let database = self.connection.database(database);
        self.unless_stopped(command::reply(&database, command, limit)).await
    }

    /// Runs a command that is safe to repeat, until it succeeds or fails permanently.
    pub(crate) async fn run(&self, what: &str, database: &str, command: RawDocumentBuf) -> Result<Document> {
        let mut attempts = Attempts::new(self, what);
        loop {
            let tried = self.try_run(database, command.clone(), Some(command::COMMAND_LIMIT)).await?;
            if let Some(reply) = attempts.judge(tried).await? {
                return Ok(reply);
            }
        }
    }

    /// The same for one that may take long.
    pub(crate) async fn run_long(&self, what: &str, database: &str, command: RawDocumentBuf) -> Result<()> {
        let mut attempts = Attempts::new(self, what);
        loop {
            let tried = self.try_run(database, command.clone(), None).await?;
            if let Some(reply) = attempts.judge(tried).await? {
                return write_errors(&reply).first().map_or(Ok(()), |problem| Err(problem.error(what)));
            }
        }
    }

    /// The number of cores of the server, if the login may ask.
    pub async fn cores(&self) -> Option<u64> {
        let asked = self.run("reading the number of cores", "admin", rawdoc! { "hostInfo": 1 }).await.ok()?;
        asked.get_document("system").ok().and_then(|system| crate::mongo::catalog::number(system, "numCores"))
    }

    /// Which process answers, and as primary of which term. If that changes, writes that no
    /// majority had confirmed may be lost.
    ///
    /// # Errors
    /// Server errors; [`ErrorKind::Interrupted`].
    pub async fn identity(&self) -> Result<Identity> {
        let hello = self.run("asking which server answers", "admin", rawdoc! { "hello": 1 }).await?;
        let process = hello.get_document("topologyVersion").and_then(|v| v.get_object_id("processId")).ok();
        Ok(Identity { process, term: hello.get_object_id("electionId").ok() })
    }

    /// Waits until every write so far is on the disks of a majority.
    ///
    /// Sends one update that matches nothing, with write concern majority and journaling. It
    /// changes nothing, and yet the server waits until its whole log so far is durable. Seen on
    /// 6.0.5, standalone and replica set: it hangs as long as the journal's flusher is held.
    ///
    /// # Errors
    /// Server errors, [`ErrorKind::Interrupted`].
    pub async fn make_durable(&self, database: &str) -> Result<()> {
        let command = rawdoc! {
            "update": crate::names::IMPORT_COLLECTION,
            "updates": [{ "q": { "$alwaysFalse": 1 }, "u": { "$set": { "durable": true } } }],
            "writeConcern": { "w": "majority", "j": true, "wtimeout": MAJORITY_LIMIT },
        };
        let what = format!("making {database} durable");
        self.run(&what, database, command).await.map(drop)
    }
}

/// The retries of one step.
pub(crate) struct Attempts<'a> {
    target: &'a Target,
    what: &'a str,
    retry: Retry,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(target: &'a Target, what: &'a str) -> Self {
        Self { target, what, retry: Retry::within(target.patience) }
    }

    /// A part of the step succeeded: the retry limit starts again.
    fn progress(&mut self) {
        self.retry.progress();
    }

    /// Waits until the next attempt after this error, or returns the error if a retry is pointless.
    pub(crate) async fn again(&mut self, error: DriverError) -> Result<()> {
        if !is_transient(&error) {
            return Err(describe(self.target.connection.role(), self.what, error));
        }
        self.wait(|what| describe(self.target.connection.role(), what, error)).await
    }

    /// The reply of a command. `None` if the command did not do all it was asked, once it is time
    /// to try again.
    pub(crate) async fn judge(&mut self, tried: Result<Document, DriverError>) -> Result<Option<Document>> {
        match tried {
            Ok(reply) => match write_errors(&reply).into_iter().next().or_else(|| write_concern_error(&reply)) {
                None => Ok(Some(reply)),
                Some(problem) => self.again_after(problem).await.map(|()| None),
            },
            Err(e) => self.again(e).await.map(|()| None),
        }
    }

    /// The same, after a problem that a reply names.
    pub(crate) async fn again_after(&mut self, problem: Problem) -> Result<()> {
        let is_late = problem.code == code::WRITE_CONCERN_FAILED;
        if !is_transient_code(problem.code) && !is_late {
            return Err(problem.error(self.what));
        }
        self.wait(|what| {
            let error = Error::new(ErrorKind::Unreachable, problem.error(what).to_string());
            match is_late {
                true => error
                    .hint("a majority of the target's members must confirm writes and does not: start the members that are down"),
                false => error,
            }
        })
        .await
    }

    async fn wait(&mut self, give_up: impl FnOnce(&str) -> Error) -> Result<()> {
        let tried = self.retry.tried();
        let Some(pause) = self.retry.pause() else { return Err(give_up(&format!("{} (tried {tried} times)", self.what))) };
        tracing::debug!(what = self.what, tried, "trying again after a transient failure");
        self.target.unless_stopped(tokio::time::sleep(pause)).await
    }
}

/// A failure that a reply with `ok: 1` names.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    /// The index of the statement or document in the command; 0 for a write concern.
    pub(crate) index: usize,
    pub(crate) code: i32,
    message: String,
}

impl Problem {
    fn of(document: &Document) -> Self {
        Self {
            index: document.get_i32("index").ok().and_then(|i| usize::try_from(i).ok()).unwrap_or(0),
            code: document.get_i32("code").unwrap_or(0),
            message: document.get_str("errmsg").unwrap_or("no message").to_owned(),
        }
    }

    /// Whether an index may be the reason why a document was refused.
    fn may_be_of_an_index(&self) -> bool {
        !is_transient_code(self.code) && !matches!(self.code, code::MIXED_SCHEMA | code::COLLECTION_UUID_MISMATCH)
    }

    /// Whether a document with an equal `_id`, or an equal key of a unique index, exists.
    pub(crate) fn is_duplicate(&self) -> bool {
        self.code == code::DUPLICATE_KEY
    }

    pub(crate) fn error(&self, what: &str) -> Error {
        let kind = if self.code == code::UNAUTHORIZED { ErrorKind::Denied } else { ErrorKind::Server };
        Error::new(kind, format!("{what}: {} (code {})", self.message, self.code))
    }
}

pub(crate) fn write_errors(reply: &Document) -> Vec<Problem> {
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    errors.iter().filter_map(|e| e.as_document().map(Problem::of)).collect()
}

pub(crate) fn write_concern_error(reply: &Document) -> Option<Problem> {
    reply.get_document("writeConcernError").ok().map(Problem::of)
}
