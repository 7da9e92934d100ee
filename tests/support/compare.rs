//! Compares the data of two MongoDB servers, and reports every difference.
//!
//! It compares, per database: collections, views and time series with their options (except UUIDs),
//! indexes with all their options, and every document byte for byte, in any order. For capped
//! collections, it also compares the natural order. It reads time series twice: as measurements,
//! and as the buckets that store them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt;
use mongodb::{Client, Database};
use sha2::{Digest, Sha256};

/// Databases of a server rather than of its users.
const SKIPPED_DATABASES: [&str; 3] = ["admin", "local", "config"];
/// The most characters of either side in a reported difference.
const SHOWN_CHARS: usize = 700;

#[derive(Clone, Debug, Default)]
pub struct CompareOptions {
    /// The databases of the first server; default: all but `admin`, `local` and `config`.
    pub databases: Option<Vec<String>>,
    /// Databases of the first server that have another name on the second.
    pub rename: HashMap<String, String>,
    /// Allow databases and collections that only the second server has.
    pub ignore_extra: bool,
    /// Ignore what a server makes up in a time series, for servers that were filled separately: its
    /// buckets, and the order of a measurement's fields, which follows the buckets' columns.
    pub filled_apart: bool,
    /// Ignore how servers of different versions list the same thing. Numbers and Booleans among an
    /// index's options are compared by value. The expiry of a clustered collection counts as an
    /// option of the collection, not again as an option of its index, which only newer servers
    /// list. A mark that the second server adds to a time series with mixed buckets is ignored.
    pub across_versions: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Namespaces on either side, including views.
    pub namespaces: u64,
    /// Documents of the first server, including measurements of time series.
    pub documents: u64,
    pub differences: Vec<String>,
}

pub async fn compare(a: &Client, b: &Client, options: CompareOptions) -> Comparison {
    let mut found = Comparison::default();
    let renamed = |name: &str| options.rename.get(name).cloned().unwrap_or_else(|| name.to_owned());
    let names: BTreeSet<String> = match &options.databases {
        Some(names) => names.iter().cloned().collect(),
        None => databases(a).await,
    };
    if options.databases.is_none() && !options.ignore_extra {
        let expected: BTreeSet<String> = names.iter().map(|n| renamed(n)).collect();
        let extra = databases(b).await.into_iter().filter(|name| !expected.contains(name));
        found.differences.extend(extra.map(|name| format!("extra database {name}")));
    }
    for name in &names {
        let (x, y) = (describe(&a.database(name), &options).await, describe(&b.database(&renamed(name)), &options).await);
        for collection in x.keys().chain(y.keys()).collect::<BTreeSet<_>>() {
            found.namespaces += 1;
            let namespace = format!("{name}.{collection}");
            match (x.get(collection), y.get(collection)) {
                (Some(left), Some(right)) => {
                    found.documents += left.count;
                    left.differences(right, &namespace, &mut found.differences);
                }
                (Some(left), None) => {
                    found.documents += left.count;
                    found.differences.push(format!("missing {namespace}"));
                }
                (None, _) if options.ignore_extra => {}
                (None, _) => found.differences.push(format!("extra {namespace}")),
            }
        }
    }
    found
}

/// One collection, view or time series. Each property is a text that is equal if the property is.
#[derive(Default)]
struct Description {
    count: u64,
    properties: BTreeMap<&'static str, String>,
    /// Equivalent options, in case a newer server has added a mark by itself.
    unmarked: Option<String>,
}

impl Description {
    fn differences(&self, other: &Self, namespace: &str, into: &mut Vec<String>) {
        for property in self.properties.keys().chain(other.properties.keys()).collect::<BTreeSet<_>>() {
            let (left, right) = (self.properties.get(property), other.properties.get(property));
            let marked_there = *property == "options" && other.unmarked.is_some() && left == other.unmarked.as_ref();
            if left != right && !marked_there {
                // For several lines, show those that the other side lacks.
                let shown = |side: Option<&String>, other: Option<&String>| {
                    let other: BTreeSet<&str> = other.into_iter().flat_map(|o| o.lines()).collect();
                    let lines: Vec<&str> =
                        side.into_iter().flat_map(|s| s.lines()).filter(|line| !other.contains(line)).collect();
                    if side.is_none() { "nothing".to_owned() } else { lines.join("\n").chars().take(SHOWN_CHARS).collect() }
                };
                into.push(format!("differs {namespace} {property}\n  a: {}\n  b: {}", shown(left, right), shown(right, left)));
            }
        }
    }
}

async fn databases(client: &Client) -> BTreeSet<String> {
    let names = client.list_database_names().await.unwrap();
    names.into_iter().filter(|name| !SKIPPED_DATABASES.contains(&name.as_str())).collect()
}

