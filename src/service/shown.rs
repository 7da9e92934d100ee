//! What backups hold, as the service tells it: however many ask at a time, and however slowly they take the answer, all answers together keep
//! within a part of the memory.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::context::lock;
use crate::context::memory::{MemoryBudget, MemoryPermit};
use crate::error::{Error, ErrorKind, Result};
use crate::names::BackupName;
use crate::repository::catalog::{Backup, Catalog, Described, Stamp};

/// How long room is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the text of a manifest is in memory: as what is made of it, and as the answer.
const COPIES: u64 = 2;

/// An answer, which several may be taking. The last one that lets go of it gives its room back.
#[derive(Debug, Clone)]
pub struct Answered(Arc<(Vec<u8>, MemoryPermit)>);

impl AsRef<[u8]> for Answered {
    fn as_ref(&self) -> &[u8] {
        &self.0.0
    }
}

/// What an answer was made of: equal ones, equal answers.
type Made = (BackupName, bool, Option<Stamp>);

/// An answer that may still be on its way.
type Last = (Made, Weak<(Vec<u8>, MemoryPermit)>);

/// Makes answers.
pub(super) struct Shown {
    catalog: Catalog,
    room: MemoryBudget,
    /// The last one, as long as somebody takes it.
    last: Mutex<Option<Last>>,
}

impl Shown {
    pub(super) fn new(catalog: Catalog, room: MemoryBudget) -> Self {
        Self { catalog, room, last: Mutex::default() }
    }

    /// What `write` makes of the description of a backup.
    ///
    /// # Errors
    /// Those of [`Catalog::find`] and of `write`; [`ErrorKind::Busy`] where there is no room for half a minute.
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
            Error::new(ErrorKind::Busy, "the memory for answers is taken by others, which are being sent").hint("try again later")
        })?;
        let made = (name.clone(), segments, self.catalog.stamp(name).await);
        if let Some(answered) = self.again(&made) {
            return Ok(answered);
        }
        let bytes = write(find.await?.describe(segments).await?)?;
        share.resize(bytes.capacity() as u64);
        // Clients take it as slowly as they like: no job waits for them.
        share.set_aside();
        let answered = Answered(Arc::new((bytes, share)));
        *lock(&self.last) = Some((made, Arc::downgrade(&answered.0)));
        Ok(answered)
    }

    /// The same answer, where it is being sent to others.
    fn again(&self, made: &Made) -> Option<Answered> {
        lock(&self.last)
            .as_ref()
            .filter(|(last, _)| last == made && last.2.is_some())
            .and_then(|(_, last)| last.upgrade())
            .map(Answered)
    }
}
