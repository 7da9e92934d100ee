//! Fills a server with one of every kind of thing that a logical backup must carry.
//!
//! Databases: `zoo` (kinds of collections, indexes and BSON values), `zoo_names` (awkward names),
//! `zoo_bulk` (larger collections whose `_id`s' types and order defeat naive splitting into
//! ranges), and some whose own names are awkward. The same seed gives the same documents on servers
//! of one version, except for the `_id`s of time series buckets. [`SINCE`] tells what each version
//! supports. If a server refuses anything that it should support, the zoo panics.

mod bulk;
mod kinds;
pub mod raw;
mod values;

use bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, doc};
use mongodb::Client;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Features that not every server supports, and the version from which on one must. Everything else
/// must work on 4.4 and later.
const SINCE: [(&str, (i32, i32)); 10] = [
    ("names that begin with $", (5, 0)),
    ("indexes of one key", (5, 0)), // and of one collation
    ("time series", (5, 0)),
    ("clustered collections", (5, 3)),
    ("indexes on measurements", (6, 0)),
    ("pre-images", (6, 0)),
    ("prepareUnique", (6, 0)),
    ("wider partial filters", (6, 0)),
    ("time series bucket span", (6, 3)),
    ("time series TTL on metadata", (6, 3)), // as a partial index
];

/// As far as was observed; 6.0.27 refuses them.
const LAST_TO_TAKE_FALSE_COLUMNS: (i32, i32, i32) = (6, 0, 5);

#[derive(Clone, Debug)]
pub struct ZooOptions {
    pub seed: u64,
    /// Documents in each of the larger collections.
    pub docs: usize,
    /// Whether documents of nearly 16 MiB are included.
    pub large: bool,
    /// Whether to include a binary that claims to be a compressed column but is not. Later patches
    /// of 6.0 refuse it, and such servers never get one.
    pub false_column: bool,
}

impl Default for ZooOptions {
    fn default() -> Self {
        Self { seed: 1, docs: 500, large: false, false_column: true }
    }
}

/// Returns the features of [`SINCE`] that this server is too old for.
pub async fn fill(client: &Client, options: &ZooOptions) -> Vec<&'static str> {
    let build = client.database("admin").run_command(doc! {"buildInfo": 1}).await.unwrap();
    let part = |i: usize| build.get_array("versionArray").unwrap()[i].as_i32().unwrap();
    let version = (part(0), part(1), part(2));
    let mut zoo = Zoo { client: client.clone(), rng: StdRng::seed_from_u64(options.seed), version };
    values::fill(&mut zoo, options.false_column && version <= LAST_TO_TAKE_FALSE_COLUMNS).await;
    if options.large {
        values::fill_large(&mut zoo).await;
    }
    kinds::fill(&mut zoo).await;
    fill_names(&mut zoo).await;
    bulk::fill(&mut zoo, options.docs).await;
    SINCE.iter().filter(|(_, since)| (version.0, version.1) < *since).map(|(case, _)| *case).collect()
}

/// Names that are difficult as file names or in URLs, regular expressions or prefixes.
async fn fill_names(zoo: &mut Zoo) {
    let (long, longest) = ("a".repeat(200), "b".repeat(225));
    let names = [
        "plain",
        "with space",
        "slash/and\\back",
        "per%cent",
        "%2F",
        "dots.in.name",
        "ünï-日本",
        "quote\"'`",
        "CaseA",
        "casea",
        "trailing.",
        "semi;colon&amp",
        &long,
        &longest,
        "new\nline",
        "a..b",
        "-dash",
        "system_like",
        "prelude.json",
        "oplog",
        "x.metadata",
        "x.bson",
        "é",
        "e\u{301}",
        "*",
        "(re|gex)+",
        "con",
        "1",
    ];
    for name in names {
        let documents: Vec<_> = (0..3).map(|i| doc! {"_id": i, "w": zoo.word()}).collect();
        let short: String = name.chars().take(20).collect();
        zoo.index("zoo_names", name, [doc! {"key": {"w": 1}, "name": format!("ix {short}")}]).await;
        zoo.insert("zoo_names", name, documents).await;
    }
    for name in ["zoo-dash", "zoo_ünï", "Zoo2"] {
        zoo.insert(name, "c", [doc! {"_id": 1}]).await;
    }
}

