//! Finds the backup that `latest` stands for: the newest complete one, whatever its source and
//! selection.

use chrono::{DateTime, Utc};

use super::provenance::Provenance;
use super::{Catalog, State, Summary};
use crate::error::{Error, ErrorKind, Result};
use crate::names::{BackupName, LATEST};
use crate::repository::layout;
use crate::repository::retention::group;

/// The newest complete backup, and what was skipped for it.
#[derive(Debug, Clone)]
pub struct Latest {
    /// Its name.
    pub name: BackupName,
    /// Its source and selection.
    pub provenance: Provenance,
    /// The number of sources and selections with complete backups.
    pub groups: usize,
    /// Directories that may be newer and are unusable.
    pub damaged: Vec<BackupName>,
}

impl Catalog {
    /// The backup that `latest` stands for: the complete one with the latest consistency point.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none; [`ErrorKind::Usage`] if a directory has that name
    /// itself; [`ErrorKind::Storage`].
    pub async fn latest(&self, now: DateTime<Utc>) -> Result<Latest> {
        let repository = self.repository();
        let own = repository.objects().below(LATEST);
        let place = own.location();
        if let Ok(Ok(_)) = self.looks.at(&place, 0, async move { own.size(layout::MANIFEST).await }).await {
            return Err(Error::usage(format!(
                "{LATEST} stands for the newest backup, but a backup in {} has this name",
                repository.location()
            ))
            .hint("rename that backup, or give the intended backup's own name or path"));
        }
        let found = self.list(now).await?;
        let complete: Vec<&Summary> = found.iter().filter(|s| matches!(s.state, State::Complete(_))).collect();
        let Some((newest, manifest)) = complete.first().and_then(|newest| match &newest.state {
            State::Complete(manifest) => Some((newest, manifest)),
            _ => None,
        }) else {
            let message = format!("Database backup not found: {} has no complete backup", repository.location());
            return Err(Error::new(ErrorKind::NotFound, message)
                .hint("`bsonvault backup` takes one; [[path or BACKUP_PATH]] says where to look"));
        };
        let origins: Vec<_> = complete.iter().map(|summary| summary.origin()).collect();
        let groups = group::number(origins.iter().map(Option::as_ref)).into_iter().flatten().max().unwrap_or(1);
        let is_newer = |s: &&Summary| s.created().is_none_or(|created| created > manifest.created);
        let damaged = found.iter().filter(|s| matches!(s.state, State::Damaged(_))).filter(is_newer).map(|s| s.name.clone());
        Ok(Latest { name: newest.name.clone(), provenance: Provenance::of(manifest), groups, damaged: damaged.collect() })
    }
}