async fn describe(db: &Database, how: &CompareOptions) -> BTreeMap<String, Description> {
    let mut described = BTreeMap::new();
    for info in cursor(db, doc! {"listCollections": 1}).await {
        let (name, kind) = (info.get_str("name").unwrap(), info.get_str("type").unwrap());
        if name == "system.views" || name.starts_with("system.buckets.") {
            continue;
        }
        let options = info.get_document("options").cloned().unwrap_or_default();
        let unmarked = without_mixed_mark(&options).filter(|_| how.across_versions).map(|options| text(&options));
        let mut of = Description { unmarked, ..Description::default() };
        of.properties.insert("type", kind.to_owned());
        of.properties.insert("options", text(&options));
        if kind != "view" {
            let mut indexes: Vec<String> = Vec::new();
            for mut index in cursor(db, doc! {"listIndexes": name}).await {
                index.remove("ns");
                if how.across_versions {
                    index = of_any_version(index, &options);
                }
                indexes.push(text(&index));
            }
            indexes.sort();
            of.properties.insert("indexes", indexes.join("\n"));
            let ordered = options.get_bool("capped").unwrap_or(false);
            let order = match (ordered, kind == "timeseries" && how.filled_apart) {
                (true, _) => Order::Natural,
                (false, true) => Order::AnyOfFieldsToo,
                (false, false) => Order::Any,
            };
            let documents = digest(db, name, order).await;
            of.count = documents.count;
            of.properties.insert("count", documents.count.to_string());
            of.properties.insert("documents", documents.sum);
            of.properties.extend(documents.order.map(|order| ("order", order)));
        }
        if kind == "timeseries" && !how.filled_apart {
            let buckets = digest(db, &format!("system.buckets.{name}"), Order::Any).await;
            of.properties.insert("buckets", format!("{} with sum {}", buckets.count, buckets.sum));
        }
        described.insert(name.to_owned(), of);
    }
    described
}

/// An index of a collection with these options, in the form that all versions share.
pub fn of_any_version(index: Document, options: &Document) -> Document {
    let number = |value: &Bson| match value {
        Bson::Int32(n) => Some(f64::from(*n)),
        Bson::Int64(n) => Some(*n as f64),
        Bson::Double(n) => Some(*n),
        _ => None,
    };
    let expiry = |document: &Document| document.get("expireAfterSeconds").and_then(number);
    let told_twice = index.get_bool("clustered").unwrap_or(false) && expiry(&index) == expiry(options);
    let listed = index.into_iter().filter(|(name, _)| !(told_twice && name == "expireAfterSeconds"));
    listed
        .map(|(name, value)| {
            let value = match number(&value) {
                None if name == "wildcardProjection" => {
                    // 5.0 lists Booleans, and omits `_id` unless it is asked for.
                    let fields = value.as_document().cloned().unwrap_or_default().into_iter();
                    let truths = fields.map(|(name, value)| (name, number(&value).map_or(value, |n| Bson::Boolean(n != 0.0))));
                    Bson::Document(truths.filter(|(name, value)| name != "_id" || *value != Bson::Boolean(false)).collect())
                }
                Some(n) if ["unique", "sparse", "hidden", "background"].contains(&name.as_str()) => Bson::Boolean(n != 0.0),
                Some(n) => Bson::Double(n),
                None => value,
            };
            (name, value)
        })
        .collect()
}

/// The options without the mark that a server shows for a time series whose buckets may be mixed,
/// if that mark is its only storage option.
fn without_mixed_mark(options: &Document) -> Option<Document> {
    let engine = options.get_document("storageEngine").and_then(|e| e.get_document("wiredTiger")).ok()?;
    let mark = "app_metadata=(timeseriesBucketsMayHaveMixedSchemaData=true)";
    engine.get_str("configString").is_ok_and(|config| config == mark).then(|| {
        let mut rest = options.clone();
        rest.remove("storageEngine");
        rest
    })
}

async fn cursor(db: &Database, command: Document) -> Vec<Document> {
    db.run_cursor_command(command).await.unwrap().try_collect().await.unwrap()
}

/// With every value's type. The order of keys matters inside an option (an index's key, a
/// pipeline), not among the options.
fn text(options: &Document) -> String {
    let sorted: BTreeMap<_, _> = options.iter().collect();
    let parts: Vec<String> = sorted.into_iter().map(|(key, value)| format!("{key:?}: {value:?}")).collect();
    format!("{{{}}}", parts.join(", "))
}

/// Which order of a collection matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Natural,
    Any,
    AnyOfFieldsToo,
}

struct DocumentsDigest {
    count: u64,
    /// The sum of the documents' SHA-256 digests. Their order does not matter, repeated documents
    /// do.
    sum: String,
    /// The digest of the digests in natural order.
    order: Option<String>,
}

async fn digest(db: &Database, name: &str, counts: Order) -> DocumentsDigest {
    let (mut count, mut sum, mut order) = (0, [0_u64; 4], Sha256::new());
    let collection = db.collection::<RawDocumentBuf>(name);
    let find = collection.find(doc! {});
    let ordered = counts == Order::Natural;
    let mut documents = if ordered { find.hint(mongodb::options::Hint::Keys(doc! {"$natural": 1})) } else { find }.await.unwrap();
    // The raw slices of the reply: the driver's types would refuse some documents.
    while documents.advance().await.unwrap() {
        let digest = match counts {
            Order::Natural | Order::Any => Sha256::digest(documents.current().as_bytes()),
            Order::AnyOfFieldsToo => Sha256::digest(text(&documents.current().try_into().unwrap())),
        };
        order.update(digest);
        add(&mut sum, &digest);
        count += 1;
    }
    let sum = sum.iter().rev().map(|limb| format!("{limb:016x}")).collect();
    DocumentsDigest { count, sum, order: ordered.then(|| hex(&order.finalize())) }
}

/// Adds a big-endian digest modulo 2^256; the least significant limb comes first.
fn add(sum: &mut [u64; 4], digest: &[u8]) {
    let mut carry = false;
    for (limb, bytes) in sum.iter_mut().zip(digest.rchunks_exact(8)) {
        let (partial, over) = limb.overflowing_add(u64::from_be_bytes(bytes.try_into().unwrap()));
        let (total, over_again) = partial.overflowing_add(u64::from(carry));
        (*limb, carry) = (total, over || over_again);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
