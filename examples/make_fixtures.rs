//! Writes the fixtures of the format: `cargo run --example make_fixtures -- DIRECTORY`. DIRECTORY
//! is `fixtures`, or any other directory to inspect the result. Existing fixtures are never
//! rewritten: every later version must read them as they are. The same seed, times and UUIDs give
//! the same bytes, as long as zstd does.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

#[path = "../tests/support/archive.rs"]
mod archive;

use std::path::Path;

use archive::{Given, LISTED, Shape, segments, started};
use bson::oid::ObjectId;
use bson::raw::cstr;
use bson::spec::BinarySubtype;
use bson::{Binary, DateTime, Decimal128, Regex, Timestamp, rawdoc};
use bsonvault::error::{Error, Result};
use bsonvault::format::digest::{Content, Sha256Hex};
use bsonvault::format::document::Writer;
use bsonvault::format::frame::{Codec, Compression, Compressor};
use bsonvault::format::key;
use bsonvault::format::manifest::{CollectionKind, Manifest, NEWEST_VERSION, StoredObject, Totals};
use bsonvault::format::segment::{Builder, Finished};
use bsonvault::names::Namespace;
use bsonvault::repository::backend::Objects;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};

const SEED: u64 = 20_261_122;
/// Frames that are long enough for columns to help.
const COLUMNS: Shape = Shape { codec: Codec::Columns, ..Shape::of(40_000, 20_000) };
const SHAPE: Shape = Shape::of(700, 1500);

#[tokio::main]
async fn main() -> Result<()> {
    let directory = std::env::args().nth(1).ok_or_else(|| Error::usage("give the directory to write to: fixtures"))?;
    let root = Path::new(&directory);
    let store = Objects::open(&directory)?;
    for part in ["v1", "damaged", "v2", "damaged-v2", "v3", "v4"] {
        if root.join(part).exists() {
            println!("{} exists: fixtures are never written again once they are committed", root.join(part).display());
            continue;
        }
        let place = store.below(part);
        match part {
            "v1" => describe(&archive::write_as(&place.below(&archive_name()), &everything(), None, 1, SHAPE).await?),
            "v2" => describe(&archive::write_with_oplog(&place.below(&archive_name()), &everything(), &slice(), SHAPE).await?),
            "v3" => {
                let given: Vec<Given> = everything().into_iter().chain([many()]).collect();
                describe(&archive::write_as(&place.below(&archive_name()), &given, Some(&slice()), 3, COLUMNS).await?);
            }
            "v4" => describe(&archive::write_as(&place.below(&archive_name()), &everything(), Some(&slice()), 4, SHAPE).await?),
            "damaged" => damaged(&place).await?,
            _ => damaged_slices(&place).await?,
        }
    }
    Ok(())
}

fn describe(manifest: &Manifest) {
    for c in &manifest.collections {
        println!(
            "{} {} documents, {} bytes, digest {}, {} segments",
            c.namespace(),
            c.documents,
            c.bytes,
            c.digest,
            c.segments.len()
        );
    }
    if let Some(slice) = &manifest.oplog {
        let (entries, bytes, digest) = (slice.documents, slice.bytes, slice.digest);
        println!("oplog {entries} entries, {bytes} bytes, digest {digest}, {} segments", slice.segments.len());
    }
}

fn archive_name() -> String {
    bsonvault::names::BackupName::at(started()).to_string()
}

