//! Effects of a target, a network or a login on a replay, with hand-made entries.

use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use bsonvault::context::Context;
use bsonvault::error::{Error, ErrorKind};
use bsonvault::format::manifest::ClusterTime;
use bsonvault::mongo::connect::ConnectOptions;
use bsonvault::mongo::{Connection, MongoUri, Role};
use bsonvault::names::Namespace;
use bsonvault::oplog::Transactions;
use bsonvault::oplog::apply::{Applied, Applier, Commits, Destination, Holds, refuse_without_rights};
use bsonvault::sink::Target;
use mongodb::Client;
use uuid::Uuid;

use super::changes;

use crate::support::link::{Link, LinkOptions};
use crate::support::server::{Server, ServerOptions};
use crate::support::zoo::raw::{self, Raw};

const COLLECTION: Uuid = Uuid::from_u128(1);

pub(super) fn place(name: &str, holds: Holds) -> Destination {
    Destination { namespace: Namespace::new("r", name), holds, has_rules: false, collated: false, unique: false }
}

pub(super) async fn target(uri: &str) -> Target {
    let uri = MongoUri::parse(Role::Target, uri).unwrap();
    let connection = Connection::open(&uri, ConnectOptions { pool: 8, selection_timeout: None }).await.unwrap();
    let behaves_as = connection.behaves_as().await;
    Target::new(connection, behaves_as, &Context::default())
}

pub(super) async fn applier(uri: &str, destination: Destination, lanes: usize) -> Applier {
    let commits = Commits::Awaited(Transactions::new(ClusterTime { t: 1, i: 1 }));
    let mut applier = Applier::with_lanes(target(uri).await, commits, lanes).await.unwrap();
    applier.direct(COLLECTION, destination).unwrap();
    applier
}

pub(super) async fn replayed(uri: &str, place: Destination, frames: Vec<Vec<u8>>) -> Result<Applied, Error> {
    let mut applier = applier(uri, place, 1).await;
    for frame in frames {
        applier.take(frame).await?;
    }
    applier.make_durable().await
}

fn entry(op: &str, o: impl AsRef<[u8]>, o2: Option<Document>) -> Vec<u8> {
    let mut entry = Raw::new()
        .element(0x02, "op", raw::string(op))
        .element(0x02, "ns", raw::string("source.c"))
        .element(0x05, "ui", raw::binary(4, COLLECTION.as_bytes()))
        .element(0x03, "o", o);
    if let Some(o2) = o2 {
        entry = entry.element(0x03, "o2", o2.to_vec().unwrap());
    }
    entry.element(0x11, "ts", (5_u64 << 32).to_le_bytes()).into_bytes()
}

pub(super) fn insert(document: &Document) -> Vec<u8> {
    entry("i", document.to_vec().unwrap(), None)
}

fn update(id: impl Into<Bson>, change: &Document) -> Vec<u8> {
    entry("u", change.to_vec().unwrap(), Some(doc! { "_id": id.into() }))
}

pub(super) fn set(id: i32, field: &str, value: i32) -> Vec<u8> {
    update(id, &doc! { "$v": 1, "$set": { field: value } })
}

pub(super) fn delete(id: impl Into<Bson>) -> Vec<u8> {
    entry("d", doc! { "_id": id.into() }.to_vec().unwrap(), None)
}

pub(super) async fn all(client: &Client, name: &str) -> Vec<RawDocumentBuf> {
    super::slice::documents(client, &Namespace::new("r", name)).await
}

pub(super) async fn create(client: &Client, name: &str, options: Document) {
    let mut create = doc! { "create": name };
    create.extend(options);
    client.database("r").run_command(create).await.unwrap();
}

