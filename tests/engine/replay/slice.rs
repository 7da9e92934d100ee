//! A source whose collections are listed and read while it is written to, and a target that gets
//! the data and the oplog slice.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bson::{Bson, Document, RawDocumentBuf, doc};
use bsonvault::context::Context;
use bsonvault::format::digest::{Content, ContentDigest, Sha256Hex};
use bsonvault::format::document;
use bsonvault::format::manifest::{ClusterTime, Collection, CollectionKind, RawValue, StoredObject};
use bsonvault::mongo::connect::ConnectOptions;
use bsonvault::mongo::{Connection, MongoUri, Role, catalog};
use bsonvault::names::{Namespace, SYSTEM_DATABASES};
use bsonvault::oplog::apply::{Applied, Applier, Commits, Destination};
use bsonvault::oplog::catalog::{Catalog, CatalogTracker};
use bsonvault::oplog::{Committed, Transactions};
use bsonvault::sink::Target;
use mongodb::Client;
use uuid::Uuid;

use crate::support::server::Server;

/// The data that was read from a source.
pub(crate) struct Slice {
    pub(crate) connection: Connection,
    pub(crate) client: Client,
    pub(crate) from: ClusterTime,
    pub(crate) listed_at: ClusterTime,
    pub(crate) listed: Vec<Collection>,
    /// By collection UUID, in the order in which they were read.
    pub(crate) read: HashMap<Uuid, Vec<RawDocumentBuf>>,
}

/// The result of the slice.
pub(crate) struct End {
    pub(crate) catalog: Catalog,
    committed: Committed,
}

impl End {
    pub(crate) fn known(&self) -> Commits {
        Commits::Known(self.committed.clone())
    }
}

impl Slice {
    /// Lists a source now. Entries from `from` on belong to the slice.
    pub(crate) async fn list(server: &Server, from: ClusterTime) -> Self {
        let connection = connect(server, Role::Source).await;
        let (listed, listed_at) = list(&connection).await;
        Self { client: server.client().await, connection, from, listed_at, listed, read: HashMap::new() }
    }

    /// Reads one part of a listed collection in its present state: the documents whose `_id` falls
    /// into this part of `parts`. Does nothing if the collection is gone.
    pub(crate) async fn read_part(&mut self, uuid: Uuid, part: u64, parts: u64) {
        let Some(namespace) = now(&self.connection, uuid).await else { return };
        let read = self.read.entry(uuid).or_default();
        for document in documents(&self.client, &namespace).await {
            let (kind, id) = document::id(document.as_bytes()).unwrap().unwrap();
            let hash = id.iter().fold(u64::from(kind), |h, b| h.wrapping_mul(31).wrapping_add(u64::from(*b)));
            if hash % parts == part {
                read.push(document);
            }
        }
    }

    /// The UUIDs of the listed collections, in a stable order.
    pub(crate) fn identities(&self) -> Vec<Uuid> {
        self.listed.iter().filter_map(|c| c.uuid).collect()
    }

    /// The entries up to now, in frames.
    pub(crate) async fn frames(&self) -> Vec<Vec<u8>> {
        let to = time(&self.client).await;
        let (from, to): (bson::Timestamp, bson::Timestamp) = (self.from.into(), to.into());
        let oplog = self.client.database("local").collection::<RawDocumentBuf>("oplog.rs");
        let mut entries = oplog.find(doc! { "ts": { "$gte": from, "$lte": to } }).await.unwrap();
        let mut frames = vec![Vec::new()];
        while entries.advance().await.unwrap() {
            if frames.last().unwrap().len() > 300_000 {
                frames.push(Vec::new());
            }
            frames.last_mut().unwrap().extend(entries.current().as_bytes());
        }
        frames
    }

    /// Computes the result of the slice.
    pub(crate) fn follow(
        &self,
        frames: &[Vec<u8>],
        wanted: impl Fn(&Namespace) -> bool + Send + Sync + Sync,
    ) -> bsonvault::error::Result<End> {
        let mut tracker = CatalogTracker::new(&self.listed, self.listed_at, wanted)?;
        let mut committed = Committed::new(self.listed_at);
        for (uuid, id) in self.last_read() {
            tracker.last_read(uuid, id.0, &id.1);
        }
        for entry in frames.iter().flat_map(|frame| document::Documents::of(frame)) {
            committed.add(tracker.take(entry?)?);
        }
        Ok(End { catalog: tracker.catalog()?, committed })
    }

