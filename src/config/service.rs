//! The settings of the service. Tokens and the webhook are validated only when they are asked for,
//! because no other verb uses them.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono_tz::Tz;
use figment::Figment;

use super::origin::{Origin, place};
use super::settings::{
    ADMIN_TOKENS, AUTO_IMPORT, CRON, DOWNLOAD_TOKENS, ENABLED, GRACE, INTERVAL, READ_TOKENS, STATE, SYNC_ENABLED, Setting,
    WEBHOOK_SECRET, WEBHOOK_URL,
};
use super::values::{count, parsed, text, truth, whole_number};
use crate::error::{Error, Result};
use crate::repository::retention::Policy;
use crate::schedule::{Cadence, Expression, HOURS};

/// The name of the state file, if only its directory is set.
const STATE_FILE: &str = "bsonvault.redb";
/// The default interval, in hours.
const DEFAULT_HOURS: u32 = 6;
/// The allowed grace periods for jobs when the service stops: a day at most.
const GRACE_SECONDS: std::ops::RangeInclusive<i64> = 0..=86_400;
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// The validated settings of the service. `Debug` shows no hash, and only the webhook's scheme and
/// host.
#[derive(Clone, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Whether scheduled backups are taken.
    pub enabled: bool,
    /// When scheduled backups are taken.
    pub schedule: Cadence,
    /// The file that keeps jobs and the schedule.
    pub state: PathBuf,
    /// Whether a backup is imported into the target once it is complete.
    pub auto_import: bool,
    /// Which backups are kept.
    pub retention: Policy,
    /// The SHA-256 of each token that may do everything, without duplicates.
    pub admin_tokens: Vec<[u8; 32]>,
    /// The SHA-256 of each token that may read, without duplicates and without admin tokens.
    pub read_tokens: Vec<[u8; 32]>,
    /// The SHA-256 of each token that may read and download backups, without duplicates and without
    /// tokens of another kind.
    pub download_tokens: Vec<[u8; 32]>,
    /// Where messages about ended jobs are sent.
    pub webhook: Option<WebhookSettings>,
    /// How long running jobs may go on when the service stops.
    pub grace: Duration,
}

impl fmt::Debug for ServiceSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceSettings")
            .field("enabled", &self.enabled)
            .field("schedule", &self.schedule)
            .field("state", &self.state)
            .field("auto_import", &self.auto_import)
            .field("retention", &self.retention)
            .field("admin_tokens", &self.admin_tokens.len())
            .field("read_tokens", &self.read_tokens.len())
            .field("download_tokens", &self.download_tokens.len())
            .field("webhook", &self.webhook)
            .field("grace", &self.grace)
            .finish()
    }
}

/// Where messages about ended jobs are sent. `Debug` shows only scheme and host: a path or a query
/// is often a secret, and some URLs hold a password.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    /// The whole URL.
    pub url: String,
    /// The secret that signs messages.
    pub secret: Option<String>,
}

impl WebhookSettings {
    /// The URL as it may be shown: `https://hooks.example`.
    #[must_use]
    pub fn shown(&self) -> String {
        shown(&self.url).unwrap_or_default()
    }
}

impl fmt::Debug for WebhookSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookSettings").field("url", &self.shown()).field("signed", &self.secret.is_some()).finish()
    }
}

/// The settings of the service as read. Tokens and the webhook are not validated yet.
#[derive(Clone)]
pub(super) struct Service {
    enabled: bool,
    schedule: Cadence,
    state: PathBuf,
    auto_import: bool,
    grace: Duration,
    admin_tokens: Option<(String, Origin)>,
    read_tokens: Option<(String, Origin)>,
    download_tokens: Option<(String, Origin)>,
    webhook_url: Option<(String, Origin)>,
    webhook_secret: Option<String>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("enabled", &self.enabled)
            .field("schedule", &self.schedule)
            .field("state", &self.state)
            .field("auto_import", &self.auto_import)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}

