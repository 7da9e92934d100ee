//! What happens to the objects of a failed backup: they are removed, or kept so that it can be
//! resumed.

use crate::error::{Error, ErrorKind};
use crate::format::key;
use crate::names::BackupName;
use crate::repository::backend::Objects;
use crate::repository::checkpoint::Durable;

/// A stopped backup keeps what it stored from this many bytes of documents on. Reading less again
/// is not worth the care.
const WORTH_KEEPING: u64 = 64 * 1024 * 1024;

/// Removes what a failed backup wrote. If that fails, the error names what is left.
pub(in crate::engine) async fn remove(place: &Objects, error: Error) -> Error {
    match place.delete_all(key::MANIFEST).await {
        Ok(()) if error.kind() == ErrorKind::Interrupted => {
            Error::new(ErrorKind::Interrupted, "interrupted; nothing of the backup is left")
        }
        Ok(()) => error,
        Err(left) => {
            tracing::error!("the unfinished backup could not be removed: {left}");
            error.hint_too(format_args!("also remove the leftovers in {}: {left}", place.location()))
        }
    }
}

/// Whether the backup can be resumed once the cause of the failure is gone.
pub(super) fn is_resumable(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Unreachable | ErrorKind::Storage)
}

/// Whether the objects of a failed backup are worth keeping.
pub(super) fn is_worth_keeping(error: &Error, durable: &Durable) -> bool {
    is_resumable(error) && durable.bytes() >= WORTH_KEEPING
}

/// Keeps what a failed backup stored, and adds to the error how to resume it.
pub(super) async fn keep(name: &BackupName, place: &Objects, error: Error) -> Error {
    for key in [key::MANIFEST, key::SHA256SUMS, key::PROGRESS] {
        if let Err(e) = place.delete(key).await {
            tracing::warn!("{key} of the unfinished backup could not be removed: {e}");
        }
    }
    let remove = place.location();
    error.hint_too(format_args!(
        "what was read is kept: [[`bsonvault backup resume {name}`]] resumes the backup; or remove {remove}"
    ))
}
