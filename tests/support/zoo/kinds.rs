//! Kinds of collections, views and indexes, with every option that must be restored.

use bson::{Bson, DateTime, Document, doc};
use rand::Rng;

use super::Zoo;

const DB: &str = "zoo";
/// 2024-05-01, in milliseconds.
const MAY: i64 = 1_714_521_600_000;
const MINUTE: i64 = 60_000;
/// Long enough that nothing expires during a test.
const AGES: i64 = 1_000_000_000;

pub(super) async fn fill(zoo: &mut Zoo) {
    fill_people(zoo).await;
    fill_indexed(zoo).await;
    fill_validated(zoo).await;
    fill_collated(zoo).await;
    fill_capped(zoo).await;
    if zoo.takes("clustered collections") {
        fill_clustered(zoo).await;
    }
    if zoo.takes("time series") {
        fill_time_series(zoo).await;
    }
    fill_views(zoo).await;
    fill_others(zoo).await;
}

async fn fill_people(zoo: &mut Zoo) {
    let mut people = Vec::new();
    for i in 0..600 {
        let tags = [zoo.word(), zoo.word(), zoo.word()];
        people.push(doc! {
            "_id": i,
            "name": zoo.word(),
            "age": zoo.rng.random_range(0..90),
            "tags": &tags[..],
            "at": DateTime::from_millis(1_577_836_800_000 + zoo.rng.random_range(0..100_000_000_000)),
            "loc": {"type": "Point", "coordinates": [zoo.rng.random_range(-179.0..179.0), zoo.rng.random_range(-89.0..89.0)]},
            "flat": [zoo.rng.random_range(-100.0..100.0), zoo.rng.random_range(-100.0..100.0)],
            "sub": {"k": zoo.rng.random_range(0..50), "w": zoo.word()},
        });
    }
    let indexes = [
        doc! {"key": {"age": -1, "name": 1}, "name": "age_-1_name_1"},
        doc! {"key": {"tags": 1}, "name": "tags_1"},
        doc! {"key": {"_id": 1, "name": 1}, "name": "u", "unique": true},
        doc! {"key": {"missing": 1}, "name": "missing_1", "sparse": true},
        doc! {"key": {"name": 1}, "name": "part", "partialFilterExpression": {"age": {"$gt": 40}}},
        doc! {"key": {"at": 1}, "name": "at_1", "expireAfterSeconds": AGES},
        doc! {"key": {"sub.k": 1}, "name": "sub.k_1", "hidden": true},
        doc! {"key": {"name": "text", "tags": "text"}, "name": "txt", "weights": {"name": 9}, "default_language": "french",
        "language_override": "lng"},
        doc! {"key": {"loc": "2dsphere"}, "name": "loc_2dsphere"},
        doc! {"key": {"flat": "2d"}, "name": "flat_2d", "min": -500, "max": 500, "bits": 20},
        doc! {"key": {"sub.w": "hashed"}, "name": "sub.w_hashed"},
        doc! {"key": {"$**": 1}, "name": "$**_1", "wildcardProjection": {"sub": 1}},
        doc! {"key": {"name": 1}, "name": "ci", "collation": {"locale": "en", "strength": 2}},
        doc! {"key": {"sub.$**": 1}, "name": "wp"},
    ];
    zoo.index(DB, "people", indexes).await;
    zoo.insert(DB, "people", people).await;
}

