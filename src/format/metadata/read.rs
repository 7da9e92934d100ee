//! Reads metadata files of all ages: canonical Extended JSON version 2 since version 4.2 of the
//! tools, the strict mode of version 1 before, and unquoted keys before that.
//!
//! The result is raw BSON: keys keep their order, and repeated keys stay repeated.

mod extended;
mod json;

use bson::RawDocumentBuf;
use uuid::Uuid;

use crate::error::{Error, Result};
use extended::{Era, Fault};
use json::{Json, Member};

/// The content of a metadata file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    /// The options of the collection; empty if the file has none.
    pub options: RawDocumentBuf,
    /// Its indexes, in order.
    pub indexes: Vec<RawDocumentBuf>,
    /// The server's UUID of it.
    pub uuid: Option<Uuid>,
    /// Its true name.
    pub collection: Option<String>,
    /// `collection`, `view` or `timeseries`.
    pub kind: Option<String>,
}

impl Metadata {
    /// Parses the text of a metadata file. An empty one has no content.
    ///
    /// `{"$regex": .., "$options": ..}` and the like may be BSON values or documents of a query.
    /// This is decided for the whole file: version 2 has other forms for such values.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) with the problem and its place.
    pub fn parse(text: &[u8]) -> Result<Self> {
        if text.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let json = json::parse(text)?;
        let members = top(&json)?;
        let era = if ["collectionName", "type"].iter().any(|key| members.iter().any(|(name, _)| name == key)) {
            Era::Modern
        } else {
            Era::of(&json)
        };
        let mut metadata = Self::default();
        for (name, value) in members {
            let placed = |fault: Fault| place(fault.within_key(name));
            match (name.as_ref(), value) {
                ("options" | "indexes" | "uuid" | "collectionName" | "type", Json::Null) => {}
                ("options", value) => metadata.options = document(value, era).map_err(placed)?,
                ("indexes", value) => metadata.indexes = indexes(value, era).map_err(placed)?,
                ("uuid", value) => metadata.uuid = identity(value).map_err(placed)?,
                ("collectionName", value) => metadata.collection = Some(text_of(value).map_err(placed)?),
                ("type", value) => metadata.kind = Some(text_of(value).map_err(placed)?).filter(|kind| !kind.is_empty()),
                _ => {}
            }
        }
        Ok(metadata)
    }
}

/// Parses a document in Extended JSON version 2, for instance a query: keys keep their order.
///
/// # Errors
/// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) with the problem and its place.
pub fn extended(text: &[u8]) -> Result<RawDocumentBuf> {
    document(&json::parse(text)?, Era::Modern).map_err(place)
}

/// The content of mongodump's `prelude.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions {
    /// The version of the dumped server (`ServerVersion`); empty if missing.
    pub server: String,
    /// The version of the tool that dumped it (`ToolVersion`); empty if missing.
    pub tool: String,
}

impl Versions {
    /// Parses the text of a `prelude.json`. An empty one has no content.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) with the problem and its place.
    pub fn parse(text: &[u8]) -> Result<Self> {
        if text.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let json = json::parse(text)?;
        let mut versions = Self::default();
        for (name, value) in top(&json)? {
            let placed = |fault: Fault| place(fault.within_key(name));
            match name.as_ref() {
                "ServerVersion" => versions.server = text_of(value).map_err(placed)?,
                "ToolVersion" => versions.tool = text_of(value).map_err(placed)?,
                _ => {}
            }
        }
        Ok(versions)
    }
}

/// The members of the file's object, which must be unique.
fn top<'a, 'b>(json: &'a Json<'b>) -> Result<&'a [Member<'b>]> {
    let Json::Object(members) = json else {
        return Err(Error::damaged(format!("at line 1, column 1: expected an object, found {}", json.describe())));
    };
    let mut names = std::collections::HashSet::new();
    match members.iter().find(|(name, _)| !names.insert(name.as_ref())) {
        None => Ok(members),
        Some((name, _)) => Err(place(Fault::new("it occurs twice").within_key(name))),
    }
}

fn place(fault: Fault) -> Error {
    Error::damaged(fault.to_string())
}

fn document(json: &Json<'_>, era: Era) -> std::result::Result<RawDocumentBuf, Fault> {
    match json {
        Json::Object(members) => extended::document(members, era),
        other => Err(Fault::new(format!("expected an object, found {}", other.describe()))),
    }
}

fn indexes(json: &Json<'_>, era: Era) -> std::result::Result<Vec<RawDocumentBuf>, Fault> {
    let Json::Array(values) = json else {
        return Err(Fault::new(format!("expected an array, found {}", json.describe())));
    };
    let index = |(number, value)| document(value, era).map_err(|fault| fault.within_index(number));
    values.iter().enumerate().map(index).collect()
}

fn identity(json: &Json<'_>) -> std::result::Result<Option<Uuid>, Fault> {
    let text = text_of(json)?;
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || Fault::new(format!("expected 32 hexadecimal digits, found {}", json.describe()));
    // Not the forms in braces or with a prefix.
    if !matches!(text.len(), 32 | 36) {
        return Err(wrong());
    }
    Uuid::try_parse(&text).map(Some).map_err(|_| wrong())
}

fn text_of(json: &Json<'_>) -> std::result::Result<String, Fault> {
    match json {
        Json::String(text) => Ok(text.clone().into_owned()),
        other => Err(Fault::new(format!("expected a string, found {}", other.describe()))),
    }
}
