//! `check`: what stands in the way of a backup or an import, found before one is begun: configuration, connections, rights,
//! space. Changes nothing, but for a file that is written to the path and removed.

use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::Topology;
use crate::mongo::connect::ConnectOptions;
use crate::mongo::rights::{Place, Rights};
use crate::mongo::survey::{self, DatabaseSize};
use crate::mongo::{Connection, MongoUri, Role, Version, catalog};
use crate::names::{BUCKETS_PREFIX, Namespace, SYSTEM_DATABASES};
use crate::store::Store;

/// How long to look for a server.
const SELECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one side may take in all: a check that hangs helps nobody.
const SIDE_LIMIT: Duration = Duration::from_secs(20);
/// Stands for any database or collection, where it is not known which: `*` is covered by privileges on all, and no other.
const ANY: &str = "*";
/// How many places a row names.
const PLACES: usize = 4;

/// What is checked. Each part may be an error already, which becomes a line.
#[derive(Debug)]
pub struct Setup {
    /// The source's URI, none where it is not configured.
    pub source: Result<Option<MongoUri>>,
    /// The target's URI, none where it is not configured.
    pub target: Result<Option<MongoUri>>,
    /// Where backups are kept.
    pub store: Result<Store>,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct CheckReport {
    /// A line each, in the order of reading.
    pub lines: Vec<CheckLine>,
    /// What each feature needs, and what of it is missing.
    pub rights: Vec<RightRow>,
    #[serde(skip)]
    failure: Option<ErrorKind>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckLine {
    /// What: `source`, `source rights`, `path`.
    pub subject: String,
    /// How it stands.
    pub status: Status,
    /// What was found.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub todo: Option<String>,
}

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Something will not work, or not as well.
    Warning,
    /// A backup or an import would fail.
    Failed,
}

/// One of the two deployments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Where backups are taken from.
    Source,
    /// Where imports go.
    Target,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}

/// What a feature needs, and whether the login has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RightRow {
    /// Where.
    pub side: Side,
    /// What it is for: `read documents`.
    pub feature: String,
    /// The actions it takes, by the server's names.
    pub needs: Vec<String>,
    /// Those that are missing somewhere.
    pub missing: Vec<String>,
    /// Where they are missing, the first few places.
    pub places: Vec<String>,
    /// Whether a backup or an import fails without it, as far as what was found on the server tells.
    pub required: bool,
    /// Whether the login has all of it.
    pub granted: bool,
    /// The role that has it.
    pub grant: String,
    /// What is lost without it, where it is not required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without: Option<String>,
}

impl CheckReport {
    /// The error that stands for all of it, where a backup or an import would fail.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        let failed = self.lines.iter().filter(|l| l.status == Status::Failed).count();
        let things = if failed == 1 { "1 check failed".to_owned() } else { format!("{failed} checks failed") };
        let first = self.lines.iter().find(|l| l.status == Status::Failed)?;
        let error = Error::new(self.failure?, format!("{things}: {}: {}", first.subject, first.message));
        Some(match &first.todo {
            Some(todo) => error.hint(todo.clone()),
            None => error,
        })
    }

    fn add(&mut self, subject: &str, status: Status, message: impl Into<String>, todo: Option<&str>) {
        self.lines.push(CheckLine {
            subject: subject.to_owned(),
            status,
            message: message.into(),
            todo: todo.map(str::to_owned),
        });
    }

    fn fail(&mut self, subject: &str, error: &Error) {
        self.failure.get_or_insert(error.kind());
        self.add(subject, Status::Failed, error.to_string(), error.hint_text());
    }
}

