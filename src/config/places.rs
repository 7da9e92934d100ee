//! The places that settings come from: the raw text of each, and the origin of the value that wins.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind as IoKind;
use std::path::Path;

use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::flags::Flags;
use super::origin::{Origin, place};
use super::settings::{DOTENV, ROCKET_TOML, SERVER_PREFIX, SETTINGS, Setting};
use super::unknown::Unknown;
use crate::error::{Error, Result};
use crate::names::nearest;
use crate::system;

/// The contents of all places, not validated yet.
pub(super) struct Places {
    /// This program's settings, with the places layered.
    pub(super) settings: Figment,
    /// The HTTP server's own keys in `rocket.toml`, by profile.
    pub(super) server_table: Map<Profile, Dict>,
    /// The HTTP server's own variables, `port` for `ROCKET_PORT`. The environment wins over `.env`.
    pub(super) server_variables: Dict,
    /// The first state directory that systemd created for this service.
    pub(super) state_directory: Option<OsString>,
    /// Given names that are no settings.
    pub(super) unknown: Vec<Unknown>,
    /// Variables with more than one value in `.env`, unless another place wins over it.
    pub(super) contradicted: Vec<String>,
}

impl Places {
    /// Reads each place on its own, so that its errors name it. Then layers them.
    pub(super) fn read(
        directory: &Path,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &Flags,
    ) -> Result<Self> {
        let (table, server_table, mut unknown) = rocket_table(directory)?;
        let mut server_variables = Dict::new();
        let (dotenv, mut contradicted) = dotenv_values(directory, &mut server_variables, &mut unknown)?;
        let mut state_directory = None;
        let environment = environment.into_iter().inspect(|(name, value)| {
            if name == "STATE_DIRECTORY" {
                state_directory = std::env::split_paths(value).next().map(Into::into);
            }
        });
        let environment = environment_values(environment, &mut server_variables, &mut unknown)?;
        let settings = Figment::new()
            .merge(Layer(Origin::Table, table))
            .merge(Layer(Origin::Dotenv, dotenv))
            .merge(Layer(Origin::Environment, environment))
            .merge(Layer(Origin::Flag, flag_values(flags)?));
        let state_directory = state_directory.filter(|directory: &OsString| !directory.is_empty());
        let given = |variable: &str| by_variable(variable).is_some_and(|setting| settings.contains(setting.key));
        unknown.retain(|unknown| !unknown.is_beside(&given));
        let counts = |setting| find(&settings, setting).is_none_or(|(_, origin)| origin == Origin::Dotenv);
        contradicted.retain(|variable| by_variable(variable).is_none_or(counts));
        Ok(Self { settings, server_table, server_variables, state_directory, unknown, contradicted })
    }
}

/// The value of a setting that wins, and its origin.
pub(super) fn find(settings: &Figment, setting: &Setting) -> Option<(Value, Origin)> {
    let value = settings.find_value(setting.key).ok()?;
    let metadata = settings.find_metadata(setting.key)?;
    let origin = Origin::ALL.into_iter().find(|o| o.name() == metadata.name)?;
    Some((value, origin))
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

/// # Errors
/// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) for a flag with an empty value: a variable
/// of the shell that is not set must not mean another deployment or path.
fn flag_values(flags: &Flags) -> Result<Dict> {
    let mut values = Dict::new();
    for (setting, value) in flags.settings() {
        let Some(value) = value else { continue };
        if value.trim().is_empty() {
            return Err(Error::usage(format!("{} has an empty value", place(setting, Origin::Flag)))
                .hint("give it a value, or leave it out to use the configured one; is a variable of the shell not set?"));
        }
        values.insert(setting.key.to_owned(), value.clone().into());
    }
    Ok(values)
}

/// The setting that a variable of the environment stands for.
fn by_variable(name: &str) -> Option<&'static Setting> {
    SETTINGS.into_iter().find(|s| s.variable == name)
}

/// The key of the HTTP server that a variable stands for. Case does not matter there.
fn by_server_variable(name: &str) -> Option<String> {
    let (prefix, key) = name.split_at_checked(SERVER_PREFIX.len())?;
    (prefix.eq_ignore_ascii_case(SERVER_PREFIX) && !key.is_empty()).then(|| key.to_ascii_lowercase())
}

/// A variable's value as the HTTP server reads it: a number, a Boolean, a table, or else text.
fn server_value(text: &str) -> Value {
    text.parse().unwrap_or_else(|never| match never {})
}

/// Whether Kubernetes set this variable because a Service of the namespace is called `backup`, or
/// anything else that settings begin with: `BACKUP_SERVICE_HOST`, `BACKUP_PORT_80_TCP_ADDR`.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let of_port = name.split_once("_PORT_").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
    name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || of_port || (name.ends_with("_PORT") && is_address)
}

