//! Notices that a path is no longer the repository that it was. A mount that is gone leaves an
//! empty directory, which must not be taken for a repository without backups.

use std::sync::{Arc, Mutex};

use uuid::Uuid;

use crate::context::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::Repository;

/// The identity of a repository, once it was seen. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(super) struct Watched(Arc<Mutex<Option<Uuid>>>);

impl Watched {
    /// Compares the path with the repository that it was at the first call.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] if the path is gone, or is another repository or none.
    pub(super) async fn check(&self, repository: &Repository) -> Result<()> {
        let known = *lock(&self.0);
        let failed = |what: &str| {
            Err(Error::new(ErrorKind::Storage, format!("the backup path {} {what}", repository.location()))
                .hint("check that the disk or network mount is there, with the backups that it had"))
        };
        // Until its first backup, a repository need not exist.
        if known.is_some() && !repository.objects().exists().await {
            return failed("does not exist any more");
        }
        // A file that cannot be read says nothing. Whoever lists the backups warns of it.
        let Ok(config) = repository.config().await else { return Ok(()) };
        match (known, config.map(|config| config.id)) {
            (Some(_), None) => failed("is not the repository that it was: repository.json is gone"),
            (Some(known), Some(id)) if known != id => failed("is another repository than it was"),
            (_, id) => {
                *lock(&self.0) = id;
                Ok(())
            }
        }
    }
}
