//! What `sync` says.

use indicatif::HumanCount;

use super::{compare, count, plain};
use crate::engine::sync::{ProofReport, SyncReport, SyncView};

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
    if let Some(proven) = &view.proven {
        let found = match (proven.same, proven.differences) {
            (true, _) => "the same".to_owned(),
            (false, 0) => "not everything could be proven".to_owned(),
            (false, number) => count(number, "difference"),
        };
        text += &format!("proven     {}: {found}\n", proven.ended.format("%Y-%m-%d %H:%M:%S"));
    }
    match &view.process {
        Some(process) => text += &format!("process    {process}\n"),
        None if view.state == "final" => {}
        None => text += "process    none: nothing follows until `bsonvault sync` is started again\n",
    }
    text
}

/// What a proof found.
pub fn proof(report: &ProofReport) -> String {
    let mut text = compare::differences(&report.differences);
    for unproven in &report.unproven {
        text += &format!("unproven  {}: {}\n", plain(&unproven.namespace), plain(&unproven.reason));
    }
    if report.debts > 0 {
        text += &format!("indexes   {} still being built\n", report.debts);
    }
    let verdict = match (report.same, report.differences.len() as u64) {
        (true, _) => "the same".to_owned(),
        (false, 0) => "not everything could be proven".to_owned(),
        (false, number) => count(number, "difference"),
    };
    let (namespaces, documents) = (count(report.namespaces, "collection"), count(report.documents, "document"));
    let seconds = (report.ended - report.began).num_milliseconds() as f64 / 1000.0;
    text + &format!("{verdict}: {namespaces}, {documents}, while the target followed, up to {}, {seconds:.1} s\n", report.at)
}
