//! Changes collections of a target as its source changed them. Each change may be repeated: what is
//! done already is found done, by UUID.

use bson::{RawDocumentBuf, rawdoc};
use uuid::Uuid;

use super::{Attempts, CollectionSpec, Standing, Target, ddl, indexes};
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::Writer;
use crate::format::manifest::CollectionKind;
use crate::mongo::failure::{code, code_of};
use crate::mongo::{catalog, command};
use crate::names::Namespace;

/// What exists under a name: its UUID, if it has one.
async fn there(target: &Target, namespace: &Namespace) -> Result<Option<Option<Uuid>>> {
    let what = format!("looking for {namespace}");
    let list = rawdoc! { "listCollections": 1, "filter": { "name": namespace.collection.as_str() } };
    let reply = target.run(&what, &namespace.database, list).await?;
    let found = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let found = found.ok().and_then(|found| found.first()?.as_document());
    let uuid = |info: &bson::Document| match info.get_document("info").ok()?.get("uuid")? {
        bson::Bson::Binary(binary) => Uuid::from_slice(&binary.bytes).ok(),
        _ => None,
    };
    Ok(found.map(uuid))
}

/// The UUID of the collection that holds the documents of a collection or time series.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
pub async fn identity(target: &Target, namespace: &Namespace, kind: CollectionKind) -> Result<Option<Uuid>> {
    Ok(match kind {
        CollectionKind::View => None,
        CollectionKind::Collection => there(target, namespace).await?.flatten(),
        CollectionKind::TimeSeries => there(target, &namespace.buckets()).await?.flatten(),
    })
}

/// Creates a collection, time series or view. What is in its place and holds nothing is replaced:
/// an earlier attempt made it. Returns its UUID.
///
/// # Errors
/// [`ErrorKind::Refused`] if something that holds documents is in its place; server errors.
pub async fn create(target: &Target, spec: &CollectionSpec) -> Result<Option<Uuid>> {
    let namespace = &spec.namespace;
    if there(target, namespace).await?.is_some() {
        if spec.kind != CollectionKind::View && !is_empty(target, namespace).await? {
            return Err(in_the_way(namespace));
        }
        if is_kept(namespace) {
            return identity(target, namespace, spec.kind).await;
        }
        ddl::drop(target, namespace).await?;
    }
    ddl::create(target, namespace, &spec.all_options()?).await?;
    identity(target, namespace, spec.kind).await
}

fn in_the_way(namespace: &Namespace) -> Error {
    Error::new(ErrorKind::Refused, format!("{namespace} exists in the target, holds documents, and is not the source's"))
        .hint("somebody else writes to the target: move it out of the way by renaming it")
}

async fn is_empty(target: &Target, namespace: &Namespace) -> Result<bool> {
    let what = format!("looking into {namespace}");
    let find = rawdoc! { "find": namespace.collection.as_str(), "limit": 1, "projection": { "_id": 1 } };
    let reply = target.run(&what, &namespace.database, find).await?;
    Ok(reply.get_document("cursor").and_then(|c| c.get_array("firstBatch")).is_ok_and(Vec::is_empty))
}

/// How many documents a collection holds; for a time series, buckets. By the server's counter,
/// which may be a little wrong after a crash of the server.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
pub async fn count(target: &Target, namespace: &Namespace, kind: CollectionKind) -> Result<u64> {
    let data = if kind == CollectionKind::TimeSeries { namespace.buckets() } else { namespace.clone() };
    let what = format!("counting the documents of {namespace}");
    let reply = target.run(&what, &data.database, rawdoc! { "count": data.collection.as_str() }).await?;
    Ok(catalog::number(&reply, "n").unwrap_or(0))
}

/// Whether servers only drop it with its database.
fn is_kept(namespace: &Namespace) -> bool {
    namespace.collection == "system.js"
}

/// Drops a collection, unless another one has its name by now. One that servers do not drop is
/// emptied.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
pub async fn drop(target: &Target, namespace: &Namespace, kind: CollectionKind, uuid: Option<Uuid>) -> Result<()> {
    match identity(target, namespace, kind).await? {
        found if found != uuid => Ok(()),
        _ if is_kept(namespace) => {
            let delete = rawdoc! {
                "delete": namespace.collection.as_str(), "deletes": [{ "q": {}, "limit": 0 }], "writeConcern": { "w": 1 },
            };
            target.run(&format!("emptying {namespace}"), &namespace.database, delete).await.map(|_| ())
        }
        _ => ddl::drop(target, namespace).await,
    }
}

