//! Fills collections under their final names if the login may neither read nor rename. Only
//! collections that do not exist yet.

use std::time::Instant;

use futures::FutureExt as _;
use uuid::Uuid;

use super::options::{ImportMode, ImportOptions, IndexMode};
use super::plan::{Plan, listed};
use super::report::{self, ImportReport, Staging};
use super::stage::Stage;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::sink::in_place::{self, Filling};
use crate::sink::{prepare, staging, users};

/// Whether to fill in place: the login lacks the rights for anything else, and in-place filling is
/// allowed and possible.
///
/// # Errors
/// [`ErrorKind::Denied`], which names the missing rights, if it is not.
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
        let what =
            format!("these exist already, and the login lacks the rights to add to them or replace them: {}", listed(&standing));
        return Err(lacking.error().context(what));
    }
    if !half.is_empty() && options.mode != ImportMode::Replace {
        return Err(Error::new(
            ErrorKind::Refused,
            format!("left half filled by a restore that crashed; nothing was changed: {}", listed(&half)),
        )
        .hint("restore again with [[drop]], which drops them first, or drop them"));
    }
    Ok(true)
}

/// Carries out the plan in place. On failure, it drops what it created.
///
/// # Errors
/// As for [`execute`](super::execute).
pub(super) async fn execute(mut plan: Plan<'_>, options: &ImportOptions, begun: Instant, cx: &Context) -> Result<ImportReport> {
    let target = plan.target.clone();
    // 1. Drop what a crashed restore left half filled.
    cx.progress.begin("preparing the target");
    let dropped = in_place::clean(&target, &plan.databases()).await?;
    if !dropped.is_empty() {
        let names: Vec<String> = dropped.iter().map(ToString::to_string).collect();
        cx.progress.note(format!("dropped what a crashed restore had left half filled: {}", names.join(", ")));
    }
    // 2. Fill everything.
    let filling = Filling::begin(&target, &mut plan.specs, &Uuid::new_v4().simple().to_string()).await?;
    let filled = async {
        let proven = Stage::of(&plan, options, None, cx).fill_and_prove().await?;
        cx.progress.begin("confirming");
        staging::set_expiry(&target, &plan.specs).await?;
        filling.end(&plan.specs).await?;
        Ok(Staging::of(proven))
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
    // 3. Users and roles.
    staged.proven.add_accounts(&target, users::Through::OfTools, cx).await?;
    plan.beside
        .push("nothing was read back: the login may not read, so the counts are those that a majority acknowledged".to_owned());
    let report = report::of(&plan, staged, begun);
    plan.close().await;
    Ok(report)
}
