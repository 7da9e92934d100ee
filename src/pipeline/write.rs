//! From batches to stored segments: documents are gathered into frames, compressed and digested on
//! the CPU pool, and stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinHandle;

use crate::context::cpu::CpuPool;
use crate::context::progress::Item;
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::Content;
use crate::format::document::{Elements, MAX_DOCUMENT};
use crate::format::frame::{Compressor, Compressors};
use crate::format::kind;
use crate::format::manifest::{Segment, StoredObject};
use crate::format::segment::{Builder, Finished};
use crate::format::{frame, key};
use crate::repository::backend::Objects;

/// Documents as a server sends them: the bytes of a BSON array whose elements they are.
pub trait Documents: Send + 'static {
    /// The array.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if there is none.
    fn array(&self) -> Result<&[u8]>;

    /// Whether the document at this index counts.
    fn counts(&self, place: usize) -> bool;
}

/// Target sizes.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// About the stored bytes of a segment.
    pub segment: usize,
    /// About the bytes of documents in a frame, at most [`frame::LARGEST_TARGET`].
    pub frame: usize,
}

impl Sizes {
    /// Segments of this size, and frames of the default size.
    #[must_use]
    pub fn of_segments(segment: usize) -> Self {
        Self { segment, frame: frame::TARGET }
    }
}

/// Where the segments of one collection are stored. Its ranges share it.
#[derive(Debug)]
pub struct CollectionWriter {
    store: Objects,
    stem: String,
    next: AtomicUsize,
    compressors: Arc<Compressors>,
    sizes: Sizes,
    cpu: CpuPool,
    item: Item,
}

impl CollectionWriter {
    /// A writer of segments under this stem.
    #[must_use]
    pub fn new(store: Objects, stem: String, compressors: Arc<Compressors>, sizes: Sizes, cpu: CpuPool, item: Item) -> Arc<Self> {
        Arc::new(Self { store, stem, next: AtomicUsize::new(0), compressors, sizes, cpu, item })
    }

    /// The next segment gets this number or a higher one.
    pub fn number_from(&self, number: usize) {
        self.next.fetch_max(number, Ordering::Relaxed);
    }

    /// Begins a range. Segments are numbered as they are stored; each holds documents of one range.
    #[must_use]
    pub fn range(self: &Arc<Self>) -> RangeWriter {
        RangeWriter {
            packer: Some(Packer::new(self.sizes)),
            writer: self.clone(),
            counted: Content::default(),
            putting: None,
            stored: Vec::new(),
        }
    }
}

/// Writes the documents of one range.
#[derive(Debug)]
pub struct RangeWriter {
    writer: Arc<CollectionWriter>,
    packer: Option<Packer>,
    counted: Content,
    putting: Option<JoinHandle<Result<(usize, Segment)>>>,
    stored: Vec<(usize, Segment)>,
}

impl RangeWriter {
    /// Takes a batch. One segment may be on its way to the store while the next is filled.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if the batch does not consist of documents; [`ErrorKind::Storage`].
    pub async fn write<T: Documents>(&mut self, batch: T) -> Result<()> {
        let (content, finished) = self.pack(move |packer, compressor| packer.take(&batch, compressor)).await?;
        self.counted.merge(&content);
        self.writer.item.add(content.documents, content.bytes);
        for segment in finished {
            self.put(segment).await?;
        }
        Ok(())
    }

