//! Lists what a source holds, and a time at which all of it can be read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use bson::raw::cstr;
use bson::{RawDocumentBuf, Timestamp, rawdoc};
use futures::{StreamExt as _, TryStreamExt as _};
use uuid::Uuid;

use super::optime;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{CollectionKind, LeftOut, Topology};
use crate::mongo::catalog::{self, ListedCollection};
use crate::mongo::{Connection, Version, command};
use crate::names::{BUCKETS_PREFIX, KEPT_PREFIX, Namespace, NamespaceFilter, SYSTEM_DATABASES};

/// How many small commands to run at a time.
const CONCURRENCY: usize = 16;

/// How many listings to try until two in a row agree.
const LISTINGS: u32 = 40;

/// Selects what to read from a source.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// These namespaces of the user databases.
    pub filter: NamespaceFilter,
    /// Whether names and patterns may match nothing, and the selection may be empty.
    pub allow_empty: bool,
    /// Whether an exclude pattern may match nothing.
    pub idle_excludes: bool,
    /// Which documents to read.
    pub documents: Documents,
}

/// Which documents of the selected collections to read.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Documents {
    /// All.
    #[default]
    All,
    /// Those of one collection that match this query.
    Matching(RawDocumentBuf),
    /// Those that views show: each view is read as a collection, and nothing else is. With a query,
    /// only matching ones.
    OfViews(Option<RawDocumentBuf>),
}

impl Documents {
    /// The query to read them with, unless all are read.
    #[must_use]
    pub fn filter(&self) -> Option<RawDocumentBuf> {
        match self {
            Self::All => None,
            Self::Matching(query) => Some(query.clone()),
            Self::OfViews(query) => Some(query.clone().unwrap_or_default()),
        }
    }

    /// The requested query.
    #[must_use]
    pub fn query(&self) -> Option<&bson::RawDocument> {
        match self {
            Self::Matching(query) => Some(query),
            Self::OfViews(query) => query.as_deref(),
            Self::All => None,
        }
    }

    /// Whether to read what views show.
    #[must_use]
    pub fn is_of_views(&self) -> bool {
        matches!(self, Self::OfViews(_))
    }

    /// The part of this that is read that way.
    fn of(&self, found: Vec<CollectionInfo>) -> Result<Vec<CollectionInfo>> {
        match (self, found.as_slice()) {
            (Self::All, _) => Ok(found),
            (Self::Matching(_), [one]) if one.kind == CollectionKind::Collection => Ok(found),
            (Self::Matching(_), []) => Ok(found),
            (Self::Matching(_), [other, ..]) => {
                let what = match other.kind {
                    CollectionKind::View => "it is a view",
                    CollectionKind::TimeSeries => "it is a time series, whose documents are buckets",
                    CollectionKind::Collection => "it is one of several",
                };
                Err(Error::usage(format!(
                    "a query applies to one collection only, and {} does not qualify: {what}",
                    other.namespace
                ))
                .hint("name one collection, or omit the query"))
            }
            (Self::OfViews(_), _) => {
                Ok(found.into_iter().filter(|f| f.kind == CollectionKind::View).map(CollectionInfo::shown).collect())
            }
        }
    }
}

/// A collection, view or time series of the source.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectionInfo {
    /// Its name.
    pub namespace: Namespace,
    /// Its kind.
    pub kind: CollectionKind,
    /// Its UUID; for a time series, that of its buckets; `None` for views.
    pub uuid: Option<Uuid>,
    /// Its options, raw.
    pub options: RawDocumentBuf,
    /// Its indexes, raw, in the server's order.
    pub indexes: Vec<RawDocumentBuf>,
}

impl CollectionInfo {
    /// A view's documents as a collection.
    fn shown(self) -> Self {
        Self { kind: CollectionKind::Collection, options: RawDocumentBuf::new(), uuid: None, ..self }
    }

