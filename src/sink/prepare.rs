//! Checks the target before writing: what exists in it, and what forbids writing to it. Only reads.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Bson, doc, rawdoc};

use super::{CollectionSpec, Standing, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{CollectionKind, Topology};
use crate::mongo::failure::{describe, without_login};
use crate::mongo::rights::{Place, Rights};
use crate::mongo::{Role, catalog, command};
use crate::names::{FILLING_PREFIX, IMPORT_COLLECTION, Namespace, STAGING_PREFIX};

/// How many missing rights an error names.
const NAMED_RIGHTS: usize = 5;

/// Refuses a target that cannot take these collections, and returns what exists in their databases.
///
/// # Errors
/// [`ErrorKind::Refused`] if it is not a writable primary, if a collection of one of these names is
/// sharded, or if a database exists whose name differs in case only; [`ErrorKind::Denied`],
/// [`ErrorKind::Unreachable`], [`ErrorKind::Server`].
pub async fn inspect(target: &Target, specs: &[CollectionSpec]) -> Result<BTreeMap<String, Standing>> {
    let connection = &target.connection;
    let hello = target.run("inspecting the target", "admin", rawdoc! { "hello": 1 }).await?;
    if !hello.get_bool("isWritablePrimary").unwrap_or(false) {
        let primary = hello.get_str("primary").map(|p| format!(", its primary is {p}")).unwrap_or_default();
        return Err(Error::new(
            ErrorKind::Refused,
            format!("the target {} accepts no writes: it is not a primary{primary}", connection.uri),
        )
        .hint("give the URI of the whole replica set, without directConnection"));
    }
    let wanted: BTreeSet<&str> = specs.iter().map(|b| b.namespace.database.as_str()).collect();
    let standing = target.unless_stopped(catalog::databases(connection)).await??;
    for name in &wanted {
        if let Some(other) = standing.iter().find(|s| s.to_lowercase() == name.to_lowercase() && s != name) {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "the target has a database {other:?}, and servers do not allow {name:?} beside it: they differ in case only"
                ),
            )
            .hint("drop the other one, or import into another server"));
        }
    }
    if connection.topology == Topology::Sharded {
        refuse_sharded(target, specs).await?;
    }
    let mut found = BTreeMap::new();
    for database in wanted {
        found.insert(database.to_owned(), Standing::of(target, database).await?);
    }
    Ok(found)
}

/// Rights that a login lacks.
#[derive(Debug)]
pub struct Lacking {
    missing: Vec<String>,
    /// Whether nobody is logged in.
    nobody: bool,
    /// Whether its rights are enough to fill collections under their final names: see
    /// [`in_place`](super::in_place).
    pub allows_filling: bool,
}

impl Lacking {
    /// The error for it.
    #[must_use]
    pub fn error(&self) -> Error {
        if self.nobody {
            return without_login(Role::Target, "nothing was changed");
        }
        let named = &self.missing[..self.missing.len().min(NAMED_RIGHTS)];
        let more = self.missing.len() - named.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        lacking_rights(&format!("{}{more}", named.join(", ")))
    }
}

/// The missing rights of the login to fill, check or finish any of these collections. Discovered
/// halfway, it would be too late: the existing collections would be gone.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
pub async fn lacking(target: &Target, specs: &[CollectionSpec]) -> Result<Option<Lacking>> {
    let rights = target.unless_stopped(Rights::ask(&target.connection)).await??;
    let missing = missing_rights(&rights, specs);
    let nobody = rights.users.is_empty();
    Ok((!missing.is_empty()).then(|| Lacking { nobody, allows_filling: allows_filling(&rights, specs), missing }))
}

/// Whether these may be filled under their final names.
fn allows_filling(rights: &Rights, specs: &[CollectionSpec]) -> bool {
    specs.iter().all(|spec| {
        let marker = Namespace::new(&*spec.namespace.database, format!("{FILLING_PREFIX}0"));
        let name = spec.namespace.clone();
        let data = if spec.kind == CollectionKind::TimeSeries { name.buckets() } else { name.clone() };
        let (marker, name, data) = (Place::Collection(marker), Place::Collection(name), Place::Collection(data));
        let catalog = ["createCollection", "dropCollection", "collMod"];
        let indexed = !spec.indexes.is_empty();
        catalog.iter().all(|action| rights.allows(&marker, action) && rights.allows(&name, action))
            && (!spec.holds_documents() || rights.allows(&data, "insert"))
            && (!indexed || rights.allows(&name, "createIndex"))
            && (!spec.has_rules || rights.allows(&name, "bypassDocumentValidation"))
    })
}

