//! A connection, and what is known about the deployment behind it.

use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Bson, Document, rawdoc};
use mongodb::error::{Error as DriverError, ErrorKind as DriverKind};
use mongodb::options::{ClientOptions, Compressor};
use mongodb::{Client, Database};

use super::failure::describe;
use super::members::Members;
use super::read_preference::ReadPreference;
use super::{MongoUri, Role, command, tls, unreached};
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{Source, Topology};
use crate::system;

/// How long to look for a server by default.
const SELECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// A server's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// Parses a version, `6.0.5` or `6.0.5-rc1`; `None` if the text is not a version.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(['.', '-', '+']).map(str::parse);
        Some(Self(parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A deployment that answered, and what it reports about itself.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The driver's client.
    pub client: Client,
    /// The URI it was reached by.
    pub uri: MongoUri,
    /// The kind of deployment.
    pub topology: Topology,
    /// Its version.
    pub version: Version,
    /// The replica set's name.
    pub replica_set: Option<String>,
    /// The members as the deployment names them, or else the URI's hosts, `host:port`.
    pub hosts: Vec<String>,
    /// The ID of the server's process, which changes with every start.
    pub process: Option<ObjectId>,
    /// The name of the answering member, as its set knows it.
    pub me: Option<String>,
    /// Whether a writable server answers everything but document reads.
    pub writable: bool,
    options: ClientOptions,
    preference: Option<ReadPreference>,
    members: Members,
}

/// How to connect.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConnectOptions {
    /// The number of connections allowed at a time, not counting those that monitor the deployment.
    pub pool: u32,
    /// The longest time to look for a server, even if the URI says otherwise.
    pub selection_timeout: Option<Duration>,
}

impl Connection {
    /// Connects and asks the deployment what it is.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] if it does not answer, [`ErrorKind::Denied`] if it refuses the
    /// login, [`ErrorKind::Usage`] if the URI's options contradict each other.
    pub async fn open(uri: &MongoUri, how: ConnectOptions) -> Result<Self> {
        let role = uri.role();
        let what = format!("connecting to {uri}");
        uri.tell_notes();
        let mut options = ClientOptions::parse(uri.secret()).await.map_err(|e| match e.kind.as_ref() {
            mongodb::error::ErrorKind::DnsResolve { .. } => describe(role, &what, e),
            _ => unusable(uri, e),
        })?;
        tls::prepare(uri, &mut options).await?;
        options.app_name.get_or_insert_with(|| "bsonvault".to_owned());
        options.max_pool_size = Some(how.pool.max(8) + 8);
        if how.selection_timeout.is_some() {
            options.server_selection_timeout = how.selection_timeout;
        } else if !uri.names_selection_timeout() {
            options.server_selection_timeout = Some(SELECTION_TIMEOUT);
        }
        // Writes go to the primary, whatever is preferred for reading.
        let in_string = ReadPreference::of(options.selection_criteria.take())?;
        let preference = uri.preference().cloned().or(in_string).filter(|_| role == Role::Source);
        Self::with_options(uri.clone(), options, preference).await
    }