    /// The namespace with its documents.
    #[must_use]
    pub fn data(&self) -> Namespace {
        match self.kind {
            CollectionKind::TimeSeries => self.namespace.buckets(),
            _ => self.namespace.clone(),
        }
    }

    /// Whether it is capped.
    #[must_use]
    pub fn is_capped(&self) -> bool {
        self.options.get_bool("capped").unwrap_or(false)
    }

    /// Whether the server marked it as temporary. A rename in the oplog slice may give it its final
    /// name, so it is listed whatever the patterns say about its present name.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.options.get_bool("temp").unwrap_or(false)
    }

    /// Whether its documents are stored in the order of `_id`: clustered collections, and the
    /// buckets of time series.
    #[must_use]
    pub fn is_clustered(&self) -> bool {
        self.kind == CollectionKind::TimeSeries || matches!(self.options.get("clusteredIndex"), Ok(Some(_)))
    }
}

/// Why databases may be missing without being named.
const UNSEEN: &str = "the login may not list all databases (listDatabases), so those that it may not read are missing";

/// The result of a listing.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// The selected collections, by namespace.
    pub collections: Vec<CollectionInfo>,
    /// Existing collections that cannot be part of a backup.
    pub left_out: Vec<LeftOut>,
    /// The name of everything in the listed databases, selected or not.
    pub names: Vec<Namespace>,
    /// The operation time of the last reply; `None` for a standalone server.
    pub time: Option<Timestamp>,
}

/// Lists the selected collections.
///
/// # Errors
/// [`ErrorKind::NotFound`] if a database or a pattern matches nothing, or if nothing remains,
/// unless that is allowed; [`ErrorKind::Denied`], [`ErrorKind::Unreachable`],
/// [`ErrorKind::Server`].
pub async fn list(connection: &Connection, selection: &Selection) -> Result<Listing> {
    if let Some(system) = selection.filter.databases.iter().find(|d| SYSTEM_DATABASES.contains(&d.as_str())) {
        return Err(Error::usage(format!("the database {system} belongs to the deployment and is not part of a backup"))
            .hint("name a database of your own"));
    }
    let (databases, are_all) = match selection.filter.databases.as_slice() {
        [] => catalog::databases_and_whether_all(connection).await?,
        named => (named.to_vec(), true),
    };
    let databases = databases.into_iter().filter(|d| !SYSTEM_DATABASES.contains(&d.as_str()) && !d.starts_with("__mdb_internal"));
    let listed: Vec<(String, Vec<ListedCollection>, Option<Timestamp>)> = futures::stream::iter(databases)
        .map(|database| async move {
            let (collections, time) = catalog::collections(connection, &database).await?;
            Ok::<_, Error>((database, collections, time))
        })
        .buffered(CONCURRENCY)
        .try_collect()
        .await?;

    let mut time = listed.iter().filter_map(|(_, _, time)| *time).max();
    let mut found = Vec::new();
    let mut left_out = Vec::new();
    if !are_all {
        let any = "*".to_owned();
        left_out.push(LeftOut { database: any.clone(), collection: any, uuid: None, reason: UNSEEN.to_owned() });
    }
    let mut empty: Vec<String> = Vec::new();
    let mut unnameable: Vec<Namespace> = Vec::new();
    for (database, collections, _) in listed {
        if collections.is_empty() {
            empty.push(database.clone());
        }
        let (named, others): (Vec<_>, Vec<_>) = collections.into_iter().partition(|collection| collection.is_text);
        unnameable.extend(others.into_iter().map(|other| Namespace::new(&*database, other.name)));
        sort_out(&database, named, &mut found, &mut left_out);
    }
    let named_but_empty = selection.filter.databases.iter().find(|d| empty.contains(d));
    if let (Some(database), false) = (named_but_empty, selection.allow_empty) {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("the database {database:?} does not exist on the source, or is empty"),
        )
        .hint("check its name (case counts), or pass [[allow-empty]]"));
    }
    refuse_names_of_other_bytes(&unnameable, selection)?;
    let skipped = left_out.iter().map(|l| Namespace::new(&*l.database, &*l.collection));
    let names = found.iter().map(|f| f.namespace.clone()).chain(skipped).chain(unnameable.iter().cloned()).collect();
    let collections = select(found, &unnameable, selection)?;
    left_out.retain(|l| selection.filter.takes(&Namespace::new(&*l.database, &*l.collection)));

    let indexed: Vec<(CollectionInfo, Option<Timestamp>)> = futures::stream::iter(collections)
        .map(|mut collection| async move {
            let mut listed_at = None;
            if collection.kind != CollectionKind::View && !selection.documents.is_of_views() {
                let database = connection.database(&collection.namespace.database);
                (collection.indexes, listed_at) =
                    catalog::indexes(connection, database, &collection.namespace.collection).await?;
            }
            Ok::<_, Error>((collection, listed_at))
        })
        .buffered(CONCURRENCY)
        .try_collect()
        .await?;
    time = indexed.iter().filter_map(|(_, at)| *at).max().max(time);
    Ok(Listing { collections: indexed.into_iter().map(|(c, _)| c).collect(), left_out, names, time })
}

