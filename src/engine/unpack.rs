//! Unpack: a backup in a tar file, as the service's download makes it, beside for an import or into a store to stay.

use tempfile::TempDir;

use super::verify::{self, VerifyOptions};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::interop::Packed;
use crate::repository::backend::{Scratch, Store};
use crate::repository::catalog::{Backup, Catalog};

/// Unpacks a backup into a directory of its own, which goes with the second of what it gives.
///
/// # Errors
/// Those of [`Packed::unpack`]; [`ErrorKind::Damaged`] for a manifest that cannot be used.
pub async fn aside(packed: Packed, memory: u64, cx: &Context) -> Result<(Backup, TempDir)> {
    let directory = tempfile::Builder::new().prefix("bsonvault-tar-").tempdir().map_err(|e| no_room(&e))?;
    let name = packed.unpack(directory.path(), &cx.cancel).await?;
    let store = Store::open(&directory.path().to_string_lossy())?;
    let backup = Catalog::new(store).within(memory).find(name.as_str()).await?;
    Ok((backup, directory))
}

/// Unpacks a backup into a store, under its name, once every file is proven to be as it was written. Nothing stays if it fails.
///
/// # Errors
/// As for [`aside`]; [`ErrorKind::Mismatch`] for files that are not as they were written; [`ErrorKind::Refused`] for a backup
/// that is there already.
pub async fn into(packed: Packed, catalog: &Catalog, cx: &Context) -> Result<Backup> {
    let (place, store) = (packed.location().to_owned(), catalog.store());
    let aside = Scratch::make(store).await?;

    // 1. All of it, beside.
    let name = packed.unpack(aside.store().directory(), &cx.cancel).await?;
    let backup = Catalog::new(aside.store().clone()).find(name.as_str()).await?;
    let report = verify::run(&backup, &VerifyOptions { deep: false }, cx).await?;
    if let Some(problem) = report.problems.first() {
        return Err(Error::new(ErrorKind::Mismatch, format!("the backup in {place} is damaged: {}", problem.message))
            .hint("download it again, and verify the original with `bsonvault verify`"));
    }

    // 2. In its place.
    let into = store.directory().join(name.as_str());
    if into.symlink_metadata().is_ok() {
        return Err(Error::new(ErrorKind::Refused, format!("{} is there already", into.display()))
            .hint("`bsonvault verify` says whether that one is whole; give it another name to keep both"));
    }
    let moved = std::fs::rename(aside.store().directory().join(name.as_str()), &into);
    moved.and_then(|()| std::fs::File::open(store.directory())?.sync_all()).map_err(|e| no_room(&e))?;
    aside.remove().await?;
    catalog.find(name.as_str()).await
}

fn no_room(error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Storage, format!("no directory can be made to unpack a backup in: {error}"))
        .hint("set TMPDIR, or --path, to a directory that can be written to and has room")
}
