//! What an import brings: a backup, or a dump that mongodump made.

use super::DumpSource;
use crate::repository::catalog::Backup;

/// A backup or a dump.
#[derive(Debug, Clone, Copy)]
pub struct DocumentSource<'a> {
    /// The backup; of a dump, what is known of it in a backup's terms: its collections without their documents, and its oplog.
    pub(super) backup: &'a Backup,
    /// What it was before, where it is a dump.
    pub(super) dumped: Option<&'a DumpSource>,
}

impl<'a> DocumentSource<'a> {
    /// Its name, as a person would say it.
    pub(super) fn name(&self) -> String {
        match self.dumped {
            None => self.backup.manifest.name.to_string(),
            Some(dumped) => dumped.location(),
        }
    }

    /// The dump that the documents come out of, if that is not the backup.
    pub(super) fn poured(&self) -> Option<&'a DumpSource> {
        self.dumped.filter(|dumped| dumped.last_read().is_some())
    }

    /// Whether mongodump took it: also a backup that was made of a dump.
    pub(super) fn is_of_a_dump(&self) -> bool {
        self.dumped.is_some() || self.backup.manifest.source.is_dump()
    }
}

impl<'a> From<&'a Backup> for DocumentSource<'a> {
    fn from(backup: &'a Backup) -> Self {
        Self { backup, dumped: None }
    }
}

impl<'a> From<&'a DumpSource> for DocumentSource<'a> {
    fn from(dumped: &'a DumpSource) -> Self {
        Self { backup: dumped.backup(), dumped: Some(dumped) }
    }
}
