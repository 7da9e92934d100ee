//! `sync`: a target follows a source. The source's oplog is archived first; what is durable there
//! is applied to the target, with the position up to which that is done.

mod changes;
mod control;
mod copy;
mod ddl;
mod debts;
mod follow;
mod options;
mod proof;
mod status;
mod verify;
mod write;

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub use self::control::{ProvenView, SyncView, finalize, pause, resume, view};
use self::follow::{Ended, Parts, follow, may_pass};
pub use self::options::{PROOF, SyncOptions};
use self::proof::Prover;
pub use self::proof::{ProofReport, Unproven};
pub use self::status::{ProofStatus, StatusSender, SyncReport, SyncState, SyncStatus};
pub use self::verify::verify;
use crate::context::Context;
use crate::engine::archive::{self, ArchiveOptions, Identity};
use crate::engine::import::guard;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{ClusterTime, OplogPosition, Topology};
use crate::mongo::connect::ConnectOptions;
use crate::mongo::{Connection, MongoUri};
use crate::repository::Repository;
use crate::sink::synced::{Held, Synced, SyncedState};
use crate::sink::{Target, evolve};

/// The pause before a target that does not answer is tried again.
const AWAY: Duration = Duration::from_secs(1);
/// The pause before an archive that another process writes is tried again.
const ELSEWHERE: Duration = Duration::from_secs(5);
/// How long an entry may wait until it is durable, and so can be applied.
pub const AGE: Duration = Duration::from_millis(400);
/// How long a command to the target is repeated until the sync says that it waits.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to look for the target.
const SELECTION: Duration = Duration::from_secs(5);
/// How many connections to the target are used at a time.
const POOL: u32 = 16;

/// Follows `source` into `target` until it is cancelled. Begins with a copy if the target follows
/// nothing yet, and goes on if it does.
///
/// # Errors
/// [`ErrorKind::Refused`] if the target is the source, follows another one, or holds other data
/// under the names; [`ErrorKind::Busy`] if another process follows into it; [`ErrorKind::Usage`] if
/// it follows another selection; those of an archive and of an import.
pub async fn run(
    source: &MongoUri,
    target: &MongoUri,
    repository: &Repository,
    options: &SyncOptions,
    status: &StatusSender,
    cx: &Context,
) -> Result<SyncReport> {
    let how = ConnectOptions { pool: POOL, selection_timeout: Some(SELECTION) };
    let connection = cx.unless_cancelled(Connection::open(target, how)).await?;
    let version = cx.cancel.run_until_cancelled(connection.behaves_as()).await.ok_or_else(Error::interrupted)?;
    if connection.topology == Topology::Sharded {
        connection.close().await;
        return Err(Error::new(ErrorKind::Refused, format!("{target} is a sharded cluster, and nothing can follow into one"))
            .hint("use a replica set or a standalone server as the target"));
    }
    let identity = match cx.unless_cancelled(identity(source, &connection)).await {
        Ok(identity) => identity,
        Err(e) => {
            connection.close().await;
            return Err(e);
        }
    };
    let session = Session {
        source,
        uri: target,
        target: Target::new(connection, version, cx).patient_for(PATIENCE),
        version,
        repository,
        options,
        status,
        cx,
        identity,
    };
    let done = Box::pin(session.run()).await;
    session.target.connection.clone().close().await;
    done
}

/// What the source is known by. It must not be the target.
async fn identity(source: &MongoUri, target: &Connection) -> Result<Identity> {
    let connection = Connection::open(source, ConnectOptions { pool: 1, selection_timeout: None }).await?;
    let known = async {
        let identity = archive::identity(&connection).await?;
        let apart = guard::refuse_source(target, &connection.describe().await, Some(source)).await;
        apart.map_err(|e| e.hint("check [[MONGO_URI_LOCAL or target]]"))?;
        Ok(identity)
    };
    let known = known.await;
    connection.close().await;
    known
}

