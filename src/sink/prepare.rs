//! What stands in the target: what forbids writing to it, what is in the way, and the collections to be filled.

use std::collections::{BTreeSet, HashSet};

use bson::{Bson, doc, rawdoc};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{Attempts, Blueprint, Problem, Target, write_concern_error, write_errors};
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::Writer;
use crate::format::manifest::{CollectionKind, Topology};
use crate::mongo::failure::{code, code_of, describe};
use crate::mongo::rights::{Place, Rights};
use crate::mongo::{catalog, command};
use crate::names::{BUCKETS_PREFIX, Namespace};

/// How many missing rights an error names.
const NAMED_RIGHTS: usize = 5;

/// Commands on the catalog that run at a time.
const AT_A_TIME: usize = 4;

/// `IllegalOperation`: what a server says of collections that it does not drop.
const ILLEGAL_OPERATION: i32 = 20;
/// `NamespaceExists`.
const NAMESPACE_EXISTS: i32 = 48;

/// Refuses a target that cannot take these collections. Reads only.
///
/// # Errors
/// [`ErrorKind::Refused`] where it is not a writable primary, where a collection of one of these names is sharded, where a database stands there
/// whose name differs in case only; [`ErrorKind::Denied`], [`ErrorKind::Unreachable`], [`ErrorKind::Server`].
pub async fn inspect(target: &Target, blueprints: &[Blueprint]) -> Result<()> {
    let connection = &target.connection;
    let hello = target.run("looking at the target", "admin", rawdoc! { "hello": 1 }).await?;
    if !hello.get_bool("isWritablePrimary").unwrap_or(false) {
        let primary = hello.get_str("primary").map(|p| format!(", its primary is {p}")).unwrap_or_default();
        return Err(Error::new(
            ErrorKind::Refused,
            format!("the target {} takes no writes: it is not a primary{primary}", connection.uri),
        )
        .hint("give the URI of the whole replica set, without directConnection"));
    }
    let wanted: BTreeSet<&str> = blueprints.iter().map(|b| b.namespace.database.as_str()).collect();
    let standing = target.unless_stopped(catalog::databases(connection)).await??;
    for name in &wanted {
        if let Some(other) = standing.iter().find(|s| s.to_lowercase() == name.to_lowercase() && s != name) {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "the target has a database {other:?}, beside which a server does not take {name:?}: they differ in case only"
                ),
            )
            .hint("drop the other one, or import into another server"));
        }
    }
    if connection.topology == Topology::Sharded {
        refuse_sharded(target, blueprints).await?;
    }
    refuse_without_rights(&target.unless_stopped(Rights::ask(connection)).await??, blueprints)
}

/// Refuses where the login lacks a right that filling, checking or finishing any of these collections needs: found out halfway, what
/// stood there would be gone.
fn refuse_without_rights(rights: &Rights, blueprints: &[Blueprint]) -> Result<()> {
    let mut missing: Vec<String> = Vec::new();
    // The rights on `system.js` come with several roles in several ways; the server has the last word there.
    for blueprint in blueprints.iter().filter(|b| !b.namespace.collection.starts_with("system.")) {
        let name = Place::Collection(blueprint.namespace.clone());
        let data = Place::Collection(Namespace::new(&*blueprint.namespace.database, blueprint.data_collection()));
        let needs = [
            ("createCollection", &name, true),
            ("dropCollection", &name, true),
            ("insert", &data, blueprint.holds_documents()),
            ("find", &data, blueprint.holds_documents()),
            ("createIndex", &name, !blueprint.indexes.is_empty()),
            ("bypassDocumentValidation", &name, blueprint.has_rules),
            ("collMod", &name, blueprint.expire_after.is_some() || blueprint.mixed_schema),
        ];
        for (action, place, _) in needs.into_iter().filter(|(action, place, needed)| *needed && !rights.allows(place, action)) {
            missing.push(format!("{action} on {place}"));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let more = missing.len().saturating_sub(NAMED_RIGHTS);
    missing.truncate(NAMED_RIGHTS);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(Error::new(
        ErrorKind::Denied,
        format!("the login at the target lacks rights, and nothing was changed: {}{more}", missing.join(", ")),
    )
    .hint("grant it `readWriteAnyDatabase` and `dbAdminAnyDatabase`; `bsonvault check` shows what for"))
}

async fn refuse_sharded(target: &Target, blueprints: &[Blueprint]) -> Result<()> {
    let names: Vec<Bson> =
        blueprints.iter().flat_map(|b| [b.namespace.to_string(), b.namespace.buckets().to_string()]).map(Bson::String).collect();
    let find = doc! { "find": "collections", "filter": { "_id": { "$in": names }, "dropped": { "$ne": true } } };
    let find = bson::RawDocumentBuf::try_from(&find)
        .map_err(|e| Error::new(ErrorKind::Internal, "a command was not put together as a document").cause(e))?;
    let (found, _) = target
        .unless_stopped(command::run_cursor(&target.connection.database("config"), find))
        .await?
        .map_err(|e| describe(target.connection.role(), "looking for sharded collections", e))?;
    let sharded: Vec<&str> = found.iter().filter_map(|f| f.get_str("_id").ok()).collect();
    if sharded.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Refused, format!("sharded in the target, and so not replaced: {}", sharded.join(", ")))
        .hint("drop them first, or import into a server that does not shard them"))
}

