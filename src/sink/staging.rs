//! Staging: the collections that an import fills under reserved names, beside those that they will
//! replace.
//!
//! A staging name has the id of the import and a number instead of the final name. So it is never
//! too long, and identifies leftovers of a crash.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use uuid::Uuid;

use super::ddl::{self, Standing};
use super::synced::{Synced, SyncedState};
use super::{CollectionSpec, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::Writer;
use crate::names::{BUCKETS_PREFIX, Namespace, STAGING_PREFIX};

/// The number of concurrent commands on the catalog.
const AT_A_TIME: usize = 8;

/// How many times to look for leftovers until none is found: a last interrupted command may come
/// late.
const SWEEPS: u32 = 20;

/// The pause between two checks.
const PAUSE: Duration = Duration::from_millis(100);

/// How the id of a first copy begins. Its staging outlasts the process that fills it.
const OF_A_COPY: &str = "sync.";

/// Gives every collection and time series its staging name and creates it there, empty, with its
/// options but without expiry. Those that `staged` knows are staged already. Views are not staged.
///
/// # Errors
/// Server errors, naming the namespace; [`ErrorKind::Interrupted`].
pub async fn create(target: &Target, specs: &mut [CollectionSpec], staged: &[Option<(Namespace, Uuid)>], id: &str) -> Result<()> {
    for (number, spec) in specs.iter_mut().enumerate().filter(|(_, b)| b.holds_documents()) {
        match staged.get(number).into_iter().flatten().next() {
            Some((place, uuid)) => (spec.place, spec.uuid) = (place.clone(), Some(*uuid)),
            None => {
                spec.place = Namespace::new(&*spec.namespace.database, format!("{STAGING_PREFIX}{id}.{number}"));
                spec.uuid = None;
            }
        }
    }
    create_each(target, specs).await
}

/// The same for collections of a first copy, by their UUIDs in the source. What is under these
/// names is dropped before.
///
/// # Errors
/// As for [`create`].
pub async fn create_for_copy(target: &Target, specs: &mut [(Uuid, CollectionSpec)]) -> Result<()> {
    let mut databases = BTreeSet::new();
    for (source, spec) in specs.iter_mut() {
        spec.place = Namespace::new(&*spec.namespace.database, format!("{STAGING_PREFIX}{OF_A_COPY}{source}"));
        spec.uuid = None;
        databases.insert(spec.place.database.clone());
    }
    let places: BTreeSet<String> = specs.iter().map(|(_, spec)| spec.place.collection.clone()).collect();
    let is_meant = |name: &str| places.contains(name.strip_prefix(BUCKETS_PREFIX).unwrap_or(name));
    sweep_those(target, &databases, is_meant, 1).await?;
    let mut all: Vec<CollectionSpec> = specs.iter().map(|(_, spec)| spec.clone()).collect();
    create_each(target, &mut all).await?;
    for ((_, spec), made) in specs.iter_mut().zip(all) {
        *spec = made;
    }
    Ok(())
}

/// Creates those that have no UUID yet under their staging names.
async fn create_each(target: &Target, specs: &mut [CollectionSpec]) -> Result<()> {
    let is_new = |spec: &CollectionSpec| spec.holds_documents() && spec.uuid.is_none();
    let work = specs.iter().filter(|spec| is_new(spec)).map(|spec| async move {
        let named = |e: Error| e.reworded(&spec.place.to_string(), &spec.namespace.to_string());
        ddl::create(target, &spec.place, &spec.options).await.map_err(named)?;
        if spec.mixed_schema {
            allow_mixed_schema(target, spec).await?;
        }
        Ok::<_, Error>(())
    });
    // Each creation runs to its end even if another fails: an abandoned one could come after the
    // cleanup.
    let created: Vec<Result<()>> = stream::iter(work).buffer_unordered(AT_A_TIME).boxed().collect().await;
    created.into_iter().collect::<Result<()>>()?;

    // Their UUIDs, which identify them from here on.
    let mut standing: HashMap<String, Standing> = HashMap::new();
    for spec in specs.iter_mut().filter(|spec| is_new(spec)) {
        let database = &spec.place.database;
        if !standing.contains_key(database) {
            standing.insert(database.clone(), Standing::of(target, database).await?);
        }
        let found = standing.get(database).and_then(|s| s.get(&spec.data_collection()));
        spec.uuid = found.and_then(|c| c.uuid);
        if spec.uuid.is_none() {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("the staging collection of {} was dropped or renamed", spec.namespace),
            )
            .hint("something else drops collections in the target: stop it, and run the import again"));
        }
    }
    Ok(())
}

/// Tells the target that buckets of this time series may hold measurements of several types.
pub(super) async fn allow_mixed_schema(target: &Target, spec: &CollectionSpec) -> Result<()> {
    let mut mixed = Writer::default();
    mixed.bool("timeseriesBucketsMayHaveMixedSchemaData", true);
    let what = format!("allowing mixed buckets in {}", spec.namespace);
    ddl::modify(target, &what, &spec.place, mixed).await
}

