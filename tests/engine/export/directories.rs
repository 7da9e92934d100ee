//! Directories of files.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use bsonvault::engine::export::{ExportOptions, Format};
use bsonvault::error::ErrorKind;
use bsonvault::format::manifest::CollectionKind;

use super::{check_metadata, collection, exported, gzip, raw, taken};

use crate::support::files::{files, gunzip};
use crate::support::on_disk::OnDisk as _;
use crate::support::vault::Vault;

/// Every file below a directory, by path. Also checks the modes of files and directories.
fn found_in(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let found = files(root);
    for file in found.keys().map(|name| root.join(name)) {
        assert_eq!((mode(&file), mode(file.parent().unwrap()), mode(root)), (0o600, 0o700, 0o700), "{file:?}");
    }
    found
}

#[tokio::test]
async fn a_directory_has_the_files_of_a_dump_and_no_others() {
    let vault = Vault::new();
    let backup = taken(&vault, false).await;
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("dump");
    let options = ExportOptions { oplog: true, ..ExportOptions::of(Format::Dir) };
    let report = exported(&vault, &backup, &options, &root).await.unwrap();
    let found = found_in(&root);
    assert_eq!(report.written_bytes, found.values().map(|f| f.len() as u64).sum::<u64>());
    let escaped = |name: &str| match name {
        "with space" => "with+space".to_owned(),
        "slash/and\\back" => "slash%2Fand%5Cback".to_owned(),
        "per%cent" => "per%25cent".to_owned(),
        "%2F" => "%252F".to_owned(),
        "ünï-日本" => "%C3%BCn%C3%AF-%E6%97%A5%E6%9C%AC".to_owned(),
        "new\nline" => "new%0Aline".to_owned(),
        // Truncated, with the SHA-1 of the name, which another program computed.
        long if long.starts_with("éé") => format!("{}%240FNKeUD21fWAlOmLIzrveqlQTHQ", &"%C3%A9".repeat(80)[..208]),
        plain => plain.to_owned(),
    };
    let mut expected = BTreeMap::new();
    for c in &backup.manifest.collections {
        let name = escaped(&c.name);
        let metadata = format!("{}/{name}.metadata.json", c.database);
        check_metadata(std::str::from_utf8(&found[&metadata]).unwrap(), c, c.kind == CollectionKind::Collection);
        expected.insert(metadata, None);
        let data = match c.kind {
            CollectionKind::Collection => format!("{}/{name}.bson", c.database),
            CollectionKind::TimeSeries => format!("{}/system.buckets.{name}.bson", c.database),
            CollectionKind::View => continue,
        };
        expected.insert(data, Some(raw(&backup, &c.segments)));
    }
    let version = &backup.manifest.source.server_version;
    let prelude = format!("{{\"ServerVersion\":\"{version}\",\"ToolVersion\":\"bsonvault {}\"}}", env!("CARGO_PKG_VERSION"));
    expected.insert("prelude.json".to_owned(), Some(prelude.into_bytes()));
    expected.insert("oplog.bson".to_owned(), Some(Vec::new()));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in expected {
        assert!(bytes.is_none_or(|bytes| bytes == found[&name]), "other bytes in {name}");
    }
    assert_eq!(found["kinds/empty.bson"], b"");
    assert_eq!(found["kinds/capped.bson"].len() as u64, collection(&backup, "capped").bytes);

    // The same with gzip, except for the names, into an empty directory.
    let packed = directory.path().join("packed");
    std::fs::create_dir(&packed).unwrap();
    std::fs::set_permissions(&packed, std::fs::Permissions::from_mode(0o700)).unwrap();
    exported(&vault, &backup, &ExportOptions { oplog: true, ..gzip(Format::Dir) }, &packed).await.unwrap();
    let found_packed = found_in(&packed);
    assert_eq!(found_packed.len(), found.len());
    for (name, bytes) in &found {
        let packed_name = if name == "oplog.bson" { name.clone() } else { format!("{name}.gz") };
        assert_eq!(&gunzip(&found_packed[&packed_name]), bytes, "{name}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "something is left beside them");

    // Existing files are left alone.
    for (place, message) in [
        (root.clone(), "exists already, and is not empty"),
        (root.join("prelude.json"), "exists already, and is not a directory"),
        (directory.path().join("no/such"), "no does not exist"),
        (backup.store.directory().join("x"), "would be inside the backup"),
    ] {
        let error = exported(&vault, &backup, &options, &place).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Usage && error.to_string().contains(message), "{error}");
    }
    assert_eq!(found_in(&root), found);
}
