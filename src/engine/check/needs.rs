//! What each feature needs: which actions, where, and which role grants them.

use super::reach::{Found, Kind, Reached, all_of};
use super::report::{RightRow, Side};
use crate::format::manifest::Topology;
use crate::mongo::Version;
use crate::mongo::rights::{Place, Rights};
use crate::names::{BUCKETS_PREFIX, Namespace, SYNC_DATABASE};
use crate::source::discover;

/// Stands for any database or collection, if the name is not known. Only privileges on all
/// databases or collections cover `*`.
const ANY: &str = "*";
/// What a sync does with its position.
const POSITION: [&str; 6] = ["find", "insert", "update", "remove", "createCollection", "dropCollection"];
/// How many places a row names.
const PLACES: usize = 4;

/// A row in the making: which actions are needed where.
pub(super) struct Need {
    feature: &'static str,
    /// All these actions are needed at each of these places.
    actions: &'static [&'static str],
    at: Vec<Place>,
    required: bool,
    grant: String,
    without: Option<&'static str>,
}

/// The collections of these kinds in a database, with the prefix before their names. `ANY` if there
/// is none or none is known.
fn collections_of(database: &Found, kinds: &[Kind], prefix: &str) -> Vec<Place> {
    let place = |name: &str| Place::Collection(Namespace::new(&*database.name, format!("{prefix}{name}")));
    let held = database.collections.iter().flatten().filter(|held| kinds.contains(&held.kind));
    let places: Vec<Place> = held.map(|held| place(&held.name)).collect();
    if places.is_empty() { vec![place(ANY)] } else { places }
}

/// The role to grant: on the one database, or on any.
fn role(one: Option<&str>, any: &str, of_one: &str) -> String {
    match one {
        Some(database) => format!("{of_one} on {database}, or {any} on admin"),
        None => format!("{any} on admin"),
    }
}

/// What a backup needs at its source.
pub(super) fn of_source(source: &Reached) -> Vec<Need> {
    let one = source.connection.uri.database();
    let of_any = vec![Found { name: ANY.to_owned(), on_disk: None, collections: None }];
    let databases = if source.databases.is_empty() { &of_any } else { &source.databases };
    let places =
        |kinds: &[Kind], prefix| -> Vec<Place> { databases.iter().flat_map(|d| collections_of(d, kinds, prefix)).collect() };
    let stored = places(&[Kind::Plain, Kind::Capped], "");
    let read = role(one, "readAnyDatabase", "read");
    let mut rows = Vec::new();
    if one.is_none() {
        let without = "a backup finds only the databases that the login may read, and skips the others without naming them";
        let listing = Need::of("list databases", &["listDatabases"], vec![Place::Cluster], "readAnyDatabase on admin");
        rows.push(listing.required_where(false, without));
    }
    let each = databases.iter().map(|d| Place::Database(d.name.clone())).collect();
    rows.push(Need::of("list collections and indexes", &["listCollections", "listIndexes"], each, &*read));
    rows.push(Need::of("read documents", &["find"], stored.clone(), &*read));
    let grant = "readAnyDatabase or backup on admin, or a role of your own with find on {db: DATABASE, system_buckets: \"\"} (read on one \
                 database does not have it)";
    let series = Need::of("read time series", &["find"], places(&[Kind::TimeSeries], BUCKETS_PREFIX), grant);
    let without = "there is no time series now; a backup would fail once there is one";
    rows.push(series.required_where(source.has(Kind::TimeSeries), without));
    let without = "work is divided without known sizes, and the progress shows no total";
    rows.push(Need::of("sizes for planning", &["collStats"], stored, read).required_where(false, without));
    if source.connection.topology == Topology::ReplicaSet {
        let grant = "clusterMonitor or backup on admin, or read on local and on config";
        let without = if source.has(Kind::Capped) {
            "a backup that outlasts the source's history fails, and capped collections are marked as not part of its \
             consistency point"
        } else {
            "a backup that outlasts the source's history fails"
        };
        let keeping = Need::of("keep an oplog slice", &["find"], oplog(), grant);
        rows.push(keeping.required_where(!discover::can_snapshot(&source.connection), without));
        let archiving = Need::of("archive the oplog", &["find"], oplog(), grant);
        rows.push(archiving.required_where(false, "`archive` and `sync` are refused: only the times of backups can be restored"));
        let grant = "clusterMonitor on admin";
        let knowing = Need::of("recognize the replica set", &["replSetGetConfig"], vec![Place::Cluster], grant);
        rows.push(knowing.required_where(false, "an import recognizes the source among its targets by hosts alone"));
    }
    rows
}

