//! Unpack: a backup in a tar file, as the service's download makes it, into a temporary directory
//! for an import or into a repository.

use tempfile::TempDir;

use super::verify::{self, VerifyOptions};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::interop::Packed;
use crate::repository::catalog::{Backup, Catalog};
use crate::repository::{Repository, Scratch};

/// Unpacks a backup into a temporary directory, which is removed with the second value.
///
/// # Errors
/// Those of [`Packed::unpack`]; [`ErrorKind::Damaged`] for an unusable manifest.
pub async fn aside(packed: Packed, memory: u64, cx: &Context) -> Result<(Backup, TempDir)> {
    let directory = tempfile::Builder::new().prefix("bsonvault-tar-").tempdir().map_err(|e| no_room(&e))?;
    let repository = Repository::open(&directory.path().to_string_lossy())?;
    let name = packed.unpack(repository.objects(), &cx.cancel).await?;
    let backup = Catalog::new(repository, &cx.cpu).within(memory).find(name.as_str()).await?;
    Ok((backup, directory))
}

/// Unpacks a backup into a repository, under its name, once every file is verified. If it fails,
/// nothing stays.
///
/// # Errors
/// As for [`aside`]; [`ErrorKind::Mismatch`] for files that differ from what was written;
/// [`ErrorKind::Refused`] for a backup that exists already.
pub async fn into(packed: Packed, catalog: &Catalog, cx: &Context) -> Result<Backup> {
    let place = packed.location().to_owned();
    let aside = Scratch::make(catalog.repository()).await?;

    // 1. Unpack everything beside, and verify it.
    let name = packed.unpack(aside.objects(), &cx.cancel).await?;
    let backup = Catalog::new(Repository::of(aside.objects().clone()), &cx.cpu).find(name.as_str()).await?;
    let report = verify::prove(&backup, &VerifyOptions { deep: false }, cx).await?;
    if let Some(problem) = report.problems.first() {
        return Err(Error::new(ErrorKind::Mismatch, format!("the backup in {place} is damaged: {}", problem.message))
            .hint("download it again, and verify the original with `bsonvault verify`"));
    }

    // 2. Move it into its place.
    aside.keep(name.as_str()).await.map_err(|e| match e.kind() {
        ErrorKind::Refused => e.hint("check the existing one with `bsonvault verify`; give it another name to keep both"),
        _ => e,
    })?;
    aside.remove().await?;
    catalog.find(name.as_str()).await
}

fn no_room(error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Storage, format!("cannot create a directory to unpack a backup: {error}"))
        .hint("set TMPDIR, or [[path]], to a writable directory with enough space")
}
