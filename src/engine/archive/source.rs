//! What can be archived: a replica set whose oplog the login may read.

use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::Topology;
use crate::mongo::Connection;

/// What an archive knows its source by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The replica set's ID, or the deployment's if that cannot be read.
    pub id: String,
    /// The replica set's name.
    pub name: String,
    /// The deployment's ID, if it can be read.
    pub deployment_id: Option<String>,
}

/// The replica set that a connection leads to.
///
/// # Errors
/// [`ErrorKind::Refused`] if it is no replica set; [`ErrorKind::Denied`] if nothing can be read
/// that it could be known by.
pub async fn identity(connection: &Connection) -> Result<Identity> {
    let refused = |what: &str, hint: &str| {
        Err(Error::new(ErrorKind::Refused, format!("{} cannot be archived: {what}", connection.uri)).hint(hint))
    };
    match (connection.topology, &connection.replica_set) {
        (Topology::ReplicaSet, Some(name)) => {
            let (id, deployment_id) = (connection.replica_set_id().await, connection.deployment_id().await);
            match id.or_else(|| deployment_id.clone()) {
                Some(id) => Ok(Identity { id, name: name.clone(), deployment_id }),
                None => Err(Error::new(
                    ErrorKind::Denied,
                    format!(
                        "the ID of the replica set {name} cannot be read: without it, an archive cannot know its source again"
                    ),
                )
                .hint("grant the login the role clusterMonitor or backup on admin")),
            }
        }
        (Topology::Sharded, _) => {
            refused("a sharded cluster has an oplog on each shard", "archive each shard's replica set by its own URI")
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
            "grant the login the role backup or clusterMonitor on admin; Atlas's M0 and Flex tiers let nobody read \
             the oplog: there, take backups more often instead",
        ),
        _ => error,
    }
}
