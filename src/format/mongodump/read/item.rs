//! Parses the documents of an archive that are not data: their fields and types.
//!
//! Problems are returned as text alone; the reader knows the place.

use super::super::{Member, OPLOG, Prelude};
use crate::format::document::{Element, Elements, type_name};
use crate::format::kind;

/// The only version of the format.
const VERSION: &str = "0.1";

/// The header of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NamespaceHeader<'a> {
    pub(super) database: &'a str,
    pub(super) collection: &'a str,
    pub(super) end: bool,
    pub(super) crc: u64,
}

/// The name of a namespace in messages.
pub(super) fn display(database: &str, collection: &str) -> String {
    if database.is_empty() && collection == OPLOG { "the oplog".to_owned() } else { format!("{database}.{collection}") }
}

/// The namespace that a document names, however wrong the rest is.
pub(super) fn named(document: &[u8]) -> Option<String> {
    let (mut database, mut collection) = (None, None);
    for element in Elements::of(document).ok()?.map_while(Result::ok) {
        match element.name {
            b"db" => database = text(element).ok(),
            b"collection" => collection = text(element).ok(),
            _ => {}
        }
    }
    Some(display(database?, collection?))
}

/// The archive's header. Tools add fields; only the version is mandatory.
pub(super) fn archive_header(document: &[u8]) -> Result<Prelude, String> {
    let (mut concurrent, mut version, mut server, mut tool) = (None, None, None, None);
    for element in elements(document)? {
        let element = element?;
        match element.name {
            b"concurrent_collections" => once(&mut concurrent, element, int32(element)?)?,
            b"version" => once(&mut version, element, text(element)?)?,
            b"server_version" => once(&mut server, element, text(element)?)?,
            b"tool_version" => once(&mut tool, element, text(element)?)?,
            _ => {}
        }
    }
    match version {
        Some(VERSION) => {}
        Some(other) => return Err(format!("it has version {other:?} of the format, but only {VERSION:?} is supported")),
        None => return Err("the archive's header has no version".to_owned()),
    }
    Ok(Prelude {
        concurrent: concurrent.unwrap_or(1),
        server_version: server.unwrap_or_default().to_owned(),
        tool_version: tool.unwrap_or_default().to_owned(),
        namespaces: Vec::new(),
    })
}

/// The metadata of a namespace. Tools add fields; only the namespace is mandatory.
pub(super) fn member(document: &[u8]) -> Result<Member, String> {
    let (mut database, mut collection, mut metadata, mut kind) = (None, None, None, None);
    for element in elements(document)? {
        let element = element?;
        match element.name {
            b"db" => once(&mut database, element, text(element)?)?,
            b"collection" => once(&mut collection, element, text(element)?)?,
            b"metadata" => once(&mut metadata, element, text(element)?)?,
            b"type" => once(&mut kind, element, text(element)?)?,
            _ => {}
        }
    }
    Ok(Member {
        database: database.ok_or_else(|| missing("metadata", "db"))?.to_owned(),
        collection: collection.ok_or_else(|| missing("metadata", "collection"))?.to_owned(),
        metadata: metadata.unwrap_or_default().to_owned(),
        kind: kind.filter(|kind| !kind.is_empty()).map(str::to_owned),
    })
}

/// A block's header: exactly four fields.
pub(super) fn namespace_header(document: &[u8]) -> Result<NamespaceHeader<'_>, String> {
    let (mut database, mut collection, mut end, mut crc) = (None, None, None, None);
    for element in elements(document)? {
        let element = element?;
        match element.name {
            b"db" => once(&mut database, element, text(element)?)?,
            b"collection" => once(&mut collection, element, text(element)?)?,
            b"EOF" => once(&mut end, element, boolean(element)?)?,
            b"CRC" => once(&mut crc, element, int64(element)?)?,
            _ => return Err(format!("a block's header has an unknown field {}", name(element))),
        }
    }
    let missing = |field| missing("a block's header", field);
    Ok(NamespaceHeader {
        database: database.ok_or_else(|| missing("db"))?,
        collection: collection.ok_or_else(|| missing("collection"))?,
        end: end.ok_or_else(|| missing("EOF"))?,
        // The bits of an unsigned number.
        crc: crc.ok_or_else(|| missing("CRC"))?.cast_unsigned(),
    })
}

fn elements(document: &[u8]) -> Result<impl Iterator<Item = Result<Element<'_>, String>>, String> {
    let elements = Elements::of(document).map_err(|e| e.to_string())?;
    Ok(elements.map(|element| element.map_err(|e| e.to_string())))
}

fn missing(document: &str, field: &str) -> String {
    format!("{document} without its field {field}")
}

fn once<T>(slot: &mut Option<T>, element: Element<'_>, value: T) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("the field {} occurs twice", name(element))),
    }
}

fn name(element: Element<'_>) -> String {
    format!("{:?}", String::from_utf8_lossy(&element.name[..element.name.len().min(64)]))
}

fn wrong_type(element: Element<'_>, wanted: u8) -> String {
    format!("the field {} is of type {}, not {}", name(element), type_name(element.kind), type_name(wanted))
}

/// The value, if it has this type.
fn value(element: Element<'_>, wanted: u8) -> Result<&[u8], String> {
    if element.kind == wanted { Ok(element.value) } else { Err(wrong_type(element, wanted)) }
}

fn text(element: Element<'_>) -> Result<&str, String> {
    let bytes = value(element, kind::STRING)?.get(4..).and_then(|bytes| bytes.strip_suffix(&[0]));
    let bytes = bytes.ok_or_else(|| format!("the field {} is a string without its NUL", name(element)))?;
    str::from_utf8(bytes).map_err(|_| format!("the field {} is not UTF-8", name(element)))
}

fn int32(element: Element<'_>) -> Result<i32, String> {
    value(element, kind::INT32)?.try_into().map(i32::from_le_bytes).map_err(|_| wrong_type(element, kind::INT32))
}

fn int64(element: Element<'_>) -> Result<i64, String> {
    value(element, kind::INT64)?.try_into().map(i64::from_le_bytes).map_err(|_| wrong_type(element, kind::INT64))
}

fn boolean(element: Element<'_>) -> Result<bool, String> {
    match value(element, kind::BOOLEAN)? {
        [0] => Ok(false),
        [1] => Ok(true),
        _ => Err(format!("the field {} is a boolean that is neither 0 nor 1", name(element))),
    }
}
