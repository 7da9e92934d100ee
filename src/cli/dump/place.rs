//! The destination of a dump, and the temporary directory of the backup that it is written from.

use std::path::Path;

use super::args::Args;
use crate::engine::export::Destination;
use crate::error::{Error, ErrorKind, Result};

/// The directory if none is named, as with mongodump.
const DEFAULT_DIRECTORY: &str = "dump";

/// The destination of the dump, and whether a directory was created for it.
pub(super) fn destination(args: &Args, json: bool) -> Result<(Destination, bool)> {
    let out = args.out.as_deref().filter(|out| !out.as_os_str().is_empty());
    let archive = args.archive.as_deref().filter(|archive| !archive.as_os_str().is_empty());
    if let (Some(_), Some(_)) = (out, archive) {
        return Err(Error::usage("--out and --archive were both given").hint("give only one of them"));
    }
    match archive {
        Some(file) if file == Path::new("-") && json => {
            Err(Error::usage("--json and an archive cannot both be on standard output")
                .hint("write the archive to a file: --archive=FILE"))
        }
        Some(file) if file == Path::new("-") => Ok((Destination::Stdout, false)),
        // As mongodump does it.
        Some(file) if file.is_dir() => {
            Ok((Destination::Path(file.join(if args.gzip { "archive.gz" } else { "archive" })), false))
        }
        Some(file) => Ok((Destination::Path(file.to_owned()), false)),
        None if out == Some(Path::new("-")) && json => {
            Err(Error::usage("--json and documents cannot both be on standard output").hint("write to a directory: --out DIR"))
        }
        None if out == Some(Path::new("-")) && args.gzip => {
            Err(Error::usage("--gzip cannot be used with --out -, as in mongodump").hint("pipe the output through gzip"))
        }
        None if out == Some(Path::new("-")) => Ok((Destination::Stdout, false)),
        None => {
            let out = out.unwrap_or(Path::new(DEFAULT_DIRECTORY));
            let made = !out.exists();
            std::fs::create_dir_all(out).map_err(|e| {
                Error::new(ErrorKind::Storage, format!("cannot create {}: {e}", out.display()))
                    .hint("choose another directory with --out")
                    .cause(e)
            })?;
            Ok((Destination::Path(out.to_owned()), made))
        }
    }
}

/// A directory for the backup, on the disk of the destination. If that is standard output or not a
/// regular file, it is in the system's temporary directory.
pub(super) fn scratch(destination: &Destination) -> Result<tempfile::TempDir> {
    let above = match destination {
        Destination::Path(path) if path.is_dir() => path.clone(),
        Destination::Path(path) if path.is_file() || !path.exists() => {
            match path.canonicalize().as_deref().unwrap_or(path).parent() {
                Some(above) if !above.as_os_str().is_empty() => above.to_owned(),
                _ => Path::new(".").to_owned(),
            }
        }
        Destination::Path(_) | Destination::Stdout => std::env::temp_dir(),
    };
    tempfile::Builder::new().prefix(".bsonvault-dump-").tempdir_in(&above).map_err(|e| {
        Error::new(ErrorKind::Storage, format!("cannot create a directory in {}: {e}", above.display()))
            .hint(
                "the backup that the dump is written from needs it; for an archive to standard output, TMPDIR chooses the place",
            )
            .cause(e)
    })
}

/// Writes the one `.bson` file in this directory to standard output.
pub(super) async fn pour_out(directory: &Path) -> Result<()> {
    let directory = directory.to_owned();
    let pouring = move || -> std::io::Result<()> {
        for database in std::fs::read_dir(directory)? {
            let database = database?.path();
            if !database.is_dir() {
                continue;
            }
            for file in std::fs::read_dir(database)? {
                let file = file?.path();
                if file.extension().is_some_and(|e| e == "bson") {
                    std::io::copy(&mut std::fs::File::open(file)?, &mut std::io::stdout().lock())?;
                }
            }
        }
        std::io::Write::flush(&mut std::io::stdout().lock())
    };
    let poured = tokio::task::spawn_blocking(pouring).await;
    poured
        .map_err(|e| Error::new(ErrorKind::Internal, "a file system task crashed").cause(e))?
        .map_err(|e| Error::new(ErrorKind::Storage, format!("cannot write to standard output: {e}")).cause(e))
}
