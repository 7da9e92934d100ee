//! The place of a dump: written beside it under another name, and put there at the end.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};

/// What the name begins with of what is not in its place yet.
const UNFINISHED: &str = ".bsonvault-export-";

/// Something unfinished, removed when dropped unless it was put in its place.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: PathBuf,
    goal: PathBuf,
    replaces: bool,
    /// A dump stands there, and what is in this one takes its place database by database.
    joins: bool,
    placed: bool,
}

impl Unfinished {
    /// A file beside `goal`, and the file itself. What stands there is replaced at the end if that is wanted.
    pub(super) fn file(goal: &Path, replace: bool) -> Result<(Self, File)> {
        let (goal, above) = resolved(goal)?;
        match std::fs::symlink_metadata(&goal) {
            Ok(found) if found.is_dir() => {
                return Err(Error::usage(format!("{} is a directory, and an archive is a file", goal.display()))
                    .hint("name a file in it, or use --format dir"));
            }
            Ok(_) if !replace => {
                return Err(Error::usage(format!("{} exists already", goal.display()))
                    .hint("choose another name, or replace the file with --force"));
            }
            Ok(found) if !found.is_file() => {
                return Err(Error::usage(format!("{} is there and is not a regular file", goal.display()))
                    .hint("choose another name; `--out -` writes to standard output"));
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("look at", &goal.display(), e)),
        }
        let path = above.join(unfinished());
        let file = create(&path)?;
        Ok((Self { path, goal, replaces: replace, joins: false, placed: false }, file))
    }

    /// A directory beside `goal`, where nothing or an empty directory must be, or, if that is wanted, another dump.
    pub(super) fn directory(goal: &Path, join: bool) -> Result<Self> {
        let (goal, above) = resolved(goal)?;
        let mut joins = false;
        match std::fs::metadata(&goal) {
            Ok(found) if !found.is_dir() => {
                return Err(Error::usage(format!("{} exists already, and is not a directory", goal.display()))
                    .hint("choose another name, or use --format archive"));
            }
            Ok(found) => {
                let inside = inside(&goal)?;
                let stranger = inside.iter().find(|name| !may_be_of_a_dump(&goal, name));
                match (inside.is_empty(), join, stranger) {
                    (true, ..) => {}
                    (false, true, None) => joins = true,
                    (false, true, Some(stranger)) => {
                        return Err(Error::usage(format!("{} holds {stranger:?}, which is not of a dump", goal.display()))
                            .hint("choose another directory, or take that away"));
                    }
                    (false, false, _) => {
                        return Err(Error::usage(format!("{} exists already, and is not empty", goal.display()))
                            .hint("choose another name, or empty it; --force replaces the databases of a dump there"));
                    }
                }
                let device = std::fs::metadata(&above).map_err(|e| failed("look at", &above.display(), e))?.dev();
                if device != found.dev() {
                    return Err(Error::usage(format!(
                        "{} is where a file system is mounted, and cannot be replaced",
                        goal.display()
                    ))
                    .hint("name a directory in it that does not exist yet"));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("look at", &goal.display(), e)),
        }
        let path = above.join(unfinished());
        DirBuilder::new().mode(0o700).create(&path).map_err(|e| failed("create", &path.display(), e))?;
        Ok(Self { path, goal, replaces: false, joins, placed: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it in its place, durably. Its content must be durable already.
    pub(super) fn put(mut self) -> Result<()> {
        let to = self.goal.display().to_string();
        if self.joins {
            return self.join();
        }
        let is_file = !self.path.is_dir();
        // A directory takes the place of an empty one only; a file that came meanwhile is left alone.
        if is_file && !self.replaces && self.goal.symlink_metadata().is_ok() {
            return Err(
                Error::usage(format!("{to} was created meanwhile")).hint("choose another name, or replace the file with --force")
            );
        }
        std::fs::rename(&self.path, &self.goal).map_err(|e| failed("create", &to, e))?;
        self.placed = true;
        match self.goal.parent() {
            Some(above) => sync(above),
            None => Ok(()),
        }
    }
}

impl Unfinished {
    /// Puts each database in the place of the one of its name, and the files at the top last. What it replaces goes with the rest of this.
    fn join(&self) -> Result<()> {
        let moved = |from: &Path, to: &Path| std::fs::rename(from, to).map_err(|e| failed("create", &to.display(), e));
        // What is about the dump that stood there must not be taken for this one's.
        for name in TOP_FILES {
            match std::fs::remove_file(self.goal.join(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &self.goal.join(name).display(), e));
                }
                _ => {}
            }
        }
        let (databases, files): (Vec<_>, Vec<_>) =
            inside(&self.path)?.into_iter().partition(|name| self.path.join(name).is_dir());
        for name in databases {
            let (new, place) = (self.path.join(&name), self.goal.join(&name));
            if place.symlink_metadata().is_ok() {
                moved(&place, &self.path.join(unfinished()))?;
            }
            moved(&new, &place)?;
        }
        sync(&self.goal)?;
        for name in files {
            moved(&self.path.join(&name), &self.goal.join(&name))?;
        }
        sync(&self.goal)
    }
}

/// Files at the top of a dump.
const TOP_FILES: [&str; 3] = ["oplog.bson", "prelude.json", "prelude.json.gz"];

/// The names in a directory.
fn inside(directory: &Path) -> Result<Vec<OsString>> {
    let names = std::fs::read_dir(directory).and_then(|entries| entries.map(|e| e.map(|e| e.file_name())).collect());
    names.map_err(|e| failed("look into", &directory.display(), e))
}

/// Whether something at the top of a directory may belong to a dump: a database's directory with nothing but files in it, or one of the files beside those.
fn may_be_of_a_dump(root: &Path, name: &OsString) -> bool {
    let path = root.join(name);
    let is_collections_file = |name: &OsString| {
        let name = name.to_string_lossy();
        let plain = name.strip_suffix(".gz").unwrap_or(&name);
        plain.ends_with(".bson") || plain.ends_with(".json")
    };
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => inside(&path).is_ok_and(|names| names.iter().all(is_collections_file)),
        Ok(found) => found.is_file() && TOP_FILES.iter().any(|known| name == known),
        Err(_) => false,
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.placed {
            return;
        }
        let removed = match std::fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_dir() => std::fs::remove_dir_all(&self.path),
            _ => std::fs::remove_file(&self.path),
        };
        if let Err(e) = removed {
            tracing::warn!("{} could not be removed, and can be deleted: {e}", self.path.display());
        }
    }
}

