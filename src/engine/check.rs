//! `check`: finds what would make a backup or an import fail, before one begins: configuration,
//! connections, rights, space. Changes nothing, except that it writes a file to the path and
//! removes it.

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

/// How long the search for leftovers of imports may take.
const LEFTOVERS_LIMIT: Duration = Duration::from_secs(10);

/// What is checked. Each part may already be an error, which becomes a line.
#[derive(Debug)]
pub struct Setup {
    /// Whether all settings are valid.
    pub settings: Result<()>,
    /// The source's URI. None if it is not configured.
    pub source: Result<Option<MongoUri>>,
    /// The target's URI. None if it is not configured.
    pub target: Result<Option<MongoUri>>,
    /// Where backups are kept.
    pub repository: Result<Repository>,
}

/// Checks everything, both sides at the same time. The report names every problem; nothing prevents
/// the report itself.
pub async fn run(setup: Setup, cx: &Context) -> CheckReport {
    let mut report = CheckReport { lines: Vec::new(), rights: Vec::new(), failure: None };

    // 1. The settings, then each side, even if the other fails.
    if let Err(error) = &setup.settings {
        report.fail("settings", error);
    }
    let (source, target) = tokio::join!(reach::reach(setup.source), reach::reach(setup.target));
    let nothing_configured = matches!((&source, &target), (Ok(None), Ok(None)));

    // 2. The source: what it is, what the login may do, and which consistency point a backup could
    // show.
    let source = settle(&mut report, Side::Source, source, nothing_configured);
    if let Some(source) = &source {
        judge_moment(&mut report, source);
        judge_member(&mut report, source);
    }

    // 3. The target: the same, and whether it accepts writes.
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

    // 5. The backup path.
    let needed = source.as_ref().and_then(Reached::on_disk);
    judge_path(&mut report, setup.repository, needed).await;

    for reached in [source, target].into_iter().flatten() {
        reached.connection.close().await;
    }
    report
}

/// Whether a login with these rights can keep an oplog slice, and replay or resume from it.
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

/// Which consistency point a backup of this source could show.
fn judge_moment(report: &mut CheckReport, source: &Reached) {
    let c = &source.connection;
    let reads_oplog = needs::oplog().iter().all(|place| source.rights.allows(place, "find"));
    let unproven = Some("run a test restore before you rely on it");
    let (message, todo) = match c.topology {
        Topology::Standalone => (
            "a standalone server keeps no history: a backup is read while writes go on, and has no consistency point".to_owned(),
            Some("make it a replica set of one member (--replSet, then rs.initiate()), or stop writes during a backup"),
        ),
        Topology::Sharded if !discover::can_snapshot(c) => (
            format!("a sharded cluster of MongoDB {} cannot be read at one snapshot time", c.version),
            Some("upgrade to 5.0 or later; without a consistency point, `backup` needs [[allow-inconsistent]]"),
        ),
        Topology::Sharded => ("a sharded cluster: this version of bsonvault is not tested with it".to_owned(), unproven),
        Topology::ReplicaSet if !discover::can_snapshot(c) && reads_oplog => (
            format!(
                "MongoDB {} cannot be read at a snapshot time; an oplog slice leads the data to a consistency point",
                c.version
            ),
            None,
        ),
        Topology::ReplicaSet if !discover::can_snapshot(c) => (
            format!(
                "MongoDB {} cannot be read at a snapshot time, and this login cannot read the oplog, which would do instead",
                c.version
            ),
            Some("grant clusterMonitor or backup on admin; without a consistency point, `backup` needs [[allow-inconsistent]]"),
        ),
        Topology::ReplicaSet if c.version >= Version(6, 1, 0) => (
            format!(
                "MongoDB {} can be read at one snapshot time, but bsonvault is not tested with servers newer than 6.0",
                c.version
            ),
            unproven,
        ),
        Topology::ReplicaSet => {
            let longer = match reads_oplog {
                true => "and an oplog slice is kept if that is not enough",
                false => {
                    "except capped ones, while the source keeps its history: this login cannot read the oplog, which \
                     reaches further"
                }
            };
            (format!("every collection is read at one snapshot time, {longer}"), None)
        }
    };
    let status = if todo.is_some() { Status::Warning } else { Status::Ok };
    report.add("consistency", status, message, todo);
}

/// Which member of a set the documents are read from.
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
            read_from(me, "which is not the primary; the URI connects to it directly")
        }
        _ => return,
    };
    report.add("source member", Status::Ok, message, None);
}

