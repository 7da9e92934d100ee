//! Bytes that no writer made: readers return errors, never panic, and allocate nothing for mere
//! claims.

use bson::rawdoc;
use bsonvault::format::digest::{Content, ContentDigest, Sha256Hex};
use bsonvault::format::document::{self, Documents, Elements};
use bsonvault::format::frame::{self, Codec, Compression, Compressor, Decompressor};
use bsonvault::format::manifest::{
    Collection, CollectionKind, ConsistencyKind, FORMAT_VERSION, Manifest, NEWEST_VERSION, OplogPosition, OplogSlice, RawValue,
};
use bsonvault::format::segment::{self, Builder, SeekTable};
use bsonvault::oplog::Head;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::documents::any_document;

use crate::support::archive::{self, Given, Shape};
use crate::support::vault::store;

fn feed(bytes: &[u8]) {
    if let Ok(elements) = Elements::of(bytes) {
        let _whatever = elements.count();
    }
    let _whatever = (document::check(bytes), document::id(bytes), document::has_empty_timestamp(bytes));
    let _whatever = Head::of(bytes).map(|entry| (entry.command().is_some(), entry.database().len()));
    let _whatever = Documents::of(bytes).filter_map(Result::ok).map(document::check).count();
    let mut decompressor = Decompressor::new().unwrap();
    if let Ok(table) = SeekTable::read(bytes) {
        for (place, raw) in table.frames() {
            let _whatever = decompressor.decompress(&bytes[place.clone()], *raw);
        }
    }
    for raw in [0, bytes.len(), frame::LIMIT, usize::MAX] {
        let _whatever = decompressor.decompress(bytes, raw);
    }
    assert!(Manifest::from_bytes(bytes).is_err());
}

/// A changed and truncated segment.
fn changed_segment() -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (vec(any_document(false), 1..6), changes, any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(documents, changes, end, cut)| {
            let mut bytes = archive::segments(&documents, Shape::of(64, usize::MAX)).unwrap().remove(0).chunks.concat();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if cut {
                bytes.truncate(end.index(bytes.len()));
            }
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        feed(&bytes);
    }

    #[test]
    fn documents_of_random_insides_never_panic(mut bytes in vec(any::<u8>(), 5..200), small in any::<bool>()) {
        // Small numbers give lengths that are almost right.
        if small {
            bytes.iter_mut().for_each(|b| *b %= 20);
        }
        let length = bytes.len();
        bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
        bytes[length - 1] = 0;
        feed(&bytes);
    }

    #[test]
    fn changed_segments_never_panic(bytes in changed_segment()) {
        feed(&bytes);
    }
}

fn segment_of(frame: Vec<u8>, claimed: u64) -> Vec<u8> {
    let mut builder = Builder::default();
    builder.push(frame, &Content { documents: 1, bytes: claimed, sum: 0 });
    builder.finish().chunks.concat()
}

#[test]
fn a_frame_that_claims_more_than_the_limit_is_refused() {
    let bomb = Compressor::new(Compression::of(3)).unwrap().compress(&vec![0; frame::LIMIT + 1]).unwrap();
    let error = SeekTable::read(&segment_of(bomb.clone(), frame::LIMIT as u64 + 1)).unwrap_err();
    assert!(error.to_string().contains("names a frame beyond the limits"), "{error}");
    // The table lies.
    let segment = segment_of(bomb.clone(), 1000);
    let (place, raw) = SeekTable::read(&segment).unwrap().frames()[0].clone();
    let error = Decompressor::new().unwrap().decompress(&segment[place], raw).unwrap_err();
    assert!(error.to_string().contains("a frame says it holds 20987905 bytes where the table says 1000"), "{error}");
    let error = Decompressor::new().unwrap().decompress(&bomb, frame::LIMIT + 1).unwrap_err();
    assert!(error.to_string().contains("more than the limit"), "{error}");
}

#[test]
fn a_table_of_frames_without_bytes_is_refused_before_it_is_built() {
    let count = 1_000_000u32;
    let mut segment = Vec::new();
    segment.extend(0x184D_2A5Eu32.to_le_bytes());
    segment.extend((count * 8 + 9).to_le_bytes());
    segment.resize(segment.len() + count as usize * 8, 0);
    segment.extend(count.to_le_bytes());
    segment.push(0);
    segment.extend(0x8F92_EAB1u32.to_le_bytes());
    let error = SeekTable::read(&segment).unwrap_err();
    assert!(error.to_string().contains("more frames than fit"), "{error}");
}

