//! Configuration: flags beat the environment, which beats `.env`, which beats `rocket.toml`, which beats the defaults. Raw text
//! first, layered by where it came from; then validated once, into a [`Config`] that cannot be wrong.

use std::ffi::OsString;
use std::fmt;
use std::io::ErrorKind as IoKind;
use std::path::Path;

use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use crate::engine::Tuning;
use crate::error::{Error, Result};
use crate::format::frame;
use crate::mongo::{MongoUri, Role};

/// The file of this name in the working directory is read; its table `[default.backup]` is this program's.
pub const ROCKET_TOML: &str = "rocket.toml";
/// The file of this name in the working directory is read, without a change to the environment of the process.
pub const DOTENV: &str = ".env";
/// Where backups are kept where nothing says otherwise.
pub const DEFAULT_PATH: &str = "./backups";

/// How many cursors or writers at a time may be asked for.
const WORKERS: std::ops::RangeInclusive<i64> = 1..=256;
/// The memory that may be asked for, in MiB: below, not even two of the largest frames fit; above is no machine yet.
const MEMORY_MB: std::ops::RangeInclusive<i64> = 64..=1_048_576;

/// One setting under the names it has in each place.
struct Setting {
    key: &'static str,
    variable: &'static str,
    flag: &'static str,
}

const ATLAS: Setting = Setting { key: "mongo_uri_atlas", variable: "MONGO_URI_ATLAS", flag: "--source" };
const LOCAL: Setting = Setting { key: "mongo_uri_local", variable: "MONGO_URI_LOCAL", flag: "--target" };
const PATH: Setting = Setting { key: "path", variable: "BACKUP_PATH", flag: "--path" };
const READERS: Setting = Setting { key: "readers", variable: "BACKUP_READERS", flag: "--readers" };
const WRITERS: Setting = Setting { key: "writers", variable: "BACKUP_WRITERS", flag: "--writers" };
const LEVEL: Setting = Setting { key: "level", variable: "BACKUP_LEVEL", flag: "--level" };
const MEMORY: Setting = Setting { key: "memory_mb", variable: "BACKUP_MEMORY_MB", flag: "--memory-mb" };
const SETTINGS: [&Setting; 7] = [&ATLAS, &LOCAL, &PATH, &READERS, &WRITERS, &LEVEL, &MEMORY];

/// A limit that is planned and not built: to go on without it would load a link that its owner meant to spare.
const MAX_MBIT: Setting = Setting { key: "max_mbit", variable: "BACKUP_MAX_MBIT", flag: "--max-mbit" };

/// Keys of the table that are planned and not built.
const LATER_KEYS: [&str; 12] = [
    MAX_MBIT.key,
    "enabled",
    "interval_hours",
    "state",
    "cron",
    "timezone",
    "auto_import_to_local",
    "keep_last",
    "keep_daily",
    "keep_weekly",
    "keep_monthly",
    "keep_yearly",
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
    /// `--memory-mb`
    pub memory_mb: Option<String>,
}

/// The configuration, valid but for the URIs: those are checked when they are asked for, because most verbs need one or none.
#[derive(Clone)]
pub struct Config {
    source: Option<(String, Origin)>,
    target: Option<(String, Origin)>,
    /// Where backups are kept: a directory.
    pub path: String,
    /// How much of the machine may be used.
    pub tuning: Tuning,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("source", &self.source())
            .field("target", &self.target())
            .field("path", &self.path)
            .field("tuning", &self.tuning)
            .finish()
    }
}