    fn last_read(&self) -> HashMap<Uuid, (u8, Vec<u8>)> {
        let capped = self.listed.iter().filter(|c| c.options.bson.get_bool("capped").unwrap_or(false)).filter_map(|c| c.uuid);
        capped
            .filter_map(|uuid| {
                let last = self.read.get(&uuid)?.last()?;
                let (kind, id) = document::id(last.as_bytes()).unwrap().unwrap();
                Some((uuid, (kind, id.to_vec())))
            })
            .collect()
    }

    /// As if nobody had read the slice before.
    pub(crate) fn awaited(&self) -> Commits {
        Commits::Awaited(Transactions::new(self.listed_at))
    }

    /// Fills a target with the data, and replays the slice.
    pub(crate) async fn bring(&self, frames: &[Vec<u8>], end: &End, commits: Commits, target: &Server) -> Applied {
        let client = target.client().await;
        let connection = connect(target, Role::Target).await;
        let mut destinations = HashMap::new();
        let last_read = self.last_read();
        for collection in end.catalog.collections.iter().filter(|c| c.kind != CollectionKind::View) {
            let name = Namespace::new(&*collection.database, format!("staged {}", collection.name));
            let mut create = doc! { "create": &name.collection };
            create.extend(Document::try_from(&*collection.options.bson).unwrap());
            client.database(&name.database).run_command(create).await.unwrap();
            let uuid = collection.uuid.unwrap();
            let after = last_read.get(&uuid).filter(|_| end.catalog.read_within.contains(&uuid)).cloned();
            let destination = Destination::of(collection, &name, after);
            for part in self.read.get(&uuid).map(Vec::as_slice).unwrap_or_default().chunks(1000) {
                let into = client.database(&name.database).collection::<RawDocumentBuf>(&destination.namespace.collection);
                into.insert_many(part).bypass_document_validation(true).await.unwrap();
            }
            destinations.insert(uuid, destination);
        }
        let behaves_as = connection.behaves_as().await;
        let target = Target::new(connection, behaves_as, &Context::default());
        bsonvault::oplog::apply::refuse_without_rights(&target, destinations.values()).await.unwrap();
        let mut applier = Applier::with_lanes(target, commits, 4).await.unwrap();
        for (uuid, destination) in destinations {
            applier.direct(uuid, destination).unwrap();
        }
        for frame in frames {
            applier.take(frame.clone()).await.unwrap();
        }
        applier.make_durable().await.unwrap()
    }

    /// All differences between the computed catalog and the source's, and between the source's
    /// documents and the target's.
    pub(crate) async fn differences(&self, end: &End, target: &Server) -> Vec<String> {
        let (there, _) = list(&self.connection).await;
        let mut differences = catalog_differences(&there, &end.catalog.collections);
        let client = target.client().await;
        for collection in end.catalog.collections.iter().filter(|c| c.kind != CollectionKind::View) {
            let of = |name: String| {
                let namespace = Namespace::new(&*collection.database, name);
                if collection.kind == CollectionKind::TimeSeries { namespace.buckets() } else { namespace }
            };
            let expected = documents(&self.client, &of(collection.name.clone())).await;
            let found = documents(&client, &of(format!("staged {}", collection.name))).await;
            if collection.options.bson.get_bool("capped").unwrap_or(false) {
                if expected != found {
                    differences.push(format!("{}: {expected:?}\n  but {found:?}", collection.namespace()));
                }
                continue;
            }
            if content(&expected) != content(&found) {
                let by_id = |all: &[RawDocumentBuf]| -> BTreeMap<Vec<u8>, RawDocumentBuf> {
                    all.iter().map(|d| (document::id(d.as_bytes()).unwrap().unwrap().1.to_vec(), d.clone())).collect()
                };
                let (expected, found) = (by_id(&expected), by_id(&found));
                let differ = expected.keys().chain(found.keys()).find(|id| expected.get(*id) != found.get(*id)).unwrap();
                differences.push(format!(
                    "{}: {:.600}\n  but {:.600}",
                    collection.namespace(),
                    format!("{:?}", expected.get(differ)),
                    format!("{:?}", found.get(differ))
                ));
            }
        }
        differences
    }
}

fn content(documents: &[RawDocumentBuf]) -> Content {
    let mut content = Content::default();
    documents.iter().for_each(|d| content.add(d.as_bytes()));
    content
}

