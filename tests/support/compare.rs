//! Compare what two MongoDB servers hold, and say every difference.
//!
//! Compared, per database: collections, views and time series with their options (UUIDs aside), indexes with all their
//! options, and every document byte for byte, in any order; in natural order too for capped collections. Time series are
//! read twice, as measurements and as the buckets they are stored in.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt;
use mongodb::{Client, Database};
use sha2::{Digest, Sha256};

/// What belongs to a server rather than to its users.
const SKIPPED_DATABASES: [&str; 3] = ["admin", "local", "config"];
/// A difference shows no more of either side than this.
const SHOWN_CHARS: usize = 700;

#[derive(Clone, Debug, Default)]
pub struct CompareOptions {
    /// The databases of the first server; all but `admin`, `local` and `config` where none are given.
    pub databases: Option<Vec<String>>,
    /// Where a database of the first server is found under another name in the second.
    pub rename: HashMap<String, String>,
    /// Allow databases and collections that only the second server has.
    pub ignore_extra: bool,
    /// Leave out what a server makes up in a time series, for servers that were filled apart: its buckets, and the order
    /// of a measurement's fields, which follows the buckets' columns.
    pub filled_apart: bool,
    /// Leave out in what ways servers of different versions list the same thing: numbers and truths among an index's options are
    /// compared by value, the expiry of a clustered collection counts where it is an option of the collection and not again where only
    /// newer servers list it, as one of its index, and so does not a mark of the second server's own on a time series of mixed buckets.
    pub across_versions: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// On either side, views among them.
    pub namespaces: u64,
    /// Of the first server, measurements of time series among them.
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

/// One collection, view or time series; each property as text that is equal where the property is.
#[derive(Default)]
struct Description {
    count: u64,
    properties: BTreeMap<&'static str, String>,
    /// Options that are as good as those among the properties, where a newer server may have come to others by itself.
    unmarked: Option<String>,
}

impl Description {
    fn differences(&self, other: &Self, namespace: &str, into: &mut Vec<String>) {
        for property in self.properties.keys().chain(other.properties.keys()).collect::<BTreeSet<_>>() {
            let (left, right) = (self.properties.get(property), other.properties.get(property));
            let marked_there = *property == "options" && other.unmarked.is_some() && left == other.unmarked.as_ref();
            if left != right && !marked_there {
                // Of several lines those that are not on the other side.
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

/// An index of a collection with these options, in one of the ways in which versions list it.
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
                    // 5.0 lists truths, and `_id`, which is left out unless it is asked for.
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

/// The options without the mark that a server shows for a time series whose buckets may be mixed, where there is that mark and nothing beside
/// it.
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

/// With every value's type. Key order counts inside (an index's key, a pipeline), not among the options themselves.
fn text(options: &Document) -> String {
    let sorted: BTreeMap<_, _> = options.iter().collect();
    let parts: Vec<String> = sorted.into_iter().map(|(key, value)| format!("{key:?}: {value:?}")).collect();
    format!("{{{}}}", parts.join(", "))
}

/// What of a collection's order counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Natural,
    Any,
    AnyOfFieldsToo,
}

struct DocumentsDigest {
    count: u64,
    /// The documents' SHA-256 digests added up, so that their order does not matter while repeated ones do.
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
    // The raw reply's own slices: some documents hold what the driver's types would refuse.
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

/// Add a big-endian digest modulo 2^256; the least significant limb comes first.
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
