//! Helpers for files: fixtures, and the contents of directories.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// A file or directory of `fixtures/`.
pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(path)
}

/// A dump that the real mongodump made.
pub fn sample(name: &str) -> PathBuf {
    fixture("mongodump").join(name)
}

/// The entries of a directory, in order.
pub fn inside(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// The directories among its entries.
pub fn directories(directory: &Path) -> Vec<PathBuf> {
    inside(directory).into_iter().filter(|path| path.is_dir()).collect()
}

/// The names of its entries.
pub fn names(directory: &Path) -> Vec<String> {
    inside(directory).iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

/// Every file below a directory, by relative path. Links to directories are not followed.
pub fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for path in inside(&directory) {
            if path.symlink_metadata().unwrap().is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Copies a directory to a new path. Modes are not copied, so the copy is writable.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for (name, bytes) in files(from) {
        let to = to.join(name);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, bytes).unwrap();
    }
}

/// The decompressed contents of gzip members, one after the other.
pub fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut out).unwrap();
    out
}
