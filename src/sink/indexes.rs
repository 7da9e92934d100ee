//! Builds the indexes of filled collections.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bson::RawDocumentBuf;
use futures::stream::{self, FuturesUnordered};
use futures::{StreamExt as _, TryStreamExt as _};
use mongodb::error::Error as DriverError;
use tokio::sync::{Semaphore, watch};

use super::same_index::{ONLY_FOR_BUILDING, conflict, told_apart_by};
use super::{Attempts, CollectionSpec, Index, Target};
use crate::context::progress::Item;
use crate::error::{Error, ErrorKind, Result};
use crate::few::{self, Few};
use crate::format::document::{Elements, Writer};
use crate::format::manifest::{CollectionKind, Topology};
use crate::mongo::catalog;
use crate::mongo::command::patiently;
use crate::mongo::failure::{describe, is_transient};
use crate::names::Namespace;

/// The number of concurrent commands. Servers run at most three index builds of users at a time
/// (`maxNumActiveUserIndexBuilds`). Several indexes of one collection build faster with one command
/// each than with one for all.
const AT_A_TIME: usize = 3;
/// Collections with fewer documents get all their indexes with one command: there, the command
/// itself takes the time.
const SMALL: u64 = 5_000;
/// The same for empty collections: each command only changes the server's catalog.
const EMPTY_AT_A_TIME: usize = 8;
/// No limit: an index build may take any time.
const UNLIMITED: Option<Duration> = None;

/// Builds indexes, never more at a time than a server accepts. Clones share that bound.
#[derive(Debug, Clone)]
pub struct IndexBuilder {
    target: Target,
    permits: Arc<Semaphore>,
}

/// An index that could not be built.
#[derive(Debug)]
pub struct IndexFailure {
    /// Its collection.
    pub namespace: Namespace,
    /// Its name.
    pub name: String,
    /// Why.
    pub error: Error,
}

/// Selects indexes of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Indexes that expire no documents: they may be built before the content is verified.
    Lasting,
    /// Indexes that expire documents.
    Expiring,
}

impl IndexBuilder {
    /// A builder for this target.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self { target, permits: Arc::new(Semaphore::new(AT_A_TIME)) }
    }

    /// Builds the lasting indexes of collections that are still empty and will stay small. With
    /// nothing to sort, an index costs the server a hundredth of a later build. An index refused
    /// here is reported when the server refuses it again, with documents.
    ///
    /// # Errors
    /// Failures of the whole work: [`ErrorKind::Unreachable`], [`ErrorKind::Interrupted`].
    pub async fn build_on_empty<'a>(&self, specs: impl IntoIterator<Item = &'a CollectionSpec>) -> Result<()> {
        let fit = |b: &&CollectionSpec| b.kind == CollectionKind::Collection && b.content.documents < SMALL;
        let work = specs.into_iter().filter(fit).map(|spec| async move {
            let wanted: Vec<Index> = spec.indexes.iter().filter(|index| index.is_among(Which::Lasting)).cloned().collect();
            spec.indexed.store(false, Ordering::Relaxed);
            match wanted.as_slice() {
                [] => Ok(()),
                _ if build_some(&self.target, spec, &wanted).await?.is_empty() => {
                    spec.indexed.store(true, Ordering::Relaxed);
                    Ok(())
                }
                // All or none: a refused index is refused again, by name, once there are documents.
                _ => take_back(&self.target, spec).await,
            }
        });
        let work: Vec<_> = work.collect();
        stream::iter(work).buffer_unordered(EMPTY_AT_A_TIME).boxed().try_collect().await
    }

    /// Builds indexes of one collection, several at a time. Tries all of them, whatever fails.
    ///
    /// # Errors
    /// Failures of the whole work: [`ErrorKind::Unreachable`], [`ErrorKind::Interrupted`]. The
    /// result lists the indexes that the server refuses.
    pub async fn build(&self, spec: &CollectionSpec, which: Which, item: &Item) -> Result<Vec<IndexFailure>> {
        self.build_telling(spec, which, item, &watch::Sender::new(0)).await
    }

    /// The same, and reports the number of unfinished commands.
    ///
    /// # Errors
    /// As for [`build`](Self::build).
    pub async fn build_telling(
        &self,
        spec: &CollectionSpec,
        which: Which,
        item: &Item,
        left: &watch::Sender<usize>,
    ) -> Result<Vec<IndexFailure>> {
        let is_there = |index: &Index| spec.indexed.load(Ordering::Relaxed) && index.is_among(Which::Lasting);
        let wanted: Vec<Index> = spec.indexes.iter().filter(|index| index.is_among(which) && !is_there(index)).cloned().collect();
        item.add(spec.indexes.iter().filter(|index| index.is_among(which) && is_there(index)).count() as u64, 0);
        if wanted.is_empty() {
            left.send_replace(0);
            return Ok(Vec::new());
        }
        let together = if spec.content.documents < SMALL { wanted.len() } else { 1 };
        let mut building: FuturesUnordered<_> = wanted
            .chunks(together)
            .map(|indexes| async move {
                let permit = self.permits.acquire().await;
                let _permit = permit.map_err(|e| Error::new(ErrorKind::Internal, "the index builder is closed").cause(e))?;
                let failures = build_some(&self.target, spec, indexes).await?;
                item.add((indexes.len() - failures.len()) as u64, 0);
                Ok::<_, Error>(failures)
            })
            .collect();
        let mut failures = Vec::new();
        left.send_replace(building.len());
        while let Some(built) = building.try_next().await? {
            failures.extend(built);
            left.send_replace(building.len());
        }
        Ok(failures)
    }
}

