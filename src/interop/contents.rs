//! Classifies the namespaces of a dump: collections, data for the server itself, and skipped ones.
//! The same for every form of dump; pure.

use std::collections::HashMap;

use bson::{RawDocument, RawDocumentBuf};

use super::old_indexes::OldIndexes;
use super::part::{Of, named};
use crate::error::{Error, Result};
use crate::few::Few;
use crate::format::digest::{ContentDigest, Sha256Hex};
use crate::format::document::Writer;
use crate::format::manifest::{Collection, CollectionKind, LeftOut, RawValue, StoredObject};
use crate::format::metadata::read::Metadata;
use crate::format::mongodump;
use crate::names::{BUCKETS_PREFIX, Namespace, SYSTEM_DATABASES};

/// Fields that old tools added to the options, unlike `listCollections`.
const NO_OPTIONS: [&str; 2] = ["create", "uuid"];

/// A namespace in a dump, as known before documents are read. The oplog has no database.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) database: String,
    /// For a time series, its own name, not that of its buckets.
    pub(super) name: String,
    /// `None` if there is no metadata, or it is empty.
    pub(super) metadata: Option<Metadata>,
    /// The file that should hold its documents, if it is missing.
    pub(super) missing: Option<String>,
    /// The approximate bytes of its documents; 0 if unknown.
    pub(super) bytes: u64,
}

/// The classified contents of a dump.
#[derive(Debug, Clone, Default)]
pub(super) struct Contents {
    pub(super) collections: Vec<Collection>,
    pub(super) left_out: Vec<LeftOut>,
    pub(super) notes: Vec<String>,
    /// Collections without their documents.
    pub(super) missing: Vec<Namespace>,
    /// What each namespace found is; `None` for a skipped one.
    pub(super) places: Vec<Option<Of>>,
    /// The memory that all of it takes.
    pub(super) taken: u64,
    /// Which collections are views; still available after the collections are taken.
    pub(super) views: Vec<bool>,
}

impl Contents {
    pub(super) fn has_oplog(&self) -> bool {
        self.places.contains(&Some(Of::Oplog))
    }

    /// Whether this is the place of a view.
    pub(super) fn is_view(&self, place: usize) -> bool {
        matches!(self.places[place], Some(Of::Collection(number)) if self.views[number])
    }

    pub(super) fn has_users(&self) -> bool {
        self.places.iter().any(|place| matches!(place, Some(Of::Users | Of::Roles)))
    }
}

/// Classifies what was found. If a collection has no metadata, the old server's list of its
/// database's indexes provides its indexes, as in mongorestore. `all_users` says that the users of
/// all databases are included.
pub(super) fn sort_out(
    found: impl ExactSizeIterator<Item = Result<Found>>,
    all_users: bool,
    mut old: OldIndexes,
) -> Result<Contents> {
    let (mut contents, mut notes) = (Contents::default(), Few::default());
    contents.collections.reserve(found.len());
    let mut of_namespace = HashMap::with_capacity(found.len());
    for (number, found) in found.enumerate() {
        let found = found?;
        let namespace = Namespace::new(&*found.database, &*found.name);
        if let Some(_twice) = of_namespace.insert(namespace.clone(), number) {
            return Err(Error::damaged(format!("the dump holds {} twice", named(&namespace))));
        }
        let place = match own(&found, all_users) {
            Own::Is(of) => Some(of),
            Own::LeftOut(reason) => {
                let uuid = found.metadata.and_then(|m| m.uuid);
                contents.left_out.push(LeftOut {
                    database: found.database,
                    collection: found.name,
                    uuid,
                    reason: reason.to_owned(),
                });
                None
            }
            Own::No => {
                let is_missing = found.missing.is_some();
                let collection = collection(found, &mut old, &mut notes)?;
                if is_missing && collection.kind != CollectionKind::View {
                    contents.missing.push(namespace);
                }
                contents.collections.push(collection);
                Some(Of::Collection(number)) // until all are in order
            }
        };
        contents.places.push(place);
    }
    notes.extend(old.of_nothing(|namespace| of_namespace.contains_key(namespace)));
    contents.notes = notes.into_sentences();
    contents.collections.sort_by(|a, b| (&a.database, &a.name).cmp(&(&b.database, &b.name)));
    contents.views = contents.collections.iter().map(|c| c.kind == CollectionKind::View).collect();
    for (number, collection) in contents.collections.iter().enumerate() {
        if let Some(found) = of_namespace.get(&collection.namespace()) {
            contents.places[*found] = Some(Of::Collection(number));
        }
    }
    contents.left_out.sort_by(|a, b| (&a.database, &a.collection).cmp(&(&b.database, &b.collection)));
    Ok(contents)
}