/// Divides one database's entries into those that can be backed up and those that cannot.
fn sort_out(database: &str, entries: Vec<ListedCollection>, found: &mut Vec<CollectionInfo>, left_out: &mut Vec<LeftOut>) {
    let mut buckets: HashMap<String, Option<Uuid>> =
        entries.iter().filter_map(|e| Some((e.name.strip_prefix(BUCKETS_PREFIX)?.to_owned(), e.uuid))).collect();
    // For a time series, only its buckets have the mark.
    let is_marked = |e: &&ListedCollection| e.options.get_bool("temp").unwrap_or(false);
    let temporary: HashSet<String> =
        entries.iter().filter(is_marked).filter_map(|e| Some(e.name.strip_prefix(BUCKETS_PREFIX)?.to_owned())).collect();
    buckets.retain(|name, _| !Namespace::new(database, &**name).is_of_an_import());
    let mut reject = |name: String, uuid, reason: &str| {
        left_out.push(LeftOut { database: database.to_owned(), collection: name, uuid, reason: reason.to_owned() });
    };
    for entry in entries {
        let kind = match entry.kind.as_str() {
            "view" => CollectionKind::View,
            "timeseries" => CollectionKind::TimeSeries,
            _ => CollectionKind::Collection,
        };
        if entry.name.starts_with(BUCKETS_PREFIX) || entry.name == "system.views" {
            continue; // carried by the time series and the views themselves
        }
        if Namespace::new(database, &*entry.name).is_of_an_import() {
            let reason = match entry.name.starts_with(KEPT_PREFIX) {
                true => "was replaced by an import, which keeps it",
                false => "belongs to imports",
            };
            reject(entry.name, entry.uuid, reason);
            continue;
        }
        if entry.name.starts_with("system.") && entry.name != "system.js" {
            reject(entry.name, entry.uuid, "belongs to the server");
            continue;
        }
        let uuid =
            if kind == CollectionKind::TimeSeries { buckets.remove(&entry.name).flatten().or(entry.uuid) } else { entry.uuid };
        let mut options = entry.options;
        if kind == CollectionKind::TimeSeries && temporary.contains(&entry.name) && !matches!(options.get("temp"), Ok(Some(_))) {
            options.append(cstr!("temp"), true);
        }
        found.push(CollectionInfo { namespace: Namespace::new(database, entry.name), kind, uuid, options, indexes: Vec::new() });
    }
    for (name, uuid) in buckets.into_iter().collect::<BTreeMap<_, _>>() {
        reject(format!("{BUCKETS_PREFIX}{name}"), uuid, "buckets without their time series");
    }
}