/// Checks all of it, both sides at a time. What is wrong is in the report; there is nothing that keeps it from being made.
pub async fn run(setup: Setup) -> CheckReport {
    let mut report = CheckReport { lines: Vec::new(), rights: Vec::new(), failure: None };

    // 1. Reach both sides, whatever becomes of the other.
    let (source, target) = tokio::join!(reach(setup.source), reach(setup.target));
    let nothing_configured = matches!((&source, &target), (Ok(None), Ok(None)));

    // 2. The source: what it is, what the login may do, what moment a backup could show.
    let source = settle(&mut report, Side::Source, source, nothing_configured);
    if let Some(source) = &source {
        judge_moment(&mut report, source);
    }

    // 3. The target: the same, and whether it takes writes.
    let target = settle(&mut report, Side::Target, target, nothing_configured);
    if let Some(target) = &target {
        judge_target(&mut report, target, source.as_ref());
    }

    // 4. The rights on both.
    if let Some(source) = &source {
        let rows = source_rows(source);
        judge_rights(&mut report, Side::Source, source, rows);
    }
    if let Some(target) = &target {
        let databases = source.as_ref().map(|s| s.databases.as_slice()).unwrap_or_default();
        let rows = target_rows(target, databases);
        judge_rights(&mut report, Side::Target, target, rows);
    }

    // 5. The path.
    let needed = source.as_ref().and_then(Reached::on_disk);
    judge_path(&mut report, setup.store, needed).await;

    for reached in [source, target].into_iter().flatten() {
        reached.connection.close().await;
    }
    report
}

/// A deployment that answered.
struct Reached {
    connection: Connection,
    latency: Duration,
    rights: Rights,
    writable: bool,
    databases: Vec<Found>,
}

/// A database of it, system databases aside.
struct Found {
    name: String,
    on_disk: Option<u64>,
    /// What it holds; none where the login may not list it.
    collections: Option<Vec<Held>>,
}

/// A collection, and what of it asks for a right of its own.
struct Held {
    name: String,
    kind: Kind,
    has_validator: bool,
    expires: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Capped,
    View,
    TimeSeries,
}

impl Reached {
    fn on_disk(&self) -> Option<u64> {
        self.databases.iter().map(|d| d.on_disk).sum()
    }

    fn has(&self, kind: Kind) -> bool {
        all_of(&self.databases).any(|held| held.kind == kind)
    }
}

/// Every collection that is known of.
fn all_of(databases: &[Found]) -> impl Iterator<Item = &Held> {
    databases.iter().flat_map(|d| d.collections.iter().flatten())
}

async fn reach(uri: Result<Option<MongoUri>>) -> Result<Option<Reached>> {
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
    let writable = survey::is_writable(&connection).await?;
    let mut databases = Vec::new();
    // A login without any right is told so by the rows; it is no reason to give up.
    let listed = survey::databases(&connection).await.unwrap_or_default();
    let wanted = match uri.database() {
        Some(name) => {
            let on_disk = listed.into_iter().find(|d| d.name == name).and_then(|d| d.on_disk);
            vec![DatabaseSize { name: name.to_owned(), on_disk }]
        }
        None => listed.into_iter().filter(|d| !SYSTEM_DATABASES.contains(&d.name.as_str())).collect(),
    };
    for DatabaseSize { name, on_disk } in wanted {
        // Of the server's own collections, `system.js` alone is part of a backup.
        let is_users = |name: &str| !name.starts_with("system.") || name == "system.js";
        let listed = catalog::collections(&connection, &name).await.ok();
        let collections = listed.map(|(entries, _)| entries.iter().filter(|e| is_users(&e.name)).map(held).collect());
        databases.push(Found { name, on_disk, collections });
    }
    Ok(Reached { connection, latency, rights, writable, databases })
}

fn held(entry: &catalog::CollectionInfo) -> Held {
    let has = |option: &str| matches!(entry.options.get(option), Ok(Some(_)));
    Held {
        name: entry.name.clone(),
        kind: match entry.kind.as_str() {
            "view" => Kind::View,
            "timeseries" => Kind::TimeSeries,
            _ if entry.options.get_bool("capped").unwrap_or(false) => Kind::Capped,
            _ => Kind::Plain,
        },
        has_validator: has("validator"),
        expires: has("expireAfterSeconds"),
    }
}

/// The line about a side's connection.
fn settle(report: &mut CheckReport, side: Side, found: Result<Option<Reached>>, nothing: bool) -> Option<Reached> {
    let (role, verb) = match side {
        Side::Source => (Role::Source, "backup"),
        Side::Target => (Role::Target, "import"),
    };
    let subject = side.to_string();
    match found {
        Ok(Some(reached)) => {
            let c = &reached.connection;
            let set = c.replica_set.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
            let milliseconds = reached.latency.as_secs_f64() * 1000.0;
            let message =
                format!("{} answers within {milliseconds:.1} ms: MongoDB {}, {}{set}", c.hosts.join(", "), c.version, c.topology);
            report.add(&subject, Status::Ok, message, None);
            Some(reached)
        }
        Ok(None) => {
            let missing = role.not_configured();
            if nothing {
                report.fail(&subject, &missing);
            } else {
                let todo = missing.hint_text().map(|hint| format!("for `{verb}`: {hint}"));
                report.add(&subject, Status::Warning, missing.to_string(), todo.as_deref());
            }
            None
        }
        Err(error) => {
            report.fail(&subject, &error);
            None
        }
    }
}

