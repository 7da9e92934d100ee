//! The page of the metrics, from the page that the service gives Prometheus.

use super::markdown::{cell, row};
use crate::service::described_metrics;

const HEAD: &str = "\
# Metrics

`GET /metrics` gives OpenMetrics for Prometheus, to a token that may read. A value that is not known
is absent, not 0. The guide to [monitoring](../guides/monitoring.md) has a scrape configuration and
alerts.

| metric | type | labels | meaning |
| --- | --- | --- | --- |
";

pub(super) fn page() -> String {
    let rows = described_metrics().into_iter().map(|metric| {
        let labels = metric.labels.iter().map(|(name, values)| {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            if values.is_empty() { format!("`{name}`") } else { format!("`{name}`: {}", values.join(", ")) }
        });
        let labels = labels.collect::<Vec<_>>().join("<br>");
        row(&[&format!("`{}`", metric.name), &metric.kind, &labels, &cell(&metric.help)])
    });
    HEAD.to_owned() + &rows.collect::<String>()
}