    /// The same deployment over connections with zstd compression.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub async fn compressed(&self) -> Result<Self> {
        let mut options = self.options.clone();
        options.compressors = Some(vec![Compressor::Zstd { level: None }]);
        Self::with_options(self.uri.clone(), options, self.preference.clone()).await
    }

    async fn with_options(uri: MongoUri, options: ClientOptions, preference: Option<ReadPreference>) -> Result<Self> {
        let role = uri.role();
        let what = format!("connecting to {uri}");
        let client = Client::with_options(options.clone()).map_err(|e| unusable(&uri, e))?;
        let found = match &preference {
            Some(preference) => {
                let direct = options.direct_connection == Some(true);
                Members::find(&client, preference, role, direct).await.map_err(|e| e.context(&what))
            }
            None => {
                let asked = command::ask(&client.database("admin"), rawdoc! { "hello": 1 }).await;
                asked.map(|hello| (Members::default(), hello)).map_err(|e| describe(role, &what, e))
            }
        };
        let (members, hello) = match found {
            Ok(found) => found,
            Err(error) => return Err(unreached::explain(&uri, &options, error).await),
        };
        let admin = members.database(&client, "admin");
        let build = command::ask(&admin, rawdoc! { "buildInfo": 1 }).await.map_err(|e| describe(role, &what, e))?;
        let version = build.get_str("version").ok().and_then(Version::parse);
        let version = version.ok_or_else(|| Error::new(ErrorKind::Server, format!("{what}: buildInfo has no version")))?;
        let replica_set = hello.get_str("setName").ok().map(str::to_owned);
        let topology = match (hello.get_str("msg"), &replica_set) {
            (Ok("isdbgrid"), _) => Topology::Sharded,
            (_, Some(_)) => Topology::ReplicaSet,
            _ => Topology::Standalone,
        };
        let mut hosts: Vec<String> = ["hosts", "passives", "arbiters"]
            .iter()
            .filter_map(|field| hello.get_array(field).ok())
            .flatten()
            .filter_map(|host| host.as_str().map(str::to_lowercase))
            .collect();
        if hosts.is_empty() {
            hosts = uri.hosts().to_vec();
        }
        let process = hello.get_document("topologyVersion").and_then(|v| v.get_object_id("processId")).ok();
        let me = hello.get_str("me").ok().map(str::to_owned);
        let writable = hello.get_bool("isWritablePrimary").unwrap_or(false);
        Ok(Self { client, uri, topology, version, replica_set, hosts, process, me, writable, options, preference, members })
    }

    /// A database for everything but document reads.
    #[must_use]
    pub fn database(&self, name: &str) -> Database {
        self.members.database(&self.client, name)
    }

    /// A database for document reads: from the member that the read preference chose.
    #[must_use]
    pub fn documents(&self, name: &str) -> Database {
        self.members.documents(&self.client, name)
    }

    /// The member that a read preference chose (`host:port`), whether it is the primary, and the
    /// preference.
    #[must_use]
    pub fn chosen(&self) -> Option<(String, bool, &ReadPreference)> {
        self.members.chosen()
    }

    /// Handles a failed read: if the chosen member is gone, another matching one is chosen.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] if none matches.
    pub async fn reconsider(&self) -> Result<()> {
        self.members.reconsider(&self.client).await
    }

    /// The role of the deployment.
    #[must_use]
    pub fn role(&self) -> Role {
        self.uri.role()
    }

    /// Describes a source for a manifest. Fields that the login may not read are empty.
    pub async fn describe(&self) -> Source {
        let replica_set_id = self.replica_set_id().await;
        let (deployment_id, known_as) = match replica_set_id {
            Some(_) => (None, Vec::new()),
            None => (self.deployment_id().await, self.known_as().await),
        };
        Source {
            uri: self.uri.to_string(),
            hosts: self.hosts.clone(),
            server_version: self.version.to_string(),
            feature_compatibility_version: self.feature_compatibility_version().await,
            topology: self.topology,
            replica_set: self.replica_set.clone(),
            replica_set_id,
            deployment_id,
            known_as,
        }
    }

    /// The ID that distinguishes a deployment without a replica set's ID from others. Behind
    /// mongos, it is the cluster's ID. Otherwise, and if that cannot be read, it is the UUID of
    /// `admin.system.version`: every server creates it at its first start and keeps it with its
    /// data. `None` if the login may read neither.
    pub async fn deployment_id(&self) -> Option<String> {
        if self.topology == Topology::Sharded {
            let ask = rawdoc! { "find": "version", "limit": 1, "singleBatch": true };
            let found = command::ask(&self.database("config"), ask).await.ok();
            if let Some(id) = found.as_ref().and_then(first).and_then(|version| version.get_object_id("clusterId").ok()) {
                return Some(id.to_hex());
            }
        }
        let ask = rawdoc! { "listCollections": 1, "filter": { "name": "system.version" } };
        let found = command::ask(&self.database("admin"), ask).await.ok()?;
        match first(&found)?.get_document("info").ok()?.get("uuid")? {
            Bson::Binary(uuid) => uuid.to_uuid().ok().map(|uuid| uuid.to_string()),
            _ => None,
        }
    }

    /// The names of the servers, with this machine's name for `localhost`. Includes the own name of
    /// a server outside of a set, if the login may ask.
    async fn known_as(&self) -> Vec<String> {
        let machine = system::host().to_lowercase();
        let named = |host: &String| if system::is_own_name(host) { of_machine(&machine, host) } else { host.clone() };
        let mut names: Vec<String> = self.hosts.iter().map(named).collect();
        if self.topology != Topology::ReplicaSet {
            let ask = rawdoc! { "serverStatus": 1, "repl": 0, "metrics": 0, "locks": 0, "wiredTiger": 0, "tcmalloc": 0 };
            let status = command::ask(&self.database("admin"), ask).await.ok();
            let own = status.as_ref().and_then(|status| status.get_str("host").ok()).map(str::to_lowercase);
            names.extend(own.map(|own| if own.contains(':') { own } else { format!("{own}:27017") }));
        }
        names.sort();
        names.dedup();
        names
    }

    /// The feature compatibility version, if the login may ask.
    async fn feature_compatibility_version(&self) -> Option<String> {
        let ask = rawdoc! { "getParameter": 1, "featureCompatibilityVersion": 1 };
        let reply = command::ask(&self.documents("admin"), ask).await.ok()?;
        reply.get_document("featureCompatibilityVersion").and_then(|f| f.get_str("version")).ok().map(str::to_owned)
    }

    /// The version as which it behaves: its own, or its lower feature compatibility version.
    pub async fn behaves_as(&self) -> Version {
        let told = self.feature_compatibility_version().await.and_then(|told| {
            let (major, minor) = told.split_once('.')?;
            Some(Version(major.parse().ok()?, minor.parse().ok()?, 0))
        });
        match told {
            Some(told) if (told.0, told.1) < (self.version.0, self.version.1) => told,
            _ => self.version,
        }
    }

    /// The replica set's ID, if there is one and the login may read the configuration.
    pub async fn replica_set_id(&self) -> Option<String> {
        self.replica_set.as_ref()?;
        let of = |config: &Document| {
            config.get_document("settings").and_then(|s| s.get_object_id("replicaSetId")).ok().map(|id| id.to_hex())
        };
        let told = command::ask(&self.documents("admin"), rawdoc! { "replSetGetConfig": 1 }).await.ok();
        if let Some(id) = told.as_ref().and_then(|reply| of(reply.get_document("config").ok()?)) {
            return Some(id);
        }
        // The configuration is there, too, for a login that may read this one collection.
        let ask = rawdoc! { "find": "system.replset", "limit": 1, "singleBatch": true };
        let found = command::ask(&self.documents("local"), ask).await.ok()?;
        first(&found).and_then(of)
    }

    /// The round-trip time of a small command, the shortest of a few.
    ///
    /// # Errors
    /// The command's, as for [`open`](Self::open).
    pub async fn round_trip(&self) -> Result<Duration> {
        let admin = self.documents("admin");
        let mut shortest = Duration::MAX;
        for _ in 0..3 {
            let begin = std::time::Instant::now();
            command::ask(&admin, rawdoc! { "ping": 1 }).await.map_err(|e| describe(self.role(), "measuring the latency", e))?;
            shortest = shortest.min(begin.elapsed());
        }
        Ok(shortest)
    }

    /// Closes every connection, after giving the server time to kill the cursors that were dropped.
    pub async fn close(&self) {
        // `shutdown` waits for every open handle; the limit keeps a lost one from blocking the
        // process.
        let _closed_in_time = tokio::time::timeout(Duration::from_secs(2), self.client.clone().shutdown()).await;
    }
}