/// Options that are rare, old, or easily normalized away.
async fn fill_indexed(zoo: &mut Zoo) {
    let [a, email] = if zoo.takes("indexes of one key") { ["a", "email"] } else { ["a2", "email2"] };
    let indexes = [
        doc! {"key": {"a": 1}, "name": "odd \"name\" .$/\\ ünï\n%"},
        doc! {"key": {a: 1.0}, "name": "double key", "sparse": true},
        doc! {"key": {"a": -5, "b": 2.5}, "name": "other directions"},
        doc! {"key": {"b": 1_i64}, "name": "old version", "v": 1},
        doc! {"key": {"b": -1}, "name": "background", "background": true},
        doc! {"key": {"email": 1}, "name": "all three", "unique": true, "partialFilterExpression": {"email": {"$exists": true}}},
        doc! {"key": {email: 1}, "name": "unique sparse", "unique": true, "sparse": true},
        doc! {"key": {"a": 1, "b": 1}, "name": "stored", "storageEngine": {"wiredTiger": {"configString": "block_compressor=zlib"}}},
        doc! {"key": {"g": "2dsphere"}, "name": "older sphere", "2dsphereIndexVersion": 2},
        doc! {"key": {"a": 1, "h": "hashed"}, "name": "compound hashed"},
        doc! {"key": {"b": 1, "t": "text", "a": 1}, "name": "older text", "textIndexVersion": 2},
        doc! {"key": {"p": 1}, "name": "prepared"},
        doc! {"key": {"ttl": 1}, "name": "ttl 0", "expireAfterSeconds": 0, "partialFilterExpression": {"a": {"$lt": 0}}},
    ];
    zoo.index(DB, "indexed", indexes).await;
    zoo.insert(DB, "indexed", (0..50).map(|i| doc! {"_id": i, "a": i, "b": i % 5, "email": format!("{i}@x")})).await;
    if zoo.takes("prepareUnique") {
        zoo.run(DB, doc! {"collMod": "indexed", "index": {"name": "prepared", "prepareUnique": true}}).await;
    }
    if zoo.takes("wider partial filters") {
        let either = doc! {"$or": [{"a": {"$in": [1, 2]}}, {"b": {"$gt": 3}}]};
        zoo.index(DB, "indexed", [doc! {"key": {"a": 1}, "name": "either", "partialFilterExpression": either}]).await;
    }
    // Numbers and Booleans that older servers list as they were given.
    let loosely = [
        doc! {"key": {"c": 1}, "name": "loosely", "unique": 1.0, "sparse": 2_i64},
        doc! {"key": {"c": -1}, "name": "seconds", "expireAfterSeconds": 1e9},
        doc! {"key": {"f": "2d"}, "name": "bits", "bits": 20.0, "min": -10, "max": 10_i64},
    ];
    zoo.index(DB, "loosely", loosely).await;
    zoo.create(DB, "old_id_index", doc! {"idIndex": {"key": {"_id": 1}, "name": "_id_", "v": 1}}).await;
    zoo.insert(DB, "old_id_index", [doc! {"_id": 1}]).await;
    zoo.create(DB, "index_only", doc! {}).await;
    zoo.index(DB, "index_only", [doc! {"key": {"x": 1}, "name": "x_1", "unique": true}]).await;
}

async fn fill_validated(zoo: &mut Zoo) {
    zoo.create(DB, "empty", doc! {}).await;
    let schema = doc! {"$jsonSchema": {"required": ["x"], "properties": {"x": {"bsonType": "int"}}}};
    let lenient = doc! {"validator": schema, "validationLevel": "moderate", "validationAction": "warn"};
    zoo.create(DB, "validated", lenient).await;
    let broken = doc! {"_id": 2, "y": "breaks the validator, allowed as a warning"};
    zoo.insert(DB, "validated", [doc! {"_id": 1, "x": 1}, broken]).await;
    zoo.create(DB, "strict", doc! {"validator": {"x": {"$exists": true}}}).await;
    zoo.insert(DB, "strict", [doc! {"_id": 1, "x": 1}]).await;
    let bypassed = doc! {"insert": "strict", "documents": [{"_id": 2, "y": 1}], "bypassDocumentValidation": true};
    zoo.run(DB, bypassed).await;
    zoo.create(DB, "compared", doc! {"validator": {"$expr": {"$lt": ["$from", "$to"]}}, "validationLevel": "off"}).await;
    zoo.insert(DB, "compared", [doc! {"_id": 1, "from": 2, "to": 1}]).await;
}

async fn fill_collated(zoo: &mut Zoo) {
    zoo.create(DB, "collated", doc! {"collation": {"locale": "fr", "strength": 2, "numericOrdering": true}}).await;
    let documents: Vec<_> = (0..300).map(|i| doc! {"_id": format!("{}-{i}", zoo.word()), "n": i, "s": zoo.word()}).collect();
    zoo.insert(DB, "collated", documents).await;
    let indexes = [
        doc! {"key": {"n": 1}, "name": "n_1"}, // inherits the collection's collation
        doc! {"key": {"n": -1}, "name": "binary", "collation": {"locale": "simple"}},
        doc! {"key": {"s": 1}, "name": "same", "collation": {"locale": "fr", "strength": 2, "numericOrdering": true}},
        doc! {"key": {"s": 1}, "name": "german", "collation": {"locale": "de", "caseFirst": "upper"}},
    ];
    zoo.index(DB, "collated", indexes).await;
    zoo.create(DB, "not_collated", doc! {"collation": {"locale": "simple"}}).await;
    zoo.insert(DB, "not_collated", [doc! {"_id": "a"}, doc! {"_id": "A"}]).await;
}

