//! The whole: every verb on the orders of the shop, each beside its limit, and MongoDB's own tools
//! if they are on the `PATH`.

use std::path::{Path, PathBuf};

use bson::{Document, doc};
use mongodb::Client;
use serde_json::Value;

use crate::figures::{Meter, Results, Steps, Taken};
use crate::inserts::Inserts;
use crate::limits::{self, Reading, Segments};
use crate::shop::data::{build_indexes, fill_orders, indexes};
use crate::shop::process::run as run_program;
use crate::{Asked, directory};

/// The database with the orders.
const SHOP: &str = "bench_shop";
/// The target of imports.
const COPY: &str = "bench_copy";
/// The target of the insert limit.
const FLOOR: &str = "bench_floor";
/// The target of mongorestore.
const RESTORED: &str = "bench_restored";

/// The steps, and the limit of each.
pub const LIMITS: [(&str, &str); 13] = [
    ("backup", "read limit"),
    ("verify", "hash limit"),
    ("verify --deep", "prove limit"),
    ("import", "insert limit"),
    ("import of a gzip archive", "insert limit"),
    ("import of a directory", "insert limit"),
    ("export, archive", "write limit"),
    ("export, directory", "write limit"),
    ("export, gzip archive", "prove limit"),
    ("mongodump, directory", "read limit"),
    ("mongodump, gzip archive", "read limit"),
    ("mongorestore, directory", "insert limit"),
    ("mongorestore, gzip archive", "insert limit"),
];

/// Third-party tools: their ratios are shown, but have no requirement.
pub fn is_foreign(step: &str) -> bool {
    step.starts_with("mongo")
}

/// What all steps share.
struct Whole {
    client: Client,
    uri: String,
    meter: Meter,
    documents: usize,
    bytes: f64,
    backups: String,
    out: PathBuf,
    steps: Steps,
}

pub async fn run(asked: &Asked, results: &mut Results) {
    // 1. Prepare the server and its data.
    let server = if asked.uri.is_none() { Some(asked.server(4.0).await) } else { None };
    let uri = asked.uri.clone().unwrap_or_else(|| server.as_ref().unwrap().uri());
    let client = Client::with_uri_str(&uri).await.unwrap();
    let standing = client.list_database_names().await.unwrap();
    let own = [SHOP, COPY, FLOOR, RESTORED];
    assert!(!standing.iter().any(|name| own.contains(&name.as_str())), "one of the databases {own:?} is there already: drop it");
    if asked.uri.is_some() {
        results.keep_version(&client, "mongod at --uri").await;
    }
    let mut tools = Vec::new();
    for tool in ["mongodump", "mongorestore"] {
        match version(tool) {
            Some(version) => {
                results.setting.versions.push((tool.to_owned(), version));
                tools.push(tool);
            }
            None => println!("{tool} is not on the PATH: it is left out"),
        }
    }
    println!("filling {} documents", asked.documents);
    fill_orders(&client, SHOP, asked.documents).await;
    build_indexes(&client, SHOP, &indexes()).await;

    // 2. Measure what is measured once, and try the ways.
    let directory = directory();
    let (backups, out) = (directory.path().join("backups"), directory.path().join("out"));
    std::fs::create_dir(&out).unwrap();
    let meter = Meter::of(&client).await;
    let inserts = Inserts::of(&client, &meter, SHOP, FLOOR).await;
    println!("trying ways to insert");
    let ways = inserts.choose().await;
    let mut whole = Whole {
        client: client.clone(),
        uri,
        meter: Meter::of(&client).await,
        documents: asked.documents,
        bytes: inserts.bytes() as f64,
        backups: text(&backups).to_owned(),
        out,
        steps: Steps::default(),
    };
    let (backup, _) = whole.backup().await;
    let segments = Segments::of(&backup).await;
    let middle = limits::middle(&client, SHOP, asked.documents).await;

    // 3. Measure everything once in each run.
    for number in 1..=asked.runs {
        println!("run {number} of {}", asked.runs);
        for how in Reading::WAYS {
            let (taken, read) = whole.meter.own(limits::read(&client, SHOP, middle, how)).await;
            assert!(read as f64 >= whole.bytes, "{how}: only {read} bytes came");
            whole.add("read limit", &how.to_string(), taken);
        }
        let (again, taken) = whole.backup().await;
        std::fs::remove_dir_all(again).unwrap();
        whole.add("backup", "", taken);

        let (taken, ()) = whole.meter.own(async { segments.hash() }).await;
        whole.add("hash limit", "", taken);
        whole.verify("verify", &[&backup]).await;
        let (taken, proven) = whole.meter.own(async { segments.prove() }).await;
        assert_eq!(proven, whole.documents);
        whole.add("prove limit", "", taken);
        whole.verify("verify --deep", &[&backup, "--deep"]).await;

        for way in &ways {
            whole.add("insert limit", &way.to_string(), inserts.measure(*way).await);
        }
        whole.import("import", &backup).await;
        whole.exports(&backup).await;
        if !tools.is_empty() {
            whole.foreign(&tools).await;
        }
    }

    // 4. Report.
    for database in own {
        client.database(database).drop().await.unwrap();
    }
    results.figure("documents, bytes of BSON", whole.bytes);
    for (step, limit) in LIMITS {
        let (Some(step), Some(limit)) = (whole.steps.of(step), whole.steps.of(limit)) else { continue };
        results.figures.push((format!("{} / {}", step.name, limit.name), step.seconds() / limit.seconds()));
        if let (Some(peak), false) = (step.peak(), is_foreign(&step.name)) {
            results.peaks.push((step.name.clone(), peak));
        }
    }
    let deep = whole.steps.of("verify --deep").unwrap().megabytes_per_second();
    results.figure("verify --deep, MB/s of BSON", deep);
    results.steps = whole.steps;
}

