//! Backups that were written once and must stay readable forever, and damaged ones with the message
//! that each must give.

use bsonvault::format::frame::Codec;
use bsonvault::format::manifest::{ClusterTime, CollectionKind, ConsistencyKind, OplogPosition};
use bsonvault::oplog::Position;
use bsonvault::repository::catalog::Backup;

use crate::support::files::fixture;
use crate::support::vault::{catalog, verified};

#[tokio::test]
async fn a_backup_of_version_1_is_read_and_proven() {
    let backup = catalog(&fixture("v1")).find("atlas-backup-2026-11-22T21-45-00-000Z").await.unwrap();
    assert_eq!((backup.manifest.format_version, &backup.manifest.oplog), (1, &None));
    proven(&backup).await;
}

#[tokio::test]
async fn a_backup_of_version_2_with_an_oplog_slice_is_read_and_proven() {
    let backup = catalog(&fixture("v2")).find("atlas-backup-2026-11-22T21-45-00-000Z").await.unwrap();
    let manifest = &backup.manifest;
    assert_eq!((manifest.format_version, manifest.consistency.kind), (2, ConsistencyKind::Oplog));
    let time = |t| ClusterTime { t, i: 7 };
    let consistency = &manifest.consistency;
    assert_eq!((consistency.cluster_time, consistency.from), (Some(time(1_795_383_900)), Some(time(1_795_383_899))));
    assert_eq!(consistency.to, Some(time(1_795_383_901)));
    let slice = manifest.oplog.as_ref().unwrap();
    let found = (slice.documents, slice.bytes, slice.digest.to_string(), slice.segments.len());
    assert_eq!(found, (6, ENTRIES_BYTES, ENTRIES_DIGEST.to_owned(), 2));
    assert_eq!((slice.from, slice.to), (time(1_795_383_899), time(1_795_383_901)));
    let keys: Vec<&str> = manifest.objects().map(|o| o.key.as_str()).filter(|key| !key.contains('/')).collect();
    assert_eq!(keys, ["oplog.00000.bson.zst", "oplog.00001.bson.zst"]);
    assert!(manifest.sums().contains("  oplog.00001.bson.zst\n"));
    proven(&backup).await;
}

#[tokio::test]
async fn a_backup_of_version_3_with_frames_in_columns_is_read_and_proven() {
    let backup = catalog(&fixture("v3")).find("atlas-backup-2026-11-22T21-45-00-000Z").await.unwrap();
    assert_eq!((backup.manifest.format_version, backup.manifest.settings.codec), (3, Codec::Columns));
    let past = backup.manifest.collections.iter().find(|c| c.name == "past orders").unwrap();
    let in_columns = past.segments.iter().map(|s| fixture("v3").join(backup.manifest.name.as_str()).join(&s.object.key));
    let starts: Vec<_> = in_columns.map(|path| std::fs::read(path).unwrap()[..4].to_vec()).collect();
    assert_eq!(starts, [b"bvC\x01".to_vec()]);
    assert_eq!((past.documents, past.bytes, past.digest.to_string().as_str()), (206, 67_702, PAST_DIGEST));
    let report = verified(&backup, true).await;
    assert!(report.is_sound(), "{report:#?}");
    assert_eq!(report.notes, [ODD, "shop.past orders: 1 document without an _id: an import gives each one"]);
    assert_eq!(report.documents, backup.manifest.totals.documents);
}

#[tokio::test]
async fn a_backup_of_version_4_with_a_slice_and_a_position_to_replay_from_is_read_and_proven() {
    let backup = catalog(&fixture("v4")).find("atlas-backup-2026-11-22T21-45-00-000Z").await.unwrap();
    let consistency = &backup.manifest.consistency;
    assert_eq!((backup.manifest.format_version, consistency.kind), (4, ConsistencyKind::Oplog));
    assert_eq!(consistency.replay_from, Some(position((1_795_383_899, 7), "8d0aa5d0da8422d50128f97ae9c399ed")));
    assert_eq!(consistency.from, consistency.replay_from.map(|position| position.time));
    proven(&backup).await;
}