/// Two databases with every BSON type, odd names and texts, a view, a time series, and an empty
/// capped collection.
fn everything() -> Vec<Given> {
    let mut random = StdRng::seed_from_u64(SEED);
    let orders = (0..12).map(|n| order(n, &mut random)).collect();
    let mut shop = Given::new("shop", "orders", orders);
    shop.indexes
        .push(rawdoc! { "v": 2, "key": { "customer": 1, "at": -1 }, "name": "customer_1_at_-1", "expireAfterSeconds": 3_600.0 });
    let mut view = Given::new("shop", "open orders", Vec::new());
    view.kind = CollectionKind::View;
    view.options = rawdoc! { "viewOn": "orders", "pipeline": [{ "$match": { "open": true } }] };
    view.indexes.clear();
    let mut capped = Given::new("telemetry", "Log", Vec::new());
    capped.options = rawdoc! { "capped": true, "size": 4096 };
    let lower = Given::new("telemetry", "log", vec![rawdoc! { "_id": "only" }.into_bytes()]);
    vec![shop, view, Given::new("shop", "odd/näme #1 100%", odd()), capped, lower, readings(&mut random)]
}

/// Enough documents of one shape for frames in columns, with one of another shape among them.
fn many() -> Given {
    let mut random = StdRng::seed_from_u64(SEED + 3);
    let mut documents: Vec<_> = (0..200).map(|n| order(n, &mut random)).collect();
    documents.splice(100..100, odd());
    Given::new("shop", "past orders", documents)
}

fn order(n: i32, random: &mut StdRng) -> Vec<u8> {
    let mut noise = vec![0; 150];
    random.fill_bytes(&mut noise);
    let at = DateTime::from_millis(1_795_300_000_000 + i64::from(n) * 61_000);
    let mut id = [0; 12];
    id[11] = n as u8;
    let price = Decimal128::from_bytes([n as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x3C, 0x30]);
    rawdoc! {
        "_id": ObjectId::from_bytes(id),
        "customer": format!("customer {}", n % 5),
        "at": at,
        "open": n % 3 == 0,
        "price": price,
        "weight": f64::from(n) / 8.0,
        "count": i64::from(n) << 33,
        "lines": [{ "sku": n, "note": null }, [], "text"],
        "noise": Binary { subtype: BinarySubtype::Generic, bytes: noise },
    }
    .into_bytes()
}

/// Documents that JSON and the typed BSON of drivers do not preserve.
fn odd() -> Vec<Vec<u8>> {
    let rest = rawdoc! {
        "_id": 0,
        "regex": Regex { pattern: cstr!("^a.*b$").into(), options: cstr!("im").into() },
        "time": Timestamp { time: 1_795_383_900, increment: 3 },
        "least": bson::RawBson::MinKey,
        "most": bson::RawBson::MaxKey,
        "gone": bson::RawBson::Undefined,
        "symbol": bson::RawBson::Symbol("s".to_owned()),
        "code": bson::RawBson::JavaScriptCode("f()".to_owned()),
        "empty": {},
        "": "an empty name",
    };
    let not_a_number = f64::from_bits(0x7FF8_0000_0000_0001).to_le_bytes();
    let scope = rawdoc! { "x": 1 }.into_bytes();
    let code = [&2u32.to_le_bytes(), b"f\0".as_slice(), &scope].concat();
    vec![
        rest.into_bytes(),
        Writer::default().with(0x10, b"_id", &[1, 0, 0, 0]).with(0x02, b"text", b"\x04\0\0\0\xFF\xFE\x80\0").finish(),
        Writer::default().with(0x10, b"_id", &[2, 0, 0, 0]).with(0x08, b"twice", &[0]).with(0x08, b"twice", &[1]).finish(),
        Writer::default().with(0x10, b"_id", &[3, 0, 0, 0]).with(0x01, b"nan", &not_a_number).finish(),
        Writer::default()
            .with(0x10, b"_id", &[4, 0, 0, 0])
            .with(0x0C, b"pointer", b"\x04\0\0\0a.b\0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0A\x0B\x0C")
            .with(0x0F, b"scoped", &[&(4 + code.len() as u32).to_le_bytes(), code.as_slice()].concat())
            .with(0x05, b"old", b"\x05\0\0\0\x02\x01\0\0\0\x7F")
            .finish(),
        Writer::default().finish(),
    ]
}

