//! Builds the indexes of filled collections.

use std::sync::Arc;
use std::time::Duration;

use bson::RawDocumentBuf;
use futures::TryStreamExt as _;
use futures::stream::FuturesUnordered;
use mongodb::error::Error as DriverError;
use tokio::sync::Semaphore;

use super::{Attempts, Blueprint, Index, Target, write_concern_error};
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::{Elements, Writer};
use crate::format::manifest::Topology;
use crate::mongo::catalog;
use crate::mongo::command::patiently;
use crate::mongo::failure::{describe, is_transient};
use crate::names::Namespace;
use crate::pipeline::progress::Item;

/// Commands at a time. Servers build no more than three indexes of users at a time (`maxNumActiveUserIndexBuilds`), and several
/// indexes of one collection are built faster by a command each than by one for all.
const AT_A_TIME: usize = 3;
/// Collections of fewer documents get all their indexes by one command: there, the command is what takes the time.
const SMALL: u64 = 5_000;
/// No limit: a build takes as long as it takes.
const UNLIMITED: Option<Duration> = None;

/// Builds indexes, never more at a time than a server takes. Cloning shares that bound.
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

/// Which of a collection's indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Those that make no documents expire: they may be built before what the collection holds is proven.
    Lasting,
    /// Those that make documents expire.
    Expiring,
}

impl IndexBuilder {
    /// A builder for this target.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self { target, permits: Arc::new(Semaphore::new(AT_A_TIME)) }
    }

    /// Builds indexes of one collection, several at a time. All are tried, whatever fails.
    ///
    /// # Errors
    /// What stops all: [`ErrorKind::Unreachable`], [`ErrorKind::Interrupted`]. An index that the server refuses is among what it gives.
    pub async fn build(&self, blueprint: &Blueprint, which: Which, item: &Item) -> Result<Vec<IndexFailure>> {
        let wanted: Vec<Index> = blueprint.indexes.iter().filter(|index| index.is_among(which)).cloned().collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let together = if blueprint.content.documents < SMALL { wanted.len() } else { 1 };
        let mut building: FuturesUnordered<_> = wanted
            .chunks(together)
            .map(|indexes| async move {
                let permit = self.permits.acquire().await;
                let _permit = permit.map_err(|e| Error::new(ErrorKind::Internal, "the index builder is closed").cause(e))?;
                let failures = build_some(&self.target, blueprint, indexes).await?;
                item.add((indexes.len() - failures.len()) as u64, 0);
                Ok::<_, Error>(failures)
            })
            .collect();
        let mut failures = Vec::new();
        while let Some(built) = building.try_next().await? {
            failures.extend(built);
        }
        Ok(failures)
    }
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

/// One error that names every index which could not be built; none where there is none.
#[must_use]
pub fn sum_up(failures: &[IndexFailure]) -> Option<Error> {
    let first = failures.first()?;
    let kind = first.error.kind();
    let kind = if failures.iter().all(|f| f.error.kind() == kind) { kind } else { ErrorKind::Server };
    let mut reasons: Vec<String> = failures.iter().map(|f| f.error.to_string()).collect();
    reasons.sort();
    Some(match reasons.as_slice() {
        [one] => Error::new(kind, one.clone()),
        many => Error::new(kind, format!("{} indexes could not be built: {}", many.len(), many.join("; "))),
    })
}

/// Why any of these could not be built.
async fn build_some(target: &Target, blueprint: &Blueprint, indexes: &[Index]) -> Result<Vec<IndexFailure>> {
    let names: Vec<String> = indexes.iter().map(|i| format!("{:?}", i.name)).collect();
    let what = match names.as_slice() {
        [name] => format!("building index {name} of {}", blueprint.namespace),
        names => format!("building the indexes {} of {}", names.join(", "), blueprint.namespace),
    };
    let mut attempts = Attempts::new(target, &what);
    let command = command(target, &blueprint.place.collection, indexes.iter().map(|i| i.specification.as_bytes()))?;
    loop {
        // Asked again for an index that is being built, a server waits for it; for one that is there, it does nothing.
        match target.try_run(&blueprint.place.database, command.clone(), UNLIMITED).await? {
            Ok(reply) => match write_concern_error(&reply) {
                None => return Ok(Vec::new()),
                Some(problem) => attempts.again_after(problem).await?,
            },
            Err(e) if is_transient(&e) => attempts.again(e).await?,
            Err(e) => return one_by_one(target, blueprint, indexes, &what, e).await,
        }
    }
}