/// Drops what stands under the names of these collections, whatever its kind; everything else is left alone.
///
/// # Errors
/// The server's, naming the namespace; [`ErrorKind::Interrupted`].
pub async fn drop_standing(target: &Target, blueprints: &[Blueprint]) -> Result<()> {
    let databases: BTreeSet<&str> = blueprints.iter().map(|b| b.namespace.database.as_str()).collect();
    let mut standing = HashSet::new();
    for database in databases {
        let (found, _) = target.unless_stopped(catalog::collections(&target.connection, database)).await??;
        standing.extend(found.into_iter().map(|c| Namespace::new(database, c.name)));
    }
    let in_the_way: Vec<Namespace> = blueprints.iter().map(|b| b.namespace.clone()).filter(|n| standing.contains(n)).collect();
    each(in_the_way, |namespace| async move { drop_one(target, &namespace).await }).await?;
    // Buckets go with their time series; those that are left have none, and stand in the way of a new one all the same.
    let orphans: Vec<Namespace> = blueprints
        .iter()
        .filter(|b| b.kind == CollectionKind::TimeSeries)
        .map(|b| b.namespace.buckets())
        .filter(|n| standing.contains(n))
        .collect();
    each(orphans, |namespace| async move { drop_one(target, &namespace).await }).await
}

async fn each<F: Future<Output = Result<()>>>(namespaces: Vec<Namespace>, work: impl Fn(Namespace) -> F) -> Result<()> {
    stream::iter(namespaces.into_iter().map(work)).buffer_unordered(AT_A_TIME).try_collect().await
}

async fn drop_one(target: &Target, namespace: &Namespace) -> Result<()> {
    let what = format!("dropping {namespace}");
    let mut attempts = Attempts::new(target, &what);
    loop {
        let drop = rawdoc! { "drop": namespace.collection.as_str(), "writeConcern": { "w": 1 } };
        match target.try_run(&namespace.database, drop, Some(command::COMMAND_LIMIT)).await? {
            Ok(reply) => match write_concern_error(&reply) {
                None => return Ok(()),
                Some(problem) => attempts.again_after(problem).await?,
            },
            Err(e) if code_of(&e) == Some(code::NAMESPACE_NOT_FOUND) => return Ok(()),
            // `system.js`: it can be emptied.
            Err(e)
                if code_of(&e) == Some(ILLEGAL_OPERATION)
                    && namespace.collection.starts_with("system.")
                    && !namespace.collection.starts_with(BUCKETS_PREFIX) =>
            {
                return empty(target, namespace).await;
            }
            Err(e) => attempts.again(e).await?,
        }
    }
}

async fn empty(target: &Target, namespace: &Namespace) -> Result<()> {
    let what = format!("emptying {namespace}");
    let delete = rawdoc! {
        "delete": namespace.collection.as_str(),
        "deletes": [{ "q": {}, "limit": 0 }],
        "writeConcern": { "w": 1 },
    };
    let reply = target.run(&what, &namespace.database, delete).await?;
    if let Some(problem) = write_errors(&reply).into_iter().next() {
        return Err(problem.error(&what));
    }
    let drop = rawdoc! { "dropIndexes": namespace.collection.as_str(), "index": "*", "writeConcern": { "w": 1 } };
    target.run(&what, &namespace.database, drop).await.map(|_| ())
}

