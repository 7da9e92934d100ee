//! The flags by which MongoDB's own tools name a deployment, and the URI that they come to.

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

/// Ways to log in that have no password.
const WITHOUT_PASSWORD: [&str; 1] = ["MONGODB-X509"];

/// Ways to log in that are not there.
const NOT_SUPPORTED: [&str; 3] = ["GSSAPI", "MONGODB-AWS", "MONGODB-OIDC"];

/// Which deployment.
#[derive(Debug, clap::Args)]
#[command(rename_all = "camelCase")]
pub struct Deployment {
    /// The deployment; a connection string without --uri is the same [env: MONGO_URI_ATLAS for dump, MONGO_URI_LOCAL for restore] [default: mongodb://localhost:27017]
    #[arg(long, value_name = "URI")]
    uri: Option<String>,
    /// Its host, or SET/HOST,HOST for a replica set
    #[arg(short = 'h', long, value_name = "HOST")]
    host: Option<String>,
    /// Its port
    #[arg(long, value_name = "PORT")]
    port: Option<String>,
    /// The user
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// The user's password, which others can see in the list of processes; without it, it is asked for, or read from a line of standard input
    #[arg(short, long, value_name = "PASSWORD", num_args = 0..=1, default_missing_value = "")]
    password: Option<String>,
    /// The database that the user is in [default: the one in --db or in the URI's path, else admin]
    #[arg(long, value_name = "NAME")]
    authentication_database: Option<String>,
    /// How the user logs in: SCRAM-SHA-1, SCRAM-SHA-256, MONGODB-X509 or PLAIN
    #[arg(long, value_name = "NAME")]
    authentication_mechanism: Option<String>,
    /// A YAML file with any of password, uri and sslPEMKeyPassword: there nobody sees them in the list of processes
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Encrypt the connection
    #[arg(long, alias = "tls")]
    ssl: bool,
    /// The certificates of those who may certify the server
    #[arg(long = "sslCAFile", alias = "tlsCAFile", value_name = "FILE")]
    ssl_ca_file: Option<String>,
    /// The client's certificate and key
    #[arg(long = "sslPEMKeyFile", alias = "tlsCertificateKeyFile", value_name = "FILE")]
    ssl_pem_key_file: Option<String>,
    /// The password of that key; others can see it in the list of processes
    #[arg(long = "sslPEMKeyPassword", alias = "tlsCertificateKeyFilePassword", value_name = "PASSWORD")]
    ssl_pem_key_password: Option<String>,
    /// Take any certificate of the server
    #[arg(long, alias = "tlsAllowInvalidCertificates")]
    ssl_allow_invalid_certificates: bool,
    /// Take a certificate that names another host
    #[arg(long, alias = "tlsAllowInvalidHostnames")]
    ssl_allow_invalid_hostnames: bool,
    /// Check nothing of the server's certificate
    #[arg(long)]
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
    /// Say more on standard error: -v, -vvvv or --verbose=N
    #[arg(short, long, value_name = "LEVEL", num_args = 0..=1, require_equals = true, default_missing_value = "1", value_parser = level, action = ArgAction::Append)]
    verbose: Vec<u32>,
    /// Say nothing but errors
    #[arg(long)]
    quiet: bool,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Print version
    #[arg(long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// `-v=3`, and `v` for each further one.
fn level(text: &str) -> std::result::Result<u32, String> {
    let all_v = !text.is_empty() && text.bytes().all(|b| b == b'v');
    if all_v {
        Ok(u32::try_from(text.len()).unwrap_or(u32::MAX))
    } else {
        text.parse().map_err(|_| "a number is expected".to_owned())
    }
}

impl Deployment {
    /// The URI that the flags come to, with the one that stands by itself; none where nothing names a deployment. A password that is
    /// missing is asked for.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) where flags contradict each other or the URI, and for what is not supported.
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

    /// The configured deployment with what the flags say of how it is reached, where they name none.
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

    /// How much is to be said on standard error.
    pub(in crate::cli) fn verbosity(&self) -> u32 {
        if self.quiet { 0 } else { self.verbose.iter().fold(0, |all, level| all.saturating_add(*level)) }
    }

    /// Whether nothing is shown but errors.
    pub(in crate::cli) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Its flags that change nothing here.
    pub(in crate::cli) fn without_effect(&self) -> Vec<&'static str> {
        self.taken.without_effect()
    }

    /// The URI before anything is put into it.
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
        // One host is meant where one is named.
        let direct = if set.is_none() && hosts.len() == 1 { "?directConnection=true" } else { "" };
        Ok(Some(format!("mongodb://{}/{direct}", hosts.join(","))))
    }

    /// What the flags say beside the URI.
    fn amendment(&self, database: Option<&str>) -> Result<Amendment> {
        let secrets = self.secrets()?;
        let port = given(self.port.as_deref()).map(|port| {
            port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| Error::usage(format!("--port {port:?} is no port")))
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

    /// What the file says, read once: it may be a pipe of the shell's.
    fn secrets(&self) -> Result<Secrets> {
        let Some(file) = &self.config else { return Ok(Secrets::default()) };
        if let Some(read) = self.read.get() {
            return Ok(read.clone());
        }
        let secrets = secrets::read(file)?;
        Ok(self.read.get_or_init(|| secrets).clone())
    }
}

/// The connection string among arguments that stand by themselves, and the others.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) where there are two.
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

/// A value that says something: scripts give empty ones for what they leave out.
pub(in crate::cli) fn given(value: Option<&str>) -> Option<&str> {
    value.filter(|value| !value.is_empty())
}
