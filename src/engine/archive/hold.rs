//! Sees to it that one process writes an archive: a lock for this machine, and a heartbeat for
//! others.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::status::StatusSender;
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::format::chain::{Archiver, CHAIN_VERSION};
use crate::format::digest::Sha256Hex;
use crate::repository::backend::Lock;
use crate::repository::chain::ChainPlace;
use crate::system;

/// The right to write an archive.
pub(super) struct Hold {
    id: Uuid,
    started: DateTime<Utc>,
    status: StatusSender,
    /// The last piece that was known at the start.
    piece: Option<(u64, Option<Sha256Hex>)>,
    _lock: Lock,
    is_locked: bool,
}

impl Hold {
    /// Takes it.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if another process has it; [`ErrorKind::Storage`].
    pub(super) async fn take(place: &ChainPlace, status: StatusSender) -> Result<Self> {
        let now = clock::now();
        let before = place.archiver().await.unwrap_or_default();
        let Some(lock) = place.keep_archivers_out(now).await? else { return Err(busy(place, before.as_ref())) };
        let is_locked = lock.holds();
        let piece = before.and_then(|archiver| archiver.piece.map(|piece| (piece, archiver.piece_sha256)));
        Ok(Self { id: Uuid::new_v4(), started: now, status, piece, _lock: lock, is_locked })
    }

    /// Says what this process does.
    pub(super) async fn tell(&self, place: &ChainPlace, ended: bool) {
        let status = self.status.get();
        let own = status.piece.map(|piece| (piece, status.piece_sha256));
        let (piece, piece_sha256) = own.or_else(|| self.piece.clone()).unzip();
        let archiver = Archiver {
            format_version: CHAIN_VERSION,
            host: system::host(),
            process: std::process::id(),
            id: self.id,
            locked: self.is_locked,
            started: self.started,
            heartbeat: clock::now(),
            ended,
            state: status.state.name().to_owned(),
            problem: status.problem,
            position: status.position,
            source_time: status.source_time.map(|(time, _)| time),
            oldest: status.oldest,
            piece,
            piece_sha256: piece_sha256.flatten(),
        };
        if let Err(e) = place.set_archiver(&archiver).await {
            tracing::warn!("the heartbeat of the archive could not be written: {e}");
        }
    }

    /// Makes sure that no other process has taken it since.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`].
    pub(super) async fn confirm(&self, place: &ChainPlace) -> Result<()> {
        match place.archiver().await {
            Ok(Some(other)) if other.id != self.id && other.started >= self.started => Err(busy(place, Some(&other))),
            _ => Ok(()),
        }
    }
}

fn busy(place: &ChainPlace, other: Option<&Archiver>) -> Error {
    let who = other.map_or_else(String::new, |other| format!(": process {} on {}", other.process, other.host));
    Error::new(ErrorKind::Busy, format!("{} is being written by another archiver{who}", place.location())).hint(
        "one process archives an oplog at a time: stop the other one; one that crashed on another machine counts for half a minute more",
    )
}