/// Drops the indexes that were built while the collection was empty, because a document was
/// refused. Without indexes, it shows whether an index was the reason. They are built again in the
/// end, and named if that fails.
pub(super) async fn take_back(target: &Target, spec: &CollectionSpec) -> Result<()> {
    let what = format!("dropping the indexes of {}", spec.namespace);
    let drop = bson::rawdoc! { "dropIndexes": spec.place.collection.as_str(), "index": "*" };
    target.run(&what, &spec.place.database, drop).await?;
    spec.indexed.store(false, Ordering::Relaxed);
    Ok(())
}

impl Index {
    fn is_among(&self, which: Which) -> bool {
        let expires = self.specification.get("expireAfterSeconds").is_ok_and(|v| v.is_some());
        match which {
            Which::All => true,
            Which::Lasting => !expires,
            Which::Expiring => expires,
        }
    }
}

/// One error that names every index that could not be built; `None` if there is none.
#[must_use]
pub fn sum_up(failures: &[IndexFailure]) -> Option<Error> {
    let first = failures.first()?;
    let kind = first.error.kind();
    let kind = if failures.iter().all(|f| f.error.kind() == kind) { kind } else { ErrorKind::Server };
    let mut reasons: Vec<String> = failures.iter().map(|f| f.error.to_string()).collect();
    reasons.sort();
    Some(match reasons.as_slice() {
        [one] => Error::new(kind, one.clone()),
        many => {
            let named = many.iter().map(few::cut).collect::<Few>().into_sentences();
            Error::new(kind, format!("{} indexes could not be built: {}", many.len(), named.join("; ")))
        }
    })
}

/// Builds these indexes, and returns the reasons for those that could not be built.
async fn build_some(target: &Target, spec: &CollectionSpec, indexes: &[Index]) -> Result<Vec<IndexFailure>> {
    let names: Vec<String> = indexes.iter().map(|i| format!("{:?}", i.name)).collect();
    let what = match names.as_slice() {
        [name] => format!("building index {name} of {}", spec.namespace),
        names => format!("building the indexes {} of {}", names.join(", "), spec.namespace),
    };
    let mut attempts = Attempts::new(target, &what);
    let command = command(target, &spec.place.collection, indexes.iter().map(|i| i.specification.as_bytes()))?;
    loop {
        // Asked again, a server waits for an index that is being built, and does nothing for one
        // that exists.
        match target.try_run(&spec.place.database, command.clone(), UNLIMITED).await? {
            Err(e) if !is_transient(&e) => return one_by_one(target, spec, indexes, &what, e).await,
            tried => {
                if attempts.judge(tried).await?.is_some() {
                    return Ok(Vec::new());
                }
            }
        }
    }
}

/// A command for several indexes fails as a whole and names one. Building each by itself shows
/// which ones fail.
async fn one_by_one(
    target: &Target,
    spec: &CollectionSpec,
    indexes: &[Index],
    what: &str,
    error: DriverError,
) -> Result<Vec<IndexFailure>> {
    if let [index] = indexes {
        let (place, name) = (spec.place.to_string(), spec.namespace.to_string());
        let error = describe(target.connection.role(), what, error).reworded(&place, &name);
        return Ok(vec![IndexFailure { namespace: spec.namespace.clone(), name: index.name.clone(), error }]);
    }
    let mut failures = Vec::new();
    for index in indexes {
        failures.extend(Box::pin(build_some(target, spec, std::slice::from_ref(index))).await?);
    }
    Ok(failures)
}

