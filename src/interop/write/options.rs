//! Where and how a dump is written.

use std::path::PathBuf;

use crate::error::Error;

/// The destination of a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A directory or a file. It must not exist unless it is to be replaced; an empty directory may
    /// exist.
    Path(PathBuf),
    /// Standard output, which only accepts archives.
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
    /// The gzip level, one of [`LEVELS`](super::LEVELS); `None` for no compression.
    pub gzip: Option<u32>,
    /// Whether an archive may replace a file or be written to a device or pipe, and the files of a
    /// directory may replace those of an existing dump.
    pub force: bool,
    /// Whether the dump has all collections of its databases, so that existing files of others are
    /// removed.
    pub whole: bool,
}

pub(super) fn not_to_stdout() -> Error {
    Error::usage("a directory cannot be written to standard output").hint("use [[format]] archive")
}