async fn fill_capped(zoo: &mut Zoo) {
    zoo.create(DB, "capped", doc! {"capped": true, "size": 1 << 20, "max": 300}).await;
    zoo.insert(DB, "capped", (0..400).map(|i| doc! {"_id": 1000 - i, "i": i})).await;
    zoo.create(DB, "capped_few", doc! {"capped": true, "size": 4096}).await;
    zoo.insert(DB, "capped_few", [3, 1, 2].map(|i| doc! {"_id": i})).await;
    zoo.create(DB, "capped_empty", doc! {"capped": true, "size": 100_000_i64}).await;
    zoo.index(DB, "capped", [doc! {"key": {"i": 1}, "name": "i_1"}]).await;
}

async fn fill_clustered(zoo: &mut Zoo) {
    let by_id = doc! {"clusteredIndex": {"key": {"_id": 1}, "unique": true, "name": "byid"}};
    for name in ["clustered", "clustered_strings", "clustered_ends"] {
        zoo.create(DB, name, by_id.clone()).await;
    }
    let numbers: Vec<_> = (0..300_i64).map(|i| doc! {"_id": zoo.rng.random_range(0..AGES) * 1000 + i, "w": zoo.word()}).collect();
    zoo.insert(DB, "clustered", numbers).await;
    zoo.index(DB, "clustered", [doc! {"key": {"w": 1}, "name": "w_1"}]).await;
    let strings: Vec<_> = (0..200).map(|i| doc! {"_id": format!("{}{i}", zoo.word())}).collect();
    zoo.insert(DB, "clustered_strings", strings).await;
    let ends = [Bson::MaxKey, Bson::Null, Bson::Int32(0), Bson::String("x".to_owned()), Bson::MinKey, Bson::Boolean(true)];
    zoo.insert(DB, "clustered_ends", ends.map(|id| doc! {"_id": id})).await;
    let expiring = doc! {"clusteredIndex": {"key": {"_id": 1}, "unique": true}, "expireAfterSeconds": AGES};
    zoo.create(DB, "clustered_ttl", expiring).await;
}

async fn fill_time_series(zoo: &mut Zoo) {
    let minutes = doc! {"timeField": "t", "metaField": "station", "granularity": "minutes"};
    zoo.create(DB, "weather", doc! {"timeseries": minutes, "expireAfterSeconds": AGES}).await;
    let readings: Vec<_> = (0..1500)
        .map(|i| {
            let temperature = zoo.rng.random_range(-10.0..30.0);
            doc! {"_id": i, "t": at(i64::from(i)), "station": {"id": i % 7}, "temp": temperature, "i": i}
        })
        .collect();
    zoo.insert(DB, "weather", readings).await;
    zoo.index(DB, "weather", [doc! {"key": {"station.id": 1, "t": -1}, "name": "station.id_1_t_-1"}]).await;
    if zoo.takes("indexes on measurements") {
        zoo.index(DB, "weather", [doc! {"key": {"temp": 1}, "name": "temp_1"}]).await;
    }
    let on_metadata = doc! {"key": {"t": 1}, "name": "ttl", "expireAfterSeconds": AGES,
    "partialFilterExpression": {"station.id": {"$gt": 3}}};
    if zoo.takes("time series TTL on metadata") {
        zoo.index(DB, "weather", [on_metadata]).await;
    }

    zoo.create(DB, "weather2", doc! {"timeseries": {"timeField": "when"}}).await;
    zoo.insert(DB, "weather2", (0..50).map(|i: i32| doc! {"_id": i, "when": at(i64::from(i) * 1440), "x": i})).await;
    zoo.create(DB, "weather_hours", doc! {"timeseries": {"timeField": "t", "metaField": "m", "granularity": "hours"}}).await;
    let mixed = (0..60_i32).map(|i| {
        let value = if i % 2 == 0 { Bson::Int32(i) } else { Bson::String(format!("{i}")) };
        doc! {"_id": i, "t": at(i64::from(i) * 600), "m": if i % 3 == 0 { "a" } else { "b" }, "v": value}
    });
    zoo.insert(DB, "weather_hours", mixed).await;
    zoo.create(DB, "weather_empty", doc! {"timeseries": {"timeField": "t", "granularity": "seconds"}}).await;
    let span = doc! {"timeField": "t", "bucketMaxSpanSeconds": 300, "bucketRoundingSeconds": 300};
    if zoo.takes("time series bucket span") {
        zoo.create(DB, "weather_span", doc! {"timeseries": span}).await;
        zoo.insert(DB, "weather_span", (0..20).map(|i| doc! {"_id": i, "t": at(i)})).await;
    }
}