impl Config {
    /// Reads all places and validates what they say. `directory` is where `.env` and `rocket.toml` are looked for;
    /// `environment` is the variables of the process.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage), naming the setting, the place it came from and what was expected.
    pub fn load(directory: &Path, environment: impl IntoIterator<Item = (OsString, OsString)>, flags: &Flags) -> Result<Self> {
        // 1. Each place on its own, so that its errors name it.
        let table = rocket_table(directory)?;
        let dotenv = dotenv_values(directory)?;
        let environment = environment_values(environment)?;
        let flags = flag_values(flags);

        // 2. One over the other.
        let layers = Figment::new()
            .merge(Layer(Origin::Table, table))
            .merge(Layer(Origin::Dotenv, dotenv))
            .merge(Layer(Origin::Environment, environment))
            .merge(Layer(Origin::Flag, flags));
        if let Some((_, origin)) = find(&layers, &MAX_MBIT) {
            return Err(not_supported(&place(&MAX_MBIT, origin)));
        }

        // 3. What is left is validated.
        let readers = whole_number(&layers, &READERS, WORKERS)?;
        let writers = whole_number(&layers, &WRITERS, WORKERS)?;
        let levels = i64::from(*frame::LEVELS.start())..=i64::from(*frame::LEVELS.end());
        let level = whole_number(&layers, &LEVEL, levels)?;
        let memory_mb = whole_number(&layers, &MEMORY, MEMORY_MB)?;
        let default = Tuning::default();
        Ok(Self {
            source: text(&layers, &ATLAS)?,
            target: text(&layers, &LOCAL)?,
            path: text(&layers, &PATH)?.map_or_else(|| DEFAULT_PATH.to_owned(), |(path, _)| path),
            tuning: Tuning {
                range_bytes: default.range_bytes,
                readers: readers.and_then(|n| usize::try_from(n).ok()),
                writers: writers.and_then(|n| usize::try_from(n).ok()),
                level: level.and_then(|n| i32::try_from(n).ok()),
                memory_bytes: memory_mb.and_then(|n| u64::try_from(n).ok()).map_or(default.memory_bytes, |mb| mb * 1024 * 1024),
            },
        })
    }

    /// The source's URI.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage): `Atlas MongoDB URI not configured` or `Invalid Atlas URI format`.
    pub fn source(&self) -> Result<MongoUri> {
        self.configured_source()?.ok_or_else(|| Role::Source.not_configured())
    }

    /// The source's URI where one is configured.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage): `Invalid Atlas URI format`.
    pub fn configured_source(&self) -> Result<Option<MongoUri>> {
        self.source.as_ref().map(|found| parse_uri(Role::Source, &ATLAS, found)).transpose()
    }

    /// The target's URI.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage): `Local MongoDB URI not configured` or `Invalid Local URI format`.
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
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Flag,
    Environment,
    Dotenv,
    Table,
}

impl Origin {
    const ALL: [Self; 4] = [Self::Flag, Self::Environment, Self::Dotenv, Self::Table];

    fn name(self) -> &'static str {
        match self {
            Self::Flag => "the command line",
            Self::Environment => "the environment",
            Self::Dotenv => DOTENV,
            Self::Table => "rocket.toml, [default.backup]",
        }
    }
}

/// The setting as it is written where the value came from: `BACKUP_LEVEL in .env`.
fn place(setting: &Setting, origin: Origin) -> String {
    match origin {
        Origin::Flag => setting.flag.to_owned(),
        Origin::Environment | Origin::Dotenv => format!("{} in {}", setting.variable, origin.name()),
        Origin::Table => format!("{} in {}", setting.key, origin.name()),
    }
}

fn not_supported(what: &str) -> Error {
    Error::usage(format!("{what} is not supported yet")).hint("take it out")
}

/// The values of one place, for figment.
struct Layer(Origin, Dict);

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.0.name())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.1.clone()))
    }
}

fn flag_values(flags: &Flags) -> Dict {
    let given = [
        (&ATLAS, &flags.source),
        (&LOCAL, &flags.target),
        (&PATH, &flags.path),
        (&READERS, &flags.readers),
        (&WRITERS, &flags.writers),
        (&LEVEL, &flags.level),
        (&MEMORY, &flags.memory_mb),
    ];
    given
        .into_iter()
        .filter_map(|(setting, value)| Some((setting.key.to_owned(), value.clone().filter(|v| !v.trim().is_empty())?.into())))
        .collect()
}

/// The setting that a variable of the environment stands for.
fn by_variable(name: &str) -> Option<&'static Setting> {
    SETTINGS.into_iter().chain([&MAX_MBIT]).find(|s| s.variable == name)
}

