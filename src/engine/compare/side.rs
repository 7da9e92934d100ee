//! One of the two deployments: the connection, the listing, and the time at which it is read.

use std::sync::Mutex;

use bson::Timestamp;

use super::report::ComparedSide;
use crate::context::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{CollectionKind, ConsistencyException, LeftOut, Topology};
use crate::mongo::connect::ConnectOptions;
use crate::mongo::{Connection, MongoUri, Role};
use crate::names::{NamespaceFilter, SYNC_DATABASE};
use crate::pipeline::pace::RateLimiter;
use crate::source::discover::{self, CollectionInfo, Documents, Listing, Selection};
use crate::source::link::{self, Link};

/// A deployment that is compared.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) connection: Connection,
    pub(super) pace: RateLimiter,
    /// The time of the listing.
    time: Option<Timestamp>,
    /// Why it is not read at that time, if so.
    as_it_is: Mutex<Option<String>>,
}

impl Side {
    /// Connects, with this many cursors at a time at most.
    pub(super) async fn open(uri: &MongoUri, readers: usize, max_bits: Option<u64>) -> Result<Self> {
        let pool = u32::try_from(readers).unwrap_or(u32::MAX / 2);
        let connection = Connection::open(uri, ConnectOptions { pool, ..ConnectOptions::default() }).await?;
        let as_it_is = match connection.topology {
            _ if discover::can_snapshot(&connection) => None,
            Topology::Standalone => Some("a standalone server keeps no history".to_owned()),
            _ => Some(format!("servers of version {} cannot be read at one time", connection.version)),
        };
        Ok(Self { connection, pace: RateLimiter::limited(max_bits), time: None, as_it_is: Mutex::new(as_it_is) })
    }

    /// Lists what this filter selects, and takes the time at which that is read. Temporary
    /// collections and this program's own database are not part of it.
    pub(super) async fn list(&mut self, filter: NamespaceFilter) -> Result<Listing> {
        let selection = Selection { filter, allow_empty: true, idle_excludes: true, documents: Documents::All };
        let at_one_time = lock(&self.as_it_is).is_none();
        let listed = discover::list_at_one_time(&self.connection, &selection, at_one_time).await;
        let mut listing = listed.map_err(|e| self.said(e))?;
        self.time = listing.time;
        let has_documents = listing.collections.iter().any(|c| c.kind != CollectionKind::View);
        if self.time.is_none() && has_documents {
            lock(&self.as_it_is).get_or_insert_with(|| "it does not tell its operation time".to_owned());
        }
        for temporary in listing.collections.extract_if(.., |info| info.is_temporary()) {
            let (database, collection) = (temporary.namespace.database, temporary.namespace.collection);
            let reason = "temporary: the server made it for something that was under way".to_owned();
            listing.left_out.push(LeftOut { database, collection, uuid: temporary.uuid, reason });
        }
        for own in listing.collections.extract_if(.., |info| info.namespace.database == SYNC_DATABASE) {
            let (database, collection) = (own.namespace.database, own.namespace.collection);
            listing.left_out.push(LeftOut { database, collection, uuid: own.uuid, reason: "belongs to this program".to_owned() });
        }
        Ok(listing)
    }

    /// Whether the link to it is slow. Then its replies are compressed from now on.
    pub(super) async fn is_far(&mut self, largest: Option<(&CollectionInfo, discover::Size)>) -> Result<bool> {
        if link::measure(&self.connection, largest).await? == Link::Near {
            return Ok(false);
        }
        if !self.connection.uri.names_compressors() {
            self.connection = self.connection.compressed().await?;
        }
        Ok(true)
    }

    /// The time to read at; `None` if it is read as it is.
    pub(super) fn snapshot(&self) -> Option<Timestamp> {
        self.time.filter(|_| lock(&self.as_it_is).is_none())
    }

    /// The time before which nothing is read.
    pub(super) fn not_before(&self) -> Option<Timestamp> {
        self.time
    }

    /// Goes on without the time: its history is over.
    pub(super) async fn give_up_time(&self, cause: &Error) -> String {
        let kept = match discover::history_seconds(&self.connection).await {
            Some(seconds) => format!("it keeps {seconds} seconds (minSnapshotHistoryWindowInSeconds)"),
            None => "it keeps minSnapshotHistoryWindowInSeconds, 300 by default".to_owned(),
        };
        tracing::info!("the history of the {} is over: {cause}", self.name());
        let why = format!("it no longer has the history of the time at which it was listed: {kept}");
        lock(&self.as_it_is).get_or_insert(why).clone()
    }

    /// The same, to be read at this time, or as it is.
    pub(super) fn pinned(&self, time: Option<Timestamp>) -> Self {
        let as_it_is = time.is_none().then(|| "it is kept as it is meanwhile".to_owned());
        Self { connection: self.connection.clone(), pace: self.pace.clone(), time, as_it_is: Mutex::new(as_it_is) }
    }

    /// Why it is not read at a time, if so.
    pub(super) fn cannot(&self) -> Option<String> {
        lock(&self.as_it_is).clone()
    }

    /// Its name in messages.
    pub(super) fn name(&self) -> &'static str {
        match self.connection.role() {
            Role::Source => "source",
            Role::Target => "target",
        }
    }

    /// An error of reading it, in words that fit a comparison.
    pub(super) fn said(&self, error: Error) -> Error {
        let name = self.name();
        let error = error
            .reworded("of the source changed between", &format!("of the {name} changed between"))
            .reworded("the source does not report", &format!("the {name} does not report"))
            .reworded("cannot be in a backup", "cannot be compared")
            .reworded("is not part of a backup", "is not compared");
        match error.kind() {
            // To be compared, a target is only read.
            ErrorKind::Denied if self.connection.role() == Role::Target && error.to_string().contains("denies it") => error.hint(
                "grant the user the role `readAnyDatabase`, or `read` on each compared database; for time series, also find on {db: \
                 DATABASE, system_buckets: \"\"}",
            ),
            ErrorKind::Server if error.to_string().contains("changed between") => {
                error.hint("compare when fewer collections and indexes are created and dropped, or skip some with [[exclude]]")
            }
            _ => error,
        }
    }

    /// What the report says of it.
    pub(super) fn report(&self, exceptions: Vec<ConsistencyException>, left_out: Vec<LeftOut>) -> ComparedSide {
        ComparedSide {
            uri: self.connection.uri.to_string(),
            server_version: self.connection.version.to_string(),
            topology: self.connection.topology,
            at: self.snapshot().map(Into::into),
            as_it_was: lock(&self.as_it_is).clone(),
            exceptions,
            left_out,
        }
    }
}

/// Whether two sides are one deployment. A copy of a server's files has the same id, so the id of a
/// replica set alone proves nothing.
pub(super) async fn are_one(source: &Side, target: &Side) -> bool {
    let (one, other) = (&source.connection, &target.connection);
    if one.process.is_some() && one.process == other.process {
        return true;
    }
    let have_one_host = one.hosts.iter().any(|host| other.hosts.contains(host));
    match (one.topology, other.topology) {
        (Topology::ReplicaSet, Topology::ReplicaSet) if have_one_host && one.replica_set == other.replica_set => {
            // Hosts may have the same name in two networks.
            !matches!((one.replica_set_id().await, other.replica_set_id().await), (Some(one), Some(other)) if one != other)
        }
        (Topology::Sharded, Topology::Sharded) => {
            matches!((one.deployment_id().await, other.deployment_id().await), (Some(one), Some(other)) if one == other)
        }
        _ => false,
    }
}
