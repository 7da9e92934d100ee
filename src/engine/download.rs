//! Download: a complete backup as one tar stream whose length is known before its first byte.
//!
//! The manifest comes last, so a truncated stream is no backup. Nothing is ever padded with
//! invented bytes. If a file is not what the manifest says, the stream ends early with an error.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use futures::Stream;
use tar::{EntryType, Header};
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::format::{checks, key, manifest};
use crate::names::BackupName;
use crate::repository::backend::{ObjectReader, Objects};
use crate::repository::catalog::Backup;

/// The block size of a tar stream, which ends with two blocks of zeros.
const BLOCK: u64 = 512;
/// How much of a file is in memory at a time.
const CHUNK: usize = 256 * 1024;
/// Modes of files and directories, as a backup has them.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// A backup as a tar stream, read with [`AsyncRead`]. The same backup gives the same bytes.
///
/// `Lock` keeps the backup from being deleted; it is dropped with the stream. An error ends the
/// stream, and every further read returns it again.
pub struct Download<Lock = ()> {
    name: String,
    length: u64,
    sent: u64,
    chunk: Bytes,
    chunks: Chunks,
    failed: Option<(io::ErrorKind, String)>,
    /// The deadline of the stream.
    until: Option<Instant>,
    lock: Lock,
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// One entry of the stream.
#[derive(Debug)]
struct Entry {
    /// Its path in the stream.
    path: String,
    kind: EntryType,
    size: u64,
    content: Content,
}

/// Where the bytes of an entry are.
#[derive(Debug, Clone)]
enum Content {
    None,
    Memory(Bytes),
    File(String),
}

impl<Lock> Download<Lock> {
    /// Looks at every file of the backup, and returns the stream at its start. `lock` must have
    /// kept the backup from being deleted since before this call.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] for a file that is not a regular one, is reached by a link, or whose
    /// size differs from the manifest; [`ErrorKind::NotFound`] for a missing file;
    /// [`ErrorKind::Storage`].
    pub async fn open(backup: Backup, lock: Lock) -> Result<Self> {
        let Backup { store, manifest } = backup;
        let store = store.strict();
        // Its directory may have been renamed.
        let name = store.name().and_then(|name| BackupName::parse(&name).ok()).unwrap_or_else(|| manifest.name.clone());
        let mut files = Vec::new();

        // 1. The objects that the manifest names, with the sizes that it names.
        for object in manifest.objects() {
            files.push(checked(&store, &object.key, object.bytes).await?);
        }
        files.push(checked(&store, key::SHA256SUMS, manifest.sums().len() as u64).await?);

        // 2. The stored check results, as they are now: a check may replace them.
        files.extend(checks_of(&store).await?);

        // 3. The manifest itself.
        files.push(manifest_of(&store).await?);

        let mtime = u64::try_from(manifest.created.timestamp()).unwrap_or_default();
        let entries = with_directories(&name, files);
        let lengths = entries.iter().map(|entry| Ok(entry.header(mtime)?.len() as u64 + whole_blocks(entry.size)));
        let length = lengths.sum::<Result<u64>>()? + 2 * BLOCK;
        let chunks = Box::pin(chunks(store, entries, mtime));
        Ok(Self { name: format!("{name}.tar"), length, sent: 0, chunk: Bytes::new(), chunks, failed: None, until: None, lock })
    }

    /// The same stream with a time limit: a reader that never ends must not keep a backup forever.
    #[must_use]
    pub fn within(self, time: Duration) -> Self {
        Self { until: Instant::now().checked_add(time), ..self }
    }

    /// The same stream, which also keeps `more` until it is dropped.
    #[must_use]
    pub fn keeping<More>(self, more: More) -> Download<(Lock, More)> {
        let Self { name, length, sent, chunk, chunks, failed, until, lock } = self;
        Download { name, length, sent, chunk, chunks, failed, until, lock: (lock, more) }
    }

    /// The bytes of the whole stream.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// A file name for it: `NAME.tar`, of letters, digits, `.`, `_` and `-`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn fail(&mut self, kind: io::ErrorKind, message: String) -> io::Error {
        self.failed = Some((kind, message.clone()));
        io::Error::new(kind, message)
    }
}

impl<Lock: Unpin> AsyncRead for Download<Lock> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some((kind, message)) = &self.failed {
            return Poll::Ready(Err(io::Error::new(*kind, message.clone())));
        }
        if self.until.is_some_and(|until| Instant::now() > until) {
            let message = format!("the download {} took too long: its read lock on the backup has ended", self.name);
            tracing::error!("{message}");
            return Poll::Ready(Err(self.fail(io::ErrorKind::TimedOut, message)));
        }
        while self.chunk.is_empty() {
            match ready!(self.chunks.as_mut().poll_next(context)) {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => {
                    tracing::error!("the download {} failed: {error}", self.name);
                    return Poll::Ready(Err(self.fail(io::ErrorKind::UnexpectedEof, error.to_string())));
                }
                None if self.sent == self.length => return Poll::Ready(Ok(())),
                None => {
                    let message = format!("{} ends after {} of {} bytes", self.name, self.sent, self.length);
                    return Poll::Ready(Err(self.fail(io::ErrorKind::UnexpectedEof, message)));
                }
            }
        }
        let count = self.chunk.len().min(buffer.remaining());
        buffer.put_slice(&self.chunk[..count]);
        self.chunk.advance(count);
        self.sent += count as u64;
        Poll::Ready(Ok(()))
    }
}

/// Every attempt to seek is an error. Some web servers require a seekable body for a known length;
/// they are given the length.
impl<Lock: Unpin> AsyncSeek for Download<Lock> {
    fn start_seek(self: Pin<&mut Self>, _: io::SeekFrom) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::NotSeekable, "a download is read from its start to its end"))
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.sent))
    }
}

