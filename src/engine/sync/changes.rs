//! What changed between two states of a source's collections: pure.

use std::collections::{BTreeMap, HashMap};

use bson::{RawDocument, RawDocumentBuf};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::format::document::{Element, Elements, Writer, string_value};
use crate::format::kind;
use crate::format::manifest::{Collection, CollectionKind, RawValue};
use crate::mongo::catalog;
use crate::names::Namespace;

/// One change of a collection, time series or view.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    /// It is gone.
    Drop(Collection),
    /// It has another name.
    Rename(Box<Renaming>),
    /// It is new.
    Create(Collection),
    /// It has other options or indexes.
    Alter(Box<Alteration>),
}

/// A collection that has another name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Renaming {
    pub(super) before: Collection,
    pub(super) after: Collection,
    /// The collection that it replaced.
    pub(super) over: Option<Collection>,
}

/// Other options or indexes of a collection.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Alteration {
    /// As it is now.
    pub(super) after: Collection,
    /// The indexes that are gone.
    pub(super) dropped: Vec<String>,
    /// The fields of `collMod` commands.
    pub(super) modify: Vec<RawDocumentBuf>,
    /// The names of its new indexes.
    pub(super) created: Vec<String>,
}

/// What changed, in an order in which it can be done.
///
/// # Errors
/// [`ErrorKind::Refused`] if an option changed in a way that is not known.
pub(super) fn between(before: &[Collection], after: &[Collection]) -> Result<Vec<Change>> {
    let by_uuid =
        |all: &[Collection]| -> HashMap<Uuid, Collection> { all.iter().filter_map(|c| Some((c.uuid?, c.clone()))).collect() };
    let views = |all: &[Collection]| -> BTreeMap<Namespace, Collection> {
        all.iter().filter(|c| c.uuid.is_none()).map(|c| (c.namespace(), c.clone())).collect()
    };
    let (old, new) = (by_uuid(before), by_uuid(after));
    let (old_views, new_views) = (views(before), views(after));
    let mut dropped: BTreeMap<Namespace, Collection> =
        old.iter().filter(|(uuid, _)| !new.contains_key(*uuid)).map(|(_, c)| (c.namespace(), c.clone())).collect();
    let (mut renames, mut creates, mut alters) = (Vec::new(), Vec::new(), Vec::new());
    for (uuid, now) in &new {
        let Some(was) = old.get(uuid) else {
            creates.push(Change::Create(now.clone()));
            continue;
        };
        if was.namespace() != now.namespace() {
            let over = dropped.remove(&now.namespace());
            renames.push(Change::Rename(Box::new(Renaming { before: was.clone(), after: now.clone(), over })));
        }
        alters.extend(altered(was, now)?.map(Box::new).map(Change::Alter));
    }
    let gone_views = old_views.values().filter(|view| !new_views.contains_key(&view.namespace()));
    let mut changes: Vec<Change> = dropped.into_values().chain(gone_views.cloned()).map(Change::Drop).collect();
    changes.append(&mut renames);
    changes.append(&mut creates);
    changes.append(&mut alters);
    for (name, view) in &new_views {
        match old_views.get(name) {
            None => changes.push(Change::Create(view.clone())),
            Some(was) if was.options != view.options => {
                changes.extend(altered(was, view)?.map(Box::new).map(Change::Alter));
            }
            Some(_) => {}
        }
    }
    Ok(changes)
}

/// How a collection changed, names aside.
fn altered(was: &Collection, now: &Collection) -> Result<Option<Alteration>> {
    let (mut dropped, mut modify, mut created): (Vec<String>, Vec<RawDocumentBuf>, Vec<String>) = Default::default();
    if was.options != now.options {
        modify.extend(options(was, now)?);
    }
    let named = |indexes: &[RawValue]| -> BTreeMap<String, RawDocumentBuf> {
        indexes.iter().filter_map(|i| Some((catalog::name(&i.bson)?, i.bson.clone()))).collect()
    };
    let (old, new) = (named(&was.indexes), named(&now.indexes));
    dropped.extend(old.keys().filter(|name| !new.contains_key(*name)).cloned());
    for index in &now.indexes {
        let Some(name) = catalog::name(&index.bson) else { continue };
        match old.get(&name) {
            None => created.push(name),
            Some(was) if *was == index.bson => {}
            Some(was) => match index_options(&name, was, &index.bson)? {
                Some(fields) => modify.push(fields),
                None => {
                    dropped.push(name.clone());
                    created.push(name);
                }
            },
        }
    }
    if dropped.is_empty() && modify.is_empty() && created.is_empty() {
        return Ok(None);
    }
    Ok(Some(Alteration { after: now.clone(), dropped, modify, created }))
}

