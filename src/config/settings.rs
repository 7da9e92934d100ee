//! The table of all settings: their names in each place, and their descriptions for the reference.

/// The file in the working directory whose table `[default.backup]` holds this program's settings.
pub(super) const ROCKET_TOML: &str = "rocket.toml";
/// The file of variables in the working directory. Reading it does not change the environment of
/// the process.
pub(super) const DOTENV: &str = ".env";

/// Variables of this prefix are the HTTP server's own.
pub(super) const SERVER_PREFIX: &str = "ROCKET_";

/// The keys that the server knows, and those that set how its settings are read.
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

/// One setting: the names that it has in each place, and what the reference says of it.
#[derive(Debug)]
pub struct Setting {
    /// Its name in `[default.backup]` of `rocket.toml`.
    pub key: &'static str,
    /// Its name in the environment and in `.env`.
    pub variable: &'static str,
    /// Its flag on the command line, without the hyphens.
    pub option: Option<&'static str>,
    /// What it is about.
    pub group: Group,
    /// The values that it takes, in Markdown.
    pub values: &'static str,
    /// The value that it has if it is not set, in Markdown. Empty if there is none.
    pub default: &'static str,
    /// What it does, in Markdown.
    pub about: &'static str,
}

/// What settings are about, in the order of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The source and the target.
    Deployments,
    /// Where backups are kept, and in which form.
    Backups,
    /// How much of the source and of this machine is used.
    Load,
    /// Which backups are kept.
    Retention,
    /// What is kept so that any second can be restored.
    PointInTime,
    /// How a target follows the source.
    Sync,
    /// What the service does by itself.
    Service,
    /// Who may use the service.
    Access,
    /// What the program reports, and to whom.
    Messages,
}

