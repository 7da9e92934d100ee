//! Reads the structure of BSON documents from bytes that may be hostile.
//!
//! Only lengths and types are checked: the text of names and strings may be any bytes. Servers
//! store what clients send, and a backup must carry it. The grammar is that of
//! <https://bsonspec.org/spec.html>.

use bson::{RawBsonRef, RawDocumentBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::format::kind;

/// The largest document that a server sends: 16 MiB for users, plus the 16 KiB it allows itself.
pub const MAX_DOCUMENT: usize = 16 * 1024 * 1024 + 16 * 1024;

/// The maximum nesting depth. Servers stop at 200 levels.
const MAX_DEPTH: usize = 256;

/// One element of a document: type byte, name without its NUL, and the bytes of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    /// The type byte.
    pub kind: u8,
    /// The name, any bytes but NUL.
    pub name: &'a [u8],
    /// The value's bytes in the document.
    pub value: &'a [u8],
}

/// The elements of one document.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    /// The elements of `document`, after checking its length and its end.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if the length or the final NUL is wrong.
    #[inline]
    pub fn of(document: &'a [u8]) -> Result<Self> {
        Ok(Self { rest: inside(document).map_err(Flaw::error)? })
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Element<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (&kind, rest) = self.rest.split_first()?;
        let element = split_element(kind, rest);
        self.rest = match &element {
            Ok((_, rest)) => rest,
            Err(_) => &[],
        };
        Some(element.map(|(element, _)| element).map_err(Flaw::error))
    }
}

