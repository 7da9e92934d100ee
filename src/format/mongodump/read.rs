//! Reads an archive in one pass: each document as its bytes, with the CRC of every namespace
//! checked.
//!
//! Nothing in an archive marks its end. If it was cut between two blocks, only namespaces without
//! an end show it. So the end is valid only once every namespace in the prelude has ended,
//! including views and empty collections.

mod input;
mod item;

use std::collections::HashMap;
use std::io::Read;

use crc64fast::Digest;

use super::{MAGIC, Member, Prelude};
use crate::error::{Error, ErrorKind, Result};
use input::{Fault, Input, Item};
use item::NamespaceHeader;

/// The most bytes of a prelude, which is held in memory as a whole.
const MAX_PRELUDE: u64 = 512 * 1024 * 1024;

/// The most namespaces in a prelude.
const MAX_NAMESPACES: usize = 2_000_000;

/// How many namespaces a message names.
const NAMED: usize = 5;

/// The prefix of the names of bucket collections.
const BUCKETS: &str = "system.buckets.";

/// Reads an uncompressed archive, from its first byte to its last.
#[derive(Debug)]
pub struct Reader<R> {
    input: Input<R>,
    prelude: Prelude,
    /// The index of each namespace in the prelude, by its [`key`].
    places: HashMap<String, usize>,
    states: Vec<State>,
    /// The namespace whose segment is being read.
    open: Option<usize>,
    stage: Stage,
}

/// The next part of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A document of this namespace, by its index in the prelude.
    Document(usize, &'a [u8]),
    /// This namespace has ended, and its CRC is correct.
    End(usize),
}

/// The progress of a namespace.
#[derive(Clone, Default)]
struct State {
    digest: Digest,
    ended: bool,
    /// Whether its blocks name its buckets; unknown before the first one.
    buckets: Option<bool>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("crc", &self.digest.sum64()).field("ended", &self.ended).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Prelude,
    Body,
    Ended,
    Failed,
}

/// The result of the loop in [`Reader::next`], before anything is borrowed.
enum Found {
    Document(usize, std::ops::Range<usize>),
    End(usize),
    Nothing,
}

impl<R: Read> Reader<R> {
    /// Reads up to the first block.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`], naming the offset; [`ErrorKind::Storage`] if it cannot be read. An
    /// error of this crate inside an error of `inner` keeps its kind.
    pub fn open(inner: R) -> Result<Self> {
        Self::open_within(inner, |_| Ok(()))
    }

    /// The same, with `admit`: it gets the number of bytes that describe each namespace of the
    /// prelude, before the namespace is kept, and may refuse it.
    ///
    /// # Errors
    /// As for [`open`](Self::open), and those of `admit`.
    pub fn open_within(inner: R, mut admit: impl FnMut(usize) -> Result<()>) -> Result<Self> {
        let prelude =
            Prelude { concurrent: 1, server_version: String::new(), tool_version: String::new(), namespaces: Vec::new() };
        let mut reader = Self {
            input: Input::of(inner),
            prelude,
            places: HashMap::new(),
            states: Vec::new(),
            open: None,
            stage: Stage::Prelude,
        };
        reader.read_magic()?;
        reader.read_header()?;
        while reader.read_member(&mut admit)? {}
        reader.states.resize_with(reader.prelude.namespaces.len(), State::default);
        reader.stage = Stage::Body;
        Ok(reader)
    }

    /// What the archive says about itself.
    #[must_use]
    pub fn prelude(&self) -> &Prelude {
        &self.prelude
    }

    /// The same, and drops the reader.
    #[must_use]
    pub fn into_prelude(self) -> Prelude {
        self.prelude
    }

    /// Drops the metadata in the prelude, which is not needed here.
    pub fn forget_metadata(&mut self) {
        self.prelude.namespaces.iter_mut().for_each(|member| member.metadata = String::new());
    }

