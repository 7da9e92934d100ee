//! The files of a dump on disk, and their errors.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};

/// The prefix of names of files that are not in their place yet.
pub(super) const UNFINISHED: &str = ".bsonvault-export-";

/// Creates a new file that nobody else may read.
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
            error.hint("make space there, or choose another place with [[out]]")
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            error.hint("let this user write there, or choose another place with [[out]]")
        }
        io::ErrorKind::BrokenPipe => error.hint("its reader went away before the end"),
        _ => error,
    };
    error.cause(cause)
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(ErrorKind::Internal, "a task of an export crashed").cause(e))?
}

/// A name for something that is not in its place yet.
pub(super) fn unfinished() -> String {
    format!("{UNFINISHED}{}", Uuid::new_v4())
}