/// Servers accept names of any bytes. A backup has its collections' names as text, so it cannot
/// hold these.
fn refuse_names_of_other_bytes(unnameable: &[Namespace], selection: &Selection) -> Result<()> {
    let wanted: Vec<String> = unnameable.iter().filter(|name| selection.filter.takes(name)).map(ToString::to_string).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Refused,
        format!("names that are not UTF-8 cannot be in a backup (each other byte is shown as \\xNN): {}", wanted.join(", ")),
    )
    .hint("rename or drop these collections, or exclude them by [[exclude]] with a pattern, for instance 'DATABASE.PREFIX*'"))
}

fn select(found: Vec<CollectionInfo>, unnameable: &[Namespace], selection: &Selection) -> Result<Vec<CollectionInfo>> {
    if !selection.allow_empty {
        let excludes = selection.filter.exclude.iter().filter(|_| !selection.idle_excludes);
        let names = found.iter().map(|f| &f.namespace).chain(unnameable);
        let idle = selection.filter.include.iter().chain(excludes).find(|p| !names.clone().any(|name| p.matches(name)));
        if let Some(pattern) = idle {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("the pattern {:?} matches no namespace of the source", pattern.as_str()),
            )
            .hint("check it (case counts, '*' stands for any characters, quote it in the shell), or pass [[allow-empty]]"));
        }
    }
    let wanted: Vec<CollectionInfo> =
        found.into_iter().filter(|f| f.is_temporary() || selection.filter.takes(&f.namespace)).collect();
    let wanted = match &selection.documents {
        Documents::All => wanted,
        some => some.of(wanted.into_iter().filter(|f| !f.is_temporary()).collect())?,
    };
    if wanted.iter().all(CollectionInfo::is_temporary) && !selection.allow_empty {
        return Err(Error::new(ErrorKind::NotFound, "the source has nothing to back up").hint(
            "check that the URI leads to the right deployment and that the user may see its databases, or pass [[allow-empty]]",
        ));
    }
    Ok(wanted)
}

/// Whether the source can be read at one cluster time.
#[must_use]
pub fn can_snapshot(connection: &Connection) -> bool {
    connection.topology != Topology::Standalone && connection.version >= Version(5, 0, 0)
}

/// Lists the source. If `until_they_agree`, it repeats the listing until two in a row agree, and
/// returns the operation time of the first one: at that time, the source held exactly this. Names
/// do not identify collections (a dropped one reads as empty, without an error), so the listing and
/// the time must match.
///
/// A primary gives an operation its time before others can see its effect. So it may report a later
/// operation time while a listing still lacks a new collection. The second listing is made once
/// everything up to the time of the first one can be seen.
///
/// # Errors
/// As for [`list`]; [`ErrorKind::Server`] if collections come and go too fast for two listings to
/// agree.
pub async fn list_at_one_time(connection: &Connection, selection: &Selection, until_they_agree: bool) -> Result<Listing> {
    let mut first = command::patiently(|| list(connection, selection)).await?;
    if !until_they_agree {
        return Ok(first);
    }
    for round in 0..LISTINGS {
        // A source that holds nothing tells no time with its listing.
        if first.time.is_none() && connection.topology == Topology::ReplicaSet {
            first.time = optime::now(connection).await.ok();
        }
        if let Some(time) = first.time.filter(|_| connection.writable && connection.topology == Topology::ReplicaSet) {
            optime::wait_until_visible(connection, time).await;
        }
        let second = command::patiently(|| list(connection, selection)).await?;
        if first.collections == second.collections {
            match confirmed(connection, first.time).await? {
                Some(time) => return Ok(Listing { time: Some(time), ..first }),
                None if first.time.is_none() => return Ok(first),
                // A majority has not seen yet what the listing shows.
                None => {}
            }
        }
        first = second;
        tokio::time::sleep(Duration::from_millis(10 * u64::from(round))).await;
    }
    Err(Error::new(
        ErrorKind::Server,
        format!("collections or indexes of the source changed between each of {LISTINGS} listings"),
    )
    .hint("run the backup when fewer collections and indexes are created and dropped, or exclude their namespaces"))
}