fn environment_values(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Dict> {
    let mut values = Dict::new();
    for (name, value) in environment {
        let Some(setting) = name.to_str().and_then(by_variable) else { continue };
        let value = value
            .into_string()
            .map_err(|_| Error::usage(format!("{} is not text in UTF-8", place(setting, Origin::Environment))))?;
        if !value.trim().is_empty() {
            values.insert(setting.key.to_owned(), value.into());
        }
    }
    Ok(values)
}

fn dotenv_values(directory: &Path) -> Result<Dict> {
    let mut values = Dict::new();
    let Some(content) = read_if_there(directory, DOTENV)? else { return Ok(values) };
    for pair in dotenvy::from_read_iter(content.as_bytes()) {
        // The driver of this error quotes the line, which may hold a password: only its number is told.
        let (name, value) = pair.map_err(|e| {
            let line = match &e {
                dotenvy::Error::LineParse(line, _) => {
                    let first = line.lines().next().unwrap_or_default().trim();
                    content.lines().position(|l| l.trim() == first).map(|at| format!(", line {}", at + 1))
                }
                _ => None,
            };
            Error::usage(format!("{DOTENV}{} cannot be read: expected NAME=VALUE", line.unwrap_or_default()))
                .hint("put values with spaces, '#' or '$' in single quotes")
        })?;
        // The first of several wins, as where a .env is loaded into the environment.
        if let Some(setting) = by_variable(&name).filter(|s| !value.trim().is_empty() && !values.contains_key(s.key)) {
            values.insert(setting.key.to_owned(), value.into());
        }
    }
    Ok(values)
}

fn rocket_table(directory: &Path) -> Result<Dict> {
    let Some(content) = read_if_there(directory, ROCKET_TOML)? else { return Ok(Dict::new()) };
    // What the parser says after its first line quotes the file, which may hold a password.
    let profiles = Toml::string(&content).nested().data().map_err(|e| {
        let first = e.kind.to_string().lines().next().unwrap_or_default().to_owned();
        Error::usage(format!("{ROCKET_TOML} cannot be read: {first}"))
    })?;
    let table = match profiles.get(&Profile::Default).and_then(|default| default.get("backup")) {
        None => return Ok(Dict::new()),
        Some(Value::Dict(_, table)) => table.clone(),
        Some(_) => {
            return Err(Error::usage(format!("backup in {ROCKET_TOML}, [default], is not a table"))
                .hint("write a table [default.backup]"));
        }
    };
    for key in table.keys() {
        if LATER_KEYS.contains(&key.as_str()) {
            return Err(not_supported(&format!("{key} in {}", Origin::Table.name())));
        }
        if !SETTINGS.iter().any(|s| s.key == key) {
            let known: Vec<_> = SETTINGS.iter().map(|s| s.key).collect();
            return Err(Error::usage(format!("{key:?} in {} is not a setting", Origin::Table.name()))
                .hint(format!("the settings are {}", known.join(", "))));
        }
    }
    Ok(table.into_iter().filter(|(_, value)| !value.as_str().is_some_and(|v| v.trim().is_empty())).collect())
}

fn read_if_there(directory: &Path, name: &str) -> Result<Option<String>> {
    match std::fs::read_to_string(directory.join(name)) {
        Ok(content) => Ok(Some(content)),
        Err(e) if e.kind() == IoKind::NotFound => Ok(None),
        Err(e) => Err(Error::usage(format!("{name} in the working directory cannot be read: {e}")).cause(e)),
    }
}

fn find(layers: &Figment, setting: &Setting) -> Option<(Value, Origin)> {
    let value = layers.find_value(setting.key).ok()?;
    let metadata = layers.find_metadata(setting.key)?;
    let origin = Origin::ALL.into_iter().find(|o| o.name() == metadata.name)?;
    Some((value, origin))
}

fn text(layers: &Figment, setting: &Setting) -> Result<Option<(String, Origin)>> {
    match find(layers, setting) {
        None => Ok(None),
        Some((Value::String(_, text), origin)) => Ok(Some((text, origin))),
        Some((_, origin)) => Err(Error::usage(format!("{}: expected text in quotes", place(setting, origin)))),
    }
}

fn whole_number(layers: &Figment, setting: &Setting, range: std::ops::RangeInclusive<i64>) -> Result<Option<i64>> {
    let Some((value, origin)) = find(layers, setting) else { return Ok(None) };
    let (number, shown) = match &value {
        Value::String(_, text) => (text.trim().parse().ok(), format!("{text:?}")),
        Value::Num(_, number) => {
            // A number that is not whole is told as it was written.
            let shown = number.to_f64().map_or_else(
                || number.to_i128().map(|n| n.to_string()).or_else(|| number.to_u128().map(|n| n.to_string())),
                |f| Some(f.to_string()),
            );
            let whole = number.to_i128().or_else(|| number.to_u128().and_then(|n| i128::try_from(n).ok()));
            (whole.and_then(|n| i64::try_from(n).ok()), shown.unwrap_or_default())
        }
        _ => (None, "neither number nor text".to_owned()),
    };
    number.filter(|n| range.contains(n)).map(Some).ok_or_else(|| {
        Error::usage(format!(
            "{} is {shown}: expected a whole number from {} to {}",
            place(setting, origin),
            range.start(),
            range.end()
        ))
    })
}

fn parse_uri(role: Role, setting: &Setting, (uri, origin): &(String, Origin)) -> Result<MongoUri> {
    MongoUri::parse(role, uri).map_err(|e| {
        let hint = e.hint_text().map_or_else(String::new, |hint| format!("; {hint}"));
        e.hint(format!("it is {}{hint}", place(setting, *origin)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[derive(Default)]
    struct Places {
        toml: &'static str,
        dotenv: &'static str,
        environment: Vec<(&'static str, &'static str)>,
        flags: Flags,
    }

    impl Places {
        fn load(self) -> Result<Config> {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join(ROCKET_TOML), self.toml).unwrap();
            std::fs::write(directory.path().join(DOTENV), self.dotenv).unwrap();
            let environment = self.environment.iter().map(|(name, value)| (name.into(), value.into()));
            Config::load(directory.path(), environment, &self.flags)
        }

        fn refused(self) -> String {
            let error = self.load().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
            error.to_string()
        }
    }

    #[test]
    fn nothing_said_gives_the_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::load(directory.path(), [], &Flags::default()).unwrap();
        assert_eq!(config.path, DEFAULT_PATH);
        assert_eq!(config.tuning, Tuning::default());
        assert_eq!(config.source().unwrap_err().to_string(), "Atlas MongoDB URI not configured");
        assert_eq!(config.target().unwrap_err().to_string(), "Local MongoDB URI not configured");
        assert!(config.configured_source().unwrap().is_none());
    }

    #[test]
    fn each_place_beats_those_below_it() {
        let toml = "[default.backup]\npath = \"toml\"\nlevel = 1\nreaders = 1\nwriters = 1\nmemory_mb = 65\n[debug]\nport = 1\n";
        let dotenv = "BACKUP_LEVEL=2\nBACKUP_READERS=2\nBACKUP_WRITERS=2\nBACKUP_READERS=9\n";
        let config = Places {
            toml,
            dotenv,
            environment: vec![("BACKUP_READERS", "3"), ("BACKUP_WRITERS", "3"), ("BACKUP_LEVEL", "")],
            flags: Flags { writers: Some("4".into()), path: Some(String::new()), ..Flags::default() },
        }
        .load()
        .unwrap();
        assert_eq!(config.path, "toml");
        assert_eq!(config.tuning.memory_bytes, 65 * 1024 * 1024);
        assert_eq!((config.tuning.level, config.tuning.readers, config.tuning.writers), (Some(2), Some(3), Some(4)));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_and_what_was_expected() {
        let dotenv = Places { dotenv: "BACKUP_LEVEL=20", ..Places::default() };
        assert_eq!(dotenv.refused(), "BACKUP_LEVEL in .env is \"20\": expected a whole number from -7 to 19");
        let environment = Places { environment: vec![("BACKUP_READERS", "many")], ..Places::default() };
        assert_eq!(environment.refused(), "BACKUP_READERS in the environment is \"many\": expected a whole number from 1 to 256");
        let flag = Places { flags: Flags { memory_mb: Some("63".into()), ..Flags::default() }, ..Places::default() };
        assert_eq!(flag.refused(), "--memory-mb is \"63\": expected a whole number from 64 to 1048576");
        let table = Places { toml: "[default.backup]\nwriters = 0", ..Places::default() };
        assert_eq!(table.refused(), "writers in rocket.toml, [default.backup] is 0: expected a whole number from 1 to 256");
        let fraction = Places { toml: "[default.backup]\nwriters = 1.5", ..Places::default() };
        assert!(fraction.refused().contains("is 1.5: expected a whole number"));
        let text = Places { toml: "[default.backup]\npath = 7", ..Places::default() };
        assert_eq!(text.refused(), "path in rocket.toml, [default.backup]: expected text in quotes");
    }

    #[test]
    fn a_value_that_is_overridden_is_not_judged() {
        let config = Places {
            dotenv: "BACKUP_LEVEL=99",
            flags: Flags { level: Some("-7".into()), ..Flags::default() },
            ..Places::default()
        };
        assert_eq!(config.load().unwrap().tuning.level, Some(-7));
    }

    #[test]
    fn keys_that_are_unknown_or_not_built_are_refused_by_name() {
        let unknown = Places { toml: "[default.backup]\nlevle = 3", ..Places::default() };
        assert_eq!(unknown.refused(), "\"levle\" in rocket.toml, [default.backup] is not a setting");
        let later = Places { toml: "[default.backup]\nmax_mbit = 3", ..Places::default() };
        assert_eq!(later.refused(), "max_mbit in rocket.toml, [default.backup] is not supported yet");
        let variable = Places { environment: vec![("BACKUP_MAX_MBIT", "3")], ..Places::default() };
        assert_eq!(variable.refused(), "BACKUP_MAX_MBIT in the environment is not supported yet");
        let service = Places { environment: vec![("BACKUP_INTERVAL_HOURS", "0")], ..Places::default() };
        assert!(service.load().is_ok());
        assert!(Places { toml: "[default]\nport = 1\n[default.limits]\njson = 1", ..Places::default() }.load().is_ok());
        assert!(Places { toml: "[default]\nbackup = 1", ..Places::default() }.refused().contains("not a table"));
    }

    #[test]
    fn files_that_cannot_be_read_are_refused_without_quoting_them() {
        let toml = Places { toml: "[default.backup]\nmongo_uri_atlas = \"mongodb://u:secret@h", ..Places::default() }.refused();
        assert!(toml.starts_with("rocket.toml cannot be read: TOML parse error at line 2"), "{toml}");
        assert!(!toml.contains("secret"), "{toml}");
        let dotenv = Places { dotenv: "A=1\nMONGO_URI_ATLAS='mongodb://u:secret@h", ..Places::default() }.refused();
        assert_eq!(dotenv, ".env, line 2 cannot be read: expected NAME=VALUE");
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join(ROCKET_TOML)).unwrap();
        let error = Config::load(directory.path(), [], &Flags::default()).unwrap_err();
        assert!(error.to_string().starts_with("rocket.toml in the working directory cannot be read"), "{error}");
    }

    #[test]
    fn a_bad_uri_fails_where_it_is_needed_and_says_where_it_is() {
        let config = Places { dotenv: "MONGO_URI_ATLAS='mongodb://u:sec/ret@h'", ..Places::default() }.load().unwrap();
        let error = config.source().unwrap_err();
        assert!(error.to_string().starts_with("Invalid Atlas URI format"), "{error}");
        assert!(error.hint_text().unwrap().starts_with("it is MONGO_URI_ATLAS in .env"), "{error:?}");
        assert!(!format!("{config:?} {error:?}").contains("ret@"), "{config:?}");
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
}
