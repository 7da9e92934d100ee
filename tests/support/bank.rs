//! Keeps writing to a replica set in such a way that only a consistent copy adds up, and checks
//! copies.
//!
//! Money moves between `left` and `right` in transactions that also append to `journal`. `counters`
//! grows one by one, so its `n` has no gaps at any one time. `churn` is inserted into, updated,
//! grown and deleted from. On request, collections and indexes come and go; each step is tied to a
//! counter.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bson::{Bson, Document, doc};
use futures::TryStreamExt;
use mongodb::error::{ErrorKind, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT, WriteFailure};
use mongodb::options::{Acknowledgment, WriteConcern};
use mongodb::{Client, Collection, Database, IndexModel};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;

const START_BALANCE: i64 = 1000;
const SIDES: [&str; 2] = ["left", "right"];
/// Every this many counters, a collection is created. Every second one is then renamed, the others
/// are dropped.
const DDL_EVERY: i64 = 400;

#[derive(Clone, Debug)]
pub struct BankOptions {
    pub db: String,
    /// Accounts on each side.
    pub accounts: i64,
    /// Transfers that run at the same time.
    pub lanes: i64,
    /// Whether collections and indexes come and go.
    pub ddl: bool,
    pub seed: u64,
}

impl Default for BankOptions {
    fn default() -> Self {
        Self { db: "bank".to_owned(), accounts: 200, lanes: 2, ddl: false, seed: 1 }
    }
}

/// Running writers, on the runtime that started them. A test that blocks it stops them, too.
pub struct Bank {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    writers: Vec<JoinHandle<mongodb::error::Result<()>>>,
}

#[derive(Debug, Default)]
struct Counts {
    transfers: AtomicU64,
    counters: AtomicU64,
}

/// What was written when the writers stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub transfers: u64,
    pub counters: u64,
}

impl Bank {
    /// Empties the database, fills it, and starts to write.
    pub async fn start(client: &Client, options: BankOptions) -> Self {
        let db = majority(client, &options.db);
        set_up(&db, &options).await.unwrap();
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let mut writers = Vec::new();
        for lane in 0..options.lanes {
            let (client, db, options) = (client.clone(), db.clone(), options.clone());
            writers.push(tokio::spawn(transfer(client, db, options, lane, stop.clone(), counts.clone())));
        }
        writers.push(tokio::spawn(churn(db, options, stop.clone(), counts.clone())));
        Self { stop, counts, writers }
    }

    pub fn written(&self) -> Written {
        let of = |count: &AtomicU64| count.load(Ordering::SeqCst);
        Written { transfers: of(&self.counts.transfers), counters: of(&self.counts.counters) }
    }