/// A time series, as its buckets.
fn readings(random: &mut StdRng) -> Given {
    let bucket = |n: u32, random: &mut StdRng| {
        let seconds = 1_795_298_400 + n * 3600;
        let mut id = [0; 12];
        id[..4].copy_from_slice(&seconds.to_be_bytes());
        random.fill_bytes(&mut id[4..]);
        let at = |s: u32| DateTime::from_millis(i64::from(seconds + s) * 1000);
        rawdoc! {
            "_id": ObjectId::from_bytes(id),
            "control": { "version": 1, "min": { "at": at(0), "value": 1.5 }, "max": { "at": at(60), "value": 2.5 } },
            "meta": { "sensor": n as i32 },
            "data": { "at": { "0": at(0), "1": at(60) }, "value": { "0": 1.5, "1": 2.5 } },
        }
        .into_bytes()
    };
    let mut given = Given::new("telemetry", "readings", (0..4).map(|n| bucket(n, random)).collect());
    given.namespace = Namespace::new("telemetry", "readings");
    given.kind = CollectionKind::TimeSeries;
    given.options = rawdoc! {
        "timeseries": { "timeField": "at", "metaField": "meta", "granularity": "minutes", "bucketMaxSpanSeconds": 86_400 },
        "expireAfterSeconds": 864_000_i64,
    };
    given.indexes = vec![rawdoc! { "v": 2, "key": { "meta": 1, "at": 1 }, "name": "meta_1_at_1" }];
    given
}

const FIRST: &str = "shop/orders.00000.bson.zst";
const SECOND: &str = "shop/orders.00001.bson.zst";

/// One intact backup of two segments, to be damaged.
async fn small(store: &Objects) -> Result<Manifest> {
    let documents: Vec<Vec<u8>> = (0..8).map(|n| rawdoc! { "_id": n, "text": format!("document {n}") }.into_bytes()).collect();
    archive::write_as(store, &[Given::new("shop", "orders", documents)], None, 1, Shape::of(80, 100)).await
}

/// The writes from a second before the listing to a second after it. They are a long insert that
/// the data already has, a transaction from before the listing that is committed after it, an
/// update, a command, and an insert.
fn slice() -> Vec<Vec<u8>> {
    let at = |before: bool, i: u32| Timestamp { time: if before { LISTED.t - 1 } else { LISTED.t + 1 }, increment: i };
    let uuid =
        || Binary { subtype: BinarySubtype::Uuid, bytes: (0xb50f_0000_0000_4000_8000_0000_0000_0001_u128).to_be_bytes().into() };
    let session = || rawdoc! { "id": uuid(), "uid": Binary { subtype: BinarySubtype::Generic, bytes: vec![7; 32] } };
    let nothing = || rawdoc! { "ts": Timestamp { time: 0, increment: 0 }, "t": -1_i64 };
    let wall = DateTime::from_millis(i64::from(LISTED.t) * 1000);
    let mut noise = vec![0; 1_600];
    StdRng::seed_from_u64(SEED + 1).fill_bytes(&mut noise);
    let noise = Binary { subtype: BinarySubtype::Generic, bytes: noise };
    let entries = [
        rawdoc! { "op": "i", "ns": "shop.orders", "ui": uuid(), "o": { "_id": 1, "pad": noise }, "ts": at(true, 7), "t": 1_i64, "v": 2_i64, "wall": wall },
        rawdoc! {
            "lsid": session(), "txnNumber": 1_i64, "op": "c", "ns": "admin.$cmd",
            "o": { "applyOps": [{ "op": "i", "ns": "shop.orders", "ui": uuid(), "o": { "_id": 2 } }], "partialTxn": true },
            "ts": at(true, 8), "t": 1_i64, "v": 2_i64, "wall": wall, "prevOpTime": nothing(),
        },
        rawdoc! {
            "lsid": session(), "txnNumber": 1_i64, "op": "c", "ns": "admin.$cmd",
            "o": { "applyOps": [{ "op": "d", "ns": "shop.orders", "ui": uuid(), "o": { "_id": 1 } }], "count": 2_i64 },
            "ts": at(false, 1), "t": 1_i64, "v": 2_i64, "wall": wall, "prevOpTime": { "ts": at(true, 8), "t": 1_i64 },
        },
        rawdoc! {
            "op": "u", "ns": "shop.orders", "ui": uuid(), "o": { "$v": 2, "diff": { "u": { "open": false } } }, "o2": { "_id": 2 },
            "ts": at(false, 2), "t": 1_i64, "v": 2_i64, "wall": wall,
        },
        rawdoc! { "op": "c", "ns": "shop.$cmd", "ui": uuid(), "o": { "collMod": "orders" }, "ts": at(false, 3), "t": 1_i64, "v": 2_i64, "wall": wall },
        rawdoc! {
            "op": "i", "ns": "shop.orders", "ui": uuid(), "o": { "_id": 3 },
            "ts": at(false, 7), "t": 1_i64, "v": 2_i64, "wall": wall,
        },
    ];
    entries.into_iter().map(bson::RawDocumentBuf::into_bytes).collect()
}

