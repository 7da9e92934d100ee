//! `check`: what stands in the way of a backup or an import, found before one is begun: configuration, connections, rights,
//! space. Changes nothing, but for a file that is written to the path and removed.

mod needs;
mod reach;
mod report;

use std::time::Duration;

use self::needs::Need;
use self::reach::Reached;
pub use self::report::{CheckLine, CheckReport, RightRow, Side, Status};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::few::Few;
use crate::format::manifest::Topology;
use crate::mongo::rights::Rights;
use crate::mongo::{Connection, MongoUri, Role, Version};
use crate::repository::Repository;
use crate::sink::Target;
use crate::sink::kept;
use crate::sink::leftovers::{self, Leftovers};
use crate::source::discover;

/// How long looking for what imports left may take.
const LEFTOVERS_LIMIT: Duration = Duration::from_secs(10);

/// What is checked. Each part may be an error already, which becomes a line.
#[derive(Debug)]
pub struct Setup {
    /// Whether all settings are understood.
    pub settings: Result<()>,
    /// The source's URI, none where it is not configured.
    pub source: Result<Option<MongoUri>>,
    /// The target's URI, none where it is not configured.
    pub target: Result<Option<MongoUri>>,
    /// Where backups are kept.
    pub repository: Result<Repository>,
}

/// Checks all of it, both sides at a time. What is wrong is in the report; there is nothing that keeps it from being made.
pub async fn run(setup: Setup, cx: &Context) -> CheckReport {
    let mut report = CheckReport { lines: Vec::new(), rights: Vec::new(), failure: None };

    // 1. The settings, then both sides, whatever becomes of the other.
    if let Err(error) = &setup.settings {
        report.fail("settings", error);
    }
    let (source, target) = tokio::join!(reach::reach(setup.source), reach::reach(setup.target));
    let nothing_configured = matches!((&source, &target), (Ok(None), Ok(None)));

    // 2. The source: what it is, what the login may do, what moment a backup could show.
    let source = settle(&mut report, Side::Source, source, nothing_configured);
    if let Some(source) = &source {
        judge_moment(&mut report, source);
        judge_member(&mut report, source);
    }

    // 3. The target: the same, and whether it takes writes.
    let target = settle(&mut report, Side::Target, target, nothing_configured);
    if let Some(target) = &target {
        judge_target(&mut report, target, source.as_ref());
        judge_leftovers(&mut report, target, cx).await;
    }

    // 4. The rights on both.
    if let Some(source) = &source {
        let rows = needs::of_source(source);
        judge_rights(&mut report, Side::Source, source, rows);
    }
    if let Some(target) = &target {
        let databases = source.as_ref().map(|s| s.databases.as_slice()).unwrap_or_default();
        let rows = needs::of_target(target, databases);
        judge_rights(&mut report, Side::Target, target, rows);
    }

    // 5. The path.
    let needed = source.as_ref().and_then(Reached::on_disk);
    judge_path(&mut report, setup.repository, needed).await;

    for reached in [source, target].into_iter().flatten() {
        reached.connection.close().await;
    }
    report
}

/// Whether a login with these rights can keep the oplog beside the data, and replay or resume from it.
#[must_use]
pub fn can_read_oplog(connection: &Connection, rights: &Rights) -> bool {
    connection.topology == Topology::ReplicaSet && needs::oplog().iter().all(|place| rights.allows(place, "find"))
}

/// The line about a side's connection.
fn settle(report: &mut CheckReport, side: Side, found: Result<Option<Reached>>, nothing: bool) -> Option<Reached> {
    let (role, verb) = match side {
        Side::Source => (Role::Source, "backup"),
        Side::Target => (Role::Target, "import"),
    };
    let subject = side.to_string();
    match found {
        Ok(Some(reached)) => {
            let c = &reached.connection;
            let set = c.replica_set.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
            let milliseconds = reached.latency.as_secs_f64() * 1000.0;
            let message =
                format!("{} answers within {milliseconds:.1} ms: MongoDB {}, {}{set}", c.hosts.join(", "), c.version, c.topology);
            report.add(&subject, Status::Ok, message, None);
            for note in c.uri.notes() {
                report.add(&format!("{side} URI"), Status::Warning, note.clone(), None);
            }
            Some(reached)
        }
        Ok(None) => {
            let missing = role.not_configured();
            if nothing {
                report.fail(&subject, &missing);
            } else {
                let todo = missing.hint_text().map(|hint| format!("for `{verb}`: {hint}"));
                report.add(&subject, Status::Warning, missing.to_string(), todo.as_deref());
            }
            None
        }
        Err(error) => {
            report.fail(&subject, &error);
            None
        }
    }
}

