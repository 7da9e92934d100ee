//! Configuration. Flags win over the environment, then `.env`, then `rocket.toml`, then the
//! defaults.
//!
//! Raw text is layered by its origin, and then validated once into a [`Config`].

mod flags;
mod http;
mod origin;
mod places;
mod service;
mod settings;
mod sync;
mod unknown;
mod values;

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use chrono::TimeDelta;
use chrono_tz::Tz;
use figment::Figment;

use self::origin::{Origin, place};
use self::places::Places;
use self::service::Service;
use self::settings::{
    ADAPTIVE_THROTTLE, ATLAS, CODEC, FRAME, KEEP_DAILY, KEEP_LAST, KEEP_MONTHLY, KEEP_WEEKLY, KEEP_YEARLY, LEVEL, LOCAL,
    LOG_FORMAT, LONG_DISTANCE, MAX_MBIT, MEMORY, PATH, PITR_ENABLED, PITR_KEEP, PITR_LINK, PITR_MAX_REPLAY, READ_PREFERENCE,
    READERS, TIMEZONE, WRITERS,
};
use self::unknown::Unknown;
use self::values::{count, parsed, text, truth, whole_number};
use crate::engine::Tuning;
use crate::engine::archive::ArchiveOptions;
use crate::engine::backup::BackupOptions;
use crate::engine::import::ImportMode;
use crate::engine::sync::SyncOptions;
use crate::error::{Error, Result};
use crate::format::frame::{self, Codec, Compression};
use crate::mongo::{MongoUri, ReadPreference, Role};
use crate::names::NamespaceFilter;
use crate::repository::retention::Policy;
use crate::schedule;

pub use self::flags::Flags;
pub use self::service::{ServiceSettings, WebhookSettings};
pub use self::settings::{Group, Setting, settings};
pub use self::sync::SyncSettings;
pub use self::values::duration;

/// The default directory of backups.
pub const DEFAULT_PATH: &str = "./backups";

/// The allowed numbers of concurrent cursors or writers.
const WORKERS: std::ops::RangeInclusive<i64> = 1..=256;
/// The allowed memory, in MiB. Below the lower limit, not even two of the largest frames fit. No
/// machine has the upper limit yet.
const MEMORY_MB: std::ops::RangeInclusive<i64> = 64..=1_048_576;
/// The allowed rate limits, in Mbit/s.
const MAX_MBITS: std::ops::RangeInclusive<i64> = 1..=1_000_000;
/// The allowed frame sizes, in MiB.
const FRAME_MB: std::ops::RangeInclusive<i64> = 1..=frame::LARGEST_TARGET as i64 / MIB;
const MIB: i64 = 1024 * 1024;
/// The most backups that a retention rule may keep.
const MOST_KEPT: u32 = 1_000_000;

/// The format of logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line per record, for people.
    #[default]
    Human,
    /// A JSON object per line.
    Json,
}

/// The validated configuration. The URIs, the tokens and the webhook are checked only when they are
/// asked for, because most verbs do not need them.
#[derive(Clone)]
pub struct Config {
    source: Option<(String, Origin)>,
    target: Option<(String, Origin)>,
    read_preference: Option<ReadPreference>,
    service: Service,
    server: Figment,
    unknown: Vec<Unknown>,
    contradicted: Vec<String>,
    /// The directory of backups.
    pub path: String,
    /// How much of the source and of this machine may be used.
    pub tuning: Tuning,
    /// Which backups are kept.
    pub retention: Policy,
    /// The time zone of the days, weeks, months and years of retention, and of the schedule.
    pub timezone: Tz,
    /// Whether and how the oplog is archived.
    pub pitr: PitrSettings,
    /// Whether and how the target follows the source.
    pub sync: SyncSettings,
    /// The format of logs.
    pub log_format: LogFormat,
}

/// Whether and how the oplog of the source is archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PitrSettings {
    /// Whether the service does.
    pub enabled: bool,
    /// How far back any second can be restored. `None` keeps everything.
    pub keep: Option<Duration>,
    /// A base is taken early if replaying would take longer.
    pub max_replay: Duration,
    /// How much is in one link.
    pub link: Duration,
}

impl Default for PitrSettings {
    fn default() -> Self {
        let of = ArchiveOptions::default();
        Self { enabled: false, keep: None, max_replay: of.max_replay, link: of.roll }
    }
}

impl PitrSettings {
    /// How far back any second can be restored. `None` keeps everything.
    #[must_use]
    pub fn window(&self) -> Option<TimeDelta> {
        self.keep.and_then(|keep| TimeDelta::from_std(keep).ok())
    }

