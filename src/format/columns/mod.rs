//! Frames in columns: the values of each field of a frame's documents are stored together, and zstd
//! compresses what benefits. `FORMAT.md` has the layout, section "Columns". Nothing is lost: what
//! does not fit is stored unchanged, and a frame that gains nothing becomes an ordinary zstd frame.
//!
//! [`split`] walks the documents. [`column`] and the files of its layouts write and read one
//! column. [`sections`] compresses, and [`join`] restores the documents.

mod bytes;
mod column;
mod decimal;
mod dictionary;
mod fields;
mod form;
mod join;
mod layout;
mod object_ids;
mod planes;
mod sections;
mod split;
#[cfg(test)]
mod tests;
mod texts;

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_64;

use self::bytes::{Damaged, Read, Reader, put_varint};
use self::fields::{ROOT, WILD};
use self::form::{Form, width};
use self::join::{Columns, Definitions, Streams, join};
use self::layout::{Source, Writer};
use self::sections::{Holds, Packer, Unpacker};
use self::split::Split;
use super::compression::Compression;
use crate::error::{Error, Result};

/// The start of a frame of columns. No zstd frame or skippable frame begins like this: `zstd -d`
/// refuses it.
pub(super) const MAGIC: [u8; 4] = *b"bvC\x01";

/// The smallest document.
const SMALLEST_DOCUMENT: usize = 5;
const CHECKSUM: usize = 8;

/// The width of the headers in columns of binary values: length and subtype.
const BINARY_HEADER: usize = 5;

/// Whether this is a frame of columns.
pub(super) fn is_one(frame: &[u8]) -> bool {
    frame.starts_with(&MAGIC)
}

/// Encodes frames. It is kept between frames, because its working memory is large.
pub(super) struct Encoder {
    split: Split,
    columns: Writer,
    packer: Packer,
    /// Whether compression is off, so that tests and fuzzing reach what zstd would hide.
    #[cfg(any(test, fuzzing))]
    bare: bool,
}

impl Encoder {
    pub(super) fn new(how: Compression) -> Result<Self> {
        Ok(Self {
            split: Split::default(),
            columns: Writer::default(),
            packer: Packer::new(how)?,
            #[cfg(any(test, fuzzing))]
            bare: cfg!(fuzzing),
        })
    }

    /// One frame with `documents`. `None` if columns do not fit them or gain nothing: then use a
    /// zstd frame instead.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) if zstd fails.
    pub(super) fn encode(&mut self, documents: &[u8]) -> Result<Option<Vec<u8>>> {
        if !self.split.split(documents) {
            return Ok(None);
        }
        self.write_columns();
        let (split, columns) = (&self.split, &self.columns);
        let streams = [&columns.text, &columns.words, &columns.numbers, &columns.stored, &split.whole];
        if streams.into_iter().map(Vec::len).sum::<usize>() > 2 * documents.len() {
            return Ok(None);
        }
        let mut structure = Vec::new();
        let parts = [&split.fields.definitions, &split.runs, &split.met, &columns.directory, &columns.words];
        parts.iter().for_each(|part| put_varint(&mut structure, part.len() as u32));
        parts.iter().for_each(|part| structure.extend_from_slice(part));

        let mut frame = Vec::with_capacity(documents.len() / 2);
        frame.extend(MAGIC);
        put_varint(&mut frame, documents.len() as u32);
        put_varint(&mut frame, split.documents);
        for (bytes, holds) in [
            (&structure, Holds::Text),
            (&columns.text, Holds::Text),
            (&columns.numbers, Holds::Numbers),
            (&split.whole, Holds::Numbers),
            (&columns.stored, Holds::Noise),
        ] {
            #[cfg(any(test, fuzzing))]
            let holds = if self.bare { Holds::Noise } else { holds };
            self.packer.put(bytes, holds, &mut frame)?;
        }
        frame.extend(xxh3_64(documents).to_le_bytes());
        Ok(Some(frame))
    }

    /// Frees memory if it holds more than this.
    pub(super) fn keep_at_most(&mut self, bytes: usize) {
        self.split.keep_at_most(bytes);
        self.columns.keep_at_most(bytes);
        self.packer.keep_at_most(bytes);
    }

    fn write_columns(&mut self) {
        let (split, to) = (&self.split, &mut self.columns);
        to.reset();
        let fields = split.fields.list.iter().zip(&split.values).zip(&split.extras);
        for ((field, values), extra) in fields.skip(1 + ROOT as usize) {
            if field.flags == WILD {
                put_varint(&mut to.directory, extra.names.len() as u32);
                to.text.extend_from_slice(&extra.names);
            }
            match field.form {
                Form::Eight | Form::Four | Form::Fixed => {
                    let width = width(field.kind);
                    put_varint(&mut to.directory, (values.len() / width) as u32);
                    to.column(values, width, field.kind);
                }
                Form::Text | Form::Regex => to.texts(values),
                Form::Binary => {
                    put_varint(&mut to.directory, (values.len() / BINARY_HEADER) as u32);
                    to.column(values, BINARY_HEADER, 0);
                    let noise = is_noise(&extra.bytes);
                    put_varint(&mut to.directory, extra.bytes.len() as u32);
                    to.directory.push(u8::from(noise));
                    if noise { &mut to.stored } else { &mut to.text }.extend_from_slice(&extra.bytes);
                }
                Form::Array => {
                    put_varint(&mut to.directory, values.len() as u32);
                    to.column(values, 1, 0);
                }
                Form::Nothing | Form::Document => {}
            }
        }
    }
}

