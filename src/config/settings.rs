//! The settings, each under the names it has in each place.

/// The file of this name in the working directory is read; its table `[default.backup]` is this program's.
pub(super) const ROCKET_TOML: &str = "rocket.toml";
/// The file of this name in the working directory is read, without a change to the environment of the process.
pub(super) const DOTENV: &str = ".env";

/// Variables of this prefix are the HTTP server's own.
pub(super) const SERVER_PREFIX: &str = "ROCKET_";

/// The keys that the server knows, and those about the reading of its settings.
pub(super) const SERVER_KEYS: [&str; 16] = [
    "address",
    "port",
    "workers",
    "max_blocking",
    "ident",
    "ip_header",
    "limits",
    "tls",
    "temp_dir",
    "keep_alive",
    "log_level",
    "cli_colors",
    "shutdown",
    "secret_key",
    "profile",
    "config",
];

/// One setting under the names it has in each place.
pub(super) struct Setting {
    pub(super) key: &'static str,
    pub(super) variable: &'static str,
    pub(super) option: Option<&'static str>,
}

const fn flagged(key: &'static str, variable: &'static str, option: &'static str) -> Setting {
    Setting { key, variable, option: Some(option) }
}

const fn unflagged(key: &'static str, variable: &'static str) -> Setting {
    Setting { key, variable, option: None }
}

pub(super) const ATLAS: Setting = flagged("mongo_uri_atlas", "MONGO_URI_ATLAS", "source");
pub(super) const LOCAL: Setting = flagged("mongo_uri_local", "MONGO_URI_LOCAL", "target");
pub(super) const PATH: Setting = flagged("path", "BACKUP_PATH", "path");
pub(super) const READERS: Setting = flagged("readers", "BACKUP_READERS", "readers");
pub(super) const WRITERS: Setting = flagged("writers", "BACKUP_WRITERS", "writers");
pub(super) const LEVEL: Setting = flagged("level", "BACKUP_LEVEL", "level");
pub(super) const CODEC: Setting = flagged("codec", "BACKUP_CODEC", "codec");
pub(super) const LONG_DISTANCE: Setting = flagged("long_distance", "BACKUP_LONG_DISTANCE", "long");
pub(super) const FRAME: Setting = flagged("frame_mb", "BACKUP_FRAME_MB", "frame-mb");
pub(super) const MAX_MBIT: Setting = flagged("max_mbit", "BACKUP_MAX_MBIT", "max-mbit");
pub(super) const ADAPTIVE_THROTTLE: Setting = flagged("polite", "BACKUP_POLITE", "adaptive-throttle");
pub(super) const READ_PREFERENCE: Setting = flagged("read_preference", "BACKUP_READ_PREFERENCE", "read-preference");
pub(super) const MEMORY: Setting = flagged("memory_mb", "BACKUP_MEMORY_MB", "memory-mb");
pub(super) const KEEP_LAST: Setting = unflagged("keep_last", "BACKUP_KEEP_LAST");
pub(super) const KEEP_DAILY: Setting = unflagged("keep_daily", "BACKUP_KEEP_DAILY");
pub(super) const KEEP_WEEKLY: Setting = unflagged("keep_weekly", "BACKUP_KEEP_WEEKLY");
pub(super) const KEEP_MONTHLY: Setting = unflagged("keep_monthly", "BACKUP_KEEP_MONTHLY");
pub(super) const KEEP_YEARLY: Setting = unflagged("keep_yearly", "BACKUP_KEEP_YEARLY");
pub(super) const TIMEZONE: Setting = unflagged("timezone", "BACKUP_TIMEZONE");
pub(super) const LOG_FORMAT: Setting = unflagged("log_format", "LOG_FORMAT");
pub(super) const ENABLED: Setting = unflagged("enabled", "BACKUP_ENABLED");
pub(super) const INTERVAL: Setting = unflagged("interval_hours", "BACKUP_INTERVAL_HOURS");
pub(super) const CRON: Setting = unflagged("cron", "BACKUP_CRON");
pub(super) const STATE: Setting = unflagged("state", "BACKUP_STATE");
pub(super) const AUTO_IMPORT: Setting = unflagged("auto_import_to_local", "AUTO_IMPORT_TO_LOCAL");
pub(super) const GRACE: Setting = unflagged("shutdown_grace_seconds", "BACKUP_SHUTDOWN_GRACE_SECONDS");
pub(super) const ADMIN_TOKENS: Setting = unflagged("admin_token_sha256", "ADMIN_TOKEN_SHA256");
pub(super) const READ_TOKENS: Setting = unflagged("read_token_sha256", "READ_TOKEN_SHA256");
pub(super) const DOWNLOAD_TOKENS: Setting = unflagged("download_token_sha256", "DOWNLOAD_TOKEN_SHA256");
pub(super) const WEBHOOK_URL: Setting = unflagged("webhook_url", "WEBHOOK_URL");
pub(super) const WEBHOOK_SECRET: Setting = unflagged("webhook_secret", "WEBHOOK_SECRET");

