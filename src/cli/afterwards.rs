//! `import --cleanup`, `--undo-last` and `--drop-replaced`: deal with what earlier imports left in
//! the target.

use super::confirm::{Loss, confirm};
use super::output::{self, Outcome};
use super::progress::{Faces, with_progress};
use super::render::plain;
use crate::config::Config;
use crate::context::Context;
use crate::engine::cleanup::{self, CleanupOptions, CleanupReport};
use crate::engine::undo::{self, UndoOptions, UndoReport};
use crate::error::Result;

/// `import --cleanup`.
pub(super) async fn cleanup((dry_run, yes): (bool, bool), config: &Config, faces: Faces, cx: &Context) -> Result<Outcome> {
    let target = config.target()?;
    let options = CleanupOptions { dry_run, half_filled: yes, lease: None };
    let report = with_progress(faces, cx, cleanup::run(&target, options, cx)).await?;
    Ok(Outcome { text: cleaned_up(&report), json: output::fields(&report)?, failure: report.failure(), ..Outcome::default() })
}

/// `import --undo-last`.
pub(super) async fn undo_last((dry_run, yes): (bool, bool), config: &Config, faces: Faces, cx: &Context) -> Result<Outcome> {
    let target = config.target()?;
    let ask = async |lost: &[String]| {
        let hint = "pass --yes to undo the import anyway; --dry-run shows what would be put back; --drop-replaced drops what \
                    was kept instead";
        let what = "undoing the import would lose data".to_owned();
        confirm(Loss { what, each: lost.iter().map(|lost| plain(lost)).collect(), hint: hint.to_owned() }, yes, cx).await
    };
    let options = UndoOptions { dry_run, lease: None };
    // It may ask a question, so no lines that are redrawn.
    let faces = if faces == Faces::Silent { faces } else { Faces::Lines };
    let report = with_progress(faces, cx, undo::undo_last(&target, options, ask, cx)).await?;
    Ok(Outcome::done(undone(&report), output::fields(&report)?))
}

/// `import --drop-replaced`.
pub(super) async fn drop_replaced((dry_run, yes): (bool, bool), config: &Config, faces: Faces, cx: &Context) -> Result<Outcome> {
    let target = config.target()?;
    let look = UndoOptions { dry_run: true, lease: None };
    let planned = with_progress(faces, cx, undo::drop_replaced(&target, look, cx)).await?;
    if dry_run {
        return Ok(Outcome::done(undone(&planned), output::fields(&planned)?));
    }
    let loss = Loss {
        what: "what was kept of imports would be dropped".to_owned(),
        each: planned.dropped.iter().map(|name| plain(name)).collect(),
        hint: "pass --yes to drop it, or --undo-last to put it back".to_owned(),
    };
    confirm(loss, yes, cx).await?;
    let report = with_progress(faces, cx, undo::drop_replaced(&target, UndoOptions { dry_run, lease: None }, cx)).await?;
    Ok(Outcome::done(undone(&report), output::fields(&report)?))
}

/// What undoing an import or dropping what was kept did or would do, a line each.
fn undone(report: &UndoReport) -> String {
    let would = if report.dry_run { "would be " } else { "" };
    let mut text = format!("target       {}\n", report.target);
    report.backups.iter().for_each(|backup| text += &format!("import of    {}\n", plain(backup)));
    let mut add = |words: &str, names: &[String]| {
        names.iter().for_each(|name| text += &format!("{words}: {}\n", plain(name)));
    };
    add(&format!("{would}put back"), &report.restored);
    add(&format!("{would}removed, because it did not exist before the import"), &report.removed);
    add(&format!("{would}dropped"), &report.dropped);
    add(if report.dry_run { "would be lost" } else { "lost" }, &report.lost);
    text + if report.dry_run { "nothing was changed\n" } else { "" }
}

/// What a cleanup did or would do, a line each.
fn cleaned_up(report: &CleanupReport) -> String {
    let [finished, dropped, database, released] = match report.dry_run {
        true => [
            "would be published",
            "would be dropped",
            "would be dropped, from a crashed test restore",
            "would be released: a lease in",
        ],
        false => ["published", "dropped", "dropped, from a crashed test restore", "released: a lease in"],
    };
    let mut text = format!("target       {}\n", report.target);
    let mut add = |words: &str, names: &[String]| {
        names.iter().for_each(|name| text += &format!("{words}: {}\n", plain(name)));
    };
    add(finished, &report.finished);
    add(dropped, &report.dropped);
    add(database, &report.scratch_databases);
    add(released, &report.released);
    add("warning: refused by the target for good", &report.given_up);
    for name in &report.half_filled {
        text += &format!("left alone: {}: half filled by a restore that crashed; --yes drops it\n", plain(name));
    }
    for running in &report.running {
        if running.backup.is_empty() {
            text += &format!("left alone: {}: a restore is filling collections there\n", plain(&running.database));
            continue;
        }
        text += &format!(
            "left alone: {}: process {} on {} is importing {} there\n",
            plain(&running.database),
            running.process,
            plain(&running.host),
            plain(&running.backup)
        );
    }
    for database in &report.unseen {
        text += &format!("warning: the login lacks the rights to look into {}\n", plain(database));
    }
    for failed in &report.failed {
        text += &format!("failed: {}: {}\n", plain(&failed.database), plain(&failed.message));
    }
    let nothing =
        [&report.finished, &report.dropped, &report.scratch_databases, &report.released, &report.given_up, &report.half_filled];
    if nothing.iter().all(|names| names.is_empty()) && report.failed.is_empty() {
        text += "nothing was left by crashed imports or test restores\n";
    } else if report.dry_run {
        text += "nothing was changed\n";
    }
    text
}
