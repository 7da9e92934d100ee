//! The connection flags of MongoDB's tools, and the URI that they amount to.

use std::path::PathBuf;
use std::sync::OnceLock;

use clap::ArgAction;

use super::secrets::{self, Secrets};
use super::{password, taken};
use crate::error::{Error, Result};
use crate::mongo::MongoUri;
use crate::mongo::uri::amend::{self, Addition, Amendment, When};

/// How a connection string begins.
const SCHEMES: [&str; 2] = ["mongodb://", "mongodb+srv://"];

/// Login mechanisms without a password.
const WITHOUT_PASSWORD: [&str; 1] = ["MONGODB-X509"];

/// Login mechanisms that are not supported.
const NOT_SUPPORTED: [&str; 3] = ["GSSAPI", "MONGODB-AWS", "MONGODB-OIDC"];

/// Which deployment.
#[derive(Debug, clap::Args)]
#[command(rename_all = "camelCase")]
pub struct Deployment {
    /// The deployment's connection string; --uri may be omitted [env: MONGO_URI_ATLAS for dump,
    /// MONGO_URI_LOCAL for restore] [default: mongodb://localhost:27017]
    #[arg(help_heading = "Connection", long, value_name = "URI")]
    uri: Option<String>,
    /// The host, or SET/HOST,HOST for a replica set
    #[arg(help_heading = "Connection", short = 'h', long, value_name = "HOST")]
    host: Option<String>,
    /// The port
    #[arg(help_heading = "Connection", long, value_name = "PORT")]
    port: Option<String>,
    /// The user
    #[arg(help_heading = "Connection", short, long, value_name = "NAME")]
    username: Option<String>,
    /// The user's password. Other users of this machine can see it in the list of processes.
    /// Without a value, it is asked for, or read from a line of standard input
    #[arg(help_heading = "Connection", short, long, value_name = "PASSWORD", num_args = 0..=1, default_missing_value = "")]
    password: Option<String>,
    /// The database that defines the user [default: --db or the database in the URI, else admin]
    #[arg(help_heading = "Connection", long, value_name = "NAME")]
    authentication_database: Option<String>,
    /// How the user logs in: SCRAM-SHA-1, SCRAM-SHA-256, MONGODB-X509 or PLAIN
    #[arg(help_heading = "Connection", long, value_name = "NAME")]
    authentication_mechanism: Option<String>,
    /// A YAML file with password, uri or sslPEMKeyPassword, which keeps them out of the list of
    /// processes
    #[arg(help_heading = "Connection", long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Use TLS
    #[arg(help_heading = "Connection", long, alias = "tls")]
    ssl: bool,
    /// The certificates of the authorities that may certify the server
    #[arg(help_heading = "Connection", long = "sslCAFile", alias = "tlsCAFile", value_name = "FILE")]
    ssl_ca_file: Option<String>,
    /// The client's certificate and key
    #[arg(help_heading = "Connection", long = "sslPEMKeyFile", alias = "tlsCertificateKeyFile", value_name = "FILE")]
    ssl_pem_key_file: Option<String>,
    /// The password of the client's key. Other users of this machine can see it in the list of
    /// processes
    #[arg(
        help_heading = "Connection",
        long = "sslPEMKeyPassword",
        alias = "tlsCertificateKeyFilePassword",
        value_name = "PASSWORD"
    )]
    ssl_pem_key_password: Option<String>,
    /// Accept any certificate of the server
    #[arg(help_heading = "Connection", long, alias = "tlsAllowInvalidCertificates")]
    ssl_allow_invalid_certificates: bool,
    /// Accept a certificate that names another host
    #[arg(help_heading = "Connection", long, alias = "tlsAllowInvalidHostnames")]
    ssl_allow_invalid_hostnames: bool,
    /// Don't check the server's certificate
    #[arg(help_heading = "Connection", long)]
    tls_insecure: bool,
    /// Seconds that a connection may take
    #[arg(long, value_name = "SECONDS", hide = true)]
    dial_timeout: Option<u32>,
    /// Seconds that a server is looked for
    #[arg(long, value_name = "SECONDS", hide = true)]
    server_selection_timeout: Option<u32>,
    /// Compression on the wire
    #[arg(long, value_name = "NAMES", hide = true)]
    compressors: Option<String>,
    #[command(flatten)]
    taken: taken::Common,
    #[arg(skip)]
    read: OnceLock<Secrets>,
    /// Log more on standard error: -v, -vvvv or --verbose=N
    #[arg(short, long, value_name = "LEVEL", num_args = 0..=1, require_equals = true, default_missing_value = "1", value_parser = level, action = ArgAction::Append)]
    verbose: Vec<u32>,
    /// Print only errors
    #[arg(long)]
    quiet: bool,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Print version
    #[arg(long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// The level of `-v=3`, or of `-vvv`, which clap passes as `vv`.