/// What moment a backup of this source could show.
fn judge_moment(report: &mut CheckReport, source: &Reached) {
    let c = &source.connection;
    let reads_oplog = needs::oplog().iter().all(|place| source.rights.allows(place, "find"));
    let unproven = Some("prove a restore before you rely on it");
    let (message, todo) = match c.topology {
        Topology::Standalone => (
            "a standalone server keeps no history: a backup is read while writes go on, and is not of one moment".to_owned(),
            Some("make it a replica set of one member (--replSet, then rs.initiate()), or stop writes during a backup"),
        ),
        Topology::Sharded if !discover::can_snapshot(c) => (
            format!("a sharded cluster of MongoDB {} cannot be read at one moment", c.version),
            Some("upgrade to 5.0 or later; `backup` takes one that is not of one moment only with [[allow-inconsistent]]"),
        ),
        Topology::Sharded => {
            ("a sharded cluster: reading it at one moment is not proven with this version of bsonvault".to_owned(), unproven)
        }
        Topology::ReplicaSet if !discover::can_snapshot(c) && reads_oplog => (
            format!(
                "MongoDB {} has no snapshots to read; a slice of the oplog is kept beside the data and leads them to one moment",
                c.version
            ),
            None,
        ),
        Topology::ReplicaSet if !discover::can_snapshot(c) => (
            format!(
                "MongoDB {} has no snapshots to read, and this login cannot read the oplog, which could make up for that",
                c.version
            ),
            Some(
                "grant clusterMonitor or backup on admin; `backup` takes one that is not of one moment only with [[allow-inconsistent]]",
            ),
        ),
        Topology::ReplicaSet if c.version >= Version(6, 1, 0) => {
            (format!("MongoDB {} can be read at one moment, but servers newer than 6.0 are not proven", c.version), unproven)
        }
        Topology::ReplicaSet => {
            let longer = match reads_oplog {
                true => "and a slice of the oplog is kept where that is not enough",
                false => {
                    "capped ones apart, as long as the source keeps its history: this login cannot read the oplog, which would make it longer"
                }
            };
            (format!("every collection is read at one moment, as a snapshot, {longer}"), None)
        }
    };
    let status = if todo.is_some() { Status::Warning } else { Status::Ok };
    report.add("consistency", status, message, todo);
}

/// Which member of a set documents are read from.
fn judge_member(report: &mut CheckReport, source: &Reached) {
    let c = &source.connection;
    let read_from = |member: &str, what: &str| format!("documents are read from {member}, {what}");
    let message = match (c.chosen(), &c.me) {
        (Some((member, is_primary, preference)), _) => {
            let state = if is_primary { "the primary" } else { "a secondary" };
            read_from(&member, &format!("{state} ({preference})"))
        }
        (None, Some(me)) if c.topology == Topology::ReplicaSet && c.writable => read_from(me, "the primary"),
        (None, Some(me)) if c.topology == Topology::ReplicaSet => {
            read_from(me, "which is not the primary and is connected to directly")
        }
        _ => return,
    };
    report.add("source member", Status::Ok, message, None);
}

fn judge_target(report: &mut CheckReport, target: &Reached, source: Option<&Reached>) {
    if !target.connection.writable {
        let error = Error::new(ErrorKind::Refused, format!("{} takes no writes: it is not the primary", target.connection.uri))
            .hint("take directConnection=true out of MONGO_URI_LOCAL and name the replica set, so that the primary is found");
        report.fail("target", &error);
    }
    let Some(source) = source else { return };
    let (s, t) = (&source.connection, &target.connection);
    let same = (s.process.is_some() && s.process == t.process) || s.hosts.iter().any(|host| t.hosts.contains(host));
    if same {
        report.add(
            "target",
            Status::Warning,
            "source and target are the same deployment",
            Some("set MONGO_URI_LOCAL to another one; `import` refuses this one unless [[allow-same]] is given"),
        );
    }
}

