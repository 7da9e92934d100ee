//! Collections that are read in ranges. They must come back complete, whatever the types and the
//! order of their `_id`s.

use bson::{Bson, DateTime, Timestamp, doc};
use rand::Rng;
use rand::seq::SliceRandom;

use super::Zoo;

const DB: &str = "zoo_bulk";

pub(super) async fn fill(zoo: &mut Zoo, docs: usize) {
    let count = i32::try_from(docs).unwrap();
    fill_collection(zoo, "ints", (0..count).map(Bson::Int32).collect()).await;

    let mixed_numbers = (0..count / 4).flat_map(|i| {
        let decimal = Bson::Decimal128(format!("{}", i * 4 + 3).parse().unwrap());
        [Bson::Int32(i * 4), Bson::Int64(i64::from(i) * 4 + 1), Bson::Double(f64::from(i) * 4.0 + 2.5), decimal]
    });
    fill_collection(zoo, "mixed_numbers", mixed_numbers.collect()).await;

    let strings = (0..count).map(|i| Bson::String(format!("{}{i}", zoo.word()))).collect();
    fill_collection(zoo, "strings", strings).await;
    let object_ids = (0..count).map(|_| zoo.object_id()).collect();
    fill_collection(zoo, "object_ids", object_ids).await;

    let mut mixed: Vec<Bson> = (0..count / 10)
        .flat_map(|i| {
            let uuid = uuid::Uuid::from_u128(i as u128).into_bytes();
            [
                Bson::Int32(i),
                Bson::String(format!("s{i}")),
                zoo.object_id(),
                DateTime::from_millis(i64::from(i) * 1000).into(),
                doc! {"k": i}.into(),
                doc! {"k": format!("{i}")}.into(),
                binary(0, i64::from(i).to_be_bytes().to_vec()),
                Timestamp { time: i as u32, increment: 1 }.into(),
                binary(4, uuid.to_vec()),
                Bson::Int64((1 << 40) + i64::from(i)),
            ]
        })
        .collect();
    let ends = [Bson::Null, true.into(), false.into(), Bson::MinKey, Bson::MaxKey, f64::NAN.into(), f64::NEG_INFINITY.into()];
    mixed.extend(ends);
    fill_collection(zoo, "mixed", mixed).await;
    fill_collection(zoo, "minkeys", vec![Bson::MinKey, Bson::MaxKey]).await;

    let collation = doc! {"locale": "en", "strength": 1, "numericOrdering": true};
    zoo.create(DB, "collated", doc! {"collation": collation}).await;
    let words = (0..count).map(|i| Bson::String(format!("{}{i}", zoo.word()))).collect();
    fill_collection(zoo, "collated", words).await;

    let prefix = "k".repeat(200);
    fill_collection(zoo, "skewed", (0..count).map(|i| Bson::String(format!("{prefix}{i}"))).collect()).await;
    fill_collection(zoo, "one_big_type", (0..count).map(|i| doc! {"a": i % 3, "b": i}.into()).collect()).await;
}

/// Inserts in an order that differs from the order of the `_id`s.
async fn fill_collection(zoo: &mut Zoo, name: &str, mut ids: Vec<Bson>) {
    ids.shuffle(&mut zoo.rng);
    let mut documents = Vec::with_capacity(ids.len());
    for id in ids {
        let filler = zoo.word().repeat(zoo.rng.random_range(1..=40));
        documents.push(doc! {"_id": id, "p": filler});
    }
    zoo.insert(DB, name, documents).await;
}

fn binary(subtype: u8, bytes: Vec<u8>) -> Bson {
    Bson::Binary(bson::Binary { subtype: subtype.into(), bytes })
}
