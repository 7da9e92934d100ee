//! Filling under final names, where the login may neither read nor rename: what is not there yet, and nothing else.

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
        .hint("restore again with [[drop]], which drops them first, or drop them"));
    }
    Ok(true)
}

/// Does what was planned so. Whatever fails drops what was made.
///
/// # Errors
/// As for [`execute`](super::execute).
pub(super) async fn execute(mut plan: Plan<'_>, options: &ImportOptions, begun: Instant, cx: &Context) -> Result<ImportReport> {
    let target = plan.target.clone();
    // 1. What a restore that died left half filled goes.
    cx.progress.begin("preparing the target");
    let dropped = in_place::clean(&target, &plan.databases()).await?;
    if !dropped.is_empty() {
        let names: Vec<String> = dropped.iter().map(ToString::to_string).collect();
        cx.progress.note(format!("a restore that died had left these half filled, and they were dropped: {}", names.join(", ")));
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
    plan.beside.push("nothing was read back: the login may not read, so what a majority acknowledged counts".to_owned());
    let report = report::of(&plan, staged, begun);
    plan.close().await;
    Ok(report)
}
