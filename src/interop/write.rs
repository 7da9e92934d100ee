//! Dumps in mongodump's formats, written: an archive, or a directory of files; plain, or gzip made by all cores.
//!
//! Nothing half done stays: what is written lies beside its destination, or in the directory that it is, under another name, and takes its place when all
//! of it is on the disk.

mod archive;
mod directory;
mod gzip;
mod place;
mod sink;

use std::path::PathBuf;

use self::archive::Archive;
use self::directory::Directory;
pub use self::gzip::{DEFAULT_LEVEL, LEVELS};
use self::place::Place;
use crate::context::cpu::CpuPool;
use crate::error::{Error, Result};
use crate::format::key::escape_collection;
use crate::format::manifest::CollectionKind;

/// The memory that writing takes beside the frames it is given, at most, unless a single one of them is larger.
pub const WRITING_BYTES: u64 = (sink::ROOM + gzip::MEMBERS * 3 * gzip::MEMBER) as u64;

/// Where a dump goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A directory or a file, which must not be there unless it is to be replaced: a directory may be if it is empty.
    Path(PathBuf),
    /// Standard output, which takes archives alone.
    Stdout,
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Stdout => f.write_str("standard output"),
        }
    }
}

/// Formats of a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One file.
    Archive,
    /// A directory of files.
    Dir,
}

/// How a dump is written.
#[derive(Debug, Clone, Copy)]
pub struct WriteOptions {
    /// The format.
    pub format: Format,
    /// The level of gzip, one of [`LEVELS`]; not compressed without.
    pub gzip: Option<u32>,
    /// Whether an archive may take the place of a file or be written to a device or pipe, and the files of a directory those of a dump that is there.
    pub force: bool,
    /// Whether the databases of the dump have no other collections, so that files of others that are there go.
    pub whole: bool,
}

/// What a dump holds.
#[derive(Debug, Clone)]
pub struct Contents {
    /// The version of the server that it comes from.
    pub server_version: String,
    /// The program that writes it.
    pub tool_version: String,
    /// The collections, in the order in which they come.
    pub collections: Vec<Described>,
    /// Whether it has an oplog, which comes last.
    pub oplog: bool,
}

/// A collection of a dump.
#[derive(Debug, Clone)]
pub struct Described {
    /// Its database.
    pub database: String,
    /// Its name.
    pub name: String,
    /// The name that its documents come under: of a time series, that of its buckets where these have a name.
    pub data: String,
    /// What it is.
    pub kind: CollectionKind,
    /// The text of its metadata file; nothing where it has none.
    pub metadata: String,
}

/// What the names of a collection's files begin with. Users and roles in the dump of their database keep their names, as with mongodump.
fn stem(name: &str) -> String {
    if name.starts_with("$admin.") { name.to_owned() } else { escape_collection(name) }
}

/// A dump being written: its parts one after the other, each begun, given its documents, and ended. One that is dropped leaves nothing.
#[derive(Debug)]
pub struct Writer(Kind);

#[derive(Debug)]
enum Kind {
    Archive(Archive),
    Directory(Directory),
}

/// Looks whether a dump can be written there, and leaves nothing: as [`Writer::open`] looks, but for the databases' directories in a dump that is there.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) where something is in its place that is not to be replaced, where the directory that it would be
/// in is not there, or where the destination does not take the format; [`ErrorKind::Storage`](crate::error::ErrorKind::Storage) where nothing can be
/// written.
pub fn look(destination: &Destination, format: Format, force: bool) -> Result<()> {
    match (destination, format) {
        (Destination::Stdout, Format::Archive) => Ok(()),
        (Destination::Stdout, Format::Dir) => Err(not_to_stdout()),
        (Destination::Path(path), _) => Place::of(path, format, force)?.prove(),
    }
}

fn not_to_stdout() -> Error {
    Error::usage("a directory cannot be written to standard output").hint("use --format archive")
}

impl Writer {
    /// Begins a dump.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) where something is in its place, or the destination does not take the format;
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    pub async fn open(destination: &Destination, options: WriteOptions, contents: Contents, cpu: &CpuPool) -> Result<Self> {
        Ok(Self(match options.format {
            Format::Archive => Kind::Archive(Archive::open(destination, options, contents, cpu).await?),
            Format::Dir => Kind::Directory(Directory::open(destination, options, contents, cpu).await?),
        }))
    }

    /// Begins the next collection, or after the last of them the oplog.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) where its file would have the name of another one;
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    pub async fn begin(&mut self) -> Result<()> {
        match &mut self.0 {
            Kind::Archive(archive) => archive.begin(),
            Kind::Directory(directory) => directory.begin().await,
        }
    }

    /// Writes whole documents, one after the other, of what was begun last.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage); [`ErrorKind::Refused`](crate::error::ErrorKind::Refused) for a document that an
    /// archive cannot hold.
    pub async fn documents(&mut self, frame: Vec<u8>) -> Result<()> {
        match &mut self.0 {
            Kind::Archive(archive) => archive.documents(frame).await,
            Kind::Directory(directory) => directory.documents(frame).await,
        }
    }

    /// Ends what was begun last.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    pub async fn end(&mut self) -> Result<()> {
        match &mut self.0 {
            Kind::Archive(archive) => archive.end().await,
            Kind::Directory(directory) => directory.end().await,
        }
    }

    /// Makes the dump durable. Gives the bytes that it takes.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    pub async fn finish(&mut self) -> Result<u64> {
        match &mut self.0 {
            Kind::Archive(archive) => archive.finish().await,
            Kind::Directory(directory) => directory.finish().await,
        }
    }

    /// Puts the dump in its place, once it is durable. What is begun here goes on to its end, also where nobody waits for it.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) where something came there meanwhile, and [`ErrorKind::Storage`](crate::error::ErrorKind::Storage):
    /// nothing stays then, unless the message says that a dump in the directory is partly the new one.
    pub async fn put(self) -> Result<()> {
        match self.0 {
            Kind::Archive(archive) => archive.put().await,
            Kind::Directory(directory) => directory.put().await,
        }
    }

    /// Gives the dump up: nothing of it stays, and nothing is at work on it any more but for a write to standard output that nobody reads.
    pub async fn abandon(self) {
        match self.0 {
            Kind::Archive(archive) => archive.abandon().await,
            Kind::Directory(directory) => directory.abandon().await,
        }
    }
}
