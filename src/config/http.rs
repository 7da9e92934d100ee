//! The HTTP server's own settings, layered as the server itself does: `rocket.toml` by profile, and
//! `ROCKET_*` over it. This module knows only the server's keys, not the server.

use std::net::IpAddr;

use figment::providers::Serialized;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Serialize;

use super::flags::Flags;
use super::places::Places;
use super::settings::ROCKET_TOML;
use crate::error::{Error, Result};

/// Variables that set how the server's settings are read, and are no settings themselves.
const ABOUT_READING: [&str; 2] = ["profile", "config"];

/// The defaults: every key that the server needs.
#[derive(Serialize)]
struct Defaults {
    address: &'static str,
    port: u16,
    workers: usize,
    max_blocking: usize,
    /// Off: answers do not name the server.
    ident: bool,
    /// Off: a client's address is that of its connection. With a header, any client could pretend
    /// to be another.
    ip_header: bool,
    limits: Limits,
    temp_dir: std::path::PathBuf,
    keep_alive: u32,
    log_level: &'static str,
    cli_colors: bool,
    shutdown: Shutdown,
}

#[derive(Serialize)]
struct Limits {
    json: &'static str,
}

#[derive(Serialize)]
struct Shutdown {
    grace: u32,
    mercy: u32,
    force: bool,
}

impl Defaults {
    fn of_this_machine() -> Self {
        Self {
            address: "127.0.0.1",
            port: 8000,
            workers: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            max_blocking: 512,
            ident: false,
            ip_header: false,
            limits: Limits { json: "1MiB" },
            temp_dir: std::env::temp_dir(),
            keep_alive: 5,
            log_level: "normal",
            cli_colors: false,
            shutdown: Shutdown { grace: 2, mercy: 3, force: true },
        }
    }
}

/// What no place can override. This program handles signals itself, because its jobs must end
/// before its server.
#[derive(Serialize)]
struct Forced {
    shutdown: NoSignals,
}

#[derive(Serialize)]
struct NoSignals {
    ctrlc: bool,
    signals: [&'static str; 0],
}

/// The values of one place, for figment.
struct Layer(&'static str, Map<Profile, Dict>);

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.0)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(self.1.clone())
    }
}

/// The server's settings: defaults, file, variables, flags.
pub(super) fn figment(places: &Places, flags: &Flags) -> Result<Figment> {
    let mut variables = places.server_variables.clone();
    let profile = variables.get("profile").and_then(Value::as_str).map(str::to_owned);
    for name in ABOUT_READING {
        variables.remove(name);
    }
    let usual = if cfg!(debug_assertions) { "debug" } else { "release" };
    Ok(Figment::from(Serialized::defaults(Defaults::of_this_machine()))
        .merge(Layer(ROCKET_TOML, places.server_table.clone()))
        .merge(Layer("ROCKET_ variables", Profile::Global.collect(variables)))
        .merge(Layer("the command line", Profile::Global.collect(flag_values(flags)?)))
        .merge(Serialized::globals(Forced { shutdown: NoSignals { ctrlc: false, signals: [] } }))
        .select(Profile::new(profile.as_deref().unwrap_or(usual))))
}

