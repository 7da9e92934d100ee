//! The archive of an oplog: entries in, as [`pieces`] that are [rolled](roll) into links, and
//! entries out, as a [`range`] that is proven to be whole, or without end
//! ([`follow`]).

pub mod follow;
mod index;
pub mod pieces;
pub mod range;
pub mod roll;
pub mod spans;

pub use self::follow::ChainFollower;
use self::index::IndexBuilder;
pub use self::pieces::PieceWriter;
pub use self::range::{ChainRange, ChainReader};
use crate::context::cpu::CpuPool;
use crate::error::{ErrorKind, Result};
use crate::format::chain::IndexRecord;
use crate::format::document::Documents;
use crate::repository::chain::ChainPlace;

/// The entries of a piece, proven to be whole; `None` if it is not there any more, because it
/// became part of a link.
///
/// # Errors
/// [`ErrorKind::Damaged`]; [`ErrorKind::Storage`].
pub async fn entries_of_piece(place: &ChainPlace, number: u64, cpu: &CpuPool) -> Result<Option<Vec<Vec<u8>>>> {
    match roll::open_piece(place, number, cpu).await {
        Ok(piece) => Ok(Some(roll::entries(piece, cpu).await?.1)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The index of these frames of entries.
///
/// # Errors
/// [`ErrorKind::Damaged`] if they are no entries of an oplog.
pub fn index_of(frames: &[Vec<u8>]) -> Result<Vec<IndexRecord>> {
    let mut index = IndexBuilder::default();
    for frame in frames {
        for entry in Documents::of(frame) {
            index.take(entry?)?;
        }
        index.end_frame();
    }
    Ok(index.finish())
}
