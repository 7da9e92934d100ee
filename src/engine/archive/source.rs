//! What can be archived: a replica set whose oplog the login may read.

use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::Topology;
use crate::mongo::Connection;

/// The replica set that a connection leads to: its ID and its name.
///
/// # Errors
/// [`ErrorKind::Refused`] if it is no replica set; [`ErrorKind::Denied`] if its ID cannot be read.
pub async fn replica_set(connection: &Connection) -> Result<(String, String)> {
    let refused = |what: &str, hint: &str| {
        Err(Error::new(ErrorKind::Refused, format!("{} cannot be archived: {what}", connection.uri)).hint(hint))
    };
    match (connection.topology, &connection.replica_set) {
        (Topology::ReplicaSet, Some(name)) => match connection.replica_set_id().await {
            Some(id) => Ok((id, name.clone())),
            None => Err(Error::new(
                ErrorKind::Denied,
                format!(
                    "the ID of the replica set {name} cannot be read, and without it an archive cannot know its source again"
                ),
            )
            .hint("grant the login the role clusterMonitor or backup on admin, or read on local")),
        },
        (Topology::Sharded, _) => {
            refused("a sharded cluster has an oplog on each shard", "archive each shard's replica set by its own URI and path")
        }
        _ => refused(
            "it is a standalone server, which keeps no oplog",
            "make it a replica set of one member: start it with --replSet and run rs.initiate()",
        ),
    }
}

/// What to do about an oplog that cannot be read.
pub(super) fn no_oplog(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Denied => error.hint(
            "grant the login the role clusterMonitor or backup on admin, or read on local; Atlas's M0 and Flex tiers let nobody read \
             the oplog: there, take backups more often instead",
        ),
        _ => error,
    }
}
