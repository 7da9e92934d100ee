//! Replays oplog slices of real servers. Whatever happened while a source was read, the target ends
//! up as the source was at the end.

mod changes;
mod faults;
mod groups;
mod slice;
mod work;

use bson::{Document, doc};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use slice::Slice;
use work::Work;

use crate::support::server::{Server, ServerOptions};
use crate::support::zoo::{self, ZooOptions};

#[tokio::test]
async fn all_that_can_be_done_to_collections_and_documents_is_followed() {
    let (source, target) = tokio::join!(Server::replica_set("source"), Server::standalone());
    let client = source.client().await;
    let from = slice::time(&client).await;
    changes::before(&client).await;
    let mut slice = Slice::list(&source, from).await;
    for uuid in slice.identities() {
        slice.read_part(uuid, 0, 1).await;
    }
    changes::meanwhile(&client).await;
    let frames = slice.frames().await;
    let end = slice.follow(&frames, |_| true).unwrap();
    let replayed = slice.bring(&frames, &end, end.known(), &target).await;
    assert!(!replayed.again && replayed.operations > 10, "{replayed:?}");
    assert_same(&slice.differences(&end, &target).await);
}

#[tokio::test]
async fn one_of_everything_comes_through_a_slice() {
    let (source, target) = tokio::join!(Server::replica_set("source"), Server::standalone());
    let client = source.client().await;
    let from = slice::time(&client).await;
    let slice = Slice::list(&source, from).await;
    zoo::fill(&client, &ZooOptions { seed: 3, docs: 600, large: true, false_column: true }).await;
    let frames = slice.frames().await;
    let end = slice.follow(&frames, |_| true).unwrap();
    let replayed = slice.bring(&frames, &end, end.known(), &target).await;
    assert!(end.catalog.collections.len() > 50 && replayed.operations > 3000, "{replayed:?}");
    assert_same(&slice.differences(&end, &target).await);
}

#[tokio::test]
async fn what_is_read_at_odd_moments_while_anything_is_written_comes_to_the_end_of_the_slice() {
    for seed in [1, 2, 3] {
        let (source, target) = tokio::join!(Server::replica_set("source"), Server::replica_set("target"));
        let client = source.client().await;
        let mut rng = StdRng::seed_from_u64(seed);
        let mut work = Work::start(&client, seed).await;
        work.some(150).await;
        let from = slice::time(&client).await;
        work.prepare_a_transaction().await;
        work.some(50).await;
        let mut slice = Slice::list(&source, from).await;
        let mut parts: Vec<_> = slice.identities().into_iter().flat_map(|uuid| work.parts_of(uuid, &slice.listed)).collect();
        while !parts.is_empty() {
            let some = rng.random_range(1..40);
            work.some(some).await;
            let (uuid, part, parts) = parts.swap_remove(rng.random_range(0..parts.len()));
            slice.read_part(uuid, part, parts).await;
            if rng.random_bool(0.2) {
                work.commit_the_prepared_one().await;
            }
        }
        work.some(100).await;
        work.commit_the_prepared_one().await;
        work.a_large_transaction().await;
        work.prepare_a_transaction().await;
        let frames = slice.frames().await;
        let end = slice.follow(&frames, |n| n.database == "work").unwrap();
        let commits = if seed == 2 { end.known() } else { slice.awaited() };
        let replayed = slice.bring(&frames, &end, commits, &target).await;
        work.give_up_the_prepared_one().await;
        assert!(!replayed.again && replayed.operations > 100, "{replayed:?}");
        assert_same(&slice.differences(&end, &target).await);
    }
}

#[tokio::test]
async fn an_id_meets_an_equal_one_that_was_read_later() {
    let (source, target) = tokio::join!(Server::replica_set("source"), Server::standalone());
    let client = source.client().await;
    let db = client.database("work");
    db.run_command(doc! { "create": "names", "collation": { "locale": "en", "strength": 1 } }).await.unwrap();
    let from = slice::time(&client).await;
    let mut slice = Slice::list(&source, from).await;
    let names = db.collection::<Document>("names");
    for (number, id) in ["a", "A", "á"].into_iter().enumerate() {
        let number = i32::try_from(number).unwrap();
        names.delete_one(doc! { "_id": id }).await.unwrap();
        names.insert_one(doc! { "_id": id, "number": number }).await.unwrap();
        names.replace_one(doc! { "_id": id }, doc! { "replaced": number }).await.unwrap();
        names.update_one(doc! { "_id": id }, doc! { "$set": { "changed": number } }).await.unwrap();
    }
    for uuid in slice.identities() {
        slice.read_part(uuid, 0, 1).await;
    }
    let frames = slice.frames().await;
    let end = slice.follow(&frames, |_| true).unwrap();
    slice.bring(&frames, &end, end.known(), &target).await;
    assert_same(&slice.differences(&end, &target).await);
}

/// Servers of 4.4 accept such names in inserts, but not in anything that an update writes.
#[tokio::test]
async fn names_of_operators_inside_of_documents_come_through_a_slice_of_old_servers() {
    let old = |set: Option<&str>| ServerOptions {
        version: Some("4.4.2".to_owned()),
        repl_set: set.map(str::to_owned),
        ..ServerOptions::default()
    };
    let (source, target) = tokio::join!(Server::start(old(Some("source"))), Server::start(old(None)));
    let client = source.client().await;
    let c = client.database("work").collection::<Document>("c");
    let of = |n: i32| doc! { "_id": n, "n": n, "a": [{ "$set": n }, { "b.c": { "$x": "$$ROOT" } }], "r": { "$id": n } };
    c.insert_many((0..20).map(of)).await.unwrap();
    let from = slice::time(&client).await;
    let mut slice = Slice::list(&source, from).await;
    // Read before or after they are inserted, changed, deleted and inserted again.
    let all = slice.identities();
    slice.read_part(all[0], 0, 2).await;
    c.insert_many((20..40).map(of)).await.unwrap();
    c.update_many(doc! { "n": { "$gte": 10 } }, doc! { "$set": { "more": { "y": 1 } }, "$unset": { "n": 1 } }).await.unwrap();
    c.delete_many(doc! { "_id": { "$lt": 5 } }).await.unwrap();
    c.insert_many((0..3).map(of)).await.unwrap();
    slice.read_part(all[0], 1, 2).await;
    c.delete_one(doc! { "_id": 30 }).await.unwrap();
    c.insert_one(of(30)).await.unwrap();
    let frames = slice.frames().await;
    let end = slice.follow(&frames, |_| true).unwrap();
    slice.bring(&frames, &end, end.known(), &target).await;
    assert_same(&slice.differences(&end, &target).await);
}

fn assert_same(differences: &[String]) {
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
