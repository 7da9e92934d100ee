//! `import`: from a committed archive into a deployment.
//!
//! What stands under the names of the backup's collections is dropped and filled anew; everything else is left alone. Nothing is written
//! before all that can be known beforehand is known to be good, and nothing is reported as restored that was not read back and found
//! to be what the backup holds.

mod fill;
mod guard;
pub mod outline;
mod plan;

use std::time::Instant;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::plan::Plan;
use super::{Tuning, verify};
use crate::catalog::Backup;
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::Content;
use crate::format::manifest::CollectionKind;
use crate::mongo::MongoUri;
use crate::pipeline::budget::Budget;
use crate::pipeline::cpu::{Cpu, cores};
use crate::pipeline::progress::Progress;
use crate::sink::{Blueprint, check, indexes, prepare};

/// How many problems of a damaged backup an error names.
const NAMED_PROBLEMS: usize = 3;

/// What to import, and how.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// The name that the backup's one database gets; where it is not given, the database in the target URI's path; where there is none, its
    /// own.
    pub database: Option<String>,
    /// The target may be the deployment that the backup came from, or the configured source.
    pub allow_same: bool,
    /// How much of the machine it may use.
    pub tuning: Tuning,
}

/// A finished import: everything in it was read back from the target and found to be what the backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreReport {
    /// The backup's name.
    pub backup: String,
    /// Scheme, hosts and database of the target.
    pub target: String,
    /// Every collection, time series and view, in the backup's order.
    pub collections: Vec<RestoredCollection>,
    /// The documents of all of them.
    pub documents: u64,
    /// Their bytes, uncompressed.
    pub bytes: u64,
    /// The indexes that were built, beside those on `_id`.
    pub indexes: u64,
    /// What the target cannot hold and was left out, in words.
    pub left_out: Vec<String>,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// One namespace of a finished import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoredCollection {
    /// Its namespace in the target.
    pub namespace: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: CollectionKind,
    /// Its documents (of a time series, its buckets), counted in the target.
    pub documents: u64,
    /// Their bytes, uncompressed.
    pub bytes: u64,
    /// Whether what was read back from the target has the content digest of the backup.
    pub digest_matches: bool,
    /// The indexes that were built, beside the one on `_id`.
    pub indexes: u64,
}