impl Entry {
    /// A file. Its path is still its key.
    fn file(key: &str, size: u64, content: Content) -> Self {
        Self { path: key.to_owned(), kind: EntryType::Regular, size, content }
    }

    /// The bytes before its content. A path that is too long gets one more entry that holds it, in
    /// GNU tar's format.
    fn header(&self, mtime: u64) -> Result<Bytes> {
        let mut header = Header::new_gnu();
        header.set_entry_type(self.kind);
        header.set_size(self.size);
        header.set_mode(if self.kind.is_dir() { DIRECTORY_MODE } else { FILE_MODE });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(mtime);
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_data(&mut header, &self.path, io::empty())
            .map_err(|e| Error::new(ErrorKind::Internal, format!("{} cannot be in a tar stream", self.path)).cause(e))?;
        Ok(Bytes::copy_from_slice(tar.get_ref()))
    }
}

/// Checks that a file exists, is regular, and has the expected size.
async fn checked(store: &Objects, key: &str, expected: u64) -> Result<Entry> {
    open(store, key, expected).await?;
    Ok(Entry::file(key, expected, Content::File(key.to_owned())))
}

async fn open(store: &Objects, key: &str, expected: u64) -> Result<ObjectReader> {
    let file = store.open_object(key).await?;
    if file.size() != expected {
        return Err(Error::damaged(format!("{key} has {} bytes, expected {expected}", file.size()))
            .hint("`bsonvault verify` names every problem of the backup"));
    }
    Ok(file)
}

/// How the last checks ended, if known. Checks replace the file as a whole, so it is read as a
/// whole.
async fn checks_of(store: &Objects) -> Result<Option<Entry>> {
    let mut file = match store.open_object(key::CHECKS).await {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let limit = checks::LIMIT as usize;
    let content = file.read(limit + 1).await?;
    // A file that exceeds the limit is not part of a backup, and no reason to refuse the backup.
    Ok((content.len() <= limit).then(|| Entry::file(key::CHECKS, content.len() as u64, Content::Memory(content))))
}

async fn manifest_of(store: &Objects) -> Result<Entry> {
    let size = store.open_object(key::MANIFEST).await?.size();
    if size > manifest::LIMIT {
        return Err(Error::damaged(format!("{} has {size} bytes, more than the limit of {}", key::MANIFEST, manifest::LIMIT)));
    }
    Ok(Entry::file(key::MANIFEST, size, Content::File(key::MANIFEST.to_owned())))
}

/// The files below the directory `NAME/`, each directory before the first file in it.
fn with_directories(name: &BackupName, files: Vec<Entry>) -> Vec<Entry> {
    let mut made = BTreeSet::new();
    let mut entries = Vec::with_capacity(files.len() + 1);
    for mut file in files {
        file.path = format!("{name}/{}", file.path);
        for (end, _) in file.path.match_indices('/') {
            let path = file.path[..=end].to_owned();
            if made.insert(path.clone()) {
                entries.push(Entry { path, kind: EntryType::Directory, size: 0, content: Content::None });
            }
        }
        entries.push(file);
    }
    entries
}

/// The rest of the stream.
struct Reading {
    store: Objects,
    entries: VecDeque<Entry>,
    mtime: u64,
    /// The content that follows the last header.
    body: Option<Body>,
    ended: bool,
}

/// The whole stream, piece by piece.
fn chunks(store: Objects, entries: Vec<Entry>, mtime: u64) -> impl Stream<Item = Result<Bytes>> + Send {
    let reading = Reading { store, entries: entries.into(), mtime, body: None, ended: false };
    futures::stream::try_unfold(reading, |mut reading| async move {
        let chunk = reading.next().await?;
        Ok(chunk.map(|chunk| (chunk, reading)))
    })
}

/// The rest of an entry after its header.
enum Body {
    Memory(Bytes),
    File { file: ObjectReader, key: String, left: u64 },
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        // 1. The rest of an entry.
        match self.body.take() {
            Some(Body::Memory(bytes)) => return Ok(Some(padded(&bytes, bytes.len() as u64))),
            Some(Body::File { mut file, key, left }) => {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
                let chunk = file.read(most).await?;
                let left = left - chunk.len() as u64;
                if chunk.len() < most {
                    let had = file.size();
                    return Err(Error::damaged(format!(
                        "{key} ends {left} bytes short of the {had} that it had when the download began"
                    )));
                }
                if left == 0 {
                    return Ok(Some(padded(&chunk, file.size())));
                }
                self.body = Some(Body::File { file, key, left });
                return Ok(Some(chunk));
            }
            None => {}
        }
        // 2. The header of the next entry: only once its file is open, so that no missing file is
        // announced.
        if let Some(entry) = self.entries.pop_front() {
            let header = entry.header(self.mtime)?;
            self.body = match entry.content {
                Content::None => None,
                Content::Memory(bytes) => Some(Body::Memory(bytes)),
                Content::File(key) => {
                    let file = open(&self.store, &key, entry.size).await?;
                    (entry.size > 0).then_some(Body::File { file, key, left: entry.size })
                }
            };
            return Ok(Some(header));
        }
        // 3. The end.
        let end = (!self.ended).then(|| vec![0; 2 * BLOCK as usize].into());
        self.ended = true;
        Ok(end)
    }
}

/// The last bytes of a content of this size, padded to a whole block.
fn padded(bytes: &[u8], size: u64) -> Bytes {
    [bytes, &[0; BLOCK as usize][..padding(size)]].concat().into()
}

fn whole_blocks(size: u64) -> u64 {
    size.div_ceil(BLOCK) * BLOCK
}

fn padding(size: u64) -> usize {
    // Less than a block.
    (whole_blocks(size) - size) as usize
}