impl Service {
    pub(super) fn read(settings: &Figment, path: &str, timezone: Tz, state_directory: Option<&OsStr>) -> Result<Self> {
        // Nothing else may write to what follows.
        let auto_import = !truth(settings, &SYNC_ENABLED)?.unwrap_or_default();
        let hours = count(settings, &INTERVAL, *HOURS.end())?;
        let cron = parsed(settings, &CRON, Expression::parse)?;
        let schedule = match cron {
            Some(expression) => Cadence::Cron { expression, zone: timezone },
            None => hours.map_or_else(|| Cadence::every(DEFAULT_HOURS), |hours| Ok(Cadence::Every(hours)))?,
        };
        let beside = || state_directory.map_or_else(|| Path::new(path), Path::new).join(STATE_FILE);
        let grace = whole_number(settings, &GRACE, GRACE_SECONDS)?.and_then(|n| u64::try_from(n).ok());
        Ok(Self {
            enabled: truth(settings, &ENABLED)?.unwrap_or(true),
            schedule,
            state: text(settings, &STATE)?.map_or_else(beside, |(state, _)| PathBuf::from(state)),
            auto_import: truth(settings, &AUTO_IMPORT)?.unwrap_or(auto_import),
            grace: grace.map_or(DEFAULT_GRACE, Duration::from_secs),
            admin_tokens: text(settings, &ADMIN_TOKENS)?,
            read_tokens: text(settings, &READ_TOKENS)?,
            download_tokens: text(settings, &DOWNLOAD_TOKENS)?,
            webhook_url: text(settings, &WEBHOOK_URL)?,
            webhook_secret: text(settings, &WEBHOOK_SECRET)?.map(|(secret, _)| secret),
        })
    }

    pub(super) fn settings(&self, retention: Policy) -> Result<ServiceSettings> {
        let admin_tokens = hashes(&ADMIN_TOKENS, self.admin_tokens.as_ref())?;
        let read_tokens = hashes(&READ_TOKENS, self.read_tokens.as_ref())?;
        let download_tokens = hashes(&DOWNLOAD_TOKENS, self.download_tokens.as_ref())?;
        let kinds = [(&ADMIN_TOKENS, &admin_tokens), (&READ_TOKENS, &read_tokens), (&DOWNLOAD_TOKENS, &download_tokens)];
        for (place, (kind, tokens)) in kinds.iter().enumerate() {
            for (other, others) in &kinds[..place] {
                if let Some(at) = tokens.iter().position(|hash| others.contains(hash)) {
                    let (kind, other) = (kind.variable, other.variable);
                    return Err(Error::usage(format!("hash {} of {kind} is one of {other}, too", at + 1))
                        .hint("a token can be of only one kind: remove its hash from one of them"));
                }
            }
        }
        let webhook = self.webhook_url.as_ref().map(|(url, origin)| {
            let url = url.trim().to_owned();
            shown(&url).ok_or_else(|| {
                Error::usage(format!("{} is not a URL that can be called", place(&WEBHOOK_URL, *origin)))
                    .hint("use https://HOST/PATH or http://HOST/PATH, and percent-encode special characters")
            })?;
            Ok(WebhookSettings { url, secret: self.webhook_secret.clone() })
        });
        Ok(ServiceSettings {
            enabled: self.enabled,
            schedule: self.schedule.clone(),
            state: self.state.clone(),
            auto_import: self.auto_import,
            retention,
            admin_tokens,
            read_tokens,
            download_tokens,
            webhook: webhook.transpose()?,
            grace: self.grace,
        })
    }
}

/// The hashes of a list, without duplicates.
fn hashes(setting: &Setting, found: Option<&(String, Origin)>) -> Result<Vec<[u8; 32]>> {
    let mut hashes = Vec::new();
    let Some((text, origin)) = found else { return Ok(hashes) };
    for (at, written) in text.split(',').map(str::trim).enumerate() {
        // An invalid hash may be the token itself, so the message does not quote it.
        let hash = hash(written).ok_or_else(|| {
            let found = written.chars().count();
            Error::usage(format!(
                "hash {} in {} is not a SHA-256: expected 64 hexadecimal digits, found {found} characters{}",
                at + 1,
                place(setting, *origin),
                if found == 64 { ", not all of them hexadecimal digits" } else { "" }
            ))
            .hint("`bsonvault token` makes a token and prints its hash; several are separated by commas")
        })?;
        if !hashes.contains(&hash) {
            hashes.push(hash);
        }
    }
    Ok(hashes)
}

fn hash(text: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let bytes: Vec<u8> = digits?.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect();
    (text.len() == 64).then(|| bytes.try_into().ok()).flatten()
}

/// Scheme, host and port of an HTTP URL. `None` if it is not one.
fn shown(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    let host = authority.rsplit('@').next()?;
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let named = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._[]:".contains(c));
    // A password with a slash would end the host, and the text before the slash is then no port.
    let numbered = port.is_none_or(|port| port.parse::<u16>().is_ok());
    let plain = url.chars().all(|c| c.is_ascii_graphic());
    (["http", "https"].contains(&scheme.as_str()) && named && numbered && plain).then(|| format!("{scheme}://{host}"))
}