const SLICE: &str = "oplog.00000.bson.zst";

/// Backups with an invalid oplog slice.
async fn damaged_slices(root: &Objects) -> Result<()> {
    let documents: Vec<Vec<u8>> = (0..8).map(|n| rawdoc! { "_id": n, "text": format!("document {n}") }.into_bytes()).collect();
    let given = [Given::new("shop", "orders", documents)];
    let shape = Shape::of(80, 100);
    let case = async |name: &str, entries: &[Vec<u8>]| -> Result<(Objects, Manifest)> {
        let store = root.below(name).below("backup");
        let manifest = archive::write_with_oplog(&store, &given, entries, shape).await?;
        Ok((store, manifest))
    };
    let expect =
        async |name: &str, message: &str| put(&root.below(name), "expected.txt", format!("{message}\n").into_bytes()).await;

    let (store, _) = case("flipped-bit-in-the-slice", &slice()).await?;
    let (found, expected) = flip(&store, SLICE, 40).await?;
    let message = format!("{SLICE} was changed: its SHA-256 is {found}, expected {expected}");
    expect("flipped-bit-in-the-slice", &message).await?;

    let (store, manifest) = case("missing-part-of-the-slice", &slice()).await?;
    store.delete("oplog.00001.bson.zst").await?;
    let bytes = manifest.oplog.map_or(0, |slice| slice.segments[1].object.bytes);
    expect("missing-part-of-the-slice", &format!("oplog.00001.bson.zst is missing, {bytes} bytes expected")).await?;

    let mut entries = slice();
    entries.swap(3, 4);
    case("slice-out-of-order", &entries).await?;
    let message = "document 0 of oplog.00004.bson.zst: the entry of 2026-11-22T21:45:01Z (1795383901, 2) stands after that of \
                   2026-11-22T21:45:01Z (1795383901, 3)";
    expect("slice-out-of-order", message).await?;

    let (store, _) = case("slice-in-version-1", &slice()).await?;
    let changed =
        String::from_utf8_lossy(&store.get(key::MANIFEST).await?).replace("\"formatVersion\": 2,", "\"formatVersion\": 1,");
    put(&store, key::MANIFEST, resealed(&changed)).await?;
    expect("slice-in-version-1", "backup BACKUP: manifest.json contradicts itself: format version 1 has no oplog slices").await?;

    let (store, _) = case("slice-without-its-kind", &slice()).await?;
    let text = String::from_utf8_lossy(&store.get(key::MANIFEST).await?).replace("\"kind\": \"oplog\"", "\"kind\": \"snapshot\"");
    put(&store, key::MANIFEST, resealed(&text)).await?;
    let message = "backup BACKUP: manifest.json contradicts itself: the consistency is snapshot, and there is an oplog slice";
    expect("slice-without-its-kind", message).await?;

    let store = root.below("kind-without-its-slice").below("backup");
    archive::write(&store, &given, shape).await?;
    let text = String::from_utf8_lossy(&store.get(key::MANIFEST).await?).replace("\"kind\": \"snapshot\"", "\"kind\": \"oplog\"");
    put(&store, key::MANIFEST, resealed(&text)).await?;
    let message = "backup BACKUP: manifest.json contradicts itself: the consistency is oplog, and there is no oplog slice";
    expect("kind-without-its-slice", message).await
}

