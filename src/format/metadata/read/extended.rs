//! Converts Extended JSON to BSON, byte by byte, both versions:
//! <https://github.com/mongodb/specifications/blob/master/source/extended-json.md>.
//!
//! A BSON value that JSON does not have is an object with certain keys, a wrapper. Documents of
//! queries and pipelines also have keys that begin with `$`. So an object is a wrapper only if it
//! has exactly the wrapper's keys, with values of their types.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bson::oid::ObjectId;
use bson::{Decimal128, RawDocumentBuf};
use uuid::Uuid;

use super::json::{Json, Member, is_number, shown};
use crate::format::document::MAX_DOCUMENT;
use crate::format::kind;

/// The version of Extended JSON in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Era {
    /// Version 1, in which `{"$regex", "$options"}` and `{"$binary", "$type"}` are values.
    Legacy,
    /// Version 2, in which they are documents.
    Modern,
}

impl Era {
    /// Modern if it has a wrapper that only version 2 knows.
    pub(super) fn of(json: &Json<'_>) -> Self {
        if is_modern(json) { Self::Modern } else { Self::Legacy }
    }
}

fn is_modern(json: &Json<'_>) -> bool {
    match json {
        Json::Array(values) => values.iter().any(is_modern),
        Json::Object(members) => {
            let wrapper = matches!(
                members.as_slice(),
                [(key, value)] if match (key.as_ref(), value) {
                    ("$numberInt" | "$numberDouble" | "$symbol" | "$uuid", Json::String(_)) => true,
                    ("$regularExpression", Json::Object(body)) => strings(body, ["pattern", "options"]).is_some(),
                    ("$binary", Json::Object(body)) => strings(body, ["base64", "subType"]).is_some(),
                    ("$date", Json::Object(body)) => strings(body, ["$numberLong"]).is_some(),
                    ("$dbPointer", Json::Object(body)) => pair(body, ["$ref", "$id"]).is_some(),
                    _ => false,
                }
            );
            wrapper || members.iter().any(|(_, value)| is_modern(value))
        }
        _ => false,
    }
}

/// A problem, and the path to it.
#[derive(Debug)]
pub(super) struct Fault {
    /// Innermost first.
    steps: Vec<Step>,
    what: String,
}

#[derive(Debug)]
enum Step {
    Key(String),
    Index(usize),
}

impl Fault {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { steps: Vec::new(), what: what.into() }
    }

    pub(super) fn within_key(mut self, key: &str) -> Self {
        self.steps.push(Step::Key(shown(key).into_owned()));
        self
    }

    pub(super) fn within_index(mut self, index: usize) -> Self {
        self.steps.push(Step::Index(index));
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("at ")?;
        for (number, step) in self.steps.iter().rev().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if number == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
            }
        }
        write!(f, ": {}", self.what)
    }
}

type Result<T> = std::result::Result<T, Fault>;

