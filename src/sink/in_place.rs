//! Fills collections under their final names, for a login that may create, insert and drop, but
//! neither read nor rename: the built-in role `restore`.
//!
//! The collections must not exist before, and on failure everything created is dropped. A marker
//! shows what a crashed process left: an empty collection in each database, whose validator names
//! the collections that are being filled. Such a login can read nothing but listings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc, rawdoc};
use uuid::Uuid;

use super::{CollectionSpec, MAJORITY_LIMIT, Standing, Target, command, ddl, staging, write_concern_error};
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::Writer;
use crate::mongo::catalog::ListedCollection;
use crate::mongo::failure::{code, code_of, describe};
use crate::names::{FILLING_PREFIX, Namespace};

/// How often a marker is renewed, which shows that its holder is alive.
const BEAT: Duration = Duration::from_millis(1500);
/// How many times to check whether a command came late.
const ROUNDS: u32 = 10;
/// The pause between two checks.
const PAUSE: Duration = Duration::from_millis(100);
/// How long to watch a marker that does not change.
const SILENCE: Duration = Duration::from_secs(6);

/// The collections being filled under their final names, and their markers.
#[derive(Debug)]
pub struct Filling {
    target: Target,
    id: String,
    /// The UUIDs of the created collections, by database.
    made: BTreeMap<String, Vec<(Namespace, Uuid)>>,
    views: Vec<Namespace>,
    beating: tokio::task::JoinHandle<()>,
}

/// The leftovers of crashed restores among the collections of a database.
#[must_use]
pub fn left(database: &str, standing: &Standing) -> Vec<Namespace> {
    markers(standing).flat_map(|marker| named(database, marker, standing)).collect()
}

/// The markers among the collections of a database.
pub(super) fn markers(standing: &Standing) -> impl Iterator<Item = &ListedCollection> {
    standing.iter().filter(|c| c.name.starts_with(FILLING_PREFIX))
}

