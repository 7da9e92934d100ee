//! The place of a dump: it is written under another name, beside its place or inside an existing
//! directory, and moved at the end.

mod join;
mod look;
mod names;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

pub(super) use self::look::Place;
use self::look::Standing;
pub(super) use self::names::Holds;
use super::file::{create, failed, sync, unfinished};
use super::options::Format;
use crate::error::{Error, Result};

/// How often to try to remove a directory into which pending writes may still create files.
const REMOVALS: usize = 5;

/// An unfinished file or directory, removed when dropped unless it was moved to its place.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: PathBuf,
    goal: PathBuf,
    way: Way,
    placed: bool,
}

/// How it gets to its place.
#[derive(Debug)]
enum Way {
    /// It is renamed to its place, where nothing must exist.
    Alone,
    /// It is renamed over a file.
    Over,
    /// Its files are renamed into the directory around it, which may hold a dump only if `force`.
    Into { force: bool, holds: Holds },
}

/// A file to write to.
#[derive(Debug)]
pub(super) enum Opened {
    /// Beside its place.
    Beside(Unfinished, File),
    /// An irreplaceable target, for instance a device, and whether it can be made durable.
    Straight(File, bool),
}

impl Unfinished {
    /// Creates a file beside `goal`. With `force`, an existing file is replaced at the end, and a
    /// device or pipe is written to directly.
    pub(super) fn file(goal: &Path, force: bool) -> Result<Opened> {
        let place = Place::of(goal, Format::Archive, force)?;
        let way = match place.standing {
            Standing::Device { is_durable } => {
                let name = place.goal.display();
                let file = OpenOptions::new().write(true).open(&place.goal).map_err(|e| failed("open", &name, e))?;
                return Ok(Opened::Straight(file, is_durable));
            }
            Standing::File => Way::Over,
            Standing::Nothing | Standing::Directory => Way::Alone,
        };
        let path = place.room().join(unfinished());
        let file = create(&path)?;
        Ok(Opened::Beside(Self { path, goal: place.goal, way, placed: false }, file))
    }

    /// Creates a directory beside `goal`, or inside it if `goal` is a directory: an empty one or,
    /// with `force`, one with a dump.
    pub(super) fn directory(goal: &Path, force: bool, holds: Holds) -> Result<Self> {
        let place = Place::of(goal, Format::Dir, force)?;
        place.prove_databases(&holds)?;
        let path = place.room().join(unfinished());
        DirBuilder::new().mode(0o700).create(&path).map_err(|e| failed("create", &path.display(), e))?;
        let way = match place.standing {
            Standing::Directory => Way::Into { force, holds },
            _ => Way::Alone,
        };
        Ok(Self { path, goal: place.goal, way, placed: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it to its place, durably. Its content must be durable already.
    pub(super) fn put(mut self) -> Result<()> {
        let to = self.goal.display().to_string();
        match &self.way {
            Way::Into { force, holds } => {
                // Much may have been created meanwhile. Nothing is changed yet.
                Place::of(&self.goal, Format::Dir, *force)?;
                return join::join(&self.path, &self.goal, holds);
            }
            // A directory only replaces an empty one.
            Way::Alone if !self.path.is_dir() && self.goal.symlink_metadata().is_ok() => {
                return Err(Error::usage(format!("{to} was created meanwhile"))
                    .hint("choose another name, or replace the file with [[force]]"));
            }
            Way::Alone | Way::Over => {}
        }
        std::fs::rename(&self.path, &self.goal).map_err(|e| failed("create", &to, e))?;
        self.placed = true;
        match self.goal.parent() {
            Some(above) => sync(above),
            None => Ok(()),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.placed {
            return;
        }
        let is_directory = self.path.symlink_metadata().is_ok_and(|found| found.is_dir());
        let remove = || if is_directory { std::fs::remove_dir_all(&self.path) } else { std::fs::remove_file(&self.path) };
        let mut removed = remove();
        for _ in 1..REMOVALS {
            match &removed {
                Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => removed = remove(),
                _ => break,
            }
        }
        if let Err(e) = removed {
            tracing::warn!("{} could not be removed; it can be deleted: {e}", self.path.display());
        }
    }
}
