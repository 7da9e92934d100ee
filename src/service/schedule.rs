//! The schedule as the service shows it, and changes to it.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::last::LastRun;
use super::retry::NotTaken;
use super::scheduler::{Plan, Shown};
use crate::error::{Error, Result};
use crate::schedule::{Cadence, no_interval};

/// The schedule, and the result of the last scheduled backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// Whether the schedule is on.
    pub enabled: bool,
    /// Hours between two backups. Null if a cron expression sets the times.
    #[schema(example = 6)]
    pub interval: Option<u32>,
    /// A cron expression of five fields. Null if an interval sets the times.
    pub cron: Option<String>,
    /// The time zone of the cron expression.
    #[schema(example = "UTC")]
    pub timezone: String,
    /// When the next backup is due. Null if the schedule is off.
    pub next_run: Option<DateTime<Utc>>,
    /// The last run: scheduled, skipped or on request.
    pub last_run: Option<LastRun>,
    /// Failed tries of the last scheduled backup. Absent once it is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub not_taken: Option<NotTaken>,
}

/// A change to the schedule. Fields that are not given stay.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScheduleChange {
    /// Whether the schedule is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Hours between two backups. Replaces a cron expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 87600, example = 6)]
    pub interval: Option<i64>,
    /// A cron expression of five fields. Replaces an interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "30 2 * * *")]
    pub cron: Option<String>,
    /// The IANA time zone of the cron expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "Europe/Berlin")]
    pub timezone: Option<String>,
}

impl Schedule {
    /// The visible form. If the cadence has no time zone, `configured` is shown.
    pub(super) fn of(shown: Shown, configured: Tz) -> Self {
        let (interval, cron, timezone) = match &shown.plan.cadence {
            Cadence::Every(hours) => (Some(hours.get()), None, configured),
            Cadence::Cron { expression, zone } => (None, Some(expression.as_str().to_owned()), *zone),
        };
        Self {
            enabled: shown.plan.enabled,
            interval,
            cron,
            timezone: timezone.name().to_owned(),
            next_run: shown.next,
            last_run: shown.last,
            not_taken: shown.not_taken,
        }
    }
}

impl ScheduleChange {
    /// Applies the change to a plan.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage).
    pub(super) fn over(&self, now: &Plan, configured: Tz) -> Result<Plan> {
        let zone = self.timezone.as_deref();
        let cadence = match (self.interval, &self.cron, &now.cadence) {
            (Some(_), Some(_), _) => {
                return Err(Error::usage("interval and cron are both given").hint("give only one of them"));
            }
            (None, Some(expression), Cadence::Cron { zone: before, .. }) => {
                Cadence::cron(expression, zone.unwrap_or(before.name()))?
            }
            (None, Some(expression), Cadence::Every(_)) => Cadence::cron(expression, zone.unwrap_or(configured.name()))?,
            (None, None, Cadence::Cron { expression, zone: before }) => {
                Cadence::cron(expression.as_str(), zone.unwrap_or(before.name()))?
            }
            // A client that sends back a shown schedule sends the configured zone.
            (Some(_), None, _) | (None, None, Cadence::Every(_)) if zone.is_some_and(|zone| zone != configured.name()) => {
                return Err(Error::usage("a time zone is given, but an interval has none").hint("give cron, too"));
            }
            (Some(hours), None, _) => Cadence::every(u32::try_from(hours).map_err(|_| no_interval(hours))?)?,
            (None, None, Cadence::Every(_)) => now.cadence.clone(),
        };
        Ok(Plan { enabled: self.enabled.unwrap_or(now.enabled), cadence })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_stays_and_a_zone_belongs_to_cron() {
        let changed = |plan: &Plan, change: &str| serde_json::from_str::<ScheduleChange>(change).unwrap().over(plan, Tz::UTC);
        let every_six = Plan { enabled: true, cadence: Cadence::every(6).unwrap() };
        let nightly = changed(&every_six, r#"{"cron": "30 2 * * *", "timezone": "Europe/Berlin"}"#).unwrap();
        assert_eq!(nightly, Plan { enabled: true, cadence: Cadence::cron("30 2 * * *", "Europe/Berlin").unwrap() });
        let off = changed(&nightly, r#"{"enabled": false}"#).unwrap();
        assert_eq!(off, Plan { enabled: false, ..nightly.clone() });
        let elsewhere = changed(&nightly, r#"{"timezone": "Asia/Tokyo"}"#).unwrap();
        assert_eq!(elsewhere.cadence, Cadence::cron("30 2 * * *", "Asia/Tokyo").unwrap());
        let later = changed(&nightly, r#"{"cron": "30 4 * * *"}"#).unwrap();
        assert_eq!(later.cadence, Cadence::cron("30 4 * * *", "Europe/Berlin").unwrap());
        assert_eq!(changed(&nightly, r#"{"interval": 6}"#).unwrap(), every_six);
        assert_eq!(changed(&every_six, r#"{"interval": 6, "cron": null, "timezone": "UTC"}"#).unwrap(), every_six);
        assert_eq!(changed(&every_six, "{}").unwrap(), every_six);
        for bad in [
            r#"{"interval": 6, "cron": "30 2 * * *"}"#,
            r#"{"interval": 6, "timezone": "Asia/Tokyo"}"#,
            r#"{"timezone": "Asia/Tokyo"}"#,
            r#"{"interval": 0}"#,
            r#"{"interval": -1}"#,
            r#"{"interval": 4294967297}"#,
            r#"{"cron": "x"}"#,
        ] {
            assert_eq!(changed(&every_six, bad).unwrap_err().kind(), crate::error::ErrorKind::Usage, "{bad}");
        }
    }
}
