//! What `sync` says.

use indicatif::HumanCount;

use super::plain;
use crate::engine::sync::{SyncReport, SyncView};

/// What a sync did.
pub fn done(report: &SyncReport) -> String {
    format!(
        "{} is at {}: {} operations in {} batches, {} changes of collections and indexes\n",
        plain(&report.target),
        report.at,
        HumanCount(report.operations),
        HumanCount(report.batches),
        HumanCount(report.ddl)
    )
}

/// How far a target is.
pub fn view(view: &SyncView) -> String {
    let mut text = format!("target     {}\n", plain(&view.target));
    text += &format!("source     {} ({})\n", plain(&view.replica_set), view.replica_set_id);
    text += &format!("follows    {}\n", plain(&view.selection));
    text += &format!("state      {}\n", view.state);
    if let Some(reason) = &view.reason {
        text += &format!("because    {}\n", plain(reason));
    }
    if let Some(at) = &view.at {
        let what = if view.moment { "one moment" } else { "not one moment: a write is under way" };
        text += &format!("at         {} ({}), {what}\n", at.time.format("%Y-%m-%d %H:%M:%S"), at.position);
    }
    if let Some(lag) = view.lag_seconds {
        text += &format!("behind     {lag} s\n");
    }
    if let Some(debts) = view.debts.filter(|debts| *debts > 0) {
        text += &format!("indexes    {debts} still being built\n");
    }
    match &view.process {
        Some(process) => text += &format!("process    {process}\n"),
        None if view.state == "final" => {}
        None => text += "process    none: nothing follows until `bsonvault sync` is started again\n",
    }
    text
}
