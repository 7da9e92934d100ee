//! Asks a target how far it is, and asks the process that follows into it to pause, to go on, or to
//! end for good.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::debts;
use crate::context::Context;
use crate::engine::timeline::TimelineTime;
use crate::error::{Error, ErrorKind, Result};
use crate::few::{Few, LISTED};
use crate::format::manifest::Topology;
use crate::mongo::connect::ConnectOptions;
use crate::mongo::{Connection, MongoUri, Version};
use crate::sink::proven::Proven;
use crate::sink::synced::{Held, Synced, SyncedCollection, SyncedState};
use crate::sink::{Target, evolve};

/// A target that follows a source.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyncView {
    /// The target: scheme, hosts and database.
    pub target: String,
    /// The ID of the source's replica set.
    pub replica_set_id: String,
    /// The name of the source's replica set.
    pub replica_set: String,
    /// What is followed.
    pub selection: String,
    /// `copying`, `following`, `paused`, `held` or `final`.
    pub state: String,
    /// Why it is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Everything up to this entry of the source is in the target. Absent before the first copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<TimelineTime>,
    /// Whether a process follows into it now.
    pub running: bool,
    /// That process: `PROCESS on HOST`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// How many seconds of the source the target is behind, by what that process knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<u32>,
    /// Whether the target shows one moment of the source.
    pub moment: bool,
    /// When the target was last proven, whether it was the same, and how many differences there
    /// were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proven: Option<ProvenView>,
    /// How many indexes are still being built in the target, by what that process knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debts: Option<u64>,
}

/// The last proof of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProvenView {
    /// When it ended.
    pub ended: DateTime<Utc>,
    /// Whether everything was proven to be the same.
    pub same: bool,
    /// How many differences there were.
    pub differences: u64,
}

impl ProvenView {
    fn of(proven: &Proven) -> Option<Self> {
        Some(Self { ended: proven.ended?, same: proven.same?, differences: proven.differences })
    }
}

impl SyncView {
    fn of(uri: &MongoUri, topology: Topology, synced: Synced, proven: &Proven) -> Self {
        let is_begun = synced.state != SyncedState::Copying;
        let holder = synced.holder.filter(|holder| holder.lives);
        let told = synced.told.filter(|_| holder.is_some());
        Self {
            target: uri.to_string(),
            replica_set_id: synced.replica_set_id,
            replica_set: synced.replica_set,
            selection: synced.selection,
            state: synced.state.name().to_owned(),
            reason: synced.reason.filter(|_| synced.state == SyncedState::Held),
            at: is_begun.then(|| synced.at.time.into()),
            running: holder.is_some(),
            process: holder.map(|holder| format!("{} on {}", holder.process, holder.host)),
            // While it is held, nobody says how far the archive is.
            lag_seconds: told
                .filter(|_| synced.state != SyncedState::Held)
                .map(|told| told.archived.t.saturating_sub(synced.at.time.max(told.at).t)),
            proven: ProvenView::of(proven),
            debts: told.and_then(|told| u64::try_from(told.debts).ok()),
            moment: is_begun && synced.to.is_none() && topology == Topology::ReplicaSet,
        }
    }
}

pub(super) async fn open(uri: &MongoUri, cx: &Context) -> Result<Target> {
    let how = ConnectOptions { pool: 2, selection_timeout: None };
    let connection = cx.unless_cancelled(Connection::open(uri, how)).await?;
    let version = cx.cancel.run_until_cancelled(connection.behaves_as()).await.ok_or_else(Error::interrupted)?;
    Ok(Target::new(connection, version, cx))
}

/// Closes the connection, and shows what was found.
async fn shown(uri: &MongoUri, target: Target, found: Result<Synced>) -> Result<SyncView> {
    let proven = match &found {
        Ok(_) => Proven::read(&target).await,
        Err(_) => Ok(Proven::default()),
    };
    target.connection.clone().close().await;
    Ok(SyncView::of(uri, target.connection.topology, found?, &proven?))
}

pub(super) async fn read(target: &Target) -> Result<Synced> {
    Synced::read(target).await?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("{} follows nothing", target.connection.uri))
            .hint("`bsonvault sync` makes it follow a source")
    })
}

/// How far a target is.
///
/// # Errors
/// [`ErrorKind::NotFound`] if it follows nothing; server errors.
pub async fn view(uri: &MongoUri, cx: &Context) -> Result<SyncView> {
    let target = open(uri, cx).await?;
    let found = read(&target).await;
    shown(uri, target, found).await
}

