//! Ordinary tools can read a backup.

use std::process::Command;

use bson::rawdoc;
use bsonvault::format::key;

use crate::support::archive::{self, Given, Shape};
use crate::support::vault::store;

#[tokio::test]
async fn sha256sum_and_zstd_read_a_backup() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let documents: Vec<Vec<u8>> = (0..200).map(|n| rawdoc! { "_id": n, "text": format!("number {n}") }.into_bytes()).collect();
    let names = ["orders", "odd/näme #1 100%", " spaces ", "CASE", "case", "new\nline \\ back", &"ü".repeat(60), "x.00000"];
    let given: Vec<Given> = names
        .iter()
        .flat_map(|name| ["shop", "100% #1", "Ünï\u{7}"].map(|database| Given::new(database, name, documents.clone())))
        .collect();
    let manifest = archive::write(&store, &given, Shape::of(500, 1000)).await.unwrap();

    let sums =
        Command::new("sha256sum").args(["--check", "--strict", key::SHA256SUMS]).current_dir(directory.path()).output().unwrap();
    assert!(sums.status.success(), "{}", String::from_utf8_lossy(&sums.stderr));
    let lines = String::from_utf8(sums.stdout).unwrap();
    assert_eq!(lines.lines().filter(|l| l.ends_with(": OK")).count(), manifest.objects().count());

    let orders = &manifest.collections[0];
    assert!(orders.segments.len() > 1);
    let mut keys: Vec<&str> = orders.segments.iter().map(|s| s.object.key.as_str()).collect();
    keys.sort_unstable();
    let plain = match Command::new("zstd").arg("-dc").args(&keys).current_dir(directory.path()).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        }
        Err(e) => {
            println!("without a zstd program ({e}), its library reads the segments");
            let whole: Vec<u8> = keys.iter().flat_map(|k| std::fs::read(directory.path().join(k)).unwrap()).collect();
            zstd::stream::decode_all(whole.as_slice()).unwrap()
        }
    };
    assert!(plain == documents.concat(), "zstd -dc gave other bytes than those of the documents");
}
