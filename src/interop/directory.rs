//! Reads directories that mongodump wrote, and single files of them.

mod look;
mod read;

use std::path::PathBuf;

pub(super) use self::look::{WHAT_A_DUMP_IS, look, look_at_file};
use super::contents::Contents;
use crate::names::Namespace;

/// A directory that was inspected.
#[derive(Debug)]
pub(super) struct Directory {
    /// In the order of the contents' places.
    pub(super) members: Vec<Member>,
    pub(super) contents: Contents,
    /// Whether it holds one database without naming it: the directory's name does.
    pub(super) is_of_one_database: bool,
    /// The server version in `prelude.json`.
    pub(super) server_version: Option<String>,
}

/// A namespace, and the file with its documents, if any.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) namespace: Namespace,
    pub(super) file: Option<PathBuf>,
    /// The stored bytes of the file.
    pub(super) stored: u64,
}