/// The error for a manifest of one collection that a forger changed: its own digest fits.
async fn forged(change: impl FnOnce(&mut Collection)) -> String {
    forged_with_slice(|manifest| change(&mut manifest.collections[0])).await
}

/// The same for one with an oplog slice.
async fn forged_with_slice(change: impl FnOnce(&mut Manifest)) -> String {
    let (bytes, is_written) = forgery(FORMAT_VERSION, change).await;
    assert!(!is_written);
    Manifest::from_bytes(&bytes).unwrap_err().to_string()
}

/// The manifest of a backup of this version with an oplog slice, changed by a forger, and whether
/// the writer accepts it.
async fn forgery(format_version: u32, change: impl FnOnce(&mut Manifest)) -> (Vec<u8>, bool) {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let document = rawdoc! { "_id": 1 }.into_bytes();
    let entry = rawdoc! { "op": "i", "ns": "shop.orders", "o": { "_id": 1 }, "ts": bson::Timestamp { time: archive::LISTED.t - 1, increment: archive::LISTED.i }, "t": 3_i64 };
    let shape = Shape::of(100, 100);
    let given = [Given::new("shop", "orders", vec![document])];
    let mut manifest = archive::write_as(&store, &given, Some(&[entry.into_bytes()]), format_version, shape).await.unwrap();
    change(&mut manifest);
    let segments = manifest.collections[0].segments.clone();
    let collection = &mut manifest.collections[0];
    collection.documents = segments.iter().fold(0, |n, s| n.saturating_add(s.documents));
    collection.bytes = segments.iter().fold(0, |n, s| n.saturating_add(s.raw_bytes));
    manifest.totals = bsonvault::format::manifest::Totals::of(&manifest.collections, manifest.oplog.as_ref());
    // `to_bytes` refuses what cannot be read back, so the digest is set by hand.
    manifest.sha256 = Sha256Hex::zero();
    let zeroed = serde_json::to_vec(&manifest).unwrap();
    manifest.sha256 = Sha256Hex::of(&zeroed);
    (serde_json::to_vec(&manifest).unwrap(), manifest.to_bytes().is_ok())
}

#[tokio::test]
async fn a_forged_manifest_is_refused_for_what_it_claims() {
    let beyond = "the sizes of shop/orders.00000.bson.zst are beyond the limits";
    assert!(forged(|c| c.segments[0].object.bytes = segment::LIMIT as u64 + 1).await.contains(beyond));
    assert!(forged(|c| c.segments[0].raw_bytes = frame::LIMIT as u64 + 1).await.contains(beyond));
    assert!(forged(|c| c.segments[0].frames = u64::MAX).await.contains(beyond));
    assert!(forged(|c| c.segments[0].documents = u64::MAX).await.contains(beyond));
    assert!(forged(|c| c.metadata.bytes = u64::MAX).await.contains("shop/orders.metadata.json are beyond the limits"));
    for key in ["../x", "/etc/passwd", "a//b", "", "."] {
        assert!(forged(|c| c.metadata.key = key.to_owned()).await.contains("leads outside of the backup"), "{key:?}");
    }
    for key in ["manifest.json", "SHA256SUMS", "progress.json", "a\nb", "a\\b"] {
        assert!(forged(|c| c.metadata.key = key.to_owned()).await.contains("cannot be that of a collection's object"), "{key:?}");
    }
    assert!(forged(|c| c.metadata.key = c.segments[0].object.key.clone()).await.contains("occurs twice"));
    assert!(forged(|c| c.kind = CollectionKind::View).await.contains("the view shop.orders has documents"));
    assert!(forged(|c| c.digest = ContentDigest(1)).await.contains("the segments of shop.orders do not add up to it"));
    let broken = rawdoc! { "a": "text" }.into_bytes();
    let broken = [&broken[..broken.len() - 2], &[1, 0]].concat();
    let broken = bson::RawDocumentBuf::from_bytes(broken).unwrap();
    let options = RawValue { bson: broken };
    assert!(
        forged(|c| c.options = options)
            .await
            .contains("options or indexes of shop.orders: a BSON document has a string without its NUL")
    );
}