/// What moment a backup of this source could show.
fn judge_moment(report: &mut CheckReport, source: &Reached) {
    let c = &source.connection;
    let subject = "consistency";
    match c.topology {
        Topology::Standalone => report.add(
            subject,
            Status::Warning,
            "a standalone server keeps no history: a backup is read while writes go on, and is not of one moment",
            Some("make it a replica set of one member (--replSet, then rs.initiate()), or stop writes during a backup"),
        ),
        _ if c.version < Version(5, 0, 0) => report.add(
            subject,
            Status::Warning,
            format!("MongoDB {} cannot read all collections at one moment", c.version),
            Some("upgrade to 5.0 or later; `backup` takes one that is not of one moment only with --allow-inconsistent"),
        ),
        Topology::Sharded => report.add(
            subject,
            Status::Warning,
            "a sharded cluster: reading it at one moment is not proven with this version of bsonvault",
            Some("prove a restore before you rely on it"),
        ),
        Topology::ReplicaSet if c.version >= Version(6, 1, 0) => report.add(
            subject,
            Status::Warning,
            format!("MongoDB {} can be read at one moment, but servers newer than 6.0 are not proven", c.version),
            Some("prove a restore before you rely on it"),
        ),
        Topology::ReplicaSet => {
            report.add(subject, Status::Ok, "every collection is read at one moment, as a snapshot; capped ones apart", None);
        }
    }
}

fn judge_target(report: &mut CheckReport, target: &Reached, source: Option<&Reached>) {
    if !target.writable {
        let error = Error::new(ErrorKind::Refused, format!("{} takes no writes: it is not the primary", target.connection.uri))
            .hint("take directConnection=true out of MONGO_URI_LOCAL and name the replica set, so that the primary is found");
        report.fail("target", &error);
    }
    let Some(source) = source else { return };
    let (s, t) = (&source.connection, &target.connection);
    let same = (s.process.is_some() && s.process == t.process) || s.hosts.iter().any(|host| t.hosts.contains(host));
    if same {
        report.add(
            "target",
            Status::Warning,
            "source and target are the same deployment",
            Some("set MONGO_URI_LOCAL to another one; `import` refuses this one unless --allow-same is given"),
        );
    }
}

/// A row in the making: which action is needed where.
struct Need {
    feature: &'static str,
    /// The same actions at each of these places.
    actions: &'static [&'static str],
    at: Vec<Place>,
    required: bool,
    grant: String,
    without: Option<&'static str>,
}

/// The collections of a database that documents are read from by their own name; any, where there is none or it is not known.
fn collections_of(database: &Found) -> Vec<Place> {
    let place = |name: &str| Place::Collection(Namespace::new(&*database.name, name));
    let plain = database.collections.iter().flatten().filter(|held| matches!(held.kind, Kind::Plain | Kind::Capped));
    let places: Vec<Place> = plain.map(|held| place(&held.name)).collect();
    if places.is_empty() { vec![place(ANY)] } else { places }
}

