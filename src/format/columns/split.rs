//! Splits documents into columns. Each element is compared with the one that followed its
//! predecessor the last time. So a frame of documents with few shapes is processed at about the
//! speed of copying it.

use super::bytes::{MAX_POSITION, nul, position_key, put_varint, u32_at, wide_word};
use super::fields::{ABORT, END, Field, Fields, Place, ROOT, WILD, counts_alike};
use super::form::{Form, width};

/// The maximum nesting depth of containers.
pub(super) const MAX_DEPTH: usize = 128;

/// The number of bytes after which the similarity of a frame's documents is judged for the first
/// time.
const FIRST_JUDGEMENT: usize = 256 * 1024;
/// With more fields than this, or an unexpected element in fewer bytes than this, columns are not
/// worth their time.
const MOST_FIELDS: usize = 4096;
const BYTES_OF_ONE_MISSED: usize = 32;

/// The parts that only few kinds of fields have.
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// The bytes of binary values.
    pub(super) bytes: Vec<u8>,
    /// The names of wild fields.
    pub(super) names: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    end: usize,
    field: u32,
    position: u32,
    array: bool,
}

/// The columns of a frame, reused for the next, because its working memory is large.
#[derive(Debug, Default)]
pub(super) struct Split {
    pub(super) fields: Fields,
    /// By field: its values, or the counts of its elements.
    pub(super) values: Vec<Vec<u8>>,
    pub(super) extras: Vec<Extra>,
    /// By field: the number of texts in its column.
    texts: Vec<u32>,
    /// The number of correct expectations before each wrong one.
    pub(super) runs: Vec<u8>,
    /// The fields found instead.
    pub(super) met: Vec<u8>,
    /// Documents that cannot be kept in columns, and any bytes after the last document.
    pub(super) whole: Vec<u8>,
    pub(super) documents: u32,
    discarded: usize,
    stack: Vec<Open>,
    run: u32,
    missed: usize,
    /// Whether to check each text for NULs inside; otherwise they are counted at the end.
    careful: bool,
}

impl Split {
    /// Splits the documents of a frame. False if columns do not fit them.
    pub(super) fn split(&mut self, data: &[u8]) -> bool {
        self.careful = false;
        let fits = self.pass(data);
        if !fits || !self.has_nul_within_text() {
            return fits;
        }
        self.careful = true;
        self.pass(data)
    }

    /// Frees memory if it holds more than this.
    pub(super) fn keep_at_most(&mut self, bytes: usize) {
        let columns = self.values.iter().map(Vec::capacity);
        let extras = self.extras.iter().map(|extra| extra.bytes.capacity() + extra.names.capacity());
        if columns.chain(extras).sum::<usize>() + self.whole.capacity() + self.met.capacity() > bytes {
            *self = Self::default();
        }
    }

    fn reset(&mut self) {
        self.fields.reset();
        self.values.iter_mut().for_each(Vec::clear);
        for extra in &mut self.extras {
            extra.bytes.clear();
            extra.names.clear();
        }
        self.texts.clear();
        for stream in [&mut self.runs, &mut self.met, &mut self.whole] {
            stream.clear();
        }
        (self.documents, self.discarded, self.run, self.missed) = (0, 0, 0, 0);
        self.make_columns();
    }

    /// Creates the columns of every field.
    fn make_columns(&mut self) {
        let fields = self.fields.list.len();
        self.texts.resize(fields, 0);
        if self.values.len() < fields {
            self.values.resize_with(fields, Vec::new);
            self.extras.resize_with(fields, Extra::default);
        }
    }

    fn has_nul_within_text(&self) -> bool {
        let strange = |((field, column), &texts): ((&Field, &Vec<u8>), &u32)| {
            field.form == Form::Text && column.iter().filter(|&&byte| byte == 0).count() != texts as usize
        };
        self.fields.list.iter().zip(&self.values).zip(&self.texts).any(strange)
    }

    fn pass(&mut self, data: &[u8]) -> bool {
        self.reset();
        let (mut at, mut judgement) = (0, FIRST_JUDGEMENT);
        while let Some(length) = u32_at(data, at).map(|length| length as usize) {
            if length < 5 || length > data.len() - at {
                break;
            }
            let end = at + length;
            self.documents += 1;
            let mut open = Open { end, field: ROOT, position: 0, array: false };
            self.stack.clear();
            if self.document(data, at + 4, &mut open).is_none() {
                self.stack.push(open);
                self.give_up(&data[at..end]);
                // A reader has the same limit.
                if self.discarded > end / 4 + 64 * 1024 {
                    return false;
                }
            }
            at = end;
            if at >= judgement {
                judgement = at.saturating_mul(2);
                if !self.is_worth_it(at) {
                    return false;
                }
            }
        }
        self.whole.extend_from_slice(&data[at..]);
        self.documents > 0 && self.discarded <= data.len() / 4
    }

    /// Whether documents of this many bytes are similar enough for columns to be fast.
    fn is_worth_it(&self, bytes: usize) -> bool {
        self.fields.list.len() <= MOST_FIELDS && self.missed * BYTES_OF_ONE_MISSED <= bytes
    }

    /// Keeps a document unchanged. Its values stay in the columns. Its open arrays get one element
    /// more than they had, so that a reader finds the end of the document within them.
    fn give_up(&mut self, document: &[u8]) {
        self.miss(ABORT);
        self.whole.extend_from_slice(document);
        while let Some(open) = self.stack.pop() {
            if open.array {
                put_varint(&mut self.values[open.field as usize], open.position + 1);
            }
        }
        self.discarded += document.len();
    }

    #[inline]
    fn miss(&mut self, met: u32) {
        put_varint(&mut self.runs, self.run);
        put_varint(&mut self.met, met);
        self.missed += 1;
        self.run = 0;
    }

