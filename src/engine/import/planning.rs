//! Plans an import, and decides whether it may run. Reads only.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bson::RawDocument;
use uuid::Uuid;

use super::document_source::DocumentSource;
use super::options::{ImportMode, ImportOptions, IndexMode};
use super::plan::{Plan, listed};
use super::select::{Naming, Selected};
use super::{guard, in_place, keeping, overwrites, select, slice};
use crate::context::Context;
use crate::engine::asked_for::AskedFor;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{CollectionKind, Manifest};
use crate::mongo::connect::ConnectOptions;
use crate::mongo::{Connection, MongoUri};
use crate::names::{BUCKETS_PREFIX, Namespace};
use crate::oplog::apply;
use crate::sink::{CollectionSpec, Standing, Target, indexes, kept, limits, prepare};

impl Plan<'_> {
    /// Lists the target again, now that no other import changes it, and refuses what must be
    /// refused.
    pub(super) async fn look_again(&mut self) -> Result<()> {
        for (database, standing) in &mut self.standing {
            *standing = Standing::of(&self.target, database).await?;
        }
        // Only what was named, not what has replaced it since.
        let standing = &self.standing;
        self.prunes.retain(|(name, identity)| {
            let there = standing.get(&name.database).and_then(|s| Some((s, s.get(&name.collection)?)));
            there.is_some_and(|(standing, there)| standing.identity(there) == *identity)
        });
        overwrites::refuse_others(self).await?;
        match self.mode {
            ImportMode::Replace => Ok(()),
            ImportMode::Fail => refuse_standing(self),
            ImportMode::Merge | ImportMode::Add => refuse_conflicts(self).await,
        }
    }
}

/// Connects, and refuses what must not be done.
pub(super) async fn make<'a>(
    origin: &'a dyn DocumentSource,
    uri: &MongoUri,
    configured_source: Option<&MongoUri>,
    options: &ImportOptions,
    cx: &Context,
) -> Result<Plan<'a>> {
    keeping::refuse(options)?;
    if options.drop_extra && options.indexes == IndexMode::Only {
        return Err(Error::usage("[[drop-extra]] has no effect if only indexes are built")
            .hint("leave [[drop-extra]] out, or [[indexes]] only"));
    }
    if options.users.is_some() && options.indexes == IndexMode::Only {
        return Err(Error::usage("[[with-users]] has no effect if only indexes are built")
            .hint("leave [[with-users]] out, or [[indexes]] only"));
    }
    if options.users.is_some() && !origin.has_users() {
        return Err(Error::usage(format!("[[with-users]]: {} holds no users or roles", origin.name())).hint(
            "a dump of all databases has them in admin, and one of a database with --dumpDbUsersAndRoles; a backup has none",
        ));
    }
    let manifest = &origin.backup().manifest;
    // 1. The contents of the backup, and their new names. Needs no connection.
    let (collections, slice) = slice::collections(origin, cx).await?;
    let temporary = select::temporary(&collections, options);
    let lasting = collections.iter().filter(|c| !c.is_temporary()).count();
    let (selected, naming) = select::select(collections, &manifest.left_out, options, uri.database())?;

    let is_whole = selected.len() == lasting;
    let mut beside = origin.beside();
    beside.extend(temporary.into_sentences());

    // 2. The connection, and whether it leads to a forbidden deployment.
    let pool = ConnectOptions { pool: 32, selection_timeout: None };
    let connection = cx.unless_cancelled(Connection::open(uri, pool)).await?;
    if !options.allow_same {
        cx.unless_cancelled(guard::refuse_source(&connection, &manifest.source, configured_source)).await?;
    }

    // 3. What the target's version can hold, and what exists there.
    let version = cx.cancel.run_until_cancelled(connection.behaves_as()).await.ok_or_else(Error::interrupted)?;
    let specs: Vec<CollectionSpec> = selected
        .iter()
        .map(|s| CollectionSpec::of(&s.collection, s.to.clone(), version)?.altered(options.alterations))
        .collect::<Result<_>>()?;
    let target = Target::new(connection, version, cx);
    guard::refuse_followed(&target, &specs).await?;
    let differences = slice.as_ref().is_some_and(|s| s.has_differences);
    limits::refuse(&target, &manifest.source, selected.iter().map(|s| &*s.collection), &specs, version, differences).await?;
    let lacking = prepare::lacking(&target, &specs).await?;
    let standing = match (prepare::inspect(&target, &specs).await, lacking.as_ref()) {
        // A login that may not even look gets the list of all rights that it lacks.
        (Err(e), Some(lacking)) if e.kind() == ErrorKind::Denied => return Err(lacking.error()),
        (standing, _) => standing?,
    };
    let mut plan = Plan {
        origin,
        target,
        selected,
        specs,
        is_whole,
        standing,
        prunes: Vec::new(),
        slice,
        mode: options.mode,
        indexes: options.indexes,
        in_place: false,
        backup: origin.name(),
        users: options.users.clone(),
        beside,
        overwrites: None,
        only_over: None,
    };

    plan.in_place = in_place::decide(&plan, options, lacking)?;
    if plan.in_place {
        return Ok(plan);
    }
    if let Some(slice) = &plan.slice {
        apply::refuse_without_rights(&plan.target, slice.destinations(&plan).values()).await?;
    }

    // 4. What the mode forbids, what would be emptied, and what the import only reports.
    refuse_emptying(&plan)?;
    match options.mode {
        _ if options.indexes == IndexMode::Only => {}
        ImportMode::Replace => {}
        ImportMode::Fail => refuse_standing(&plan)?,
        ImportMode::Merge | ImportMode::Add => refuse_conflicts(&plan).await?,
    }
    if options.drop_extra {
        plan.prunes = prunes(&plan, &naming, manifest)?;
    }
    if options.keep_replaced {
        let standing = plan.specs.iter().filter(|b| plan.stands(b).is_some()).map(|b| &b.namespace);
        kept::refuse_without_rights(&plan.target, standing.chain(plan.prunes.iter().map(|(name, _)| name))).await?;
    }
    Ok(plan)
}

