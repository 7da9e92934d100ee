//! `export`: writes a backup in mongodump's formats.

use std::path::PathBuf;

use super::filter::Filter;
use super::named::{self, Asking};
use super::output::{self, Outcome};
use super::progress::{Faces, with_progress};
use super::render;
use crate::config::{Config, Flags};
use crate::context::Context;
use crate::engine::export::{self, DEFAULT_LEVEL, Destination, ExportOptions, LEVELS};
use crate::error::{Error, ErrorKind, Result};

/// Flags of `export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The backup: a name that `list` shows, `latest` for the newest complete one, or a path
    #[arg(value_name = "BACKUP")]
    backup: String,
    /// A directory of files, or one archive file. Standard output gets an archive
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// The directory or file to write; - is standard output. It must not exist, unless --force is
    /// given; a directory may be empty
    #[arg(long, value_name = "PATH")]
    out: String,
    /// Compress with gzip, on all cores
    #[arg(long)]
    gzip: bool,
    /// gzip's level, 1 to 9 [default: 6]
    #[arg(long, value_name = "N", requires = "gzip", allow_negative_numbers = true)]
    level: Option<String>,
    #[command(flatten)]
    filter: Filter,
    /// Replace the archive file, write to a device or pipe, or replace collections file by file in
    /// a directory that holds a dump
    #[arg(help_heading = "Safety", long)]
    force: bool,
    /// MiB for all buffers together, 64 or more [env: BACKUP_MEMORY_MB] [default: 256]
    #[arg(help_heading = "Load", long, value_name = "N", allow_negative_numbers = true)]
    memory_mb: Option<String>,
}

/// mongodump's formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A directory, for mongorestore --dir
    Dir,
    /// A file, for mongorestore --archive
    Archive,
}

impl Args {
    pub(super) fn flags(&self) -> Flags {
        Flags { memory_mb: self.memory_mb.clone(), ..Flags::default() }
    }
}

pub(super) async fn run(args: Args, config: &Config, json: bool, faces: Faces, cx: &Context) -> Result<Outcome> {
    let destination = match args.out.as_str() {
        "-" => Destination::Stdout,
        path => Destination::Path(PathBuf::from(path)),
    };
    let options = ExportOptions {
        beside: Vec::new(),
        format: format(args.format, &destination, json)?,
        gzip: gzip(&args)?,
        filter: args.filter.of(&[])?,
        force: args.force,
        oplog: false,
        tuning: config.tuning,
    };
    let backup = named::find(&args.backup, Asking { verb: "export", silent: json }, config, cx).await?;
    let work = export::run(&backup, &options, &destination, cx);
    let report = with_progress(faces, cx, work).await.map_err(|e| match e.kind() {
        ErrorKind::Damaged => e.hint_too("--exclude NS skips a damaged collection; `bsonvault verify` names all of them"),
        _ => e,
    })?;
    let text = render::export::export(&report);
    if destination == Destination::Stdout {
        // Standard output gets only the archive.
        output::to_stderr(&text);
        return Ok(Outcome::done(String::new(), serde_json::Map::new()));
    }
    Ok(Outcome::done(text, output::fields(&report)?))
}

fn format(asked: Option<Format>, destination: &Destination, json: bool) -> Result<export::Format> {
    match (asked, destination) {
        (_, Destination::Stdout) if json => {
            Err(Error::usage("--json and an archive cannot both be on standard output").hint("leave out one of them"))
        }
        (Some(Format::Dir), Destination::Stdout) => {
            Err(Error::usage("--format dir cannot be written to standard output").hint("use --format archive"))
        }
        (Some(Format::Archive), _) | (None, Destination::Stdout) => Ok(export::Format::Archive),
        (Some(Format::Dir), _) => Ok(export::Format::Dir),
        (None, Destination::Path(_)) => {
            Err(Error::usage("--format is missing").hint("--format dir writes a directory, --format archive one file"))
        }
    }
}

fn gzip(args: &Args) -> Result<Option<u32>> {
    let Some(text) = &args.level else { return Ok(args.gzip.then_some(DEFAULT_LEVEL)) };
    match text.parse().ok().filter(|level| LEVELS.contains(level)) {
        Some(level) => Ok(Some(level)),
        None => {
            Err(Error::usage(format!("--level is {text:?}: expected a whole number from {} to {}", LEVELS.start(), LEVELS.end())))
        }
    }
}