fn missing_rights(rights: &Rights, specs: &[CollectionSpec]) -> Vec<String> {
    let mut missing: Vec<String> = Vec::new();
    // The rights on `system.js` come with several roles in several ways, so the server decides
    // there.
    let mut need = |action: &str, place: &Place| {
        // Nobody needs to know internal names; rights on them are granted on the database.
        let words = match place {
            Place::Collection(name) if name.is_of_an_import() => format!("{action} on collections of {}", name.database),
            _ => format!("{action} on {place}"),
        };
        if !rights.allows(place, action) && !missing.contains(&words) {
            missing.push(words);
        }
    };
    for database in specs.iter().map(|b| &b.namespace.database).collect::<BTreeSet<_>>() {
        let lease = Place::Collection(Namespace::new(&**database, IMPORT_COLLECTION));
        ["find", "insert", "update", "remove", "dropCollection"].iter().for_each(|action| need(action, &lease));
    }
    for spec in specs.iter().filter(|b| !b.namespace.collection.starts_with("system.")) {
        let name = Place::Collection(spec.namespace.clone());
        need("dropCollection", &name);
        if !spec.holds_documents() {
            need("createCollection", &name);
            continue;
        }
        // The collection that is filled: any name that staging may get.
        let staging = Namespace::new(&*spec.namespace.database, format!("{STAGING_PREFIX}0"));
        let data = match spec.kind {
            CollectionKind::TimeSeries => staging.buckets(),
            CollectionKind::Collection | CollectionKind::View => staging.clone(),
        };
        let (staging, data) = (Place::Collection(staging), Place::Collection(data));
        ["createCollection", "dropCollection", "renameCollectionSameDB"].iter().for_each(|action| need(action, &staging));
        ["insert", "find"].iter().for_each(|action| need(action, &data));
        if !spec.indexes.is_empty() {
            need("createIndex", &staging);
        }
        if spec.has_rules {
            need("bypassDocumentValidation", &staging);
        }
        if spec.expire_after.is_some() || spec.mixed_schema {
            need("collMod", &staging);
        }
    }
    missing
}

/// The error of a login without these rights.
pub(super) fn lacking_rights(missing: &str) -> Error {
    Error::new(ErrorKind::Denied, format!("the login at the target lacks rights, and nothing was changed: {missing}")).hint(
        "grant it `readWrite` and `dbAdmin` on each database to import into; for time series or all databases, `readWriteAnyDatabase` and \
         `dbAdminAnyDatabase`; or a role of your own, for time series on {db: DATABASE, system_buckets: \"\"}; `bsonvault check` shows the reasons",
    )
}

async fn refuse_sharded(target: &Target, specs: &[CollectionSpec]) -> Result<()> {
    let names: Vec<Bson> =
        specs.iter().flat_map(|b| [b.namespace.to_string(), b.namespace.buckets().to_string()]).map(Bson::String).collect();
    let find = doc! { "find": "collections", "filter": { "_id": { "$in": names }, "dropped": { "$ne": true } } };
    let find = bson::RawDocumentBuf::try_from(&find)
        .map_err(|e| Error::new(ErrorKind::Internal, "the query for sharded collections is not a valid document").cause(e))?;
    let (found, _) = target
        .unless_stopped(command::run_cursor(&target.connection.database("config"), find))
        .await?
        .map_err(|e| describe(target.connection.role(), "looking for sharded collections", e))?;
    let sharded: Vec<&str> = found.iter().filter_map(|f| f.get_str("_id").ok()).collect();
    if sharded.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Refused,
        format!("collections that are sharded in the target cannot be replaced: {}", sharded.join(", ")),
    )
    .hint("drop them first, or import into a server that does not shard them"))
}
