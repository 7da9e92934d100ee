//! Describes the metrics for the documentation, from a page on which every value is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{Metrics, Seen};
use crate::engine::archive::ArchiveState;
use crate::engine::sync::ProvenView;
use crate::format::manifest::ClusterTime;
use crate::repository::catalog::provenance::Grouped;
use crate::service::archive::ArchiveView;
use crate::service::connections::{ConnectionState, DualState};
use crate::service::job::{Job, JobKind, JobState, Trigger};
use crate::service::retry::NotTaken;
use crate::service::status::{BackupEntry, BackupState};
use crate::service::sync::SyncView;

/// A metric, as `# HELP` and `# TYPE` describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedMetric {
    /// Its name, as Prometheus shows it.
    pub name: String,
    /// `gauge`, `counter`, `histogram` or `info`.
    pub kind: String,
    /// Its meaning.
    pub help: String,
    /// Its labels and their values.
    pub labels: BTreeMap<String, BTreeSet<String>>,
}

/// All metrics, in the order of the page.
#[must_use]
pub fn described_metrics() -> Vec<DescribedMetric> {
    let now = DateTime::<Utc>::UNIX_EPOCH;
    let metrics = Metrics::new(now);
    for kind in JobKind::ALL {
        for state in [JobState::Succeeded, JobState::Failed] {
            let mut job = Job::new(kind, Trigger::Manual, now);
            (job.state, job.started, job.finished) = (state, Some(now), Some(now));
            metrics.ended(&job);
        }
    }
    parsed(&metrics.render(&seen(now)))
}

/// A state in which every value is known.
fn seen(now: DateTime<Utc>) -> Seen {
    let connection = ConnectionState {
        configured: true,
        connected: true,
        host: None,
        latency_ms: Some(1.0),
        version: None,
        topology: None,
        can_snapshot: false,
        can_read_oplog: false,
        checked: now,
        error: None,
    };
    let newest = BackupEntry {
        name: String::new(),
        path: String::new(),
        created: Some(now),
        size: 1,
        documents: 1,
        raw_size: 1,
        consistency: None,
        verified: true,
        complete: true,
        state: BackupState::Complete,
        of: Grouped { group: Some(1), ..Grouped::default() },
        origin: None,
        reason: None,
    };
    let archive = ArchiveView {
        enabled: true,
        state: ArchiveState::Following,
        problem: None,
        hint: None,
        replica_set_id: None,
        path: None,
        started: Some(now),
        position: Some(ClusterTime { t: 1, i: 1 }.into()),
        source_time: None,
        lag_seconds: Some(1),
        headroom: Some(1.0),
        links: 1,
        stored_bytes: 1,
        gaps: Vec::new(),
        base: None,
    };
    let states = [JobState::Queued, JobState::Running];
    Seen {
        now,
        backups: Some(Arc::new(vec![newest])),
        own: Some(1),
        free_bytes: Some(1),
        jobs: JobKind::ALL.into_iter().flat_map(|kind| states.map(|state| (kind, state, 1))).collect(),
        accepting: true,
        state_file_replaced: false,
        schedule_enabled: true,
        next_run: Some(now),
        not_taken: Some(NotTaken { failed: 1, next_try: Some(now), busy: false }),
        connections: Some(DualState { atlas: connection.clone(), local: connection }),
        archive,
        sync: SyncView {
            at: Some(ClusterTime { t: 1, i: 1 }.into()),
            lag_seconds: Some(1),
            moment: Some(true),
            debts: Some(1),
            proven: Some(ProvenView { ended: now, same: true, differences: 1 }),
            ..SyncView::default()
        },
    }
}

fn parsed(page: &str) -> Vec<DescribedMetric> {
    let mut metrics: Vec<DescribedMetric> = Vec::new();
    for line in page.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            let (name, help) = (name.to_owned(), help.trim_end_matches('.').to_owned());
            metrics.push(DescribedMetric { name, kind: String::new(), help, labels: BTreeMap::new() });
        } else if let (Some(metric), Some(rest)) = (metrics.last_mut(), line.strip_prefix("# TYPE ")) {
            metric.kind = rest.rsplit(' ').next().unwrap_or_default().to_owned();
        } else if let (Some(metric), false) = (metrics.last_mut(), line.starts_with('#')) {
            metric.take_labels(line);
        }
    }
    for metric in &mut metrics {
        // Prometheus shows a counter by the name of its sample.
        metric.name += match metric.kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
    }
    metrics
}

impl DescribedMetric {
    fn take_labels(&mut self, sample: &str) {
        let Some((_, rest)) = sample.split_once('{') else { return };
        let labels = rest.split_once('}').map_or(rest, |(labels, _)| labels);
        for label in labels.split(',') {
            let Some((name, value)) = label.split_once('=') else { continue };
            let values = self.labels.entry(name.to_owned()).or_default();
            // The bounds of a histogram and the version are not a fixed set of values.
            if !["le", "version"].contains(&name) {
                values.insert(value.trim_matches('"').to_owned());
            }
        }
    }
}