fn judge_target(report: &mut CheckReport, target: &Reached, source: Option<&Reached>) {
    if !target.connection.writable {
        let error = Error::new(ErrorKind::Refused, format!("{} accepts no writes: it is not the primary", target.connection.uri))
            .hint(
                "remove directConnection=true from MONGO_URI_LOCAL and name the replica set: the driver then finds the primary",
            );
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
            Some("set MONGO_URI_LOCAL to another deployment; `import` refuses this one without [[allow-same]]"),
        );
    }
}

/// What imports and test restores have left in the target.
async fn judge_leftovers(report: &mut CheckReport, target: &Reached, cx: &Context) {
    let version = target.connection.version;
    let target = Target::new(target.connection.clone(), version, cx);
    // Leftovers never prevent an import. If they cannot be listed, another line says why.
    let Ok(Ok((found, _))) = tokio::time::timeout(LEFTOVERS_LIMIT, leftovers::look(&target)).await else { return };
    if let Ok(Ok(sets)) = tokio::time::timeout(LEFTOVERS_LIMIT, kept::sets(&target)).await
        && !sets.is_empty()
    {
        let kept: usize = sets.iter().map(|set| set.kept.iter().filter(|kept| kept.holds_documents()).count()).sum();
        let todo =
            "[[`bsonvault import undo-last`]] puts back what the last one replaced, and [[drop-replaced]] drops all that is kept";
        let imports = if sets.len() == 1 { "1 import".to_owned() } else { format!("{} imports", sets.len()) };
        report.add("target", Status::Ok, format!("{imports} can be undone; collections kept for that: {kept}"), Some(todo));
    }
    let filled: Vec<String> =
        found.values().filter(|l| !l.markers.is_empty()).flat_map(|l| l.half_filled.iter().map(ToString::to_string)).collect();
    if !filled.is_empty() {
        report.add(
            "target",
            Status::Warning,
            format!(
                "being filled by a restore, or left half filled by one that crashed: {}",
                filled.into_iter().collect::<Few>().into_sentences().join(", ")
            ),
            Some(
                "if no restore is running, [[`bsonvault import cleanup yes`]] drops them; [[`bsonvault restore drop`]] \
                 refills them",
            ),
        );
    }
    let found = found.into_iter().filter(|(_, leftovers)| leftovers.is_of_imports());
    let (running, left): (Vec<_>, Vec<_>) = found.partition(|(_, leftovers)| leftovers.living().is_some());
    let names = |found: Vec<(String, Leftovers)>| found.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
    if !running.is_empty() {
        report.add("target", Status::Ok, format!("an import or a test restore is running in {}", names(running)), None);
    }
    if left.is_empty() {
        return;
    }
    let staging: usize = left.iter().map(|(_, leftovers)| leftovers.staging.len()).sum();
    let decided = left.iter().any(|(_, leftovers)| leftovers.records.values().any(Option::is_some));
    let and = if decided { ", one of which had begun to publish," } else { "" };
    report.add(
        "target",
        Status::Warning,
        format!("imports or test restores that crashed{and} left something in {}: staging collections: {staging}", names(left)),
        Some(
            "[[`bsonvault import cleanup`]] removes it and finishes what had begun to publish; the next import into \
             these databases does so, too",
        ),
    );
}

/// The rows of a side, and a line for each row with missing rights.
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
                let todo = format!("{grant}; without it, {}", row.without.as_deref().unwrap_or("the feature is not available"));
                report.add(&subject, Status::Warning, message, Some(&todo));
            }
        }
        if rows.iter().all(|r| r.granted) {
            report.add(&subject, Status::Ok, format!("{user} has all rights that are needed"), None);
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
    let is_there = repository.objects().exists().await;
    if let Err(error) = repository.try_write().await {
        return report.fail(subject, &error);
    }
    let location = match is_there {
        true => format!("{} is writable", repository.location()),
        false => format!("{} does not exist yet, can be created", repository.location()),
    };
    let gibibytes = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    match (repository.free_space(), needed) {
        (None, _) => report.add(
            subject,
            Status::Warning,
            format!("{location}; its free space is unknown"),
            Some("make sure that it has enough space"),
        ),
        (Some(free), Some(needed)) if free < needed => report.add(
            subject,
            Status::Warning,
            format!("{location} and has {} free; the source takes {} on its disk", gibibytes(free), gibibytes(needed)),
            Some("make space there, or set [[BACKUP_PATH or path]] to a disk with more"),
        ),
        (Some(free), needed) => {
            let beside = needed.map(|n| format!("; the source takes {} on its disk", gibibytes(n))).unwrap_or_default();
            report.add(subject, Status::Ok, format!("{location} and has {} free{beside}", gibibytes(free)), None);
        }
    }
}
