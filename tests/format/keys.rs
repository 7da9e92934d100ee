//! The keys of a backup's objects: escaped as in mongodump, and distinct even if case does not
//! matter.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bsonvault::format::key::{
    OPLOG, Stems, checkpoint_number, escape_collection, is_cut_short, is_reader, metadata, reader, segment, segment_number,
    unescape_collection,
};
use bsonvault::names::Namespace;
use sha1::{Digest as _, Sha1};
use uuid::Uuid;

fn stem(stems: &mut Stems, database: &str, collection: &str) -> String {
    stems.assign(&Namespace::new(database, collection))
}

#[test]
fn collections_are_escaped_as_mongodump_does() {
    assert_eq!(escape_collection("slash/and\\back per%cent"), "slash%2Fand%5Cback+per%25cent");
    assert_eq!(escape_collection("ünï-日本"), "%C3%BCn%C3%AF-%E6%97%A5%E6%9C%AC");
    assert_eq!(escape_collection("new\nline~._"), "new%0Aline~._");
    let long = escape_collection(&"ü".repeat(100));
    assert_eq!(long.len(), 238);
    assert!(long.contains("%24"));
    assert_eq!(escape_collection(&"b".repeat(225)), "b".repeat(225));
}

#[test]
fn escaped_names_are_read_back() {
    for name in ["slash/and\\back per%cent", "ünï-日本", "new\nline~._", "%2F", "a+b", "", "😀", "nul\0"] {
        assert_eq!(unescape_collection(&escape_collection(name)).as_deref(), Some(name));
    }
    assert_eq!(unescape_collection("%c3%bc ü\"").as_deref(), Some("ü ü\""));
    for wrong in ["%", "a%2", "%zz", "%+1", "%C3", "%é1", "%FF%FE"] {
        assert_eq!(unescape_collection(wrong), None, "{wrong}");
    }
}

#[test]
fn names_that_were_cut_short_are_known() {
    for name in ["ü".repeat(100), "a$".repeat(200), "é/".repeat(119)] {
        let escaped = escape_collection(&name);
        assert!(is_cut_short(&escaped));
        assert_ne!(unescape_collection(&escaped), Some(name));
    }
    assert!(!is_cut_short(&"b".repeat(238)));
    assert!(!is_cut_short(&escape_collection("a$b")));
}

#[test]
fn names_that_meet_without_case_get_different_files() {
    let mut stems = Stems::default();
    let (a, b) = (stem(&mut stems, "d", "CaseA"), stem(&mut stems, "d", "casea"));
    assert_eq!(a, "d/CaseA");
    assert!(b.starts_with("d/casea%24"), "{b}");
    assert_ne!(stem(&mut stems, "D", "CaseA").to_lowercase(), a.to_lowercase());
}

#[test]
fn a_collection_named_like_another_one_with_its_hash_gets_its_own_file() {
    let mut stems = Stems::default();
    stem(&mut stems, "d", "CaseA");
    let trap = format!("casea${}", URL_SAFE_NO_PAD.encode(Sha1::digest(b"casea")));
    let taken = [stem(&mut stems, "d", &trap), stem(&mut stems, "d", "casea"), stem(&mut stems, "d", "casea")];
    assert_eq!(taken.iter().map(|s| s.to_lowercase()).collect::<HashSet<_>>().len(), 3, "{taken:?}");
}

#[test]
fn a_database_named_like_a_file_of_the_backup_gets_another_directory() {
    let mut stems = Stems::default();
    assert!(stem(&mut stems, "sha256sums", "c").starts_with("sha256sums%24"));
    assert_eq!(stem(&mut stems, "oplog", "c"), "oplog/c");
    assert!(stem(&mut stems, "Resume.00012.json", "c").starts_with("Resume.00012.json%24"));
    assert_eq!((checkpoint_number("resume.00012.json"), checkpoint_number("resume.12.json")), (Some(12), None));
    let reader = reader(Uuid::from_u128(0xabc));
    assert!(is_reader(&reader) && !is_reader(&reader.to_uppercase()) && !is_reader("reader.json") && !is_reader("reader.x.json"));
    assert!(stem(&mut stems, &reader.to_uppercase(), "c").contains(".JSON%24"));
    assert_eq!((segment_number("d/c", "d/c.00007.bson.zst"), segment_number("d/c", "d/c.x.00007.bson.zst")), (Some(7), None));
    let slice = segment(OPLOG, 3);
    assert_eq!(slice, "oplog.00003.bson.zst");
    assert!(stem(&mut stems, &slice.to_uppercase(), "c").starts_with("OPLOG.00003.BSON.ZST%24"));
}

#[test]
fn every_suffix_of_every_stem_is_distinct() {
    let mut stems = Stems::default();
    let mut keys = HashSet::new();
    for name in ["x", "x.metadata", "x.metadata.json", "x.00000", "x.00000.bson.zst", "X"] {
        let stem = stem(&mut stems, "d", name);
        assert!(keys.insert(metadata(&stem).to_lowercase()));
        assert!(keys.insert(segment(&stem, 0).to_lowercase()));
    }
}
