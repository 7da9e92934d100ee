//! Reads stored objects as regular files of a local disk. Everything that reads a store reads
//! through here. No link below the root is followed, and anything that is not a regular file is
//! refused, for example a pipe, on which reading would block.

use std::io::{self, Read as _};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;
use rustix::path::Arg;

use super::disk;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::backend::{Found, Opened};

/// A regular file of a store, open for reading from its start. Its content at opening can be read
/// to the end even if it is deleted meanwhile.
#[derive(Debug)]
pub(super) struct RegularFile {
    file: Arc<std::fs::File>,
    path: PathBuf,
    size: u64,
}

impl Opened for RegularFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        let (file, path) = (self.file.clone(), self.path.clone());
        let length = range.end.min(self.size).saturating_sub(range.start);
        let work = move || {
            let mut bytes = vec![0; usize::try_from(length).map_err(|_| too_large(&path))?];
            let mut filled = 0;
            while filled < bytes.len() {
                match file.read_at(&mut bytes[filled..], range.start + filled as u64) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(disk::error("read", &path, e)),
                }
            }
            bytes.truncate(filled);
            Ok(bytes.into())
        };
        disk::blocking(&self.path, work).boxed()
    }
}

/// Whether the root itself may be a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    /// It may: a whole backup, or all of them, may be kept elsewhere.
    Followed,
    /// It may not.
    Plain,
}

/// Opens the file at `key` below `root`.
pub(super) async fn open(root: PathBuf, key: &str, links: Root) -> Result<RegularFile> {
    let key = key.to_owned();
    disk::blocking(&root.join(&key), move || match open_now(&root, &key, links) {
        Ok((file, size, path)) => Ok(RegularFile { file: Arc::new(file), size, path }),
        Err(e) if e.kind() == ErrorKind::NotFound && root.join(&key).is_dir() => Err(Error::damaged(e.to_string())),
        Err(e) => Err(e),
    })
    .await
}

/// The whole content of the file at `key` below `root`.
pub(super) async fn read(root: PathBuf, key: &str, links: Root) -> Result<Bytes> {
    let key = key.to_owned();
    disk::blocking(&root.join(&key), move || {
        let (file, size, path) = open_now(&root, &key, links)?;
        let mut bytes = Vec::new();
        let room = usize::try_from(size).map_err(|_| too_large(&path))?;
        bytes.try_reserve_exact(room).map_err(|e| {
            Error::new(ErrorKind::Storage, format!("no memory for the {size} bytes of {}", path.display())).cause(e)
        })?;
        // What is appended while it is read does not count.
        file.take(size).read_to_end(&mut bytes).map_err(|e| disk::error("read", &path, e))?;
        Ok(bytes.into())
    })
    .await
}

/// The properties of the file at `key` below `root`, without opening it.
pub(super) async fn look(root: PathBuf, key: &str, links: Root) -> Result<Found> {
    let key = key.to_owned();
    disk::blocking(&root.join(&key), move || {
        let (directory, name, path) = directory_of(&root, &key, links)?;
        let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed(e, &path))?;
        refuse_unless_regular(FileType::from_raw_mode(stat.st_mode), &path)?;
        let modified = u64::try_from(stat.st_mtime)
            .ok()
            .map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(stat.st_mtime_nsec));
        Ok(Found { size: stat.st_size.unsigned_abs(), modified })
    })
    .await
}

fn open_now(root: &Path, key: &str, links: Root) -> Result<(std::fs::File, u64, PathBuf)> {
    let (directory, name, path) = directory_of(root, key, links)?;
    // Opening a pipe would block.
    let file = match openat(&directory, name, WAY | OFlags::NONBLOCK, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(e) => return Err(refused(e, &directory, name, &path)),
    };
    let found = fstat(&file).map_err(|e| disk::error("look at", &path, e.into()))?;
    refuse_unless_regular(FileType::from_raw_mode(found.st_mode), &path)?;
    Ok((file, found.st_size.unsigned_abs(), path))
}

fn too_large(path: &Path) -> Error {
    Error::damaged(format!("{} is too large", path.display()))
}

const WAY: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The directory that holds the last part of `key`, and that part. Each part is opened on its own:
/// the system would follow a link in the middle of a path.
fn directory_of<'a>(root: &Path, key: &'a str, links: Root) -> Result<(OwnedFd, &'a str, PathBuf)> {
    let (mut way, mut path) = (WAY | OFlags::DIRECTORY, root.to_owned());
    if links == Root::Followed {
        way -= OFlags::NOFOLLOW;
    }
    let mut directory = openat(CWD, root, way, Mode::empty()).map_err(|e| refused(e, CWD, root, root))?;
    let (above, name) = key.rsplit_once('/').map_or((None, key), |(above, name)| (Some(above), name));
    for part in above.into_iter().flat_map(|above| above.split('/')) {
        path.push(part);
        directory =
            openat(&directory, part, WAY | OFlags::DIRECTORY, Mode::empty()).map_err(|e| refused(e, &directory, part, &path))?;
    }
    path.push(name);
    Ok((directory, name, path))
}

/// The error for something that cannot be opened as expected.
fn refused(e: Errno, directory: impl AsFd, name: impl Arg, path: &Path) -> Error {
    match e {
        // A link; a link or a file in place of a directory; a socket.
        Errno::LOOP | Errno::MLINK | Errno::NOTDIR | Errno::NXIO => {
            let kind = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| FileType::from_raw_mode(stat.st_mode));
            out_of_place(kind.unwrap_or(FileType::Unknown), path)
        }
        e => failed(e, path),
    }
}

fn failed(e: Errno, path: &Path) -> Error {
    match e {
        Errno::NOENT => Error::new(ErrorKind::NotFound, format!("{} does not exist", path.display())),
        e => disk::error("open", path, e.into()),
    }
}

fn refuse_unless_regular(kind: FileType, path: &Path) -> Result<()> {
    if kind.is_file() { Ok(()) } else { Err(out_of_place(kind, path)) }
}

fn out_of_place(kind: FileType, path: &Path) -> Error {
    let (what, error) = match kind {
        // A directory leads to keys, and is no object.
        FileType::Directory => ("a directory", ErrorKind::NotFound),
        FileType::RegularFile => ("a file", ErrorKind::Storage),
        FileType::Symlink => ("a symbolic link", ErrorKind::Damaged),
        FileType::Fifo => ("a pipe", ErrorKind::Damaged),
        FileType::Socket => ("a socket", ErrorKind::Damaged),
        FileType::CharacterDevice | FileType::BlockDevice => ("a device", ErrorKind::Damaged),
        _ => ("something else", ErrorKind::Damaged),
    };
    let message =
        format!("cannot read {}: it is {what}, and a backup holds only plain files in plain directories", path.display());
    Error::new(error, message).hint(match kind {
        FileType::Symlink => "replace the link by its target; only the whole directory of a backup may be a link",
        _ => "move it away, and restore the original file",
    })
}
