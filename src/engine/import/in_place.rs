//! Filling under final names, where the login may neither read nor rename: what is not there yet, and nothing else.

use std::collections::BTreeMap;
use std::time::Instant;

use futures::FutureExt as _;
use uuid::Uuid;

use super::document_source::DocumentSource;
use super::options::{ImportMode, ImportOptions, IndexMode};
use super::plan::{Plan, listed};
use super::report::{self, ImportReport, Staging};
use super::stage::{Stage, Writers};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::sink::in_place::{self, Filling};
use crate::sink::indexes::IndexBuilder;
use crate::sink::{prepare, staging, users};

/// Whether it is to be filled so: the login lacks rights for anything else, and this is allowed and possible.
///
/// # Errors
/// [`ErrorKind::Denied`], naming the rights that are missing, where it is not.
pub(super) fn decide(plan: &Plan<'_>, options: &ImportOptions, lacking: Option<prepare::Lacking>) -> Result<bool> {
    let Some(lacking) = lacking else { return Ok(false) };
    if !options.in_place || !lacking.allows_filling || plan.slice.is_some() || options.indexes == IndexMode::Only {
        return Err(lacking.error());
    }
    let (mut standing, mut half) = (Vec::new(), Vec::new());
    for spec in plan.specs.iter().filter(|spec| plan.stands(spec).is_some()) {
        let name = &spec.namespace;
        let left = plan.standing.get(&name.database).map(|there| in_place::left(&name.database, there)).unwrap_or_default();
        if left.contains(name) { half.push(name.to_string()) } else { standing.push(name.to_string()) }
    }
    if !standing.is_empty() {
        let what = format!("there already, and the login lacks the rights to add to them or replace them: {}", listed(&standing));
        return Err(lacking.error().context(what));
    }
    if !half.is_empty() && options.mode != ImportMode::Replace {
        return Err(Error::new(
            ErrorKind::Refused,
            format!("half filled by a restore that died, and nothing was changed: {}", listed(&half)),
        )
        .hint("restore again with --drop, which drops them first, or drop them"));
    }
    Ok(true)
}

/// Does what was planned so. Whatever fails drops what was made.
///
/// # Errors
/// As for [`execute`](super::execute).
pub(super) async fn execute(
    origin: DocumentSource<'_>,
    mut plan: Plan<'_>,
    options: &ImportOptions,
    cx: &Context,
    begun: Instant,
) -> Result<ImportReport> {
    let target = plan.target.clone();
    cx.progress.begin("preparing the target");
    let dropped = in_place::clean(&target, &plan.databases()).await?;
    if !dropped.is_empty() {
        let names: Vec<String> = dropped.iter().map(ToString::to_string).collect();
        cx.progress.note(format!("a restore that died had left these half filled, and they were dropped: {}", names.join(", ")));
    }
    let filling = Filling::begin(&target, &mut plan.specs, &Uuid::new_v4().simple().to_string()).await?;
    let filled = async {
        let staged = fill(origin, &plan, options, cx).await?;
        filling.end(&plan.specs).await?;
        Ok(staged)
    }
    .boxed();
    let staged = match filled.await {
        Ok(staged) => staged,
        Err(error) => {
            let error = filling.undo(error).await;
            plan.close().await;
            return Err(error);
        }
    };
    let accounts = &staged.proven.accounts;
    if !accounts.is_empty() {
        cx.progress.begin("adding users and roles");
        let merging = users::merge(&target.unstoppable(), users::Through::OfTools, accounts).await;
        merging.map_err(|e| e.context("everything else was imported, and the users and roles were not added"))?;
    }
    plan.beside.push("nothing was read back: the login may not read, so what a majority acknowledged counts".to_owned());
    let report = report::of(origin, &plan, staged, begun);
    plan.close().await;
    Ok(report)
}

async fn fill(origin: DocumentSource<'_>, plan: &Plan<'_>, options: &ImportOptions, cx: &Context) -> Result<Staging> {
    let stage = Stage {
        origin,
        plan,
        writers: Writers::of(options.tuning.writers),
        cpu: cx.cpu.clone(),
        budget: options.budget(origin, cx),
        repeats: options.repeats(origin),
        cx,
        builder: IndexBuilder::new(plan.target.clone()),
        target_cores: None,
        indexes_later: false,
    };
    let proven = stage.fill_and_prove().await?;
    cx.progress.begin("confirming");
    staging::set_expiry(&plan.target, &plan.specs).await?;
    let documents = proven.contents.iter().map(|c| c.documents).collect();
    Ok(Staging { documents, proven, lost: Vec::new(), operations: 0, not_added: BTreeMap::new(), replayed: None, kept: None })
}