/// Asks the process that follows into a target to pause: its source's oplog is still archived. A
/// pause outlasts that process.
///
/// # Errors
/// [`ErrorKind::NotFound`]; [`ErrorKind::Refused`] if it does not follow; server errors.
pub async fn pause(uri: &MongoUri, cx: &Context) -> Result<SyncView> {
    change(uri, SyncedState::Following, SyncedState::Paused, cx).await
}

/// Ends a pause.
///
/// # Errors
/// As for [`pause`].
pub async fn resume(uri: &MongoUri, cx: &Context) -> Result<SyncView> {
    change(uri, SyncedState::Paused, SyncedState::Following, cx).await
}

async fn change(uri: &MongoUri, from: SyncedState, to: SyncedState, cx: &Context) -> Result<SyncView> {
    let target = open(uri, cx).await?;
    let changed = async {
        let before = read(&target).await?;
        if before.state != to && !Held::ask(&target, from, to).await? {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("{uri} is {}, and only what is {} can become {}", before.state.name(), from.name(), to.name()),
            ));
        }
        read(&target).await
    };
    let changed = changed.await;
    shown(uri, target, changed).await
}

/// Ends the following for good: the target is a copy of its own from now on, and expires documents
/// by itself again. No process may follow into it.
///
/// # Errors
/// [`ErrorKind::NotFound`]; [`ErrorKind::Busy`] if a process follows into it;
/// [`ErrorKind::Refused`] if it has no complete copy; server errors.
pub async fn finalize(uri: &MongoUri, cx: &Context) -> Result<SyncView> {
    let target = open(uri, cx).await?;
    let version = cx.cancel.run_until_cancelled(target.connection.behaves_as()).await.ok_or_else(Error::interrupted)?;
    let done = async {
        let found = read(&target).await?;
        match found.state {
            SyncedState::Final => return Ok(found),
            SyncedState::Copying => {
                return Err(Error::new(ErrorKind::Refused, format!("{uri} has no complete copy yet"))
                    .hint("run `bsonvault sync` until it follows"));
            }
            SyncedState::Held => {
                return Err(Error::new(
                    ErrorKind::Refused,
                    format!("{uri} is held: {}", found.reason.as_deref().unwrap_or("something came that cannot be applied")),
                )
                .hint("the target is what the source was up to there; to keep it so, drop its database bsonvault"));
            }
            SyncedState::Following | SyncedState::Paused => {}
        }
        if found.to.is_some() {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("{uri} is not at one moment of its source: a crash interrupted a write"),
            )
            .hint("run `bsonvault sync` once more, and stop it in order"));
        }
        let (held, _) = Held::take(&target, &found).await?;
        let complete = async {
            refuse_different(&target).await?;
            refuse_missing(&target, version).await
        };
        if let Err(e) = complete.await {
            held.release().await;
            return Err(e);
        }
        evolve::set_expires(&target, true).await?;
        let done = held.set_state(SyncedState::Final, None).await;
        held.release().await;
        done?;
        read(&target).await
    };
    let done = done.await;
    shown(uri, target, done).await
}

/// A target that is known to differ is no copy.
async fn refuse_different(target: &Target) -> Result<()> {
    let proven = Proven::read(target).await?;
    if proven.differences == 0 {
        return Ok(());
    }
    let (uri, count) = (&target.connection.uri, proven.differences);
    let found = if count == 1 { "1 difference".to_owned() } else { format!("{count} differences") };
    Err(Error::new(ErrorKind::Refused, format!("{uri} is not what its source is: the last proof found {found}")).hint(
        "prove it again while it follows; to keep it as it is, drop its database bsonvault; to begin anew, copy in mode replace",
    ))
}

/// A target that lacks indexes of its source is no copy yet.
async fn refuse_missing(target: &Target, version: Version) -> Result<()> {
    let followed = SyncedCollection::all(target).await?.into_iter().map(|one| (one.source, one.to)).collect::<Vec<_>>();
    let missing = debts::missing(target, version, &followed).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let mut named = Few::up_to(LISTED);
    named.extend(
        missing.iter().flat_map(|(_, spec)| spec.indexes.iter().map(|index| format!("{:?} of {}", index.name, spec.namespace))),
    );
    Err(Error::new(
        ErrorKind::Refused,
        format!("{} lacks indexes of its source: {}", target.connection.uri, named.into_sentences().join(", ")),
    )
    .hint("run `bsonvault sync` until it has built them: its status tells how many are left"))
}
