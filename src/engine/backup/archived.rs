//! Takes the oplog slice of a backup from an archive that is being written beside it, so that the
//! source's oplog is read once for both.

use std::time::Duration;

use bson::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::context::cpu::CpuPool;
use crate::error::{Error, ErrorKind, Result};
use crate::format::chain::ChainConfig;
use crate::format::digest::Content;
use crate::format::document::Documents;
use crate::format::manifest::{ClusterTime, OplogPosition, Source};
use crate::mongo::Connection;
use crate::oplog::Head;
use crate::oplog::chain::ChainRange;
use crate::oplog::chain::spans::Spans;
use crate::oplog::filter::Databases;
use crate::pipeline::write::RangeWriter;
use crate::repository::Repository;
use crate::repository::chain::ChainPlace;

/// How often to look how far the archive is.
const LOOK: Duration = Duration::from_millis(500);
/// How often to look for an archive that needs a moment to reach the end of the slice.
const LOOKS: u32 = 40;

/// An archive of the source that is being written.
#[derive(Debug, Clone)]
pub(super) struct Archived {
    place: ChainPlace,
    cpu: CpuPool,
}

/// Why a slice is not taken from an archive.
pub(super) enum Instead {
    /// The source's oplog must be read.
    Source(String),
    /// It failed.
    Failed(Error),
}

impl From<Error> for Instead {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Interrupted | ErrorKind::Internal => Self::Failed(error),
            _ => Self::Source(error.to_string()),
        }
    }
}

impl Archived {
    /// The archive that the repository has of this source, if a process writes it now, and it is of
    /// all these databases.
    pub(super) async fn of(
        repository: &Repository,
        connection: &Connection,
        databases: &[String],
        cpu: &CpuPool,
    ) -> Option<Self> {
        let chains = repository.chains().await.ok()?;
        // Most repositories have none: then the source is not asked.
        let source = if chains.is_empty() { return None } else { connection.describe().await };
        let (place, config) = only(chains, &source).await?;
        let has_all = config.databases.is_empty()
            || (!databases.is_empty() && databases.iter().all(|name| config.databases.contains(name)));
        let archived = Self { place, cpu: cpu.clone() };
        (has_all && archived.reached().await.is_some()).then_some(archived)
    }

    /// How far it is; `None` if nobody writes it, or it waits.
    async fn reached(&self) -> Option<ClusterTime> {
        let archiver = self.place.archiver().await.ok()??;
        let is_alive = archiver.state == "following" && self.place.is_written(Some(&archiver)).await;
        archiver.position.filter(|_| is_alive)
    }

    /// Waits until the end of the slice is known, and the archive has reached it. Then writes the
    /// slice from `from` to there. Returns the end.
    pub(super) async fn write(
        &self,
        from: OplogPosition,
        until: &mut watch::Receiver<Option<Timestamp>>,
        databases: &Databases,
        writer: &mut RangeWriter,
        end: &CancellationToken,
    ) -> Result<Timestamp, Instead> {
        let mut looks = 0;
        let to = loop {
            let until = *until.borrow_and_update();
            let Some(reached) = self.reached().await else {
                return Err(Instead::Source("nobody writes the archive any more".to_owned()));
            };
            if let Some(until) = until {
                if reached >= until.into() {
                    break until;
                }
                looks += 1;
                if looks > LOOKS {
                    return Err(Instead::Source(format!("the archive is only at {reached}")));
                }
            }
            end.run_until_cancelled(tokio::time::sleep(LOOK)).await.ok_or_else(Error::interrupted)?;
        };
        let copying = self.copy(from, to.into(), databases, writer);
        tracing::debug!("the oplog slice comes from the archive {}", self.place.location());
        end.run_until_cancelled(copying).await.ok_or_else(Error::interrupted)??;
        Ok(to)
    }

    async fn copy(
        &self,
        from: OplogPosition,
        to: ClusterTime,
        databases: &Databases,
        writer: &mut RangeWriter,
    ) -> Result<(), Instead> {
        let gone = || Instead::Source("the archive is gone".to_owned());
        let _lock = self.place.read_lock("backup").await?;
        let found = Spans::of(&self.place, &self.cpu).await?.ok_or_else(gone)?;
        let range = ChainRange::of(&self.place, &found, from, (to, to))?;
        let mut reader = range.reader(&self.cpu);
        while let Some(frame) = reader.next().await? {
            let databases = databases.clone();
            let kept = self.cpu.run(move || kept(&frame, &databases));
            let (kept, content) = kept.await?;
            if !kept.is_empty() {
                writer.write_frame(kept, content).await.map_err(Instead::Failed)?;
            }
        }
        Ok(())
    }
}

/// The archive of this source.
async fn only(chains: Vec<ChainPlace>, source: &Source) -> Option<(ChainPlace, ChainConfig)> {
    for place in chains {
        if let Ok(Some(config)) = place.config().await
            && config.is_of(source)
        {
            return Some((place, config));
        }
    }
    None
}

/// The entries of a frame that a slice keeps.
fn kept(frame: &[u8], databases: &Databases) -> Result<(Vec<u8>, Content)> {
    let (mut kept, mut content) = (Vec::new(), Content::default());
    for entry in Documents::of(frame) {
        let entry = entry?;
        if databases.want(&Head::of(entry)?) {
            kept.extend_from_slice(entry);
            content.add(entry);
        }
    }
    Ok((kept, content))
}