/// Creates every collection and time series, empty, with its options but without any expiry. Views are left for
/// [`create_views`].
///
/// # Errors
/// The server's, naming the namespace; [`ErrorKind::Interrupted`].
pub async fn create(target: &Target, blueprints: &[Blueprint]) -> Result<()> {
    let work = blueprints.iter().filter(|b| b.holds_documents()).map(|blueprint| async move {
        create_one(target, blueprint).await?;
        if blueprint.mixed_schema {
            allow_mixed_schema(target, blueprint).await?;
        }
        Ok(())
    });
    stream::iter(work).buffer_unordered(AT_A_TIME).try_collect().await
}

/// Tells the target that buckets of this time series may hold measurements of several types.
///
/// # Errors
/// As for [`create`].
pub(super) async fn allow_mixed_schema(target: &Target, blueprint: &Blueprint) -> Result<()> {
    let mixed = rawdoc! {
        "collMod": blueprint.namespace.collection.as_str(),
        "timeseriesBucketsMayHaveMixedSchemaData": true,
        "writeConcern": { "w": 1 },
    };
    let what = format!("allowing mixed buckets in {}", blueprint.namespace);
    target.run(&what, &blueprint.namespace.database, mixed).await.map(drop)
}

/// Creates every view.
///
/// # Errors
/// As for [`create`].
pub async fn create_views(target: &Target, blueprints: &[Blueprint]) -> Result<()> {
    let mut left: Vec<&Blueprint> = blueprints.iter().filter(|b| !b.holds_documents()).collect();
    // A view may be asked for before the one that it is on. Those that fail are tried again as long as others succeed.
    loop {
        let (mut failed, mut first_error) = (Vec::new(), None);
        let before = left.len();
        for view in left {
            match create_one(target, view).await {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => return Err(e),
                Err(e) => {
                    first_error.get_or_insert(e);
                    failed.push(view);
                }
            }
        }
        match first_error {
            None => return Ok(()),
            Some(e) if failed.len() == before => return Err(e),
            Some(_) => left = failed,
        }
    }
}

async fn create_one(target: &Target, blueprint: &Blueprint) -> Result<()> {
    let namespace = &blueprint.namespace;
    let mut create = Writer::default();
    create.string("create", &namespace.collection);
    for element in crate::format::document::Elements::of(blueprint.options.as_bytes())? {
        let element = element?;
        create.element(element.kind, element.name, element.value);
    }
    // A view is written once everything else is durable, and has to be so at once.
    let concern = match blueprint.kind {
        CollectionKind::View => rawdoc! { "w": "majority", "j": true },
        CollectionKind::Collection | CollectionKind::TimeSeries => rawdoc! { "w": 1 },
    };
    create.document("writeConcern", concern.as_bytes());
    let create = create.raw()?;
    let what = format!("creating {namespace}");
    let mut attempts = Attempts::new(target, &what);
    loop {
        match target.try_run(&namespace.database, create.clone(), Some(command::COMMAND_LIMIT)).await? {
            Ok(reply) => match write_concern_error(&reply) {
                None => return Ok(()),
                Some(problem) => attempts.again_after(problem).await?,
            },
            // It cannot be dropped, so it was emptied instead.
            Err(e) if code_of(&e) == Some(NAMESPACE_EXISTS) && namespace.collection.starts_with("system.") => return Ok(()),
            // Everything under this name was dropped a moment ago: an attempt whose reply was lost made it, or the last command of an
            // import that was stopped, or an application. It goes, too, as long as patience lasts.
            Err(e) if code_of(&e) == Some(NAMESPACE_EXISTS) => {
                let again = Problem { index: 0, code: code::HOST_UNREACHABLE, message: e.to_string() };
                attempts.again_after(again).await?;
                drop_one(target, namespace).await?;
            }
            Err(e) => attempts.again(e).await?,
        }
    }
}