    /// Records which field was found where `slot` expected one.
    #[inline]
    fn note(&mut self, hit: bool, slot: usize, met: u32) {
        if hit {
            self.run += 1;
        } else {
            self.miss(met);
            self.fields.list[slot >> 1].expected[slot & 1] = met;
        }
    }

    /// Walks one document. `None` if it cannot be kept in columns.
    #[inline(always)]
    fn document(&mut self, data: &[u8], mut at: usize, open: &mut Open) -> Option<()> {
        // Twice the field, plus 1 for the first one within it.
        let mut slot = 2 * ROOT as usize + 1;
        loop {
            let header = wide_word(data, at);
            let mut id = self.fields.list[slot >> 1].expected[slot & 1];
            if header as u8 == 0 {
                if at + 1 != open.end {
                    return None;
                }
                if open.array {
                    put_varint(&mut self.values[open.field as usize], open.position);
                } else {
                    self.note(id == END, slot, END);
                }
                at += 1;
                slot = 2 * open.field as usize;
                self.fields.list[open.field as usize].closed = true;
                match self.stack.pop() {
                    Some(parent) => *open = parent,
                    None => return Some(()),
                }
                continue;
            }
            let (hit, value) = match self.expect(data, at, header, id, open) {
                Some(value) => (true, value),
                None => {
                    let place = Place { container: open.field, end: open.end, array: open.array, position: open.position };
                    id = self.fields.resolve(data, at, place)?;
                    self.make_columns();
                    (false, at + 2 + nul(data.get(at + 1..open.end)?)?)
                }
            };
            let field = &self.fields.list[id as usize];
            let form = field.form;
            let wild = field.flags == WILD;
            if form.holds_elements() {
                let length = u32_at(data, value)? as usize;
                let possible = length >= 5 && length <= data.len() && value + length < open.end;
                if !possible || self.stack.len() >= MAX_DEPTH {
                    return None;
                }
                if wild {
                    self.extras[id as usize].names.extend_from_slice(&data[at + 1..value]);
                }
                self.note(hit, slot, id);
                open.position += 1;
                self.stack.push(*open);
                *open = Open { end: value + length, field: id, position: 0, array: form == Form::Array };
                at = value + 4;
                slot = 2 * id as usize + 1;
                continue;
            }
            // A value ends before the last byte of its container.
            let next = self.value(data, value, open.end - 1, id, form)?;
            if wild {
                self.extras[id as usize].names.extend_from_slice(&data[at + 1..value]);
            }
            self.note(hit, slot, id);
            open.position += 1;
            slot = 2 * id as usize;
            at = next;
        }
    }

    /// The position of the element's value, if it belongs to the expected field.
    #[inline]
    fn expect(&self, data: &[u8], at: usize, header: u128, id: u32, open: &Open) -> Option<usize> {
        if id <= ROOT {
            return None;
        }
        let field = &self.fields.list[id as usize];
        let value = if open.array {
            let (key, length) = position_key(open.position);
            let differs = header as u8 != field.header as u8 || ((header >> 8) as u64 ^ key) & ((1 << (8 * length)) - 1) != 0;
            if differs || open.position > MAX_POSITION {
                return None;
            }
            at + 1 + length as usize
        } else {
            if (header ^ field.header) & field.mask != 0 {
                return None;
            }
            let end = at + field.header_length as usize;
            if field.header_length > 16 && data.get(at..end) != Some(self.fields.header(field)) {
                return None;
            }
            if field.flags == WILD { end + nul(data.get(end..open.end)?)? + 1 } else { end }
        };
        (!field.form.holds_elements() || counts_alike(field, data, value)).then_some(value)
    }

    /// Puts a value into its column, and returns its end. `None` if it exceeds `limit` or cannot be
    /// kept.
    #[inline(always)]
    fn value(&mut self, all: &[u8], at: usize, limit: usize, id: u32, form: Form) -> Option<usize> {
        let data = all.get(..limit)?;
        let column = &mut self.values[id as usize];
        match form {
            Form::Eight => column.extend_from_slice(data.get(at..)?.first_chunk::<8>()?),
            Form::Four => column.extend_from_slice(data.get(at..)?.first_chunk::<4>()?),
            Form::Fixed => {
                let width = width(self.fields.list[id as usize].kind);
                column.extend_from_slice(data.get(at..at + width)?);
                return Some(at + width);
            }
            Form::Text => {
                let length = u32_at(data, at)? as usize;
                let end = at + 4 + length;
                let text = data.get(at + 4..end)?;
                if text.last() != Some(&0) || (self.careful && nul(text) != Some(length - 1)) {
                    return None;
                }
                self.texts[id as usize] += 1;
                match all.get(at + 4..at + 36) {
                    // Copying a fixed number of bytes is faster than copying the right number.
                    Some(wide) if length <= 32 => {
                        let before = column.len();
                        column.extend_from_slice(wide);
                        column.truncate(before + length);
                    }
                    _ => column.extend_from_slice(text),
                }
                return Some(end);
            }
            Form::Regex => {
                let rest = data.get(at..)?;
                let pattern = nul(rest)? + 1;
                let both = pattern + nul(&rest[pattern..])? + 1;
                column.extend_from_slice(&rest[..both]);
                return Some(at + both);
            }
            Form::Binary => {
                let end = at + 5 + u32_at(data, at)? as usize;
                let bytes = data.get(at + 5..end)?;
                column.extend_from_slice(data.get(at..at + 5)?);
                self.extras[id as usize].bytes.extend_from_slice(bytes);
                return Some(end);
            }
            Form::Nothing => return (at <= limit).then_some(at),
            Form::Document | Form::Array => return None,
        }
        Some(at + if form == Form::Eight { 8 } else { 4 })
    }
}