    /// How many bytes of the archive have been consumed.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.input.offset()
    }

    /// Returns what comes next; `None` once every namespace and the archive have ended.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`], naming the namespace and the offset; otherwise as [`Reader::open`].
    /// After one error, there are only errors.
    #[expect(clippy::should_implement_trait, reason = "what it gives is borrowed from the reader")]
    pub fn next(&mut self) -> Result<Option<Event<'_>>> {
        let found = self.advance().inspect_err(|_| self.stage = Stage::Failed)?;
        Ok(match found {
            Found::Document(place, range) => Some(Event::Document(place, self.input.bytes(range))),
            Found::End(place) => Some(Event::End(place)),
            Found::Nothing => None,
        })
    }

    fn advance(&mut self) -> Result<Found> {
        match self.stage {
            Stage::Ended => return Ok(Found::Nothing),
            Stage::Failed => return Err(self.fail(self.offset(), None, "nothing more is read after an error")),
            Stage::Prelude | Stage::Body => {}
        }
        loop {
            let at = self.offset();
            if let Some(open) = self.open {
                match self.item()? {
                    Item::Document(range) => return Ok(Found::Document(open, range)),
                    Item::Terminator => self.close(open),
                    Item::End => return Err(self.fail(at, Some(open), "it ends early, inside a segment")),
                }
                continue;
            }
            let range = match self.item()? {
                Item::Document(range) => range,
                Item::Terminator => return Err(self.fail(at, None, "found a terminator where a block must begin")),
                Item::End => return self.end().map(|()| Found::Nothing),
            };
            let (place, header) = self.header(at, range)?;
            match header {
                Header::Segment => {
                    self.input.hash_from_here(self.states[place].digest.clone());
                    self.open = Some(place);
                }
                Header::End(crc) => {
                    self.finish(at, place, crc)?;
                    return Ok(Found::End(place));
                }
            }
        }
    }

    fn read_magic(&mut self) -> Result<()> {
        let magic = self.input.four().map_err(|fault| self.place_fault(fault))?;
        if magic == MAGIC {
            return Ok(());
        }
        let hex = |bytes: [u8; 4]| bytes.map(|b| format!("{b:02x}")).join(" ");
        let error = format!("it begins with {}, but a mongodump archive begins with {}", hex(magic), hex(MAGIC));
        let error = self.fail(0, None, error);
        Err(if magic.starts_with(&[0x1F, 0x8B]) { error.hint("it is compressed by gzip: decompress it first") } else { error })
    }

    fn read_header(&mut self) -> Result<()> {
        let at = self.offset();
        let range = match self.item()? {
            Item::Document(range) => range,
            Item::Terminator => return Err(self.fail(at, None, "found a terminator where the archive's header must be")),
            Item::End => return Err(self.fail(at, None, "it ends early, before the archive's header")),
        };
        match item::archive_header(self.input.bytes(range)) {
            Ok(prelude) => self.prelude = prelude,
            Err(what) => return Err(self.fail(at, None, what)),
        }
        Ok(())
    }

    /// Reads one more namespace. False if there is none.
    fn read_member(&mut self, admit: &mut impl FnMut(usize) -> Result<()>) -> Result<bool> {
        let at = self.offset();
        let range = match self.item()? {
            Item::Document(range) => range,
            Item::Terminator => return Ok(false),
            Item::End => return Err(self.fail(at, None, "it ends early, before the prelude does")),
        };
        if self.offset() > MAX_PRELUDE {
            return Err(self.fail(at, None, format!("the prelude takes more than {MAX_PRELUDE} bytes")));
        }
        admit(range.len()).map_err(|e| e.context(self.place(at, None)))?;
        let bytes = self.input.bytes(range);
        let member = item::member(bytes).map_err(|what| self.fail_in(at, item::named(bytes), what))?;
        let place = self.prelude.namespaces.len();
        if place == MAX_NAMESPACES {
            return Err(self.fail(at, None, format!("the prelude names more than {MAX_NAMESPACES} namespaces")));
        }
        if self.places.insert(key(&member.database, &member.collection), place).is_some() {
            return Err(self.fail_in(at, Some(display(&member)), "it is named a second time"));
        }
        self.prelude.namespaces.push(member);
        Ok(true)
    }

    /// Reads a namespace header and, if it ends its namespace, the terminator after it.
    fn header(&mut self, at: u64, range: std::ops::Range<usize>) -> Result<(usize, Header)> {
        let bytes = self.input.bytes(range);
        let header = item::namespace_header(bytes).map_err(|what| self.fail_in(at, item::named(bytes), what))?;
        let NamespaceHeader { database, collection, end, crc } = header;
        let Some((place, buckets)) = self.find(database, collection) else {
            let named = Some(item::display(database, collection));
            return Err(self.fail_in(at, named, "it has a block, but the prelude does not name it"));
        };
        let state = &mut self.states[place];
        let known = *state.buckets.get_or_insert(buckets);
        if state.ended {
            return Err(self.fail(at, Some(place), "it has a block after its end"));
        }
        if known != buckets {
            return Err(self.fail(at, Some(place), "some of its blocks name it, others its buckets"));
        }
        match (end, crc) {
            (true, crc) => Ok((place, Header::End(crc))),
            (false, 0) => Ok((place, Header::Segment)),
            (false, crc) => {
                let what = format!("a segment's header holds a CRC, {crc:016x}, which only an end header may hold");
                Err(self.fail(at, Some(place), what))
            }
        }
    }

    /// The index of a namespace by its name in a block, and whether that names its buckets.
    fn find(&self, database: &str, collection: &str) -> Option<(usize, bool)> {
        if let Some(place) = self.places.get(&key(database, collection)) {
            return Some((*place, false));
        }
        let place = *self.places.get(&key(database, collection.strip_prefix(BUCKETS)?))?;
        (self.prelude.namespaces[place].kind.as_deref() == Some("timeseries")).then_some((place, true))
    }

    fn close(&mut self, open: usize) {
        if let Some(digest) = self.input.hashed() {
            self.states[open].digest = digest;
        }
        self.open = None;
    }

    fn finish(&mut self, at: u64, place: usize, crc: u64) -> Result<()> {
        let after = self.offset();
        // Meanwhile, an error is about this namespace.
        self.open = Some(place);
        match self.item()? {
            Item::Terminator => {}
            Item::Document(_) => return Err(self.fail(after, Some(place), "a document follows its end")),
            Item::End => return Err(self.fail(after, Some(place), "it ends early, before the terminator of a namespace's end")),
        }
        self.open = None;
        let state = &mut self.states[place];
        let found = state.digest.sum64();
        if found != crc && !cfg!(fuzzing) {
            return Err(self.fail(
                at,
                Some(place),
                format!("its documents have the CRC {found:016x}, but its end says {crc:016x}"),
            ));
        }
        state.ended = true;
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if self.states.iter().all(|state| state.ended) {
            self.stage = Stage::Ended;
            return Ok(());
        }
        Err(self.fail(self.offset(), None, format!("it ends early: {}", self.missing())))
    }

    /// Lists the namespaces that have not ended.
    fn missing(&self) -> String {
        let missing = || self.states.iter().zip(&self.prelude.namespaces).filter(|(state, _)| !state.ended);
        let names: Vec<String> = missing().take(NAMED).map(|(_, member)| display(member)).collect();
        let more = match missing().count() - names.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("missing the end of {}{more}", names.join(", "))
    }

    fn item(&mut self) -> Result<Item> {
        self.input.item().map_err(|fault| self.place_fault(fault))
    }

    fn place_fault(&self, fault: Fault) -> Error {
        let Fault { at, early, error } = fault;
        let namespace = self.open.map(|place| display(&self.prelude.namespaces[place]));
        let is_between = self.stage == Stage::Body && namespace.is_none();
        let all_ended = self.states.iter().all(|state| state.ended);
        let error = match (early, is_between, all_ended) {
            (true, true, true) => {
                // Nothing of an item was read: what ends early is around the archive.
                let what = match self.offset() == at {
                    true => ": the end of its compression is missing, after the end of all its namespaces",
                    false => ", inside something after the end of all its namespaces",
                };
                error.reworded(input::EARLY, &format!("{}{what}", input::EARLY))
            }
            (true, true, false) => error.reworded(input::EARLY, &format!("{}: {}", input::EARLY, self.missing())),
            (false, true, true) if error.kind() == ErrorKind::Damaged => error.context("after the end of all its namespaces"),
            _ => error,
        };
        error.context(self.place(at, namespace))
    }

    fn fail(&self, at: u64, place: Option<usize>, what: impl Into<String>) -> Error {
        self.fail_in(at, place.map(|place| display(&self.prelude.namespaces[place])), what)
    }

    fn fail_in(&self, at: u64, namespace: Option<String>, what: impl Into<String>) -> Error {
        Error::damaged(what).context(self.place(at, namespace))
    }

    fn place(&self, at: u64, namespace: Option<String>) -> String {
        let part = if self.stage == Stage::Prelude { "the archive's prelude" } else { "the archive" };
        match namespace {
            Some(namespace) => format!("{namespace}: at byte {at} of {part}"),
            None => format!("at byte {at} of {part}"),
        }
    }
}

/// The block after a namespace header: a segment, or the end with the CRC of all documents.
enum Header {
    Segment,
    End(u64),
}

/// A namespace as one text. Either name may hold any character.
fn key(database: &str, collection: &str) -> String {
    format!("{} {database}{collection}", database.len())
}

fn display(member: &Member) -> String {
    item::display(&member.database, &member.collection)
}