    /// Takes whole documents that are to be a frame of their own.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn write_frame(&mut self, documents: Vec<u8>, content: Content) -> Result<()> {
        let ((), finished) = self.pack(move |packer, compressor| packer.push(&documents, &content, compressor)).await?;
        self.counted.merge(&content);
        self.writer.item.add(content.documents, content.bytes);
        for segment in finished {
            self.put(segment).await?;
        }
        Ok(())
    }

    /// The stored bytes of the segment that is not full yet.
    #[must_use]
    pub fn held(&self) -> usize {
        self.packer.as_ref().map_or(0, |packer| packer.builder.stored())
    }

    /// Stores the rest and returns the range's segments with their numbers. Every one is durable.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub async fn finish(&mut self) -> Result<Vec<(usize, Segment)>> {
        let ((), finished) = self.pack(Packer::close).await?;
        for segment in finished {
            self.put(segment).await?;
        }
        self.settle().await?;
        Ok(std::mem::take(&mut self.stored))
    }

    /// Takes over segments that were stored before, as the beginning of this range.
    pub fn adopt(&mut self, stored: Vec<(usize, Segment)>) {
        self.stored.extend(stored);
    }

    /// Ends the segment that is being filled, if anything is in it. Returns the segments after the
    /// first `known`. Every one is durable.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub async fn flush(&mut self, known: usize) -> Result<Vec<Segment>> {
        let ((), finished) = self.pack(Packer::close).await?;
        for segment in finished {
            self.put(segment).await?;
        }
        self.settle().await?;
        Ok(self.stored.iter().skip(known).map(|(_, segment)| segment.clone()).collect())
    }

    /// Discards everything that was written of the range.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub async fn restart(&mut self) -> Result<()> {
        self.settle().await?;
        for (_, segment) in self.stored.drain(..) {
            self.writer.store.delete(&segment.object.key).await?;
        }
        self.packer = Some(Packer::new(self.writer.sizes));
        self.writer.item.take_back(self.counted.documents, self.counted.bytes);
        self.counted = Content::default();
        Ok(())
    }

    /// Waits until no write of it is under way. Stored segments stay; the caller removes them.
    pub async fn abandon(mut self) {
        if let Some(putting) = self.putting.take() {
            let _whatever_it_gave = putting.await;
        }
    }

    async fn pack<R: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Packer, &mut Compressor) -> Result<R> + Send + 'static,
    ) -> Result<(R, Vec<Finished>)> {
        let mut packer = self.packer.take().ok_or_else(|| Error::new(ErrorKind::Internal, "a range went on after it failed"))?;
        let compressors = self.writer.compressors.clone();
        let packed = self.writer.cpu.run(move || {
            let result = compressors.lend(|compressor| work(&mut packer, compressor))?;
            let finished = std::mem::take(&mut packer.finished);
            Ok((packer, result, finished))
        });
        let (packer, result, finished) = packed.await?;
        self.packer = Some(packer);
        Ok((result, finished))
    }

    async fn put(&mut self, segment: Finished) -> Result<()> {
        self.settle().await?;
        let oversized = segment.stored_bytes > 2 * self.writer.sizes.segment as u64;
        let number = self.writer.next.fetch_add(1, Ordering::Relaxed);
        let (store, key) = (self.writer.store.clone(), key::segment(&self.writer.stem, number));
        self.putting = Some(tokio::spawn(async move {
            let object = StoredObject { key, bytes: segment.stored_bytes, sha256: segment.sha256 };
            store.put(&object.key, segment.chunks).await?;
            let (documents, digest) = (segment.content.documents, segment.content.digest());
            Ok((number, Segment { object, raw_bytes: segment.raw_bytes, documents, digest, frames: segment.frames }))
        }));
        // An oversized segment, the result of a single large frame, does not wait beside the next
        // one.
        if oversized { self.settle().await } else { Ok(()) }
    }

    /// Waits for the segment that is being stored. If that fails, the range has a hole, and can
    /// only start over.
    async fn settle(&mut self) -> Result<()> {
        if let Some(putting) = self.putting.take() {
            let stored = putting.await.map_err(|e| Error::new(ErrorKind::Internal, "a storing task died").cause(e));
            match stored.and_then(|stored| stored) {
                Ok(stored) => self.stored.push(stored),
                Err(e) => {
                    self.packer = None;
                    return Err(e);
                }
            }
        }
        Ok(())
    }
}

/// Gathers documents into frames and frames into segments.
struct Packer {
    sizes: Sizes,
    pending: Vec<u8>,
    content: Content,
    builder: Builder,
    finished: Vec<Finished>,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

impl Packer {
    fn new(sizes: Sizes) -> Self {
        Self { sizes, pending: Vec::new(), content: Content::default(), builder: Builder::default(), finished: Vec::new() }
    }

    /// Takes every document of a batch, and returns what was taken.
    fn take<T: Documents>(&mut self, batch: &T, compressor: &mut Compressor) -> Result<Content> {
        let mut taken = Content::default();
        for (place, element) in Elements::of(batch.array()?)?.enumerate() {
            let element = element?;
            if !batch.counts(place) {
                continue;
            }
            let document = element.value;
            if element.kind != kind::DOCUMENT || document.len() > MAX_DOCUMENT {
                return Err(Error::damaged("a batch of the source holds something that is not a document"));
            }
            if self.pending.len() + document.len() > self.sizes.frame && !self.pending.is_empty() {
                self.flush(compressor)?;
            }
            let mut one = Content::default();
            one.add(document);
            taken.merge(&one);
            if document.len() >= self.sizes.frame {
                self.push(document, &one, compressor)?; // a frame of its own, without another copy
            } else {
                self.pending.extend_from_slice(document);
                self.content.merge(&one);
            }
        }
        Ok(taken)
    }

