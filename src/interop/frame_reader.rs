//! Passes documents from a thread that reads a dump to their consumer: in frames, each with its
//! share of the memory budget.

use std::collections::HashMap;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::part::{COPIES, Of, Part, READING_BYTES};
use crate::context::memory::{MemoryBudget, MemoryPermit};
use crate::error::{Error, ErrorKind, Result};
use crate::format::arrival::Arrivals;
use crate::format::digest::Content;
use crate::format::document::Shape;
use crate::format::{document, frame};

/// The most bytes that wait for full frames, in all namespaces together, including the next
/// document. Besides, that document is in memory where it is read, and nothing else.
const PENDING: usize = READING_BYTES as usize / 2;

/// Runs work that reads files in its own thread: a thread that waits for standard input may have to
/// be abandoned, unlike the runtime's threads.
pub(super) async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (done, result) = oneshot::channel();
    let run = move || drop(done.send(work()));
    let started = std::thread::Builder::new().name("dump".to_owned()).spawn(run);
    started.map_err(|e| Error::new(ErrorKind::Internal, format!("a thread cannot be started: {e}")).cause(e))?;
    result.await.map_err(|e| Error::new(ErrorKind::Internal, "a thread that read a dump crashed").cause(e))?
}

/// Passes on parts from a thread.
#[derive(Debug, Clone)]
pub(super) struct FrameReader {
    pub(super) budget: MemoryBudget,
    pub(super) parts: mpsc::Sender<Part>,
    /// Also cancelled once nobody takes parts any more.
    pub(super) stop: CancellationToken,
}

impl FrameReader {
    /// Passes on whole documents, once the budget has room for them.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`].
    pub(super) fn documents(&self, of: Of, waiting: Waiting) -> Result<()> {
        match waiting.len() {
            0 => Ok(()),
            bytes => self.send(of, waiting, self.share(bytes)?),
        }
    }

    /// Takes the budget share of a frame of this many bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`].
    pub(super) fn share(&self, bytes: usize) -> Result<MemoryPermit> {
        self.wait(self.budget.take(COPIES * bytes as u64))
    }

    /// Passes on documents that have their share.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`].
    pub(super) fn send(&self, of: Of, waiting: Waiting, share: MemoryPermit) -> Result<()> {
        let Waiting { frame, content, arrivals } = waiting;
        self.part(Part::Documents { of, frame, content, arrivals, share })
    }

    /// Reports that all of it was passed on.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`].
    pub(super) fn end(&self, of: Of) -> Result<()> {
        self.part(Part::End(of))
    }

    fn part(&self, part: Part) -> Result<()> {
        self.wait(self.parts.send(part))?.map_err(|_nobody_takes_it| {
            self.stop.cancel();
            Error::interrupted()
        })
    }

    /// Waits in this thread, until a stop is requested.
    fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        futures::executor::block_on(self.stop.run_until_cancelled(work)).ok_or_else(Error::interrupted)
    }
}

/// Documents waiting for a full frame.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    frame: Vec<u8>,
    content: Content,
    arrivals: Arrivals,
}

impl Waiting {
    /// Whether a document of this many bytes belongs in another frame.
    pub(super) fn is_full_for(&self, bytes: usize) -> bool {
        !self.frame.is_empty() && self.frame.len() + bytes > frame::TARGET
    }

    pub(super) fn add(&mut self, document: &[u8], shape: &Shape<'_>) -> Result<()> {
        self.make_room(document.len());
        self.frame.extend_from_slice(document);
        self.content.add(document);
        self.arrivals.add(document.len(), shape)
    }

    /// The buffer to read a document into; then call [`Waiting::added`].
    pub(super) fn room_for(&mut self, bytes: usize) -> &mut Vec<u8> {
        self.make_room(bytes);
        &mut self.frame
    }

    /// Counts what was read since this position, which must be one document.
    pub(super) fn added(&mut self, from: usize) -> Result<()> {
        let document = &self.frame[from..];
        let shape = document::shape(document)?;
        self.content.add(document);
        self.arrivals.add(document.len(), &shape)
    }

    pub(super) fn len(&self) -> usize {
        self.frame.len()
    }

    /// Grows like a vector, but not beyond a frame.
    fn make_room(&mut self, bytes: usize) {
        let needed = self.frame.len() + bytes;
        if needed > self.frame.capacity() {
            let doubled = (2 * self.frame.capacity()).min(frame::TARGET);
            self.frame.reserve_exact(needed.max(doubled) - self.frame.len());
        }
    }
}

/// Gathers the documents of several interleaved namespaces.
#[derive(Debug)]
pub(super) struct Gather {
    frames: FrameReader,
    /// What each namespace's documents belong to; `None` if they are not wanted.
    places: Vec<Option<Of>>,
    waiting: Vec<Waiting>,
    bytes: usize,
    /// For each of these, how many namespaces have not ended.
    left: HashMap<Of, usize>,
}

impl Gather {
    pub(super) fn new(frames: FrameReader, places: Vec<Option<Of>>) -> Self {
        let waiting = places.iter().map(|_| Waiting::default()).collect();
        let mut left = HashMap::new();
        places.iter().flatten().for_each(|of| *left.entry(*of).or_default() += 1);
        Self { frames, places, waiting, bytes: 0, left }
    }

    /// Takes a document of the namespace at this place.
    pub(super) fn take(&mut self, place: usize, document: &[u8], shape: &Shape<'_>) -> Result<()> {
        if self.waiting[place].is_full_for(document.len()) {
            self.hand_on(place)?;
        }
        if self.bytes > 0 && self.bytes + document.len() > PENDING {
            self.make_room(document.len())?;
        }
        self.waiting[place].add(document, shape)?;
        self.bytes += document.len();
        if self.waiting[place].len() >= frame::TARGET { self.hand_on(place) } else { Ok(()) }
    }

    /// Ends the namespace at this place: passes on its remaining documents and, if it is the last
    /// namespace of its kind, the end.
    pub(super) fn end(&mut self, place: usize) -> Result<()> {
        self.hand_on(place)?;
        let Some(of) = self.places[place].take() else { return Ok(()) };
        match self.left.get_mut(&of) {
            Some(left) if *left > 1 => {
                *left -= 1;
                Ok(())
            }
            _ => self.frames.end(of),
        }
    }

    /// Passes on the largest waiting frames until there is room for this many bytes. If there are
    /// very many small ones, half of them are passed on at once, so that each scan of all of them
    /// pays off.
    fn make_room(&mut self, bytes: usize) -> Result<()> {
        let mut largest: Vec<usize> = (0..self.waiting.len()).filter(|place| self.waiting[*place].len() > 0).collect();
        largest.sort_by_key(|place| std::cmp::Reverse(self.waiting[*place].len()));
        let are_small = largest.first().is_some_and(|place| self.waiting[*place].len() < PENDING / 64);
        let enough = if are_small { PENDING / 2 } else { PENDING.saturating_sub(bytes) };
        for place in largest {
            if self.bytes <= enough {
                break;
            }
            self.hand_on(place)?;
        }
        Ok(())
    }

    fn hand_on(&mut self, place: usize) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting[place]);
        self.bytes -= waiting.len();
        self.places[place].map_or(Ok(()), |of| self.frames.documents(of, waiting))
    }
}
