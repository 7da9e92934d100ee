//! Sample data worth backing up: a shop, its sensors and its log. Each run creates the same data.
//!
//! `demo_data initiate HOST:PORT` turns a server that was started with `--replSet` into a replica
//! set of one, and waits until it accepts writes. `demo_data fill URI` fills it.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::time::{Duration, Instant};

use bson::{Bson, DateTime, Document, doc};
use mongodb::{Client, Database};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const SEED: u64 = 20_240_501;
/// 2024-05-01, in milliseconds.
const MAY: i64 = 1_714_521_600_000;
const DAY: i64 = 86_400_000;
const CUSTOMERS: i32 = 5_000;
const PRODUCTS: i32 = 800;
const ORDERS: i32 = 30_000;
const READINGS: i64 = 14_000;
const LOG_LINES: i32 = 1_500;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["initiate", host] => initiate(host).await,
        ["fill", uri] => fill(&Client::with_uri_str(uri).await?).await,
        _ => Err("usage: demo_data initiate HOST:PORT | demo_data fill URI".into()),
    }
}

async fn initiate(host: &str) -> Result<()> {
    let client = Client::with_uri_str(format!("mongodb://{host}/?directConnection=true")).await?;
    let admin = client.database("admin");
    let hello = admin.run_command(doc! {"hello": 1}).await?;
    if !hello.contains_key("setName") {
        admin.run_command(doc! {"replSetInitiate": {"_id": "atlas", "members": [{"_id": 0, "host": host}]}}).await?;
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while !admin.run_command(doc! {"hello": 1}).await?.get_bool("isWritablePrimary")? {
        if Instant::now() > deadline {
            return Err(format!("{host} did not become primary within a minute").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn fill(client: &Client) -> Result<()> {
    let (shop, plant) = (client.database("shop"), client.database("plant"));
    let mut rng = StdRng::seed_from_u64(SEED);
    fill_customers(&shop, &mut rng).await?;
    fill_products(&shop, &mut rng).await?;
    fill_orders(&shop, &mut rng).await?;
    fill_readings(&plant, &mut rng).await?;
    fill_log(&plant, &mut rng).await?;
    Ok(())
}

async fn fill_customers(shop: &Database, rng: &mut StdRng) -> Result<()> {
    let schema = doc! {"$jsonSchema": {"required": ["name", "email"], "properties": {"email": {"bsonType": "string"}}}};
    let collation = doc! {"locale": "en", "strength": 2};
    run(shop, doc! {"create": "customers", "validator": schema, "collation": collation}).await?;
    let (first, last) =
        (["Ada", "Björn", "Chloé", "Dmitri", "Emre", "Fatima", "光"], ["Álvarez", "Baker", "Novák", "Öztürk", "Sato"]);
    let cities = [("Lisbon", -9.14, 38.72), ("Oslo", 10.75, 59.91), ("Nairobi", 36.82, -1.29), ("Osaka", 135.5, 34.69)];
    let mut customers = Vec::new();
    for i in 0..CUSTOMERS {
        let (city, longitude, latitude) = pick(&cities, rng);
        customers.push(doc! {
            "_id": object_id(rng),
            "number": i,
            "name": format!("{} {}", pick(&first, rng), pick(&last, rng)),
            "email": format!("customer{i}@example.com"),
            "city": city,
            "location": {"type": "Point", "coordinates": [longitude + rng.random_range(-0.2..0.2), latitude + rng.random_range(-0.2..0.2)]},
            "since": DateTime::from_millis(MAY - rng.random_range(0..1500) * DAY),
        });
    }
    insert(shop, "customers", customers).await?;
    index(
        shop,
        "customers",
        vec![
            doc! {"key": {"email": 1}, "name": "email", "unique": true},
            doc! {"key": {"location": "2dsphere"}, "name": "location"},
        ],
    )
    .await
}

async fn fill_products(shop: &Database, rng: &mut StdRng) -> Result<()> {
    let (kinds, materials) = (["lamp", "chair", "desk", "kettle", "clock"], ["oak", "steel", "glass", "bamboo"]);
    let products = (0..PRODUCTS).map(|i| {
        let cents = rng.random_range(500..90_000);
        let price: Bson = format!("{}.{:02}", cents / 100, cents % 100).parse().map_or(Bson::Null, Bson::Decimal128);
        let name = format!("{} {} {i}", pick(&materials, rng), pick(&kinds, rng));
        doc! {"_id": format!("P{i:05}"), "name": name, "price": price, "stock": rng.random_range(0..500), "tags": [pick(&kinds, rng)]}
    });
    insert(shop, "products", products.collect()).await?;
    index(
        shop,
        "products",
        vec![
            doc! {"key": {"name": "text"}, "name": "words", "weights": {"name": 5}},
            doc! {"key": {"tags": 1, "stock": -1}, "name": "in_stock", "partialFilterExpression": {"stock": {"$gt": 0}}},
        ],
    )
    .await
}

async fn fill_orders(shop: &Database, rng: &mut StdRng) -> Result<()> {
    let states = ["open", "paid", "shipped", "returned"];
    let mut orders = Vec::new();
    for i in 0..i64::from(ORDERS) {
        let lines: Vec<Document> = (0..rng.random_range(1..6))
            .map(|_| doc! {"product": format!("P{:05}", rng.random_range(0..PRODUCTS)), "count": rng.random_range(1..4)})
            .collect();
        let placed = DateTime::from_millis(MAY + i * 60_000);
        let customer = rng.random_range(0..CUSTOMERS);
        orders.push(doc! {"_id": i, "customer": customer, "placed": placed, "state": pick(&states, rng), "lines": lines});
    }
    insert(shop, "orders", orders).await?;
    let indexes = vec![
        doc! {"key": {"customer": 1, "placed": -1}, "name": "by_customer"},
        doc! {"key": {"lines.product": 1}, "name": "by_product"},
        doc! {"key": {"state": "hashed"}, "name": "by_state"},
    ];
    index(shop, "orders", indexes).await?;
    let open = doc! {"create": "open_orders", "viewOn": "orders", "pipeline": [{"$match": {"state": "open"}}]};
    run(shop, open).await
}

async fn fill_readings(plant: &Database, rng: &mut StdRng) -> Result<()> {
    let series = doc! {"timeField": "at", "metaField": "sensor", "granularity": "minutes"};
    run(plant, doc! {"create": "readings", "timeseries": series}).await?;
    let readings = (0..READINGS).map(|i| {
        let at = DateTime::from_millis(MAY + i * 60_000);
        let sensor = doc! {"id": i % 12, "hall": if i % 2 == 0 { "north" } else { "south" }};
        doc! {"_id": i, "at": at, "sensor": sensor, "celsius": rng.random_range(15.0..30.0), "percent": rng.random_range(20..90)}
    });
    insert(plant, "readings", readings.collect()).await
}

async fn fill_log(plant: &Database, rng: &mut StdRng) -> Result<()> {
    run(plant, doc! {"create": "log", "capped": true, "size": 1 << 20, "max": 1000}).await?;
    let levels = ["info", "info", "info", "warning", "error"];
    let lines = (0..LOG_LINES).map(|i| doc! {"_id": LOG_LINES - i, "line": i, "level": pick(&levels, rng)});
    insert(plant, "log", lines.collect()).await
}

async fn insert(db: &Database, name: &str, documents: Vec<Document>) -> Result<()> {
    db.collection::<Document>(name).insert_many(&documents).await?;
    println!("{}.{name}: {} documents", db.name(), documents.len());
    Ok(())
}

async fn index(db: &Database, name: &str, indexes: Vec<Document>) -> Result<()> {
    run(db, doc! {"createIndexes": name, "indexes": indexes}).await
}

async fn run(db: &Database, command: Document) -> Result<()> {
    db.run_command(command).await?;
    Ok(())
}

fn object_id(rng: &mut StdRng) -> bson::oid::ObjectId {
    bson::oid::ObjectId::from_bytes(rng.random())
}

fn pick<T: Copy + Default>(of: &[T], rng: &mut StdRng) -> T {
    of.choose(rng).copied().unwrap_or_default()
}