    /// Ends the last frame and the last segment.
    fn close(&mut self, compressor: &mut Compressor) -> Result<()> {
        self.flush(compressor)?;
        self.end_segment();
        Ok(())
    }

    fn flush(&mut self, compressor: &mut Compressor) -> Result<()> {
        if !self.pending.is_empty() {
            let mut pending = std::mem::take(&mut self.pending);
            let content = std::mem::take(&mut self.content);
            self.push(&pending, &content, compressor)?;
            pending.clear();
            self.pending = pending;
        }
        Ok(())
    }

    fn push(&mut self, documents: &[u8], content: &Content, compressor: &mut Compressor) -> Result<()> {
        let frame = compressor.compress(documents)?;
        if self.builder.stored() + frame.len() > self.sizes.segment {
            self.end_segment();
        }
        self.builder.push(frame, content);
        Ok(())
    }

    fn end_segment(&mut self) {
        if !self.builder.is_empty() {
            self.finished.push(std::mem::take(&mut self.builder).finish());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::progress::Progress;
    use crate::format::document::Writer;
    use crate::format::frame::Compression;
    use crate::pipeline::read::SegmentReader;

    /// A batch of documents with these numbers, the first of which does not count.
    struct Batch(Vec<u8>);

    impl Batch {
        fn of(numbers: std::ops::Range<i32>) -> Self {
            let mut array = Writer::default();
            for number in numbers {
                array.document(number.to_string(), &document(number));
            }
            Self(array.finish())
        }
    }

    impl Documents for Batch {
        fn array(&self) -> Result<&[u8]> {
            Ok(&self.0)
        }

        fn counts(&self, place: usize) -> bool {
            place > 0
        }
    }

    /// Large enough that a few fill a frame, and incompressible, so that they fill segments, too.
    fn document(number: i32) -> Vec<u8> {
        let mut noise = u64::from(number.unsigned_abs()) + 1;
        let mut bytes = vec![0; 1_500_000];
        for chunk in bytes.chunks_mut(8) {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            chunk.copy_from_slice(&(noise ^ (noise >> 29)).to_le_bytes()[..chunk.len()]);
        }
        let mut value = (bytes.len() as u32).to_le_bytes().to_vec();
        value.push(0);
        value.extend(bytes);
        Writer::default().with(0x10, "_id", &number.to_le_bytes()).with(0x05, "v", &value).finish()
    }

    #[tokio::test]
    async fn a_range_that_begins_again_leaves_nothing_of_its_first_attempt() {
        let directory = tempfile::tempdir().unwrap();
        let store = Objects::open(directory.path().to_str().unwrap()).unwrap();
        let progress = Progress::default();
        let item = progress.item("d.c", 0, 0);
        let compressors = Arc::new(Compressors::new(Compression::of(1)));
        let writer = CollectionWriter::new(
            store.clone(),
            "d/c".to_owned(),
            compressors,
            Sizes::of_segments(2_000_000),
            CpuPool::new(1),
            item,
        );
        let mut range = writer.range();
        range.write(Batch::of(0..9)).await.unwrap();
        range.write(Batch::of(8..17)).await.unwrap();
        range.settle().await.unwrap();
        assert!(store.list().await.unwrap().len() > 1, "nothing was stored that could be left behind");

        range.restart().await.unwrap();
        assert_eq!(store.list().await.unwrap(), []);
        assert_eq!(progress.view().sums().0, 0);

        range.write(Batch::of(0..9)).await.unwrap();
        let segments = range.finish().await.unwrap();
        let (mut content, mut expected) = (Content::default(), Content::default());
        segments.iter().for_each(|(_, segment)| content.merge(&segment.content()));
        (1..9).for_each(|number| expected.add(&document(number)));
        assert_eq!(content, expected);
        let stored: Vec<String> = store.list().await.unwrap().into_iter().map(|entry| entry.key).collect();
        assert_eq!(stored, segments.iter().map(|(_, segment)| segment.object.key.clone()).collect::<Vec<_>>());
        assert_eq!(progress.view().sums().0, 8);
    }

    #[tokio::test]
    async fn a_range_with_a_segment_that_could_not_be_stored_goes_on_only_from_its_start() {
        let directory = tempfile::tempdir().unwrap();
        let store = Objects::open(directory.path().to_str().unwrap()).unwrap();
        let item = Progress::default().item("d.c", 0, 0);
        let compressors = Arc::new(Compressors::new(Compression::of(1)));
        let sizes = Sizes::of_segments(2_000_000);
        let mut range = CollectionWriter::new(store, "d/c".to_owned(), compressors, sizes, CpuPool::new(1), item).range();
        // In place of the directory.
        let in_the_way = directory.path().join("d");
        std::fs::write(&in_the_way, "").unwrap();
        assert_eq!(range.write(Batch::of(0..9)).await.unwrap_err().kind(), ErrorKind::Storage);
        std::fs::remove_file(&in_the_way).unwrap();
        assert_eq!(range.flush(0).await.unwrap_err().kind(), ErrorKind::Internal);
        assert_eq!(range.write(Batch::of(8..12)).await.unwrap_err().kind(), ErrorKind::Internal);

        range.restart().await.unwrap();
        range.write(Batch::of(0..9)).await.unwrap();
        let stored = range.flush(0).await.unwrap();
        assert_eq!(stored.iter().map(|segment| segment.documents).sum::<u64>(), 8);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn documents_stay_in_order_from_batches_to_frames_and_segments() {
        let directory = tempfile::tempdir().unwrap();
        let store = Objects::open(directory.path().to_str().unwrap()).unwrap();
        let (cpu, item) = (CpuPool::new(2), Progress::default().item("d.c", 0, 0));
        let compressors = Arc::new(Compressors::new(Compression::of(1)));
        let sizes = Sizes { segment: 5_000_000, frame: 3_200_000 };
        let writer = CollectionWriter::new(store.clone(), "d/c".to_owned(), compressors, sizes, cpu.clone(), item);
        let mut range = writer.range();
        // The first of each batch does not count. Frames of two, made of two batches, and one of a
        // single larger document.
        for batch in [0..4, 3..6, 5..7, 6..12] {
            range.write(Batch::of(batch)).await.unwrap();
        }
        let large = Writer::default().with(0x10, "_id", &12i32.to_le_bytes()).with(0x02, "v", &text(4_000_000)).finish();
        range.write(Batch(Writer::default().with(0x0A, "0", b"").with(0x03, "1", &large).finish())).await.unwrap();
        range.write(Batch::of(12..14)).await.unwrap();

        let mut numbers = Vec::new();
        let mut frames = Vec::new();
        for (_, segment) in range.finish().await.unwrap() {
            let mut reader = SegmentReader::open(&store, &segment, &cpu).await.unwrap();
            while let Some(frame) = reader.next().await.unwrap() {
                frames.push(crate::format::document::Documents::of(&frame).count());
            }
            let reader = SegmentReader::open(&store, &segment, &cpu).await.unwrap();
            let look = |(numbers, places): &mut (Vec<i32>, Vec<u64>), place, document: &[u8]| {
                let (_, id) = crate::format::document::id(document).unwrap().unwrap();
                numbers.push(i32::from_le_bytes(id.try_into().unwrap()));
                places.push(place);
            };
            let (content, (found, places)) = reader.look_through((Vec::new(), Vec::new()), look).await.unwrap();
            assert_eq!(content, segment.content());
            assert_eq!(places, (0..segment.documents).collect::<Vec<_>>());
            numbers.extend(found);
        }
        assert_eq!(numbers, (1..14).collect::<Vec<_>>());
        assert_eq!(frames, [2, 2, 2, 2, 2, 1, 1, 1]);
    }

    #[tokio::test]
    async fn a_segment_that_is_looked_through_in_several_jobs_is_seen_once_and_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let store = Objects::open(directory.path().to_str().unwrap()).unwrap();
        let (cpu, item) = (CpuPool::new(1), Progress::default().item("d.c", 0, 0));
        let compressors = Arc::new(Compressors::new(Compression::of(1)));
        let sizes = Sizes::of_segments(100_000_000);
        let mut range = CollectionWriter::new(store.clone(), "d/c".to_owned(), compressors, sizes, cpu.clone(), item).range();
        // Two documents per frame, 3 MB, and 72 MB of them in one segment.
        range.write(Batch::of(0..49)).await.unwrap();
        let stored = range.finish().await.unwrap();
        assert_eq!(stored.len(), 1);
        let reader = SegmentReader::open(&store, &stored[0].1, &cpu).await.unwrap();
        let look = |places: &mut Vec<u64>, place, _: &[u8]| places.push(place);
        let (content, places) = reader.look_through(Vec::new(), look).await.unwrap();
        assert_eq!((content, places), (stored[0].1.content(), (0..48).collect()));
    }

    /// A string in BSON.
    fn text(length: u32) -> Vec<u8> {
        let mut value = (length + 1).to_le_bytes().to_vec();
        value.resize(value.len() + length as usize, b'x');
        value.push(0);
        value
    }
}