/// Imports a backup into `target`. `configured_source` is what backups are taken from, if that is known: it is not written to.
///
/// # Errors
/// Before anything is written: [`ErrorKind::Usage`] and [`ErrorKind::Refused`] for what must not be done, [`ErrorKind::Damaged`] where the backup is not
/// whole, [`ErrorKind::Unreachable`], [`ErrorKind::Denied`]. After that, with a hint that the target is left partly filled: [`ErrorKind::Mismatch`] where what was
/// read back is not what the backup holds, [`ErrorKind::Server`] where the target refused a document or an index,
/// [`ErrorKind::Interrupted`], and the former.
pub async fn run(
    backup: &Backup,
    target: &MongoUri,
    configured_source: Option<&MongoUri>,
    options: &RestoreOptions,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<RestoreReport> {
    let begun = Instant::now();

    // 1. Refuse what must be refused.
    progress.begin("looking at the target");
    let plan = plan::make(backup, target, configured_source, options, stop).await?;

    // 2. Prove the whole backup.
    progress.begin("proving the backup");
    prove(backup, stop).await?;

    // 3. Everything that writes.
    let (found, lost) = write(backup, &plan, options, progress).await.map_err(|e| partly(e, target))?;
    let report = report(backup, &plan, &found, lost, begun);
    plan.target.connection.close().await;
    Ok(report)
}

/// The phases that change the target. Gives what each collection was found to hold, and the options of indexes that were lost.
async fn write(
    backup: &Backup,
    plan: &Plan,
    options: &RestoreOptions,
    progress: &Progress,
) -> Result<(Vec<Content>, Vec<String>)> {
    let Plan { target, blueprints, .. } = plan;
    let (cpu, budget) = (Cpu::of_this_machine(), Budget::new(options.tuning.memory_bytes));
    let writers = options.tuning.writers.unwrap_or_else(|| cores().clamp(2, 4)).max(1);

    // 1. Drop what is in the way, and create every collection, without expiry and without indexes.
    progress.begin("preparing the target");
    prepare::drop_standing(target, blueprints).await?;
    prepare::create(target, blueprints).await?;

    // 2. Fill them.
    progress.begin("filling");
    fill::fill(backup, plan, writers, &cpu, &budget, progress).await?;
    target.make_durable(blueprints).await?;

    // 3. Check them, by reading back.
    progress.begin("checking");
    let found = check(plan, writers, &cpu, &budget, progress).await?;

    // 4. Indexes, and only now what makes documents expire.
    progress.begin("building indexes");
    indexes::build(target, blueprints, progress).await?;
    let lost = indexes::confirm(target, blueprints).await?;
    indexes::set_expiry(target, blueprints).await?;

    // 5. Views, and everything durable.
    progress.begin("creating views");
    prepare::create_views(target, blueprints).await?;
    target.make_durable(blueprints).await?;
    Ok((found, lost))
}

async fn prove(backup: &Backup, stop: &CancellationToken) -> Result<()> {
    let report = verify::run(backup, &verify::VerifyOptions::default(), stop).await?;
    if report.is_sound() {
        return Ok(());
    }
    let named: Vec<&str> = report.problems.iter().take(NAMED_PROBLEMS).map(|p| p.message.as_str()).collect();
    let more = match report.problems.len() - named.len() {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    Err(Error::damaged(format!("backup {} is damaged, and nothing was imported: {}{more}", report.name, named.join("; ")))
        .hint("`bsonvault verify` names everything that is wrong with it; import another backup"))
}

/// What every collection holds now; an error where any is not what the backup holds.
async fn check(plan: &Plan, readers: usize, cpu: &Cpu, budget: &Budget, progress: &Progress) -> Result<Vec<Content>> {
    let mut work: Vec<_> = plan
        .blueprints
        .iter()
        .enumerate()
        .filter(|(_, b)| b.holds_documents())
        .map(|(number, blueprint)| (number, blueprint, plan.item(progress, blueprint)))
        .collect();
    work.sort_by_key(|(_, blueprint, _)| std::cmp::Reverse(blueprint.content.bytes));
    let mut found = vec![Content::default(); plan.blueprints.len()];
    let mut checks = stream::iter(work.into_iter().map(|(number, blueprint, item)| async move {
        Ok::<_, Error>((number, check::content(&plan.target, blueprint, cpu, budget, &item).await?))
    }))
    .buffer_unordered(readers);
    while let Some((number, content)) = checks.try_next().await? {
        found[number] = content;
    }
    let differences: Vec<String> = plan.blueprints.iter().zip(&found).filter_map(|(b, found)| difference(b, found)).collect();
    if differences.is_empty() {
        return Ok(found);
    }
    Err(Error::new(ErrorKind::Mismatch, format!("the target does not hold what the backup holds: {}", differences.join("; ")))
        .hint("something else may be writing to the target: stop it"))
}

fn difference(blueprint: &Blueprint, found: &Content) -> Option<String> {
    let expected = &blueprint.content;
    let words = |c: &Content| format!("{} documents of {} bytes with digest {}", c.documents, c.bytes, c.digest());
    (expected != found).then(|| format!("{}: expected {}, found {}", blueprint.namespace, words(expected), words(found)))
}

/// An error that came after the first write says what it leaves.
fn partly(error: Error, target: &MongoUri) -> Error {
    let left = "the target is left partly filled; running the same import again replaces what this one left";
    if error.kind() == ErrorKind::Interrupted {
        return Error::new(ErrorKind::Interrupted, format!("interrupted; {target} is left partly filled"))
            .hint("running the same import again replaces what this one left");
    }
    let hint = match error.hint_text() {
        Some(hint) => format!("{hint}; {left}"),
        None => left.to_owned(),
    };
    error.hint(hint)
}

fn report(backup: &Backup, plan: &Plan, found: &[Content], lost: Vec<String>, begun: Instant) -> RestoreReport {
    let collections: Vec<RestoredCollection> = plan
        .blueprints
        .iter()
        .zip(found)
        .map(|(blueprint, found)| RestoredCollection {
            namespace: blueprint.namespace.to_string(),
            kind: blueprint.kind,
            documents: found.documents,
            bytes: found.bytes,
            digest_matches: *found == blueprint.content,
            indexes: blueprint.indexes.len() as u64,
        })
        .collect();
    RestoreReport {
        backup: backup.manifest.name.to_string(),
        target: plan.target.connection.uri.to_string(),
        documents: collections.iter().map(|c| c.documents).sum(),
        bytes: collections.iter().map(|c| c.bytes).sum(),
        indexes: collections.iter().map(|c| c.indexes).sum(),
        left_out: plan.blueprints.iter().flat_map(|b| b.left_out.clone()).chain(lost).collect(),
        milliseconds: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        collections,
    }
}