#[tokio::test]
async fn a_snapshot_of_version_4_from_a_server_is_read_and_proven() {
    let backup = catalog(&fixture("v4")).find("atlas-backup-2026-11-30T12-46-02-092Z").await.unwrap();
    let (manifest, consistency) = (&backup.manifest, &backup.manifest.consistency);
    assert_eq!((manifest.format_version, consistency.kind, &manifest.oplog), (4, ConsistencyKind::Snapshot, &None));
    let prepared = position((1_796_042_761, 43), "1907176d064c1128ce989b16745abe1d");
    assert_eq!(consistency.replay_from, Some(prepared));
    assert_eq!(consistency.cluster_time, Some(ClusterTime { t: 1_796_042_762, i: 3 }));
    let entry = std::fs::read(fixture("v4").join("replay-from.bson")).unwrap();
    assert_eq!(OplogPosition::from(Position::of(&entry).unwrap()), prepared);
    let found = manifest.collections.iter().map(|c| (c.name.as_str(), c.documents, c.bytes, c.digest.to_string()));
    let expected = [
        ("accounts", 4, 108, "3e6c526abff9634c8142969f32a26390".to_owned()),
        ("empty", 0, 0, "00000000000000000000000000000000".to_owned()),
        ("orders", 15, 1_155, "b3164a0f70cdb0a795330bab106f027c".to_owned()),
    ];
    assert_eq!(found.collect::<Vec<_>>(), expected);
    let report = verified(&backup, true).await;
    assert!(report.is_sound() && report.documents == 19 && report.notes.is_empty(), "{report:#?}");
}

/// The position of an entry of the first term.
fn position((t, i): (u32, u32), digest: &str) -> OplogPosition {
    let digest = digest.to_owned().try_into().unwrap();
    OplogPosition { time: ClusterTime { t, i }, term: Some(1), digest: Some(digest) }
}

const PAST_DIGEST: &str = "90661c70b4b6062849368b042f2f2bd6";

const ENTRIES_BYTES: u64 = 2834;
const ENTRIES_DIGEST: &str = "d45704ad80e930db3aff07b1f22b83a1";

/// The note if every document is checked.
const ODD: &str = "shop.odd/näme #1 100%: 1 document without an _id: an import gives each one";

/// These fixtures hold the same collections; all of one is verified. Entries of a slice do not
/// count as documents.
async fn proven(backup: &Backup) {
    let found: Vec<_> = backup
        .manifest
        .collections
        .iter()
        .map(|c| (c.namespace().to_string(), c.kind, c.documents, c.bytes, c.digest.to_string(), c.segments.len()))
        .collect();
    let expected = EXPECTED.map(|(name, kind, documents, bytes, digest, segments)| {
        (name.to_owned(), kind, documents, bytes, digest.to_owned(), segments)
    });
    assert_eq!(found, expected);
    for deep in [false, true] {
        let report = verified(backup, deep).await;
        assert!(report.is_sound(), "{report:#?}");
        // Only a deep verification checks every document: one of them has no `_id`.
        let notes: &[&str] = if deep { &[ODD] } else { &[] };
        assert_eq!(report.notes, notes);
        assert_eq!(report.objects, backup.manifest.objects().count() as u64);
        assert_eq!(report.stored_bytes, backup.manifest.objects().map(|o| o.bytes).sum::<u64>());
        let documents = expected.iter().map(|e| e.2).sum::<u64>();
        assert_eq!(report.documents, if deep { documents } else { 0 });
    }
}

/// Namespace, kind, documents, bytes, content digest, segments.
const EXPECTED: [(&str, CollectionKind, u64, u64, &str, usize); 6] = [
    ("shop.orders", CollectionKind::Collection, 12, 4044, "4f4496fe681ccfac620fbfb80735064d", 2),
    ("shop.open orders", CollectionKind::View, 0, 0, "00000000000000000000000000000000", 0),
    ("shop.odd/näme #1 100%", CollectionKind::Collection, 6, 302, "d5d73a7e6370c5e2fa147007f7b30f23", 1),
    ("telemetry.Log", CollectionKind::Collection, 0, 0, "00000000000000000000000000000000", 0),
    ("telemetry.log", CollectionKind::Collection, 1, 19, "984e1df2be8e61c7260e8971e868d707", 1),
    ("telemetry.readings", CollectionKind::TimeSeries, 4, 888, "2b57837225304baa27c31999ab58d4eb", 1),
];

#[tokio::test]
async fn every_damaged_backup_gives_its_message() {
    let mut seen = 0;
    let in_version = |part| std::fs::read_dir(fixture(part)).unwrap();
    for entry in in_version("damaged").chain(in_version("damaged-v2")) {
        let directory = entry.unwrap().path();
        let expected = std::fs::read_to_string(directory.join("expected.txt")).unwrap();
        let location = directory.join("backup").display().to_string();
        let given = match catalog(&directory).find("backup").await {
            Err(e) => format!("{e}\n"),
            Ok(backup) => {
                let report = verified(&backup, true).await;
                report.problems.iter().map(|p| format!("{}\n", p.message)).collect()
            }
        };
        assert_eq!(given.replace(&location, "BACKUP"), expected, "{}", directory.display());
        seen += 1;
    }
    assert_eq!(seen, 12 + 6);
}