pub(super) const ATLAS: Setting = Setting {
    key: "mongo_uri_atlas",
    variable: "MONGO_URI_ATLAS",
    option: Some("source"),
    group: Group::Deployments,
    values: "connection string",
    default: "",
    about: "The source. It need not be on Atlas. A database in its path is the only one that is \
        backed up.",
};
pub(super) const LOCAL: Setting = Setting {
    key: "mongo_uri_local",
    variable: "MONGO_URI_LOCAL",
    option: Some("target"),
    group: Group::Deployments,
    values: "connection string",
    default: "",
    about: "The target of imports. A database in its path is the name that a single imported \
        database gets.",
};
pub(super) const READ_PREFERENCE: Setting = Setting {
    key: "read_preference",
    variable: "BACKUP_READ_PREFERENCE",
    option: Some("read-preference"),
    group: Group::Deployments,
    values: "mode, or a document with `mode`, `tagSets` and `maxStalenessSeconds`",
    default: "the URI's, else `primary`",
    about: "The member of a replica set that documents and the oplog are read from. `check` names \
        it.",
};
pub(super) const PATH: Setting = Setting {
    key: "path",
    variable: "BACKUP_PATH",
    option: Some("path"),
    group: Group::Backups,
    values: "directory",
    default: "`./backups`",
    about: "The directory that holds the backups.",
};
pub(super) const CODEC: Setting = Setting {
    key: "codec",
    variable: "BACKUP_CODEC",
    option: Some("codec"),
    group: Group::Backups,
    values: "`zstd` or `columns`",
    default: "`zstd`",
    about: "How frames are encoded. `columns` is smaller if documents are alike; only bsonvault \
        reads it.",
};
pub(super) const LEVEL: Setting = Setting {
    key: "level",
    variable: "BACKUP_LEVEL",
    option: Some("level"),
    group: Group::Backups,
    values: "-7 (fastest) to 19 (smallest)",
    default: "adapts between 1 and 4",
    about: "zstd's level. If it is not set, a backup adapts it to the slowest stage. It is chosen \
        once, from the link, if memory is below 128 MiB or the backup is resumed.",
};
pub(super) const LONG_DISTANCE: Setting = Setting {
    key: "long_distance",
    variable: "BACKUP_LONG_DISTANCE",
    option: Some("long"),
    group: Group::Backups,
    values: "Boolean",
    default: "`false`",
    about: "Whether zstd looks for repetitions in a whole frame. This pays off for large frames of \
        documents that repeat themselves.",
};
pub(super) const FRAME: Setting = Setting {
    key: "frame_mb",
    variable: "BACKUP_FRAME_MB",
    option: Some("frame-mb"),
    group: Group::Backups,
    values: "1 to 16",
    default: "4",
    about: "MiB of documents in a frame. Larger frames compress better and take more memory for each \
        reader and writer.",
};
pub(super) const READERS: Setting = Setting {
    key: "readers",
    variable: "BACKUP_READERS",
    option: Some("readers"),
    group: Group::Load,
    values: "1 to 256",
    default: "adapts",
    about: "Cursors that read at the same time. If it is not set, a backup adapts it to the slowest \
        stage.",
};
pub(super) const WRITERS: Setting = Setting {
    key: "writers",
    variable: "BACKUP_WRITERS",
    option: Some("writers"),
    group: Group::Load,
    values: "1 to 256",
    default: "adapts; for dumps, chosen from the machine",
    about: "Writers that insert at the same time.",
};
pub(super) const MEMORY: Setting = Setting {
    key: "memory_mb",
    variable: "BACKUP_MEMORY_MB",
    option: Some("memory-mb"),
    group: Group::Load,
    values: "64 or more",
    default: "256",
    about: "MiB for all buffers together, compressors included. Readers that do not fit are dropped. \
        A manifest that is larger is refused, and so is a level whose compressor takes more than \
        half of it.",
};
pub(super) const MAX_MBIT: Setting = Setting {
    key: "max_mbit",
    variable: "BACKUP_MAX_MBIT",
    option: Some("max-mbit"),
    group: Group::Load,
    values: "1 to 1000000",
    default: "no limit",
    about: "The most Mbit/s that a backup reads, counted before compression on the wire. The oplog, \
        and samples at the beginning, do not count.",
};
pub(super) const ADAPTIVE_THROTTLE: Setting = Setting {
    key: "polite",
    variable: "BACKUP_POLITE",
    option: Some("adaptive-throttle"),
    group: Group::Load,
    values: "Boolean",
    default: "`false`",
    about: "Probes the source's latency 5 times a second. If it exceeds twice the baseline plus 2 \
        ms, readers pause after each reply. On a link that the backup fills, its own replies \
        count as latency, and the backup becomes several times slower.",
};
pub(super) const KEEP_LAST: Setting = Setting {
    key: "keep_last",
    variable: "BACKUP_KEEP_LAST",
    option: None,
    group: Group::Retention,
    values: "1 to 1000000",
    default: "",
    about: "Keeps the newest N backups of each group. Unless one of the five rules is set, nothing \
        is ever deleted.",
};
pub(super) const KEEP_DAILY: Setting = Setting {
    key: "keep_daily",
    variable: "BACKUP_KEEP_DAILY",
    option: None,
    group: Group::Retention,
    values: "1 to 1000000",
    default: "",
    about: "Keeps the newest backup of each of the last N days that have one.",
};
pub(super) const KEEP_WEEKLY: Setting = Setting {
    key: "keep_weekly",
    variable: "BACKUP_KEEP_WEEKLY",
    option: None,
    group: Group::Retention,
    values: "1 to 1000000",
    default: "",
    about: "Keeps the newest backup of each of the last N weeks that have one.",
};
pub(super) const KEEP_MONTHLY: Setting = Setting {
    key: "keep_monthly",
    variable: "BACKUP_KEEP_MONTHLY",
    option: None,
    group: Group::Retention,
    values: "1 to 1000000",
    default: "",
    about: "Keeps the newest backup of each of the last N months that have one.",
};
pub(super) const KEEP_YEARLY: Setting = Setting {
    key: "keep_yearly",
    variable: "BACKUP_KEEP_YEARLY",
    option: None,
    group: Group::Retention,
    values: "1 to 1000000",
    default: "",
    about: "Keeps the newest backup of each of the last N years that have one.",
};
pub(super) const PITR_ENABLED: Setting = Setting {
    key: "pitr_enabled",
    variable: "PITR_ENABLED",
    option: None,
    group: Group::PointInTime,
    values: "Boolean",
    default: "`false`",
    about: "Whether the service archives the source's oplog, so that any second after a backup can \
        be restored. On the command line, `archive` does so. A request starts or stops it until the \
        service ends.",
};
pub(super) const PITR_KEEP: Setting = Setting {
    key: "pitr_keep",
    variable: "PITR_KEEP",
    option: Some("pitr-keep"),
    group: Group::PointInTime,
    values: "number with `s`, `m`, `h`, `d` or `w`",
    default: "everything is kept",
    about: "How far back any second can be restored, for instance `7d`. Older parts of the archive \
        are removed unless a kept backup needs them. The backup that the window begins with is kept, \
        too.",
};
pub(super) const PITR_MAX_REPLAY: Setting = Setting {
    key: "pitr_max_replay",
    variable: "PITR_MAX_REPLAY",
    option: Some("pitr-max-replay"),
    group: Group::PointInTime,
    values: "number with `s`, `m`, `h`, `d` or `w`",
    default: "`15m`",
    about: "A backup is taken early if replaying the archive would take longer than this.",
};
pub(super) const PITR_LINK: Setting = Setting {
    key: "pitr_link",
    variable: "PITR_LINK",
    option: None,
    group: Group::PointInTime,
    values: "number with `s`, `m`, `h`, `d` or `w`",
    default: "`1h`",
    about: "How much of the oplog is in one link of the archive.",
};
pub(super) const SYNC_ENABLED: Setting = Setting {
    key: "sync_enabled",
    variable: "SYNC_ENABLED",
    option: None,
    group: Group::Sync,
    values: "Boolean",
    default: "`false`",
    about: "Whether the service keeps the target a copy of the source from its start. On the command \
        line, `sync` does so. A request starts or stops it until the service ends.",
};
pub(super) const SYNC_DELAY: Setting = Setting {
    key: "sync_delay",
    variable: "SYNC_DELAY",
    option: Some("delay"),
    group: Group::Sync,
    values: "number with `s`, `m`, `h`, `d` or `w`",
    default: "none",
    about: "How far the target stays behind the source on purpose, for instance `30m`.",
};
pub(super) const SYNC_PROOF: Setting = Setting {
    key: "sync_proof",
    variable: "SYNC_PROOF",
    option: Some("proof"),
    group: Group::Sync,
    values: "number with `s`, `m`, `h`, `d` or `w`, or `off`",
    default: "`24h`",
    about: "How often it is proven that the target holds what the source holds.",
};
pub(super) const SYNC_MODE: Setting = Setting {
    key: "sync_mode",
    variable: "SYNC_MODE",
    option: None,
    group: Group::Sync,
    values: "`fail` or `replace`",
    default: "`fail`",
    about: "What happens to collections that exist in the target when the service makes the first \
        copy: it refuses to begin, or replaces them.",
};
pub(super) const SYNC_INCLUDE: Setting = Setting {
    key: "sync_include",
    variable: "SYNC_INCLUDE",
    option: None,
    group: Group::Sync,
    values: "patterns of `DB.COLLECTION`, separated by commas",
    default: "everything",
    about: "What the service follows. `*` matches any characters. A comma in a name is written `\\,`.",
};
pub(super) const SYNC_EXCLUDE: Setting = Setting {
    key: "sync_exclude",
    variable: "SYNC_EXCLUDE",
    option: None,
    group: Group::Sync,
    values: "patterns of `DB.COLLECTION`, separated by commas",
    default: "nothing",
    about: "What the service does not follow.",
};
pub(super) const SYNC_RENAME: Setting = Setting {
    key: "sync_rename",
    variable: "SYNC_RENAME",
    option: None,
    group: Group::Sync,
    values: "`FROM=TO` over whole namespaces, separated by commas",
    default: "",
    about: "Under which names the service follows. What a `*` in FROM matches replaces that in TO.",
};
pub(super) const TIMEZONE: Setting = Setting {
    key: "timezone",
    variable: "BACKUP_TIMEZONE",
    option: None,
    group: Group::Retention,
    values: "IANA name",
    default: "`UTC`",
    about: "The time zone whose days, weeks, months and years retention counts, and whose clock \
        `BACKUP_CRON` follows.",
};
pub(super) const ENABLED: Setting = Setting {
    key: "enabled",
    variable: "BACKUP_ENABLED",
    option: None,
    group: Group::Service,
    values: "Boolean",
    default: "`true`",
    about: "Whether the service takes scheduled backups.",
};
pub(super) const INTERVAL: Setting = Setting {
    key: "interval_hours",
    variable: "BACKUP_INTERVAL_HOURS",
    option: None,
    group: Group::Service,
    values: "1 to 87600",
    default: "6",
    about: "Hours between two backups. Restarts and clock changes do not shift it. The first backup \
        comes one interval after the first start.",
};
pub(super) const CRON: Setting = Setting {
    key: "cron",
    variable: "BACKUP_CRON",
    option: None,
    group: Group::Service,
    values: "minute, hour, day of month, month, day of week; or `@daily` and the like",
    default: "",
    about: "A schedule that replaces the interval.",
};
pub(super) const AUTO_IMPORT: Setting = Setting {
    key: "auto_import_to_local",
    variable: "AUTO_IMPORT_TO_LOCAL",
    option: None,
    group: Group::Service,
    values: "Boolean",
    default: "`true`, but `false` if `SYNC_ENABLED` is `true`",
    about: "Whether the service imports each backup into the target once it is complete.",
};
pub(super) const STATE: Setting = Setting {
    key: "state",
    variable: "BACKUP_STATE",
    option: None,
    group: Group::Service,
    values: "file",
    default: "`bsonvault.redb` in systemd's `STATE_DIRECTORY`, else in `BACKUP_PATH`",
    about: "The file that keeps jobs and the schedule.",
};
pub(super) const GRACE: Setting = Setting {
    key: "shutdown_grace_seconds",
    variable: "BACKUP_SHUTDOWN_GRACE_SECONDS",
    option: None,
    group: Group::Service,
    values: "0 to 86400",
    default: "30",
    about: "Seconds that running jobs may go on after the service is asked to stop.",
};
pub(super) const ADMIN_TOKENS: Setting = Setting {
    key: "admin_token_sha256",
    variable: "ADMIN_TOKEN_SHA256",
    option: None,
    group: Group::Access,
    values: "SHA-256 hashes, separated by commas",
    default: "",
    about: "The tokens that may do everything. `serve` refuses to start without one.",
};
pub(super) const READ_TOKENS: Setting = Setting {
    key: "read_token_sha256",
    variable: "READ_TOKEN_SHA256",
    option: None,
    group: Group::Access,
    values: "SHA-256 hashes, separated by commas",
    default: "",
    about: "The tokens that may read, but not download backups.",
};
pub(super) const DOWNLOAD_TOKENS: Setting = Setting {
    key: "download_token_sha256",
    variable: "DOWNLOAD_TOKEN_SHA256",
    option: None,
    group: Group::Access,
    values: "SHA-256 hashes, separated by commas",
    default: "",
    about: "The tokens that may read and download backups.",
};
pub(super) const WEBHOOK_URL: Setting = Setting {
    key: "webhook_url",
    variable: "WEBHOOK_URL",
    option: None,
    group: Group::Messages,
    values: "URL",
    default: "",
    about: "Gets a POST for every job that ends, for every gap in the archive of the oplog, and when \
        the sync is held.",
};
pub(super) const WEBHOOK_SECRET: Setting = Setting {
    key: "webhook_secret",
    variable: "WEBHOOK_SECRET",
    option: None,
    group: Group::Messages,
    values: "text",
    default: "",
    about: "Signs the messages to the webhook with HMAC-SHA256.",
};
pub(super) const LOG_FORMAT: Setting = Setting {
    key: "log_format",
    variable: "LOG_FORMAT",
    option: None,
    group: Group::Messages,
    values: "`human` or `json`",
    default: "`human`",
    about: "The format of logs on standard error.",
};

