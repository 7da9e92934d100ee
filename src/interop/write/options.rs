//! Where a dump is written, and how.

use std::path::PathBuf;

use crate::error::Error;

/// Where a dump goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A directory or a file, which must not be there unless it is to be replaced: a directory may be if it is empty.
    Path(PathBuf),
    /// Standard output, which takes archives alone.
    Stdout,
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Stdout => f.write_str("standard output"),
        }
    }
}

/// Formats of a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One file.
    Archive,
    /// A directory of files.
    Dir,
}

/// How a dump is written.
#[derive(Debug, Clone, Copy)]
pub struct WriteOptions {
    /// The format.
    pub format: Format,
    /// The level of gzip, one of [`LEVELS`](super::LEVELS); not compressed without.
    pub gzip: Option<u32>,
    /// Whether an archive may take the place of a file or be written to a device or pipe, and the files of a directory those of a dump that is there.
    pub force: bool,
    /// Whether the databases of the dump have no other collections, so that files of others that are there go.
    pub whole: bool,
}

pub(super) fn not_to_stdout() -> Error {
    Error::usage("a directory cannot be written to standard output").hint("use [[format]] archive")
}
