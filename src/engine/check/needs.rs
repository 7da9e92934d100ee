//! What each feature needs: which actions, where, and which role has them.

use super::reach::{Found, Kind, Reached, all_of};
use super::report::{RightRow, Side};
use crate::format::manifest::Topology;
use crate::mongo::Version;
use crate::mongo::rights::{Place, Rights};
use crate::names::{BUCKETS_PREFIX, Namespace};
use crate::source::discover;

/// Stands for any database or collection, where it is not known which: `*` is covered by privileges on all, and no other.
const ANY: &str = "*";
/// How many places a row names.
const PLACES: usize = 4;

/// A row in the making: which action is needed where.
pub(super) struct Need {
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

/// What a backup needs at its source.
pub(super) fn of_source(source: &Reached) -> Vec<Need> {
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
        grant: "readAnyDatabase or backup on admin, or a role of your own with find on {db: DATABASE, system_buckets: \"\"} (read on one \
                database does not have it)"
            .to_owned(),
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
            feature: "keep the oplog beside the data",
            actions: &["find"],
            at: oplog(),
            required: !discover::can_snapshot(&source.connection),
            grant: "clusterMonitor or backup on admin, or read on local and on config".to_owned(),
            without: Some(if source.has(Kind::Capped) {
                "a backup that takes longer than the source keeps its history fails, and capped collections are marked as not being of its moment"
            } else {
                "a backup that takes longer than the source keeps its history fails"
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

/// Where the oplog is, and what tells how far back it is needed.
pub(super) fn oplog() -> Vec<Place> {
    [("local", "oplog.rs"), ("config", "transactions")].map(|(d, c)| Place::Collection(Namespace::new(d, c))).to_vec()
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

/// What an import needs at its target, of what these databases of the source hold.
pub(super) fn of_target(target: &Reached, source: &[Found]) -> Vec<Need> {
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
        required("keep the lease of an import", &["find", "insert", "update", "remove"], any_collection("")),
        required("put what was filled in its place", &["renameCollectionSameDB", "dropCollection"], any_collection("")),
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
            feature: "replay a slice of the oplog",
            actions: &["applyOps"],
            at: if target.connection.version >= Version(5, 0, 0) { vec![Place::Cluster] } else { Vec::new() },
            required: false,
            grant: "readWriteAnyDatabase and dbAdminAnyDatabase on admin".to_owned(),
            without: Some("a backup whose consistency is `oplog` is refused, and time series are copied instead of renamed"),
        },
        Need {
            feature: "write time series",
            actions: &["insert", "find"],
            at: any_collection(BUCKETS_PREFIX),
            required: all_of(source).any(|held| held.kind == Kind::TimeSeries),
            grant: "readWriteAnyDatabase on admin, or a role of your own with insert and find on {db: DATABASE, system_buckets: \"\"} \
                    (readWrite on one database does not have it)"
                .to_owned(),
            without: Some("an import of a time series fails"),
        },
    ]
}

impl Need {
    /// The row, by what these rights allow.
    pub(super) fn row(self, side: Side, rights: &Rights) -> RightRow {
        let need = self;
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
}
