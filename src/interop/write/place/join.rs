//! Merges a dump into an existing one in a directory, file by file: each old file exists until its
//! replacement does.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::names::{Holds, TOP_FILES, inside, name};
use crate::error::Result;
use crate::interop::write::file::{failed, sync};

/// Moves the files of a dump over those of the one in `goal`, and then removes outdated ones.
pub(super) fn join(new: &Path, goal: &Path, holds: &Holds) -> Result<()> {
    let joined = put(new, goal, holds);
    joined.map_err(|e| {
        let e = if e.hint_text().is_some() { e } else { e.hint("fix that, and write the dump again") };
        e.context(format!("the dump in {} is partly the new one", goal.display()))
    })
}

fn put(new: &Path, goal: &Path, holds: &Holds) -> Result<()> {
    // 1. Files that describe the former dump must not be mistaken for this one's.
    for file in TOP_FILES {
        remove(&goal.join(file))?;
    }
    sync(goal)?;

    // 2. Databases that did not exist, and the files of the others.
    let mut joined = Vec::new();
    for (database, collections) in &holds.databases {
        let (from, to) = (new.join(database), goal.join(database));
        if to.symlink_metadata().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            rename(&from, &to)?;
            continue;
        }
        // Files are identified by number: on a file system that ignores case, a file keeps the name
        // of the one it replaces. And by name: not all file systems have permanent numbers.
        let (mut files, mut names) = (HashSet::new(), HashSet::new());
        for path in inside(&from)? {
            let found = path.symlink_metadata().map_err(|e| failed("look at", &path.display(), e))?;
            rename(&path, &to.join(name(&path)))?;
            files.insert(found.ino());
            names.insert(name(&path).to_owned());
        }
        sync(&to)?;
        joined.push((to, collections, files, names));
    }
    sync(goal)?;

    // 3. Outdated files: the same collection under another name, and dropped collections.
    for (directory, collections, files, names) in &joined {
        for path in inside(directory)? {
            let is_old = path.symlink_metadata().is_ok_and(|found| found.is_file() && !files.contains(&found.ino()));
            if is_old && !names.contains(name(&path)) && holds.replace(collections, name(&path)) {
                remove(&path)?;
            }
        }
        sync(directory)?;
    }

    // 4. The files that mark it as complete.
    for file in TOP_FILES {
        let from = new.join(file);
        if from.symlink_metadata().is_ok() {
            rename(&from, &goal.join(file))?;
        }
    }
    sync(goal)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|e| failed("create", &to.display(), e))
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path.display(), e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::format::manifest::CollectionKind;
    use crate::interop::write::contents::Described;

    fn described(name: &str) -> Described {
        let (database, name, data) = ("d".to_owned(), name.to_owned(), name.to_owned());
        Described { database, name, data, kind: CollectionKind::Collection, metadata: String::new() }
    }

    fn written(root: &Path, files: &[&str], content: &str) -> PathBuf {
        for file in files {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        root.to_owned()
    }

    #[test]
    fn an_error_in_the_middle_loses_nothing_and_says_what_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let goal = directory.path().join("goal");
        let old = ["d/a.bson", "d/a.metadata.json", "d/b.bson.gz", "d/gone.bson", "e/x.bson"];
        written(&goal, &old, "old");
        let new = written(&goal.join("new"), &["d/a.bson", "d/b.bson", "d/c.bson", "prelude.json"], "new");
        // In the place of a file.
        std::fs::create_dir(goal.join("d/b.bson")).unwrap();
        let holds = Holds::of(&["a", "b", "c"].map(described), true);
        let error = join(&new, &goal, &holds).unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with(&format!("the dump in {} is partly the new one: cannot create ", goal.display())),
            "{message}"
        );
        assert!(message.contains("d/b.bson: ") && error.hint_text().is_some(), "{message}");
        for file in old {
            let expected = if file == "d/a.bson" { "new" } else { "old" };
            assert_eq!(std::fs::read_to_string(goal.join(file)).unwrap(), expected, "{file}");
        }
        assert!(!goal.join("prelude.json").exists());
        // Files not moved yet are where only new files are.
        assert!(new.join("d/b.bson").is_file() && !new.join("d/a.bson").exists());
        std::fs::remove_dir(goal.join("d/b.bson")).unwrap();
        written(&new, &["d/a.bson"], "newer");
        join(&new, &goal, &holds).unwrap();
        let names = |of: &str| inside(&goal.join(of)).unwrap().iter().map(|path| name(path).to_owned()).collect::<Vec<_>>();
        assert_eq!(names("d"), ["a.bson", "b.bson", "c.bson"]);
        assert_eq!(names(""), ["d", "e", "new", "prelude.json"]);
    }

    #[test]
    fn what_is_of_the_same_collections_is_replaced_under_any_name() {
        let part = Holds::of(&[described("a b"), described("x")], false);
        let whole = Holds::of(&[described("x")], true);
        let replaces = |holds: &Holds, name: &str| holds.replace(&holds.databases["d"], name);
        for name in ["a+b.bson", "a+b.bin", "a+b.metadata.json.gz", "system.buckets.a+b.bson.gz", "prelude.json"] {
            assert!(replaces(&part, name), "{name}");
        }
        for name in ["b.bson", "a+b.c.bson", "notes.json", "$admin.system.users.bson"] {
            assert!(!replaces(&part, name), "{name}");
        }
        assert!(replaces(&whole, "b.metadata.json") && replaces(&whole, "b.bson"));
        assert!(!replaces(&whole, "notes.json") && !replaces(&whole, "$admin.system.roles.metadata.json"));
    }
}
