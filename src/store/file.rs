//! Stored objects as what they are on a local disk: regular files, opened without following a link anywhere below the store's root.

use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::local;
use crate::error::{Error, ErrorKind, Result};

/// A regular file of a store, open for reading from its start on. What it held when it was opened can be read to the end also where it is deleted meanwhile.
#[derive(Debug)]
pub struct RegularFile {
    file: Arc<std::fs::File>,
    path: PathBuf,
    size: u64,
}

impl RegularFile {
    /// Its bytes, when it was opened.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next bytes: `most`, or what there is up to the end of the file; nothing at its end.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn read(&mut self, most: usize) -> Result<Bytes> {
        let (file, path) = (self.file.clone(), self.path.clone());
        local::blocking(move || {
            let mut bytes = vec![0; most];
            let mut filled = 0;
            while filled < most {
                match (&*file).read(&mut bytes[filled..]) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(local::error("read", &path, e)),
                }
            }
            bytes.truncate(filled);
            Ok(bytes.into())
        })
        .await
    }
}

/// Opens the file that the parts of `key` lead to from `root`.
pub(super) async fn open(root: PathBuf, key: &str) -> Result<RegularFile> {
    let key = key.to_owned();
    local::blocking(move || {
        let path = root.join(&key);
        let failed = |e: Errno| refused(e, &path);
        let way = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Each part on its own: the system would follow a link in the middle of a path.
        let mut directory: OwnedFd =
            rustix::fs::openat(CWD, &root, way | OFlags::DIRECTORY, Mode::empty()).map_err(|e| refused(e, &root))?;
        let (above, name) = key.rsplit_once('/').map_or((None, key.as_str()), |(above, name)| (Some(above), name));
        for part in above.into_iter().flat_map(|above| above.split('/')) {
            directory = rustix::fs::openat(&directory, part, way | OFlags::DIRECTORY, Mode::empty()).map_err(failed)?;
        }
        // A pipe would be waited for.
        let file = rustix::fs::openat(&directory, name, way | OFlags::NONBLOCK, Mode::empty()).map_err(failed)?;
        let file = std::fs::File::from(file);
        let found = file.metadata().map_err(|e| local::error("look at", &path, e))?;
        if !found.is_file() {
            return Err(not_a_file(&path));
        }
        Ok(RegularFile { file: Arc::new(file), size: found.len(), path })
    })
    .await
}

fn refused(e: Errno, path: &Path) -> Error {
    match e {
        Errno::NOENT => Error::new(ErrorKind::NotFound, format!("{} does not exist", path.display())),
        // A link, and a link or a file in the place of a directory; a socket.
        Errno::LOOP | Errno::MLINK | Errno::NOTDIR | Errno::NXIO => not_a_file(path),
        e => local::error("open", path, e.into()),
    }
}

fn not_a_file(path: &Path) -> Error {
    Error::damaged(format!("{} is not a regular file, or is reached by a link", path.display()))
        .hint("a backup holds plain files in plain directories: put back what was replaced by a link")
}