    /// Waits for this many more writes, for tests that need writes at a certain point.
    pub async fn wait_for(&self, transfers: u64, counters: u64) {
        let from = self.written();
        loop {
            let now = self.written();
            if now.transfers >= from.transfers + transfers && now.counters >= from.counters + counters {
                return;
            }
            assert!(!self.writers.iter().any(JoinHandle::is_finished), "a writer died; stop() tells why");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Lets every writer finish its current step. Panics if one died of an error.
    pub async fn stop(mut self) -> Written {
        self.stop.store(true, Ordering::SeqCst);
        for writer in self.writers.drain(..) {
            writer.await.unwrap().expect("a writer died");
        }
        self.written()
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        self.writers.iter().for_each(JoinHandle::abort);
    }
}

/// All invariants that the database violates.
pub async fn check(client: &Client, db: &str) -> Vec<String> {
    let db = client.database(db);
    let mut broken = Vec::new();
    let Some(meta) = db.collection::<Document>("meta").find_one(doc! {"_id": 1}).await.unwrap() else {
        return vec!["meta is missing".to_owned()];
    };
    let (accounts, ddl) = (whole(meta.get("accounts")), meta.get_bool("ddl").unwrap_or_default());

    let mut balances = HashMap::new();
    for side in SIDES {
        for account in all(&db, side, doc! {}).await {
            balances.insert((side.to_owned(), whole(account.get("_id"))), whole(account.get("balance")));
        }
    }
    let (total, expected) = (balances.values().sum::<i64>(), 2 * accounts * START_BALANCE);
    if balances.len() as i64 != 2 * accounts || total != expected {
        broken.push(format!("total {total} over {} accounts, expected {expected} over {}", balances.len(), 2 * accounts));
    }

    let mut replayed: HashMap<_, _> = balances.keys().map(|account| (account.clone(), START_BALANCE)).collect();
    for entry in all(&db, "journal", doc! {"n": {"$gte": 0}}).await {
        let amount = whole(entry.get("amount"));
        for (key, change) in [("from", -amount), ("to", amount)] {
            let account = entry.get_array(key).unwrap();
            let account = (account[0].as_str().unwrap().to_owned(), whole(account.get(1)));
            *replayed.entry(account).or_default() += change;
        }
    }
    let mut off: Vec<_> = balances.iter().filter(|(account, balance)| replayed.get(*account) != Some(*balance)).collect();
    off.sort();
    if let Some((account, balance)) = off.first() {
        let journal = replayed[*account];
        broken.push(format!("{} balances disagree with the journal, first {account:?}: {balance} against {journal}", off.len()));
    }

    let mut counters: Vec<i64> = all(&db, "counters", doc! {}).await.iter().map(|counter| whole(counter.get("n"))).collect();
    counters.sort_unstable();
    if !counters.iter().copied().eq(0..counters.len() as i64) {
        broken.push(format!("counters have gaps: {} entries, last {:?}", counters.len(), counters.last()));
    }
    if ddl {
        let last = counters.last().copied().unwrap_or_default();
        broken.extend(check_ddl(&db, last).await);
    }
    broken
}

/// An integer, however a driver wrote it.
fn whole(value: Option<&Bson>) -> i64 {
    value.and_then(|value| value.as_i64().or_else(|| value.as_i32().map(i64::from))).unwrap()
}

async fn check_ddl(db: &Database, last: i64) -> Vec<String> {
    let mut broken = Vec::new();
    let names: BTreeSet<String> = db.list_collection_names().await.unwrap().into_iter().collect();
    // The step that the last counter started may not have ended.
    for i in (DDL_EVERY..last).step_by(DDL_EVERY as usize) {
        if names.contains(&format!("tmp{i}")) {
            broken.push(format!("tmp{i} should be gone by counter {last}"));
        }
        if i % (2 * DDL_EVERY) != 0 {
            continue;
        }
        let renamed = db.collection::<Document>(&format!("renamed{i}"));
        let whole = names.contains(renamed.name())
            && renamed.count_documents(doc! {}).await.unwrap() == 20
            && renamed.list_index_names().await.unwrap().iter().any(|name| name == "x_1");
        if !whole {
            broken.push(format!("renamed{i} is missing or not whole at counter {last}"));
        }
    }
    broken
}

async fn set_up(db: &Database, options: &BankOptions) -> mongodb::error::Result<()> {
    db.drop().await?;
    for side in SIDES {
        let accounts = (0..options.accounts).map(|i| doc! {"_id": i, "balance": START_BALANCE, "pad": "x".repeat(400)});
        of(db, side).insert_many(accounts).await?;
    }
    let unique = mongodb::options::IndexOptions::builder().unique(true).build();
    of(db, "journal").create_index(IndexModel::builder().keys(doc! {"n": 1}).options(unique).build()).await?;
    of(db, "journal").insert_one(doc! {"_id": "head", "n": -1_i64, "from": Bson::Null}).await?;
    of(db, "counters").insert_one(doc! {"_id": 0_i64, "n": 0_i64}).await?;
    of(db, "meta").insert_one(doc! {"_id": 1, "accounts": options.accounts, "ddl": options.ddl}).await?;
    Ok(())
}

async fn transfer(
    client: Client,
    db: Database,
    options: BankOptions,
    lane: i64,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
) -> mongodb::error::Result<()> {
    let mut rng = StdRng::seed_from_u64(options.seed.wrapping_add(lane as u64));
    let mut session = client.start_session().await?;
    let mut n = lane;
    while !stop.load(Ordering::SeqCst) {
        let mut account = || (SIDES[rng.random_range(0..2)], rng.random_range(0..options.accounts));
        let (from, to) = (account(), account());
        if from == to {
            continue;
        }
        let amount = rng.random_range(1..=50_i64);
        session.start_transaction().await?;
        let moved = async {
            for ((side, id), change) in [(from, -amount), (to, amount)] {
                let update = doc! {"$inc": {"balance": change}};
                of(&db, side).update_one(doc! {"_id": id}, update).session(&mut session).await?;
            }
            let entry = doc! {"n": n, "from": [from.0, from.1], "to": [to.0, to.1], "amount": amount};
            of(&db, "journal").insert_one(entry).session(&mut session).await?;
            loop {
                match session.commit_transaction().await {
                    Err(e) if e.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) => {}
                    other => return other,
                }
            }
        };
        match moved.await {
            Ok(()) => {
                counts.transfers.fetch_add(1, Ordering::SeqCst);
                n += options.lanes;
            }
            Err(e) if e.contains_label(TRANSIENT_TRANSACTION_ERROR) => _ = session.abort_transaction().await,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

async fn churn(db: Database, options: BankOptions, stop: Arc<AtomicBool>, counts: Arc<Counts>) -> mongodb::error::Result<()> {
    let mut rng = StdRng::seed_from_u64(options.seed.wrapping_sub(1));
    let mut i = 0_i64;
    while !stop.load(Ordering::SeqCst) {
        i += 1;
        // A counter that was written although its reply was lost is fine.
        if let Err(e) = of(&db, "counters").insert_one(doc! {"_id": i, "n": i}).await
            && !is_duplicate(&e)
        {
            return Err(e);
        }
        counts.counters.fetch_add(1, Ordering::SeqCst);
        let id = rng.random_range(0..500);
        let filler = "y".repeat(rng.random_range(0..900));
        let update = doc! {
            "$push": {"list": {"$each": [i], "$slice": -20}},
            "$set": {format!("f{}", rng.random_range(0..5)): filler},
        };
        of(&db, "churn").update_one(doc! {"_id": id}, update).upsert(true).await?;
        if i % 7 == 0 {
            of(&db, "churn").delete_one(doc! {"_id": rng.random_range(0..500)}).await?;
        }
        if options.ddl && i % DDL_EVERY == 0 {
            let tmp = of(&db, &format!("tmp{i}"));
            tmp.insert_many((0..20).map(|k| doc! {"_id": k})).await?;
            tmp.create_index(IndexModel::builder().keys(doc! {"x": 1}).build()).await?;
            if i % (2 * DDL_EVERY) == 0 {
                let name = |collection: String| format!("{}.{collection}", db.name());
                let rename = doc! {"renameCollection": name(format!("tmp{i}")), "to": name(format!("renamed{i}"))};
                db.client().database("admin").run_command(rename).await?;
            } else {
                tmp.drop().await?;
            }
        }
    }
    Ok(())
}

fn majority(client: &Client, name: &str) -> Database {
    let concern = WriteConcern::builder().w(Acknowledgment::Majority).build();
    client.database_with_options(name, mongodb::options::DatabaseOptions::builder().write_concern(concern).build())
}

fn of(db: &Database, name: &str) -> Collection<Document> {
    db.collection(name)
}

async fn all(db: &Database, name: &str, filter: Document) -> Vec<Document> {
    of(db, name).find(filter).await.unwrap().try_collect().await.unwrap()
}

fn is_duplicate(error: &mongodb::error::Error) -> bool {
    matches!(&*error.kind, ErrorKind::Write(WriteFailure::WriteError(e)) if e.code == 11000)
}