    /// How an archive with these settings is written.
    #[must_use]
    pub fn options(&self, databases: Vec<String>, tuning: Tuning) -> ArchiveOptions {
        let of = ArchiveOptions::default();
        let filter = NamespaceFilter { databases: databases.clone(), ..NamespaceFilter::default() };
        ArchiveOptions {
            databases,
            since: None,
            age: of.age,
            roll: self.link,
            compression: tuning.level.map_or(of.compression, Compression::of),
            keep: self.window(),
            bases: Some(BackupOptions { tuning, filter, ..BackupOptions::default() }),
            max_replay: self.max_replay,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("source", &self.source())
            .field("target", &self.target())
            .field("service", &self.service)
            .field("path", &self.path)
            .field("tuning", &self.tuning)
            .field("retention", &self.retention)
            .field("pitr", &self.pitr)
            .field("sync", &self.sync)
            .field("timezone", &self.timezone)
            .field("log_format", &self.log_format)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Reads all places and validates the values. `directory` may hold `.env` and `rocket.toml`;
    /// `environment` is the variables of the process.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage), naming the setting, its origin and
    /// what was expected.
    pub fn load(directory: &Path, environment: impl IntoIterator<Item = (OsString, OsString)>, flags: &Flags) -> Result<Self> {
        // 1. Read all places and layer them.
        let places = Places::read(directory, environment, flags)?;
        let settings = &places.settings;

        // 2. Validate the values that win.
        let path = text(settings, &PATH)?.map_or_else(|| DEFAULT_PATH.to_owned(), |(path, _)| path);
        let timezone = parsed(settings, &TIMEZONE, schedule::zone)?.unwrap_or(Tz::UTC);
        Ok(Self {
            source: text(settings, &ATLAS)?,
            target: text(settings, &LOCAL)?,
            read_preference: parsed(settings, &READ_PREFERENCE, ReadPreference::parse)?,
            service: Service::read(settings, &path, timezone, places.state_directory.as_deref())?,
            server: http::figment(&places, flags)?,
            unknown: places.unknown,
            contradicted: places.contradicted,
            path,
            tuning: tuning(settings)?,
            retention: retention(settings)?,
            pitr: pitr(settings)?,
            sync: SyncSettings::read(settings)?,
            timezone,
            log_format: parsed(settings, &LOG_FORMAT, log_format)?.unwrap_or_default(),
        })
    }

    /// The source's URI.
    ///
    /// # Errors
    /// [`ErrorKind::NotConfigured`](crate::error::ErrorKind::NotConfigured):
    /// `Atlas MongoDB URI not configured`;
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage): `Invalid Atlas URI format`.
    pub fn source(&self) -> Result<MongoUri> {
        self.configured_source()?.ok_or_else(|| Role::Source.not_configured())
    }

    /// How `archive` writes.
    #[must_use]
    pub fn archive(&self, databases: Vec<String>) -> ArchiveOptions {
        self.pitr.options(databases, self.tuning)
    }

    /// How the service follows the source, with this mode for the first copy.
    #[must_use]
    pub fn sync(&self, mode: ImportMode) -> SyncOptions {
        SyncOptions {
            filter: self.sync.filter.clone(),
            renames: self.sync.renames.clone(),
            mode,
            delay: self.sync.delay,
            proof: self.sync.proof,
            // An archive of this service takes base backups anyway: the source is read once.
            keep_backup: self.pitr.enabled,
            archive: self.archive(Vec::new()),
            tuning: self.tuning,
            ..SyncOptions::default()
        }
    }

    /// The source's URI, if one is configured.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage): `Invalid Atlas URI format`.
    pub fn configured_source(&self) -> Result<Option<MongoUri>> {
        let Some(found) = &self.source else { return Ok(None) };
        let uri = parse_uri(Role::Source, &ATLAS, found)?;
        Ok(Some(match &self.read_preference {
            Some(preference) => uri.preferring(preference.clone()),
            None => uri,
        }))
    }

    /// The target's URI.
    ///
    /// # Errors
    /// [`ErrorKind::NotConfigured`](crate::error::ErrorKind::NotConfigured):
    /// `Local MongoDB URI not configured`;
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage): `Invalid Local URI format`.
    pub fn target(&self) -> Result<MongoUri> {
        self.configured_target()?.ok_or_else(|| Role::Target.not_configured())
    }

    /// The target's URI, if one is configured.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage): `Invalid Local URI format`.
    pub fn configured_target(&self) -> Result<Option<MongoUri>> {
        self.target.as_ref().map(|found| parse_uri(Role::Target, &LOCAL, found)).transpose()
    }

    /// Refuses given names that are no settings: typos, and other names with this program's
    /// prefixes. Also refuses settings that have more than one value in `.env`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage), naming all of them and what was
    /// probably meant.
    pub fn refuse_unknown(&self) -> Result<()> {
        unknown::refuse(&self.unknown)?;
        unknown::refuse_contradicted(&self.contradicted)
    }