type Options<'a> = BTreeMap<&'a [u8], (u8, &'a [u8])>;

fn options_of(document: &RawDocument) -> Result<Options<'_>> {
    Elements::of(document.as_bytes())?.map(|e| e.map(|e: Element<'_>| (e.name, (e.kind, e.value)))).collect()
}

/// The names of fields whose values differ.
fn differing<'a>(was: &Options<'a>, now: &Options<'a>) -> Vec<&'a [u8]> {
    let mut names: Vec<&[u8]> = was.keys().chain(now.keys()).copied().collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| was.get(name) != now.get(name));
    names
}

/// The fields of a `collMod` that changes the options.
fn options(was: &Collection, now: &Collection) -> Result<Option<RawDocumentBuf>> {
    let (old, new) = (options_of(&was.options.bson)?, options_of(&now.options.bson)?);
    let mut fields = Writer::default();
    let mut is_empty = true;
    for name in differing(&old, &new) {
        let value = new.get(name).copied();
        is_empty = false;
        match (name, value) {
            (b"validator" | b"changeStreamPreAndPostImages" | b"recordPreImages" | b"expireAfterSeconds", None) => {
                take_away(&mut fields, name);
            }
            (b"size", Some((kind, value))) => fields.element(kind, "cappedSize", value),
            (b"max", Some((kind, value))) => fields.element(kind, "cappedMax", value),
            (b"max", None) => fields.element(kind::INT32, "cappedMax", &0_i32.to_le_bytes()),
            (b"timeseries", Some((kind::DOCUMENT, value))) => series(&mut fields, value)?,
            (
                b"validator"
                | b"validationLevel"
                | b"validationAction"
                | b"changeStreamPreAndPostImages"
                | b"recordPreImages"
                | b"expireAfterSeconds"
                | b"viewOn"
                | b"pipeline"
                | b"timeseriesBucketsMayHaveMixedSchemaData",
                Some((kind, value)),
            ) => fields.element(kind, name, value),
            (b"temp" | b"recordIdsReplicated", _) => is_empty = fields.is_empty(),
            (other, _) => {
                let (what, name) = (String::from_utf8_lossy(other).into_owned(), now.namespace());
                return Err(Error::new(ErrorKind::Refused, format!("the option {what:?} of {name} changed in an unknown way")));
            }
        }
    }
    // A view is only changed as a whole.
    if now.kind == CollectionKind::View {
        let mut whole = Writer::default();
        for name in [&b"viewOn"[..], b"pipeline"] {
            if let Some((kind, value)) = new.get(name) {
                whole.element(*kind, name, value);
            }
        }
        return whole.raw().map(Some);
    }
    if is_empty || fields.is_empty() { Ok(None) } else { fields.raw().map(Some) }
}

/// The value that takes an option away.
fn take_away(fields: &mut Writer, name: &[u8]) {
    match name {
        b"validator" => fields.document("validator", &Writer::default().finish()),
        b"changeStreamPreAndPostImages" => {
            let mut off = Writer::default();
            off.bool("enabled", false);
            fields.document("changeStreamPreAndPostImages", &off.finish());
        }
        b"expireAfterSeconds" => fields.element(kind::STRING, "expireAfterSeconds", &string_value("off")),
        _ => fields.bool("recordPreImages", false),
    }
}

/// The granularity of a time series, or the spans of its buckets.
fn series(fields: &mut Writer, now: &[u8]) -> Result<()> {
    let mut change = Writer::default();
    let granularity = Elements::of(now)?.find_map(|e| e.ok().filter(|e| e.name == b"granularity"));
    match granularity {
        Some(e) => change.element(e.kind, "granularity", e.value),
        None => {
            for e in Elements::of(now)? {
                let e = e?;
                if matches!(e.name, b"bucketMaxSpanSeconds" | b"bucketRoundingSeconds") {
                    change.element(e.kind, e.name, e.value);
                }
            }
        }
    }
    fields.document("timeseries", &change.finish());
    Ok(())
}

/// The fields of a `collMod` that changes an index; `None` if it must be built anew.
fn index_options(name: &str, was: &RawDocument, now: &RawDocument) -> Result<Option<RawDocumentBuf>> {
    let (old, new) = (options_of(was)?, options_of(now)?);
    let mut index = Writer::default();
    index.string("name", name);
    for option in differing(&old, &new) {
        match (option, new.get(option).copied()) {
            (b"expireAfterSeconds" | b"hidden" | b"unique" | b"prepareUnique", Some((kind, value))) => {
                index.element(kind, option, value);
            }
            (b"hidden" | b"prepareUnique", None) => {
                // A unique index is not prepared any more.
                if option == b"hidden" || !new.contains_key(&b"unique"[..]) {
                    index.bool(std::str::from_utf8(option).unwrap_or_default(), false);
                }
            }
            _ => return Ok(None),
        }
    }
    let mut fields = Writer::default();
    fields.document("index", &index.finish());
    fields.raw().map(Some)
}