/// A command for several fails as a whole and names one: each by itself shows which of them it was.
async fn one_by_one(
    target: &Target,
    blueprint: &Blueprint,
    indexes: &[Index],
    what: &str,
    error: DriverError,
) -> Result<Vec<IndexFailure>> {
    if let [index] = indexes {
        let (place, name) = (blueprint.place.to_string(), blueprint.namespace.to_string());
        let error = describe(target.connection.role(), what, error).reworded(&place, &name);
        return Ok(vec![IndexFailure { namespace: blueprint.namespace.clone(), name: index.name.clone(), error }]);
    }
    let mut failures = Vec::new();
    for index in indexes {
        failures.extend(Box::pin(build_some(target, blueprint, std::slice::from_ref(index))).await?);
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
    // Options that only older servers knew have no meaning any more.
    command.bool("ignoreUnknownIndexOptions", true);
    // Else a build waits for every member that votes, and for ever where one is down.
    if target.connection.topology == Topology::ReplicaSet {
        command.string("commitQuorum", "majority");
    }
    command.document("writeConcern", bson::rawdoc! { "w": 1 }.as_bytes());
    command.raw()
}

/// Looks that every index is there and names the options that the target did not keep.
///
/// # Errors
/// [`ErrorKind::Mismatch`] where one is missing; the server's; [`ErrorKind::Interrupted`].
pub async fn confirm(target: &Target, blueprints: &[Blueprint]) -> Result<Vec<String>> {
    let mut lost = Vec::new();
    for blueprint in blueprints.iter().filter(|b| !b.indexes.is_empty()) {
        let Namespace { database, collection } = &blueprint.place;
        let listing = || catalog::indexes(&target.connection, target.connection.database(database), collection);
        let (standing, _) = target.unless_stopped(patiently(listing)).await??;
        for index in &blueprint.indexes {
            let Some(there) = standing.iter().find(|i| i.get_str("name").is_ok_and(|name| name == index.name)) else {
                let what = format!("index {:?} of {} was built and is not there", index.name, blueprint.namespace);
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
                        index.name, blueprint.namespace
                    ));
                }
            }
        }
    }
    Ok(lost)
}

/// Options of old servers that said how to build an index, and nothing of what it is. (The simple collation is not listed either.)
const ONLY_FOR_BUILDING: [&[u8]; 2] = [b"background", b"dropDups"];

/// The names of those indexes of this collection that cannot be added to what stands under its final name: another one there has the same name or the same key,
/// and is not the same.
///
/// # Errors
/// The server's; [`ErrorKind::Interrupted`].
pub async fn conflicts(target: &Target, blueprint: &Blueprint) -> Result<Vec<String>> {
    let standing = standing(target, &blueprint.namespace).await?;
    Ok(blueprint
        .indexes
        .iter()
        .filter(|index| {
            let key = index.specification.get_document("key").ok();
            standing.iter().any(|there| {
                let same_name = there.get_str("name").is_ok_and(|name| name == index.name);
                let same_key = key.is_some() && there.get_document("key").ok() == key;
                (same_name || same_key) && !is_same(&index.specification, there)
            })
        })
        .map(|index| index.name.clone())
        .collect())
}

/// Those indexes of this collection that what stands under its final name does not have.
///
/// # Errors
/// As for [`conflicts`].
pub async fn missing(target: &Target, blueprint: &Blueprint) -> Result<Vec<Index>> {
    let standing = standing(target, &blueprint.namespace).await?;
    let is_there = |index: &&Index| !standing.iter().any(|there| there.get_str("name").is_ok_and(|name| name == index.name));
    Ok(blueprint.indexes.iter().filter(is_there).cloned().collect())
}

async fn standing(target: &Target, namespace: &Namespace) -> Result<Vec<RawDocumentBuf>> {
    let database = || target.connection.database(&namespace.database);
    let listing = || catalog::indexes(&target.connection, database(), &namespace.collection);
    Ok(target.unless_stopped(patiently(listing)).await??.0)
}

/// Whether every option that is wanted is there with the same bytes, and no other but those that servers fill in.
fn is_same(wanted: &bson::RawDocument, there: &bson::RawDocument) -> bool {
    let of = |document: &bson::RawDocument| -> std::collections::BTreeMap<Vec<u8>, Vec<u8>> {
        let elements = Elements::of(document.as_bytes()).into_iter().flatten().flatten();
        elements
            .filter(|e| !FILLED_IN.contains(&e.name) && !ONLY_FOR_BUILDING.contains(&e.name))
            .filter(|e| e.name != b"collation" || !is_simple(e.value))
            .map(|e| (e.name.to_vec(), [&[e.kind], e.value].concat()))
            .collect()
    };
    of(wanted) == of(there)
}

fn is_simple(collation: &[u8]) -> bool {
    let mut elements = Elements::of(collation).into_iter().flatten().flatten();
    elements.any(|e| e.name == b"locale" && e.value == b"\x07\0\0\0simple\0")
}

/// Versions of index formats, which servers choose themselves.
const FILLED_IN: [&[u8]; 4] = [b"v", b"ns", b"2dsphereIndexVersion", b"textIndexVersion"];