/// The differences between two catalogs, including UUIDs, options and indexes.
pub(crate) fn catalog_differences(expected: &[Collection], found: &[Collection]) -> Vec<String> {
    let describe = |collections: &[Collection]| -> BTreeSet<String> {
        let one = |c: &Collection| {
            let name = c.namespace();
            let options = Document::try_from(&*c.options.bson).unwrap().into_iter().filter(|(name, _)| name != "temp");
            let options = options.map(move |(option, value)| format!("{option}: {:?}", number(value)));
            let indexes = c.indexes.iter().map(|index| sorted(&index.bson));
            let identity = format!("{} {:?}", c.kind, c.uuid);
            std::iter::once(identity).chain(options).chain(indexes).map(move |line| format!("{name}: {line}")).collect::<Vec<_>>()
        };
        collections.iter().flat_map(one).collect()
    };
    let (expected, found) = (describe(expected), describe(found));
    let missing = expected.difference(&found).map(|line| format!("missing {line}"));
    missing.chain(found.difference(&expected).map(|line| format!("extra {line}"))).collect()
}

fn sorted(index: &RawDocumentBuf) -> String {
    let mut fields: Vec<(String, Bson)> = Document::try_from(&**index).unwrap().into_iter().collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    // Entries have Booleans as they were given; listings normalize them.
    let truth = |name: &str, value: Bson| match (name, &value) {
        ("sparse" | "unique" | "hidden", Bson::Double(n)) => Bson::Boolean(*n != 0.0),
        _ => value,
    };
    let fields = fields.into_iter().map(|(name, value)| {
        let value = truth(&name, number(value));
        (name, value)
    });
    format!("{:?}", fields.collect::<Vec<_>>())
}

/// Listings give some numbers a type that differs from the written one.
fn number(value: Bson) -> Bson {
    match value {
        Bson::Int64(n) => Bson::Double(n as f64),
        Bson::Int32(n) => Bson::Double(n.into()),
        other => other,
    }
}

pub(crate) async fn connect(server: &Server, role: Role) -> Connection {
    Connection::open(&MongoUri::parse(role, &server.uri()).unwrap(), ConnectOptions { pool: 16, selection_timeout: None })
        .await
        .unwrap()
}

/// The present operation time.
pub(crate) async fn time(client: &Client) -> ClusterTime {
    let reply = client.database("admin").run_command(doc! { "ping": 1 }).await.unwrap();
    reply.get_timestamp("operationTime").unwrap().into()
}

async fn now(connection: &Connection, uuid: Uuid) -> Option<Namespace> {
    for database in catalog::databases(connection).await.unwrap() {
        let (found, _) = catalog::collections(connection, &database).await.unwrap();
        if let Some(found) = found.into_iter().find(|c| c.uuid == Some(uuid)) {
            return Some(Namespace::new(database, found.name));
        }
    }
    None
}

pub(crate) async fn documents(client: &Client, namespace: &Namespace) -> Vec<RawDocumentBuf> {
    let collection = client.database(&namespace.database).collection::<RawDocumentBuf>(&namespace.collection);
    let mut found = collection.find(doc! {}).hint(mongodb::options::Hint::Keys(doc! { "$natural": 1 })).await.unwrap();
    let mut documents = Vec::new();
    while found.advance().await.unwrap() {
        documents.push(found.current().to_owned());
    }
    documents
}

/// Every collection of a server as a backup lists it, and the operation time of the listing.
pub(crate) async fn list(connection: &Connection) -> (Vec<Collection>, ClusterTime) {
    let mut listed = Vec::new();
    for database in catalog::databases(connection).await.unwrap() {
        if SYSTEM_DATABASES.contains(&database.as_str()) {
            continue;
        }
        let (found, _) = catalog::collections(connection, &database).await.unwrap();
        for info in &found {
            let temporary = info.options.get_bool("temp").unwrap_or(false);
            if temporary || (info.name.starts_with("system.") && info.name != "system.js") {
                continue;
            }
            let (kind, uuid) = match info.kind.as_str() {
                "view" => (CollectionKind::View, None),
                "timeseries" => {
                    let buckets = format!("system.buckets.{}", info.name);
                    (CollectionKind::TimeSeries, found.iter().find(|b| b.name == buckets).and_then(|b| b.uuid))
                }
                _ => (CollectionKind::Collection, info.uuid),
            };
            let indexes = match kind {
                CollectionKind::View => Vec::new(),
                _ => catalog::indexes(connection, connection.database(&database), &info.name).await.unwrap().0,
            };
            listed.push(Collection {
                database: database.clone(),
                name: info.name.clone(),
                kind,
                uuid,
                options: RawValue::of(&info.options),
                indexes: indexes.iter().map(|i| RawValue::of(i)).collect(),
                metadata: StoredObject { key: String::new(), bytes: 0, sha256: Sha256Hex::of(b"") },
                documents: 0,
                bytes: 0,
                digest: ContentDigest::default(),
                segments: Vec::new(),
            });
        }
    }
    (listed, time(&connection.client).await)
}