async fn fill_views(zoo: &mut Zoo) {
    zoo.create(DB, "adults", doc! {"viewOn": "people", "pipeline": [{"$match": {"age": {"$gte": 18}}}]}).await;
    zoo.create(DB, "adult_names", doc! {"viewOn": "adults", "pipeline": [{"$project": {"name": 1}}]}).await;
    let sorted = doc! {"viewOn": "people", "pipeline": [{"$sort": {"name": 1}}], "collation": {"locale": "en", "strength": 1}};
    zoo.create(DB, "sorted_names", sorted).await;
    // Its name sorts before its source, so restoring in the order of names would create it first.
    zoo.create(DB, "a_view_of_views", doc! {"viewOn": "adult_names", "pipeline": []}).await;
    zoo.create(DB, "view_of_nothing", doc! {"viewOn": "no_such", "pipeline": []}).await;
    let joined = doc! {"$lookup": {"from": "collated", "localField": "name", "foreignField": "s", "as": "same"}};
    zoo.create(DB, "joined", doc! {"viewOn": "people", "pipeline": [joined]}).await;
    // A view may read a missing collection.
    zoo.create(DB, "warm", doc! {"viewOn": "weather", "pipeline": [{"$match": {"temp": {"$gt": 20}}}]}).await;
}

async fn fill_others(zoo: &mut Zoo) {
    if zoo.takes("pre-images") {
        zoo.create(DB, "preimages", doc! {"changeStreamPreAndPostImages": {"enabled": true}}).await;
        zoo.insert(DB, "preimages", [doc! {"_id": 1}]).await;
    }
    let code = Bson::JavaScriptCode("function(x){return x+1}".to_owned());
    zoo.insert(DB, "system.js", [doc! {"_id": "addOne", "value": code}]).await;
    let engine = doc! {"wiredTiger": {"configString": "block_compressor=zstd"}};
    zoo.create(DB, "zstd_stored", doc! {"storageEngine": engine}).await;
    zoo.insert(DB, "zstd_stored", (0..10).map(|i| doc! {"_id": i})).await;
    fill_grid(zoo).await;
}

/// GridFS as a driver lays it out, except for `_id`s, which come from the seed.
async fn fill_grid(zoo: &mut Zoo) {
    let (length, chunk) = (700_000_usize, 255 << 10);
    let file = zoo.object_id();
    let mut chunks: Vec<Document> = Vec::new();
    for (n, start) in (0_i32..).zip((0..length).step_by(chunk)) {
        let data = zoo.bytes(chunk.min(length - start));
        chunks.push(doc! {"_id": zoo.object_id(), "files_id": &file, "n": n, "data": data});
    }
    let described = doc! {"_id": &file, "filename": "blob.bin", "chunkSize": chunk as i32, "length": length as i64,
    "uploadDate": at(0)};
    zoo.insert(DB, "fs.files", [described]).await;
    zoo.insert(DB, "fs.chunks", chunks).await;
    zoo.index(DB, "fs.files", [doc! {"key": {"filename": 1, "uploadDate": 1}, "name": "filename_1_uploadDate_1"}]).await;
    zoo.index(DB, "fs.chunks", [doc! {"key": {"files_id": 1, "n": 1}, "name": "files_id_1_n_1", "unique": true}]).await;
}

fn at(minutes: i64) -> DateTime {
    DateTime::from_millis(MAY + minutes * MINUTE)
}
