//! The request bodies and their fields.

use std::num::NonZeroU32;

use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use super::body::Known;
use crate::error::{Error, Result};
use crate::service::{BackupRequest, ImportRequest, ScheduleChange, SyncMode};

/// The largest `keepCount`.
const MOST_KEPT: u32 = 1_000_000;

impl Known for BackupRequest {
    const FIELDS: &'static [&'static str] = &["databases", "include", "exclude", "import", "keep"];
}

impl Known for ImportRequest {
    const FIELDS: &'static [&'static str] = &["backupPath", "to", "undo", "databaseName", "include", "exclude", "mode"];
    const ONE_OF: &'static [&'static str] = &["backupPath", "to", "undo"];
}

impl Known for NoOptions {
    const FIELDS: &'static [&'static str] = &[];
}

impl Known for SyncRequest {
    const FIELDS: &'static [&'static str] = &["mode"];
}

impl Known for VerifyRequest {
    const FIELDS: &'static [&'static str] = &["deep"];
}

impl Known for CleanRequest {
    const FIELDS: &'static [&'static str] = &["keepCount", "dryRun"];
}

impl Known for ScheduleChange {
    const FIELDS: &'static [&'static str] = &["enabled", "interval", "cron", "timezone"];
    /// The service shows the schedule with nulls, and a client may send that back.
    const NULLS: bool = true;
}

/// An empty object: there is nothing to choose.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NoOptions {}

/// How the target begins to follow.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SyncRequest {
    /// What happens to what exists in the target when the first copy is made. By default, what
    /// `SYNC_MODE` says.
    #[serde(default)]
    #[schema(nullable = false)]
    pub(super) mode: Option<SyncMode>,
}

/// How to verify a backup.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct VerifyRequest {
    /// Also decompress everything and decode every document.
    #[serde(default)]
    pub(super) deep: bool,
}

/// Which backups to remove.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CleanRequest {
    /// How many of the newest complete backups of each source and selection to keep.
    #[serde(deserialize_with = "whole_number")]
    #[schema(value_type = i64, minimum = 1, maximum = 1_000_000, example = 5)]
    keep_count: f64,
    /// Only show what would be deleted.
    #[serde(default)]
    pub(super) dry_run: bool,
}

impl CleanRequest {
    /// The number of backups to keep.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if it is out of range.
    pub(super) fn keep(&self) -> Result<NonZeroU32> {
        // A number that is out of range, or NaN, is converted to one that differs from the given
        // one.
        let keep = NonZeroU32::new(self.keep_count as u32).filter(|keep| f64::from(keep.get()) == self.keep_count);
        keep.filter(|keep| keep.get() <= MOST_KEPT).ok_or_else(|| {
            Error::usage(format!("keepCount is {}, expected a whole number from 1 to {MOST_KEPT}", self.keep_count))
                .hint("give how many of the newest complete backups are to stay")
        })
    }
}

/// Any number without a fraction, however it is written. [`CleanRequest::keep`] checks the range.
fn whole_number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let number =
        f64::deserialize(from).map_err(|_| serde::de::Error::custom("keepCount is not a number, expected a whole number"))?;
    if number.fract() == 0.0 { Ok(number) } else { Err(serde::de::Error::custom(format!("{number} is not a whole number"))) }
}