/// The time of a listing, if a majority has confirmed everything in it. A member without a primary
/// can have newer writes that may never be confirmed. Then this is the last confirmed time, unless
/// the catalog has changed since.
async fn confirmed(connection: &Connection, time: Option<Timestamp>) -> Result<Option<Timestamp>> {
    let Some(time) = time.filter(|_| !connection.writable && connection.topology == Topology::ReplicaSet) else {
        return Ok(time);
    };
    let committed = match optime::now(connection).await {
        Ok(committed) => committed,
        // The login may not read it, so the listing's own time must do.
        Err(e) if e.kind() == ErrorKind::Denied => return Ok(Some(time)),
        Err(e) => return Err(e),
    };
    if committed >= time {
        return Ok(Some(time));
    }
    Ok((!optime::changes_catalog_after(connection, committed).await?).then_some(committed))
}

/// The approximate size of a collection, from the server's own counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Documents.
    pub documents: u64,
    /// Their bytes, uncompressed.
    pub bytes: u64,
}

/// The sizes of these collections, in their order; `None` if the server does not report one. They
/// affect planning, not correctness.
pub async fn sizes(connection: &Connection, collections: &[CollectionInfo]) -> Vec<Option<Size>> {
    futures::stream::iter(collections)
        .map(|collection| async move {
            if collection.kind == CollectionKind::View {
                return Some(Size::default());
            }
            let data = collection.data();
            let reply = command::ask(&connection.database(&data.database), rawdoc! { "collStats": data.collection.as_str() })
                .await
                .ok()?;
            // The server counts buckets elsewhere.
            let buckets = reply.get_document("timeseries").ok().and_then(|series| catalog::number(series, "bucketCount"));
            Some(Size { documents: catalog::number(&reply, "count").or(buckets)?, bytes: catalog::number(&reply, "size")? })
        })
        .buffered(CONCURRENCY)
        .boxed()
        .collect()
        .await
}

/// What happened to a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CollectionState {
    /// It does not exist any more, and its name is free.
    Dropped,
    /// It does not exist any more, and another collection has its name, for instance after `$out`
    /// or a rename over it.
    Replaced,
    /// It still has its name.
    Unmoved,
    /// It has this name now.
    Renamed(Namespace),
}

/// Finds a collection by its UUID. `data` is the last known namespace of its documents.
///
/// # Errors
/// As for [`list`]; for other databases than its own, only if the login may list them.
pub async fn whereabouts(connection: &Connection, collection: &CollectionInfo, data: &Namespace) -> Result<CollectionState> {
    let own = &data.database;
    let is_it = |entry: &ListedCollection| entry.uuid.is_some() && entry.uuid == collection.uuid;
    let (here, _) = command::patiently(|| catalog::collections(connection, own)).await?;
    if let Some(entry) = here.iter().find(|e| is_it(e)) {
        let now = Namespace::new(own, &entry.name);
        return Ok(if now == *data { CollectionState::Unmoved } else { CollectionState::Renamed(now) });
    }
    // If the login sees no other databases, its own one must do.
    let all = command::patiently(|| catalog::databases(connection)).await.unwrap_or_default();
    for database in all.iter().filter(|d| *d != own) {
        let Ok((entries, _)) = command::patiently(|| catalog::collections(connection, database)).await else { continue };
        if let Some(entry) = entries.into_iter().find(is_it) {
            return Ok(CollectionState::Renamed(Namespace::new(database, entry.name)));
        }
    }
    let replaced = here.iter().any(|e| e.name == data.collection);
    Ok(if replaced { CollectionState::Replaced } else { CollectionState::Dropped })
}

/// How many seconds of history the source keeps, if the login may ask.
pub async fn history_seconds(connection: &Connection) -> Option<u64> {
    let ask = rawdoc! { "getParameter": 1, "minSnapshotHistoryWindowInSeconds": 1 };
    let reply = command::run(&connection.documents("admin"), ask).await.ok()?;
    catalog::number(&reply, "minSnapshotHistoryWindowInSeconds")
}
