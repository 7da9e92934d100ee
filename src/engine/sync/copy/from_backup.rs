//! A first copy from a backup.

use super::copier::Copier;
use crate::engine::import::PointInTime;
use crate::engine::moment::Moment;
use crate::error::{ErrorKind, Result};
use crate::format::manifest::OplogPosition;
use crate::sink::synced::Synced;

impl Copier<'_> {
    /// The newest time that can be restored from a backup; `None` if the source is to be read
    /// instead. A backup that was asked for is waited for while it is taken.
    ///
    /// # Errors
    /// Those of finding it.
    pub(super) async fn backup(&self) -> Result<Option<(PointInTime, OplogPosition)>> {
        let options = self.options;
        loop {
            let (_, at) = self.tip().await?;
            let found = PointInTime::open(self.repository, options.from.as_deref(), Moment::At(at.time), self.cx).await;
            match found {
                Ok(point) => return Ok(Some((point, at))),
                Err(e) if e.kind() == ErrorKind::NotFound && options.from.is_none() => {
                    if !options.keep_backup {
                        return Ok(None);
                    }
                    // The archive takes one.
                    tracing::debug!("waiting for a base backup: {e}");
                }
                Err(e) if e.kind() == ErrorKind::Gap && options.is_direct() => return Ok(None),
                Err(e) => return Err(e),
            }
            self.pause().await?;
        }
    }

    /// Makes the copy from a backup, as of this time.
    ///
    /// # Errors
    /// Those of an import.
    pub(super) async fn restore(&self, (point, at): (PointInTime, OplogPosition)) -> Result<Synced> {
        let (plan, options) = self.plan(&point).await?;
        self.publish(plan, &options, at).await
    }
}
