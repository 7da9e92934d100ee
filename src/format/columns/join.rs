//! Joins columns into documents. Every byte may be hostile: the output is limited to the requested
//! length.

use super::bytes::{Damaged, MAX_POSITION, Read, Reader, position_key, u32_at};
use super::fields::{ABORT, END, MAX_FIELDS, NAMED, NUMBERED, ROOT, WILD};
use super::form::{Form, bson_type, form, width};
use super::split::MAX_DEPTH;
use crate::format::kind;

/// A field as defined in a frame.
#[derive(Debug)]
pub(super) struct Defined {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) form: Form,
    /// Type, name and NUL: their length, the first sixteen bytes, and their position.
    header_length: u32,
    header: [u8; 16],
    at: u32,
}

/// The fields of a frame, starting with the three predefined ones.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    pub(super) list: Vec<Defined>,
    names: Vec<u8>,
}

impl Definitions {
    /// Parses the definitions.
    pub(super) fn read(mut from: Reader) -> Read<Self> {
        let mut all = Self::default();
        for _ in 0..=ROOT {
            all.list.push(Defined {
                kind: kind::DOCUMENT,
                flags: NAMED,
                form: Form::Document,
                header_length: 0,
                header: [0; 16],
                at: 0,
            });
        }
        while !from.0.is_empty() {
            if all.list.len() >= MAX_FIELDS {
                return Err(Damaged("it defines more fields than are allowed"));
            }
            let [kind, flags] = from.array()?;
            let form = form(kind).ok_or(Damaged("it defines a field of an unknown type"))?;
            let at = all.names.len();
            all.names.push(bson_type(kind));
            match flags {
                NAMED => all.names.extend_from_slice(from.text()?),
                WILD | NUMBERED => {}
                _ => return Err(Damaged("it defines a field with unknown flags")),
            }
            let name = &all.names[at..];
            let mut header = [0; 16];
            let start = name.len().min(16);
            header[..start].copy_from_slice(&name[..start]);
            all.list.push(Defined { kind, flags, form, header_length: name.len() as u32, header, at: at as u32 });
        }
        Ok(all)
    }
}

/// The columns of one field.
#[derive(Debug, Default)]
pub(super) struct Columns<'a> {
    pub(super) values: Reader<'a>,
    pub(super) bytes: Reader<'a>,
    pub(super) names: Reader<'a>,
}

/// The streams to join. Whoever unpacked them has limited their size.
#[derive(Debug)]
pub(super) struct Streams<'a> {
    pub(super) fields: &'a Definitions,
    pub(super) runs: Reader<'a>,
    pub(super) met: Reader<'a>,
    pub(super) whole: Reader<'a>,
    pub(super) documents: u32,
    /// By field.
    pub(super) columns: Vec<Columns<'a>>,
}

struct Open {
    at: usize,
    field: u32,
    position: u32,
    count: u32,
    array: bool,
}

/// Extra room in the output, so that short pieces are copied at a fixed size.
const SLACK: usize = 16;

struct Output {
    bytes: Vec<u8>,
    at: usize,
    length: usize,
}

const TOO_LONG: Damaged = Damaged("its documents are longer than it says");

impl Output {
    fn room(&self, needed: usize) -> Read<()> {
        if needed > self.length - self.at { Err(TOO_LONG) } else { Ok(()) }
    }

    #[inline]
    fn put<const N: usize>(&mut self, bytes: &[u8; N]) -> Read<()> {
        self.room(N)?;
        self.bytes[self.at..self.at + N].copy_from_slice(bytes);
        self.at += N;
        Ok(())
    }

    /// Writes the first `length` of these bytes.
    #[inline]
    fn put_start(&mut self, bytes: &[u8; 16], length: usize) -> Read<()> {
        self.room(length)?;
        self.bytes[self.at..self.at + 16].copy_from_slice(bytes);
        self.at += length;
        Ok(())
    }

    #[inline]
    fn put_slice(&mut self, bytes: &[u8]) -> Read<()> {
        self.room(bytes.len())?;
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
        Ok(())
    }
}

/// Determines which field comes next.
struct Events<'a> {
    runs: Reader<'a>,
    met: Reader<'a>,
    /// How many expectations still hold.
    run: u64,
    /// By field: the one expected after it, and the first expected within it.
    expected: Vec<u32>,
}

impl<'a> Events<'a> {
    fn new(runs: Reader<'a>, met: Reader<'a>, fields: usize) -> Read<Self> {
        let expected = (0..fields as u32).flat_map(|field| [field, END]).collect();
        let mut events = Self { runs, met, run: 0, expected };
        events.start_run()?;
        Ok(events)
    }

    /// Begins the next run. If there are no more, every expectation holds.
    fn start_run(&mut self) -> Read<()> {
        self.run = if self.runs.0.is_empty() { u64::MAX } else { u64::from(self.runs.varint()?) };
        Ok(())
    }