fn source_rows(source: &Reached) -> Vec<Need> {
    let one = source.connection.uri.database();
    let of_any = vec![Found { name: ANY.to_owned(), on_disk: None, collections: None }];
    let databases = if source.databases.is_empty() { &of_any } else { &source.databases };
    let role = |any: &str, of_one: &str| match one {
        Some(database) => format!("{of_one} on {database}, or {any} on admin"),
        None => format!("{any} on admin"),
    };
    let stored: Vec<Place> = databases.iter().flat_map(collections_of).collect();
    let read = role("readAnyDatabase", "read");
    let mut rows = Vec::new();
    if one.is_none() {
        rows.push(Need {
            feature: "list databases",
            actions: &["listDatabases"],
            at: vec![Place::Cluster],
            required: false,
            grant: "readAnyDatabase on admin".to_owned(),
            without: Some("a backup has only the databases that the login may read something of, and does not know of others"),
        });
    }
    rows.push(Need {
        feature: "list collections and indexes",
        actions: &["listCollections", "listIndexes"],
        at: databases.iter().map(|d| Place::Database(d.name.clone())).collect(),
        required: true,
        grant: read.clone(),
        without: None,
    });
    rows.push(Need {
        feature: "read documents",
        actions: &["find"],
        at: stored.clone(),
        required: true,
        grant: read.clone(),
        without: None,
    });
    rows.push(Need {
        feature: "read time series",
        actions: &["find"],
        at: buckets(databases),
        required: source.has(Kind::TimeSeries),
        grant: "readAnyDatabase or backup on admin (read on one database does not have it)".to_owned(),
        without: Some("there is no time series now; a backup would fail once there is one"),
    });
    rows.push(Need {
        feature: "sizes for planning",
        actions: &["collStats"],
        at: stored,
        required: false,
        grant: read,
        without: Some("the work is divided without knowing sizes, and progress has no end to measure by"),
    });
    if source.connection.topology == Topology::ReplicaSet {
        rows.push(Need {
            feature: "prove capped collections unchanged",
            actions: &["find"],
            at: vec![Place::Collection(Namespace::new("local", "oplog.rs"))],
            required: false,
            grant: "backup on admin, or read on local".to_owned(),
            without: Some(if source.has(Kind::Capped) {
                "the capped collections of this source are marked as not being of the backup's moment"
            } else {
                "there is no capped collection now; one would be marked as not being of the backup's moment"
            }),
        });
        rows.push(Need {
            feature: "know the replica set again",
            actions: &["replSetGetConfig"],
            at: vec![Place::Cluster],
            required: false,
            grant: "clusterMonitor on admin".to_owned(),
            without: Some("an import tells by hosts alone whether its target is the source"),
        });
    }
    rows
}