/// A problem of a document. It is small, so that checking millions of elements does not move much
/// data.
#[derive(Debug, Clone, Copy)]
enum Flaw {
    Says(&'static str),
    UnknownType(u8),
}

impl Flaw {
    #[cold]
    fn error(self) -> Error {
        match self {
            Self::Says(what) => malformed(what),
            Self::UnknownType(kind) => malformed(&format!("has an element of unknown type 0x{kind:02X}")),
        }
    }
}

/// The bytes of the elements of a document whose length and end are correct.
#[inline]
fn inside(document: &[u8]) -> Result<&[u8], Flaw> {
    let length = first_length(document).ok_or(Flaw::Says("is shorter than five bytes"))?;
    if length < 5 || length != document.len() || document.last() != Some(&0) {
        return Err(Flaw::Says("has a wrong length or no final NUL"));
    }
    Ok(&document[4..length - 1])
}

#[inline]
fn split_element(kind: u8, rest: &[u8]) -> Result<(Element<'_>, &[u8]), Flaw> {
    let (name, rest) = split_cstring(rest)?;
    let (value, rest) = split_value(kind, rest)?;
    Ok((Element { kind, name, value }, rest))
}

#[inline]
fn split_cstring(bytes: &[u8]) -> Result<(&[u8], &[u8]), Flaw> {
    match first_nul(bytes) {
        Some(end) => Ok((&bytes[..end], &bytes[end + 1..])),
        None => Err(Flaw::Says("has a name without an end")),
    }
}

/// The position of the first NUL. Names are short, and processors mispredict the end of a loop over
/// them. So this checks eight bytes at a time. Subtract 1 from each byte: the lowest byte that is 0
/// is the lowest whose high bit is set now and was not before.
#[inline]
fn first_nul(bytes: &[u8]) -> Option<usize> {
    if let Some(eight) = bytes.first_chunk() {
        let word = u64::from_le_bytes(*eight);
        let nuls = word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080;
        if nuls != 0 {
            return Some(nuls.trailing_zeros() as usize / 8);
        }
    }
    bytes.iter().position(|&b| b == 0)
}

const PAST_ITS_END: Flaw = Flaw::Says("has a value that reaches past its end");

#[inline]
fn split_value(kind: u8, rest: &[u8]) -> Result<(&[u8], &[u8]), Flaw> {
    rest.split_at_checked(value_length(kind, rest)?).ok_or(PAST_ITS_END)
}

/// Marks a type whose values have different lengths or are not all valid.
const OTHER: u8 = u8::MAX;

/// The length of a type's values, for types whose values are all valid.
static FIXED_LENGTHS: [u8; 256] = {
    let mut lengths = [OTHER; 256];
    let groups: [(&[u8], u8); 5] = [
        (&[kind::UNDEFINED, kind::NULL, kind::MAX_KEY, kind::MIN_KEY], 0),
        (&[kind::INT32], 4),
        (&[kind::DOUBLE, kind::DATE, kind::TIMESTAMP, kind::INT64], 8),
        (&[kind::OBJECT_ID], 12),
        (&[kind::DECIMAL128], 16),
    ];
    let mut group = 0;
    while group < groups.len() {
        let (kinds, length) = groups[group];
        let mut kind = 0;
        while kind < kinds.len() {
            lengths[kinds[kind] as usize] = length;
            kind += 1;
        }
        group += 1;
    }
    lengths
};

/// The length of the value at the start of `rest`. It may claim more bytes than there are, so the
/// caller must check.
#[inline]
fn value_length(kind: u8, rest: &[u8]) -> Result<usize, Flaw> {
    let int32 = |at: usize| -> Result<usize, Flaw> {
        let bytes = rest.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
        let value = i32::from_le_bytes(bytes.ok_or(Flaw::Says("ends inside a length"))?);
        usize::try_from(value).map_err(|_| Flaw::Says("has a negative length"))
    };
    let fixed = FIXED_LENGTHS[usize::from(kind)];
    if fixed != OTHER {
        return Ok(usize::from(fixed));
    }
    Ok(match kind {
        kind::BOOLEAN => 1,
        kind::STRING | kind::CODE | kind::SYMBOL => match int32(0)? {
            0 => return Err(Flaw::Says("has a string without its NUL")),
            n => 4 + n,
        },
        kind::DB_POINTER => match int32(0)? {
            0 => return Err(Flaw::Says("has a string without its NUL")),
            n => 4 + n + 12,
        },
        kind::BINARY => 4 + 1 + int32(0)?,
        kind::DOCUMENT | kind::ARRAY => match int32(0)? {
            n if n < 5 => return Err(Flaw::Says("has a sub-document shorter than five bytes")),
            n => n,
        },
        kind::SCOPED_CODE => match int32(0)? {
            n if n < 14 => return Err(Flaw::Says("has a code with scope shorter than 14 bytes")),
            n => n,
        },
        kind::REGEX => {
            let (_, options) = split_cstring(rest)?;
            let (_, after) = split_cstring(options)?;
            rest.len() - after.len()
        }
        other => return Err(Flaw::UnknownType(other)),
    })
}

/// The parts of a document's structure that decide whether a server accepts it, and what it
/// changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape<'a> {
    /// The first top-level field called `_id`: its type byte and value.
    pub id: Option<(u8, &'a [u8])>,
    /// Whether that is the very first field.
    pub id_is_first: bool,
    /// The number of top-level fields called `_id`.
    pub ids: usize,
    /// The levels of documents and arrays below the top.
    pub depth: usize,
}

/// Checks the whole structure of one document, including everything inside it.
///
/// # Errors
/// [`ErrorKind::Damaged`] with the reason.
pub fn check(document: &[u8]) -> Result<()> {
    shape(document).map(|_| ())
}

/// Checks the whole structure of one document, as [`check`] does, and returns its shape.
///
/// # Errors
/// [`ErrorKind::Damaged`] with the reason.
pub fn shape(document: &[u8]) -> Result<Shape<'_>> {
    let mut shape = Shape::default();
    check_at(document, 0, &mut shape).map_err(Flaw::error)?;
    Ok(shape)
}