    /// Refuses typos in a setting's name, and warns of other names that are no settings.
    ///
    /// # Errors
    /// As for [`refuse_unknown`](Self::refuse_unknown).
    pub fn refuse_slips(&self) -> Result<()> {
        let (slips, others): (Vec<_>, Vec<_>) = self.unknown.iter().partition(|unknown| unknown.is_slip());
        unknown::warn(others);
        unknown::refuse(slips)?;
        unknown::refuse_contradicted(&self.contradicted)
    }

    /// The settings of the service.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) for names that are no settings, for an
    /// invalid token hash or webhook URL, and for a hash of several kinds of tokens. No error
    /// quotes hashes or the URL whole.
    pub fn service(&self) -> Result<ServiceSettings> {
        self.refuse_unknown()?;
        self.service.settings(self.retention)
    }

    /// The HTTP server's own settings: its defaults, `rocket.toml` by profile, `ROCKET_*` of `.env`
    /// and the environment, `--address` and `--port`. Each wins over those before it. They are
    /// complete, and hold none of this program's settings.
    ///
    /// `ROCKET_PROFILE` sets the profile. By default it is `debug` or `release`, as the program was
    /// built. Client addresses come from a header only if `ip_header` names it. The server never
    /// handles signals.
    #[must_use]
    pub fn rocket(&self) -> Figment {
        self.server.clone()
    }
}

fn tuning(settings: &Figment) -> Result<Tuning> {
    let readers = whole_number(settings, &READERS, WORKERS)?;
    let writers = whole_number(settings, &WRITERS, WORKERS)?;
    let levels = i64::from(*frame::LEVELS.start())..=i64::from(*frame::LEVELS.end());
    let level = whole_number(settings, &LEVEL, levels)?;
    let memory_mb = whole_number(settings, &MEMORY, MEMORY_MB)?;
    let frame_mb = whole_number(settings, &FRAME, FRAME_MB)?;
    let max_mbit = whole_number(settings, &MAX_MBIT, MAX_MBITS)?;
    let default = Tuning::default();
    Ok(Tuning {
        codec: parsed(settings, &CODEC, codec)?,
        range_bytes: default.range_bytes,
        readers: readers.and_then(|n| usize::try_from(n).ok()),
        writers: writers.and_then(|n| usize::try_from(n).ok()),
        level: level.and_then(|n| i32::try_from(n).ok()),
        long_distance: truth(settings, &LONG_DISTANCE)?,
        frame_bytes: frame_mb.and_then(|n| usize::try_from(n * MIB).ok()),
        max_bits: max_mbit.and_then(|n| u64::try_from(n).ok()).map(|mbit| mbit * 1_000_000),
        adaptive_throttle: truth(settings, &ADAPTIVE_THROTTLE)?.unwrap_or(default.adaptive_throttle),
        memory_bytes: memory_mb.and_then(|n| u64::try_from(n).ok()).map_or(default.memory_bytes, |mb| mb * 1024 * 1024),
    })
}

fn pitr(settings: &Figment) -> Result<PitrSettings> {
    let default = PitrSettings::default();
    Ok(PitrSettings {
        enabled: truth(settings, &PITR_ENABLED)?.unwrap_or(default.enabled),
        keep: parsed(settings, &PITR_KEEP, duration)?,
        max_replay: parsed(settings, &PITR_MAX_REPLAY, duration)?.unwrap_or(default.max_replay),
        link: parsed(settings, &PITR_LINK, duration)?.unwrap_or(default.link),
    })
}

fn retention(settings: &Figment) -> Result<Policy> {
    Ok(Policy {
        last: count(settings, &KEEP_LAST, MOST_KEPT)?,
        daily: count(settings, &KEEP_DAILY, MOST_KEPT)?,
        weekly: count(settings, &KEEP_WEEKLY, MOST_KEPT)?,
        monthly: count(settings, &KEEP_MONTHLY, MOST_KEPT)?,
        yearly: count(settings, &KEEP_YEARLY, MOST_KEPT)?,
    })
}

fn codec(text: &str) -> Result<Codec> {
    match text.trim().to_ascii_lowercase().as_str() {
        "zstd" => Ok(Codec::Zstd),
        "columns" => Ok(Codec::Columns),
        _ => Err(Error::usage(format!("found {text:?}: expected zstd or columns"))),
    }
}

fn log_format(text: &str) -> Result<LogFormat> {
    match text.trim().to_ascii_lowercase().as_str() {
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        _ => Err(Error::usage(format!("found {text:?}: expected human or json"))),
    }
}

fn parse_uri(role: Role, setting: &Setting, (uri, origin): &(String, Origin)) -> Result<MongoUri> {
    MongoUri::parse(role, uri).map_err(|e| {
        let hint = e.hint_text().map_or_else(String::new, |hint| format!("; {hint}"));
        e.hint(format!("it is {}{hint}", place(setting, *origin)))
    })
}
