//! `/metrics`: metrics for Prometheus.

use rocket::http::ContentType;
use rocket::{State, get};

use super::access::Reader;
use super::query::{Nothing, Query};
use crate::service::MongoBackupService;

/// Returns the metrics in OpenMetrics text format.
#[utoipa::path(
    tag = "health",
    operation_id = "getMetrics",
    responses((status = 200, description = "The metrics", body = String, content_type = "application/openmetrics-text"))
)]
#[get("/metrics")]
pub(super) async fn metrics(_by: Reader, _query: Query<Nothing>, service: &State<MongoBackupService>) -> (ContentType, String) {
    let open_metrics =
        ContentType::new("application", "openmetrics-text").with_params([("version", "1.0.0"), ("charset", "utf-8")]);
    (open_metrics, service.metrics().await)
}
