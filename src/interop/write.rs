//! Dumps in mongodump's formats, written: an archive, or a directory of files; plain, or gzip made by all cores.
//!
//! Nothing half done stays: what is written lies beside its destination, or in the directory that it is, under another name, and takes its place when all
//! of it is on the disk.

mod archive;
mod contents;
mod directory;
mod file;
mod gzip;
mod options;
mod place;
mod sink;

use self::archive::Archive;
pub use self::contents::{Contents, Described};
use self::directory::Directory;
pub use self::gzip::{DEFAULT_LEVEL, LEVELS};
use self::options::not_to_stdout;
pub use self::options::{Destination, Format, WriteOptions};
use self::place::Place;
use crate::context::cpu::CpuPool;
use crate::error::Result;

/// The memory that writing takes beside the frames it is given, at most, unless a single one of them is larger.
pub const WRITING_BYTES: u64 = (sink::ROOM + gzip::MEMBERS * 3 * gzip::MEMBER) as u64;

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
