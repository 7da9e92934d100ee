//! Rolls pieces into a link: many small objects become a few large ones. The link is proven before
//! the pieces are removed, and its manifest names them. So a crash at any point loses and doubles
//! nothing.

use std::sync::Arc;

use uuid::Uuid;

use super::index::IndexBuilder;
use crate::context::cpu::CpuPool;
use crate::context::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::format::chain::{CHAIN_VERSION, Gap, IndexRecord, Link, Piece, PieceHeader, link_name};
use crate::format::digest::{Content, Sha256Hex};
use crate::format::document::Documents;
use crate::format::frame::{self, Compressors};
use crate::format::manifest::{Segment, Tool};
use crate::format::{key, segment};
use crate::pipeline::read::SegmentReader;
use crate::pipeline::write::{CollectionWriter, RangeWriter, Sizes};
use crate::repository::backend::Objects;
use crate::repository::chain::ChainPlace;
use crate::repository::layout;

/// About the most stored bytes of a segment.
const SEGMENT_BYTES: usize = 4 * 1024 * 1024;

/// Makes links of one chain.
#[derive(Debug, Clone)]
pub struct Roller {
    /// The chain.
    pub place: ChainPlace,
    /// For the work.
    pub cpu: CpuPool,
    /// How links are compressed.
    pub compressors: Arc<Compressors>,
}

/// A link that was made.
#[derive(Debug)]
pub struct Rolled {
    /// The link, which is durable.
    pub link: Link,
    /// What comes next cannot be read, for this reason, or begins after a gap: a new link begins.
    pub broken: Option<Error>,
}

/// Why no link was made.
#[derive(Debug)]
pub enum RollError {
    /// The first piece is missing or damaged, or does not follow on what came before.
    Unusable(Error),
    /// Something else failed: the pieces are as good as before.
    Failed(Error),
}

impl RollError {
    fn of_piece(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Damaged | ErrorKind::NotFound => Self::Unusable(error),
            _ => Self::Failed(error),
        }
    }
}

/// Opens a piece and proves that it is the right one.
///
/// # Errors
/// [`ErrorKind::NotFound`]; [`ErrorKind::Damaged`]; [`ErrorKind::Storage`].
pub async fn open_piece(place: &ChainPlace, number: u64, cpu: &CpuPool) -> Result<Piece> {
    let key = || format!("{}/{}", layout::OPEN, layout::piece(number));
    let bytes = place.piece(number).await.map_err(|e| e.context(key()))?;
    let pool = cpu.clone();
    let piece = cpu.run(move || pool.decompressors().lend(|decompressor| Piece::open(bytes, decompressor)));
    let piece = piece.await.map_err(|e| e.context(key()))?;
    if piece.header.number != number || piece.header.replica_set_id != place.id() {
        return Err(Error::damaged(format!(
            "{} is another piece: number {} of {}",
            key(),
            piece.header.number,
            piece.header.replica_set_id
        )));
    }
    Ok(piece)
}

/// The entries of a piece, proven to be whole.
///
/// # Errors
/// [`ErrorKind::Damaged`].
pub async fn entries(piece: Piece, cpu: &CpuPool) -> Result<(Piece, Vec<Vec<u8>>)> {
    let (pool, number) = (cpu.clone(), piece.header.number);
    let read = cpu.run(move || {
        let entries = pool.decompressors().lend(|decompressor| piece.entries(decompressor))?;
        Ok((piece, entries))
    });
    read.await.map_err(|e| e.context(format!("{}/{}", layout::OPEN, layout::piece(number))))
}

/// Whether a piece follows on what came before: on the entry at its end, and on the object itself.
///
/// # Errors
/// [`ErrorKind::Damaged`].
pub fn prove_follows(header: &PieceHeader, before: &(Sha256Hex, crate::format::manifest::OplogPosition)) -> Result<()> {
    let key = || format!("{}/{}", layout::OPEN, layout::piece(header.number));
    if header.previous.as_ref() != Some(&before.0) {
        return Err(Error::damaged(format!("{} does not belong to the piece before it: that one was exchanged", key())));
    }
    if header.gap.is_none() && header.from != before.1 {
        return Err(Error::damaged(format!(
            "{} begins at {}, and the piece before it ends at {}",
            key(),
            header.from.time,
            before.1.time
        )));
    }
    Ok(())
}

impl Roller {
    /// Makes a link of the first of these pieces: of all of them, or up to the first one that
    /// cannot be read, or that begins after a gap. `gap` is the one that the link begins with if no
    /// piece says so. The pieces stay; [`remove`](Self::remove) removes them.
    ///
    /// # Errors
    /// [`RollError::Unusable`] if the first piece cannot be read or does not follow;
    /// [`RollError::Failed`]. Then there is no link.
    pub async fn roll(&self, pieces: &[u64], previous: Option<&Link>, gap: Option<Gap>) -> Result<Rolled, RollError> {
        let Some(&number) = pieces.first() else {
            return Err(RollError::Failed(Error::new(ErrorKind::Internal, "a link was to be made of no pieces")));
        };
        let (first, entries) = self.first(number, previous.filter(|_| gap.is_none())).await.map_err(RollError::of_piece)?;
        self.roll_from((first, entries), pieces, previous, gap).await.map_err(RollError::Failed)
    }

