//! Every object of an archive is damaged in every way: `verify` tells it, and an import that needs
//! the object fails.

use std::path::Path;
use std::time::Duration;

use bsonvault::context::Context;
use bsonvault::engine::import::{self, DocumentSource as _, ImportOptions, PointInTime};
use bsonvault::engine::moment::Moment;
use bsonvault::error::{ErrorKind, Result};
use bsonvault::format::chain::{Link, Piece, PieceHeader};
use bsonvault::format::digest::ContentDigest;
use bsonvault::format::frame::{Compression, Compressor, Decompressor};
use bsonvault::mongo::{MongoUri, Role};

use super::{Made, VerifyArchiveReport, VerifyOptions, archived, made, verify_archive};
use crate::support::files::files;
use crate::support::server::Server;
use crate::support::vault::Vault;

/// Plans an import of the archive's end on its first base: so every part is read.
async fn planned(made: &Made, target: &Server) -> Result<Vec<String>> {
    let (cx, target) = (Context::default(), MongoUri::parse(Role::Target, &target.uri()).unwrap());
    let base = Some(made.bases[0].as_str());
    let origin = PointInTime::open(&made.vault.repository(), base, Moment::At(made.end), &cx).await?;
    let plan = import::plan(&origin, &target, None, &ImportOptions::default(), &cx).await?;
    plan.close().await;
    Ok(origin.archived().unwrap().parts().iter().map(|span| span.what.name()).collect())
}

/// What is done to an object.
#[derive(Debug, Clone, Copy)]
enum Damage<'a> {
    Flip(usize),
    Cut(usize),
    Add,
    Remove,
    Swap(&'a str),
}

fn damage(root: &Path, key: &str, damage: Damage<'_>) {
    let (path, mut bytes) = (root.join(key), std::fs::read(root.join(key)).unwrap());
    match damage {
        Damage::Flip(at) => bytes[at] ^= 1 << (at % 8),
        Damage::Cut(length) => bytes.truncate(length),
        Damage::Add => bytes.push(b'x'),
        Damage::Remove => return std::fs::remove_file(path).unwrap(),
        Damage::Swap(other) => {
            let other = root.join(other);
            bytes = std::fs::read(&other).unwrap();
            std::fs::copy(&path, other).unwrap();
        }
    }
    std::fs::write(path, bytes).unwrap();
}

/// The object's own kind: what it may be mistaken for.
fn kind(key: &str) -> &str {
    if key.starts_with("open/") { "open" } else { key.rsplit('/').next().unwrap() }
}

#[tokio::test]
async fn any_damage_of_any_object_is_told_and_stops_an_import_that_needs_it() {
    let (made, target) = tokio::join!(made(), Server::standalone());
    let (root, whole) = (made.directory(), files(&made.directory()));
    let sound = made.verified(true).await;
    assert!(sound.is_sound() && sound.notes.is_empty(), "{sound:?}");
    assert!(sound.links >= 3 && sound.pieces >= 4 && sound.entries > 100, "{sound:?}");
    assert_eq!(sound.objects, whole.len() as u64, "{:?}", whole.keys());
    assert_eq!(sound.stored_bytes, whole.values().map(|bytes| bytes.len() as u64).sum::<u64>());
    let needed = planned(&made, &target).await.unwrap();

    for (key, bytes) in &whole {
        let other = whole.keys().find(|other| *other != key && kind(other) == kind(key));
        let flips = (0..16).map(|n| n * (bytes.len() - 1) / 15).map(Damage::Flip);
        let cuts = [0, 1, bytes.len() / 2, bytes.len() - 1].map(Damage::Cut);
        let all = flips.chain(cuts).chain([Damage::Add, Damage::Remove]).chain(other.map(|other| Damage::Swap(other)));
        for (number, done) in all.enumerate() {
            damage(&root, key, done);
            let report = made.verified(number % 2 == 0).await;
            // The end of a line of JSON is not a part of it.
            let is_blank = matches!(done, Damage::Cut(length) if length + 1 == bytes.len()) && key.ends_with(".json");
            assert!(!report.is_sound() || is_blank, "{key} {done:?}: {report:?}");
            assert!(report.failure().is_none_or(|e| e.kind() == ErrorKind::Mismatch));
            if number < 8 || matches!(done, Damage::Cut(_) | Damage::Remove | Damage::Swap(_)) {
                let imported = planned(&made, &target).await;
                let is_needed = needed.iter().any(|part| key.starts_with(part.as_str())) || key == "chain.json";
                let is_beside = matches!(kind(key), "SHA256SUMS" | "index.bson.zst" | "archiver.json");
                match imported {
                    Ok(_) => assert!(is_beside || is_blank || !is_needed, "{key} {done:?} is imported"),
                    Err(e) => {
                        let kinds = [ErrorKind::Damaged, ErrorKind::NotFound, ErrorKind::Refused];
                        assert!(kinds.contains(&e.kind()) && !is_beside, "{key} {done:?}: {e:?}");
                    }
                }
            }
            for restored in [Some(key), other].into_iter().flatten() {
                std::fs::write(root.join(restored), &whole[restored]).unwrap();
            }
        }
    }
    assert!(made.verified(true).await.is_sound());
}