/// All settings, in the order of the reference.
pub(super) const SETTINGS: [&Setting; 42] = [
    &ATLAS,
    &LOCAL,
    &READ_PREFERENCE,
    &PATH,
    &CODEC,
    &LEVEL,
    &LONG_DISTANCE,
    &FRAME,
    &READERS,
    &WRITERS,
    &MEMORY,
    &MAX_MBIT,
    &ADAPTIVE_THROTTLE,
    &KEEP_LAST,
    &KEEP_DAILY,
    &KEEP_WEEKLY,
    &KEEP_MONTHLY,
    &KEEP_YEARLY,
    &TIMEZONE,
    &PITR_ENABLED,
    &PITR_KEEP,
    &PITR_MAX_REPLAY,
    &PITR_LINK,
    &SYNC_ENABLED,
    &SYNC_DELAY,
    &SYNC_PROOF,
    &SYNC_MODE,
    &SYNC_INCLUDE,
    &SYNC_EXCLUDE,
    &SYNC_RENAME,
    &ENABLED,
    &INTERVAL,
    &CRON,
    &AUTO_IMPORT,
    &STATE,
    &GRACE,
    &ADMIN_TOKENS,
    &READ_TOKENS,
    &DOWNLOAD_TOKENS,
    &WEBHOOK_URL,
    &WEBHOOK_SECRET,
    &LOG_FORMAT,
];

/// All settings, in the order of the reference.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.into_iter()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, DEFAULT_PATH, Flags};
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
        for setting in SETTINGS {
            assert!(uncommented.contains(&format!("\n{} = ", setting.key)), "rocket.toml lacks {}", setting.key);
            assert!(example.contains(&format!("{}=", setting.variable)), ".env.example lacks {}", setting.variable);
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
