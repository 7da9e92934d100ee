//! Unpack: a backup in a tar file, as the service's download makes it, beside for an import or into a repository to stay.

use tempfile::TempDir;

use super::verify::{self, VerifyOptions};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::interop::Packed;
use crate::repository::catalog::{Backup, Catalog};
use crate::repository::{Repository, Scratch};

/// Unpacks a backup into a directory of its own, which goes with the second of what it gives.
///
/// # Errors
/// Those of [`Packed::unpack`]; [`ErrorKind::Damaged`] for a manifest that cannot be used.
pub async fn aside(packed: Packed, memory: u64, cx: &Context) -> Result<(Backup, TempDir)> {
    let directory = tempfile::Builder::new().prefix("bsonvault-tar-").tempdir().map_err(|e| no_room(&e))?;
    let repository = Repository::open(&directory.path().to_string_lossy())?;
    let name = packed.unpack(repository.objects(), &cx.cancel).await?;
    let backup = Catalog::new(repository, &cx.cpu).within(memory).find(name.as_str()).await?;
    Ok((backup, directory))
}

/// Unpacks a backup into a repository, under its name, once every file is proven to be as it was written. Nothing stays if it fails.
///
/// # Errors
/// As for [`aside`]; [`ErrorKind::Mismatch`] for files that are not as they were written; [`ErrorKind::Refused`] for a backup
/// that is there already.
pub async fn into(packed: Packed, catalog: &Catalog, cx: &Context) -> Result<Backup> {
    let place = packed.location().to_owned();
    let aside = Scratch::make(catalog.repository()).await?;

    // 1. All of it, beside.
    let name = packed.unpack(aside.objects(), &cx.cancel).await?;
    let backup = Catalog::new(Repository::of(aside.objects().clone()), &cx.cpu).find(name.as_str()).await?;
    let report = verify::prove(&backup, &VerifyOptions { deep: false }, cx).await?;
    if let Some(problem) = report.problems.first() {
        return Err(Error::new(ErrorKind::Mismatch, format!("the backup in {place} is damaged: {}", problem.message))
            .hint("download it again, and verify the original with `bsonvault verify`"));
    }

    // 2. In its place.
    aside.keep(name.as_str()).await.map_err(|e| match e.kind() {
        ErrorKind::Refused => e.hint("`bsonvault verify` says whether that one is whole; give it another name to keep both"),
        _ => e,
    })?;
    aside.remove().await?;
    catalog.find(name.as_str()).await
}

fn no_room(error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Storage, format!("no directory can be made to unpack a backup in: {error}"))
        .hint("set TMPDIR, or [[path]], to a directory that can be written to and has room")
}
