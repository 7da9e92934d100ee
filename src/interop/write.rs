//! Writes dumps in mongodump's formats: an archive, or a directory of files; plain, or gzip made by
//! all cores.
//!
//! Nothing half-finished stays. A dump is written under another name, beside its destination or in
//! an existing directory, and is moved to its place once all of it is on disk.

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

/// The most memory for writing besides the frames passed in, unless a single one is larger.
pub const WRITING_BYTES: u64 = (sink::ROOM + gzip::MEMBERS * 3 * gzip::MEMBER) as u64;

/// A dump being written: its parts in order, each begun, given its documents, and ended. If it is
/// dropped, nothing stays.
#[derive(Debug)]
pub struct Writer(Kind);

#[derive(Debug)]
enum Kind {
    Archive(Archive),
    Directory(Directory),
}

/// Checks whether a dump can be written there, and leaves nothing. It checks like [`Writer::open`],
/// except for the databases' directories in an existing dump.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if something in its place must not be
/// replaced, if the parent directory does not exist, or if the destination does not accept the
/// format; [`ErrorKind::Storage`](crate::error::ErrorKind::Storage) if nothing can be written.
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
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if something is in its place, or the
    /// destination does not accept the format;
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    pub async fn open(destination: &Destination, options: WriteOptions, contents: Contents, cpu: &CpuPool) -> Result<Self> {
        Ok(Self(match options.format {
            Format::Archive => Kind::Archive(Archive::open(destination, options, contents, cpu).await?),
            Format::Dir => Kind::Directory(Directory::open(destination, options, contents, cpu).await?),
        }))
    }

    /// Begins the next collection or, after the last one, the oplog.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if its file would have the name of
    /// another one;
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    pub async fn begin(&mut self) -> Result<()> {
        match &mut self.0 {
            Kind::Archive(archive) => archive.begin(),
            Kind::Directory(directory) => directory.begin().await,
        }
    }

    /// Writes whole documents, concatenated, to what was begun last.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage);
    /// [`ErrorKind::Refused`](crate::error::ErrorKind::Refused) for a document that an archive
    /// cannot hold.
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

    /// Makes the dump durable. Returns its size in bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    pub async fn finish(&mut self) -> Result<u64> {
        match &mut self.0 {
            Kind::Archive(archive) => archive.finish().await,
            Kind::Directory(directory) => directory.finish().await,
        }
    }

    /// Moves the dump to its place, once it is durable. Steps begun here are finished even if
    /// nobody waits for them.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if something was created there
    /// meanwhile; [`ErrorKind::Storage`](crate::error::ErrorKind::Storage). Nothing stays then,
    /// unless the message says that a dump in the directory is partly the new one.
    pub async fn put(self) -> Result<()> {
        match self.0 {
            Kind::Archive(archive) => archive.put().await,
            Kind::Directory(directory) => directory.put().await,
        }
    }

    /// Abandons the dump: nothing of it stays, and nothing works on it any more, except a write to
    /// standard output that nobody reads.
    pub async fn abandon(self) {
        match self.0 {
            Kind::Archive(archive) => archive.abandon().await,
            Kind::Directory(directory) => directory.abandon().await,
        }
    }
}