/// Whether bytes look like noise, which zstd cannot compress; decided from samples.
fn is_noise(bytes: &[u8]) -> bool {
    const PIECE: usize = 64;
    if bytes.len() < 2048 {
        return false;
    }
    let pieces = bytes.len().min(4096) / PIECE;
    let mut counts = [0; 256];
    for piece in bytes.chunks(bytes.len() / pieces).take(pieces) {
        piece.iter().take(PIECE).for_each(|&byte| counts[usize::from(byte)] += 1);
    }
    let sample = (pieces * PIECE) as u64;
    planes::pairs(&counts) * 100 < sample * (sample - 1) / 256 * 115
}

/// Decodes frames; kept between frames.
pub(super) struct Decoder {
    unpacker: Unpacker,
    sections: [Vec<u8>; 5],
}

impl Decoder {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { unpacker: Unpacker::new()?, sections: Default::default() })
    }

    /// The documents of a frame, which must have `raw_length` bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if it is not a whole frame of
    /// columns of documents of this length, or fails its checksum.
    pub(super) fn decode(&mut self, frame: &[u8], raw_length: usize) -> Result<Vec<u8>> {
        let damaged = |Damaged(why): Damaged| Error::damaged(format!("a frame of columns cannot be read: {why}"));
        let (rest, sum) = frame.split_last_chunk::<CHECKSUM>().ok_or_else(|| damaged(Damaged("it is too short")))?;
        let documents = self.decode_unchecked(rest, raw_length).map_err(damaged)?;
        if xxh3_64(&documents) != u64::from_le_bytes(*sum) && !cfg!(fuzzing) {
            return Err(damaged(Damaged("its documents do not match its checksum")));
        }
        Ok(documents)
    }

    /// The length of the documents that a frame claims to hold.
    pub(super) fn claimed(frame: &[u8]) -> Option<usize> {
        Reader(frame.strip_prefix(&MAGIC)?).count().ok()
    }

    /// The documents of a frame, given without its checksum.
    fn decode_unchecked(&mut self, frame: &[u8], raw_length: usize) -> Read<Vec<u8>> {
        let mut from = Reader(frame.strip_prefix(&MAGIC).ok_or(Damaged("it does not begin as one"))?);
        if from.count()? != raw_length {
            return Err(Damaged("it says that it holds another number of bytes"));
        }
        let documents = from.varint()?;
        if documents as usize > raw_length / SMALLEST_DOCUMENT {
            return Err(Damaged("it says that it holds more documents than it can"));
        }
        // Limits the unpacked data, and the data made from it before the documents are joined.
        let most = raw_length * 4 + 1024 * 1024;
        let mut room = most;
        for section in &mut self.sections {
            self.unpacker.take(&mut from, &mut room, section)?;
        }
        if !from.0.is_empty() {
            return Err(Damaged("it does not end where the table says"));
        }
        let [structure, text, numbers, whole, stored] = self.sections.each_ref().map(|section| Reader(section));
        let [definitions, runs, met, directory, words] = parts(structure)?;
        let fields = Definitions::read(definitions)?;
        let mut source = Source { directory, words, text, numbers, stored, room: most };
        let columns = read_columns(&fields, &mut source)?;
        let columns = columns
            .iter()
            .map(|(values, bytes, names)| Columns { values: Reader(values), bytes: Reader(bytes), names: Reader(names) })
            .collect();
        join(Streams { fields: &fields, runs, met, whole, documents, columns }, raw_length)
    }

    /// Frees memory if it holds more than this.
    pub(super) fn keep_at_most(&mut self, bytes: usize) {
        if self.sections.iter().map(Vec::capacity).sum::<usize>() > bytes {
            self.sections = Default::default();
        }
    }
}

/// The five parts of the structure section.
fn parts(mut structure: Reader) -> Read<[Reader; 5]> {
    let mut lengths = [0; 5];
    for length in &mut lengths {
        *length = structure.count()?;
    }
    let mut parts = [Reader::default(); 5];
    for (part, length) in parts.iter_mut().zip(lengths) {
        *part = Reader(structure.take(length)?);
    }
    Ok(parts)
}

/// By field: values, bytes, names.
type ReadColumns<'a> = Vec<(Cow<'a, [u8]>, &'a [u8], &'a [u8])>;

fn read_columns<'a>(fields: &Definitions, from: &mut Source<'a>) -> Read<ReadColumns<'a>> {
    let mut columns = ReadColumns::with_capacity(fields.list.len());
    columns.resize_with(1 + ROOT as usize, Default::default);
    for field in &fields.list[1 + ROOT as usize..] {
        let names = if field.flags == WILD { from.directory.count().and_then(|n| from.text.take(n))? } else { &[] };
        let (mut values, mut bytes) = (Cow::default(), Default::default());
        match field.form {
            Form::Eight | Form::Four | Form::Fixed => {
                let count = from.directory.count()?;
                values = from.column(count, width(field.kind))?;
            }
            Form::Text | Form::Regex => values = from.texts()?,
            Form::Binary => {
                let count = from.directory.count()?;
                values = from.column(count, BINARY_HEADER)?;
                let count = from.directory.count()?;
                bytes = match from.directory.byte()? {
                    0 => from.text.take(count)?,
                    1 => from.stored.take(count)?,
                    _ => return Err(Damaged("binary values in it are in no known stream")),
                };
            }
            Form::Array => {
                let count = from.directory.count()?;
                values = from.column(count, 1)?;
            }
            Form::Nothing | Form::Document => {}
        }
        columns.push((values, bytes, names));
    }
    Ok(columns)
}