#[tokio::test]
async fn a_forged_slice_is_refused_for_what_it_claims() {
    let slice = |change: fn(&mut OplogSlice)| forged_with_slice(move |m| change(m.oplog.as_mut().unwrap()));
    let beyond = "the sizes of oplog.00000.bson.zst are beyond the limits";
    assert!(slice(|o| o.segments[0].object.bytes = segment::LIMIT as u64 + 1).await.contains(beyond));
    assert!(slice(|o| o.segments[0].raw_bytes = frame::LIMIT as u64 + 1).await.contains(beyond));
    assert!(slice(|o| o.segments[0].documents = u64::MAX).await.contains(beyond));
    for key in ["../oplog.00000.bson.zst", "/x", "shop/orders.00000.bson.zst"] {
        let error = forged_with_slice(|m| m.oplog.as_mut().unwrap().segments[0].object.key = key.to_owned()).await;
        assert!(error.contains("leads outside of the backup or occurs twice"), "{error}");
    }
    let sums = "the segments of the oplog slice do not add up to it";
    assert!(slice(|o| o.digest = ContentDigest(1)).await.contains(sums));
    assert!(slice(|o| o.documents = 2).await.contains(sums));
    assert!(slice(|o| o.segments.clear()).await.contains(sums));

    let times = "the times of the consistency are not those of the oplog slice";
    assert!(slice(|o| o.to.t += 1).await.contains(times));
    assert!(forged_with_slice(|m| m.consistency.from = None).await.contains(times));
    let order = "the oplog slice does not begin before the listing and end after it";
    assert!(forged_with_slice(|m| m.consistency.cluster_time = None).await.contains(order));
    assert!(forged_with_slice(|m| m.consistency.cluster_time.as_mut().unwrap().t += 2).await.contains(order));
    assert!(forged_with_slice(|m| m.consistency.cluster_time.as_mut().unwrap().t -= 2).await.contains(order));

    assert!(forged_with_slice(|m| m.format_version = 1).await.contains("format version 1 has no oplog slices"));
    let error = forged_with_slice(|m| m.settings.codec = Codec::Columns).await;
    assert!(error.contains("format version 2 has no codec columns"), "{error}");
    assert!(forged_with_slice(|m| m.oplog = None).await.contains("the consistency is oplog, and there is no oplog slice"));
    let error = forged_with_slice(|m| m.consistency.kind = ConsistencyKind::None).await;
    assert!(error.contains("the consistency is none, and there is an oplog slice"), "{error}");
}

/// Makes it a backup of one moment.
fn without_slice(manifest: &mut Manifest) {
    let consistency = &mut manifest.consistency;
    (consistency.kind, consistency.from, consistency.to) = (ConsistencyKind::Snapshot, None, None);
    manifest.oplog = None;
}

/// The same for one that names a position to replay from, with an oplog slice or without.
async fn forged_position(with_slice: bool, change: impl FnOnce(&mut Manifest, &mut OplogPosition)) -> String {
    let (bytes, is_written) = forgery(NEWEST_VERSION, |m| {
        if !with_slice {
            without_slice(m);
        }
        let mut position = m.consistency.replay_from.unwrap();
        change(m, &mut position);
        m.consistency.replay_from = Some(position);
    })
    .await;
    assert!(!is_written);
    Manifest::from_bytes(&bytes).unwrap_err().to_string()
}

#[tokio::test]
async fn a_forged_position_to_replay_from_is_refused_for_what_it_claims() {
    for with_slice in [false, true] {
        for version in [2, 3] {
            let error = forged_position(with_slice, |m, _| m.format_version = version).await;
            assert!(error.contains(&format!("format version {version} has no position to replay from")), "{error}");
        }
        let error = forged_position(with_slice, |_, position| position.time.t += 2).await;
        assert!(error.contains("the position to replay from is not at or before the listing"), "{error}");
        let error = forged_position(with_slice, |_, position| position.digest = None).await;
        assert!(error.contains("the position to replay from has the term of an entry without its digest"), "{error}");
    }
    let error = forged_position(false, |m, _| m.consistency.cluster_time = None).await;
    assert!(error.contains("the position to replay from is not at or before the listing"), "{error}");
    let error = forged_position(false, |m, _| m.consistency.kind = ConsistencyKind::None).await;
    assert!(error.contains("a backup without a consistency point has a position to replay from"), "{error}");
    for by in [1, -1] {
        let error = forged_position(true, |_, position| position.time.t = position.time.t.wrapping_add_signed(by)).await;
        assert!(error.contains("the position to replay from is not the start of the oplog slice"), "{error}");
    }
}

