//! What becomes of what a backup that failed had stored: it is removed, or kept to be gone on with.

use crate::error::{Error, ErrorKind};
use crate::format::key;
use crate::names::BackupName;
use crate::repository::backend::Objects;
use crate::repository::checkpoint::Durable;

/// A backup that is stopped keeps what it stored where that is of so many bytes of documents: reading less again is quicker than to care for it.
const WORTH_KEEPING: u64 = 64 * 1024 * 1024;

/// Removes what a failed backup wrote; what cannot be removed is named beside the failure.
pub(in crate::engine) async fn remove(place: &Objects, error: Error) -> Error {
    match place.delete_all(key::MANIFEST).await {
        Ok(()) if error.kind() == ErrorKind::Interrupted => {
            Error::new(ErrorKind::Interrupted, "interrupted; nothing of the backup is left")
        }
        Ok(()) => error,
        Err(left) => {
            tracing::error!("the unfinished backup could not be removed: {left}");
            error.hint_too(format_args!("also remove what is left in {}: {left}", place.location()))
        }
    }
}

/// Whether what is stored may be gone on with later, when what failed is over.
pub(super) fn is_resumable(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Unreachable | ErrorKind::Storage)
}

/// Whether what a failed backup stored is worth more than the trouble of removing it.
pub(super) fn is_worth_keeping(error: &Error, durable: &Durable) -> bool {
    is_resumable(error) && durable.bytes() >= WORTH_KEEPING
}

/// Keeps what a failed backup stored, and says how it goes on.
pub(super) async fn keep(name: &BackupName, place: &Objects, error: Error) -> Error {
    for key in [key::MANIFEST, key::SHA256SUMS, key::PROGRESS] {
        if let Err(e) = place.delete(key).await {
            tracing::warn!("{key} of the unfinished backup could not be removed: {e}");
        }
    }
    let remove = place.location();
    error.hint_too(format_args!("what was read is kept: [[`bsonvault backup resume {name}`]] goes on; or remove {remove}"))
}