fn check_at<'a>(document: &'a [u8], depth: usize, shape: &mut Shape<'a>) -> Result<(), Flaw> {
    if depth > MAX_DEPTH {
        return Err(Flaw::Says("is nested too deeply"));
    }
    shape.depth = shape.depth.max(depth);
    let mut rest = inside(document)?;
    let all = rest.len();
    while let Some((&kind, after)) = rest.split_first() {
        let is_first = rest.len() == all;
        let (name, after) = split_cstring(after)?;
        if depth == 0 && name == b"_id" {
            shape.ids += 1;
            shape.id_is_first |= is_first;
            shape.id.get_or_insert((kind, split_value(kind, after)?.0));
        }
        let fixed = FIXED_LENGTHS[usize::from(kind)];
        if fixed != OTHER {
            rest = after.get(usize::from(fixed)..).ok_or(PAST_ITS_END)?;
            continue;
        }
        let (value, left) = split_value(kind, after)?;
        rest = left;
        match kind {
            kind::DOCUMENT | kind::ARRAY => check_at(value, depth + 1, shape)?,
            kind::SCOPED_CODE => {
                // int32 total, string (int32 length, bytes, NUL), document
                let code = first_length(&value[4..]).ok_or(Flaw::Says("has a code with scope that ends early"))?;
                let scope = value.get(8 + code..).ok_or(Flaw::Says("has a code with scope that ends early"))?;
                if value[7 + code] != 0 {
                    return Err(Flaw::Says("has a string without its NUL"));
                }
                check_at(scope, depth + 1, shape)?;
            }
            kind::STRING | kind::CODE | kind::SYMBOL if value.last() != Some(&0) => {
                return Err(Flaw::Says("has a string without its NUL"));
            }
            // int32 length, string, NUL, ObjectId
            kind::DB_POINTER if value[value.len() - 13] != 0 => return Err(Flaw::Says("has a string without its NUL")),
            kind::BOOLEAN if value[0] > 1 => return Err(Flaw::Says("has a boolean that is neither 0 nor 1")),
            _ => {}
        }
    }
    Ok(())
}

/// Splits concatenated documents. Lengths are checked, the insides are not.
#[derive(Debug, Clone)]
pub struct Documents<'a> {
    rest: &'a [u8],
}

impl<'a> Documents<'a> {
    /// The documents in `bytes`, which must hold nothing else.
    #[must_use]
    pub fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Documents<'a> {
    type Item = Result<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match first_length(self.rest) {
            Some(length) if (5..=self.rest.len()).contains(&length) && self.rest[length - 1] == 0 => {
                let (document, rest) = self.rest.split_at(length);
                self.rest = rest;
                Some(Ok(document))
            }
            _ => {
                self.rest = &[];
                Some(Err(malformed("has a wrong length or no final NUL")))
            }
        }
    }
}

/// The `_id` of a document: its type byte and value, or `None` if it has none.
///
/// # Errors
/// [`ErrorKind::Damaged`] if the document's structure is broken before an `_id` is found.
pub fn id(document: &[u8]) -> Result<Option<(u8, &[u8])>> {
    for element in Elements::of(document)? {
        let element = element?;
        if element.name == b"_id" {
            return Ok(Some((element.kind, element.value)));
        }
    }
    Ok(None)
}

/// `{_id: {$eq: ID}}` for a document: the query for the document with its `_id`.
///
/// # Errors
/// [`ErrorKind::Refused`] if it has no `_id`; [`ErrorKind::Damaged`] if its structure is broken.
pub fn by_id(document: &[u8]) -> Result<Vec<u8>> {
    let (kind, id) = known_id(document)?;
    let mut equal = Writer::default();
    equal.element(kind, "$eq", id);
    let mut query = Writer::default();
    query.document("_id", &equal.finish());
    Ok(query.finish())
}

/// `{_id: {$in: [ID, ...]}}` for documents: the query for documents with their `_id`s.
///
/// # Errors
/// As for [`by_id`].
pub fn by_ids<'a>(documents: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>> {
    let mut ids = Writer::default();
    for (number, document) in documents.into_iter().enumerate() {
        let (kind, value) = known_id(document)?;
        ids.element(kind, number.to_string(), value);
    }
    let mut within = Writer::default();
    within.element(kind::ARRAY, "$in", &ids.finish());
    let mut query = Writer::default();
    query.document("_id", &within.finish());
    Ok(query.finish())
}