/// A manifest's text with the digest that fits it. The digest is the last 64 hexadecimal digits.
fn resealed(text: &str) -> Vec<u8> {
    let end = text.trim_end().trim_end_matches('}').trim_end().len() - 1;
    let at = end - 64;
    let zeroed = format!("{}{}{}", &text[..at], "0".repeat(64), &text[end..]);
    let digest = Sha256Hex::of(zeroed.as_bytes()).to_string();
    format!("{}{digest}{}", &text[..at], &text[end..]).into_bytes()
}

async fn damaged(root: &Objects) -> Result<()> {
    // Each backup is created intact, and then damaged. Beside it is the expected message, with
    // BACKUP in place of its path.
    let case = async |name: &str| -> Result<(Objects, Manifest)> {
        let store = root.below(name).below("backup");
        let manifest = small(&store).await?;
        Ok((store, manifest))
    };
    let expect =
        async |name: &str, message: &str| put(&root.below(name), "expected.txt", format!("{message}\n").into_bytes()).await;

    let (store, _) = case("truncated-segment").await?;
    let whole = store.get(SECOND).await?;
    put(&store, SECOND, whole[..100].to_vec()).await?;
    expect("truncated-segment", &format!("{SECOND} has 100 bytes, expected {}", whole.len())).await?;

    let (store, _) = case("flipped-bit").await?;
    let (found, expected) = flip(&store, FIRST, 40).await?;
    expect("flipped-bit", &format!("{FIRST} was changed: its SHA-256 is {found}, expected {expected}")).await?;

    let (store, manifest) = case("missing-segment").await?;
    store.delete(FIRST).await?;
    expect(
        "missing-segment",
        &format!("{FIRST} is missing, {} bytes expected", manifest.collections[0].segments[0].object.bytes),
    )
    .await?;

    let (store, _) = case("missing-manifest").await?;
    store.delete(key::MANIFEST).await?;
    let never = "backup BACKUP has no manifest.json, so it was never completed: it is still running, or a crash left it";
    expect("missing-manifest", never).await?;

    let (store, _) = case("changed-manifest").await?;
    edit(&store, |text| text.replace("6.0.5", "7.0.5")).await?;
    let changed = "backup BACKUP: manifest.json was changed after it was written: its SHA-256 does not match";
    expect("changed-manifest", changed).await?;

    let (store, _) = case("format-version-999").await?;
    edit(&store, |text| text.replace("\"formatVersion\": 1,", "\"formatVersion\": 999,")).await?;
    let message = format!("backup BACKUP: the backup is of format version 999, and this program reads up to {NEWEST_VERSION}");
    expect("format-version-999", &message).await?;

    let (store, _) = case("cut-manifest").await?;
    edit(&store, |text| text.lines().take(20).map(|l| format!("{l}\n")).collect()).await?;
    expect("cut-manifest", "backup BACKUP: manifest.json cannot be read: EOF while parsing a value at line 21 column 0").await?;

    let (store, _) = case("wrong-checksums").await?;
    let (found, expected) = flip(&store, key::SHA256SUMS, 5).await?;
    expect("wrong-checksums", &format!("SHA256SUMS was changed: its SHA-256 is {found}, expected {expected}")).await?;

    let (store, _) = case("changed-metadata").await?;
    let (found, expected) = flip(&store, "shop/orders.metadata.json", 20).await?;
    let message = format!("shop/orders.metadata.json was changed: its SHA-256 is {found}, expected {expected}");
    expect("changed-metadata", &message).await?;

    // The checksums are right, so only decoding can detect the damage.
    let (store, manifest) = case("bomb-in-the-table").await?;
    let raw = manifest.collections[0].segments[0].raw_bytes;
    let bomb = Compressor::new(Compression::of(3))?.compress(&vec![0; 64 * 1024 * 1024])?;
    let size = replace_first(&store, manifest, segment_of(bomb.clone(), 64 * 1024 * 1024), raw).await?;
    expect("bomb-in-the-table", &format!("{FIRST}: a segment of {size} bytes names a frame beyond the limits")).await?;

    let (store, manifest) = case("bomb-in-the-frame").await?;
    replace_first(&store, manifest, segment_of(bomb, raw), raw).await?;
    expect("bomb-in-the-frame", &format!("{FIRST}: frame 0: a frame says it holds 67108864 bytes where the table says {raw}"))
        .await?;

    let (store, manifest) = case("broken-document").await?;
    let broken = Writer::default().with(0x02, b"a", b"\x02\0\0\0xy").finish();
    let segment = segments(&[broken], Shape::of(1, 1))?.remove(0);
    let raw = segment.raw_bytes;
    replace_first(&store, manifest, segment, raw).await?;
    expect("broken-document", &format!("document 0 of {FIRST}: a BSON document has a string without its NUL")).await
}