/// Drops a database of which nothing is left but what servers only drop with it.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
pub async fn drop_remains(target: &Target, database: &str) -> Result<()> {
    let standing = Standing::of(target, database).await?;
    let names: Vec<Namespace> = standing.iter().map(|there| Namespace::new(database, &*there.name)).collect();
    let [only] = names.as_slice() else { return Ok(()) };
    if is_kept(only) && is_empty(target, only).await? {
        let drop = rawdoc! { "dropDatabase": 1, "writeConcern": { "w": 1 } };
        target.run(&format!("dropping {database}"), database, drop).await?;
    }
    Ok(())
}

/// Renames a collection. `over` is the one that it replaces, if any.
///
/// # Errors
/// [`ErrorKind::Refused`] if it is not there, or something else is in its place; server errors.
pub async fn rename(target: &Target, uuid: Uuid, from: &Namespace, to: &Namespace, over: bool) -> Result<()> {
    let what = format!("renaming {from} to {to}");
    let mut attempts = Attempts::new(target, &what);
    loop {
        if there(target, from).await?.flatten() != Some(uuid) {
            // An earlier attempt has renamed it.
            if there(target, to).await?.flatten() == Some(uuid) {
                return Ok(());
            }
            // Into another database, it got another UUID.
            if from.database != to.database && there(target, to).await?.is_some() {
                return Ok(());
            }
            return Err(Error::new(ErrorKind::Refused, format!("{what}: it is not in the target any more"))
                .hint("somebody else changes the target's collections: begin anew"));
        }
        let rename = rawdoc! {
            "renameCollection": from.to_string(), "to": to.to_string(), "dropTarget": over, "writeConcern": { "w": 1 },
        };
        match target.try_run("admin", rename, Some(command::COMMAND_LIMIT)).await? {
            Err(e) if code_of(&e) == Some(code::NAMESPACE_EXISTS) => return Err(in_the_way(to)),
            tried => {
                if attempts.judge(tried).await?.is_some() {
                    return Ok(());
                }
            }
        }
    }
}

/// Drops indexes by name. Those that do not exist are dropped already.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
pub async fn drop_indexes(target: &Target, namespace: &Namespace, names: &[String]) -> Result<()> {
    for name in names {
        let what = format!("dropping the index {name:?} of {namespace}");
        let drop = rawdoc! {
            "dropIndexes": namespace.collection.as_str(), "index": name.as_str(), "writeConcern": { "w": 1 },
        };
        let mut attempts = Attempts::new(target, &what);
        loop {
            match target.try_run(&namespace.database, drop.clone(), Some(command::COMMAND_LIMIT)).await? {
                Err(e) if matches!(code_of(&e), Some(code::INDEX_NOT_FOUND | code::NAMESPACE_NOT_FOUND)) => break,
                tried => {
                    if attempts.judge(tried).await?.is_some() {
                        break;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Drops all indexes of a collection but the one on `_id`, and the one that it is stored by.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
pub async fn drop_all_indexes(target: &Target, namespace: &Namespace) -> Result<()> {
    let found = indexes::standing(target, namespace).await?;
    let found = found.iter().filter(|index| !index.get_bool("clustered").unwrap_or(false));
    let names: Vec<String> = found.filter_map(|index| catalog::name(index)).filter(|name| name != "_id_").collect();
    drop_indexes(target, namespace, &names).await
}

/// Changes options by `collMod` with these fields.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
pub async fn modify(target: &Target, namespace: &Namespace, fields: &RawDocumentBuf) -> Result<()> {
    let mut writer = Writer::default();
    writer.extend(fields.as_bytes())?;
    ddl::modify(target, &format!("changing {namespace}"), namespace, writer).await
}

/// Whether the server expires documents by itself; `None` if the login may not ask.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
pub async fn expires(target: &Target) -> Result<Option<bool>> {
    let ask = rawdoc! { "getParameter": 1, "ttlMonitorEnabled": 1 };
    match target.run("asking whether the target expires documents", "admin", ask).await {
        Ok(reply) => Ok(reply.get_bool("ttlMonitorEnabled").ok()),
        Err(e) if e.kind() == ErrorKind::Denied => Ok(None),
        Err(e) => Err(e),
    }
}

/// Lets the server expire documents by itself, or not. False if the login may not.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
pub async fn set_expires(target: &Target, enabled: bool) -> Result<bool> {
    let set = rawdoc! { "setParameter": 1, "ttlMonitorEnabled": enabled };
    match target.run("setting whether the target expires documents", "admin", set).await {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.kind(), ErrorKind::Denied | ErrorKind::Server) => Ok(false),
        Err(e) => Err(e),
    }
}