struct Zoo {
    client: Client,
    rng: StdRng,
    version: (i32, i32, i32),
}

impl Zoo {
    async fn try_run(&self, db: &str, command: Document) -> Result<(), String> {
        let raw = RawDocumentBuf::try_from(&command).unwrap();
        self.try_run_raw(db, raw).await
    }

    async fn try_run_raw(&self, db: &str, command: RawDocumentBuf) -> Result<(), String> {
        let answer = self.client.database(db).run_raw_command(command).await.map_err(|e| match &*e.kind {
            mongodb::error::ErrorKind::Command(refusal) => refusal.to_string(), // without the timestamps of the whole reply
            other => other.to_string(),
        })?;
        if answer.contains_key("writeErrors") { Err(answer.to_string()) } else { Ok(()) }
    }

    async fn run(&self, db: &str, command: Document) {
        let shown = command.to_string();
        self.try_run(db, command).await.unwrap_or_else(|e| panic!("{db}: {shown} was refused: {e}"));
    }

    /// Whether this server supports this feature.
    fn takes(&self, case: &str) -> bool {
        let since = SINCE.iter().find(|(known, _)| *known == case);
        (self.version.0, self.version.1) >= since.unwrap_or_else(|| panic!("since when do servers take {case}?")).1
    }

    async fn create(&self, db: &str, name: &str, options: Document) {
        let mut command = doc! {"create": name};
        command.extend(options);
        self.run(db, command).await;
    }

    /// Creates all in one command, if possible before there are documents: each separate build
    /// takes the server a while.
    async fn index(&self, db: &str, collection: &str, indexes: impl IntoIterator<Item = Document>) {
        let indexes: Vec<Document> = indexes.into_iter().collect();
        self.run(db, doc! {"createIndexes": collection, "indexes": indexes}).await;
    }

    async fn insert(&self, db: &str, collection: &str, documents: impl IntoIterator<Item = Document>) {
        let raw = documents.into_iter().map(|d| RawDocumentBuf::try_from(&d).unwrap());
        self.insert_raw(db, collection, raw).await;
    }

    /// Inserts in this order, whatever the content. Commands stay well below the 48 MB limit of a
    /// message.
    async fn insert_raw(&self, db: &str, collection: &str, documents: impl IntoIterator<Item = RawDocumentBuf>) {
        let mut documents = documents.into_iter().peekable();
        while documents.peek().is_some() {
            let (mut batch, mut bytes, mut count) = (RawArrayBuf::new(), 0, 0);
            while let Some(document) = documents.next_if(|_| bytes < 4 << 20 && count < 5000) {
                bytes += document.as_bytes().len();
                count += 1;
                batch.push(document);
            }
            let mut command = RawDocumentBuf::new();
            command.append(bson::raw::cstr!("insert"), collection);
            command.append(bson::raw::cstr!("documents"), batch);
            let answer = self.try_run_raw(db, command).await;
            answer.unwrap_or_else(|e| panic!("an insert into {db}.{collection} was refused: {e:.2000}"));
        }
    }

    fn word(&mut self) -> String {
        let length = self.rng.random_range(2..=8);
        (0..length).map(|_| char::from(self.rng.random_range(b'a'..=b'z'))).collect()
    }

    fn object_id(&mut self) -> Bson {
        Bson::ObjectId(bson::oid::ObjectId::from_bytes(self.rng.random()))
    }

    fn bytes(&mut self, count: usize) -> Bson {
        let mut bytes = vec![0; count];
        self.rng.fill(&mut bytes[..]);
        Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes })
    }
}
