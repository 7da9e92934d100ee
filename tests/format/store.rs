//! The object store on a local disk.

use crate::support::on_disk::OnDisk as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use bsonvault::error::ErrorKind;
use bsonvault::repository::backend::{Entry, Objects};
use bytes::Bytes;
use tempfile::{TempDir, tempdir};

use crate::support::vault::store;

fn temporary() -> (TempDir, Objects) {
    let directory = tempdir().unwrap();
    let store = store(&directory.path().join("a/b"));
    (directory, store)
}

fn mode(path: impl AsRef<Path>) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

async fn put(store: &Objects, key: &str, bytes: &'static [u8]) -> bsonvault::error::Result<()> {
    store.put(key, vec![Bytes::from_static(bytes)]).await
}

#[tokio::test]
async fn what_is_put_is_got_listed_and_deleted() {
    let (_directory, store) = temporary();
    assert!(!store.exists().await && store.list().await.unwrap().is_empty() && store.top().await.unwrap().prefixes.is_empty());
    store.put("x/one", vec![Bytes::from_static(b"12"), Bytes::new(), Bytes::from_static(b"345")]).await.unwrap();
    put(&store, "y/empty", b"").await.unwrap();
    put(&store, "top", b"old and longer").await.unwrap();
    put(&store, "top", b"new").await.unwrap();
    assert_eq!(store.get("x/one").await.unwrap(), "12345");
    assert_eq!(store.get("y/empty").await.unwrap(), "");
    assert_eq!(store.get("top").await.unwrap(), "new");
    assert_eq!(store.size("x/one").await.unwrap(), 5);
    let entry = |key: &str, size| Entry { key: key.to_owned(), size };
    assert_eq!(store.list().await.unwrap(), [entry("top", 3), entry("x/one", 5), entry("y/empty", 0)]);
    assert_eq!(store.top().await.unwrap().prefixes, ["x", "y"]);
    assert_eq!(store.below("x").list().await.unwrap(), [entry("one", 5)]);

    store.delete("x/one").await.unwrap();
    store.delete("x/one").await.unwrap();
    store.delete("never/there").await.unwrap();
    for error in
        [store.get("x/one").await.unwrap_err(), store.size("x/one").await.unwrap_err(), store.get("y").await.unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    store.delete_all("top").await.unwrap();
    assert!(!store.directory().exists());
    store.delete_all("top").await.unwrap();
}

#[tokio::test]
async fn files_and_directories_are_closed_to_others() {
    let (directory, store) = temporary();
    put(&store, "d/f", b"x").await.unwrap();
    for made in ["a", "a/b", "a/b/d"] {
        assert_eq!(mode(directory.path().join(made)), 0o700, "{made}");
    }
    assert_eq!(mode(directory.path().join("a/b/d/f")), 0o600);
    put(&store, "d/f", b"again").await.unwrap();
    assert_eq!(mode(directory.path().join("a/b/d/f")), 0o600);
}

#[tokio::test]
async fn keys_are_kept_as_they_are() {
    let (directory, store) = temporary();
    let longest = format!("d/{}", "n".repeat(253));
    let mut keys = [
        "d/100%",
        "d/a%2Fb%25",
        "d/über-日本",
        "d/a+b c",
        "d/[*]?",
        "d/~x",
        "d/..x",
        "d/'\"",
        "d #1/x",
        "d/a#b",
        longest.as_str(),
    ];
    for key in keys {
        store.put(key, vec![Bytes::from(key.to_owned())]).await.unwrap();
        assert!(directory.path().join("a/b").join(key).is_file(), "{key:?} has another name on the disk");
        assert_eq!(store.get(key).await.unwrap(), key);
    }
    keys.sort_unstable();
    let listed: Vec<String> = store.list().await.unwrap().into_iter().map(|e| e.key).collect();
    assert_eq!(listed, keys);
    for key in keys {
        store.delete(key).await.unwrap();
    }
    assert!(store.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn roots_of_any_name_are_kept_as_they_are() {
    let directory = tempdir().unwrap();
    for root in ["100%", "a%20b", "with space", "über", "c#1", "#2"] {
        let store = store(&directory.path().join(root));
        put(&store, "d/f", b"x").await.unwrap();
        assert!(directory.path().join(root).join("d/f").is_file());
        assert_eq!(store.list().await.unwrap(), [Entry { key: "d/f".to_owned(), size: 1 }], "{root}");
    }
}

#[tokio::test]
async fn names_that_the_store_keeps_for_itself_are_refused() {
    let (_directory, store) = temporary();
    let error = put(&store, "d/a#1", b"x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage);
    assert!(store.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn keys_that_lead_out_are_refused() {
    let (directory, store) = temporary();
    std::fs::write(directory.path().join("secret"), "x").unwrap();
    for key in ["../../secret", "x/../../../secret", "..", ".", "", "/etc/passwd", "a//b", "a/", "/a", "./a"] {
        let (read, written) = (store.get(key).await, put(&store, key, b"y").await);
        let (sized, deleted) = (store.size(key).await, store.delete(key).await);
        for error in [read.err(), written.err(), sized.err(), deleted.err()] {
            assert!(error.unwrap().to_string().contains("leads outside of its backup"), "{key:?}");
        }
    }
    assert_eq!(std::fs::read(directory.path().join("secret")).unwrap(), b"x");
}

#[tokio::test]
async fn a_path_with_dots_means_what_the_system_means() {
    let directory = tempdir().unwrap();
    let real = directory.path().join("real/inner");
    std::fs::create_dir_all(&real).unwrap();
    std::os::unix::fs::symlink(&real, directory.path().join("link")).unwrap();
    let open = |path: &str| Objects::open(&format!("{}/{path}", directory.path().display())).unwrap();
    let there = std::fs::canonicalize(directory.path()).unwrap();
    for (given, meant) in [
        ("x/../y", there.join("y")),
        ("link/../y", there.join("real/y")),
        ("./y/", directory.path().join("y")),
        ("y//", directory.path().join("y")),
    ] {
        let store = open(given);
        put(&store, "k", b"x").await.unwrap();
        assert_eq!(store.directory(), meant, "{given}");
        assert_eq!(store.list().await.unwrap().len(), 1, "{given}");
        assert!(meant.join("k").is_file(), "{given}");
    }
    let relative = Objects::open("../somewhere").unwrap();
    assert_eq!(relative.directory(), std::env::current_dir().unwrap().parent().unwrap().join("somewhere"));
}

#[test]
fn what_cannot_be_a_store_is_refused() {
    for url in ["s3://bucket/prefix", "gs://bucket", "az://container", "https://example.net/x"] {
        let error = Objects::open(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("is not yet supported"), "{error}");
    }
    assert_eq!(Objects::open("").unwrap_err().kind(), ErrorKind::Usage);
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    assert!(Objects::open(path).unwrap_err().to_string().contains("is not a directory"));
    let below = Objects::open(&format!("{path}/below")).unwrap_err();
    assert_eq!(below.kind(), ErrorKind::Storage);
}

#[tokio::test]
async fn a_root_is_claimed_once() {
    let (_directory, store) = temporary();
    store.claim().await.unwrap();
    assert_eq!(mode(store.directory()), 0o700);
    let error = store.claim().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("exists already"), "{error}");
    let below = store.below("one");
    let claims = futures::future::join_all((0..20).map(|_| below.claim())).await;
    assert_eq!(claims.iter().filter(|c| c.is_ok()).count(), 1);
}

#[tokio::test]
async fn a_way_that_leads_through_a_file_is_an_error_of_storage() {
    let (_directory, store) = temporary();
    put(&store, "file", b"x").await.unwrap();
    for error in [
        put(&store, "file/below", b"x").await.unwrap_err(),
        store.get("file/below").await.unwrap_err(),
        store.below("file/below").list().await.unwrap_err(),
        store.below("file/below").delete_all("x").await.unwrap_err(),
        store.below("file/below").claim().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
        assert!(error.to_string().contains("file"), "{error}");
    }
}

#[tokio::test]
async fn a_directory_that_may_not_be_written_is_named_with_what_to_do() {
    let (directory, store) = temporary();
    let closed = directory.path().join("a");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o500)).unwrap();
    if std::fs::write(closed.join("probe"), "").is_ok() {
        println!("skipped: this user (root?) may write into a directory of mode 0500");
        return;
    }
    let error = put(&store, "x", b"x").await.unwrap_err();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(error.kind(), ErrorKind::Storage);
    assert!(error.hint_text().unwrap().contains("BACKUP_PATH"));
}

/// A mounted file system, which is unmounted with this.
struct Mount(TempDir);

impl Mount {
    fn tiny() -> Option<Self> {
        let directory = tempdir().unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=256k", "tmpfs"];
        let done = std::process::Command::new("mount").args(mount).arg(directory.path()).output();
        done.is_ok_and(|o| o.status.success()).then_some(Self(directory))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _whatever = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_named_and_leaves_nothing_half_written() {
    let Some(mount) = Mount::tiny() else {
        println!("skipped: a small file system cannot be mounted here (it takes root)");
        return;
    };
    let store = Objects::open(mount.0.path().to_str().unwrap()).unwrap();
    assert!(store.free_space().unwrap() <= 256 * 1024);
    put(&store, "d/kept", b"kept").await.unwrap();
    let error = store.put("d/large", vec![Bytes::from(vec![7; 1024 * 1024])]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
    assert!(error.hint_text().unwrap().contains("make space"), "{error}: {:?}", error.hint_text());
    assert_eq!(store.get("d/large").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.get("d/kept").await.unwrap(), "kept");
    let files = std::fs::read_dir(mount.0.path().join("d")).unwrap().count();
    assert_eq!(files, 1, "a part of the object that did not fit was left");
}