impl Whole {
    fn add(&mut self, name: &str, way: &str, taken: Taken) {
        self.steps.add(name, way, self.bytes, taken);
    }

    fn expect(&self, report: &Value) {
        assert_eq!(report["documents"], self.documents, "{report}");
    }

    /// Takes a backup, and returns its path.
    async fn backup(&self) -> (String, Taken) {
        let arguments = ["backup", "--source", &self.uri, "--database", SHOP, "--path", &self.backups];
        let (taken, report) = self.meter.bsonvault(&arguments).await;
        self.expect(&report);
        (report["path"].as_str().unwrap().to_owned(), taken)
    }

    async fn verify(&mut self, name: &str, arguments: &[&str]) {
        let arguments: Vec<&str> = ["verify"].iter().chain(arguments).copied().collect();
        let (taken, report) = self.meter.bsonvault(&arguments).await;
        if name.ends_with("--deep") {
            self.expect(&report);
        }
        assert_eq!(report["problems"], serde_json::json!([]));
        self.add(name, "", taken);
    }

    async fn import(&mut self, name: &str, from: &str) {
        let target = ["--target", &self.uri, "--allow-same", "--database", COPY, "--path", &self.backups];
        let arguments: Vec<&str> = ["import", from].into_iter().chain(target).collect();
        let (taken, report) = self.meter.bsonvault(&arguments).await;
        self.expect(&report);
        self.check_and_drop(COPY).await;
        self.add(name, "", taken);
    }

    /// Exports in every form, and imports the results.
    async fn exports(&mut self, backup: &str) {
        let place = |name: &str| text(&self.out.join(name)).to_owned();
        let (archive, packed, dir) = (place("archive"), place("archive.gz"), place("dir"));
        let forms: [(&str, &str, &[&str]); 3] = [
            ("export, archive", &archive, &["--format", "archive"]),
            ("export, gzip archive", &packed, &["--format", "archive", "--gzip"]),
            ("export, directory", &dir, &["--format", "dir"]),
        ];
        for (name, out, form) in forms {
            let arguments: Vec<&str> = ["export", backup, "--out", out].iter().chain(form).copied().collect();
            let (taken, report) = self.meter.bsonvault(&arguments).await;
            self.expect(&report);
            self.add(name, "", taken);
        }
        let (bytes, again) = (std::fs::read(&archive).unwrap(), self.out.join("again"));
        let (taken, ()) = self.meter.own(async { limits::write(&bytes, &again) }).await;
        self.add("write limit", "", taken);
        for file in [Path::new(&archive), &again] {
            std::fs::remove_file(file).unwrap();
        }
        self.import("import of a gzip archive", &packed).await;
        self.import("import of a directory", &dir).await;
        std::fs::remove_file(packed).unwrap();
        std::fs::remove_dir_all(dir).unwrap();
    }

    /// The same with MongoDB's own tools, with their default settings.
    async fn foreign(&mut self, tools: &[&str]) {
        let (packed, dir) = (self.out.join("foreign.gz"), self.out.join("foreign"));
        let (uri, packed_to) = (format!("--uri={}", self.uri), format!("--archive={}", text(&packed)));
        let forms: [(&str, Vec<String>); 2] =
            [("gzip archive", vec![packed_to, "--gzip".to_owned()]), ("directory", vec![text(&dir).to_owned()])];
        for (form, place) in &forms {
            let place: Vec<&str> = place.iter().map(String::as_str).collect();
            if tools.contains(&"mongodump") {
                let to: &[&str] = if *form == "directory" { &["--out"] } else { &[] };
                let arguments: Vec<&str> = [&uri, "--db", SHOP].iter().chain(to).chain(&place).copied().collect();
                let taken = self.meter.program("mongodump", &arguments).await;
                self.add(&format!("mongodump, {form}"), "", taken);
            }
            if tools.len() == 2 {
                let names = [format!("--nsInclude={SHOP}.*"), format!("--nsFrom={SHOP}.*"), format!("--nsTo={RESTORED}.*")];
                let names = names.iter().map(String::as_str);
                let arguments: Vec<&str> = [uri.as_str()].into_iter().chain(names).chain(place).collect();
                let taken = self.meter.program("mongorestore", &arguments).await;
                self.check_and_drop(RESTORED).await;
                self.add(&format!("mongorestore, {form}"), "", taken);
            }
        }
        _ = std::fs::remove_file(packed);
        _ = std::fs::remove_dir_all(dir);
    }

    /// Checks that all orders and indexes exist, and drops them.
    async fn check_and_drop(&self, database: &str) {
        let orders = self.client.database(database).collection::<Document>("orders");
        assert_eq!(orders.count_documents(doc! {}).await.unwrap(), self.documents as u64, "documents in {database}");
        assert_eq!(orders.list_index_names().await.unwrap().len(), 1 + indexes().len(), "indexes in {database}");
        self.client.database(database).drop().await.unwrap();
    }
}

/// The version of a tool, if it is on the `PATH`.
fn version(tool: &str) -> Option<String> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find(|directory| directory.join(tool).is_file())?;
    let (_, output) = run_program(tool, &["--version"]);
    let text = String::from_utf8_lossy(&output);
    Some(text.lines().next()?.rsplit(' ').next()?.to_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
