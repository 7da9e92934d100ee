//! Dumps made by mongodump: directories, archives and single files, plain or gzip, recognized by
//! content instead of names.

mod archive;
mod contents;
mod directory;
mod foreign;
mod frame_reader;
mod input;
mod old_indexes;
mod packed;
mod part;
mod room;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
pub mod write;

use chrono::{DateTime, Utc};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::archive::Archive;
use self::contents::Contents;
use self::directory::Directory;
use self::frame_reader::{FrameReader, on_thread};
use self::input::{Input, STDIN};
use self::old_indexes::{OldIndexes, SYSTEM_INDEXES};
pub use self::packed::Packed;
pub use self::part::{COPIES, Of, Part, READING_BYTES, Wanted};
use crate::context::lock;
use crate::context::memory::MemoryBudget;
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::ContentDigest;
use crate::format::document::MAX_DOCUMENT;
use crate::format::kind;
use crate::format::manifest::{Collection, DUMP_SCHEME, LeftOut, Source, Topology};
use crate::format::mongodump;
use crate::names::Namespace;

/// The default memory.
const MEMORY: u64 = 256 * 1024 * 1024;

/// A dump that was inspected.
#[derive(Debug)]
pub struct Dump {
    location: String,
    source: Source,
    form: Form,
    /// When the last of its files was written; unknown for a stream.
    written: Option<DateTime<Utc>>,
    /// The memory for its prelude.
    memory: u64,
}

/// The forms of dumps.
enum Form {
    /// A directory, or a single file of one.
    Directory(Directory),
    /// An archive in a file, which can be read again.
    Archive { path: PathBuf, stamp: ContentDigest, contents: Arc<Contents> },
    /// An archive that can be read once, until it is taken.
    Stream { archive: Mutex<Option<Box<Archive>>>, contents: Arc<Contents> },
}

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Directory(_) => "Directory",
            Self::Archive { .. } => "Archive",
            Self::Stream { .. } => "Stream",
        })
    }
}

/// The content of a place.
#[derive(Debug)]
pub enum Opened {
    /// A dump.
    Dump(Box<Dump>),
    /// A backup in a tar file.
    Backup(Packed),
}

impl Opened {
    /// Inspects this place, as [`Dump::open_as`] does.
    ///
    /// # Errors
    /// As for [`Dump::open_as`].
    pub async fn look(location: &str, memory: u64, stop: &CancellationToken) -> Result<Self> {
        let (asked, ending) = (location.to_owned(), stop.clone());
        let opening = on_thread(move || match asked.as_str() {
            "-" => Ok(match Packed::of(Input::stdin(&ending)?, STDIN) {
                Ok(packed) => Self::Backup(packed),
                Err(input) => Self::Dump(Box::new(stream(input, "-", STDIN, memory)?)),
            }),
            path => Ok(match Packed::in_file(Path::new(path), &ending)? {
                Some(packed) => Self::Backup(packed),
                None => Self::Dump(Box::new(open(Path::new(path), None, memory, &ending)?)),
            }),
        });
        // A thread that waits for missing bytes is abandoned.
        stop.run_until_cancelled(opening).await.ok_or_else(Error::interrupted)?
    }
}

impl Dump {
    /// Inspects the dump in this place: a directory, a file, or `-` for an archive on standard
    /// input. This reads the prelude of an archive, or the metadata files of a directory.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Damaged`],
    /// [`ErrorKind::Usage`] if it is something else, or its directory name cannot be a database's,
    /// [`ErrorKind::Storage`], [`ErrorKind::Interrupted`].
    pub async fn open(location: &str, stop: &CancellationToken) -> Result<Self> {
        Self::open_as(location, None, MEMORY, stop).await
    }

    /// The same with a database name for the directory of one database or for a single file,
    /// whatever its directory is called, and with a limit in bytes for the dump's metadata in
    /// memory.
    ///
    /// # Errors
    /// As for [`open`](Self::open); [`ErrorKind::Refused`] if it takes more.
    pub async fn open_as(location: &str, database: Option<&str>, memory: u64, stop: &CancellationToken) -> Result<Self> {
        let (asked, ending) = (location.to_owned(), stop.clone());
        let database = database.map(str::to_owned);
        let opening = on_thread(move || match asked.as_str() {
            "-" => stream(Input::stdin(&ending)?, "-", STDIN, memory),
            path => open(Path::new(path), database.as_deref(), memory, &ending),
        });
        // A thread that waits for missing bytes is abandoned.
        stop.run_until_cancelled(opening).await.ok_or_else(Error::interrupted)?
    }

    /// Its location in a form for people.
    #[must_use]
    pub fn location(&self) -> String {
        self.location.clone()
    }

    /// What is known about the source deployment.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// When the last of its files was written, by the file system; `None` for standard input and
    /// the like.
    #[must_use]
    pub fn written(&self) -> Option<DateTime<Utc>> {
        self.written
    }

    /// Its collections, ordered by namespace. The number of documents is unknown before they are
    /// read; `bytes` is approximate, or 0.
    #[must_use]
    pub fn collections(&self) -> &[Collection] {
        &self.contents().collections
    }

