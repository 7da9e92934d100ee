//! Reads stored objects and verifies them. First the size, before anything is read; then the
//! SHA-256; then, for a segment, its table, frame by frame, and at the end the sum. A reader holds
//! one segment and one frame.

use bytes::Bytes;

use crate::context::cpu::CpuPool;
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::{Content, Sha256Hex};
use crate::format::document::Documents;
use crate::format::frame::Decompressor;
use crate::format::manifest::{Segment, StoredObject};
use crate::format::segment::{self, SeekTable};
use crate::repository::backend::Objects;

/// The bytes of a stored object, verified to be those that the manifest describes.
///
/// # Errors
/// [`ErrorKind::NotFound`] if it is missing; [`ErrorKind::Damaged`] if it is larger than `limit`
/// (then nothing is read), or its size or SHA-256 differs from the manifest;
/// [`ErrorKind::Storage`]. Each names the key.
pub async fn object(store: &Objects, expected: &StoredObject, limit: u64, cpu: &CpuPool) -> Result<Bytes> {
    let bytes = sized(store, expected, limit).await?;
    let hashed = bytes.clone();
    let sha256 = cpu.run(move || Ok(Sha256Hex::of(&hashed))).await?;
    if sha256 != expected.sha256 {
        let key = &expected.key;
        return Err(Error::damaged(format!("{key} was changed: its SHA-256 is {sha256}, expected {}", expected.sha256)));
    }
    Ok(bytes)
}

/// The bytes of a stored object of the size in the manifest.
async fn sized(store: &Objects, expected: &StoredObject, limit: u64) -> Result<Bytes> {
    let key = &expected.key;
    if expected.bytes > limit {
        return Err(Error::damaged(format!(
            "{key} has {} bytes according to the manifest, more than the limit of {limit}",
            expected.bytes
        )));
    }
    let found = store.size(key).await.map_err(|e| match e.kind() {
        ErrorKind::NotFound => {
            Error::new(ErrorKind::NotFound, format!("{key} is missing, {} bytes expected", expected.bytes)).cause(e)
        }
        _ => e.context(key),
    })?;
    if found != expected.bytes {
        return Err(Error::damaged(format!("{key} has {found} bytes, expected {}", expected.bytes)));
    }
    let bytes = store.get(key).await.map_err(|e| e.context(key))?;
    if bytes.len() as u64 != expected.bytes {
        return Err(Error::damaged(format!("{key} has {} bytes, expected {}", bytes.len(), expected.bytes)));
    }
    Ok(bytes)
}

/// About how many bytes of documents one job examines: it cannot be stopped half-way.
const AT_A_TIME: usize = 32 * 1024 * 1024;

/// Reads one segment, frame by frame, and verifies it against the manifest on the way.
///
/// It is verified only once [`next`](Self::next) has returned `None`, or
/// [`look_through`](Self::look_through) has returned.
pub struct SegmentReader {
    expected: Segment,
    cpu: CpuPool,
    /// What was read so far.
    content: Content,
    /// Absent while it works, and after a failure.
    frames: Option<Frames>,
}

/// The frames of a segment, and how far they are read.
struct Frames {
    bytes: Bytes,
    table: SeekTable,
    position: usize,
    content: Content,
}

impl Frames {
    /// Puts the documents of the next frame into `documents`. `look` sees each one with its number
    /// in the segment while it is still in the processor's cache. False if there is no further
    /// frame.
    fn next(
        &mut self,
        decompressor: &mut Decompressor,
        documents: &mut Vec<u8>,
        mut look: impl FnMut(u64, &[u8]),
    ) -> Result<bool> {
        let Some((place, raw)) = self.table.frames().get(self.position).cloned() else { return Ok(false) };
        let read = || {
            decompressor.decompress_into(&self.bytes[place], raw, documents)?;
            for document in Documents::of(documents) {
                let (document, number) = (document?, self.content.documents);
                self.content.add(document);
                look(number, document);
            }
            Ok(())
        };
        read().map_err(|e: Error| e.context(format!("frame {}", self.position)))?;
        self.position += 1;
        Ok(true)
    }
}

