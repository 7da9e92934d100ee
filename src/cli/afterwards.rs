//! What `import` does where it imports nothing: it looks after what earlier imports left in the target.

use tokio_util::sync::CancellationToken;

use super::output::{self, Outcome};
use super::progress::Faces;
use super::render::plain;
use super::with_progress;
use crate::config::Config;
use crate::engine::cleanup::{self, CleanupOptions, CleanupReport};
use crate::error::Result;
use crate::pipeline::progress::Progress;

/// `import --cleanup`.
pub(super) async fn cleanup(dry_run: bool, config: &Config, faces: Faces, stop: &CancellationToken) -> Result<Outcome> {
    let target = config.target()?;
    let progress = Progress::default();
    let options = CleanupOptions { dry_run, lease: None };
    let report = with_progress(faces, &progress, cleanup::run(&target, options, &progress, stop)).await?;
    Ok(Outcome { text: cleaned_up(&report), json: output::fields(&report)?, failure: report.failure() })
}

/// What a cleaning up did, or would do, a line each.
fn cleaned_up(report: &CleanupReport) -> String {
    let [finished, dropped, database, released] = match report.dry_run {
        true => [
            "would be published",
            "would be dropped",
            "would be dropped, of a drill that died",
            "would be given back: a lease in",
        ],
        false => ["published", "dropped", "dropped, of a drill that died", "given back: a lease in"],
    };
    let mut text = format!("target       {}\n", report.target);
    let mut add = |words: &str, names: &[String]| {
        names.iter().for_each(|name| text += &format!("{words}: {}\n", plain(name)));
    };
    add(finished, &report.finished);
    add(dropped, &report.dropped);
    add(database, &report.scratch_databases);
    add(released, &report.released);
    add("warning: given up", &report.given_up);
    for running in &report.running {
        text += &format!(
            "left alone: {}: {} is being imported there, by process {} on {}\n",
            plain(&running.database),
            plain(&running.backup),
            running.process,
            plain(&running.host)
        );
    }
    for database in &report.unseen {
        text += &format!("warning: the login may not look into {}\n", plain(database));
    }
    for failed in &report.failed {
        text += &format!("failed: {}: {}\n", plain(&failed.database), plain(&failed.message));
    }
    let nothing = [&report.finished, &report.dropped, &report.scratch_databases, &report.released, &report.given_up];
    if nothing.iter().all(|names| names.is_empty()) && report.failed.is_empty() {
        text += "nothing was left of imports or drills that died\n";
    } else if report.dry_run {
        text += "nothing was changed\n";
    }
    text
}
