//! Stored objects to proven bytes: sizes first, before anything is read; then the SHA-256; then, of a segment, its table, frame
//! by frame, and at the end what all of it adds up to. A reader holds one segment and one frame.

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::{Content, Sha256Hex};
use crate::format::document::Documents;
use crate::format::frame::Decompressor;
use crate::format::manifest::{Segment, StoredObject};
use crate::format::segment::{self, SeekTable};
use crate::pipeline::cpu::Cpu;
use crate::store::Store;

/// The bytes of a stored object, proven to be those that the manifest describes.
///
/// # Errors
/// [`ErrorKind::NotFound`] where it is missing, [`ErrorKind::Damaged`] where it is larger than `limit` (nothing is read then), has another
/// size or another SHA-256 than the manifest says, [`ErrorKind::Storage`]. Each names the key.
pub async fn object(store: &Store, expected: &StoredObject, limit: u64, cpu: &Cpu) -> Result<Bytes> {
    let bytes = sized(store, expected, limit).await?;
    let hashed = bytes.clone();
    let sha256 = cpu.run(move || Ok(Sha256Hex::of(&hashed))).await?;
    if sha256 != expected.sha256 {
        let key = &expected.key;
        return Err(Error::damaged(format!("{key} was changed: its SHA-256 is {sha256}, expected {}", expected.sha256)));
    }
    Ok(bytes)
}

/// The bytes of a stored object of the size that the manifest says.
async fn sized(store: &Store, expected: &StoredObject, limit: u64) -> Result<Bytes> {
    let key = &expected.key;
    if expected.bytes > limit {
        return Err(Error::damaged(format!(
            "{key} has {} bytes by the manifest, more than the limit of {limit}",
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

/// Reads one segment, frame by frame, and proves it against the manifest on the way.
///
/// The proof is whole only once [`next`](Self::next) has returned `None`.
pub struct SegmentReader {
    expected: Segment,
    bytes: Bytes,
    table: SeekTable,
    position: usize,
    content: Content,
    /// Absent while it works, and after a failure.
    decompressor: Option<Decompressor>,
    cpu: Cpu,
}

impl SegmentReader {
    /// Reads the segment and proves its size, its SHA-256 and its table.
    ///
    /// # Errors
    /// As for [`object()`]; [`ErrorKind::Damaged`] where its table is broken or is not what the manifest says.
    pub async fn open(store: &Store, expected: &Segment, cpu: &Cpu) -> Result<Self> {
        let bytes = object(store, &expected.object, segment::LIMIT as u64, cpu).await?;
        Self::of(bytes, expected, cpu)
    }

    /// Reads a segment whose SHA-256 was proven a moment ago: each frame has a checksum of its own, and what all of them hold is compared with what the manifest says.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub async fn open_again(store: &Store, expected: &Segment, cpu: &Cpu) -> Result<Self> {
        let bytes = sized(store, &expected.object, segment::LIMIT as u64).await?;
        Self::of(bytes, expected, cpu)
    }

    fn of(bytes: Bytes, expected: &Segment, cpu: &Cpu) -> Result<Self> {
        let key = &expected.object.key;
        let table = SeekTable::read(&bytes).map_err(|e| e.context(key))?;
        let frames = table.frames().len() as u64;
        if frames != expected.frames {
            return Err(Error::damaged(format!("{key} has {frames} frames, expected {}", expected.frames)));
        }
        let raw: u64 = table.frames().iter().map(|(_, raw)| *raw as u64).sum();
        if raw != expected.raw_bytes {
            return Err(Error::damaged(format!(
                "{key} holds {raw} bytes of documents by its table, expected {}",
                expected.raw_bytes
            )));
        }
        let decompressor = Some(Decompressor::new()?);
        Ok(Self {
            expected: expected.clone(),
            bytes,
            table,
            position: 0,
            content: Content::default(),
            decompressor,
            cpu: cpu.clone(),
        })
    }

    /// The next frame: whole documents, one after the other, the length of each checked but not its inside. `None` once all of them were
    /// given and add up to what the manifest says.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] where a frame cannot be read or all of them do not add up; nothing can be read after that.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(mut decompressor) = self.decompressor.take() else {
            return Err(self.at(Error::damaged("cannot be read on after a failure")));
        };
        let Some((place, raw)) = self.table.frames().get(self.position).cloned() else {
            self.add_up()?;
            self.decompressor = Some(decompressor);
            return Ok(None);
        };
        let (bytes, mut content) = (self.bytes.slice(place), self.content);
        let (frame, content, decompressor) = self
            .cpu
            .run(move || {
                let frame = decompressor.decompress(&bytes, raw)?;
                for document in Documents::of(&frame) {
                    content.add(document?);
                }
                Ok((frame, content, decompressor))
            })
            .await
            .map_err(|e| self.at(e.context(format!("frame {}", self.position))))?;
        self.position += 1;
        self.content = content;
        self.decompressor = Some(decompressor);
        Ok(Some(frame))
    }

    /// What was read so far.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
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