fn flag_values(flags: &Flags) -> Result<Dict> {
    let given = |value: &Option<String>| value.as_ref().map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
    let mut values = Dict::new();
    if let Some(address) = given(&flags.address) {
        let read: IpAddr = address.parse().map_err(|_| {
            Error::usage(format!("[[address]] is {address:?}: expected an IP address"))
                .hint("use 127.0.0.1 for this machine only, or 0.0.0.0 for all its addresses")
        })?;
        values.insert("address".to_owned(), read.to_string().into());
    }
    if let Some(port) = given(&flags.port) {
        let read: u16 = port.parse().map_err(|_| {
            Error::usage(format!("[[port]] is {port:?}: expected a whole number from 0 to {}", u16::MAX))
                .hint("0 takes a free port")
        })?;
        values.insert("port".to_owned(), read.into());
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::Config;
    use super::*;
    use crate::error::Face;

    fn read(toml: &str, dotenv: &str, environment: &[(&str, &str)], flags: &Flags) -> Figment {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(ROCKET_TOML), toml).unwrap();
        std::fs::write(directory.path().join(".env"), dotenv).unwrap();
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
        Config::load(directory.path(), environment, flags).unwrap().rocket()
    }

    fn server(toml: &str, dotenv: &str, environment: &[(&str, &str)], flags: &Flags) -> rocket::Config {
        rocket::Config::try_from(read(toml, dotenv, environment, flags)).unwrap()
    }

    #[test]
    fn the_defaults_are_complete_and_tell_clients_nothing() {
        let figment = read("", "", &[], &Flags::default());
        let config = rocket::Config::try_from(&figment).unwrap();
        assert_eq!((config.address, config.port), (Ipv4Addr::LOCALHOST.into(), 8000));
        assert_eq!(config.ip_header, None);
        assert_eq!(config.ident, rocket::config::Ident::none());
        assert_eq!(config.limits.get("json"), Some(rocket::data::ByteUnit::Mebibyte(1)));
        assert_eq!(config.log_level, rocket::config::LogLevel::Normal);
        assert!(!config.cli_colors && !config.tls_enabled());
        assert!(!config.shutdown.ctrlc && config.shutdown.signals.is_empty());
        assert_eq!(figment.profile(), if cfg!(debug_assertions) { "debug" } else { "release" });
    }

    #[test]
    fn the_file_counts_by_profile_and_variables_and_flags_beat_it() {
        let toml = "[default]\nport = 1\naddress = \"::1\"\nip_header = \"X-Real-IP\"\n[default.limits]\nfile = 7\n\
                    [debug]\nport = 2\n[release]\nport = 3\n[staging]\nport = 4\n[default.shutdown]\nctrlc = true\nsignals = [\"hup\"]\ngrace = 9\n\
                    [default.tls]\ncerts = \"a.pem\"\nkey = \"b.pem\"\n";
        let config = server(toml, "", &[], &Flags::default());
        assert_eq!(config.port, if cfg!(debug_assertions) { 2 } else { 3 });
        assert_eq!(config.address.to_string(), "::1");
        assert_eq!(config.ip_header.as_ref().map(|name| name.as_str()), Some("X-Real-IP"));
        assert_eq!(
            config.limits.get("json"),
            Some(rocket::data::ByteUnit::Mebibyte(1)),
            "keys that are not set keep their defaults"
        );
        assert_eq!(config.limits.get("file"), Some(7.into()));
        assert!(config.tls_enabled());
        assert!(!config.shutdown.ctrlc && config.shutdown.signals.is_empty(), "the server handles no signals");
        assert_eq!(config.shutdown.grace, 9);

        let staging = [("ROCKET_PROFILE", "staging")];
        assert_eq!(server(toml, "", &staging, &Flags::default()).port, 4);
        let dotenv = "ROCKET_PORT=5\nROCKET_PROFILE=staging\nROCKET_ADDRESS=\n";
        assert_eq!(server(toml, dotenv, &[], &Flags::default()).port, 5);
        let environment = [("ROCKET_PORT", "6"), ("rocket_limits", "{json=2}"), ("ROCKET_CONFIG", "other.toml")];
        let config = server(toml, dotenv, &environment, &Flags::default());
        assert_eq!((config.port, config.limits.get("json")), (6, Some(2.into())));
        let flags = Flags { port: Some("0".into()), address: Some("0.0.0.0".into()), ..Flags::default() };
        let config = server(toml, dotenv, &environment, &flags);
        assert_eq!((config.port, config.address), (0, Ipv4Addr::UNSPECIFIED.into()));
    }

    #[test]
    fn nothing_of_this_program_is_the_servers() {
        let toml = "[default.backup]\nmongo_uri_atlas = \"mongodb://u:secret@h\"\n[debug.backup]\npath = \"secret\"\n[global.backup]\npath = \"secret\"\n";
        let figment = read(toml, "MONGO_URI_LOCAL=mongodb://u:secret@h\n", &[("WEBHOOK_SECRET", "secret")], &Flags::default());
        assert!(figment.find_value("backup").is_err());
        assert!(!format!("{figment:?}").contains("secret"), "{figment:?}");
    }

    #[test]
    fn flags_that_cannot_be_are_refused() {
        let refused = |flags: &Flags| {
            let error = Config::load(tempfile::tempdir().unwrap().path(), [], flags).unwrap_err();
            error.told(Face::CommandLine).0
        };
        let flags = Flags { port: Some("65536".into()), ..Flags::default() };
        assert_eq!(refused(&flags), "--port is \"65536\": expected a whole number from 0 to 65535");
        let flags = Flags { address: Some("localhost".into()), ..Flags::default() };
        assert_eq!(refused(&flags), "--address is \"localhost\": expected an IP address");
    }
}
