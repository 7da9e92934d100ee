//! Finds the dump that the arguments of `restore` name.

use std::path::Path;

use tempfile::TempDir;

use super::args::Args;
use crate::cli::tools::{self, given};
use crate::error::{Error, ErrorKind, Result};

/// The dump that is restored if none is named, as with mongorestore.
const DEFAULT_DIRECTORY: &str = "dump";

/// The file that keeps the documents from standard input.
const KEPT: &str = "stdin.bson";

/// The place of a dump.
pub(super) struct Place {
    name: String,
    /// Removed when this is dropped.
    _kept: Option<TempDir>,
}

impl Place {
    fn there(name: String) -> Self {
        Self { name, _kept: None }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// The place that the arguments name. Documents of one collection from standard input are kept in
/// a file.
///
/// # Errors
/// [`ErrorKind::Usage`] if they name none or several; [`ErrorKind::Storage`].
pub(super) async fn find(args: &Args) -> Result<Place> {
    let (_, others) = tools::positional(&args.arguments)?;
    let places: Vec<&str> = others.into_iter().chain(given(args.dir.as_deref())).collect();
    match (given(args.archive.as_deref()), places.as_slice()) {
        (Some(archive), []) => of_archive(archive).map(Place::there),
        (None, []) => Ok(Place::there(DEFAULT_DIRECTORY.to_owned())),
        (None, ["-"]) if args.collection().is_none() => {
            Err(Error::usage("standard input holds the documents of one collection, but no collection is named")
                .hint("name it with --db and --collection, or pipe an archive to --archive"))
        }
        (None, ["-"]) => standard_input().await,
        (None, [place]) => Ok(Place::there((*place).to_owned())),
        (Some(_), _) => Err(Error::usage("a directory or file and --archive were both given")
            .hint("give only one of them; name an archive's file with an equals sign: --archive=FILE")),
        (None, _) => Err(Error::usage("several directories or files were given").hint("give only one of them")),
    }
}

fn of_archive(archive: &str) -> Result<String> {
    // mongodump's name of an archive in a directory.
    let inside = ["archive", "archive.gz"].iter().map(|name| Path::new(archive).join(name)).find(|path| path.is_file());
    match inside {
        Some(path) => Ok(path.to_string_lossy().into_owned()),
        None if Path::new(archive).is_dir() => {
            Err(Error::usage(format!("--archive={archive} is a directory without an archive"))
                .hint("to restore the directory, leave out --archive="))
        }
        None => Ok(archive.to_owned()),
    }
}

async fn standard_input() -> Result<Place> {
    let keep = || -> std::io::Result<(TempDir, String)> {
        let directory = tempfile::Builder::new().prefix("bsonvault-stdin-").tempdir()?;
        let path = directory.path().join(KEPT);
        std::io::copy(&mut std::io::stdin().lock(), &mut std::fs::File::create(&path)?)?;
        Ok((directory, path.to_string_lossy().into_owned()))
    };
    let kept = tokio::task::spawn_blocking(keep).await;
    let kept = kept.map_err(|e| Error::new(ErrorKind::Internal, "a file system task crashed").cause(e))?;
    let (directory, path) = kept.map_err(|e| {
        Error::new(ErrorKind::Storage, format!("standard input cannot be kept in {}: {e}", std::env::temp_dir().display()))
            .hint("set TMPDIR to a directory with enough space")
            .cause(e)
    })?;
    Ok(Place { name: path, _kept: Some(directory) })
}
