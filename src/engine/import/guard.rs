//! The guard: prevents that swapped variables replace someone's production data.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::Source;
use crate::mongo::connect::ConnectOptions;
use crate::mongo::{Connection, MongoUri};

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