    #[inline]
    fn next(&mut self, slot: usize) -> Read<u32> {
        if self.run > 0 {
            self.run -= 1;
            return Ok(self.expected[slot]);
        }
        let met = self.met.varint()?;
        self.start_run()?;
        if met != ABORT {
            self.expected[slot] = met;
        }
        Ok(met)
    }
}

/// Restores the documents, exactly `length` bytes.
pub(super) fn join(mut from: Streams, length: usize) -> Read<Vec<u8>> {
    let mut out = Output { bytes: vec![0; length + SLACK], at: 0, length };
    let mut events = Events::new(from.runs, from.met, from.fields.list.len())?;
    let mut stack: Vec<Open> = Vec::with_capacity(MAX_DEPTH);
    // Given-up documents cost work and produce nothing, so they are limited.
    let mut discarded = length / 4 + 64 * 1024;
    for _ in 0..from.documents {
        let start = out.at;
        let mut open = Open { at: start, field: ROOT, position: 0, count: 0, array: false };
        stack.clear();
        out.put(&[0; 4])?;
        let mut slot = 2 * ROOT as usize + 1;
        loop {
            let id = if open.array && open.position == open.count { END } else { events.next(slot)? };
            if id == ABORT {
                discarded = discarded.checked_sub(out.at - start).ok_or(Damaged("it gives up too many documents"))?;
                out.at = start;
                let whole = u32_at(from.whole.0, 0).filter(|&n| n >= 5).ok_or(Damaged("a document it keeps whole is missing"))?;
                out.put_slice(from.whole.take(whole as usize)?)?;
                break;
            }
            if id == END {
                if open.array && open.position != open.count {
                    return Err(Damaged("an array in it ends early"));
                }
                out.put(&[0])?;
                let length = (out.at - open.at) as u32;
                out.bytes[open.at..open.at + 4].copy_from_slice(&length.to_le_bytes());
                slot = 2 * open.field as usize;
                match stack.pop() {
                    Some(parent) => open = parent,
                    None => break,
                }
                continue;
            }
            let unknown = Damaged("it names a field that it does not define");
            let field = from.fields.list.get(id as usize).filter(|_| id > ROOT).ok_or(unknown)?;
            let columns = from.columns.get_mut(id as usize).ok_or(unknown)?;
            if (field.flags == NUMBERED) != open.array {
                return Err(Damaged("an element in it is not of its container"));
            }
            if open.array {
                if open.position > MAX_POSITION {
                    return Err(Damaged("an array in it is too long"));
                }
                let (key, length) = position_key(open.position);
                let header = u128::from(key) << 8 | u128::from(field.header[0]);
                out.put_start(&header.to_le_bytes(), length as usize + 1)?;
            } else if field.flags == WILD {
                out.put(&[field.header[0]])?;
                out.put_slice(columns.names.text()?)?;
            } else if field.header_length <= 16 {
                out.put_start(&field.header, field.header_length as usize)?;
            } else {
                out.put_slice(&from.fields.names[field.at as usize..(field.at + field.header_length) as usize])?;
            }
            open.position += 1;
            slot = 2 * id as usize;
            match field.form {
                Form::Document | Form::Array => {
                    if stack.len() >= MAX_DEPTH {
                        return Err(Damaged("its documents are too deep"));
                    }
                    let array = field.form == Form::Array;
                    let count = if array { columns.values.varint()? } else { 0 };
                    stack.push(open);
                    open = Open { at: out.at, field: id, position: 0, count, array };
                    out.put(&[0; 4])?;
                    slot += 1;
                }
                _ => put_value(&mut out, field, columns)?,
            }
        }
    }
    out.put_slice(from.whole.0)?;
    if out.at != length {
        return Err(Damaged("its documents are shorter than it says"));
    }
    out.bytes.truncate(length);
    Ok(out.bytes)
}

#[inline(always)]
fn put_value(out: &mut Output, field: &Defined, columns: &mut Columns) -> Read<()> {
    let values = &mut columns.values;
    match field.form {
        Form::Eight => out.put(&values.array::<8>()?),
        Form::Four => out.put(&values.array::<4>()?),
        // Copying a fixed number of bytes is faster.
        Form::Fixed if field.kind == kind::OBJECT_ID => out.put(&values.array::<12>()?),
        Form::Fixed => out.put_slice(values.take(width(field.kind))?),
        Form::Text => {
            let text = values.text()?;
            out.put(&(text.len() as u32).to_le_bytes())?;
            out.put_slice(text)
        }
        Form::Regex => {
            out.put_slice(values.text()?)?;
            out.put_slice(values.text()?)
        }
        Form::Binary => {
            let header = values.array::<5>()?;
            let [a, b, c, d, _] = header;
            out.put(&header)?;
            out.put_slice(columns.bytes.take(u32::from_le_bytes([a, b, c, d]) as usize)?)
        }
        Form::Nothing | Form::Document | Form::Array => Ok(()),
    }
}