/// The first document of a cursor's first batch.
fn first(reply: &Document) -> Option<&Document> {
    reply.get_document("cursor").ok()?.get_array("firstBatch").ok()?.first()?.as_document()
}

/// Replaces a name that every machine has for itself by this machine's name.
fn of_machine(machine: &str, host: &str) -> String {
    match host.rsplit_once(':') {
        Some((_, port)) => format!("{machine}:{port}"),
        None => format!("{machine}:{host}"),
    }
}

/// The error of options that are valid alone, but not together. The driver's message names options
/// and files, but no secret values.
fn unusable(uri: &MongoUri, error: DriverError) -> Error {
    let label = uri.role().label();
    let why = match error.kind.as_ref() {
        DriverKind::InvalidArgument { message, .. } => format!(": {message}"),
        DriverKind::InvalidTlsConfig { message, .. } if message.contains("decrypt private key") => {
            return Error::usage(format!("the private key of {uri} cannot be decrypted"))
                .hint("check tlsCertificateKeyFilePassword, with special characters percent-encoded; `openssl pkcs8 -topk8` encrypts a key in a supported way")
                .cause(error);
        }
        DriverKind::InvalidTlsConfig { message, .. } => format!(": {message}"),
        _ => String::new(),
    };
    Error::usage(format!("Invalid {label} URI format: the options of {uri} cannot be used{why}")).cause(error)
}
