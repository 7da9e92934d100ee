//! What an import replaced and keeps beside the new: moved aside under names of its own, and written down in the target, so that the
//! import can be undone.
//!
//! One document for each namespace and a header for the import stand in the import's own collection, in the database of its record. They are written by
//! steps of the record, before anything is moved: what kills an import then is brought to its end with all of it.

use std::collections::{BTreeMap, BTreeSet};

use bson::raw::cstr;
use bson::spec::BinarySubtype;
use bson::{Binary, RawDocument, RawDocumentBuf, rawdoc};
use uuid::Uuid;

use super::holdings::Holdings;
use super::record::find;
use super::step::Keep;
use super::{MAJORITY_LIMIT, Target};
use crate::error::{ErrorKind, Result};
use crate::format::digest::{Content, ContentDigest};
use crate::mongo::catalog::{self, ListedCollection};
use crate::mongo::rights::{Place, Rights};
use crate::names::{IMPORT_COLLECTION, KEPT_PREFIX, Namespace};

/// The most bytes of `DATABASE.COLLECTION` that any server takes.
const SHORTEST_LIMIT: usize = 120;

/// What a kept view, or a name under which nothing stood, is recorded as beside `collection` and `timeseries`.
const NOTHING: &str = "nothing";

/// What an import kept of one namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// Its name before the import.
    pub namespace: Namespace,
    /// Its name since.
    pub place: Namespace,
    /// `collection`, `timeseries`, `view`, or `nothing` where the import made what was not there.
    pub kind: String,
    /// The options of `create`.
    pub options: RawDocumentBuf,
    /// Its identity.
    pub uuid: Option<Uuid>,
    /// Its documents when it was kept, of a time series its buckets, as the server counted them.
    pub documents: Option<u64>,
    /// The identity of what took its place; views have none, and what was pruned has none.
    pub new: Option<Uuid>,
    /// What the import put in its place.
    pub imported: Content,
}

impl Kept {
    /// Whether there is a collection or a time series under its new name.
    #[must_use]
    pub fn holds_documents(&self) -> bool {
        matches!(self.kind.as_str(), "collection" | "timeseries")
    }

    /// Whether nothing stood there.
    #[must_use]
    pub fn was_nothing(&self) -> bool {
        self.kind == NOTHING
    }
}

/// All that one import kept.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptSet {
    /// The import.
    pub id: String,
    /// The database that has its record.
    pub home: String,
    /// The backup that it imported.
    pub backup: String,
    /// When, by the target's clock.
    pub at: bson::DateTime,
    /// Each namespace that it changed.
    pub kept: Vec<Kept>,
}

impl KeptSet {
    /// The databases that it is about, that of its record first.
    #[must_use]
    pub fn databases(&self) -> Vec<String> {
        let others: BTreeSet<&String> = self.kept.iter().map(|k| &k.namespace.database).filter(|d| **d != self.home).collect();
        std::iter::once(&self.home).chain(others).cloned().collect()
    }
}

/// Under which name something is kept: one that tells what it was, where that is short and plain enough for every server.
#[must_use]
pub fn place(id: &str, number: i64, namespace: &Namespace) -> Namespace {
    let short = Namespace::new(&*namespace.database, format!("{KEPT_PREFIX}{id}.{number}"));
    let name = &namespace.collection;
    let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) && !name.contains("system.");
    let long = Namespace::new(&*short.database, format!("{}.{name}", short.collection));
    // Of a time series, the buckets have the longer name.
    if is_plain && long.buckets().to_string().len() <= SHORTEST_LIMIT { long } else { short }
}