/// What imports and test restores have in the target.
async fn judge_leftovers(report: &mut CheckReport, target: &Reached, cx: &Context) {
    let version = target.connection.version;
    let target = Target::new(target.connection.clone(), version, cx);
    // It stands in nobody's way: where it cannot be looked at, something else says why.
    let Ok(Ok((found, _))) = tokio::time::timeout(LEFTOVERS_LIMIT, leftovers::look(&target)).await else { return };
    if let Ok(Ok(sets)) = tokio::time::timeout(LEFTOVERS_LIMIT, kept::sets(&target)).await
        && !sets.is_empty()
    {
        let kept: usize = sets.iter().map(|set| set.kept.iter().filter(|kept| kept.holds_documents()).count()).sum();
        let todo = "[[`bsonvault import undo-last`]] puts back what the last of them replaced, and [[drop-replaced]] drops all that is kept";
        let imports = if sets.len() == 1 { "1 import".to_owned() } else { format!("{} imports", sets.len()) };
        report.add("target", Status::Ok, format!("{imports} can be undone; collections kept for that: {kept}"), Some(todo));
    }
    let filled: Vec<String> =
        found.values().filter(|l| !l.markers.is_empty()).flat_map(|l| l.half_filled.iter().map(ToString::to_string)).collect();
    if !filled.is_empty() {
        report.add(
            "target",
            Status::Warning,
            format!("filled by a restore, or left half filled by one that died: {}", filled.into_iter().collect::<Few>().into_sentences().join(", ")),
            Some("if none is running, [[`bsonvault import cleanup yes`]] drops them, and [[`bsonvault restore drop`]] fills them anew"),
        );
    }
    let found = found.into_iter().filter(|(_, leftovers)| leftovers.is_of_imports());
    let (running, left): (Vec<_>, Vec<_>) = found.partition(|(_, leftovers)| leftovers.living().is_some());
    let names = |found: Vec<(String, Leftovers)>| found.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
    if !running.is_empty() {
        report.add("target", Status::Ok, format!("an import or a test restore is at work in {}", names(running)), None);
    }
    if left.is_empty() {
        return;
    }
    let staging: usize = left.iter().map(|(_, leftovers)| leftovers.staging.len()).sum();
    let decided = left.iter().any(|(_, leftovers)| leftovers.records.values().any(Option::is_some));
    let and = if decided { ", of which one had begun to publish" } else { "" };
    report.add(
        "target",
        Status::Warning,
        format!("imports or test restores that died{and} left something in {}: staging collections: {staging}", names(left)),
        Some(
            "[[`bsonvault import cleanup`]] removes it, and finishes what had begun; so does the next import into these databases",
        ),
    );
}

/// The rows of a side, and a line for each that is missing something.
fn judge_rights(report: &mut CheckReport, side: Side, reached: &Reached, needs: Vec<Need>) {
    let subject = format!("{side} rights");
    let rows: Vec<RightRow> = needs.into_iter().map(|need| need.row(side, &reached.rights)).collect();
    if !reached.rights.enforced {
        report.add(&subject, Status::Ok, "the server has no access control: everything is allowed", None);
    } else if reached.rights.users.is_empty() {
        let uri = if side == Side::Source { "MONGO_URI_ATLAS" } else { "MONGO_URI_LOCAL" };
        let error = Error::new(ErrorKind::Denied, "the server has access control and the URI has no user")
            .hint(format!("put USER:PASSWORD@ in front of the host in {uri}"));
        report.fail(&subject, &error);
    } else {
        let user = reached.rights.users.join(", ");
        for row in rows.iter().filter(|r| !r.granted) {
            let message = format!("{}: {user} lacks {} on {}", row.feature, row.missing.join(", "), row.places.join(", "));
            let grant = format!("grant {}", row.grant);
            if row.required {
                report.fail(&subject, &Error::new(ErrorKind::Denied, message).hint(grant));
            } else {
                let todo = format!("{grant}; without it, {}", row.without.as_deref().unwrap_or("it is not done"));
                report.add(&subject, Status::Warning, message, Some(&todo));
            }
        }
        if rows.iter().all(|r| r.granted) {
            report.add(&subject, Status::Ok, format!("{user} has all that is needed"), None);
        }
    }
    report.rights.extend(rows);
}

async fn judge_path(report: &mut CheckReport, repository: Result<Repository>, needed: Option<u64>) {
    let subject = "path";
    let repository = match repository {
        Ok(repository) => repository,
        Err(error) => return report.fail(subject, &error),
    };
    if let Err(error) = repository.try_write().await {
        return report.fail(subject, &error);
    }
    let location = repository.location();
    let gibibytes = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    match (repository.free_space(), needed) {
        (None, _) => report.add(
            subject,
            Status::Warning,
            format!("{location} can be written; how much is free cannot be told"),
            Some("see to it that there is room"),
        ),
        (Some(free), Some(needed)) if free < needed => report.add(
            subject,
            Status::Warning,
            format!(
                "{location} can be written and has {} free; the source takes {} on its disk",
                gibibytes(free),
                gibibytes(needed)
            ),
            Some("make space there, or set [[BACKUP_PATH or path]] to a disk with more"),
        ),
        (Some(free), needed) => {
            let beside = needed.map(|n| format!("; the source takes {} on its disk", gibibytes(n))).unwrap_or_default();
            report.add(subject, Status::Ok, format!("{location} can be written and has {} free{beside}", gibibytes(free)), None);
        }
    }
}
