//! `adopt`: makes a backup from a dump.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use serde_json::json;

use super::catalog::catalog;
use super::filter::Filter;
use super::output::{self, Outcome};
use super::progress::{Faces, with_progress};
use super::{named, render};
use crate::clock;
use crate::config::{Config, Flags};
use crate::context::Context;
use crate::engine::adopt::{self, AdoptOptions};
use crate::engine::unpack;
use crate::error::{Error, Result};
use crate::interop::{Opened, Packed};
use crate::repository::Repository;

/// Flags of `adopt`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The dump: a directory, an archive or a .bson file from mongodump, plain or gzip; or a tar
    /// file from the service. - is standard input
    #[arg(value_name = "DUMP")]
    dump: String,
    #[command(flatten)]
    filter: Filter,
    /// When the dump was made: 2026-11-22, 2026-11-22T21:45:00Z or seconds since 1970. Retention
    /// counts it by that. [default: the end of its oplog, else its newest file]
    #[arg(long, value_name = "TIME")]
    created: Option<String>,
    /// zstd's level, -7 (fastest) to 19 (smallest) [env: BACKUP_LEVEL] [default: 3]
    #[arg(help_heading = "Load", long, value_name = "N", allow_negative_numbers = true)]
    level: Option<String>,
    /// How frames are encoded: `zstd`, or `columns`, which is smaller if documents are alike and
    /// which only bsonvault reads [env: BACKUP_CODEC] [default: zstd]
    #[arg(help_heading = "Load", long, value_name = "CODEC")]
    codec: Option<String>,
    /// MiB for all buffers together, 64 or more [env: BACKUP_MEMORY_MB] [default: 256]
    #[arg(help_heading = "Load", long, value_name = "N", allow_negative_numbers = true)]
    memory_mb: Option<String>,
}

impl Args {
    pub(super) fn flags(&self) -> Flags {
        Flags { level: self.level.clone(), codec: self.codec.clone(), memory_mb: self.memory_mb.clone(), ..Flags::default() }
    }
}

pub(super) async fn run(args: Args, config: &Config, faces: Faces, cx: &Context) -> Result<Outcome> {
    let filter = args.filter.of(&[])?;
    let created = args.created.as_deref().map(|text| time(text, clock::now())).transpose()?;
    let options = AdoptOptions { filter, created, tuning: config.tuning, ..AdoptOptions::default() };
    let repository = Repository::open(&config.path)?;
    named::refuse_for_a_dump(&args.dump, "adopt", config, cx).await?;
    let dump = match Opened::look(&args.dump, config.tuning.memory_bytes, &cx.cancel).await? {
        Opened::Dump(dump) => *dump,
        Opened::Backup(packed) => return unpacked(&args, packed, config, cx).await,
    };
    let work = adopt::run(&dump, &repository, &options, cx);
    let report = with_progress(faces, cx, work).await?;
    let manifest = &report.manifest;
    let mut fields = output::made(&report.location, manifest);
    fields["notes"] = json!(report.notes);
    fields["notImportable"] = json!(report.not_importable);
    fields["seconds"] = json!(render::backup::seconds(manifest));
    Ok(Outcome::done(render::backup::adopted(&report), output::fields(&fields)?))
}

/// Unpacks the backup in a tar file into the path, unchanged.
async fn unpacked(args: &Args, packed: Packed, config: &Config, cx: &Context) -> Result<Outcome> {
    let is_asked_for_more = !args.filter.is_empty() || args.created.is_some() || args.level.is_some() || args.codec.is_some();
    if is_asked_for_more {
        return Err(Error::usage(format!("{} is a backup already, and is unpacked unchanged", packed.location()))
            .hint("leave out the flags that choose how a dump is adopted"));
    }
    let backup = unpack::into(packed, &catalog(config, cx)?, cx).await?;
    let manifest = &backup.manifest;
    let mut fields = output::made(&backup.location(), manifest);
    fields["unpacked"] = json!(true);
    Ok(Outcome::done(render::backup::taken(&backup.location(), manifest), output::fields(&fields)?))
}

/// A time in the past.
fn time(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
    let text = text.trim();
    let day = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|day| day.and_time(NaiveTime::MIN).and_utc());
    let seconds = || text.parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    let time = DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc()).or_else(day).or_else(seconds);
    let time = time.ok_or_else(|| {
        Error::usage(format!("--created is {text:?}, which is not a time"))
            .hint("use a date like 2026-11-22, a time like 2026-11-22T21:45:00Z, or seconds since 1970")
    })?;
    match time <= now {
        true => Ok(time),
        false => Err(Error::usage(format!("--created is {text:?}, which is in the future"))
            .hint("pass the time when the dump was made; if it is not UTC, add the zone, for example +01:00")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_a_time_or_seconds_tell_when_a_dump_was_made() {
        let now = DateTime::from_timestamp(1_795_383_900, 0).unwrap();
        let seconds = |text| time(text, now).map(|time| time.timestamp());
        assert_eq!(seconds("2026-11-22T22:45:00+01:00").unwrap(), 1_795_383_900);
        assert_eq!((seconds("1795383900").unwrap(), seconds(" 2026-11-22 ").unwrap()), (1_795_383_900, 1_795_305_600));
        for bad in ["", "yesterday", "2026-13-01", "2026-11-23", "1795383901", "99999999999999999999"] {
            assert_eq!(seconds(bad).unwrap_err().exit_code(), 2, "{bad:?}");
        }
    }
}
