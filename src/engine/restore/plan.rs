//! What an import will do, and whether it may: reads only.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{RestoreOptions, guard};
use crate::catalog::Backup;
use crate::error::{Error, ErrorKind, Result};
use crate::mongo::connect::ConnectOptions;
use crate::mongo::{Connection, MongoUri};
use crate::names::{Namespace, SYSTEM_DATABASES};
use crate::pipeline::progress::{Item, Progress};
use crate::sink::{Blueprint, Target, limits, prepare};

/// A target that may be written to, and what is to stand in it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) target: Target,
    /// One for each collection of the manifest, in its order.
    pub(super) blueprints: Arc<[Blueprint]>,
}

impl Plan {
    /// Announces a collection whose documents are about to be moved.
    pub(super) fn item(&self, progress: &Progress, blueprint: &Blueprint) -> Item {
        progress.item(blueprint.namespace.to_string(), blueprint.content.documents, blueprint.content.bytes)
    }
}

/// Connects, and refuses what must not be done.
pub(super) async fn make(
    backup: &Backup,
    uri: &MongoUri,
    configured_source: Option<&MongoUri>,
    options: &RestoreOptions,
    stop: &CancellationToken,
) -> Result<Plan> {
    // 1. Names, which need no connection.
    let names = names(backup, options.database.as_deref(), uri.database())?;

    // 2. The connection, and whether it leads where it must not.
    let pool = ConnectOptions { pool: 32, selection_timeout: None };
    let connection = stop.run_until_cancelled(Connection::open(uri, pool)).await.ok_or_else(Error::interrupted)??;
    if !options.allow_same {
        stop.run_until_cancelled(guard::refuse_source(&connection, &backup.manifest.source, configured_source))
            .await
            .ok_or_else(Error::interrupted)??;
    }

    // 3. What the target's version can hold, and what stands there.
    let version = stop.run_until_cancelled(connection.behaves_as()).await.ok_or_else(Error::interrupted)?;
    let blueprints: Arc<[Blueprint]> = backup
        .manifest
        .collections
        .iter()
        .zip(names)
        .map(|(collection, name)| Blueprint::of(collection, name, version))
        .collect::<Result<_>>()?;
    let target = Target::new(connection, stop.clone());
    limits::refuse(&target, &backup.manifest, &blueprints, version).await?;
    prepare::inspect(&target, &blueprints).await?;
    Ok(Plan { target, blueprints })
}

/// Each collection's namespace in the target. A database that was asked for must have one to stand for; the one in the URI's path, which may
/// be there for other programs, counts where the backup holds one and says nothing where it holds several.
fn names(backup: &Backup, asked: Option<&str>, in_path: Option<&str>) -> Result<Vec<Namespace>> {
    let collections = &backup.manifest.collections;
    let databases: BTreeSet<&str> = collections.iter().map(|c| c.database.as_str()).collect();
    let rename = asked.or(in_path.filter(|_| databases.len() == 1));
    if let Some(new) = rename {
        check_name(new)?;
        if databases.len() > 1 {
            let held: Vec<&str> = databases.iter().copied().collect();
            return Err(Error::usage(format!(
                "the database name {new:?} is for one database, and the backup holds {}: {}",
                held.len(),
                held.join(", ")
            ))
            .hint("leave --database out"));
        }
    }
    let names: Vec<Namespace> =
        collections.iter().map(|c| Namespace::new(rename.unwrap_or(&c.database), c.name.as_str())).collect();
    if let Some(name) = names.iter().find(|n| SYSTEM_DATABASES.contains(&n.database.as_str())) {
        return Err(Error::new(
            ErrorKind::Refused,
            format!("{name} cannot be imported: the database belongs to the server itself"),
        )
        .hint("choose another database with --database"));
    }
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(*name)) {
        Some(twice) => Err(Error::damaged(format!("the manifest names {twice} twice"))),
        None => Ok(names),
    }
}

/// What servers ask of a database's name.
fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > 63 || name.contains(['/', '\\', '.', ' ', '"', '$', '\0']) {
        return Err(Error::usage(format!("{name:?} cannot be the name of a database"))
            .hint("1 to 63 bytes, without / \\ . \" $ and spaces"));
    }
    Ok(())
}
