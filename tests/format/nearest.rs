//! The probable meaning of an unknown name.

use bsonvault::names::{closest, nearest};

#[test]
fn slips_are_told_and_other_names_are_not() {
    let known = ["databases", "include", "keep", "BACKUP_KEEP_DAILY", "BACKUP_KEEP_WEEKLY", "MONGO_URI_ATLAS"];
    for (given, meant) in [
        ("database", "databases"),
        ("Databases", "databases"),
        ("includes", "include"),
        ("inculde", "include"),
        ("kep", "keep"),
        ("BACKUP_KEEP_DAYLY", "BACKUP_KEEP_DAILY"),
        ("backup-keep-weekly", "BACKUP_KEEP_WEEKLY"),
        ("BAKCUP_KEEP_DAILY", "BACKUP_KEEP_DAILY"),
        ("MONGO_URL_ATLAS", "MONGO_URI_ATLAS"),
    ] {
        assert_eq!(nearest(given, known), Some(meant), "{given}");
    }
    for given in ["", "x", "collection", "PATH", "MONGO_URI_PRODUCTION", &"databases".repeat(1000)] {
        assert_eq!(nearest(given, known), None, "{given}");
    }
    assert_eq!(nearest("x", []), None);
    assert_eq!(closest("ab", ["ba", "abcd"]), Some(("ba", 1)));
}