    /// The first piece of a link, which follows on the link before it.
    async fn first(&self, number: u64, previous: Option<&Link>) -> Result<(Piece, Vec<Vec<u8>>)> {
        let (first, entries) = entries(open_piece(&self.place, number, &self.cpu).await?, &self.cpu).await?;
        if let Some(previous) = previous {
            prove_follows(&first.header, &(previous.last_piece.clone(), previous.to))?;
        }
        Ok((first, entries))
    }

    /// The header of a piece that can be read to its end.
    pub async fn header(&self, number: u64) -> Option<PieceHeader> {
        self.first(number, None).await.ok().map(|(piece, _)| piece.header)
    }

    async fn roll_from(
        &self,
        (first, entries): (Piece, Vec<Vec<u8>>),
        pieces: &[u64],
        previous: Option<&Link>,
        gap: Option<Gap>,
    ) -> Result<Rolled> {
        let name = self.free_name(&link_name(first.header.from.time)).await?;
        let store = self.place.link(&name);
        let made = self.make(&store, &name, pieces, (first, entries), previous, gap).await;
        if made.is_err() {
            // What cannot be removed has no manifest, and is removed later.
            let _left = store.delete_all(key::MANIFEST).await;
        }
        made
    }

    /// Removes those of these pieces that a link was made of.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn remove(&self, link: &Link, pieces: &[u64]) -> Result<()> {
        let of_link = pieces.iter().copied().filter(|number| (link.pieces.0..=link.pieces.1).contains(number));
        self.place.remove_pieces(of_link).await
    }

    /// A name that no link has. What a crash left under it is removed.
    async fn free_name(&self, wanted: &str) -> Result<String> {
        let mut name = wanted.to_owned();
        for number in 2.. {
            let store = self.place.link(&name);
            if store.size(key::MANIFEST).await.is_err_and(|e| e.kind() == ErrorKind::NotFound) {
                store.delete_all(key::MANIFEST).await?;
                break;
            }
            // With leading zeros, since names are compared as text.
            name = format!("{wanted}-{number:02}");
        }
        Ok(name)
    }

    async fn make(
        &self,
        store: &Objects,
        name: &str,
        pieces: &[u64],
        (first, entries): (Piece, Vec<Vec<u8>>),
        previous: Option<&Link>,
        gap: Option<Gap>,
    ) -> Result<Rolled> {
        let (from, gap) = (first.header.from, first.header.gap.clone().or(gap));
        let mut making = Making::new(self, store);
        let (mut at, mut broken) = ((first.sha256.clone(), first.header.to), None);
        let mut last = first.header.number;
        making.take(entries).await?;
        for &number in &pieces[1..] {
            match self.next(number, last, &at).await {
                Ok(Some((piece, entries))) => {
                    (at, last) = ((piece.sha256.clone(), piece.header.to), number);
                    making.take(entries).await?;
                }
                Ok(None) => break,
                Err(e) if matches!(e.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
                    broken = Some(e);
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        let (segments, index) = making.finish().await?;
        let content: Content = segments.iter().map(Segment::content).sum();
        let mut link = Link {
            format_version: CHAIN_VERSION,
            tool: Tool { name: env!("CARGO_PKG_NAME").to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
            id: Uuid::new_v4(),
            name: name.to_owned(),
            replica_set_id: self.place.id().to_owned(),
            previous: previous.map(Link::as_previous),
            gap,
            from,
            to: at.1,
            pieces: (pieces[0], last),
            entries: content.documents,
            bytes: content.bytes,
            digest: content.digest(),
            last_piece: at.0,
            segments,
            index,
            checksums: Sha256Hex::zero(),
            sha256: Sha256Hex::zero(),
        };
        self.prove(store, &link).await?;
        let sums = link.sums();
        link.checksums = Sha256Hex::of(sums.as_bytes());
        store.put(key::SHA256SUMS, vec![sums.into()]).await?;
        let manifest = link.seal()?;
        store.put(key::MANIFEST, vec![manifest.into()]).await?;
        Ok(Rolled { link, broken })
    }

    /// The next piece of the same link; `None` if it begins after a gap.
    async fn next(
        &self,
        number: u64,
        last: u64,
        at: &(Sha256Hex, crate::format::manifest::OplogPosition),
    ) -> Result<Option<(Piece, Vec<Vec<u8>>)>> {
        let piece = open_piece(&self.place, number, &self.cpu).await?;
        if number != last + 1 && piece.header.previous.as_ref() != Some(&at.0) {
            return Err(Error::damaged(format!("{}/{} is missing", layout::OPEN, layout::piece(last + 1))));
        }
        prove_follows(&piece.header, at)?;
        if piece.header.gap.is_some() {
            return Ok(None);
        }
        entries(piece, &self.cpu).await.map(Some)
    }

    /// Reads back what was stored.
    async fn prove(&self, store: &Objects, link: &Link) -> Result<()> {
        for segment in link.objects() {
            let reader = SegmentReader::open(store, segment, &self.cpu).await?;
            reader.look_through((), |(), _, _| ()).await?;
        }
        Ok(())
    }
}

/// A link that is being made.
struct Making<'a> {
    roller: &'a Roller,
    store: &'a Objects,
    writer: RangeWriter,
    /// The index, and the frame that is being filled. Absent while they are worked on.
    filling: Option<Filling>,
}

#[derive(Default)]
struct Filling {
    index: IndexBuilder,
    frame: Vec<u8>,
    content: Content,
    full: Vec<(Vec<u8>, Content)>,
}

impl Filling {
    fn take(&mut self, entries: &[Vec<u8>]) -> Result<()> {
        for frame in entries {
            for entry in Documents::of(frame) {
                let entry = entry?;
                if !self.frame.is_empty() && self.frame.len() + entry.len() > frame::TARGET {
                    self.end_frame();
                }
                self.index.take(entry)?;
                self.frame.extend_from_slice(entry);
                self.content.add(entry);
            }
        }
        Ok(())
    }

    fn end_frame(&mut self) {
        self.index.end_frame();
        self.full.push((std::mem::take(&mut self.frame), std::mem::take(&mut self.content)));
    }
}

impl<'a> Making<'a> {
    fn new(roller: &'a Roller, store: &'a Objects) -> Self {
        let writer = writer(store, key::OPLOG, roller).range();
        Self { roller, store, writer, filling: Some(Filling::default()) }
    }

    async fn take(&mut self, entries: Vec<Vec<u8>>) -> Result<()> {
        self.work(move |filling| filling.take(&entries)).await
    }

    async fn work(&mut self, work: impl FnOnce(&mut Filling) -> Result<()> + Send + 'static) -> Result<()> {
        let mut filling = self.filling.take().ok_or_else(|| Error::new(ErrorKind::Internal, "a link went on after it failed"))?;
        let worked = self.roller.cpu.run(move || {
            work(&mut filling)?;
            Ok(filling)
        });
        let mut filling = worked.await?;
        for (frame, content) in filling.full.drain(..) {
            self.writer.write_frame(frame, content).await?;
        }
        self.filling = Some(filling);
        Ok(())
    }

    /// Stores the rest and the index.
    async fn finish(mut self) -> Result<(Vec<Segment>, Segment)> {
        self.work(|filling| {
            if !filling.frame.is_empty() {
                filling.end_frame();
            }
            Ok(())
        })
        .await?;
        let segments = self.writer.finish().await?.into_iter().map(|(_, segment)| segment).collect();
        let records = self.filling.map(|filling| filling.index.finish()).unwrap_or_default();
        let index = put_index(records, self.store, self.roller).await?;
        Ok((segments, index))
    }
}

fn writer(store: &Objects, stem: &str, roller: &Roller) -> Arc<CollectionWriter> {
    let item = Progress::default().item(stem, 0, 0);
    let sizes = Sizes::of_segments(SEGMENT_BYTES);
    CollectionWriter::new(store.clone(), stem.to_owned(), roller.compressors.clone(), sizes, roller.cpu.clone(), item)
}

/// Stores an index as one object.
async fn put_index(records: Vec<IndexRecord>, store: &Objects, roller: &Roller) -> Result<Segment> {
    let compressors = roller.compressors.clone();
    let finished = roller.cpu.run(move || {
        let mut builder = segment::Builder::default();
        let (mut frame, mut content) = (Vec::new(), Content::default());
        let mut push = |frame: &mut Vec<u8>, content: &mut Content| -> Result<()> {
            let compressed = compressors.lend(|compressor| compressor.compress(frame))?;
            builder.push(compressed, content);
            frame.clear();
            *content = Content::default();
            Ok(())
        };
        for record in records {
            let record = record.to_bytes()?;
            if !frame.is_empty() && frame.len() + record.len() > frame::TARGET {
                push(&mut frame, &mut content)?;
            }
            content.add(&record);
            frame.extend(record);
        }
        if !frame.is_empty() {
            push(&mut frame, &mut content)?;
        }
        Ok(builder.finish())
    });
    let finished = finished.await?;
    let object = crate::format::manifest::StoredObject {
        key: key::INDEX.to_owned(),
        bytes: finished.stored_bytes,
        sha256: finished.sha256.clone(),
    };
    store.put(key::INDEX, finished.chunks).await?;
    let (documents, digest) = (finished.content.documents, finished.content.digest());
    Ok(Segment { object, raw_bytes: finished.raw_bytes, documents, digest, frames: finished.frames })
}