/// The bucket collections of the time series, or of any where there are none.
fn buckets(databases: &[Found]) -> Vec<Place> {
    databases
        .iter()
        .flat_map(|d| {
            let series: Vec<&str> = d
                .collections
                .iter()
                .flatten()
                .filter(|held| held.kind == Kind::TimeSeries)
                .map(|held| held.name.as_str())
                .collect();
            let series = if series.is_empty() { vec![ANY] } else { series };
            series
                .into_iter()
                .map(|name| Place::Collection(Namespace::new(&*d.name, format!("{BUCKETS_PREFIX}{name}"))))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn target_rows(target: &Reached, source: &[Found]) -> Vec<Need> {
    // Imports go to the database of the URI, else to those of the source; where they are not known, to any.
    let one = target.connection.uri.database();
    let names: Vec<&str> = match one {
        Some(name) => vec![name],
        None if source.is_empty() => vec![ANY],
        None => source.iter().map(|d| d.name.as_str()).collect(),
    };
    let any_collection = |prefix: &str| -> Vec<Place> {
        names.iter().map(|d| Place::Collection(Namespace::new(*d, format!("{prefix}{ANY}")))).collect()
    };
    let each_database = || -> Vec<Place> { names.iter().map(|d| Place::Database((*d).to_owned())).collect() };
    let role = |any: &str, of_one: &str| match one {
        Some(database) => format!("{of_one} on {database}, or {any} on admin"),
        None => format!("{any} on admin"),
    };
    let required = |feature, actions, at| Need {
        feature,
        actions,
        at,
        required: true,
        grant: role("readWriteAnyDatabase", "readWrite"),
        without: None,
    };
    vec![
        required("list collections and indexes", &["listCollections", "listIndexes"], each_database()),
        required("drop what is replaced", &["dropCollection"], any_collection("")),
        required("create collections", &["createCollection"], any_collection("")),
        required("insert documents", &["insert"], any_collection("")),
        required("create indexes", &["createIndex"], any_collection("")),
        required("read back what was written", &["find"], any_collection("")),
        Need {
            feature: "insert where a validator stands",
            actions: &["insert", "bypassDocumentValidation"],
            at: any_collection(""),
            required: all_of(source).any(|held| held.has_validator),
            grant: role("restore or dbAdminAnyDatabase", "dbAdmin"),
            without: Some("an import of a collection with a validator fails"),
        },
        Need {
            feature: "change options",
            actions: &["collMod"],
            at: any_collection(""),
            required: all_of(source).any(|held| held.expires),
            grant: role("restore or dbAdminAnyDatabase", "dbAdmin"),
            without: Some("an import fails where a time series or a clustered collection expires its documents"),
        },
        Need {
            feature: "write time series",
            actions: &["insert", "find"],
            at: any_collection(BUCKETS_PREFIX),
            required: all_of(source).any(|held| held.kind == Kind::TimeSeries),
            grant: "readWriteAnyDatabase on admin (readWrite on one database does not have it)".to_owned(),
            without: Some("an import of a time series fails"),
        },
    ]
}

/// The rows of a side, and a line for each that is missing something.
fn judge_rights(report: &mut CheckReport, side: Side, reached: &Reached, needs: Vec<Need>) {
    let subject = format!("{side} rights");
    let rows: Vec<RightRow> = needs.into_iter().map(|need| row(side, &reached.rights, need)).collect();
    if !reached.rights.enforced {
        report.add(&subject, Status::Ok, "the server has no access control: everything is allowed", None);
    } else if reached.rights.users.is_empty() {
        let uri = if side == Side::Source { "MONGO_URI_ATLAS" } else { "MONGO_URI_LOCAL" };
        let error = Error::new(ErrorKind::Denied, "the server has access control and the URI has no user")
            .hint(format!("put USER:PASSWORD@ in front of the host in {uri}"));
        report.fail(&subject, &error);
    } else {
        let user = reached.rights.users.join(", ");
        for row in rows.iter().filter(|r| !r.granted) {
            let message = format!("{}: {user} lacks {} on {}", row.feature, row.missing.join(", "), row.places.join(", "));
            let grant = format!("grant {}", row.grant);
            if row.required {
                report.fail(&subject, &Error::new(ErrorKind::Denied, message).hint(grant));
            } else {
                let todo = format!("{grant}; without it, {}", row.without.as_deref().unwrap_or("it is not done"));
                report.add(&subject, Status::Warning, message, Some(&todo));
            }
        }
        if rows.iter().all(|r| r.granted) {
            report.add(&subject, Status::Ok, format!("{user} has all that is needed"), None);
        }
    }
    report.rights.extend(rows);
}

fn row(side: Side, rights: &Rights, need: Need) -> RightRow {
    let lacks = |place: &Place, action: &str| !rights.allows(place, action);
    let missing: Vec<String> = need
        .actions
        .iter()
        .filter(|action| need.at.iter().any(|place| lacks(place, action)))
        .map(|action| (*action).to_owned())
        .collect();
    let lacking = || need.at.iter().filter(|place| need.actions.iter().any(|action| lacks(place, action)));
    let mut places: Vec<String> = lacking().take(PLACES).map(ToString::to_string).collect();
    let more = lacking().count() - places.len();
    if more > 0 {
        places.push(format!("{more} more"));
    }
    RightRow {
        side,
        feature: need.feature.to_owned(),
        needs: need.actions.iter().map(|action| (*action).to_owned()).collect(),
        granted: missing.is_empty(),
        missing,
        places,
        required: need.required,
        grant: need.grant,
        without: need.without.filter(|_| !need.required).map(str::to_owned),
    }
}

async fn judge_path(report: &mut CheckReport, store: Result<Store>, needed: Option<u64>) {
    let subject = "path";
    let store = match store {
        Ok(store) => store,
        Err(error) => return report.fail(subject, &error),
    };
    if let Err(error) = store.try_write().await {
        return report.fail(subject, &error);
    }
    let location = store.location();
    let gibibytes = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    match (store.free_space(), needed) {
        (None, _) => report.add(
            subject,
            Status::Warning,
            format!("{location} can be written; how much is free cannot be told"),
            Some("see to it that there is room"),
        ),
        (Some(free), Some(needed)) if free < needed => report.add(
            subject,
            Status::Warning,
            format!(
                "{location} can be written and has {} free; the source takes {} on its disk",
                gibibytes(free),
                gibibytes(needed)
            ),
            Some("make space there, or set BACKUP_PATH or --path to a disk with more"),
        ),
        (Some(free), needed) => {
            let beside = needed.map(|n| format!("; the source takes {} on its disk", gibibytes(n))).unwrap_or_default();
            report.add(subject, Status::Ok, format!("{location} can be written and has {} free{beside}", gibibytes(free)), None);
        }
    }
}