fn level(text: &str) -> std::result::Result<u32, String> {
    let all_v = !text.is_empty() && text.bytes().all(|b| b == b'v');
    if all_v {
        Ok(u32::try_from(text.len()).unwrap_or(u32::MAX))
    } else {
        text.parse().map_err(|_| "expected a number".to_owned())
    }
}

impl Deployment {
    /// The URI that the flags and the positional URI amount to. `None` if they name no deployment.
    /// Asks for a missing password.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if flags contradict each other or the
    /// URI, or are not supported.
    pub(in crate::cli) fn uri(&self, positional: Option<&str>, database: Option<&str>) -> Result<Option<String>> {
        self.taken.refuse()?;
        let mut amendment = self.amendment(database)?;
        let Some(base) = self.base(positional)? else { return Ok(None) };
        let (there, has_password) = amend::login(&base).map_or((None, false), |(name, has)| (Some(name), has));
        let user = given(self.username.as_deref()).or(there.as_deref().filter(|name| !name.is_empty()));
        let mechanism = self.mechanism().map(str::to_owned).or_else(|| amend::mechanism(&base)).unwrap_or_default();
        let has_none = WITHOUT_PASSWORD.iter().any(|way| mechanism.eq_ignore_ascii_case(way));
        if let (Some(user), false, None, false) = (user, has_password, &amendment.password, has_none) {
            amendment.password = Some(password::ask(user)?);
        }
        amend::amended(&base, &amendment).map(Some)
    }

    /// The configured deployment. If the flags name none, with the connection options of the flags.
    ///
    /// # Errors
    /// As for [`uri`](Self::uri).
    pub(in crate::cli) fn beside(&self, uri: MongoUri, positional: Option<&str>) -> Result<MongoUri> {
        if self.base(positional)?.is_some() {
            return Ok(uri);
        }
        let amendment = self.amendment(None)?;
        if amendment.options.is_empty() && amendment.password.is_none() { Ok(uri) } else { uri.amended(&amendment) }
    }

    /// How verbose the log on standard error is.
    pub(in crate::cli) fn verbosity(&self) -> u32 {
        if self.quiet { 0 } else { self.verbose.iter().fold(0, |all, level| all.saturating_add(*level)) }
    }