#[tokio::test]
async fn documents_of_every_size_and_kind_come_through_as_they_are() {
    for server in [Server::standalone().await, Server::replica_set("odd").await] {
        let client = server.client().await;
        create(&client, "c", doc! {}).await;
        let repeated = |n: i32, empty: bool| {
            let document = Raw::new().int32("_id", n).int32("a", 1).int32("a", n).element(
                0x02,
                "text",
                raw::string([0xFF, b'x'].repeat(400)),
            );
            if empty { document.element(0x11, "t", [0; 8]).element(0x11, "t", [0; 8]) } else { document }.into_bytes()
        };
        // Exactly 16 MiB: 5 bytes around it, 9 for the _id, 8 for the binary's header.
        let huge = |id: i32, fill: u8| {
            let bytes = vec![fill; 16 * 1024 * 1024 - 22];
            Raw::new().int32("_id", id).element(0x05, "b", raw::binary(0, &bytes)).into_bytes()
        };
        assert_eq!(huge(1, 0).len(), 16 * 1024 * 1024);
        let empty = |n: i32| doc! { "_id": n, "t": Timestamp { time: 0, increment: 0 }, "n": n };
        let frames = vec![
            [entry("i", repeated(1, false), None), entry("i", repeated(2, true), None), insert(&empty(3)), insert(&empty(4))]
                .concat(),
            // Again over existing documents, with changes.
            [entry("i", repeated(1, false), None), entry("i", repeated(2, true), None), insert(&empty(3))].concat(),
            [update(4, &empty(4)), set(3, "more", 1), entry("u", repeated(1, true), Some(doc! { "_id": 1 })), set(1, "later", 1)]
                .concat(),
            entry("i", huge(10, 1), None),
            entry("i", huge(11, 1), None),
            entry("u", huge(11, 2), Some(doc! { "_id": 11 })),
        ];
        replayed(&server.uri(), place("c", Holds::Documents), frames).await.unwrap();
        let found = all(&client, "c").await;
        let of = |id: i32| found.iter().find(|d| d.get_i32("_id").is_ok_and(|v| v == id)).unwrap().as_bytes().to_vec();
        let mut first = repeated(1, true);
        first.pop();
        first.extend([&[0x10][..], b"later\0", &1i32.to_le_bytes(), &[0]].concat());
        let length = i32::try_from(first.len()).unwrap().to_le_bytes();
        first[..4].copy_from_slice(&length);
        assert_eq!(of(1), first);
        assert_eq!(of(2), repeated(2, true));
        let mut third = empty(3);
        third.insert("more", 1);
        assert_eq!(of(3), third.to_vec().unwrap());
        assert_eq!(of(4), empty(4).to_vec().unwrap());
        assert!(of(10) == huge(10, 1) && of(11) == huge(11, 2));
        assert_eq!(found.len(), 6);
        assert!(server.is_running());
    }
}

#[tokio::test]
async fn differences_of_documents_with_repeated_names_harm_no_server() {
    let server = Server::replica_set("repeated").await;
    let client = server.client().await;
    if changes::version(&client).await < 5 {
        return;
    }
    create(&client, "c", doc! {}).await;
    let document = |a: i32, b: i32| {
        Raw::new().int32("_id", 1).int32("a", a).int32("a", b).element(0x02, "x", raw::string([b'x'; 3000])).into_bytes()
    };
    let frame = [
        entry("i", document(1, 2), None),
        update(1, &doc! { "$v": 2, "diff": { "u": { "a": 9 } } }),
        update(1, &doc! { "$v": 2, "diff": { "d": { "a": false } } }),
        entry("u", document(3, 4), Some(doc! { "_id": 1 })),
        update(1, &doc! { "$v": 2, "diff": { "i": { "new": 1 }, "sx": { "i": { "not a document": 1 } } } }),
        entry("u", document(5, 6), Some(doc! { "_id": 1 })),
    ]
    .concat();
    replayed(&server.uri(), place("c", Holds::Documents), vec![frame]).await.unwrap();
    assert_eq!(all(&client, "c").await[0].as_bytes(), document(5, 6));
    assert!(server.is_running());
}

#[tokio::test]
async fn no_change_makes_up_a_document_where_none_may_be_made_up() {
    let server = Server::standalone().await;
    let client = server.client().await;
    create(&client, "capped", doc! { "capped": true, "size": 4096, "max": 3 }).await;
    // The sizes stay the same, as old servers require.
    let frame =
        [set(1, "gone", 1), insert(&doc! { "_id": 2, "x": 0 }), set(2, "x", 1), insert(&doc! { "_id": 3, "y": 0 })].concat();
    replayed(&server.uri(), place("capped", Holds::Capped { after: None }), vec![frame]).await.unwrap();
    let found: Vec<Document> = all(&client, "capped").await.iter().map(|d| Document::try_from(&**d).unwrap()).collect();
    assert_eq!(found, [doc! { "_id": 2, "x": 1 }, doc! { "_id": 3, "y": 0 }]);

    // A document that was already read is not inserted again, though it may be updated.
    let frame =
        [insert(&doc! { "_id": 0 }), insert(&doc! { "_id": 3, "y": 0 }), set(3, "y", 1), insert(&doc! { "_id": 4 })].concat();
    let after = Some((0x10, 3i32.to_le_bytes().to_vec()));
    replayed(&server.uri(), place("capped", Holds::Capped { after }), vec![frame]).await.unwrap();
    let found: Vec<Document> = all(&client, "capped").await.iter().map(|d| Document::try_from(&**d).unwrap()).collect();
    assert_eq!(found, [doc! { "_id": 2, "x": 1 }, doc! { "_id": 3, "y": 1 }, doc! { "_id": 4 }]);

    if changes::version(&client).await >= 5 {
        create(&client, "series", doc! { "timeseries": { "timeField": "t" } }).await;
        let id = bson::oid::ObjectId::from_bytes([7; 12]);
        let frame = [update(id, &doc! { "$v": 2, "diff": { "sdata": { "i": { "x": 1 } } } }), delete(id)].concat();
        replayed(&server.uri(), place("system.buckets.series", Holds::Buckets), vec![frame]).await.unwrap();
        assert_eq!(all(&client, "system.buckets.series").await.len(), 0);
    }
}

