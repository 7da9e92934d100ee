//! Applies entries to the indexes of one collection.

use super::fields::{Fields, is_true};
use super::options::unsupported;
use super::series;
use crate::error::{Error, Result};
use crate::format::document::{Element, Elements};
use crate::format::kind;
use crate::oplog::text;

/// The indexes of a collection as `listIndexes` returns them.
#[derive(Debug, Clone, Default)]
pub(super) struct Indexes {
    pub(super) list: Vec<Fields>,
    /// The options of a time series: entries have the indexes of its buckets, but listings those
    /// that users see.
    pub(super) series: Option<Fields>,
}

impl Indexes {
    /// The index on `_id` of a created collection, which its entry names. Servers do not log one of
    /// version 1, so that is the default.
    pub(super) fn of_created(create: &Fields) -> Result<Self> {
        Ok(Self { list: Self::first(create)?, series: None })
    }

    fn first(create: &Fields) -> Result<Vec<Fields>> {
        if let Some(clustered) = create.get("clusteredIndex") {
            if clustered.kind != kind::DOCUMENT {
                return Ok(Vec::new());
            }
            let mut index = Fields::of(clustered.value)?;
            index.set("clustered", kind::BOOLEAN, &[1]);
            return Ok(vec![index]);
        }
        if let Some(id) = create.get("idIndex").filter(|i| i.kind == kind::DOCUMENT) {
            return Ok(vec![Fields::of(id.value)?]);
        }
        if create.get("autoIndexId").is_some_and(|auto| !is_true(auto)) {
            return Ok(Vec::new());
        }
        let id = bson::rawdoc! { "v": 1, "key": { "_id": 1 }, "name": "_id_" };
        Ok(vec![Fields::of(id.as_bytes())?])
    }

    /// Adds an index, or replaces the one of the same name.
    fn put(&mut self, index: Fields) -> Result<()> {
        let index = self.as_listed(index)?;
        let name = name(&index)?.to_owned();
        match self.position(&name) {
            Some(at) => self.list[at] = index,
            None => self.list.push(index),
        }
        Ok(())
    }

    /// `createIndexes`: one index per command, with its specification beside the collection's name;
    /// or several in `indexes`.
    pub(super) fn create(&mut self, command: &Fields) -> Result<()> {
        if command.get("indexes").is_some() {
            return self.commit(command);
        }
        let mut index = command.clone();
        index.remove("createIndexes");
        self.put(index)
    }

    /// `commitIndexBuild`.
    pub(super) fn commit(&mut self, command: &Fields) -> Result<()> {
        each_index(command, |index| self.put(index))
    }

    /// `abortIndexBuild`: listings show an index while it is being built.
    pub(super) fn abort(&mut self, command: &Fields) -> Result<()> {
        each_index(command, |index| {
            let index = self.as_listed(index)?;
            let name = name(&index)?.to_owned();
            if let Some(at) = self.position(&name)
                && self.list[at].get("key") == index.get("key")
            {
                self.list.remove(at);
            }
            Ok(())
        })
    }

    /// `dropIndexes`: by name, by `*`, by key, or several names.
    pub(super) fn drop(&mut self, command: &Fields) -> Result<()> {
        let which = command.get("index").ok_or_else(|| Error::damaged("dropIndexes names no index"))?;
        match which.kind {
            kind::STRING if text(which)? == "*" => self.list.retain(is_id),
            kind::STRING => {
                let dropped = text(which)?;
                self.list.retain(|index| name(index).ok() != Some(dropped));
            }
            kind::DOCUMENT => self.list.retain(|index| index.get("key").is_none_or(|key| key.value != which.value)),
            kind::ARRAY => {
                for dropped in Elements::of(which.value)? {
                    let dropped = text(dropped?)?;
                    self.list.retain(|index| name(index).ok() != Some(dropped));
                }
            }
            _ => return Err(Error::damaged("dropIndexes names an index that is neither text nor a key")),
        }
        Ok(())
    }

    /// The `index` part of `collMod`.
    pub(super) fn modify(&mut self, change: Element<'_>) -> Result<()> {
        if change.kind != kind::DOCUMENT {
            return Err(Error::damaged("collMod has an index that is not a document"));
        }
        let change = Fields::of(change.value)?;
        let found = match (change.get("name"), change.get("keyPattern")) {
            (Some(name), _) => self.position(text(name)?),
            (None, Some(key)) => self.list.iter().position(|index| index.get("key").is_some_and(|k| k.value == key.value)),
            (None, None) => return Err(Error::damaged("collMod changes an index without naming it")),
        };
        let at = found.ok_or_else(|| Error::damaged("collMod changes an index that does not exist"))?;
        let index = &mut self.list[at];
        for Element { kind, name, value } in change.iter() {
            let flag = is_true(Element { kind, name, value });
            match name {
                b"name" | b"keyPattern" => {}
                b"expireAfterSeconds" => index.set("expireAfterSeconds", kind, value),
                b"hidden" if flag => index.set("hidden", kind::BOOLEAN, &[1]),
                b"hidden" => index.remove("hidden"),
                b"prepareUnique" if flag => index.set("prepareUnique", kind::BOOLEAN, &[1]),
                b"prepareUnique" => index.remove("prepareUnique"),
                b"unique" if flag => {
                    index.set("unique", kind::BOOLEAN, &[1]);
                    index.remove("prepareUnique");
                }
                b"forceNonUnique" if flag => index.remove("unique"),
                b"unique" | b"forceNonUnique" => {}
                other => {
                    let other = String::from_utf8_lossy(other);
                    return Err(unsupported(&format!("collMod changes {other:?} of an index")));
                }
            }
        }
        Ok(())
    }

    fn as_listed(&self, index: Fields) -> Result<Fields> {
        match &self.series {
            Some(options) => series::user_index(&index, options),
            None => Ok(index),
        }
    }

    fn position(&self, wanted: &str) -> Option<usize> {
        self.list.iter().position(|index| name(index).ok() == Some(wanted))
    }
}

fn each_index(command: &Fields, mut work: impl FnMut(Fields) -> Result<()>) -> Result<()> {
    let indexes = command.get("indexes").filter(|i| i.kind == kind::ARRAY);
    let indexes = indexes.ok_or_else(|| Error::damaged("an index build names no indexes"))?;
    for index in Elements::of(indexes.value)? {
        let index = index?;
        if index.kind != kind::DOCUMENT {
            return Err(Error::damaged("an index build has an index that is not a document"));
        }
        work(Fields::of(index.value)?)?;
    }
    Ok(())
}

fn name(index: &Fields) -> Result<&str> {
    text(index.get("name").ok_or_else(|| Error::damaged("an index has no name"))?)
}

fn is_id(index: &Fields) -> bool {
    index.get("clustered").is_some() || name(index).is_ok_and(|name| name == "_id_")
}
