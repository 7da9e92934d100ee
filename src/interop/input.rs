//! The bytes of a file or of standard input, decompressed if they are gzip, read in their own
//! thread.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use flate2::bufread::MultiGzDecoder;
use tokio_util::sync::CancellationToken;

use super::foreign::{self, LineEnds};
use crate::context::lock;
use crate::error::{Error, ErrorKind, Result};

/// How much to read at a time.
const BUFFER: usize = 256 * 1024;

/// The beginning of gzip.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// How many bytes of the content are checked to recognize it.
pub(super) const HEAD: usize = foreign::HEAD;

/// The name of standard input in messages.
pub(super) const STDIN: &str = "standard input";

/// Bytes being read.
pub(super) type Reading = BufReader<Box<dyn Read + Send>>;

/// An open file, or standard input.
pub(super) struct Input {
    /// Its content from the first byte.
    pub(super) reading: Reading,
    /// The beginning of the content: [`HEAD`] bytes, or all there are.
    pub(super) head: Vec<u8>,
    pub(super) is_gzip: bool,
    /// Why reading it failed, if it did.
    pub(super) trouble: Trouble,
}

impl Input {
    /// Opens a file.
    pub(super) fn file(path: &Path, stop: &CancellationToken) -> Result<Self> {
        let file = File::open(path).map_err(|e| unreadable(path, e))?;
        let place = path.display();
        let input =
            Self::of(file, stop).map_err(|(trouble, e)| trouble.explain(&place.to_string(), damaged_gzip(&e).context(&place)))?;
        // A name only counts if there is no content: even gzip of nothing has twenty bytes.
        if input.head.is_empty() && !input.is_gzip && path.extension().is_some_and(|ending| ending == "gz") {
            return Err(Error::damaged(format!(
                "{place} is cut at byte 0: it has no content, not even that of an empty gzip file"
            )));
        }
        Ok(input)
    }

    /// Opens standard input.
    pub(super) fn stdin(stop: &CancellationToken) -> Result<Self> {
        Self::of(io::stdin(), stop).map_err(|(trouble, e)| trouble.explain(STDIN, damaged_gzip(&e).context(STDIN)))
    }

    fn of(bytes: impl Read + Send + Unpin + 'static, stop: &CancellationToken) -> Result<Self, (Trouble, io::Error)> {
        let trouble = Trouble::default();
        let watched = Watched { bytes, stop: stop.clone(), trouble: trouble.clone() };
        let opened = || {
            let (magic, bytes) = peek(BufReader::with_capacity(BUFFER, watched), GZIP.len())?;
            let is_gzip = magic == GZIP;
            let content: Box<dyn Read + Send> = if is_gzip { Box::new(MultiGzDecoder::new(bytes)) } else { Box::new(bytes) };
            let (head, content) = peek(content, HEAD)?;
            Ok((BufReader::with_capacity(BUFFER, Box::new(content) as Box<dyn Read + Send>), head, is_gzip))
        };
        match opened() {
            Ok((reading, head, is_gzip)) => Ok(Self { reading, head, is_gzip, trouble }),
            Err(e) => Err((trouble, e)),
        }
    }
}

/// Bytes preceded by their first ones, which were checked.
type WithHead<R> = io::Chain<io::Cursor<Vec<u8>>, R>;

/// The first bytes, up to `count`, and a reader of all bytes.
fn peek<R: Read>(mut bytes: R, count: usize) -> io::Result<(Vec<u8>, WithHead<R>)> {
    let mut head = Vec::with_capacity(count);
    bytes.by_ref().take(count as u64).read_to_end(&mut head)?;
    Ok((head.clone(), io::Cursor::new(head).chain(bytes)))
}

/// What is known about the bytes below a decoder, in case they are why it failed.
#[derive(Debug, Clone, Default)]
pub(super) struct Trouble(Arc<Mutex<Seen>>);

/// Why they could not be read, and whether they look like text.
#[derive(Debug, Default)]
struct Seen {
    error: Option<io::Error>,
    line_ends: LineEnds,
}

impl Trouble {
    /// The error to return: that of the file, if any, or otherwise that its content is wrong.
    pub(super) fn explain(&self, place: &str, content: Error) -> Error {
        let mut seen = self.seen();
        match seen.error.take() {
            Some(e) if e.kind() == io::ErrorKind::Interrupted => Error::interrupted(),
            Some(e) => Error::new(ErrorKind::Storage, format!("{place} cannot be read: {e}")).cause(e),
            None if content.kind() == ErrorKind::Damaged && content.hint_text().is_none() && seen.line_ends.are_of_text() => {
                content.hint(foreign::AS_TEXT)
            }
            None => content,
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.0)
    }

    /// Keeps the error, and returns a similar one.
    fn keep(&self, error: io::Error) -> io::Error {
        let like = io::Error::other(error.to_string());
        self.seen().error = Some(error);
        like
    }
}

/// Bytes that end with an error once they are no longer wanted.
struct Watched<R> {
    bytes: R,
    stop: CancellationToken,
    trouble: Trouble,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.stop.is_cancelled() {
                return Err(self.trouble.keep(io::ErrorKind::Interrupted.into()));
            }
            match self.bytes.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(read) => {
                    self.trouble.seen().line_ends.see(&buffer[..read]);
                    return Ok(read);
                }
                Err(e) => return Err(self.trouble.keep(e)),
            }
        }
    }
}

/// The content of a file; `None` if it has more than `limit` bytes, of which the rest is not read.
pub(super) fn whole(path: &Path, limit: u64, stop: &CancellationToken) -> Result<Option<Vec<u8>>> {
    let mut input = Input::file(path, stop)?;
    let mut content = Vec::new();
    match input.reading.by_ref().take(limit + 1).read_to_end(&mut content) {
        Ok(_) => Ok((content.len() as u64 <= limit).then_some(content)),
        Err(e) => Err(input.trouble.explain(&path.display().to_string(), damaged_gzip(&e).context(path.display()))),
    }
}

/// The error of a file that exceeds the limit for its kind.
pub(super) fn too_long(path: &Path, limit: u64) -> Error {
    Error::damaged(format!("{} has more than {limit} bytes, the limit of such a file", path.display()))
}

/// The error if readable bytes stop making sense: only gzip can fail like this.
pub(super) fn damaged_gzip(error: &io::Error) -> Error {
    Error::damaged(match error.kind() {
        io::ErrorKind::UnexpectedEof => "its gzip ends in the middle".to_owned(),
        _ => format!("its gzip is damaged: {error}"),
    })
}

/// The error of a path that cannot be opened or inspected.
pub(super) fn unreadable(path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorKind::NotFound,
        _ => ErrorKind::Storage,
    };
    let what = match kind {
        ErrorKind::NotFound => format!("{} does not exist", path.display()),
        _ => format!("{} cannot be read: {error}", path.display()),
    };
    let error = Error::new(kind, what).cause(error);
    match kind {
        ErrorKind::NotFound => {
            error.hint("name what mongodump wrote: a directory, an archive or a .bson file, and - for standard input")
        }
        _ => error,
    }
}