/// The oplog, and the collection that tells how far back it is needed.
pub(super) fn oplog() -> Vec<Place> {
    [("local", "oplog.rs"), ("config", "transactions")].map(|(d, c)| Place::Collection(Namespace::new(d, c))).to_vec()
}

/// What an import needs at its target for the contents of these databases of the source.
pub(super) fn of_target(target: &Reached, source: &[Found]) -> Vec<Need> {
    // Imports go to the URI's database, else to the source's databases; if these are not known, to
    // any.
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
    let readwrite = role(one, "readWriteAnyDatabase", "readWrite");
    let required = |feature, actions, at| Need::of(feature, actions, at, &*readwrite);
    let admin = role(one, "restore or dbAdminAnyDatabase", "dbAdmin");
    let replays = if target.connection.version >= Version(5, 0, 0) { vec![Place::Cluster] } else { Vec::new() };
    let of_series = "readWriteAnyDatabase on admin, or a role of your own with insert, find and dropCollection on {db: DATABASE, \
                     system_buckets: \"\"} (readWrite on one database does not have it)";
    vec![
        required("list collections and indexes", &["listCollections", "listIndexes"], each_database()),
        required("keep the lease of an import", &["find", "insert", "update", "remove"], any_collection("")),
        required("publish collections", &["renameCollectionSameDB", "dropCollection"], any_collection("")),
        required("create collections", &["createCollection"], any_collection("")),
        required("insert documents", &["insert"], any_collection("")),
        required("create indexes", &["createIndex"], any_collection("")),
        required("read back documents", &["find"], any_collection("")),
        Need::of("insert despite a validator", &["insert", "bypassDocumentValidation"], any_collection(""), &*admin)
            .required_where(all_of(source).any(|held| held.has_validator), "an import of a collection with a validator fails"),
        Need::of("change options", &["collMod"], any_collection(""), &*admin).required_where(
            all_of(source).any(|held| held.expires),
            "an import fails if a time series or a clustered collection expires its documents",
        ),
        Need::of("replay an oplog slice", &["applyOps"], replays, "readWriteAnyDatabase and dbAdminAnyDatabase on admin")
            .required_where(
                false,
                "an import of a backup with consistency `oplog` is refused, and time series are copied instead of renamed",
            ),
        Need::of("write time series", &["insert", "find", "dropCollection"], any_collection(BUCKETS_PREFIX), of_series)
            .required_where(all_of(source).any(|held| held.kind == Kind::TimeSeries), "an import of a time series fails"),
    ]
    .into_iter()
    .chain(of_following(any_collection("")))
    .collect()
}

/// What a sync needs at its target beside what an import and a replay need.
fn of_following(collections: Vec<Place>) -> Vec<Need> {
    let own = vec![Place::Collection(Namespace::new(SYNC_DATABASE, ANY))];
    let grant = format!("readWrite on {SYNC_DATABASE}, or readWriteAnyDatabase on admin");
    let changing = "readWriteAnyDatabase and dbAdminAnyDatabase on admin";
    vec![
        Need::of("keep the position of a sync", &POSITION, own, grant).required_where(false, "`sync` fails"),
        Need::of("follow changes of collections", &["collMod", "collStats", "dropIndex"], collections, changing)
            .required_where(false, "`sync` is held once the source changes a collection or an index so"),
        Need::of("stop the expiry of documents", &["setParameter"], vec![Place::Cluster], "hostManager on admin")
            .required_where(false, "a target that `sync` follows into may expire documents before its source does"),
    ]
}

impl Need {
    /// A need without which no backup or import works.
    fn of(feature: &'static str, actions: &'static [&'static str], at: Vec<Place>, grant: impl Into<String>) -> Self {
        Self { feature, actions, at, required: true, grant: grant.into(), without: None }
    }

    /// The same, required only if `required` holds. `without` says what happens otherwise.
    fn required_where(self, required: bool, without: &'static str) -> Self {
        Self { required, without: Some(without), ..self }
    }

    /// The row for these rights.
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