    /// Whether only errors are shown.
    pub(in crate::cli) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Its given flags that have no effect.
    pub(in crate::cli) fn without_effect(&self) -> Vec<&'static str> {
        self.taken.without_effect()
    }

    /// The URI before options are added to it.
    fn base(&self, positional: Option<&str>) -> Result<Option<String>> {
        let secrets = self.secrets()?;
        let uri = given(self.uri.as_deref());
        if uri.is_some() && positional.is_some() {
            return Err(Error::usage("a connection string and --uri were both given").hint("give only one of them"));
        }
        if let Some(uri) = uri.or(positional).or(secrets.uri.as_deref()) {
            return Ok(Some(uri.to_owned()));
        }
        let (host, port, user) = (given(self.host.as_deref()), given(self.port.as_deref()), given(self.username.as_deref()));
        if host.is_none() && port.is_none() && user.is_none() {
            return Ok(None);
        }
        let host = host.unwrap_or("localhost");
        let (set, hosts) = host.split_once('/').map_or((None, host), |(set, hosts)| (Some(set), hosts));
        let hosts: Vec<&str> = hosts.split(',').map(|host| if host.is_empty() { "localhost" } else { host }).collect();
        // A single host means that host only, and not the set that it may belong to.
        let direct = if set.is_none() && hosts.len() == 1 { "?directConnection=true" } else { "" };
        Ok(Some(format!("mongodb://{}/{direct}", hosts.join(","))))
    }

    /// What the flags add to the URI.
    fn amendment(&self, database: Option<&str>) -> Result<Amendment> {
        let secrets = self.secrets()?;
        let port = given(self.port.as_deref()).map(|port| {
            port.parse::<u16>()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| Error::usage(format!("--port is {port:?}: expected a whole number from 1 to 65535")))
        });
        let mut amendment = Amendment {
            host: given(self.host.as_deref()).map(str::to_owned),
            port: port.transpose()?,
            username: given(self.username.as_deref()).map(str::to_owned),
            password: given(self.password.as_deref()).map(str::to_owned).or(secrets.password),
            options: Vec::new(),
        };
        let mut add = |flag, option, value: &str, when| {
            amendment.options.push(Addition { option, value: value.to_owned(), flag, when });
        };
        if let Some(mechanism) = self.mechanism() {
            if NOT_SUPPORTED.iter().any(|way| mechanism.eq_ignore_ascii_case(way)) {
                return Err(Error::usage(format!("--authenticationMechanism {mechanism} is not supported"))
                    .hint("log in with SCRAM-SHA-256, SCRAM-SHA-1, MONGODB-X509 or PLAIN"));
            }
            add("--authenticationMechanism", "authMechanism", mechanism, When::Always);
        }
        if let Some(source) = given(self.authentication_database.as_deref()) {
            add("--authenticationDatabase", "authSource", source, When::Always);
        } else if let (Some(database), Some(_), None) = (database, given(self.username.as_deref()), self.mechanism()) {
            add("--db", "authSource", database, When::NothingTells);
        }
        let certificates = [
            ("--sslCAFile", "tlsCAFile", self.ssl_ca_file.as_deref()),
            ("--sslPEMKeyFile", "tlsCertificateKeyFile", self.ssl_pem_key_file.as_deref()),
            (
                "--sslPEMKeyPassword",
                "tlsCertificateKeyFilePassword",
                self.ssl_pem_key_password.as_deref().or(secrets.key_password.as_deref()),
            ),
        ];
        if self.ssl || certificates.iter().take(2).any(|(_, _, value)| given(*value).is_some()) {
            add("--ssl", "tls", "true", When::Always);
        }
        for (flag, option, value) in certificates {
            if let Some(value) = given(value) {
                add(flag, option, value, When::Encrypted);
            }
        }
        for (flag, option, is_set) in [
            ("--sslAllowInvalidCertificates", "tlsAllowInvalidCertificates", self.ssl_allow_invalid_certificates),
            ("--sslAllowInvalidHostnames", "tlsAllowInvalidHostnames", self.ssl_allow_invalid_hostnames),
            ("--tlsInsecure", "tlsInsecure", self.tls_insecure),
        ] {
            if is_set {
                add(flag, option, "true", When::Encrypted);
            }
        }
        let milliseconds = |seconds: Option<u32>| seconds.filter(|s| *s > 0).map(|s| (u64::from(s) * 1000).to_string());
        for (flag, option, value) in [
            ("--dialTimeout", "connectTimeoutMS", milliseconds(self.dial_timeout)),
            ("--serverSelectionTimeout", "serverSelectionTimeoutMS", milliseconds(self.server_selection_timeout)),
            ("--compressors", "compressors", self.compressors.clone().filter(|names| !names.is_empty() && names != "none")),
        ] {
            if let Some(value) = value {
                add(flag, option, &value, When::Always);
            }
        }
        Ok(amendment)
    }

    fn mechanism(&self) -> Option<&str> {
        given(self.authentication_mechanism.as_deref())
    }

    /// The secrets in the file. It is read only once, because it may be a pipe of the shell.
    fn secrets(&self) -> Result<Secrets> {
        let Some(file) = &self.config else { return Ok(Secrets::default()) };
        if let Some(read) = self.read.get() {
            return Ok(read.clone());
        }
        let secrets = secrets::read(file)?;
        Ok(self.read.get_or_init(|| secrets).clone())
    }
}

/// The connection string among the positional arguments, and the others.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if there are two.
pub(in crate::cli) fn positional(arguments: &[String]) -> Result<(Option<&str>, Vec<&str>)> {
    let is_uri = |argument: &&str| SCHEMES.iter().any(|scheme| argument.starts_with(scheme));
    let (uris, others): (Vec<&str>, Vec<&str>) =
        arguments.iter().map(String::as_str).filter(|argument| !argument.is_empty()).partition(is_uri);
    match uris.as_slice() {
        [] => Ok((None, others)),
        [uri] => Ok((Some(uri), others)),
        _ => Err(Error::usage("two connection strings were given").hint("give only one of them")),
    }
}

/// The value, unless it is empty: scripts pass empty values for what they omit.
pub(in crate::cli) fn given(value: Option<&str>) -> Option<&str> {
    value.filter(|value| !value.is_empty())
}