/// How the refusal of mode `add` begins.
pub const CANNOT_BE_ADDED_TO: &str = "documents cannot be added to existing collections";

/// Refuses to replace documents by an empty collection because the dump lost its documents.
fn refuse_emptying(plan: &Plan<'_>) -> Result<()> {
    let missing: HashSet<&Namespace> = plan.origin.lost().iter().collect();
    let is_lost = |(selected, spec): &(&Selected<'_>, &CollectionSpec)| {
        missing.contains(&selected.collection.namespace()) && plan.stands(spec).is_some()
    };
    let replaces = plan.mode == ImportMode::Replace && plan.indexes != IndexMode::Only;
    match plan.selected.iter().zip(&plan.specs).find(is_lost).filter(|_| replaces) {
        None => Ok(()),
        Some((selected, spec)) => Err(Error::new(
            ErrorKind::Refused,
            format!(
                "the dump has the metadata of {} but not its documents: {} would be replaced by an empty collection",
                selected.collection.namespace(),
                spec.namespace
            ),
        )
        .hint(
            "mongodump writes a file for every collection, even for an empty one: this file was lost; exclude the collection, \
             or drop the one in the target first",
        )),
    }
}

/// Mode `fail`: refuses if anything exists under one of the names.
fn refuse_standing(plan: &Plan<'_>) -> Result<()> {
    let standing: Vec<String> = plan.specs.iter().filter(|b| plan.stands(b).is_some()).map(|b| b.namespace.to_string()).collect();
    if standing.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Refused, format!("in the way in the target, and nothing was changed: {}", listed(&standing))).hint(
        "import them under other names ([[as]], [[rename]]), leave them out ([[exclude]]), or choose [[mode]] replace or merge",
    ))
}

