//! Descriptions of backups as answers. All answers together stay within a part of the memory
//! budget, however many clients ask and however slowly they read.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::context::lock;
use crate::context::memory::{MemoryBudget, MemoryPermit};
use crate::error::{Error, ErrorKind, Result};
use crate::names::BackupName;
use crate::repository::catalog::{Backup, Catalog, Described, Stamp};

/// How long to wait for memory.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a manifest's text is in memory: as the parsed description, and as the answer.
const COPIES: u64 = 2;

/// An answer that several clients may read. The last one to drop it releases its memory.
#[derive(Debug, Clone)]
pub struct Answered(Arc<(Vec<u8>, MemoryPermit)>);

impl AsRef<[u8]> for Answered {
    fn as_ref(&self) -> &[u8] {
        &self.0.0
    }
}

/// What determines an answer: equal keys give equal answers.
type Made = (BackupName, bool, Option<Stamp>);

/// The last answer, which may still be in use.
type Last = (Made, Weak<(Vec<u8>, MemoryPermit)>);

/// Creates answers.
pub(super) struct Shown {
    catalog: Catalog,
    room: MemoryBudget,
    /// The last answer, while a client reads it.
    last: Mutex<Option<Last>>,
}

impl Shown {
    pub(super) fn new(catalog: Catalog, room: MemoryBudget) -> Self {
        Self { catalog, room, last: Mutex::default() }
    }

    /// What `write` makes of the description of a backup.
    ///
    /// # Errors
    /// Those of [`Catalog::find`] and of `write`; [`ErrorKind::Busy`] if no memory is free within
    /// half a minute.
    pub(super) async fn get(
        &self,
        find: impl Future<Output = Result<Backup>>,
        name: &BackupName,
        segments: bool,
        write: impl FnOnce(Described) -> Result<Vec<u8>>,
    ) -> Result<Answered> {
        let size = self.catalog.stamp(name).await.map_or(0, |stamp| stamp.manifest_bytes());
        let taken = tokio::time::timeout(PATIENCE, self.room.take(COPIES * size)).await;
        let mut share = taken.map_err(|_| {
            Error::new(ErrorKind::Busy, "the memory for answers is taken by answers that are being sent").hint("try again later")
        })?;
        let made = (name.clone(), segments, self.catalog.stamp(name).await);
        if let Some(answered) = self.again(&made) {
            return Ok(answered);
        }
        let bytes = write(find.await?.describe(segments).await?)?;
        share.resize(bytes.capacity() as u64);
        // Clients may read slowly: no job waits for this memory.
        share.set_aside();
        let answered = Answered(Arc::new((bytes, share)));
        *lock(&self.last) = Some((made, Arc::downgrade(&answered.0)));
        Ok(answered)
    }

    /// The same answer, if another client is still reading it.
    fn again(&self, made: &Made) -> Option<Answered> {
        lock(&self.last)
            .as_ref()
            .filter(|(last, _)| last == made && last.2.is_some())
            .and_then(|(_, last)| last.upgrade())
            .map(Answered)
    }
}
