//! Reading directories that mongodump wrote, and single files of them.

mod look;
mod read;

use std::path::PathBuf;

pub(super) use self::look::{WHAT_A_DUMP_IS, look, look_at_file};
use super::contents::Contents;
use crate::names::Namespace;

/// A directory that was looked at.
#[derive(Debug)]
pub(super) struct Directory {
    /// For each of the contents' places.
    pub(super) members: Vec<Member>,
    pub(super) contents: Contents,
    /// It holds one database without saying which: the directory's name tells.
    pub(super) is_of_one_database: bool,
    /// What `prelude.json` says.
    pub(super) server_version: Option<String>,
}

/// A namespace, and the file that holds its documents, where there is one.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) namespace: Namespace,
    pub(super) file: Option<PathBuf>,
    /// The bytes of the file, as it is.
    pub(super) stored: u64,
}
