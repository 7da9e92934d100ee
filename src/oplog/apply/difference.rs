//! Applies the difference of an update to a document in memory: pure.
//!
//! The format is that of servers from 5.0 on, `{$v: 2, diff: {...}}`: fields to delete (`d`), to
//! update in their places (`u`), and to add at the end (`i`), and differences of documents and
//! arrays inside (`sNAME`). In an array, `l` is the new length, and `uN` and `sN` change the
//! element at `N`. Only what a server wrote for exactly this document is applied.

use std::collections::HashMap;

use crate::error::Result;
use crate::format::document::{Element, Elements, Writer};
use crate::format::kind;

/// The document after this change; `None` if it is not such a difference, or not one for it.
///
/// # Errors
/// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if one of both is no document.
pub(super) fn applied(document: &[u8], change: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut elements = Elements::of(change)?;
    let version = elements.next().transpose()?;
    let is_second = |e: Element<'_>| e.name == b"$v" && e.kind == kind::INT32 && e.value == 2i32.to_le_bytes();
    let difference = elements.next().transpose()?.filter(|e| e.name == b"diff" && e.kind == kind::DOCUMENT);
    match (version.is_some_and(is_second), difference, elements.next()) {
        (true, Some(difference), None) => of_document(document, difference.value, 0),
        _ => Ok(None),
    }
}

/// How deep differences may be nested here; servers stop later.
const MAX_DEPTH: usize = 100;

#[derive(Clone, Copy)]
enum Field<'a> {
    Deleted,
    Updated(Element<'a>),
    /// It is added at the end, and taken away where it is.
    Moved,
    Inside(&'a [u8]),
    /// It was met: a second field of the same name is not foreseen.
    Done,
}

fn of_document(document: &[u8], difference: &[u8], depth: usize) -> Result<Option<Vec<u8>>> {
    let (mut fields, mut added): (HashMap<&[u8], Field<'_>>, _) = (HashMap::new(), Vec::new());
    // Of those, how many must be there.
    let mut expected = 0;
    for section in Elements::of(difference)? {
        let section = section?;
        if section.kind != kind::DOCUMENT {
            return Ok(None);
        }
        if let Some(name) = section.name.strip_prefix(b"s") {
            expected += 1;
            if fields.insert(name, Field::Inside(section.value)).is_some() {
                return Ok(None);
            }
            continue;
        }
        for element in Elements::of(section.value)? {
            let element = element?;
            let field = match section.name {
                b"d" => Field::Deleted,
                b"u" => Field::Updated(element),
                b"i" => Field::Moved,
                _ => return Ok(None),
            };
            if section.name == b"i" {
                added.push(element);
            } else {
                expected += 1;
            }
            if fields.insert(element.name, field).is_some() {
                return Ok(None);
            }
        }
    }
    let mut after = Writer::with_capacity(document.len() + difference.len());
    for element in Elements::of(document)? {
        let element = element?;
        let Some(field) = fields.get_mut(element.name) else {
            after.element(element.kind, element.name, element.value);
            continue;
        };
        match std::mem::replace(field, Field::Done) {
            Field::Done => return Ok(None),
            Field::Moved => continue,
            Field::Deleted => {}
            Field::Updated(new) => after.element(new.kind, new.name, new.value),
            Field::Inside(difference) => match inside(element, difference, depth + 1)? {
                Some(value) => after.element(element.kind, element.name, &value),
                None => return Ok(None),
            },
        }
        expected -= 1;
    }
    if expected != 0 {
        return Ok(None);
    }
    for new in added {
        after.element(new.kind, new.name, new.value);
    }
    Ok(Some(after.finish()))
}

fn inside(element: Element<'_>, difference: &[u8], depth: usize) -> Result<Option<Vec<u8>>> {
    if depth > MAX_DEPTH {
        return Ok(None);
    }
    let first = Elements::of(difference)?.next().transpose()?;
    let of_array = first.is_some_and(|e| e.name == b"a" && e.kind == kind::BOOLEAN && e.value == [1]);
    match (element.kind, of_array) {
        (kind::DOCUMENT, false) => of_document(element.value, difference, depth),
        (kind::ARRAY, true) => of_array_elements(element.value, difference, depth),
        _ => Ok(None),
    }
}

fn of_array_elements(array: &[u8], difference: &[u8], depth: usize) -> Result<Option<Vec<u8>>> {
    let mut length = None;
    let mut changes = Vec::new();
    for change in Elements::of(difference)?.skip(1) {
        let change = change?;
        let (how, number) = change.name.split_first().unwrap_or((&0, &[]));
        let number = std::str::from_utf8(number).ok().and_then(|number| number.parse::<usize>().ok());
        match (how, number, change.kind) {
            (b'l', None, kind::INT32) if change.name == b"l" && length.is_none() => {
                let value = change.value.try_into().map(i32::from_le_bytes).ok();
                length = Some(value.and_then(|value| usize::try_from(value).ok()));
            }
            (b'u', Some(number), _) => changes.push((number, false, change)),
            (b's', Some(number), kind::DOCUMENT) => changes.push((number, true, change)),
            _ => return Ok(None),
        }
    }
    let length = match length {
        Some(None) => return Ok(None),
        Some(length) => length,
        None => None,
    };
    let mut after = Writer::with_capacity(array.len() + difference.len());
    let mut changes = changes.into_iter().peekable();
    let mut at = 0;
    for element in Elements::of(array)? {
        let element = element?;
        if length.is_some_and(|length| at >= length) {
            break;
        }
        let name = at.to_string();
        match changes.next_if(|(number, ..)| *number == at) {
            None => after.element(element.kind, name, element.value),
            Some((_, false, new)) => after.element(new.kind, name, new.value),
            Some((_, true, difference)) => match inside(element, difference.value, depth + 1)? {
                Some(value) => after.element(element.kind, name, &value),
                None => return Ok(None),
            },
        }
        at += 1;
    }
    // New elements follow without a gap.
    while let Some((_, false, new)) = changes.next_if(|(number, ..)| *number == at) {
        after.element(new.kind, at.to_string(), new.value);
        at += 1;
    }
    let is_complete = changes.next().is_none() && length.is_none_or(|length| length == at);
    Ok(is_complete.then(|| after.finish()))
}

#[cfg(test)]
mod tests;