/// Whether this holds the users or roles of all databases.
pub(super) fn is_of_all_users(database: &str, name: &str) -> bool {
    database == "admin" && matches!(name, "system.users" | "system.roles")
}

/// Whether a namespace is for the server itself.
enum Own {
    No,
    Is(Of),
    LeftOut(&'static str),
}

fn own(found: &Found, all_users: bool) -> Own {
    let Found { database, name, .. } = found;
    match (database.as_str(), name.as_str()) {
        ("", mongodump::OPLOG) => Own::Is(Of::Oplog),
        ("admin", "system.users") => Own::Is(Of::Users),
        ("admin", "system.roles") => Own::Is(Of::Roles),
        (_, "$admin.system.users" | "$admin.system.roles") if all_users => {
            Own::LeftOut("the dump holds the users of all databases")
        }
        (_, "$admin.system.users") => Own::Is(Of::Users),
        (_, "$admin.system.roles") => Own::Is(Of::Roles),
        ("local", "oplog.rs" | "oplog.$main") => {
            Own::LeftOut("a copy of the oplog as a collection does not count as the oplog of the dump")
        }
        (database, _) if SYSTEM_DATABASES.contains(&database) || database.starts_with("__mdb_internal") => {
            Own::LeftOut("its database belongs to the server itself")
        }
        (_, name) if Namespace::new(&**database, name).is_of_an_import() => Own::LeftOut("belongs to imports"),
        (_, name) if name.contains('$') => Own::LeftOut("has a $ in its name, which no server accepts"),
        (_, "system.indexes") => Own::LeftOut("the indexes of an old server: they are used for collections without metadata"),
        // Buckets that get here have no time series.
        (_, name) if name.starts_with("system.") && name != "system.js" && !name.starts_with(BUCKETS_PREFIX) => {
            Own::LeftOut("belongs to the server")
        }
        _ => Own::No,
    }
}

fn collection(found: Found, old: &mut OldIndexes, notes: &mut Few) -> Result<Collection> {
    let namespace = Namespace::new(found.database, found.name);
    if namespace.database.is_empty() || namespace.collection.is_empty() || namespace.collection.contains('\0') {
        return Err(Error::damaged(format!("the dump holds {}, which cannot be the name of a collection", named(&namespace))));
    }
    if namespace.collection.starts_with(BUCKETS_PREFIX) {
        return Err(Error::damaged(format!("{}: buckets without the metadata of their time series", named(&namespace))));
    }
    let metadata = match found.metadata {
        Some(metadata) => metadata,
        None => {
            let (indexes, note) = old.take(&namespace);
            notes.push(|| note);
            Metadata { indexes, ..Metadata::default() }
        }
    };
    let kind = kind_of(&metadata);
    if kind == CollectionKind::View && found.bytes > 0 {
        return Err(Error::damaged(format!("the view {} has documents", named(&namespace))));
    }
    if kind != CollectionKind::View && metadata.kind.as_deref() == Some("view") {
        notes.push(|| {
            format!("{} was a view, but the dump holds its documents: it is treated as a collection", named(&namespace))
        });
    }
    if let (Some(missing), true) = (found.missing, kind != CollectionKind::View) {
        notes.push(|| format!("{missing} is missing: {} is treated as an empty collection", named(&namespace)));
    }
    let mut collection = Collection {
        database: namespace.database,
        name: namespace.collection,
        kind,
        uuid: metadata.uuid,
        options: RawValue::of(&without(&metadata.options, &NO_OPTIONS)?),
        indexes: metadata.indexes.iter().map(|index| RawValue::of(index)).collect(),
        metadata: StoredObject { key: String::new(), bytes: 0, sha256: Sha256Hex::of(b"") },
        documents: 0,
        bytes: found.bytes,
        digest: ContentDigest::default(),
        segments: Vec::new(),
    };
    if kind == CollectionKind::View {
        (collection.uuid, collection.indexes) = (None, Vec::new());
    }
    Ok(collection)
}

/// The kind of a collection by its metadata. Its options count, because a view dumped as a
/// collection is not a view.
pub(super) fn kind_of(metadata: &Metadata) -> CollectionKind {
    let has = |option: &str| matches!(metadata.options.get(option), Ok(Some(_)));
    match metadata.kind.as_deref() {
        Some("timeseries") => CollectionKind::TimeSeries,
        _ if has("timeseries") => CollectionKind::TimeSeries,
        _ if has("viewOn") => CollectionKind::View,
        _ => CollectionKind::Collection,
    }
}

fn without(options: &RawDocument, fields: &[&str]) -> Result<RawDocumentBuf> {
    let mut kept = Writer::with_capacity(options.as_bytes().len());
    kept.extend_without(options.as_bytes(), |name| fields.iter().any(|field| field.as_bytes() == name))?;
    kept.raw()
}