fn environment_values(
    environment: impl Iterator<Item = (OsString, OsString)>,
    server: &mut Dict,
    unknown: &mut Vec<Unknown>,
) -> Result<Dict> {
    let mut values = Dict::new();
    for (name, value) in environment {
        let Some(name) = name.to_str() else { continue };
        if !is_service_link(name, value.to_str().unwrap_or_default()) {
            unknown.extend(Unknown::variable(name, Origin::Environment));
        }
        let (setting, key) = (by_variable(name), by_server_variable(name));
        if setting.is_none() && key.is_none() {
            continue;
        }
        let value = value
            .into_string()
            .map_err(|_| Error::usage(format!("{name} in {} is not text in UTF-8", Origin::Environment.name())))?;
        if value.trim().is_empty() {
            continue;
        }
        if let Some(key) = key {
            server.insert(key, server_value(&value));
        } else if let Some(setting) = setting {
            values.insert(setting.key.to_owned(), value.into());
        }
    }
    Ok(values)
}

/// The values of this program's settings in `.env`, and the variables with more than one value
/// there.
fn dotenv_values(directory: &Path, server: &mut Dict, unknown: &mut Vec<Unknown>) -> Result<(Dict, Vec<String>)> {
    let (mut values, mut seen, mut contradicted) = (Dict::new(), BTreeMap::new(), Vec::new());
    let Some(content) = read_if_there(directory, DOTENV)? else { return Ok((values, contradicted)) };
    for pair in dotenvy::from_read_iter(content.as_bytes()) {
        // The error quotes the line, which may hold a password, so only its number is shown.
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
        unknown.extend(Unknown::variable(&name, Origin::Dotenv));
        if value.trim().is_empty() {
            continue;
        }
        // Of several values, the first wins here, but the last in other programs. So this is
        // refused.
        let server_key = by_server_variable(&name);
        let is_own = server_key.is_some() || by_variable(&name).is_some();
        if is_own && seen.entry(name.clone()).or_insert_with(|| value.clone()) != &value && !contradicted.contains(&name) {
            contradicted.push(name.clone());
        }
        if let Some(key) = server_key {
            server.entry(key).or_insert_with(|| server_value(&value));
        } else if let Some(setting) = by_variable(&name).filter(|s| !values.contains_key(s.key)) {
            values.insert(setting.key.to_owned(), value.into());
        }
    }
    Ok((values, contradicted))
}

/// This program's table, the rest of the file, and names in the rest that probably belong in the
/// table.
fn rocket_table(directory: &Path) -> Result<(Dict, Map<Profile, Dict>, Vec<Unknown>)> {
    let Some(content) = read_if_there(directory, ROCKET_TOML)? else { return Ok((Dict::new(), Map::new(), Vec::new())) };
    // After the first line, the parser's message quotes the file, which may hold a password.
    let mut profiles = Toml::string(&content).nested().data().map_err(|e| {
        let first = e.kind.to_string().lines().next().unwrap_or_default().to_owned();
        Error::usage(format!("{ROCKET_TOML} cannot be read: {first}"))
    })?;
    let backup = profiles.get_mut(&Profile::Default).and_then(|default| default.remove("backup"));
    let misplaced = Unknown::misplaced(&profiles);
    // Remove this program's settings from all profiles: they may be passwords, which the server
    // need not see.
    profiles.values_mut().for_each(|profile| drop(profile.remove("backup")));
    let table = match backup {
        None => return Ok((Dict::new(), profiles, misplaced)),
        Some(Value::Dict(_, table)) => table,
        Some(_) => {
            return Err(Error::usage(format!("backup in {ROCKET_TOML}, [default], is not a table"))
                .hint("write a table [default.backup]"));
        }
    };
    for key in table.keys() {
        if !SETTINGS.iter().any(|s| s.key == key) {
            let known: Vec<_> = SETTINGS.iter().map(|s| s.key).collect();
            let meant = nearest(key, known.iter().copied()).map(|meant| format!("probably meant: {meant}; ")).unwrap_or_default();
            return Err(Error::usage(format!("{key:?} in {} is not a setting", Origin::Table.name()))
                .hint(format!("{meant}the settings are {}", known.join(", "))));
        }
    }
    let table = table.into_iter().filter(|(_, value)| !value.as_str().is_some_and(|v| v.trim().is_empty())).collect();
    Ok((table, profiles, misplaced))
}

fn read_if_there(directory: &Path, name: &str) -> Result<Option<String>> {
    let text = |bytes| String::from_utf8(bytes).map_err(|_| std::io::Error::new(IoKind::InvalidData, "it is not text in UTF-8"));
    match system::small_file(&directory.join(name)).and_then(text) {
        Ok(content) => Ok(Some(content)),
        Err(e) if e.kind() == IoKind::NotFound => Ok(None),
        Err(e) => Err(Error::usage(format!("{name} in the working directory cannot be read: {e}")).cause(e)),
    }
}