/// What a marker names and still exists.
fn named(database: &str, marker: &ListedCollection, standing: &Standing) -> Vec<Namespace> {
    let validator = marker.options.get_document("validator").ok().and_then(|v| Document::try_from(v).ok()).unwrap_or_default();
    let texts = |field: &str| -> BTreeSet<String> {
        let listed = validator.get_document(field).ok().and_then(|d| d.get_array("$in").ok());
        listed.into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let (uuids, views) = (texts("collections"), texts("views"));
    let is_named = |there: &&ListedCollection| {
        let identity = standing.identity(there).map(|uuid| uuid.to_string());
        let is_of_buckets = there.name.starts_with(crate::names::BUCKETS_PREFIX);
        (!is_of_buckets && identity.is_some_and(|uuid| uuids.contains(&uuid)))
            || (there.kind == "view" && views.contains(&there.name))
    };
    standing.iter().filter(is_named).map(|there| Namespace::new(database, &*there.name)).collect()
}

/// Removes the markers of crashed restores if nothing that they name exists any more.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
pub async fn forget(target: &Target, databases: &BTreeSet<String>) -> Result<()> {
    for database in databases {
        let standing = Standing::of(target, database).await?;
        for marker in markers(&standing).filter(|marker| named(database, marker, &standing).is_empty()) {
            ddl::drop(target, &Namespace::new(&**database, &*marker.name)).await?;
        }
    }
    Ok(())
}

/// Drops the leftovers in these databases of restores that crashed while filling. Returns what was
/// dropped.
///
/// # Errors
/// [`ErrorKind::Busy`] if one of them is still alive; server errors; [`ErrorKind::Interrupted`].
pub async fn clean(target: &Target, databases: &[String]) -> Result<Vec<Namespace>> {
    let mut dropped = Vec::new();
    for database in databases {
        let standing = Standing::of(target, database).await?;
        let markers: Vec<ListedCollection> = markers(&standing).cloned().collect();
        dropped.extend(clean_one(target, database, &markers).await?);
    }
    Ok(dropped)
}

/// The same in one database, for the markers seen there.
///
/// # Errors
/// As for [`clean`].
pub async fn clean_one(target: &Target, database: &str, markers: &[ListedCollection]) -> Result<Vec<Namespace>> {
    let mut dropped = Vec::new();
    if markers.is_empty() {
        return Ok(dropped);
    }
    let later = refuse_beating(target, database, markers).await?;
    for marker in markers {
        for namespace in named(database, marker, &later) {
            ddl::drop(target, &namespace).await?;
            dropped.push(namespace);
        }
        ddl::drop(target, &Namespace::new(database, &*marker.name)).await?;
    }
    Ok(dropped)
}

/// Waits as long as the marker of a live restore may stay unchanged. Returns the listing after
/// that.
///
/// # Errors
/// [`ErrorKind::Busy`] if one of these markers has changed; server errors;
/// [`ErrorKind::Interrupted`].
pub async fn refuse_beating(target: &Target, database: &str, markers: &[ListedCollection]) -> Result<Standing> {
    let since = tokio::time::Instant::now();
    loop {
        let later = Standing::of(target, database).await?;
        let beats = |marker: &ListedCollection| later.get(&marker.name).is_some_and(|now| now.options != marker.options);
        if markers.iter().any(beats) {
            return Err(Error::new(ErrorKind::Busy, format!("another restore is filling collections of {database}"))
                .hint("wait until it is done"));
        }
        if since.elapsed() >= SILENCE {
            return Ok(later);
        }
        target.unless_stopped(tokio::time::sleep(BEAT / 3)).await?;
    }
}

impl Filling {
    /// Creates each collection and time series under its final name, empty and without expiry, and
    /// the markers that name them.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if one was created meanwhile; server errors. Then everything created
    /// is dropped again.
    pub async fn begin(target: &Target, specs: &mut [CollectionSpec], id: &str) -> Result<Self> {
        let mut made: BTreeMap<String, Vec<(Namespace, Uuid)>> = BTreeMap::new();
        let begun = Self::create(target, specs, &mut made).await;
        let databases: BTreeSet<String> = specs.iter().map(|b| b.namespace.database.clone()).collect();
        for database in databases {
            made.entry(database).or_default();
        }
        let views: Vec<_> = specs.iter().filter(|b| !b.holds_documents()).map(|b| b.namespace.clone()).collect();
        let beating = tokio::spawn(beat(target.unstoppable(), id.to_owned(), made.clone(), views.clone()));
        let filling = Self { target: target.clone(), id: id.to_owned(), made, views, beating };
        let marked = match begun {
            Ok(()) => filling.mark().await,
            Err(error) => Err(error),
        };
        match marked {
            Ok(()) => Ok(filling),
            Err(error) => Err(filling.undo(error).await),
        }
    }

    async fn create(
        target: &Target,
        specs: &mut [CollectionSpec],
        made: &mut BTreeMap<String, Vec<(Namespace, Uuid)>>,
    ) -> Result<()> {
        for spec in specs.iter_mut().filter(|b| b.holds_documents()) {
            let name = spec.namespace.clone();
            create_new(target, &name, &spec.options).await?;
            let standing = Standing::of(target, &name.database).await?;
            let identity = standing.get(&name.collection).and_then(|there| standing.identity(there));
            let identity = identity.ok_or_else(|| {
                Error::new(ErrorKind::Refused, format!("{name} disappeared right after it was created"))
                    .hint("stop the process that drops it")
            })?;
            made.entry(name.database.clone()).or_default().push((name, identity));
            (spec.uuid, spec.unread) = (Some(identity), true);
            if spec.mixed_schema {
                staging::allow_mixed_schema(target, spec).await?;
            }
        }
        Ok(())
    }

    async fn mark(&self) -> Result<()> {
        for (database, made) in &self.made {
            let mut options = Writer::default();
            options.document("validator", validator(made, &self.views, 0)?.as_bytes());
            create_new(&self.target, &marker(database, &self.id), &options.raw()?).await?;
        }
        Ok(())
    }

    /// Creates the views and removes the markers: the restore is complete.
    ///
    /// # Errors
    /// Server errors, naming the view.
    pub async fn end(&self, specs: &[CollectionSpec]) -> Result<()> {
        for spec in specs.iter().filter(|b| !b.holds_documents()) {
            create_new(&self.target, &spec.namespace, &spec.all_options()?).await?;
        }
        self.beating.abort();
        // Once this is done, all writes before it are on the disks of a majority.
        for database in self.made.keys() {
            let command = rawdoc! {
                "drop": marker(database, &self.id).collection,
                "writeConcern": { "w": "majority", "j": true, "wtimeout": MAJORITY_LIMIT },
            };
            match self.target.unstoppable().run("ending the restore", database, command).await {
                Err(error) if is_gone(&error) => {}
                ended => drop(ended?),
            }
        }
        Ok(())
    }

    /// Drops everything created, after this error.
    pub async fn undo(self, error: Error) -> Error {
        self.beating.abort();
        let target = self.target.unstoppable();
        let mut left = Vec::new();
        for (database, made) in &self.made {
            let dropped = async {
                let standing = Standing::of(&target, database).await?;
                for (namespace, uuid) in made {
                    let there = standing.get(&namespace.collection).and_then(|there| standing.identity(there));
                    if there == Some(*uuid) {
                        ddl::drop(&target, namespace).await?;
                    }
                }
                if !target.checks_uuids {
                    drop_again(&target, database, made).await?;
                }
                for view in self.views.iter().filter(|view| view.database == *database) {
                    if standing.get(&view.collection).is_some_and(|there| there.kind == "view") {
                        ddl::drop(&target, view).await?;
                    }
                }
                ddl::drop(&target, &marker(database, &self.id)).await
            };
            if dropped.await.is_err() {
                left.extend(made.iter().map(|(namespace, _)| namespace.to_string()));
            }
        }
        if left.is_empty() {
            return error.hint_too("the target is as it was");
        }
        error.hint_too(format_args!(
            "these are half filled and could not be dropped: {}; restore again with [[drop]], or drop them",
            left.join(", ")
        ))
    }
}

/// On servers where a command cannot name a collection's UUID, an interrupted command may come late
/// and recreate a collection.
async fn drop_again(target: &Target, database: &str, made: &[(Namespace, Uuid)]) -> Result<()> {
    for _ in 0..ROUNDS {
        target.unless_stopped(tokio::time::sleep(PAUSE)).await?;
        let standing = Standing::of(target, database).await?;
        for (namespace, _) in made.iter().filter(|(namespace, _)| standing.get(&namespace.collection).is_some()) {
            ddl::drop(target, namespace).await?;
        }
    }
    Ok(())
}

/// Creates a collection that must not exist. Unlike staging, this never drops anything of that
/// name.
async fn create_new(target: &Target, namespace: &Namespace, options: &bson::RawDocument) -> Result<()> {
    let what = format!("creating {namespace}");
    let create = ddl::create_command(namespace, options)?;
    match target.try_run(&namespace.database, create, Some(command::COMMAND_LIMIT)).await? {
        Ok(reply) => match write_concern_error(&reply) {
            None => Ok(()),
            Some(problem) => Err(problem.error(&what)),
        },
        Err(e) if code_of(&e) == Some(code::NAMESPACE_EXISTS) => {
            Err(Error::new(ErrorKind::Refused, format!("{namespace} was created meanwhile and is left unchanged"))
                .hint("stop the process that creates it, drop it if nobody needs it, and restore again"))
        }
        Err(e) => Err(describe(target.connection.role(), &what, e)),
    }
}

fn is_gone(error: &Error) -> bool {
    error.to_string().contains("ns not found")
}

fn marker(database: &str, id: &str) -> Namespace {
    Namespace::new(database, format!("{FILLING_PREFIX}{id}"))
}

fn validator(made: &[(Namespace, Uuid)], views: &[Namespace], beat: i64) -> Result<RawDocumentBuf> {
    let uuids: Vec<String> = made.iter().map(|(_, uuid)| uuid.to_string()).collect();
    let views: Vec<&str> = views.iter().map(|view| view.collection.as_str()).collect();
    let validator = doc! { "collections": { "$in": uuids }, "views": { "$in": views }, "beat": beat };
    RawDocumentBuf::try_from(&validator).map_err(|e| Error::new(ErrorKind::Internal, "a marker is not a valid document").cause(e))
}

/// Renews the markers regularly, to show that the restore is alive.
async fn beat(target: Target, id: String, made: BTreeMap<String, Vec<(Namespace, Uuid)>>, views: Vec<Namespace>) {
    let made = Arc::new(made);
    for beat in 1_i64.. {
        tokio::time::sleep(BEAT).await;
        for (database, made) in made.iter() {
            let Ok(validator) = validator(made, &views, beat) else { return };
            let mut fields = Writer::default();
            fields.document("validator", validator.as_bytes());
            let marker = marker(database, &id);
            if let Err(e) = ddl::modify(&target, "marking the collections being filled", &marker, fields).await {
                tracing::debug!("{marker} was not renewed: {e}");
            }
        }
    }
}
