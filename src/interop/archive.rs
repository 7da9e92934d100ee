//! Reads mongodump's archives.

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;

use super::contents::{Contents, Found, is_of_all_users, sort_out};
use super::frame_reader::{FrameReader, Gather};
use super::input::{Input, Reading, Trouble};
use super::old_indexes::{self, OldIndexes, SYSTEM_INDEXES};
use super::part::{Of, Wanted, named};
use super::room::Room;
use crate::error::{Error, Result};
use crate::format::digest::{Content, ContentDigest};
use crate::format::document;
use crate::format::metadata::read::Metadata;
use crate::format::mongodump::read::{Event, Reader};
use crate::format::mongodump::{Member, Prelude};
use crate::names::Namespace;

/// An archive whose prelude has been read.
pub(super) struct Archive {
    reader: Reader<Reading>,
    trouble: Trouble,
    /// Its name in messages.
    place: String,
    /// The memory for its prelude.
    taken: u64,
}

impl Archive {
    /// Reads the prelude, limited to this memory.
    pub(super) fn open(input: Input, place: String, memory: u64) -> Result<Self> {
        let Input { reading, trouble, .. } = input;
        let mut room = Room::of(memory);
        match Reader::open_within(reading, |bytes| room.namespace(bytes)) {
            Ok(reader) => Ok(Self { reader, trouble, place, taken: room.taken() }),
            Err(e) => Err(trouble.explain(&place, e.context(&place))),
        }
    }

    pub(super) fn prelude(&self) -> &Prelude {
        self.reader.prelude()
    }

    /// A digest that changes with the prelude, but for a chance of 2^-128.
    pub(super) fn stamp(&self) -> ContentDigest {
        let mut content = Content::default();
        for (place, member) in self.prelude().namespaces.iter().enumerate() {
            content.add(format!("{place} {member:?}").as_bytes());
        }
        content.digest()
    }

    /// The same without the metadata, once that is no longer needed.
    pub(super) fn without_metadata(mut self) -> Self {
        self.reader.forget_metadata();
        self
    }

    /// The contents of the archive.
    pub(super) fn contents(&self, old: OldIndexes) -> Result<Contents> {
        let members = &self.prelude().namespaces;
        let all_users = members.iter().any(|m| is_of_all_users(&m.database, &m.collection));
        let contents = sort_out(members.iter().map(found), all_users, old);
        let contents = contents.map_err(|e| self.trouble.explain(&self.place, e.context(&self.place)))?;
        Ok(Contents { taken: self.taken, ..contents })
    }

    /// Whether it holds collections without metadata, and an old server's list of their database's
    /// indexes.
    pub(super) fn needs_old_indexes(&self) -> bool {
        let namespaces = &self.prelude().namespaces;
        let lists = namespaces.iter().filter(|m| m.collection == SYSTEM_INDEXES);
        let lists: BTreeSet<&str> = lists.map(|m| m.database.as_str()).collect();
        let lacks = |m: &Member| m.metadata.is_empty() && !m.collection.starts_with("system.");
        !lists.is_empty() && namespaces.iter().any(|m| lacks(m) && lists.contains(m.database.as_str()))
    }

    /// Reads the whole archive for those lists.
    pub(super) fn old_indexes(mut self, stop: &CancellationToken) -> Result<OldIndexes> {
        let databases: Vec<Option<String>> =
            self.prelude().namespaces.iter().map(|m| (m.collection == SYSTEM_INDEXES).then(|| m.database.clone())).collect();
        let (mut old, mut bytes) = (OldIndexes::default(), 0);
        let explained = |e: Error| self.trouble.explain(&self.place, e.context(&self.place));
        while let Some(event) = self.reader.next().map_err(explained)? {
            match event {
                _ if stop.is_cancelled() => return Err(Error::interrupted()),
                Event::Document(place, index) => {
                    let Some(database) = &databases[place] else { continue };
                    bytes += index.len() as u64;
                    if bytes > old_indexes::LIMIT {
                        let what =
                            format!("{SYSTEM_INDEXES} has more than {} bytes, the limit of such a list", old_indexes::LIMIT);
                        return Err(Error::damaged(what).context(&self.place));
                    }
                    old.add(database, index).map_err(explained)?;
                }
                Event::End(_) => {}
            }
        }
        Ok(old)
    }

    /// Passes on what is wanted. The rest is also read and verified.
    pub(super) fn read(mut self, contents: &Contents, wanted: &Wanted, frames: FrameReader) -> Result<()> {
        let namespaces: Vec<Namespace> =
            self.prelude().namespaces.iter().map(|m| Namespace::new(&*m.database, &*m.collection)).collect();
        let places: Vec<Option<Of>> = contents.places.iter().map(|place| place.filter(|of| wanted.has(*of))).collect();
        let (is_wanted, stop): (Vec<bool>, _) = (places.iter().map(Option::is_some).collect(), frames.stop.clone());
        let mut gather = Gather::new(frames, places);
        let explained = |e: Error| self.trouble.explain(&self.place, e.context(&self.place));
        while let Some(event) = self.reader.next().map_err(explained)? {
            match event {
                _ if stop.is_cancelled() => return Err(Error::interrupted()),
                Event::Document(place, _) if contents.is_view(place) => {
                    return Err(Error::damaged(format!("{}: the view {} has documents", self.place, named(&namespaces[place]))));
                }
                Event::Document(place, document) if is_wanted[place] => {
                    let shape = document::shape(document).map_err(|e| explained(e.context(named(&namespaces[place]))))?;
                    gather.take(place, document, &shape)?;
                }
                Event::Document(..) => {}
                Event::End(place) => gather.end(place)?,
            }
        }
        Ok(())
    }
}

fn found(member: &Member) -> Result<Found> {
    let metadata = match member.metadata.as_str() {
        "" => None,
        text => {
            let place = || format!("the metadata of {}.{}", member.database, member.collection);
            let read = Metadata::parse(text.as_bytes()).map_err(|e| e.context(place()))?;
            // Archives name the kind beside the metadata, too.
            Some(Metadata { kind: read.kind.or_else(|| member.kind.clone()), ..read })
        }
    };
    Ok(Found { database: member.database.clone(), name: member.collection.clone(), metadata, missing: None, bytes: 0 })
}
