//! Reads and keeps the results of a backup's checks, beside the backup.

use super::Backup;
use crate::error::{Error, ErrorKind, Result};
use crate::format::checks::{self, Check, Checks};
use crate::format::manifest::Manifest;
use crate::repository::backend::Objects;
use crate::repository::layout;

impl Backup {
    /// How its last checks ended. Unusable results are ignored with a warning: they are not part of
    /// the backup.
    pub async fn checks(&self) -> Checks {
        read(&self.store, &self.manifest).await
    }

    /// Keeps the result of a check, in place of the last one of its kind. Of two concurrent
    /// writers, the last one wins. If the result cannot be kept, a warning says so: a read-only
    /// directory is no reason for a check to fail.
    pub async fn keep(&self, check: Check) {
        if let Err(e) = self.try_to_keep(check).await {
            tracing::warn!("the result of the check could not be kept beside the backup {}: {e}", self.location());
        }
    }

    async fn try_to_keep(&self, check: Check) -> Result<()> {
        // Otherwise the write would recreate a directory that was deleted meanwhile.
        self.store.size(layout::MANIFEST).await?;
        let mut checks = self.checks().await;
        checks.put(check);
        self.store.put(layout::CHECKS, vec![checks.to_bytes()?.into()]).await
    }
}

pub(super) async fn read(store: &Objects, manifest: &Manifest) -> Checks {
    match try_to_read(store, manifest).await {
        Ok(checks) => checks,
        Err(e) => {
            if e.kind() != ErrorKind::NotFound {
                tracing::warn!("the stored check results of the backup {} are ignored: {e}", store.location());
            }
            Checks::none(manifest.id)
        }
    }
}

async fn try_to_read(store: &Objects, manifest: &Manifest) -> Result<Checks> {
    let size = store.size(layout::CHECKS).await?;
    if size > checks::LIMIT {
        return Err(Error::damaged(format!("{} has {size} bytes, more than the limit of {}", layout::CHECKS, checks::LIMIT)));
    }
    Checks::from_bytes(&store.get(layout::CHECKS).await?, manifest.id)
}