/// A sync that runs.
struct Session<'a> {
    source: &'a MongoUri,
    uri: &'a MongoUri,
    target: Target,
    version: crate::mongo::Version,
    repository: &'a Repository,
    options: &'a SyncOptions,
    status: &'a StatusSender,
    cx: &'a Context,
    identity: Identity,
}

impl Session<'_> {
    async fn run(&self) -> Result<SyncReport> {
        // 1. Nobody else writes the target.
        let (held, synced) = Held::take(&self.target, &self.begun()).await?;
        let taken = self.refuse_other(&synced);
        if let Err(e) = taken {
            held.release().await;
            return Err(e);
        }
        self.status.change(|s| s.source = Some((self.identity.id.clone(), self.identity.name.clone())));
        // 2. The source's oplog is archived from now on.
        let (sender, archive_status) = archive::status();
        let stop = self.cx.cancel.child_token();
        let mut archiving = self.archive(&synced, sender, stop.clone());
        // 3. The target is a copy, and follows.
        let place = self.repository.chain(&self.identity.id);
        let following = Box::pin(self.follow_on(&place, held, synced, archive_status));
        let (held, done) = tokio::select! {
            biased;
            ended = following => ended,
            // Without the archive, there is nothing to follow.
            failed = failure(&mut archiving) => return Err(failed),
        };
        held.release().await;
        // 4. In order: what the source had is durable.
        stop.cancel();
        if !archiving.is_finished()
            && let Ok(Err(e)) = (&mut archiving).await
            && e.kind() != ErrorKind::Interrupted
        {
            return Err(e);
        }
        let at = done?;
        let status = self.status.get();
        Ok(SyncReport {
            target: self.target.connection.uri.to_string(),
            replica_set_id: self.identity.id.clone(),
            at,
            operations: status.operations,
            batches: status.batches,
            ddl: status.ddl,
        })
    }

    /// What the target follows if it followed nothing before.
    fn begun(&self) -> Synced {
        Synced {
            replica_set_id: self.identity.id.clone(),
            replica_set: self.identity.name.clone(),
            selection: self.options.selection(),
            state: SyncedState::Copying,
            // Servers replace a timestamp of 0, 0 by their own time.
            at: OplogPosition { time: ClusterTime { t: 0, i: 1 }, term: None, digest: None },
            open_from: None,
            to: None,
            within: None,
            epoch: 0,
            reason: None,
            holder: None,
            told: None,
        }
    }

    fn refuse_other(&self, synced: &Synced) -> Result<()> {
        // A copy that was never finished may be one of anything.
        if synced.state == SyncedState::Copying {
            return Ok(());
        }
        if synced.state == SyncedState::Final {
            return Err(Error::new(ErrorKind::Refused, format!("{} was finalized: it follows nothing any more", self.uri))
                .hint(format!("drop its database {} to begin anew", crate::names::SYNC_DATABASE)));
        }
        if synced.replica_set_id != self.identity.id {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "{} follows the replica set {} ({}), and not {} ({})",
                    self.uri, synced.replica_set, synced.replica_set_id, self.identity.name, self.identity.id
                ),
            )
            .hint(format!(
                "`bsonvault sync finalize` ends that; once its database {} is dropped, another source can be followed",
                crate::names::SYNC_DATABASE
            )));
        }
        let selection = self.options.selection();
        if synced.selection != selection {
            return Err(Error::usage(format!(
                "{} follows {}, and it is asked to follow {selection}",
                self.uri, synced.selection
            ))
            .hint(format!(
                "ask for the same; or end it with `bsonvault sync finalize`, drop its database {}, and begin anew",
                crate::names::SYNC_DATABASE
            )));
        }
        Ok(())
    }

    /// Archives the source's oplog beside, until it is stopped. While another process does, that is
    /// as good.
    fn archive(&self, synced: &Synced, sender: archive::StatusSender, stop: CancellationToken) -> AbortOnDropHandle<Result<()>> {
        let (source, repository) = (self.source.clone(), self.repository.clone());
        let bases = self.options.archive.bases.clone().filter(|_| self.options.keep_backup);
        // An archive that is new, because it is elsewhere or was lost, has what the target needs.
        let since = Some(synced.needs()).filter(|_| synced.state != SyncedState::Copying);
        let options = ArchiveOptions { age: AGE, bases, since, ..self.options.archive.clone() };
        let cx = self.cx.cancelled_by(stop.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            let mut is_told = false;
            loop {
                match Box::pin(archive::run(&source, &repository, &options, &sender, &cx)).await {
                    Ok(_) => break,
                    Err(e) if e.kind() == ErrorKind::Busy => {
                        if !std::mem::replace(&mut is_told, true) {
                            cx.progress.note(format!("the oplog is archived by another process: {e}"));
                        }
                    }
                    Err(e) => return Err(e),
                }
                // Once the other process ends, this one goes on with it.
                if stop.run_until_cancelled(tokio::time::sleep(ELSEWHERE)).await.is_none() {
                    break;
                }
            }
            // Whoever follows can still ask for the last state.
            stop.cancelled().await;
            drop(sender);
            Ok(())
        }))
    }

    /// Copies if necessary, and follows until it is stopped. Returns the position.
    async fn follow_on(
        &self,
        place: &crate::repository::chain::ChainPlace,
        mut held: Held,
        mut synced: Synced,
        archive: tokio::sync::watch::Receiver<archive::ArchiveStatus>,
    ) -> (Held, Result<ClusterTime>) {
        if synced.state == SyncedState::Copying {
            self.status.change(|s| s.state = SyncState::Copying);
            match Box::pin(self.copy(place, &held, synced)).await {
                Ok(copied) => synced = copied,
                Err(e) => return (held, Err(e)),
            }
            self.cx.progress.note(format!("the first copy is made: the target is at {}", synced.at.time));
        }
        if synced.state == SyncedState::Held
            && let Err(e) = held.set_state(SyncedState::Following, None).await
        {
            return (held, Err(e));
        }
        self.cx.progress.begin("following");
        let _proving = AbortOnDropHandle::new(tokio::spawn(self.prover(&held).run()));
        loop {
            let ended = match self.without_expiry().await {
                Err(e) => Ended::Failed(e),
                Ok(()) => {
                    let parts = Parts {
                        place,
                        target: &self.target,
                        version: self.version,
                        transactions: self.target.connection.topology == Topology::ReplicaSet,
                        options: self.options,
                        status: self.status,
                        archive: archive.clone(),
                        cx: self.cx,
                    };
                    let (again, ended) = Box::pin(follow(parts, held, &synced)).await;
                    held = again;
                    ended
                }
            };
            let stopped = self.status.get().at.unwrap_or(synced.at.time);
            match ended {
                Ended::Stopped => return (held, Ok(stopped)),
                Ended::WentBack => {}
                Ended::Failed(e) if e.kind() == ErrorKind::Interrupted => return (held, Ok(stopped)),
                Ended::Failed(e) if e.kind() == ErrorKind::Busy => return (held, Err(e)),
                Ended::Failed(e) if may_pass(&e) => self.wait(&e).await,
                Ended::Failed(e) => return self.hold(held, e, stopped).await,
            }
            match self.read_again(&held).await {
                Ok(Some(now)) => synced = now,
                Ok(None) => return (held, Ok(stopped)),
                Err(e) => return (held, Err(e)),
            }
        }
    }

    /// Makes the first copy. While a side does not answer, it waits, and then goes on.
    async fn copy(&self, place: &crate::repository::chain::ChainPlace, held: &Held, mut synced: Synced) -> Result<Synced> {
        // What expires is deleted in the source.
        self.without_expiry().await?;
        loop {
            let copier = copy::Copier {
                source: self.source,
                uri: self.uri,
                target: &self.target,
                version: self.version,
                repository: self.repository,
                options: self.options,
                cx: self.cx,
                place,
                held,
                synced: &synced,
                begun: self.begun(),
            };
            let made = tokio::select! {
                made = Box::pin(copy::make(&copier)) => made,
                () = held.lost().cancelled() => Err(held.lost_error()),
            };
            match made {
                Err(e) if may_pass(&e) && self.options.is_direct() => self.wait(&e).await,
                made => return made,
            }
            self.status.change(|s| (s.state, s.problem) = (SyncState::Copying, None));
            synced = self.read_again(held).await?.ok_or_else(Error::interrupted)?;
        }
    }

    /// What proves the target while it follows.
    fn prover(&self, held: &Held) -> Prover {
        Prover {
            source: self.source.clone(),
            uri: self.uri.clone(),
            target: self.target.clone(),
            options: self.options.clone(),
            status: self.status.clone(),
            still: held.still(),
            cx: self.cx.cancelled_by(self.cx.cancel.child_token()),
        }
    }

    /// Waits a moment for a target, or an archive, that does not answer.
    async fn wait(&self, error: &Error) {
        tracing::debug!("the sync waits: {error}");
        self.cx.progress.note(format!("the sync waits: {error}"));
        self.status.change(|s| {
            s.state = SyncState::Waiting;
            s.problem = Some(error.to_string());
        });
        let _stopped = self.cx.cancel.run_until_cancelled(tokio::time::sleep(AWAY)).await;
    }

    /// The position in the target, as soon as it answers. `None` once it is stopped.
    async fn read_again(&self, held: &Held) -> Result<Option<Synced>> {
        loop {
            if self.cx.cancel.is_cancelled() {
                return Ok(None);
            }
            match Synced::read(&self.target).await {
                Ok(Some(now)) if now.epoch == held.epoch() => return Ok(Some(now)),
                Ok(_) => return Err(held.lost_error()),
                Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(None),
                Err(e) if may_pass(&e) => self.wait(&e).await,
                Err(e) => return Err(e),
            }
        }
    }

    /// Something came that cannot be applied: says so, and keeps archiving until it is stopped.
    async fn hold(&self, held: Held, error: Error, at: ClusterTime) -> (Held, Result<ClusterTime>) {
        let anew = "begin anew: stop the sync, drop the database bsonvault of the target, and copy in mode replace";
        let said = match error.hint_text() {
            // The hints of these are for restores.
            _ if matches!(error.kind(), ErrorKind::Gap | ErrorKind::NotFound) => format!("{error}; {anew}"),
            Some(hint) => format!("{error}; {hint}"),
            None => format!("{error}; see why, and start it again, or {anew}"),
        };
        tracing::error!("the sync is held at {at}: {said}");
        self.cx.progress.note(format!("the sync is held at {at}: {said}"));
        self.status.change(|s| {
            s.state = SyncState::Held;
            s.problem = Some(said.clone());
        });
        if let Err(e) = held.set_state(SyncedState::Held, Some(&said)).await {
            return (held, Err(e));
        }
        tokio::select! {
            () = self.cx.cancel.cancelled() => (held, Ok(at)),
            () = held.lost().cancelled() => {
                let lost = held.lost_error();
                (held, Err(lost))
            }
        }
    }

    /// Keeps the target from expiring documents by itself: what expires in the source is deleted
    /// there, and the delete arrives like any other.
    async fn without_expiry(&self) -> Result<()> {
        match evolve::expires(&self.target).await? {
            Some(false) => Ok(()),
            _ if evolve::set_expires(&self.target, false).await? => Ok(()),
            _ => {
                self.cx.progress.note(
                    "the login at the target may not stop its TTL monitor (setParameter): documents may expire there \
                     before they do in the source",
                );
                Ok(())
            }
        }
    }
}

/// Why an archive ended; never if it was stopped.
async fn failure(archiving: &mut AbortOnDropHandle<Result<()>>) -> Error {
    match archiving.await {
        Ok(Err(e)) if e.kind() != ErrorKind::Interrupted => e.context("the source's oplog is not archived any more"),
        Ok(_) => std::future::pending().await,
        Err(e) => Error::new(ErrorKind::Internal, "the archive died").cause(e),
    }
}