/// Refuses a login that may not move aside what stands under these names.
///
/// # Errors
/// [`ErrorKind::Denied`] naming what is missing; the server's; [`ErrorKind::Interrupted`].
pub async fn refuse_without_rights<'a>(target: &Target, names: impl Iterator<Item = &'a Namespace>) -> Result<()> {
    let rights = target.unless_stopped(Rights::ask(&target.connection)).await??;
    let mut missing = BTreeSet::new();
    for namespace in names {
        let kept = Namespace::new(&*namespace.database, format!("{KEPT_PREFIX}0"));
        let needs = [
            (namespace, "renameCollectionSameDB"),
            (&kept, "renameCollectionSameDB"),
            (&kept, "createCollection"),
            (&kept, "dropCollection"),
        ];
        for (place, action) in needs {
            if !rights.allows(&Place::Collection(place.clone()), action) {
                missing.insert(format!("{action} on collections of {}", namespace.database));
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let missing: Vec<String> = missing.into_iter().collect();
    Err(super::prepare::lacking_rights(&format!("{} (for [[keep-replaced]])", missing.join(", "))))
}

/// The clock of the target, by which the last of several imports is told.
///
/// # Errors
/// The server's; [`ErrorKind::Interrupted`].
pub async fn clock(target: &Target) -> Result<bson::DateTime> {
    let hello = target.run("asking for the target's time", "admin", rawdoc! { "hello": 1 }).await?;
    Ok(hello.get_datetime("localTime").copied().unwrap_or_else(|_| bson::DateTime::now()))
}

/// Writes down that an import keeps what it replaces.
pub(super) async fn begin(target: &Target, home: &str, id: &str, backup: &str, at: bson::DateTime) -> Result<()> {
    let header = rawdoc! { "_id": { "kept": id }, "backup": backup, "at": at };
    put(target, home, rawdoc! { "_id": { "kept": id } }, header).await
}

/// Writes down that nothing stood under a name, unless something was seen there before.
pub(super) async fn was_free(target: &Target, namespace: &Namespace, keep: &Keep, new: Option<Uuid>) -> Result<()> {
    let nothing = Kept {
        namespace: namespace.clone(),
        place: keep.place.clone(),
        kind: NOTHING.to_owned(),
        options: RawDocumentBuf::new(),
        uuid: None,
        documents: Some(0),
        new,
        imported: keep.imported,
    };
    put(target, &keep.home, id_of(keep), rawdoc! { "$setOnInsert": fields(&nothing) }).await
}

/// Writes down what stands under a name, before it is moved aside or changed.
pub(super) async fn remember(
    target: &Target,
    namespace: &Namespace,
    there: &ListedCollection,
    uuid: Option<Uuid>,
    keep: &Keep,
    new: Option<Uuid>,
) -> Result<()> {
    let kept = Kept {
        namespace: namespace.clone(),
        place: keep.place.clone(),
        kind: there.kind.clone(),
        options: there.options.clone(),
        uuid,
        documents: Holdings::of(target, &namespace.database, there).await?.documents(),
        new,
        imported: keep.imported,
    };
    put(target, &keep.home, id_of(keep), rawdoc! { "$set": fields(&kept) }).await
}

/// Whether something of this identity is what was written down: it is being moved then.
pub(super) async fn is_written_down(target: &Target, keep: &Keep, identity: Option<Uuid>) -> Result<bool> {
    let found = find(target, &keep.home, id_of(keep)).await?;
    let written = found.first().and_then(|document| read(document)).and_then(|kept| kept.uuid);
    // One that is half moved has no identity of its own any more.
    Ok(identity.is_none() || written == identity)
}

/// What imports keep in a target, the last import first.
///
/// # Errors
/// The server's; [`ErrorKind::Interrupted`].
pub async fn sets(target: &Target) -> Result<Vec<KeptSet>> {
    let mut sets = Vec::new();
    for database in target.unless_stopped(catalog::databases(&target.connection)).await?? {
        match find(target, &database, rawdoc! { "_id.kept": { "$exists": true } }).await {
            Ok(found) => sets.extend(sets_of(&database, &found)),
            Err(e) if e.kind() == ErrorKind::Denied => {}
            Err(e) => return Err(e),
        }
    }
    sets.sort_by(|a, b| (b.at, &b.id).cmp(&(a.at, &a.id)));
    Ok(sets)
}

/// What one import keeps; none where it keeps nothing.
///
/// # Errors
/// The server's; [`ErrorKind::Interrupted`].
pub async fn set(target: &Target, home: &str, id: &str) -> Result<Option<KeptSet>> {
    let found = find(target, home, rawdoc! { "_id.kept": id }).await?;
    Ok(sets_of(home, &found).pop())
}

fn sets_of(home: &str, found: &[RawDocumentBuf]) -> Vec<KeptSet> {
    let id = |document: &RawDocument| Some(document.get_document("_id").ok()?.get_str("kept").ok()?.to_owned());
    let mut kept: BTreeMap<String, BTreeMap<i64, Kept>> = BTreeMap::new();
    for document in found {
        let number = document.get_document("_id").ok().and_then(|id| id.get_i64("number").ok());
        if let (Some(id), Some(number), Some(one)) = (id(document), number, read(document)) {
            kept.entry(id).or_default().insert(number, one);
        }
    }
    let headers = found.iter().filter_map(|document| {
        let (id, at) = (id(document)?, document.get_datetime("at").ok()?);
        let backup = document.get_str("backup").unwrap_or("?").to_owned();
        Some(KeptSet { kept: kept.remove(&id)?.into_values().collect(), home: home.to_owned(), backup, at, id })
    });
    headers.collect()
}

/// Forgets what an import keeps: it is put back, or dropped.
pub(super) async fn forget(target: &Target, home: &str, id: &str) -> Result<()> {
    let delete = rawdoc! {
        "delete": IMPORT_COLLECTION,
        "deletes": [{ "q": { "_id.kept": id }, "limit": 0 }],
        "writeConcern": { "w": "majority", "j": true, "wtimeout": MAJORITY_LIMIT },
    };
    target.run(&format!("forgetting what an import kept in {home}"), home, delete).await.map(|_| ())
}

fn id_of(keep: &Keep) -> RawDocumentBuf {
    rawdoc! { "_id": { "kept": &*keep.id, "number": keep.number } }
}

/// Options go as bytes: servers take no names with a `$` in an update, which stages of a view have.
fn fields(kept: &Kept) -> RawDocumentBuf {
    let mut fields = rawdoc! {
        "database": &*kept.namespace.database,
        "name": &*kept.namespace.collection,
        "place": &*kept.place.collection,
        "kind": &*kept.kind,
        "options": Binary { subtype: BinarySubtype::Generic, bytes: kept.options.as_bytes().to_vec() },
        "documents": kept.documents.map_or(-1, |documents| i64::try_from(documents).unwrap_or(i64::MAX)),
        "importedDocuments": i64::try_from(kept.imported.documents).unwrap_or(i64::MAX),
        "importedBytes": i64::try_from(kept.imported.bytes).unwrap_or(i64::MAX),
        "importedDigest": kept.imported.digest().to_string(),
    };
    let binary = |uuid: Uuid| Binary { subtype: BinarySubtype::Uuid, bytes: uuid.into_bytes().to_vec() };
    if let Some(uuid) = kept.uuid {
        fields.append(cstr!("uuid"), binary(uuid));
    }
    if let Some(new) = kept.new {
        fields.append(cstr!("new"), binary(new));
    }
    fields
}

fn read(document: &RawDocument) -> Option<Kept> {
    let uuid = |field| document.get_binary(field).ok().and_then(|binary| Uuid::from_slice(binary.bytes).ok());
    let number = |field| document.get_i64(field).ok().and_then(|number| u64::try_from(number).ok());
    let database = document.get_str("database").ok()?;
    let digest = ContentDigest::try_from(document.get_str("importedDigest").ok()?.to_owned()).ok()?;
    Some(Kept {
        namespace: Namespace::new(database, document.get_str("name").ok()?),
        place: Namespace::new(database, document.get_str("place").ok()?),
        kind: document.get_str("kind").ok()?.to_owned(),
        options: RawDocumentBuf::from_bytes(document.get_binary("options").ok()?.bytes.to_vec()).ok()?,
        uuid: uuid("uuid"),
        documents: number("documents"),
        new: uuid("new"),
        imported: Content { documents: number("importedDocuments")?, bytes: number("importedBytes")?, sum: digest.0 },
    })
}

async fn put(target: &Target, home: &str, query: RawDocumentBuf, update: RawDocumentBuf) -> Result<()> {
    let what = format!("writing down in {home} what an import keeps");
    let command = rawdoc! {
        "update": IMPORT_COLLECTION,
        "updates": [{ "q": query, "u": update, "upsert": true }],
        "writeConcern": { "w": "majority", "j": true, "wtimeout": MAJORITY_LIMIT },
    };
    target.run(&what, home, command).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_names_fit_every_server() {
        let name = |database: &str, collection: &str| place("0123456789ab", 12, &Namespace::new(database, collection)).collection;
        assert_eq!(name("shop", "orders"), "bsonvault.kept.0123456789ab.12.orders");
        for odd in ["system.js", "a$b", "naïve", &"x".repeat(200)] {
            assert_eq!(name("shop", odd), "bsonvault.kept.0123456789ab.12", "{odd}");
        }
        let longest = place("0123456789ab", 999_999, &Namespace::new("d".repeat(63), "c".repeat(180)));
        assert!(longest.buckets().to_string().len() <= SHORTEST_LIMIT, "{longest}");
    }

    #[test]
    fn what_is_written_down_is_read_again() {
        let kept = Kept {
            namespace: Namespace::new("d", "v"),
            place: Namespace::new("d", "bsonvault.kept.x.1"),
            kind: "view".to_owned(),
            options: rawdoc! { "viewOn": "c", "pipeline": [{ "$match": { "n": 1 } }] },
            uuid: Some(Uuid::from_u128(7)),
            documents: None,
            new: None,
            imported: Content { documents: 3, bytes: 90, sum: u128::MAX },
        };
        assert_eq!(read(&fields(&kept)), Some(kept));
    }
}