    /// The memory that its metadata takes: buffers get the rest.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.contents().taken
    }

    /// Takes its collections out of it: from then on, it is only read.
    #[must_use]
    pub fn take_collections(&mut self) -> Vec<Collection> {
        let contents = match &mut self.form {
            Form::Directory(directory) => &mut directory.contents,
            Form::Archive { contents, .. } | Form::Stream { contents, .. } => Arc::make_mut(contents),
        };
        std::mem::take(&mut contents.collections)
    }

    /// What is in it but cannot be imported, and why.
    #[must_use]
    pub fn left_out(&self) -> &[LeftOut] {
        &self.contents().left_out
    }

    /// Notes for people: what is missing, and how unclear parts are treated.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.contents().notes
    }

    /// Whether it is the directory of one database, or a single file, so that only the directory's
    /// name shows the database.
    #[must_use]
    pub fn is_of_one_database(&self) -> bool {
        matches!(&self.form, Form::Directory(directory) if directory.is_of_one_database)
    }

    /// Collections with metadata but without documents: they are treated as empty.
    #[must_use]
    pub fn missing(&self) -> &[Namespace] {
        &self.contents().missing
    }

    /// Whether it can be read more than once: everything except standard input.
    #[must_use]
    pub fn can_be_read_again(&self) -> bool {
        !matches!(self.form, Form::Stream { .. })
    }

    /// Whether it has an oplog.
    #[must_use]
    pub fn has_oplog(&self) -> bool {
        self.contents().has_oplog()
    }

    /// Whether it has users or roles.
    #[must_use]
    pub fn has_users(&self) -> bool {
        self.contents().has_users()
    }

    /// Reads what is wanted, once, to its end, and passes it on. Unwanted parts are only checked if
    /// they are in the way. Each part takes [`COPIES`] times its bytes from the budget before it is
    /// passed on. Its receiver must not wait for another share while it holds one. If nobody takes
    /// parts any more, this ends without an error.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`], naming the namespace and the offset; [`ErrorKind::Storage`];
    /// [`ErrorKind::Interrupted`]; [`ErrorKind::Refused`] if standard input was read already.
    pub async fn read(
        &self,
        wanted: &Wanted,
        budget: &MemoryBudget,
        stop: &CancellationToken,
        parts: mpsc::Sender<Part>,
    ) -> Result<()> {
        let ending = stop.child_token();
        // If this future is dropped, the threads end, too.
        let _guard = ending.clone().drop_guard();
        let frames = FrameReader { budget: budget.clone(), parts, stop: ending.clone() };
        let read = match &self.form {
            Form::Directory(directory) => directory.read(wanted, frames).await,
            Form::Archive { path, stamp, contents } => {
                let (path, stamp, contents, wanted) = (path.clone(), *stamp, contents.clone(), wanted.clone());
                let memory = self.memory;
                on_thread(move || {
                    let archive = Archive::open(Input::file(&path, &frames.stop)?, path.display().to_string(), memory)?;
                    if archive.stamp() != stamp {
                        return Err(Error::damaged(format!("{} was changed since it was opened", path.display())));
                    }
                    archive.without_metadata().read(&contents, &wanted, frames)
                })
                .await
            }
            Form::Stream { archive, contents } => {
                let archive = lock(archive).take();
                let Some(archive) = archive else {
                    return Err(Error::new(ErrorKind::Refused, format!("{} can be read once only", self.location))
                        .hint("put the archive into a file"));
                };
                let (contents, wanted) = (contents.clone(), wanted.clone());
                let takers = frames.parts.clone();
                // The thread may wait for bytes that never come.
                tokio::select! {
                    () = stop.cancelled() => Err(Error::interrupted()),
                    () = takers.closed() => Ok(()),
                    read = on_thread(move || archive.read(&contents, &wanted, frames)) => read,
                }
            }
        };
        match read {
            Err(e) if e.kind() == ErrorKind::Interrupted && !stop.is_cancelled() => Ok(()),
            read => read,
        }
    }

    fn contents(&self) -> &Contents {
        match &self.form {
            Form::Directory(directory) => &directory.contents,
            Form::Archive { contents, .. } | Form::Stream { contents, .. } => contents,
        }
    }
}

