//! Records what an import replaced and keeps: moved aside under reserved names, and recorded in the
//! target, so that the import can be undone.
//!
//! The import's own collection, in the database of its record, has one document per namespace and a
//! header for the import. Steps of the record write them before anything is moved. If the import is
//! killed then, all of it is still finished.

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

/// The largest number of bytes in `DATABASE.COLLECTION` that every server allows.
const SHORTEST_LIMIT: usize = 120;

/// The recorded kind of a name that did not exist, besides `collection`, `timeseries` and `view`.
const NOTHING: &str = "nothing";

/// What an import kept of one namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// Its name before the import.
    pub namespace: Namespace,
    /// Its name since the import.
    pub place: Namespace,
    /// `collection`, `timeseries`, `view`, or `nothing` if the import created what did not exist.
    pub kind: String,
    /// The options for `create`.
    pub options: RawDocumentBuf,
    /// Its UUID.
    pub uuid: Option<Uuid>,
    /// The number of its documents when it was kept, as the server counted them; for a time series,
    /// of its buckets.
    pub documents: Option<u64>,
    /// The UUID of its replacement; `None` for views and for dropped extras.
    pub new: Option<Uuid>,
    /// The content that the import put in its place.
    pub imported: Content,
}

impl Kept {
    /// Whether a collection or a time series is under its new name.
    #[must_use]
    pub fn holds_documents(&self) -> bool {
        matches!(self.kind.as_str(), "collection" | "timeseries")
    }

    /// Whether nothing existed there.
    #[must_use]
    pub fn was_nothing(&self) -> bool {
        self.kind == NOTHING
    }
}

/// Everything that one import kept.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptSet {
    /// The import.
    pub id: String,
    /// The database with its record.
    pub home: String,
    /// The backup that it imported.
    pub backup: String,
    /// When, by the target's clock.
    pub at: bson::DateTime,
    /// Each namespace that it changed.
    pub kept: Vec<Kept>,
}

impl KeptSet {
    /// The databases concerned, starting with that of its record.
    #[must_use]
    pub fn databases(&self) -> Vec<String> {
        let others: BTreeSet<&String> = self.kept.iter().map(|k| &k.namespace.database).filter(|d| **d != self.home).collect();
        std::iter::once(&self.home).chain(others).cloned().collect()
    }
}

/// The name under which a collection is kept. It includes the original name, if that is short and
/// plain enough for every server.
#[must_use]
pub fn place(id: &str, number: i64, namespace: &Namespace) -> Namespace {
    let short = Namespace::new(&*namespace.database, format!("{KEPT_PREFIX}{id}.{number}"));
    let name = &namespace.collection;
    let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) && !name.contains("system.");
    let long = Namespace::new(&*short.database, format!("{}.{name}", short.collection));
    // The buckets of a time series have the longer name.
    if is_plain && long.buckets().to_string().len() <= SHORTEST_LIMIT { long } else { short }
}

/// Refuses a login that may not move these collections aside.
///
/// # Errors
/// [`ErrorKind::Denied`] with the missing rights; server errors; [`ErrorKind::Interrupted`].
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

/// The target's clock, which shows the last one of several imports.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
pub async fn clock(target: &Target) -> Result<bson::DateTime> {
    let hello = target.run("reading the target's clock", "admin", rawdoc! { "hello": 1 }).await?;
    Ok(hello.get_datetime("localTime").copied().unwrap_or_else(|_| bson::DateTime::now()))
}

/// Records that an import keeps what it replaces.
pub(super) async fn begin(target: &Target, home: &str, id: &str, backup: &str, at: bson::DateTime) -> Result<()> {
    let header = rawdoc! { "_id": { "kept": id }, "backup": backup, "at": at };
    put(target, home, rawdoc! { "_id": { "kept": id } }, header).await
}

/// Records that nothing existed under a name, unless something was seen there before.
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

/// Records what exists under a name, before it is moved aside or changed.
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

/// Records the UUID of a replacement that was copied instead of renamed.
pub(super) async fn was_copied(target: &Target, keep: &Keep, new: Option<Uuid>) -> Result<()> {
    let Some(new) = new else { return Ok(()) };
    let new = Binary { subtype: BinarySubtype::Uuid, bytes: new.into_bytes().to_vec() };
    put(target, &keep.home, id_of(keep), rawdoc! { "$set": { "new": new } }).await
}

/// Whether the collection with this UUID is the recorded one: then it is being moved.
pub(super) async fn is_written_down(target: &Target, keep: &Keep, identity: Option<Uuid>) -> Result<bool> {
    let found = find(target, &keep.home, id_of(keep)).await?;
    let written = found.first().and_then(|document| read(document)).and_then(|kept| kept.uuid);
    // A half-moved one has no UUID any more.
    Ok(identity.is_none() || written == identity)
}

/// What imports keep in a target, the latest import first.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
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

/// What one import keeps; `None` if it keeps nothing.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
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

/// Deletes the record of what an import keeps, once that is restored or dropped.
pub(super) async fn forget(target: &Target, home: &str, id: &str) -> Result<()> {
    let delete = rawdoc! {
        "delete": IMPORT_COLLECTION,
        "deletes": [{ "q": { "_id.kept": id }, "limit": 0 }],
        "writeConcern": { "w": "majority", "j": true, "wtimeout": MAJORITY_LIMIT },
    };
    target.run(&format!("deleting the record of what an import kept in {home}"), home, delete).await.map(|_| ())
}

fn id_of(keep: &Keep) -> RawDocumentBuf {
    rawdoc! { "_id": { "kept": &*keep.id, "number": keep.number } }
}

/// Options are stored as bytes: servers refuse names with a `$` in an update, and the stages of a
/// view have them.
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
    let what = format!("recording in {home} what an import keeps");
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