/// Modes `merge` and `add`: refuses collections that cannot be merged into.
async fn refuse_conflicts(plan: &Plan<'_>) -> Result<()> {
    let mut conflicts = Vec::new();
    for spec in &plan.specs {
        let Some(there) = plan.stands(spec) else { continue };
        let name = &spec.namespace;
        let kind = spec.kind.to_string();
        if spec.kind == CollectionKind::View && there.kind == "view" {
            if there.options != spec.all_options()? {
                conflicts.push(format!("{name} (a different view)"));
            }
        } else if there.kind != kind {
            conflicts.push(format!("{name} (a {} in the target, a {} in the backup)", in_words(&there.kind), in_words(&kind)));
        } else if spec.kind == CollectionKind::TimeSeries {
            conflicts.push(format!("{name} (a time series)"));
        } else if spec.capped || there.options.get_bool("capped").unwrap_or(false) {
            conflicts.push(format!("{name} (capped)"));
        } else if let Some(option) = other_option(&spec.all_options()?, &there.options).filter(|_| !spec.takes_any_options) {
            conflicts.push(format!("{name} (option {option:?} differs)"));
        } else {
            let other = indexes::conflicts(&plan.target, spec).await?;
            conflicts.extend(other.into_iter().map(|index| format!("{name} (index {index:?} differs)")));
        }
    }
    if conflicts.is_empty() {
        return Ok(());
    }
    let what = if plan.mode == ImportMode::Add { CANNOT_BE_ADDED_TO } else { "cannot be merged into" };
    Err(Error::new(ErrorKind::Refused, format!("{what}, and nothing was changed: {}", listed(&conflicts)))
        .hint("import them under other names ([[as]], [[rename]]), leave them out ([[exclude]]), or choose [[mode]] replace"))
}

fn in_words(kind: &str) -> &str {
    if kind == "timeseries" { "time series" } else { kind }
}

/// The first option that only one side has, or whose values differ.
fn other_option(wanted: &RawDocument, standing: &RawDocument) -> Option<String> {
    let counts = |name: &str| !["idIndex", "autoIndexId"].contains(&name);
    let of = |document: &RawDocument| -> BTreeMap<String, Vec<u8>> {
        let elements = crate::format::document::Elements::of(document.as_bytes()).into_iter().flatten().flatten();
        elements
            .map(|e| (String::from_utf8_lossy(e.name).into_owned(), [&[e.kind], e.value].concat()))
            .filter(|(name, _)| counts(name))
            .collect()
    };
    let (wanted, standing) = (of(wanted), of(standing));
    let names: BTreeSet<&String> = wanted.keys().chain(standing.keys()).collect();
    names.into_iter().find(|name| wanted.get(*name) != standing.get(*name)).cloned()
}

/// Extra collections in the import's databases: they could have come from the backup, and are not
/// in it.
fn prunes(plan: &Plan<'_>, naming: &Naming<'_>, manifest: &Manifest) -> Result<Vec<(Namespace, Option<Uuid>)>> {
    let imported: BTreeSet<&Namespace> = plan.specs.iter().map(|b| &b.namespace).collect();
    let asked_for = AskedFor::of(manifest)?;
    let databases: BTreeSet<String> = plan.selected.iter().map(|s| s.collection.database.clone()).collect();
    let mut prunes = Vec::new();
    for (database, standing) in &plan.standing {
        for there in standing.iter() {
            let name = Namespace::new(&**database, &*there.name);
            let belongs_to_server = there.name.starts_with("system.") || there.name.starts_with(BUCKETS_PREFIX);
            if !imported.contains(&name)
                && !belongs_to_server
                && !name.is_of_an_import()
                && naming.is_in_scope(&name, &databases, &asked_for)?
            {
                prunes.push((name, standing.identity(there)));
            }
        }
    }
    Ok(prunes)
}
