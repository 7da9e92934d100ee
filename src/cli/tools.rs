//! What `dump` and `restore` share: the flags by which MongoDB's own tools name a deployment, and errors that speak of their flags.

use clap::ArgAction;

use crate::error::{Error, Result};
use crate::names::NamespacePattern;

/// The deployment where nothing says otherwise, as with MongoDB's tools.
pub(super) const DEFAULT_URI: &str = "mongodb://localhost:27017";

/// Which deployment.
#[derive(Debug, clap::Args)]
#[command(rename_all = "camelCase")]
pub struct Deployment {
    /// The deployment [env: MONGO_URI_ATLAS for dump, MONGO_URI_LOCAL for restore] [default: mongodb://localhost:27017]
    #[arg(long, value_name = "URI", conflicts_with_all = ["host", "port", "username", "password", "authentication_database"])]
    uri: Option<String>,
    /// Its host, or SET/HOST,HOST for a replica set
    #[arg(short = 'h', long, value_name = "HOST")]
    host: Option<String>,
    /// Its port
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// The user
    #[arg(short, long, value_name = "NAME", requires = "password")]
    username: Option<String>,
    /// The user's password; others can see it in the list of processes
    #[arg(short, long, value_name = "PASSWORD", requires = "username")]
    password: Option<String>,
    /// The database that the user is in
    #[arg(long, value_name = "NAME", requires = "username")]
    authentication_database: Option<String>,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

impl Deployment {
    /// Its URI, where anything was said of it.
    pub(super) fn uri(&self) -> Option<String> {
        if self.uri.is_some() || (self.host.is_none() && self.port.is_none() && self.username.is_none()) {
            return self.uri.clone();
        }
        let (set, hosts) = match self.host.as_deref().unwrap_or("localhost").split_once('/') {
            Some((set, hosts)) => (Some(set), hosts),
            None => (None, self.host.as_deref().unwrap_or("localhost")),
        };
        let hosts: Vec<String> = hosts
            .split(',')
            .map(|host| match self.port {
                // An IPv6 address has colons of its own, and stands in brackets where a port follows.
                Some(port) if !host.rsplit(']').next().unwrap_or_default().contains(':') => format!("{host}:{port}"),
                _ => host.to_owned(),
            })
            .collect();
        let login = match (&self.username, &self.password) {
            (Some(name), Some(password)) => format!("{}:{}@", encoded(name), encoded(password)),
            _ => String::new(),
        };
        let options: Vec<String> = [("replicaSet", set), ("authSource", self.authentication_database.as_deref())]
            .into_iter()
            .filter_map(|(option, value)| Some(format!("{option}={}", encoded(value?))))
            .collect();
        // One host is meant where one is named.
        let direct = if set.is_none() && hosts.len() == 1 { vec!["directConnection=true".to_owned()] } else { Vec::new() };
        Some(format!("mongodb://{login}{}/?{}", hosts.join(","), [direct, options].concat().join("&")))
    }
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// The patterns of these texts.
pub(super) fn patterns(texts: &[String]) -> Result<Vec<NamespacePattern>> {
    texts.iter().map(|text| NamespacePattern::parse(text)).collect()
}

/// The error with a hint that speaks of the flags that there are: each of the first in place of the second. Longer ones come first.
pub(super) fn in_flags_of(flags: &[(&str, &str)], error: Error) -> Error {
    let Some(hint) = error.hint_text() else { return error };
    let hint = flags.iter().fold(hint.to_owned(), |hint, (there_is, other)| hint.replace(other, there_is));
    error.hint(hint)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(disable_help_flag = true)]
    struct Line {
        #[command(flatten)]
        deployment: Deployment,
    }

    fn uri(args: &[&str]) -> Option<String> {
        Line::try_parse_from(["x"].iter().chain(args)).unwrap().deployment.uri()
    }

    #[test]
    fn a_deployment_is_named_as_with_the_tools_of_mongodb() {
        assert_eq!(uri(&[]), None);
        assert_eq!(uri(&["--uri", "mongodb://a/"]).as_deref(), Some("mongodb://a/"));
        assert_eq!(uri(&["-h", "a"]).as_deref(), Some("mongodb://a/?directConnection=true"));
        assert_eq!(uri(&["--port", "7"]).as_deref(), Some("mongodb://localhost:7/?directConnection=true"));
        assert_eq!(uri(&["--host", "a:5", "--port", "7"]).as_deref(), Some("mongodb://a:5/?directConnection=true"));
        assert_eq!(uri(&["--host", "rs/a,b:5", "--port", "7"]).as_deref(), Some("mongodb://a:7,b:5/?replicaSet=rs"));
        assert_eq!(
            uri(&["-h", "a", "-u", "x@y", "-p", "p/w", "--authenticationDatabase", "admin"]).as_deref(),
            Some("mongodb://x%40y:p%2Fw@a/?directConnection=true&authSource=admin")
        );
        for bad in [&["--uri", "mongodb://a/", "-h", "b"][..], &["-u", "x"], &["-p", "x"]] {
            assert!(Line::try_parse_from(["x"].iter().chain(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hints_speak_of_the_flags_that_there_are() {
        let error = Error::usage("x").hint("choose --mode replace or merge, or --exclude it");
        let error = in_flags_of(&[("--drop", "--mode replace or merge"), ("--nsExclude", "--exclude")], error);
        assert_eq!(error.hint_text(), Some("choose --drop, or --nsExclude it"));
    }
}
