//! Looks at one side of a check: what there is to know of a deployment, within a few seconds.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::mongo::connect::ConnectOptions;
use crate::mongo::rights::Rights;
use crate::mongo::survey::{self, DatabaseSize};
use crate::mongo::{Connection, MongoUri, catalog, command};
use crate::names::SYSTEM_DATABASES;

/// How long to look for a server.
const SELECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one side may take in all: a check that hangs is useless.
const SIDE_LIMIT: Duration = Duration::from_secs(20);

/// A deployment that answered.
pub(super) struct Reached {
    pub(super) connection: Connection,
    pub(super) latency: Duration,
    pub(super) rights: Rights,
    pub(super) databases: Vec<Found>,
}

/// A database, but not a system database.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) on_disk: Option<u64>,
    /// What it holds. None if the login may not list it.
    pub(super) collections: Option<Vec<Held>>,
}

/// A collection, and its properties that need a right of their own.
pub(super) struct Held {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) has_validator: bool,
    pub(super) expires: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Capped,
    View,
    TimeSeries,
}

impl Reached {
    /// What it takes on the server's disk. None unless that is known of every database.
    pub(super) fn on_disk(&self) -> Option<u64> {
        self.databases.iter().map(|d| d.on_disk).sum()
    }

    /// Whether any collection is of this kind.
    pub(super) fn has(&self, kind: Kind) -> bool {
        all_of(&self.databases).any(|held| held.kind == kind)
    }
}

/// Every known collection.
pub(super) fn all_of(databases: &[Found]) -> impl Iterator<Item = &Held> {
    databases.iter().flat_map(|d| d.collections.iter().flatten())
}

/// Connects and collects everything that the check needs.
pub(super) async fn reach(uri: Result<Option<MongoUri>>) -> Result<Option<Reached>> {
    let Some(uri) = uri? else { return Ok(None) };
    match tokio::time::timeout(SIDE_LIMIT, look(&uri)).await {
        Ok(reached) => reached.map(Some),
        Err(_) => Err(Error::new(
            ErrorKind::Unreachable,
            format!("{uri} answers too slowly: no result within {} seconds", SIDE_LIMIT.as_secs()),
        )
        .hint("check the network and the load of the server")),
    }
}

async fn look(uri: &MongoUri) -> Result<Reached> {
    let how = ConnectOptions { pool: 1, selection_timeout: Some(SELECTION_TIMEOUT) };
    let connection = Connection::open(uri, how).await?;
    let latency = connection.round_trip().await?;
    let rights = Rights::ask(&connection).await?;
    let mut databases = Vec::new();
    // The rows report a login without rights; here it is no reason to give up.
    let listed = survey::databases(&connection).await.unwrap_or_default();
    let wanted = match uri.database() {
        Some(name) => {
            let on_disk = listed.into_iter().find(|d| d.name == name).and_then(|d| d.on_disk);
            vec![DatabaseSize { name: name.to_owned(), on_disk }]
        }
        None => listed.into_iter().filter(|d| !SYSTEM_DATABASES.contains(&d.name.as_str())).collect(),
    };
    for DatabaseSize { name, on_disk } in wanted {
        // Of the system collections, only `system.js` is part of a backup.
        let is_users = |name: &str| !name.starts_with("system.") || name == "system.js";
        let listed = command::patiently(|| catalog::collections(&connection, &name)).await.ok();
        let collections = listed.map(|(entries, _)| entries.iter().filter(|e| is_users(&e.name)).map(held).collect());
        databases.push(Found { name, on_disk, collections });
    }
    Ok(Reached { connection, latency, rights, databases })
}

fn held(entry: &catalog::ListedCollection) -> Held {
    let has = |option: &str| matches!(entry.options.get(option), Ok(Some(_)));
    Held {
        name: entry.name.clone(),
        kind: match entry.kind.as_str() {
            "view" => Kind::View,
            "timeseries" => Kind::TimeSeries,
            _ if entry.options.get_bool("capped").unwrap_or(false) => Kind::Capped,
            _ => Kind::Plain,
        },
        has_validator: has("validator") || has("encryptedFields"),
        expires: has("expireAfterSeconds") || has("timeseriesBucketsMayHaveMixedSchemaData"),
    }
}