#[tokio::test]
async fn what_was_written_anew_does_not_fit_what_comes_after_it() {
    let made = made().await;
    let root = made.directory();
    let told = |name: &str, expected: &str, report: &VerifyArchiveReport| {
        let found = report.problems.iter().any(|problem| problem.message.contains(expected));
        assert!(found, "{name}: {expected:?} is not in {:?}", report.problems);
    };

    // A link's manifest that is valid by itself.
    let links = made.links().await;
    let path = root.join(&links[0]).join("manifest.json");
    let before = std::fs::read(&path).unwrap();
    let mut link = Link::from_bytes(&before).unwrap();
    link.tool.version.push_str("-forged");
    std::fs::write(&path, link.seal().unwrap()).unwrap();
    told("manifest", &format!("the link before it, {}, is missing or was exchanged", links[0]), &made.verified(false).await);
    std::fs::write(&path, &before).unwrap();

    // Another end, which only the entries contradict.
    let path = root.join(links.last().unwrap()).join("manifest.json");
    let before = std::fs::read(&path).unwrap();
    let mut link = Link::from_bytes(&before).unwrap();
    link.to.digest = Some(ContentDigest(7));
    std::fs::write(&path, link.seal().unwrap()).unwrap();
    told("end", "ends with the entry of", &made.verified(true).await);
    std::fs::write(&path, &before).unwrap();

    // Pieces: one before others, and the last one.
    for number in made.place.pieces().await.unwrap().into_iter().rev().take(2) {
        let path = root.join("open").join(format!("{number:010}.bson.zst"));
        let before = std::fs::read(&path).unwrap();
        std::fs::write(&path, forged(before.clone())).unwrap();
        told("piece", "was", &made.verified(false).await);
        std::fs::write(&path, &before).unwrap();
    }
    assert!(made.verified(true).await.is_sound());
}

/// The same piece with another compression: valid by itself.
fn forged(bytes: Vec<u8>) -> Vec<u8> {
    let mut decompressor = Decompressor::new().unwrap();
    let piece = Piece::open(bytes.into(), &mut decompressor).unwrap();
    let frames = piece.entries(&mut decompressor).unwrap();
    let header: &PieceHeader = &piece.header;
    let contents = frames.iter().map(|frame| (frame.as_slice(), header.content()));
    header.piece(contents, &mut Compressor::new(Compression::of(19)).unwrap()).unwrap().chunks.concat()
}

#[tokio::test]
async fn what_does_not_belong_there_is_a_note_and_what_an_archiver_does_meanwhile_is_none() {
    let made = made().await;
    let root = made.directory();
    let links = made.links().await;
    for stray in
        ["stray", "open/stray", "other/stray", &format!("{}/stray", links[0]), "2026-01-01T00-00-00Z/oplog.00000.bson.zst"]
    {
        std::fs::create_dir_all(root.join(stray).parent().unwrap()).unwrap();
        std::fs::write(root.join(stray), b"stray").unwrap();
    }
    let report = made.verified(false).await;
    assert!(report.is_sound() && report.notes.len() == 5, "{report:?}");

    // An archiver that rolls all the time, and verifications beside it.
    let server = Server::replica_set("beside").await;
    let vault = Vault::new();
    let archiving = archived(&server, &vault, Duration::from_secs(1), (6, 0));
    let rounds = std::cell::Cell::new(0);
    let verifying = async {
        loop {
            tokio::task::yield_now().await;
            for place in vault.repository().chains().await.unwrap() {
                // It begins with an empty directory.
                let options = VerifyOptions { deep: true };
                let Ok(report) = verify_archive::run(&place, &options, &Context::default()).await else { continue };
                if report.links + report.pieces > 0 {
                    assert!(report.is_sound() && report.notes.is_empty(), "{report:?}");
                    rounds.set(rounds.get() + 1);
                }
            }
        }
    };
    tokio::select! {
        (place, _) = archiving => assert!(place.parts().await.unwrap().unwrap().links.len() >= 6),
        never = verifying => never,
    }
    assert!(rounds.get() > 10, "{}", rounds.get());
}
