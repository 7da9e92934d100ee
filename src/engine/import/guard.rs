//! The guard: prevents that swapped variables replace someone's production data.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::few::{Few, LISTED};
use crate::format::manifest::Source;
use crate::mongo::connect::ConnectOptions;
use crate::mongo::{Connection, MongoUri};
use crate::names::Namespace;
use crate::sink::synced::{Synced, SyncedCollection, SyncedState};
use crate::sink::{CollectionSpec, Target};

/// How long the configured source may take to identify itself. Its hosts are compared in any case.
const SOURCE_PATIENCE: Duration = Duration::from_secs(2);

/// Refuses a target that is the deployment that the backup came from, or the configured source.
///
/// # Errors
/// [`ErrorKind::Refused`], which says how it was recognized.
pub(in crate::engine) async fn refuse_source(
    target: &Connection,
    origin: &Source,
    configured_source: Option<&MongoUri>,
) -> Result<()> {
    let refused = |what: &str, by: String| {
        Err(Error::new(ErrorKind::Refused, format!("the target {} is {what}: {by}", target.uri))
            .hint("check [[MONGO_URI_LOCAL or target]]; to write to that deployment nonetheless, give [[allow-same]]"))
    };
    let target_hosts = hosts(target);

    // The backup's record of its origin.
    let came_from = "the deployment that the backup came from";
    if let Some(host) = common(&target_hosts, &normal(&origin.hosts)) {
        return refused(came_from, format!("both have the host {host}"));
    }
    let set = target.replica_set_id().await.zip(target.replica_set.clone());
    let origin_set = origin.replica_set_id.clone().zip(origin.replica_set.clone());
    if let (Some((_, name)), true) = (&set, set == origin_set) {
        return refused(came_from, format!("both are the replica set {name:?} with the same id"));
    }

    // The configured source, and how it identifies itself.
    let Some(source) = configured_source else { return Ok(()) };
    let configured = "the configured source";
    if let Some(host) = common(&target_hosts, &normal(source.hosts())) {
        return refused(configured, format!("both have the host {host}"));
    }
    let how = ConnectOptions { pool: 1, selection_timeout: Some(SOURCE_PATIENCE) };
    let Ok(Ok(source)) = tokio::time::timeout(2 * SOURCE_PATIENCE, Connection::open(source, how)).await else {
        tracing::warn!("the configured source does not answer: only the hosts show that the target is another deployment");
        return Ok(());
    };
    let by = if source.process.is_some() && source.process == target.process {
        Some("both are the same process".to_owned())
    } else if let Some(host) = common(&target_hosts, &hosts(&source)) {
        Some(format!("both have the host {host}"))
    } else if set.is_some() && source.replica_set_id().await.zip(source.replica_set.clone()) == set {
        Some("both are the same replica set".to_owned())
    } else {
        None
    };
    source.close().await;
    by.map_or(Ok(()), |by| refused(configured, by))
}

/// Refuses to write to collections that follow a source: what is written there would be gone, or in
/// the way, with the next change that the source makes.
///
/// # Errors
/// [`ErrorKind::Refused`], which names them.
pub(super) async fn refuse_followed(target: &Target, specs: &[CollectionSpec]) -> Result<()> {
    let followed = match Synced::read(target).await {
        Ok(Some(synced)) if !matches!(synced.state, SyncedState::Copying | SyncedState::Final) => synced,
        Ok(_) => return Ok(()),
        // A login that may not look has not made it follow.
        Err(e) if e.kind() == ErrorKind::Denied => return Ok(()),
        Err(e) => return Err(e),
    };
    let names: BTreeSet<Namespace> = SyncedCollection::all(target).await?.into_iter().map(|one| one.to).collect();
    let mut found = Few::up_to(LISTED);
    found.extend(specs.iter().filter(|spec| names.contains(&spec.namespace)).map(|spec| spec.namespace.to_string()));
    let found = found.into_sentences();
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Refused,
        format!(
            "{} follows the replica set {}, and nothing else may write to {}",
            target.connection.uri,
            followed.replica_set,
            found.join(", ")
        ),
    )
    .hint("import under other names ([[rename]]), or end it with `bsonvault sync finalize`"))
}

/// A deployment's own names of its hosts, and those of the URI.
fn hosts(connection: &Connection) -> Vec<String> {
    let all: Vec<String> = connection.hosts.iter().chain(connection.uri.hosts()).cloned().collect();
    normal(&all)
}

/// Unifies the names of this machine.
fn normal(hosts: &[String]) -> Vec<String> {
    hosts
        .iter()
        .map(|host| {
            let host = host.to_lowercase();
            match host.rsplit_once(':') {
                Some(("localhost" | "[::1]" | "::1", port)) => format!("127.0.0.1:{port}"),
                _ => host,
            }
        })
        .collect()
}

fn common<'a>(some: &'a [String], others: &[String]) -> Option<&'a String> {
    some.iter().find(|host| others.contains(host))
}