/// The document with these members, which are not a wrapper themselves.
pub(super) fn document(members: &[Member<'_>], era: Era) -> Result<RawDocumentBuf> {
    let mut encoder = Encoder { out: Vec::new(), era };
    encoder.document(members)?;
    RawDocumentBuf::from_bytes(encoder.out).map_err(|e| Fault::new(e.to_string()))
}

struct Encoder {
    out: Vec<u8>,
    era: Era,
}

impl Encoder {
    fn document(&mut self, members: &[Member<'_>]) -> Result<()> {
        let start = self.begin();
        for (name, value) in members {
            self.element(name, value).map_err(|fault| fault.within_key(name))?;
        }
        self.end(start)
    }

    fn array(&mut self, values: &[Json<'_>]) -> Result<()> {
        let start = self.begin();
        for (index, value) in values.iter().enumerate() {
            self.element(&index.to_string(), value).map_err(|fault| fault.within_index(index))?;
        }
        self.end(start)
    }

    fn begin(&mut self) -> usize {
        self.out.extend([0; 4]);
        self.out.len() - 4
    }

    fn end(&mut self, start: usize) -> Result<()> {
        self.out.push(0);
        self.set_length(start)
    }

    /// Writes the length of everything since `start` to that position.
    fn set_length(&mut self, start: usize) -> Result<()> {
        let length = self.length(self.out.len() - start)?;
        self.out[start..start + 4].copy_from_slice(&length);
        Ok(())
    }

    /// A length, unless the value is longer than a document may be.
    fn length(&self, length: usize) -> Result<[u8; 4]> {
        match i32::try_from(length) {
            Ok(short) if self.out.len().max(length) <= MAX_DOCUMENT => Ok(short.to_le_bytes()),
            _ => Err(Fault::new(format!("it makes a document longer than {MAX_DOCUMENT} bytes"))),
        }
    }

    fn element(&mut self, name: &str, value: &Json<'_>) -> Result<()> {
        let kind = self.out.len();
        self.out.push(0);
        self.cstring(name)?;
        self.out[kind] = self.value(value)?;
        self.length(0).map(|_| ())
    }

    fn cstring(&mut self, text: &str) -> Result<()> {
        if text.contains('\0') {
            return Err(Fault::new("it has a NUL where BSON allows none"));
        }
        self.out.extend(text.as_bytes());
        self.out.push(0);
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<()> {
        let length = self.length(text.len() + 1)?;
        self.out.extend(length);
        self.out.extend(text.as_bytes());
        self.out.push(0);
        Ok(())
    }

    fn binary(&mut self, subtype: &str, base64: &str) -> Result<u8> {
        let bytes = STANDARD.decode(base64).map_err(|e| Fault::new(format!("the binary value is not base64: {e}")))?;
        let number = (1..=2).contains(&subtype.len()) && subtype.bytes().all(|b| b.is_ascii_hexdigit());
        let number = number.then(|| u8::from_str_radix(subtype, 16).ok()).flatten();
        let number = number.ok_or_else(|| Fault::new(format!("{:?} is not a subtype of a binary value", shown(subtype))))?;
        self.bytes(number, &bytes)
    }

    fn bytes(&mut self, subtype: u8, bytes: &[u8]) -> Result<u8> {
        // The old subtype has its own length inside.
        if subtype == 0x02 {
            let (outer, inner) = (self.length(bytes.len() + 4)?, self.length(bytes.len())?);
            self.out.extend(outer);
            self.out.push(subtype);
            self.out.extend(inner);
        } else {
            let length = self.length(bytes.len())?;
            self.out.extend(length);
            self.out.push(subtype);
        }
        self.out.extend(bytes);
        Ok(kind::BINARY)
    }

    /// Writes a value, and returns its type byte.
    fn value(&mut self, json: &Json<'_>) -> Result<u8> {
        match json {
            Json::Null => Ok(kind::NULL),
            Json::Bool(value) => self.fixed(kind::BOOLEAN, &[u8::from(*value)]),
            Json::Number(text) => self.number(text),
            Json::String(text) => self.string(text).map(|()| kind::STRING),
            Json::Array(values) => self.array(values).map(|()| kind::ARRAY),
            Json::Object(members) => match self.wrapper(members)? {
                Some(kind) => Ok(kind),
                None => self.document(members).map(|()| kind::DOCUMENT),
            },
        }
    }

    fn fixed(&mut self, kind: u8, value: &[u8]) -> Result<u8> {
        self.out.extend(value);
        Ok(kind)
    }

    /// A number without a wrapper: the smallest type that holds it as written.
    fn number(&mut self, text: &str) -> Result<u8> {
        if let Ok(value) = text.parse::<i32>() {
            self.fixed(kind::INT32, &value.to_le_bytes())
        } else if let Ok(value) = text.parse::<i64>() {
            self.fixed(kind::INT64, &value.to_le_bytes())
        } else {
            self.double(text)
        }
    }

    fn double(&mut self, text: &str) -> Result<u8> {
        let value = match text {
            "NaN" => Some(f64::NAN),
            "Infinity" | "+Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            // Rust's parser also accepts other words.
            text if is_number(text) => text.parse().ok(),
            _ => None,
        };
        self.fixed(kind::DOUBLE, &parsed(value, text, "a double")?.to_le_bytes())
    }

    /// Writes the value of the object, if it is a wrapper, and returns its type byte.
    fn wrapper(&mut self, members: &[Member<'_>]) -> Result<Option<u8>> {
        if !members.first().is_some_and(|(key, _)| key.starts_with('$')) {
            return Ok(None);
        }
        match members {
            [(key, value)] => self.single(key, value).transpose(),
            [_, _] => self.double_keyed(members).transpose(),
            _ => Ok(None),
        }
        .map_err(|fault| match members {
            [(key, _)] => fault.within_key(key),
            _ => fault,
        })
    }

    fn single(&mut self, key: &str, value: &Json<'_>) -> Option<Result<u8>> {
        match value {
            Json::String(text) => self.of_text(key, text),
            Json::Object(body) => self.of_object(key, body),
            Json::Number(text) => match key {
                "$minKey" if *text == "1" => Some(Ok(kind::MIN_KEY)),
                "$maxKey" if *text == "1" => Some(Ok(kind::MAX_KEY)),
                "$date" if self.era == Era::Legacy => Some(self.int64(kind::DATE, text)),
                "$numberLong" if self.era == Era::Legacy => Some(self.int64(kind::INT64, text)),
                _ => None,
            },
            Json::Bool(true) if key == "$undefined" => Some(Ok(kind::UNDEFINED)),
            _ => None,
        }
    }

    fn of_text(&mut self, key: &str, text: &str) -> Option<Result<u8>> {
        Some(match key {
            "$oid" => self.object_id(text).map(|()| kind::OBJECT_ID),
            "$numberInt" => {
                parsed(integer(text), text, "an int32").and_then(|value: i32| self.fixed(kind::INT32, &value.to_le_bytes()))
            }
            "$numberLong" => self.int64(kind::INT64, text),
            "$numberDouble" => self.double(text),
            "$numberDecimal" => parsed(text.parse::<Decimal128>().ok(), text, "a decimal128")
                .and_then(|value| self.fixed(kind::DECIMAL128, &value.bytes())),
            "$date" => parsed(milliseconds(text), text, "a date").and_then(|value| self.fixed(kind::DATE, &value.to_le_bytes())),
            "$uuid" => parsed(Uuid::try_parse(text).ok(), text, "a UUID").and_then(|id| self.bytes(0x04, id.as_bytes())),
            "$code" => self.string(text).map(|()| kind::CODE),
            "$symbol" => self.string(text).map(|()| kind::SYMBOL),
            _ => return None,
        })
    }

    fn of_object(&mut self, key: &str, body: &[Member<'_>]) -> Option<Result<u8>> {
        Some(match key {
            "$date" => {
                let [milliseconds] = strings(body, ["$numberLong"])?;
                self.int64(kind::DATE, milliseconds)
            }
            "$timestamp" => match pair(body, ["t", "i"])? {
                [Json::Number(time), Json::Number(increment)] => self.timestamp(time, increment),
                _ => return None,
            },
            "$binary" => {
                let [base64, subtype] = strings(body, ["base64", "subType"])?;
                self.binary(subtype, base64)
            }
            "$regularExpression" => {
                let [pattern, options] = strings(body, ["pattern", "options"])?;
                self.regex(pattern, options)
            }
            "$dbPointer" => match pair(body, ["$ref", "$id"])? {
                [Json::String(namespace), Json::Object(id)] => {
                    let [id] = strings(id, ["$oid"])?;
                    self.string(namespace).and_then(|()| self.object_id(id)).map(|()| kind::DB_POINTER)
                }
                _ => return None,
            },
            _ => return None,
        })
    }

    fn double_keyed(&mut self, members: &[Member<'_>]) -> Option<Result<u8>> {
        if let Some([Json::String(code), Json::Object(scope)]) = pair(members, ["$code", "$scope"]) {
            return Some(self.scoped(code, scope));
        }
        if self.era == Era::Modern {
            return None;
        }
        if let Some([pattern, options]) = strings(members, ["$regex", "$options"]) {
            return Some(self.regex(pattern, options));
        }
        let [base64, subtype] = strings(members, ["$binary", "$type"])?;
        Some(self.binary(subtype, base64))
    }

    fn int64(&mut self, kind: u8, text: &str) -> Result<u8> {
        let value: i64 = parsed(integer(text), text, "an int64")?;
        self.fixed(kind, &value.to_le_bytes())
    }

    fn object_id(&mut self, text: &str) -> Result<()> {
        let id = parsed(ObjectId::parse_str(text).ok(), text, "an ObjectId")?;
        self.out.extend(id.bytes());
        Ok(())
    }

    fn timestamp(&mut self, time: &str, increment: &str) -> Result<u8> {
        let time: u32 = parsed(integer(time), time, "a number of 32 bits")?;
        let increment: u32 = parsed(integer(increment), increment, "a number of 32 bits")?;
        self.out.extend(increment.to_le_bytes());
        self.fixed(kind::TIMESTAMP, &time.to_le_bytes())
    }

    fn regex(&mut self, pattern: &str, options: &str) -> Result<u8> {
        self.cstring(pattern)?;
        self.cstring(options)?;
        Ok(kind::REGEX)
    }

    fn scoped(&mut self, code: &str, scope: &[Member<'_>]) -> Result<u8> {
        let start = self.begin();
        self.string(code)?;
        self.document(scope).map_err(|fault| fault.within_key("$scope"))?;
        self.set_length(start)?;
        Ok(kind::SCOPED_CODE)
    }
}

/// The values of an object with exactly these two keys, in any order.
fn pair<'a, 'b>(members: &'a [Member<'b>], keys: [&str; 2]) -> Option<[&'a Json<'b>; 2]> {
    match members {
        [(a, x), (b, y)] if [a, b] == keys => Some([x, y]),
        [(a, x), (b, y)] if [b, a] == keys => Some([y, x]),
        _ => None,
    }
}

/// The strings of an object with exactly these keys, in any order.
fn strings<'a, const N: usize>(members: &'a [Member<'_>], keys: [&str; N]) -> Option<[&'a str; N]> {
    let mut found = [""; N];
    for (slot, key) in found.iter_mut().zip(keys) {
        match members.iter().find(|(name, _)| name == key)? {
            (_, Json::String(text)) => *slot = text,
            _ => return None,
        }
    }
    (members.len() == N).then_some(found)
}

fn parsed<T>(value: Option<T>, text: &str, what: &str) -> Result<T> {
    value.ok_or_else(|| Fault::new(format!("{:?} is not {what}", shown(text))))
}

/// An integer as JSON writes it.
fn integer<T: std::str::FromStr>(text: &str) -> Option<T> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// A date as text. Old tools wrote time zones without a colon.
fn milliseconds(text: &str) -> Option<i64> {
    let date = chrono::DateTime::parse_from_rfc3339(text);
    let date = date.or_else(|_| chrono::DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"));
    date.ok().map(|date| date.timestamp_millis())
}
