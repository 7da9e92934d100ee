//! Builds the indexes of filled collections, and then sets what makes their documents expire.

use std::time::Duration;

use bson::RawDocumentBuf;
use futures::{StreamExt as _, stream};
use mongodb::error::Error as DriverError;

use super::{Attempts, Blueprint, Index, Target, write_concern_error};
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::{Elements, Writer};
use crate::mongo::catalog;
use crate::mongo::command::patiently;
use crate::mongo::failure::{describe, is_transient};
use crate::names::Namespace;
use crate::pipeline::progress::{Item, Progress};

/// Commands at a time. Servers build no more than three indexes of users at a time (`maxNumActiveUserIndexBuilds`), and several
/// indexes of one collection are built faster by a command each than by one for all.
const AT_A_TIME: usize = 3;
/// Collections of fewer documents get all their indexes by one command: there, the command is what takes the time.
const SMALL: u64 = 5_000;
/// No limit: a build takes as long as it takes.
const UNLIMITED: Option<Duration> = None;

/// Builds every index. All are tried, whatever fails.
///
/// # Errors
/// [`ErrorKind::Server`] where any could not be built, naming each with the reason; [`ErrorKind::Denied`], [`ErrorKind::Unreachable`] where that is the reason
/// of all of them; [`ErrorKind::Interrupted`].
pub async fn build(target: &Target, blueprints: &[Blueprint], progress: &Progress) -> Result<()> {
    let mut work: Vec<(&Blueprint, &[Index], Item)> = Vec::new();
    let mut largest_first: Vec<&Blueprint> = blueprints.iter().filter(|b| !b.indexes.is_empty()).collect();
    largest_first.sort_by_key(|b| std::cmp::Reverse(b.content.bytes));
    for blueprint in largest_first {
        let item = progress.item(blueprint.namespace.to_string(), blueprint.indexes.len() as u64, 0);
        let together = if blueprint.content.documents < SMALL { blueprint.indexes.len() } else { 1 };
        work.extend(blueprint.indexes.chunks(together).map(|indexes| (blueprint, indexes, item.clone())));
    }
    let mut building = stream::iter(work.into_iter().map(|(blueprint, indexes, item)| async move {
        let failures = build_some(target, blueprint, indexes).await?;
        item.add((indexes.len() - failures.len()) as u64, 0);
        Ok(failures)
    }))
    .buffer_unordered(AT_A_TIME);
    let mut failures: Vec<Error> = Vec::new();
    while let Some(built) = building.next().await {
        failures.extend(built?);
    }
    sum_up(failures)
}

fn sum_up(mut failures: Vec<Error>) -> Result<()> {
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0)),
        number => {
            let kind = failures[0].kind();
            let kind = if failures.iter().all(|f| f.kind() == kind) { kind } else { ErrorKind::Server };
            let mut reasons: Vec<String> = failures.iter().map(ToString::to_string).collect();
            reasons.sort();
            Err(Error::new(kind, format!("{number} indexes could not be built: {}", reasons.join("; "))))
        }
    }
}

/// Why any of these could not be built.
async fn build_some(target: &Target, blueprint: &Blueprint, indexes: &[Index]) -> Result<Vec<Error>> {
    let names: Vec<String> = indexes.iter().map(|i| format!("{:?}", i.name)).collect();
    let what = match names.as_slice() {
        [name] => format!("building index {name} of {}", blueprint.namespace),
        names => format!("building the indexes {} of {}", names.join(", "), blueprint.namespace),
    };
    let mut attempts = Attempts::new(target, &what);
    let command = command(blueprint, indexes)?;
    loop {
        // Asked again for an index that is being built, a server waits for it; for one that is there, it does nothing.
        match target.try_run(&blueprint.namespace.database, command.clone(), UNLIMITED).await? {
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
) -> Result<Vec<Error>> {
    if indexes.len() == 1 {
        return Ok(vec![describe(target.connection.role(), what, error)]);
    }
    let mut failures = Vec::new();
    for index in indexes {
        failures.extend(Box::pin(build_some(target, blueprint, std::slice::from_ref(index))).await?);
    }
    Ok(failures)
}

fn command(blueprint: &Blueprint, indexes: &[Index]) -> Result<RawDocumentBuf> {
    let mut command = Writer::default();
    command.string("createIndexes", &blueprint.namespace.collection);
    command.documents("indexes", indexes.iter().map(|i| i.specification.as_bytes()));
    // Options that only older servers knew have no meaning any more.
    command.bool("ignoreUnknownIndexOptions", true);
    command.document("writeConcern", bson::rawdoc! { "w": 1 }.as_bytes());
    command.raw()
}

/// Looks that every index is there, and names the options that the target did not keep.
///
/// # Errors
/// [`ErrorKind::Mismatch`] where one is missing; the server's; [`ErrorKind::Interrupted`].
pub async fn confirm(target: &Target, blueprints: &[Blueprint]) -> Result<Vec<String>> {
    let mut lost = Vec::new();
    for blueprint in blueprints.iter().filter(|b| !b.indexes.is_empty()) {
        let Namespace { database, collection } = &blueprint.namespace;
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

/// Sets the expiry of clustered collections and time series that have one.
///
/// # Errors
/// The server's, naming the namespace; [`ErrorKind::Interrupted`].
pub async fn set_expiry(target: &Target, blueprints: &[Blueprint]) -> Result<()> {
    for blueprint in blueprints {
        let Some((kind, value)) = &blueprint.expire_after else { continue };
        let mut command = Writer::default();
        command.string("collMod", &blueprint.namespace.collection);
        command.element(*kind, "expireAfterSeconds", value);
        command.document("writeConcern", bson::rawdoc! { "w": 1 }.as_bytes());
        let what = format!("setting expireAfterSeconds of {}", blueprint.namespace);
        target.run(&what, &blueprint.namespace.database, command.raw()?).await?;
    }
    Ok(())
}