#[tokio::test]
async fn a_position_to_replay_from_is_read_back_as_it_was_written() {
    let kept: [fn(&mut Manifest); 5] = [
        |_| {},
        without_slice,
        |m| {
            without_slice(m);
            m.consistency.replay_from.as_mut().unwrap().time = archive::LISTED;
        },
        // The entry has no term, or there was none of this time.
        |m| m.consistency.replay_from.as_mut().unwrap().term = None,
        |m| {
            let position = m.consistency.replay_from.as_mut().unwrap();
            (position.term, position.digest) = (None, None);
        },
    ];
    for change in kept {
        let mut expected = None;
        let (bytes, is_written) = forgery(NEWEST_VERSION, |m| {
            change(m);
            expected = m.consistency.replay_from;
        })
        .await;
        let read = Manifest::from_bytes(&bytes).unwrap();
        assert!(is_written && expected.is_some() && read.consistency.replay_from == expected, "{expected:?}");
        assert_eq!(Manifest::outline(&mut std::io::Cursor::new(bytes)).unwrap().consistency, read.consistency);
    }
}

#[tokio::test]
async fn counts_that_overflow_together_are_an_error() {
    let error = forged(|c| {
        let mut other = c.segments[0].clone();
        other.object.key = "shop/orders.00001.bson.zst".to_owned();
        (c.segments[0].documents, other.documents) = (u64::MAX, u64::MAX);
        c.segments.push(other);
    })
    .await;
    assert!(error.contains("beyond the limits"), "{error}");
}

#[test]
fn options_nested_deeper_than_json_readers_go_are_kept_as_bytes_alone() {
    let nested = |levels: usize| (0..levels).fold(rawdoc! {}, |inner, _| rawdoc! { "a": inner });
    let shown = RawValue::of(&nested(90));
    assert!(shown.json().is_object());
    let value = RawValue::of(&nested(180));
    assert!(value.json().is_null());
    let back: RawValue = serde_json::from_slice(&serde_json::to_vec(&value).unwrap()).unwrap();
    assert_eq!(back, value);
}

/// The manifest of a stored backup.
fn stored() -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/v1/atlas-backup-2026-11-22T21-45-00-000Z/manifest.json");
    std::fs::read_to_string(file).unwrap()
}

#[test]
fn a_manifest_is_read_piece_by_piece_as_it_is_read_whole() {
    let bytes = stored().into_bytes();
    let of = |bytes: &[u8]| std::io::Cursor::new(bytes.to_vec());
    let whole = Manifest::from_bytes(&bytes).unwrap();
    assert_eq!(Manifest::from_file(&mut of(&bytes)).unwrap(), whole);
    let outline = Manifest::outline(&mut of(&bytes)).unwrap();
    assert!(
        outline.collections.len() < whole.collections.len()
            && outline.buckets() == whole.buckets()
            && !whole.collections.is_empty()
    );
    assert_eq!(outline, whole.clone().without_lists());
    assert_eq!(serde_json::to_value(outline.totals).unwrap(), serde_json::to_value(whole.totals).unwrap());

    let text = String::from_utf8(bytes).unwrap();
    let changed = text.replace("\"frames\": 4", "\"frames\": 5");
    let newer = text.replace("\"formatVersion\": 1", "\"formatVersion\": 999");
    for (text, wrong) in [
        (changed.as_str(), "was changed after it was written"),
        (newer.as_str(), "is of format version 999"),
        (&text[..text.len() / 2], "cannot be read: EOF"),
    ] {
        let errors = [
            Manifest::from_bytes(text.as_bytes()).unwrap_err(),
            Manifest::from_file(&mut of(text.as_bytes())).unwrap_err(),
            Manifest::outline(&mut of(text.as_bytes())).unwrap_err(),
        ];
        for error in errors {
            assert!(error.to_string().contains(wrong), "{error}");
        }
    }
}

#[test]
fn a_manifest_that_no_reader_takes_is_not_written() {
    let mut manifest = Manifest::from_bytes(stored().as_bytes()).unwrap();
    let index = manifest.collections.iter().find_map(|c| c.indexes.first()).unwrap().clone();
    manifest.collections[0].indexes = vec![index; 5_000];
    let error = manifest.to_bytes().unwrap_err().to_string();
    assert!(error.contains("cannot be read back") && error.contains("more than 4096 items"), "{error}");
}

#[test]
fn a_list_of_a_manifest_that_is_too_long_is_refused() {
    let text = stored();
    let many = text.replacen("\"include\": []", &format!("\"include\": [{}\"\"]", "\"\",".repeat(100_000)), 1);
    assert_ne!(many, text);
    let error = Manifest::from_bytes(many.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("a list has more than 100000 items"), "{error}");
}
