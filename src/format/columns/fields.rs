//! The fields of a frame, found while it is split: a type and a name within a container.

use super::bytes::{MAX_POSITION, nul, position_key, wide_word, word};
use super::form::{COUNTED, Form, bson_type, form};
use crate::format::kind;

/// Not a field: the end of a container.
pub(super) const END: u32 = 0;
/// Not a field: the document is given up.
pub(super) const ABORT: u32 = 1;
/// The document itself.
pub(super) const ROOT: u32 = 2;
/// The most fields in a frame, including the three above.
pub(super) const MAX_FIELDS: usize = 1 << 14;

/// The field has its own name.
pub(super) const NAMED: u8 = 0;
/// The field's name is a value in its column of names.
pub(super) const WILD: u8 = 0x40;
/// The field's name is its position in an array.
pub(super) const NUMBERED: u8 = 0x80;

/// The number of new names in a container above which it gets wild fields.
const MANY_NAMES: u32 = 1024;
const MANY_NAMES_OF_ROOT: u32 = 4096;

/// A field. Its size is one cache line.
#[derive(Debug, Clone)]
#[repr(align(64))]
pub(super) struct Field {
    /// Type, name and NUL as in a document: the first sixteen bytes, and a mask for the valid ones.
    pub(super) header: u128,
    pub(super) mask: u128,
    /// The length of type, name and NUL; 1 if the name is not the field's.
    pub(super) header_length: u32,
    pub(super) form: Form,
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// Whether one of these containers was read to its end.
    pub(super) closed: bool,
    /// The position of type, name and NUL in [`Fields::names`].
    at: u32,
    container: u32,
    /// How often a field was defined and found within this container.
    made: u32,
    found: u32,
    /// The field expected after this one, and the one expected first within it.
    pub(super) expected: [u32; 2],
}

/// The place of an element.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Its container: the field, its end, and whether it is an array.
    pub(super) container: u32,
    pub(super) end: usize,
    pub(super) array: bool,
    /// Its position there.
    pub(super) position: u32,
}

/// All fields of a frame.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) list: Vec<Field>,
    names: Vec<u8>,
    /// Fields by container, type and name: open addressing, with 0 for an empty slot.
    table: Vec<u32>,
    /// Their definitions in stored form.
    pub(super) definitions: Vec<u8>,
}

impl Fields {
    pub(super) fn reset(&mut self) {
        self.list.clear();
        self.names.clear();
        self.definitions.clear();
        self.table.clear();
        self.table.resize(2 * MAX_FIELDS, 0);
        for _ in 0..=ROOT {
            self.add(0, kind::DOCUMENT, Form::Document, NAMED, &[]);
        }
    }

    /// The field's type, name and NUL.
    pub(super) fn header(&self, field: &Field) -> &[u8] {
        &self.names[field.at as usize..(field.at + field.header_length) as usize]
    }

    /// Finds or defines the field of the element at a place. `None` if the element cannot be kept.
    #[cold]
    #[inline(never)]
    pub(super) fn resolve(&mut self, data: &[u8], at: usize, place: Place) -> Option<u32> {
        let bson = *data.get(at)?;
        let length = nul(data.get(at + 1..place.end)?)?;
        let name = &data[at + 1..at + 1 + length];
        let form = form(bson)?;
        if bson == COUNTED {
            return None;
        }
        let kind = if bson == kind::DOCUMENT && starts_counting(data, at + 2 + length) { COUNTED } else { bson };
        let form = if kind == COUNTED { Form::Array } else { form };
        if place.array {
            let (key, key_length) = position_key(place.position.min(MAX_POSITION));
            let counts = length + 1 == key_length as usize && key.to_le_bytes()[..length] == *name;
            return if place.position <= MAX_POSITION && counts {
                self.find(place.container, kind, form, NUMBERED, &[])
            } else {
                None
            };
        }
        let container = &self.list[place.container as usize];
        let room = match place.container {
            ROOT => MANY_NAMES_OF_ROOT,
            _ if self.list.len() > MAX_FIELDS / 2 => 4,
            _ => 16,
        };
        let known = container.closed || container.made > MANY_NAMES;
        if known && container.made > room + container.found {
            return match self.look(place.container, kind, NAMED, name).0 {
                Some(found) => Some(found),
                None => self.find(place.container, kind, form, WILD, &[]),
            };
        }
        self.find(place.container, kind, form, NAMED, name)
    }

    fn find(&mut self, container: u32, kind: u8, form: Form, flags: u8, name: &[u8]) -> Option<u32> {
        let (found, place) = self.look(container, kind, flags, name);
        if found.is_some() {
            self.list[container as usize].found += u32::from(flags != WILD);
            return found;
        }
        if self.list.len() >= MAX_FIELDS {
            return None;
        }
        self.list[container as usize].made += 1;
        let field = self.add(container, kind, form, flags, name);
        self.table[place] = field;
        self.definitions.extend([kind, flags]);
        if flags == NAMED {
            self.definitions.extend_from_slice(name);
            self.definitions.push(0);
        }
        Some(field)
    }

    fn add(&mut self, container: u32, kind: u8, form: Form, flags: u8, name: &[u8]) -> u32 {
        let (field, at) = (self.list.len() as u32, self.names.len() as u32);
        self.names.push(bson_type(kind));
        if flags == NAMED {
            self.names.extend_from_slice(name);
            self.names.push(0);
        }
        let header = &self.names[at as usize..];
        let header_length = header.len() as u32;
        self.list.push(Field {
            header: wide_word(header, 0),
            mask: if header.len() >= 16 { !0 } else { (1 << (8 * header.len())) - 1 },
            header_length,
            form,
            kind,
            flags,
            closed: false,
            at,
            container,
            made: 0,
            found: 0,
            expected: [field, END],
        });
        field
    }

    /// The field, or its free slot in the table.
    fn look(&self, container: u32, kind: u8, flags: u8, name: &[u8]) -> (Option<u32>, usize) {
        let mask = self.table.len() - 1;
        let mut place = hash(container, kind ^ flags, name) as usize & mask;
        loop {
            let id = self.table[place];
            if id == 0 {
                return (None, place);
            }
            let field = &self.list[id as usize];
            let same = field.container == container && field.kind == kind && field.flags == flags;
            if same && (flags != NAMED || self.header(field)[1..field.header_length as usize - 1] == *name) {
                return (Some(id), place);
            }
            place = (place + 1) & mask;
        }
    }
}

/// Whether the document at a position has `0` as the key of its first element.
#[inline]
pub(super) fn starts_counting(data: &[u8], at: usize) -> bool {
    data.get(at + 5..at + 7) == Some(b"0\0")
}

/// Whether this element is in a counting document if and only if the expected field is.
#[inline]
pub(super) fn counts_alike(field: &Field, data: &[u8], value: usize) -> bool {
    field.kind == kind::ARRAY || starts_counting(data, value) == (field.kind == COUNTED)
}

fn hash(container: u32, kind: u8, name: &[u8]) -> u32 {
    const MULTIPLIER: u64 = 0x517c_c1b7_2722_0a95;
    let mut hash = u64::from(container) << 8 | u64::from(kind);
    let mut mix = |word: u64| hash = (hash.rotate_left(5) ^ word).wrapping_mul(MULTIPLIER);
    let pieces = name.chunks_exact(8);
    let rest = pieces.remainder();
    pieces.for_each(|piece| mix(word(piece)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(u64::from_le_bytes(last) ^ (rest.len() as u64) << 56);
    (hash >> 32) as u32
}
