//! Configuration: flags beat the environment, which beats `.env`, which beats `rocket.toml`, which beats the defaults. Raw text
//! first, layered by where it came from; then validated once, into a [`Config`] that cannot be wrong.

mod http;
mod origin;
mod places;
mod service;
mod settings;
mod unknown;
mod values;

use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use chrono_tz::Tz;
use figment::Figment;

use self::origin::{Origin, place};
use self::places::Places;
use self::service::Service;
use self::settings::{
    ADAPTIVE_THROTTLE, ATLAS, CODEC, FRAME, KEEP_DAILY, KEEP_LAST, KEEP_MONTHLY, KEEP_WEEKLY, KEEP_YEARLY, LEVEL, LOCAL,
    LOG_FORMAT, LONG_DISTANCE, MAX_MBIT, MEMORY, PATH, READ_PREFERENCE, READERS, Setting, TIMEZONE, WRITERS,
};
use self::unknown::Unknown;
use self::values::{count, parsed, text, truth, whole_number};
use crate::engine::Tuning;
use crate::error::{Error, Result};
use crate::format::frame::{self, Codec};
use crate::mongo::{MongoUri, ReadPreference, Role};
use crate::repository::retention::Policy;
use crate::schedule;

pub use self::service::{ServiceSettings, WebhookSettings};
pub use self::settings::Flags;

/// Where backups are kept where nothing says otherwise.
pub const DEFAULT_PATH: &str = "./backups";

/// How many cursors or writers at a time may be asked for.
const WORKERS: std::ops::RangeInclusive<i64> = 1..=256;
/// The memory that may be asked for, in MiB: below, not even two of the largest frames fit; above is no machine yet.
const MEMORY_MB: std::ops::RangeInclusive<i64> = 64..=1_048_576;
/// The rate that may be asked for, in Mbit/s.
const MAX_MBITS: std::ops::RangeInclusive<i64> = 1..=1_000_000;
/// The frames that may be asked for, in MiB.
const FRAME_MB: std::ops::RangeInclusive<i64> = 1..=frame::LARGEST_TARGET as i64 / MIB;
const MIB: i64 = 1024 * 1024;
/// The most backups that a rule may be asked to keep.
const MOST_KEPT: u32 = 1_000_000;

/// How logs are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line each, for people.
    #[default]
    Human,
    /// A JSON object each, on a line.
    Json,
}

/// The configuration, valid but for the URIs, the tokens and the webhook: those are checked when they are asked for, because most
/// verbs need none of them.
#[derive(Clone)]
pub struct Config {
    source: Option<(String, Origin)>,
    target: Option<(String, Origin)>,
    read_preference: Option<ReadPreference>,
    service: Service,
    server: Figment,
    unknown: Vec<Unknown>,
    contradicted: Vec<String>,
    /// Where backups are kept: a directory.
    pub path: String,
    /// How much of the machine may be used.
    pub tuning: Tuning,
    /// Which backups stay.
    pub retention: Policy,
    /// Whose days, weeks, months and years retention counts, and whose clock a schedule goes by.
    pub timezone: Tz,
    /// How logs are written.
    pub log_format: LogFormat,
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
            .field("timezone", &self.timezone)
            .field("log_format", &self.log_format)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Reads all places and validates what they say. `directory` is where `.env` and `rocket.toml` are looked for;
    /// `environment` is the variables of the process.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage), naming the setting, the place it came from and what was expected.
    pub fn load(directory: &Path, environment: impl IntoIterator<Item = (OsString, OsString)>, flags: &Flags) -> Result<Self> {
        // 1. What all places say, one over the other.
        let places = Places::read(directory, environment, flags)?;
        let settings = &places.settings;

        // 2. What is left is validated.
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
            timezone,
            log_format: parsed(settings, &LOG_FORMAT, log_format)?.unwrap_or_default(),
        })
    }

    /// The source's URI.
    ///
    /// # Errors
    /// [`ErrorKind::NotConfigured`](crate::error::ErrorKind::NotConfigured): `Atlas MongoDB URI not configured`;
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage): `Invalid Atlas URI format`.
    pub fn source(&self) -> Result<MongoUri> {
        self.configured_source()?.ok_or_else(|| Role::Source.not_configured())
    }

    /// The source's URI where one is configured.
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
    /// [`ErrorKind::NotConfigured`](crate::error::ErrorKind::NotConfigured): `Local MongoDB URI not configured`;
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage): `Invalid Local URI format`.
    pub fn target(&self) -> Result<MongoUri> {
        self.configured_target()?.ok_or_else(|| Role::Target.not_configured())
    }

    /// The target's URI where one is configured.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage): `Invalid Local URI format`.
    pub fn configured_target(&self) -> Result<Option<MongoUri>> {
        self.target.as_ref().map(|found| parse_uri(Role::Target, &LOCAL, found)).transpose()
    }

    /// Refuses names that are given and are no settings: slips in a setting's name, and others that only this program has. Refuses
    /// settings that `.env` gives more than one value, too.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage), naming all of them, and what was probably meant.
    pub fn refuse_unknown(&self) -> Result<()> {
        unknown::refuse(&self.unknown)?;
        unknown::refuse_contradicted(&self.contradicted)
    }

    /// Refuses slips in a setting's name, and warns of other names that are no settings.
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
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) for names that are no settings, where a token's hash or the webhook's URL
    /// is none, or one hash is both an admin's and a reader's. No error quotes them whole.
    pub fn service(&self) -> Result<ServiceSettings> {
        self.refuse_unknown()?;
        self.service.settings(self.retention)
    }

    /// The HTTP server's own settings: its defaults, `rocket.toml` by profile, `ROCKET_*` of `.env` and the environment, `--address` and
    /// `--port`, each over those before it. Complete, and without anything of this program's.
    ///
    /// The profile is what `ROCKET_PROFILE` says, else `debug` or `release` as the program was built. Addresses of clients are not taken from
    /// headers unless `ip_header` says from which. Signals are never the server's.
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
        _ => Err(Error::usage(format!("{text:?} is no codec: expected zstd or columns"))),
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