/// Drops all staging in these databases: this import's, and that of crashed ones. Call this only
/// once nothing decided remains to be published from it. That of a first copy stays as long as the
/// target gets one. Returns what was dropped.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
pub async fn sweep(target: &Target, databases: &BTreeSet<String>) -> Result<BTreeSet<Namespace>> {
    let copies = match Synced::read(target).await {
        Ok(synced) => synced.is_some_and(|synced| synced.state == SyncedState::Copying),
        // Whoever may not look does not know.
        Err(e) if matches!(e.kind(), ErrorKind::Denied | ErrorKind::Damaged) => true,
        Err(e) => return Err(e),
    };
    sweep_those(target, databases, |name| is_staging(name) && !(copies && is_of_a_copy(name)), 1).await
}

/// Drops the staging of first copies in these databases.
///
/// # Errors
/// As for [`sweep`].
pub async fn sweep_copies(target: &Target, databases: &BTreeSet<String>) -> Result<()> {
    sweep_those(target, databases, is_of_a_copy, 1).await.map(drop)
}

/// Drops the staging of the import with this id. Staging of others stays, as it may be decided and
/// all that is left.
///
/// # Errors
/// As for [`sweep`].
pub async fn sweep_own(target: &Target, databases: &BTreeSet<String>, id: &str) -> Result<()> {
    let own = format!("{STAGING_PREFIX}{id}.");
    let is_own = |name: &str| name.strip_prefix(BUCKETS_PREFIX).unwrap_or(name).starts_with(&own);
    // An interrupted command may still be running.
    sweep_those(target, databases, is_own, 2).await.map(drop)
}

/// The staging among the contents of a database, with time series under their own names.
pub(super) fn standing(database: &str, standing: &Standing) -> BTreeSet<Namespace> {
    let names = standing.iter().filter(|c| is_staging(&c.name));
    names.map(|c| Namespace::new(database, c.name.strip_prefix(BUCKETS_PREFIX).unwrap_or(&c.name))).collect()
}

async fn sweep_those(
    target: &Target,
    databases: &BTreeSet<String>,
    is_meant: impl Fn(&str) -> bool,
    looks: u32,
) -> Result<BTreeSet<Namespace>> {
    let mut dropped = BTreeSet::new();
    for database in databases {
        let mut nothing = 0;
        for round in 0..SWEEPS {
            let standing = Standing::of(target, database).await?;
            let left: Vec<Namespace> =
                standing.iter().filter(|c| is_meant(&c.name)).map(|c| Namespace::new(&**database, &*c.name)).collect();
            if left.is_empty() {
                nothing += 1;
                if nothing == looks {
                    break;
                }
                target.unless_stopped(tokio::time::sleep(PAUSE)).await?;
                continue;
            }
            if round > 0 {
                target.unless_stopped(tokio::time::sleep(PAUSE)).await?;
            }
            let plain = |n: &Namespace| n.collection.strip_prefix(BUCKETS_PREFIX).unwrap_or(&n.collection).to_owned();
            dropped.extend(left.iter().map(|n| Namespace::new(&**database, plain(n))));
            // Dropping a time series drops its buckets, so buckets listed as well may be gone by
            // then.
            let (buckets, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|n| n.collection.starts_with(BUCKETS_PREFIX));
            for group in [others, buckets] {
                let drops = group.into_iter().map(|namespace| async move { ddl::drop(target, &namespace).await });
                stream::iter(drops).buffer_unordered(AT_A_TIME).try_collect::<()>().await?;
            }
        }
    }
    Ok(dropped)
}

fn is_staging(name: &str) -> bool {
    name.strip_prefix(BUCKETS_PREFIX).unwrap_or(name).starts_with(STAGING_PREFIX)
}

fn is_of_a_copy(name: &str) -> bool {
    let name = name.strip_prefix(BUCKETS_PREFIX).unwrap_or(name);
    name.strip_prefix(STAGING_PREFIX).is_some_and(|id| id.starts_with(OF_A_COPY))
}

/// Sets the expiry of clustered collections and time series that have one, once their content is
/// verified.
///
/// # Errors
/// Server errors, naming the namespace; [`ErrorKind::Interrupted`].
pub async fn set_expiry(target: &Target, specs: &[CollectionSpec]) -> Result<()> {
    for spec in specs {
        let Some((kind, value)) = &spec.expire_after else { continue };
        let mut fields = Writer::default();
        fields.element(*kind, "expireAfterSeconds", value);
        let what = format!("setting expireAfterSeconds of {}", spec.namespace);
        ddl::modify(target, &what, &spec.place, fields).await?;
    }
    Ok(())
}