impl SegmentReader {
    /// Reads the segment and verifies its size, its SHA-256 and its table.
    ///
    /// # Errors
    /// As for [`object()`]; [`ErrorKind::Damaged`] if its table is broken or differs from the
    /// manifest.
    pub async fn open(store: &Objects, expected: &Segment, cpu: &CpuPool) -> Result<Self> {
        let bytes = object(store, &expected.object, segment::LIMIT as u64, cpu).await?;
        Self::of(bytes, expected, cpu)
    }

    /// Reads a segment whose SHA-256 was verified a moment ago. Each frame has its own checksum,
    /// and the content of all frames is compared with the manifest.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub async fn open_again(store: &Objects, expected: &Segment, cpu: &CpuPool) -> Result<Self> {
        let bytes = sized(store, &expected.object, segment::LIMIT as u64).await?;
        Self::of(bytes, expected, cpu)
    }

    fn of(bytes: Bytes, expected: &Segment, cpu: &CpuPool) -> Result<Self> {
        let key = &expected.object.key;
        let table = SeekTable::read(&bytes).map_err(|e| e.context(key))?;
        let frames = table.frames().len() as u64;
        if frames != expected.frames {
            return Err(Error::damaged(format!("{key} has {frames} frames, expected {}", expected.frames)));
        }
        let raw: u64 = table.frames().iter().map(|(_, raw)| *raw as u64).sum();
        if raw != expected.raw_bytes {
            return Err(Error::damaged(format!(
                "{key} holds {raw} bytes of documents according to its table, expected {}",
                expected.raw_bytes
            )));
        }
        let frames = Frames { bytes, table, position: 0, content: Content::default() };
        Ok(Self { expected: expected.clone(), cpu: cpu.clone(), content: Content::default(), frames: Some(frames) })
    }

    /// The next frame: whole documents, one after the other. The length of each is checked, but not
    /// its inside. `None` once all documents were returned and add up to what the manifest says.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if a frame cannot be read or the sum differs; nothing can be read
    /// after that.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let (mut frames, cpu) = (self.frames()?, self.cpu.clone());
        let read = self.cpu.run(move || {
            let mut documents = Vec::new();
            let more = cpu.decompressors().lend(|with| frames.next(with, &mut documents, |_, _| ()))?;
            Ok((frames, more.then_some(documents)))
        });
        let (frames, documents) = read.await.map_err(|e| self.at(e))?;
        self.content = frames.content;
        if documents.is_none() {
            self.add_up()?;
        }
        self.frames = Some(frames);
        Ok(documents)
    }

    /// Reads all remaining frames, many in one job. `look` sees every document with its number in
    /// the segment, from 0. Returns their sum, which matches the manifest, and the final `state`.
    ///
    /// # Errors
    /// As for [`next`](Self::next).
    pub async fn look_through<S: Send + 'static>(
        mut self,
        state: S,
        look: impl FnMut(&mut S, u64, &[u8]) + Send + 'static,
    ) -> Result<(Content, S)> {
        let mut reading = (self.frames()?, Vec::new(), state, look);
        loop {
            let cpu = self.cpu.clone();
            let read = self.cpu.run(move || {
                let (frames, documents, state, look) = &mut reading;
                let more = cpu.decompressors().lend(|with| {
                    let (mut more, mut bytes) = (true, 0);
                    while more && bytes < AT_A_TIME {
                        more = frames.next(with, documents, |number, document| look(state, number, document))?;
                        bytes += documents.len();
                    }
                    Ok(more)
                })?;
                Ok((more, reading))
            });
            let more;
            (more, reading) = read.await.map_err(|e| self.at(e))?;
            if !more {
                let (frames, _, state, _) = reading;
                self.content = frames.content;
                self.add_up()?;
                return Ok((self.content, state));
            }
        }
    }

    /// What was read so far.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
    }

    fn frames(&mut self) -> Result<Frames> {
        self.frames.take().ok_or_else(|| self.at(Error::damaged("cannot be read on after a failure")))
    }

    fn add_up(&self) -> Result<()> {
        let (found, expected) = (self.content, self.expected.content());
        if found == expected {
            return Ok(());
        }
        let words = |c: Content| format!("{} documents of {} bytes with digest {}", c.documents, c.bytes, c.digest());
        Err(self.at(Error::damaged(format!("holds {}, expected {}", words(found), words(expected)))))
    }

    fn at(&self, error: Error) -> Error {
        error.context(&self.expected.object.key)
    }
}
