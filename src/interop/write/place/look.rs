//! Inspects the place of a dump before anything is written: what exists there, and whether a dump
//! can be written.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::names::{Holds, Kind, TOP_FILES, inside, kind, name};
use crate::error::{Error, Result};
use crate::interop::write::file::{UNFINISHED, create, failed, unfinished};
use crate::interop::write::options::Format;

/// The prefixes of files that this program leaves in a directory when it is killed.
const OWN: [&str; 2] = [UNFINISHED, ".bsonvault-dump-"];

/// A possible place for a dump.
#[derive(Debug)]
pub(in crate::interop::write) struct Place {
    /// Its true name.
    pub(super) goal: PathBuf,
    /// Its parent directory, which exists.
    above: PathBuf,
    pub(super) standing: Standing,
}

/// What exists at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Nothing,
    /// A regular file.
    File,
    /// Something without an end that is not replaced: a device or a pipe.
    Device {
        is_durable: bool,
    },
    /// A directory that is empty or has a dump in it.
    Directory,
}

impl Place {
    /// The place with this name.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if it does not accept a dump of this
    /// format, or has something in it that must stay;
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    pub(in crate::interop::write) fn of(goal: &Path, format: Format, force: bool) -> Result<Self> {
        if goal.as_os_str().is_empty() {
            return Err(Error::usage("the destination has no name").hint("say where with [[out]] PATH"));
        }
        // An existing directory may be named `.` or by a link.
        if goal.is_dir() {
            let goal = goal.canonicalize().map_err(|e| failed("look at", &goal.display(), e))?;
            check_directory(&goal, format, force)?;
            return Ok(Self { above: goal.parent().unwrap_or(&goal).to_owned(), goal, standing: Standing::Directory });
        }
        let (goal, above) = resolved(goal)?;
        let standing = match seen(&goal)? {
            None => Standing::Nothing,
            Some(found) => standing(&goal, &found, format, force)?,
        };
        Ok(Self { goal, above, standing })
    }

    /// The directory for unfinished files.
    pub(super) fn room(&self) -> &Path {
        if self.standing == Standing::Directory { &self.goal } else { &self.above }
    }

    /// Checks that files can be created where necessary.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    pub(in crate::interop::write) fn prove(&self) -> Result<()> {
        match self.standing {
            // Opening one may have an effect, or wait for a reader.
            Standing::Device { .. } => Ok(()),
            _ => prove(self.room()),
        }
    }

    /// The same for the existing directories of these databases.
    pub(super) fn prove_databases(&self, holds: &Holds) -> Result<()> {
        if self.standing != Standing::Directory {
            return Ok(());
        }
        let device = |path: &Path| path.symlink_metadata().map(|found| found.dev());
        let own = device(&self.goal).map_err(|e| failed("look at", &self.goal.display(), e))?;
        for database in holds.databases.keys() {
            let path = self.goal.join(database);
            match device(&path) {
                Ok(other) if other != own => {
                    return Err(Error::usage(format!(
                        "{} is on another file system than its parent directory, and cannot be replaced from there",
                        path.display()
                    ))
                    .hint("choose another directory"));
                }
                Ok(_) => prove(&path)?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed("look at", &path.display(), e)),
            }
        }
        Ok(())
    }
}

fn check_directory(goal: &Path, format: Format, force: bool) -> Result<()> {
    if format == Format::Archive {
        return Err(Error::usage(format!("{} is a directory, and an archive is a file", goal.display()))
            .hint("name a file in it, or use [[format]] dir"));
    }
    let mut paths = inside(goal)?;
    paths.retain(|path| !OWN.iter().any(|own| name(path).starts_with(own)));
    if !force && !paths.is_empty() {
        return Err(Error::usage(format!("{} exists already, and is not empty", goal.display()))
            .hint("choose another name, or empty it; [[force]] replaces the same collections in an existing dump"));
    }
    for path in paths {
        if let Some(stranger) = stranger(path)? {
            let name = stranger.strip_prefix(goal).unwrap_or(&stranger);
            return Err(Error::usage(format!("{} holds {name:?}, which does not belong to a dump", goal.display()))
                .hint("choose another directory, or move that away"));
        }
    }
    Ok(())
}

/// Returns what does not belong to a dump, for an entry at its top. A dump has directories with
/// nothing but collections' files, and the files beside those.
fn stranger(path: PathBuf) -> Result<Option<PathBuf>> {
    let look = |path: &Path| path.symlink_metadata().map_err(|e| failed("look at", &path.display(), e));
    let found = look(&path)?;
    // Belongs to the file system, at its top.
    if found.is_dir() && name(&path) == "lost+found" {
        return Ok(None);
    }
    if !found.is_dir() {
        let is_known = found.is_file() && TOP_FILES.contains(&name(&path));
        return Ok((!is_known).then_some(path));
    }
    for file in inside(&path)? {
        if kind(name(&file)) == Kind::Other || !look(&file)?.is_file() {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// What exists there, apart from directories.
fn standing(goal: &Path, found: &Metadata, format: Format, force: bool) -> Result<Standing> {
    if format == Format::Dir {
        return Err(Error::usage(format!("{} exists already, and is not a directory", goal.display()))
            .hint("choose another name, or use [[format]] archive"));
    }
    if !force {
        return Err(Error::usage(format!("{} exists already", goal.display()))
            .hint("choose another name, or replace the file with [[force]]"));
    }
    let kind = found.file_type();
    if kind.is_char_device() || kind.is_fifo() || kind.is_block_device() {
        return Ok(Standing::Device { is_durable: kind.is_block_device() });
    }
    // The link would be replaced instead of its target.
    if !goal.symlink_metadata().is_ok_and(|found| found.is_file()) {
        return Err(Error::usage(format!("{} exists and is not a regular file", goal.display()))
            .hint("choose another name; [[`out -`]] writes to standard output"));
    }
    Ok(Standing::File)
}

/// The target of a name.
fn seen(goal: &Path) -> Result<Option<Metadata>> {
    match goal.metadata() {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == io::ErrorKind::NotFound && goal.symlink_metadata().is_ok() => {
            Err(Error::usage(format!("{} is a link that leads nowhere", goal.display()))
                .hint("choose another name, or remove the link")
                .cause(e))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("look at", &goal.display(), e)),
    }
}

/// The goal by its true name, and its parent directory, which must exist.
fn resolved(goal: &Path) -> Result<(PathBuf, PathBuf)> {
    let (Some(name), Some(above)) = (goal.file_name(), goal.parent()) else {
        return Err(Error::usage(format!("{} cannot be the name of an export", goal.display())));
    };
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    let no_directory = || Error::usage(format!("{} is not a directory", above.display())).hint("choose another name");
    let real = above.canonicalize().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::usage(format!("{} does not exist", above.display())).hint("create it first").cause(e),
        io::ErrorKind::NotADirectory => no_directory().cause(e),
        _ => failed("look at", &above.display(), e),
    })?;
    if !real.is_dir() {
        return Err(no_directory());
    }
    Ok((real.join(name), real))
}

fn prove(directory: &Path) -> Result<()> {
    let probe = directory.join(unfinished());
    drop(create(&probe)?);
    std::fs::remove_file(&probe).map_err(|e| failed("remove", &probe.display(), e))
}