fn known_id(document: &[u8]) -> Result<(u8, &[u8])> {
    id(document)?.ok_or_else(|| Error::new(ErrorKind::Refused, "a document without _id cannot be merged"))
}

/// Whether a server would replace a `Timestamp(0, 0)` by its own time when this document is
/// inserted. It does so in top-level fields, except `_id`.
///
/// # Errors
/// [`ErrorKind::Damaged`] if the document's structure is broken.
pub fn has_empty_timestamp(document: &[u8]) -> Result<bool> {
    for element in Elements::of(document)? {
        let element = element?;
        if element.kind == kind::TIMESTAMP && element.value == [0; 8] && element.name != b"_id" {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a top-level field name begins with `$`.
///
/// # Errors
/// [`ErrorKind::Damaged`] if the document's structure is broken.
pub fn has_operator_names_at_top(document: &[u8]) -> Result<bool> {
    for element in Elements::of(document)? {
        if element?.name.starts_with(b"$") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether any field name in it, at any depth, begins with `$`.
///
/// # Errors
/// [`ErrorKind::Damaged`] if the document's structure is broken.
pub fn has_operator_names(document: &[u8]) -> Result<bool> {
    has_operator_names_at(document, 0)
}

fn has_operator_names_at(document: &[u8], depth: usize) -> Result<bool> {
    if depth > MAX_DEPTH {
        return Err(malformed("is nested too deeply"));
    }
    for element in Elements::of(document)? {
        let element = element?;
        let is_nested = matches!(element.kind, kind::DOCUMENT | kind::ARRAY);
        if element.name.starts_with(b"$") || (is_nested && has_operator_names_at(element.value, depth + 1)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn first_length(bytes: &[u8]) -> Option<usize> {
    let length = i32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
    usize::try_from(length).ok().filter(|&n| n >= 1)
}

fn malformed(what: &str) -> Error {
    Error::damaged(format!("a BSON document {what}"))
}

/// Writes a document element by element, from parts that are bytes already.
#[derive(Debug, Clone)]
pub struct Writer(Vec<u8>);

impl Default for Writer {
    fn default() -> Self {
        Self::with_capacity(64)
    }
}

impl Writer {
    /// An empty document, with room for about this many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(bytes + 5);
        buffer.extend([0; 4]);
        Self(buffer)
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len() == 4
    }

    /// Adds an element with this type byte, name (any bytes but NUL) and value in BSON form.
    pub fn element(&mut self, kind: u8, name: impl AsRef<[u8]>, value: &[u8]) {
        self.0.push(kind);
        self.0.extend(name.as_ref());
        self.0.push(0);
        self.0.extend(value);
    }

    /// The same, for chaining.
    #[must_use]
    pub fn with(mut self, kind: u8, name: impl AsRef<[u8]>, value: &[u8]) -> Self {
        self.element(kind, name, value);
        self
    }

    /// Adds all elements of a document.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if its structure is broken.
    pub fn extend(&mut self, document: &[u8]) -> Result<()> {
        self.extend_without(document, |_| false)
    }

    /// Adds the elements of a document, except those for whose name this returns true.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if its structure is broken.
    pub fn extend_without(&mut self, document: &[u8], is_left_out: impl Fn(&[u8]) -> bool) -> Result<()> {
        for element in Elements::of(document)? {
            let Element { kind, name, value } = element?;
            if !is_left_out(name) {
                self.element(kind, name, value);
            }
        }
        Ok(())
    }

    /// Adds a string.
    pub fn string(&mut self, name: &str, value: &str) {
        self.element(kind::STRING, name, &string_value(value));
    }

    /// Adds a boolean.
    pub fn bool(&mut self, name: &str, value: bool) {
        self.element(kind::BOOLEAN, name, &[u8::from(value)]);
    }

    /// Adds a UUID: binary data of subtype 4.
    pub fn uuid(&mut self, name: &str, uuid: &[u8; 16]) {
        self.element(kind::BINARY, name, &[16, 0, 0, 0, 4]);
        self.0.extend(uuid);
    }

    /// Adds binary data of the generic subtype.
    pub fn binary(&mut self, name: &str, bytes: &[u8]) {
        let length = bytes.len() as u32;
        self.element(kind::BINARY, name, &length.to_le_bytes());
        self.0.push(0);
        self.0.extend(bytes);
    }

    /// Adds a sub-document.
    pub fn document(&mut self, name: impl AsRef<[u8]>, document: &[u8]) {
        self.element(kind::DOCUMENT, name, document);
    }

    /// Adds an array of documents.
    pub fn documents(&mut self, name: &str, documents: impl IntoIterator<Item = impl AsRef<[u8]>>) {
        self.element(kind::ARRAY, name, &[]);
        let start = self.0.len();
        self.0.extend([0; 4]);
        for (number, document) in documents.into_iter().enumerate() {
            self.document(number.to_string(), document.as_ref());
        }
        self.close(start);
    }

    /// The document's bytes.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.close(0);
        self.0
    }

    /// The document as the bson crate holds it.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the added parts do not form a document.
    pub fn raw(self) -> Result<RawDocumentBuf> {
        RawDocumentBuf::from_bytes(self.finish())
            .map_err(|e| Error::new(ErrorKind::Internal, "a document was put together incorrectly").cause(e))
    }

    fn close(&mut self, start: usize) {
        self.0.push(0);
        // Everything written here stays below 48 MB: lengths fit.
        let length = (self.0.len() - start) as u32;
        self.0[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// A document or an array with some values replaced by others of the same type.
///
/// # Errors
/// [`ErrorKind::Damaged`] if its structure is broken; those of `other`.
pub fn replaced(document: &[u8], mut other: impl FnMut(Element<'_>) -> Result<Option<Vec<u8>>>) -> Result<Vec<u8>> {
    let mut replaced = Writer::with_capacity(document.len());
    for element in Elements::of(document)? {
        let element = element?;
        replaced.element(element.kind, element.name, other(element)?.as_deref().unwrap_or(element.value));
    }
    Ok(replaced.finish())
}

/// The bytes of a string as a value.
#[must_use]
pub fn string_value(text: &str) -> Vec<u8> {
    let length = text.len() as u32 + 1;
    [&length.to_le_bytes(), text.as_bytes(), &[0]].concat()
}

/// Whether a value means true: old servers and tools also write Booleans as numbers.
#[must_use]
pub fn is_true(value: RawBsonRef<'_>) -> bool {
    match value {
        RawBsonRef::Boolean(truth) => truth,
        RawBsonRef::Int32(number) => number != 0,
        RawBsonRef::Int64(number) => number != 0,
        RawBsonRef::Double(number) => number != 0.0,
        _ => false,
    }
}

/// The name of a BSON type in messages.
#[must_use]
pub fn type_name(kind: u8) -> &'static str {
    match kind {
        kind::DOUBLE => "double",
        kind::STRING => "string",
        kind::DOCUMENT => "document",
        kind::ARRAY => "array",
        kind::BINARY => "binary",
        kind::UNDEFINED => "undefined",
        kind::OBJECT_ID => "ObjectId",
        kind::BOOLEAN => "boolean",
        kind::DATE => "date",
        kind::NULL => "null",
        kind::REGEX => "regular expression",
        kind::DB_POINTER => "DBPointer",
        kind::CODE => "code",
        kind::SYMBOL => "symbol",
        kind::SCOPED_CODE => "code with scope",
        kind::INT32 => "int32",
        kind::TIMESTAMP => "timestamp",
        kind::INT64 => "int64",
        kind::DECIMAL128 => "decimal128",
        kind::MIN_KEY => "MinKey",
        kind::MAX_KEY => "MaxKey",
        _ => "unknown type",
    }
}
