//! The files of a dump, by their names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::interop::write::contents::{Described, stem};
use crate::interop::write::file::failed;
use crate::names::BUCKETS_PREFIX;

/// Files at the top of a dump, in the order they are written: a dump with its `prelude.json` is
/// complete.
pub(super) const TOP_FILES: [&str; 3] = ["oplog.bson", "prelude.json", "prelude.json.gz"];

/// The contents of a dump, by file names.
#[derive(Debug, Default)]
pub(in crate::interop::write) struct Holds {
    /// The escaped names that files of its collections may have, by database.
    pub(super) databases: BTreeMap<String, BTreeSet<String>>,
    /// Whether these databases have no other collections.
    whole: bool,
}

impl Holds {
    pub(in crate::interop::write) fn of(collections: &[Described], whole: bool) -> Self {
        let mut databases: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for Described { database, name, .. } in collections {
            // The documents of a time series have one name or the other, by the server's version.
            // And a collection may have become a time series.
            let names = [stem(name), stem(&format!("{BUCKETS_PREFIX}{name}"))];
            databases.entry(database.clone()).or_default().extend(names);
        }
        Self { databases, whole }
    }

    /// Whether an existing file of this name is outdated in the directory of a database with these
    /// collections.
    pub(super) fn replace(&self, collections: &BTreeSet<String>, name: &str) -> bool {
        match kind(name) {
            // The one at the top covers all of them.
            Kind::Prelude => true,
            // Users and roles are not collections. Their names begin with `$`, unlike any escaped
            // name.
            Kind::Collection(stem) => collections.contains(stem) || (self.whole && !stem.starts_with('$')),
            Kind::Other => false,
        }
    }
}

/// The kind of a file in a database's directory, by its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// Documents or metadata of the collection with this escaped name.
    Collection(&'a str),
    /// Written by older tools for a single database.
    Prelude,
    /// Not from mongodump.
    Other,
}

/// The kind of a file by its name.
pub(super) fn kind(name: &str) -> Kind<'_> {
    let plain = name.strip_suffix(".gz").unwrap_or(name);
    if plain == "prelude.json" {
        return Kind::Prelude;
    }
    let stem = [".metadata.json", ".bson"].iter().find_map(|ending| plain.strip_suffix(ending));
    // Very old tools wrote this, without compression.
    match stem.or_else(|| name.strip_suffix(".bin")).filter(|stem| !stem.is_empty()) {
        Some(stem) => Kind::Collection(stem),
        None => Kind::Other,
    }
}

/// The entries of a directory, ordered by name.
pub(super) fn inside(directory: &Path) -> Result<Vec<PathBuf>> {
    let paths = std::fs::read_dir(directory).and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect());
    let mut paths: Vec<PathBuf> = paths.map_err(|e| failed("look into", &directory.display(), e))?;
    paths.sort();
    Ok(paths)
}

/// The last part of a path if it is text; otherwise empty, which is no dump file's name.
pub(super) fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_mongodumps_names_alone() {
        for (file, stem) in [
            ("a.bson", "a"),
            ("a.bson.gz", "a"),
            ("a.bin", "a"),
            ("a.metadata.json", "a"),
            ("a.metadata.json.gz", "a"),
            ("a.metadata.json.bson", "a.metadata.json"),
            ("$admin.system.users.bson", "$admin.system.users"),
        ] {
            assert_eq!(kind(file), Kind::Collection(stem), "{file}");
        }
        for file in ["", ".bson", ".bin", ".metadata.json.gz", "a", "a.json", "a.gz", "a.bin.gz", "a.bson.zst", "a.bson.gz.gz"] {
            assert_eq!(kind(file), Kind::Other, "{file}");
        }
        assert_eq!((kind("prelude.json"), kind("prelude.json.gz")), (Kind::Prelude, Kind::Prelude));
    }
}