/// Opens a path, and recognizes it by its content.
fn open(path: &Path, database: Option<&str>, memory: u64, stop: &CancellationToken) -> Result<Dump> {
    let path = std::path::absolute(path).map_err(|e| input::unreadable(path, e))?;
    // `..` has no name of its own.
    let path = if path.file_name().is_none() || path.ends_with("..") { path.canonicalize().unwrap_or(path) } else { path };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let location = path.display().to_string();
    let found = std::fs::metadata(&path).map_err(|e| input::unreadable(&path, e))?;
    if found.is_dir() {
        return Ok(of_directory(directory::look(&path, database, memory, stop)?, &name, location));
    }
    let input = Input::file(&path, stop)?;
    if !found.is_file() {
        return stream(input, &name, &location, memory);
    }
    if input.head.starts_with(&mongodump::MAGIC) {
        let archive = Archive::open(input, location.clone(), memory)?;
        let old = match archive.needs_old_indexes() {
            false => OldIndexes::default(),
            true => Archive::open(Input::file(&path, stop)?, location.clone(), memory)?.old_indexes(stop)?,
        };
        let contents = Arc::new(archive.contents(old)?);
        let stamp = archive.stamp();
        let source = source(&name, Some(&archive.prelude().server_version), contents.has_oplog());
        let written = modified(&path);
        return Ok(Dump { location, source, form: Form::Archive { path, stamp, contents }, written, memory });
    }
    if begins_a_document(&input.head) || (input.head.is_empty() && name.contains(".bson")) {
        return Ok(of_directory(directory::look_at_file(&path, database, memory, stop)?, &name, location));
    }
    if let Some(foreign) = foreign::recognize(&input.head) {
        return Err(Error::damaged(format!("{location} is {}, and not a dump", foreign.what)).hint(foreign.hint));
    }
    if input.head.is_empty() {
        return Err(
            Error::damaged(format!("{location} is empty")).hint("the program that wrote it may have failed: check its output")
        );
    }
    let error =
        input.trouble.explain(&location, Error::damaged(format!("{location} is neither an archive nor a file of documents")));
    Err(if error.hint_text().is_none() { error.hint(directory::WHAT_A_DUMP_IS) } else { error })
}

fn stream(input: Input, name: &str, location: &str, memory: u64) -> Result<Dump> {
    if !input.head.starts_with(&mongodump::MAGIC) {
        if let Some(foreign) = foreign::recognize(&input.head) {
            return Err(Error::damaged(format!("{location} is {}, and not an archive", foreign.what)).hint(foreign.hint));
        }
        if input.head.is_empty() {
            return Err(Error::damaged(format!("{location} is empty"))
                .hint("the program that writes to the pipe may have failed: check its output"));
        }
        let error = input.trouble.explain(location, Error::damaged(format!("{location} does not hold an archive")));
        let hint = "only archives can be read this way: name the file or the directory itself";
        return Err(if error.hint_text().is_none() { error.hint(hint) } else { error });
    }
    let archive = Archive::open(input, location.to_owned(), memory)?;
    if archive.needs_old_indexes() {
        let what = format!("{location} holds collections without metadata, and {SYSTEM_INDEXES} says which indexes they have");
        return Err(
            Error::new(ErrorKind::Refused, what).hint("they are known only after all of it is read: put the archive into a file")
        );
    }
    let contents = Arc::new(archive.contents(OldIndexes::default())?);
    let source = source(name, Some(&archive.prelude().server_version), contents.has_oplog());
    Ok(Dump {
        location: location.to_owned(),
        source,
        form: Form::Stream { archive: Mutex::new(Some(Box::new(archive.without_metadata()))), contents },
        written: None,
        memory,
    })
}

fn of_directory(directory: Directory, name: &str, location: String) -> Dump {
    let source = source(name, directory.server_version.as_deref(), directory.contents.has_oplog());
    let written = written(Path::new(&location));
    Dump { location, source, form: Form::Directory(directory), written, memory: 0 }
}

/// When the last file of a dump was written: the dump itself if it is a file, otherwise the files
/// in it and in the directories of its databases.
fn written(path: &Path) -> Option<DateTime<Utc>> {
    let of_dump = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        path.is_file() && (name.ends_with(".bson") || name.ends_with(".metadata.json"))
    };
    let inside =
        |path: &Path| -> Vec<PathBuf> { std::fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path()).collect() };
    if path.is_file() {
        return modified(path);
    }
    let files = inside(path).into_iter().flat_map(|path| if path.is_dir() { inside(&path) } else { vec![path] });
    files.filter(of_dump).filter_map(|path| modified(&path)).max()
}

/// When a file was last written.
fn modified(path: &Path) -> Option<DateTime<Utc>> {
    Some(std::fs::metadata(path).ok()?.modified().ok()?.into())
}

/// What a dump shows about its source: only replica sets have an oplog.
fn source(name: &str, version: Option<&str>, has_oplog: bool) -> Source {
    let version = version.filter(|v| !v.is_empty() && v.len() <= 100 && !v.contains(char::is_control));
    Source {
        uri: format!("{DUMP_SCHEME}{name}"),
        hosts: Vec::new(),
        server_version: version.unwrap_or("unknown").to_owned(),
        feature_compatibility_version: None,
        topology: if has_oplog { Topology::ReplicaSet } else { Topology::Standalone },
        replica_set: None,
        replica_set_id: None,
        deployment_id: None,
        known_as: Vec::new(),
    }
}

/// Whether content may begin with a document: a possible length, and the type of a first element.
fn begins_a_document(head: &[u8]) -> bool {
    let Some([a, b, c, d, first]) = head.first_chunk().copied() else { return false };
    match usize::try_from(i32::from_le_bytes([a, b, c, d])) {
        Ok(5) => first == 0,
        Ok(6..=MAX_DOCUMENT) => matches!(first, kind::DOUBLE..=kind::DECIMAL128 | kind::MAX_KEY | kind::MIN_KEY),
        _ => false,
    }
}