/// All that there are.
pub(super) const SETTINGS: [&Setting; 31] = [
    &ATLAS,
    &LOCAL,
    &PATH,
    &READERS,
    &WRITERS,
    &LEVEL,
    &CODEC,
    &LONG_DISTANCE,
    &FRAME,
    &MAX_MBIT,
    &ADAPTIVE_THROTTLE,
    &READ_PREFERENCE,
    &MEMORY,
    &KEEP_LAST,
    &KEEP_DAILY,
    &KEEP_WEEKLY,
    &KEEP_MONTHLY,
    &KEEP_YEARLY,
    &TIMEZONE,
    &LOG_FORMAT,
    &ENABLED,
    &INTERVAL,
    &CRON,
    &STATE,
    &AUTO_IMPORT,
    &GRACE,
    &ADMIN_TOKENS,
    &READ_TOKENS,
    &DOWNLOAD_TOKENS,
    &WEBHOOK_URL,
    &WEBHOOK_SECRET,
];

/// What the command line said. Text as it was typed; an empty one counts as not given.
#[derive(Clone, Default)]
pub struct Flags {
    /// `--source`
    pub source: Option<String>,
    /// `--target`
    pub target: Option<String>,
    /// `--path`
    pub path: Option<String>,
    /// `--readers`
    pub readers: Option<String>,
    /// `--writers`
    pub writers: Option<String>,
    /// `--level`
    pub level: Option<String>,
    /// `--codec`
    pub codec: Option<String>,
    /// `--long`
    pub long_distance: Option<String>,
    /// `--frame-mb`
    pub frame_mb: Option<String>,
    /// `--max-mbit`
    pub max_mbit: Option<String>,
    /// `--adaptive-throttle`
    pub adaptive_throttle: Option<String>,
    /// `--read-preference`
    pub read_preference: Option<String>,
    /// `--memory-mb`
    pub memory_mb: Option<String>,
    /// `--address`: the IP address to listen at.
    pub address: Option<String>,
    /// `--port`: the port to listen at; 0 takes one that is free.
    pub port: Option<String>,
}

impl Flags {
    /// The settings among them.
    pub(super) fn settings(&self) -> [(&'static Setting, &Option<String>); 13] {
        [
            (&ATLAS, &self.source),
            (&LOCAL, &self.target),
            (&PATH, &self.path),
            (&READERS, &self.readers),
            (&WRITERS, &self.writers),
            (&LEVEL, &self.level),
            (&CODEC, &self.codec),
            (&LONG_DISTANCE, &self.long_distance),
            (&FRAME, &self.frame_mb),
            (&MAX_MBIT, &self.max_mbit),
            (&ADAPTIVE_THROTTLE, &self.adaptive_throttle),
            (&READ_PREFERENCE, &self.read_preference),
            (&MEMORY, &self.memory_mb),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, DEFAULT_PATH};
    use crate::error::Face;

    #[test]
    fn every_setting_is_known_by_its_variable() {
        for setting in SETTINGS {
            let environment = [(setting.variable.into(), "".into())];
            let config = Config::load(tempfile::tempdir().unwrap().path(), environment, &Flags::default()).unwrap();
            assert_eq!(config.unknown, [], "{}", setting.variable);
        }
    }

    #[test]
    fn the_files_that_are_shipped_are_valid() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let toml: String = std::fs::read_to_string(root.join("rocket.toml")).unwrap();
        let uncommented: String = toml.lines().map(|l| format!("{}\n", l.strip_prefix("#: ").unwrap_or(l))).collect();
        let example = std::fs::read_to_string(root.join(".env.example")).unwrap();
        let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
        for setting in SETTINGS {
            assert!(uncommented.contains(&format!("\n{} = ", setting.key)), "rocket.toml lacks {}", setting.key);
            assert!(example.contains(&format!("{}=", setting.variable)), ".env.example lacks {}", setting.variable);
            let row = format!("| `{}` | `{}` | ", setting.variable, setting.key);
            assert!(readme.contains(&row), "README.md lacks {row}");
        }
        for toml in [toml, uncommented] {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join(ROCKET_TOML), toml).unwrap();
            std::fs::write(directory.path().join(DOTENV), &example).unwrap();
            let config = Config::load(directory.path(), [], &Flags::default()).unwrap();
            assert_eq!(config.path, DEFAULT_PATH);
        }
    }

    #[test]
    fn an_option_of_the_command_line_is_to_the_service_the_variable_of_the_setting() {
        for setting in SETTINGS {
            let Some(option) = setting.option else { continue };
            let token = format!("[[{option}]]");
            assert_eq!(
                (Face::Service.say(&token), Face::CommandLine.say(&token)),
                (setting.variable.into(), format!("--{option}"))
            );
        }
        let flags = Flags { target: Some("nonsense".into()), ..Flags::default() };
        let config = Config::load(tempfile::tempdir().unwrap().path(), [], &flags).unwrap();
        let error = config.target().unwrap_err();
        let hint = |face| error.told(face).1.unwrap();
        assert!(
            hint(Face::CommandLine).starts_with("it is --target") && hint(Face::Service).starts_with("it is MONGO_URI_LOCAL")
        );
    }
}