/// A new file that nobody else may read.
pub(super) fn create(path: &Path) -> Result<File> {
    try_create(path).map_err(|e| failed("create", &path.display(), e))
}

/// The same, with the system's own error.
pub(super) fn try_create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Makes the names in a directory durable.
pub(super) fn sync(directory: &Path) -> Result<()> {
    File::open(directory).and_then(|d| d.sync_all()).map_err(|e| failed("write to", &directory.display(), e))
}

pub(super) fn failed(what: &str, name: &dyn std::fmt::Display, cause: io::Error) -> Error {
    let error = Error::new(ErrorKind::Storage, format!("cannot {what} {name}: {cause}"));
    let error = match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            error.hint("make space there, or choose another place with --out")
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            error.hint("let this user write there, or choose another place with --out")
        }
        io::ErrorKind::BrokenPipe => error.hint("whoever reads it went away before its end"),
        _ => error,
    };
    error.cause(cause)
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::new(ErrorKind::Internal, "a task of an export died").cause(e))?
}

/// The goal by its true name, and the directory that it is in, which must exist.
fn resolved(goal: &Path) -> Result<(PathBuf, PathBuf)> {
    if goal.as_os_str().is_empty() {
        return Err(Error::usage("the destination has no name").hint("say where with --out PATH"));
    }
    // An existing directory may be called `.` or by a link.
    let goal =
        if goal.is_dir() { goal.canonicalize().map_err(|e| failed("look at", &goal.display(), e))? } else { goal.to_owned() };
    let (Some(name), Some(above)) = (goal.file_name(), goal.parent()) else {
        return Err(Error::usage(format!("{} cannot be the name of an export", goal.display())));
    };
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    let above = above.canonicalize().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::usage(format!("{} does not exist", above.display())).hint("create it first").cause(e),
        _ => failed("look at", &above.display(), e),
    })?;
    Ok((above.join(name), above))
}

fn unfinished() -> String {
    format!("{UNFINISHED}{}", Uuid::new_v4())
}