async fn put(store: &Objects, key: &str, bytes: Vec<u8>) -> Result<()> {
    store.put(key, vec![Bytes::from(bytes)]).await
}

/// Flips a bit of this byte. Returns the SHA-256 after and before.
async fn flip(store: &Objects, key: &str, at: usize) -> Result<(Sha256Hex, Sha256Hex)> {
    let whole = store.get(key).await?;
    let mut changed = whole.to_vec();
    changed[at] ^= 1;
    let digests = (Sha256Hex::of(&changed), Sha256Hex::of(&whole));
    put(store, key, changed).await?;
    Ok(digests)
}

async fn edit(store: &Objects, change: impl FnOnce(String) -> String) -> Result<()> {
    let text = String::from_utf8_lossy(&store.get(key::MANIFEST).await?).into_owned();
    put(store, key::MANIFEST, change(text).into_bytes()).await
}

fn segment_of(frame: Vec<u8>, claimed: u64) -> Finished {
    let mut builder = Builder::default();
    builder.push(frame, &Content { documents: 1, bytes: claimed, sum: 0 });
    builder.finish()
}

/// Replaces the first segment of a backup, with valid checksums and this claim of raw bytes.
/// Returns the segment's stored bytes.
async fn replace_first(store: &Objects, mut manifest: Manifest, segment: Finished, raw: u64) -> Result<u64> {
    let collection = &mut manifest.collections[0];
    let first = &mut collection.segments[0];
    first.object = StoredObject { key: FIRST.to_owned(), bytes: segment.stored_bytes, sha256: segment.sha256 };
    (first.frames, first.raw_bytes, first.documents, first.digest) =
        (1, raw, segment.content.documents, segment.content.digest());
    let mut sum = Content::default();
    collection.segments.iter().for_each(|s| sum.merge(&s.content()));
    (collection.documents, collection.bytes, collection.digest) = (sum.documents, sum.bytes, sum.digest());
    manifest.totals = Totals::of(&manifest.collections, None);
    store.put(FIRST, segment.chunks).await?;
    let sums = manifest.sums();
    manifest.checksums = Sha256Hex::of(sums.as_bytes());
    put(store, key::SHA256SUMS, sums.into_bytes()).await?;
    put(store, key::MANIFEST, manifest.to_bytes()?).await?;
    Ok(segment.stored_bytes)
}