#[tokio::test]
async fn an_operation_that_the_target_refuses_is_named() {
    let server = Server::standalone().await;
    let client = server.client().await;
    create(&client, "ruled", doc! { "validator": { "x": 1 } }).await;
    let frame = || [insert(&doc! { "_id": 1, "x": 1 }), insert(&doc! { "_id": "secret" })].concat();
    let error = replayed(&server.uri(), place("ruled", Holds::Documents), vec![frame()]).await.unwrap_err();
    let text = error.to_string();
    assert!(
        error.kind() == ErrorKind::Server && text.contains("r.ruled") && text.contains("an insert") && text.contains("string"),
        "{text}"
    );
    assert!(!text.contains("secret"), "{text}");
    let ruled = Destination { has_rules: true, ..place("ruled", Holds::Documents) };
    replayed(&server.uri(), ruled, vec![frame()]).await.unwrap();
    assert_eq!(all(&client, "ruled").await.len(), 2);
}

#[tokio::test]
async fn a_command_whose_reply_is_lost_does_not_undo_later_ones() {
    let server = Server::standalone().await;
    let client = server.client().await;
    create(&client, "c", doc! {}).await;
    let link = Link::to(server.port(), LinkOptions::default());
    let mut applier = applier(&server.uri_through(link.port()), place("c", Holds::Documents), 1).await;
    applier.take(insert(&doc! { "_id": 1, "x": 0 })).await.unwrap();
    // The server delays the next one, and the connection breaks before it has begun.
    let block = doc! { "failCommands": ["applyOps"], "blockConnection": true, "blockTimeMS": 3000 };
    server.fail_command(doc! { "times": 1 }, block).await;
    let cut = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        link.cut();
    };
    let (taken, ()) = tokio::join!(applier.take(set(1, "x", 1)), cut);
    taken.unwrap();
    applier.take(set(1, "x", 2)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(3500)).await;
    applier.make_durable().await.unwrap();
    assert_eq!(all(&client, "c").await[0].get_i32("x").unwrap(), 2);
}

#[tokio::test]
async fn a_network_that_breaks_again_and_again_is_outlasted() {
    let server = Server::replica_set("cuts").await;
    let client = server.client().await;
    create(&client, "c", doc! {}).await;
    let options = LinkOptions { mbit: Some(60.0), cut_every: Some(Duration::from_millis(300)), ..LinkOptions::default() };
    let link = Link::to(server.port(), options);
    // Small enough that even a slow server completes one between two cuts.
    let frames: Vec<Vec<u8>> = (0..240)
        .map(|frame| {
            (0..100)
                .flat_map(|n| [insert(&doc! { "_id": n, "x": frame, "pad": "x".repeat(200) }), set(n, "y", frame)].concat())
                .collect()
        })
        .collect();
    let done = replayed(&server.uri_through(link.port()), place("c", Holds::Documents), frames).await.unwrap();
    assert!(link.cuts() > 2 && !done.again, "{} cuts, {done:?}", link.cuts());
    let found = all(&client, "c").await;
    assert!(
        found.len() == 100
            && found.iter().all(|d| d.get_i32("x").is_ok_and(|v| v == 239) && d.get_i32("y").is_ok_and(|v| v == 239))
    );
}

#[tokio::test]
async fn a_target_that_is_started_anew_meanwhile_gets_the_slice_again() {
    let mut server = Server::standalone().await;
    let client = server.client().await;
    create(&client, "c", doc! {}).await;
    let mut applier = applier(&server.uri(), place("c", Holds::Documents), 1).await;
    applier.take(insert(&doc! { "_id": 1 })).await.unwrap();
    server.stop();
    server.restart().await;
    applier.take(insert(&doc! { "_id": 2 })).await.unwrap();
    assert!(applier.make_durable().await.unwrap().again);
}