/// `createIndexes` with these specifications.
pub(super) fn command<'a>(
    target: &Target,
    collection: &str,
    specifications: impl IntoIterator<Item = &'a [u8]>,
) -> Result<RawDocumentBuf> {
    let mut command = Writer::default();
    command.string("createIndexes", collection);
    command.documents("indexes", specifications);
    // Options that only older servers knew have no effect any more.
    command.bool("ignoreUnknownIndexOptions", true);
    // Otherwise a build waits for every voting member, and forever if one is down.
    if target.connection.topology == Topology::ReplicaSet {
        command.string("commitQuorum", "majority");
    }
    command.document("writeConcern", bson::rawdoc! { "w": 1 }.as_bytes());
    command.raw()
}

/// Checks that every index exists, and returns the options that the target did not keep.
///
/// # Errors
/// [`ErrorKind::Mismatch`] if one is missing; server errors; [`ErrorKind::Interrupted`].
pub async fn confirm(target: &Target, specs: &[CollectionSpec]) -> Result<Vec<String>> {
    let mut lost = Vec::new();
    for spec in specs.iter().filter(|b| !b.indexes.is_empty()) {
        let standing = standing(target, &spec.place).await?;
        for index in &spec.indexes {
            let Some(there) = standing.iter().find(|i| catalog::name(i).is_some_and(|name| name == index.name)) else {
                let what = format!("index {:?} of {} was built but does not exist", index.name, spec.namespace);
                return Err(Error::new(ErrorKind::Mismatch, what).hint("something else may be writing to the target: stop it"));
            };
            let kept: Vec<&[u8]> = Elements::of(there.as_bytes())?.flatten().map(|e| e.name).collect();
            let is_simple =
                index.specification.get_document("collation").and_then(|c| c.get_str("locale")).is_ok_and(|l| l == "simple");
            for element in Elements::of(index.specification.as_bytes())?.flatten() {
                let tells_nothing = ONLY_FOR_BUILDING.contains(&element.name) || (element.name == b"collation" && is_simple);
                if !tells_nothing && !kept.contains(&element.name) {
                    let option = String::from_utf8_lossy(element.name);
                    lost.push(format!(
                        "option {option:?} of index {:?} of {}: the target does not know it",
                        index.name, spec.namespace
                    ));
                }
            }
        }
    }
    Ok(lost)
}

/// The names of this collection's indexes that cannot be added to the existing one under its final
/// name: another index there has the same name, or the same key and nothing that tells them apart.
///
/// # Errors
/// Server errors; [`ErrorKind::Interrupted`].
pub async fn conflicts(target: &Target, spec: &CollectionSpec) -> Result<Vec<String>> {
    let standing = standing(target, &spec.namespace).await?;
    let apart = told_apart_by(target.connection.version);
    let conflicting = spec.indexes.iter().filter(|index| conflict(&index.specification, &standing, apart));
    Ok(conflicting.map(|index| index.name.clone()).collect())
}

/// Those indexes of this collection that the existing one under its final name lacks.
///
/// # Errors
/// As for [`conflicts`].
pub async fn missing(target: &Target, spec: &CollectionSpec) -> Result<Vec<Index>> {
    let standing = standing(target, &spec.namespace).await?;
    let is_there = |index: &&Index| !standing.iter().any(|there| catalog::name(there).is_some_and(|name| name == index.name));
    Ok(spec.indexes.iter().filter(is_there).cloned().collect())
}

/// Those indexes of this collection that the existing one under its final name lacks, or is still
/// building.
///
/// # Errors
/// As for [`conflicts`].
pub async fn unfinished(target: &Target, spec: &CollectionSpec) -> Result<Vec<Index>> {
    let (namespace, mut data) = (&spec.namespace, spec.namespace.clone());
    if spec.kind == CollectionKind::TimeSeries {
        data = data.buckets();
    }
    let what = format!("asking which indexes of {namespace} are being built");
    let stats = target.run(&what, &data.database, bson::rawdoc! { "collStats": data.collection.as_str() }).await?;
    let building = stats.get_array("indexBuilds").map(Vec::as_slice).unwrap_or_default();
    let is_building = |index: &Index| building.iter().any(|name| name.as_str() == Some(&index.name));
    let missing = missing(target, spec).await?;
    let is_missing = |index: &Index| missing.iter().any(|other| other.name == index.name);
    Ok(spec.indexes.iter().filter(|index| is_missing(index) || is_building(index)).cloned().collect())
}

/// The indexes of an existing collection.
pub(super) async fn standing(target: &Target, namespace: &Namespace) -> Result<Vec<RawDocumentBuf>> {
    let database = || target.connection.database(&namespace.database);
    let listing = || catalog::indexes(&target.connection, database(), &namespace.collection);
    Ok(target.unless_stopped(patiently(listing)).await??.0)
}