#[tokio::test]
async fn the_rights_that_are_asked_for_are_those_that_are_needed() {
    let server = Server::start(ServerOptions { auth: true, ..ServerOptions::default() }).await;
    let client = server.client().await;
    let version = changes::version(&client).await;
    let modern = version >= 5;
    create(&client, "c", doc! {}).await;
    create(&client, "ruled", doc! { "validator": { "x": 1 } }).await;
    let admin = client.database("admin");
    let on = |actions: Vec<&str>| doc! { "resource": { "db": "r", "collection": "" }, "actions": actions };
    let apply = || if modern { vec![doc! { "resource": { "cluster": true }, "actions": ["applyOps"] }] } else { Vec::new() };
    let roles = vec![
        ("all", vec![], vec!["root"], true, true),
        ("restore-alone", vec![], vec!["restore"], false, false),
        // The role has the action since 6.0; before 5.0, the action did not exist.
        ("restorer", vec![], vec!["restore", "readWriteAnyDatabase"], version != 5, version != 5),
        ("administrator", vec![], vec!["readWriteAnyDatabase", "dbAdminAnyDatabase"], true, true),
        ("writer", vec![], vec!["readWriteAnyDatabase"], !modern, false),
        ("writer-who-may", apply(), vec!["readWriteAnyDatabase"], true, false),
        ("few", [apply(), vec![on(vec!["insert", "update", "remove", "find"])]].concat(), vec![], true, false),
        (
            "few-and-rules",
            [apply(), vec![on(vec!["insert", "update", "remove", "find", "bypassDocumentValidation"])]].concat(),
            vec![],
            true,
            true,
        ),
        ("no-delete", [apply(), vec![on(vec!["insert", "update", "find"])]].concat(), vec![], false, false),
    ];
    for (name, privileges, roles, plain, ruled) in roles {
        admin.run_command(doc! { "createRole": name, "privileges": privileges, "roles": roles }).await.unwrap();
        admin.run_command(doc! { "createUser": name, "pwd": "secret", "roles": [name] }).await.unwrap();
        let uri = format!("mongodb://{name}:secret@{}/?directConnection=true&authSource=admin", server.host());
        let cases =
            [(place("c", Holds::Documents), plain), (Destination { has_rules: true, ..place("ruled", Holds::Documents) }, ruled)];
        for (place, allowed) in cases {
            let verdict = refuse_without_rights(&target(&uri).await, [&place]).await;
            assert_eq!(verdict.is_ok(), allowed, "{name}, {}: {verdict:?}", place.namespace);
            if let Err(e) = verdict {
                assert!(e.kind() == ErrorKind::Denied && e.hint_text().is_some(), "{e}");
            }
            // The replay itself agrees. Within one frame, only the delete would count.
            let frames = vec![insert(&doc! { "_id": 1 }), set(1, "x", 2), delete(1)];
            let done = replayed(&uri, place, frames).await;
            assert_eq!(done.is_ok(), allowed, "{name}: {done:?}");
            if let Err(e) = done {
                assert_eq!(e.kind(), ErrorKind::Denied, "{e}");
            }
        }
    }
    let everything = Server::standalone().await;
    refuse_without_rights(&target(&everything.uri()).await, [&place("c", Holds::Documents)]).await.unwrap();
}

#[tokio::test]
async fn what_is_equal_in_different_types_stays_in_order() {
    let server = Server::standalone().await;
    let client = server.client().await;
    create(&client, "c", doc! {}).await;
    let place = place("c", Holds::Documents);
    let mut applier = applier(&server.uri(), place, 4).await;
    let decimal = |n: i32| Bson::Decimal128(format!("{n}.00").parse().unwrap());
    let mut frame = Vec::new();
    for n in 0..300 {
        frame.extend(
            [insert(&doc! { "_id": n }), delete(n), insert(&doc! { "_id": f64::from(n) }), delete(f64::from(n))].concat(),
        );
        frame.extend(
            [insert(&doc! { "_id": decimal(n) }), delete(decimal(n)), insert(&doc! { "_id": i64::from(n), "last": true })]
                .concat(),
        );
    }
    applier.take(frame).await.unwrap();
    applier.make_durable().await.unwrap();
    let found = all(&client, "c").await;
    assert!(found.len() == 300 && found.iter().all(|d| d.get_bool("last").unwrap_or(false)));
}
