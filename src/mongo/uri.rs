//! Connection strings, validated once and never shown with their credentials.

pub mod amend;
mod options;
mod wrong;

use std::collections::BTreeSet;
use std::sync::Mutex;

use mongodb::options::{ConnectionString, HostInfo, ServerAddress};

use self::options::{Trouble, Understood, understand};
use super::ReadPreference;
use crate::context::lock;
use crate::error::{Error, ErrorKind, Face, Result};

/// One of the two deployments. Messages use the names that users know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The deployment that backups are taken from: "Atlas".
    Source,
    /// The deployment that backups are restored to: "Local".
    Target,
}

impl Role {
    /// Its name in messages.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Source => "Atlas",
            Self::Target => "Local",
        }
    }

    /// The settings with its URI, for hints.
    #[must_use]
    pub(super) fn setting(self) -> &'static str {
        match self {
            Self::Source => "[[MONGO_URI_ATLAS (or source)]]",
            Self::Target => "[[MONGO_URI_LOCAL (or target)]]",
        }
    }

    /// The error of an operation that needs a URI that is not configured.
    #[must_use]
    pub fn not_configured(self) -> Error {
        Error::new(ErrorKind::NotConfigured, format!("{} MongoDB URI not configured", self.label())).hint(match self {
            Self::Source => "set [[MONGO_URI_ATLAS, or give source URI]]",
            Self::Target => "set [[MONGO_URI_LOCAL, or give target URI]]",
        })
    }
}

/// A valid connection string. `Display` and `Debug` show scheme, hosts and database only.
#[derive(Clone, PartialEq, Eq)]
pub struct MongoUri {
    /// As it was given.
    given: String,
    /// For the driver.
    text: String,
    shown: String,
    hosts: Vec<String>,
    database: Option<String>,
    role: Role,
    names_compressors: bool,
    names_selection_timeout: bool,
    preference: Option<ReadPreference>,
    any_hostname: bool,
    notes: Vec<String>,
}

impl MongoUri {
    /// Parses a connection string.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`]: `Invalid Atlas URI format` or `Invalid Local URI format`, with the
    /// unknown option. No value of the string is quoted, since it may hold a password.
    pub fn parse(role: Role, text: &str) -> Result<Self> {
        let given = text.trim().to_owned();
        let Understood { text, notes, names_compressors, any_hostname, .. } =
            understand(&given).map_err(|trouble| invalid(role, trouble, &given))?;
        // The driver's message is dropped: it quotes parts of the string, and an unescaped password
        // can end up in any of them.
        let parsed = ConnectionString::parse(&text).map_err(|_| invalid(role, Trouble::Somewhere, &given))?;
        let scheme = text.split_once("://").map_or("mongodb", |(scheme, _)| scheme);
        let hosts: Vec<String> = match &parsed.host_info {
            HostInfo::HostIdentifiers(hosts) => hosts.iter().map(host).collect(),
            HostInfo::DnsRecord(name) => vec![name.to_lowercase()],
            _ => Vec::new(),
        };
        let database = parsed.default_database.clone();
        let shown = format!("{scheme}://{}/{}", hosts.join(","), database.as_deref().unwrap_or(""));
        Ok(Self {
            shown,
            hosts,
            database,
            role,
            names_compressors,
            names_selection_timeout: parsed.server_selection_timeout.is_some(),
            preference: None,
            any_hostname,
            notes,
            given,
            text,
        })
    }

    /// The same with this read preference, whatever the string says.
    #[must_use]
    pub fn preferring(mut self, preference: ReadPreference) -> Self {
        self.preference = Some(preference);
        self
    }

    pub(super) fn preference(&self) -> Option<&ReadPreference> {
        self.preference.as_ref()
    }

    /// The same with what flags say about the deployment.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if that contradicts it.
    pub fn amended(&self, amendment: &amend::Amendment) -> Result<Self> {
        Self::parse(self.role, &amend::amended(&self.given, amendment)?)
    }

    /// The whole string, credentials included: for the driver only.
    pub(super) fn secret(&self) -> &str {
        &self.text
    }

    /// Its hosts, `host:port` in lower case; for an SRV string, its DNS name.
    #[must_use]
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// The database that its path selects. `admin` is often there for the login and selects none.
    #[must_use]
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref().filter(|d| *d != "admin" && !d.is_empty())
    }

    /// The deployment it leads to.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether it chooses the compression on the wire.
    #[must_use]
    pub fn names_compressors(&self) -> bool {
        self.names_compressors
    }

    pub(super) fn names_selection_timeout(&self) -> bool {
        self.names_selection_timeout
    }

    /// Whether a server's certificate may have another name.
    pub(super) fn takes_any_hostname(&self) -> bool {
        self.any_hostname
    }

    /// Whether its hosts are looked up by a DNS name.
    pub(super) fn is_srv(&self) -> bool {
        self.text.starts_with("mongodb+srv://")
    }

    /// The ignored parts, each with the reason.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Warns about the ignored parts, once each per process: the service connects every half
    /// minute.
    pub(super) fn tell_notes(&self) {
        static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        let setting = Face::Service.say(self.role.setting());
        for note in &self.notes {
            let note = format!("{setting}: {note}");
            if lock(&TOLD).insert(note.clone()) {
                tracing::warn!("{note}");
            }
        }
    }
}

impl std::fmt::Display for MongoUri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl std::fmt::Debug for MongoUri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MongoUri({})", self.shown)
    }
}

fn host(address: &ServerAddress) -> String {
    match address {
        ServerAddress::Tcp { host, port } => format!("{}:{}", host.to_lowercase(), port.unwrap_or(27017)),
        other => other.to_string(),
    }
}

fn invalid(role: Role, trouble: Trouble, given: &str) -> Error {
    let message = format!("Invalid {} URI format", role.label());
    match trouble {
        Trouble::Option(what, todo) => Error::usage(format!("{message}: the option {what}")).hint(todo),
        Trouble::Value(option) => Error::usage(format!("{message}: the option {option} has an invalid value"))
            .hint(format!("the option {option} has an invalid value{}", expected(&option))),
        Trouble::Port => Error::usage(format!("{message}: mongodb+srv takes no port"))
            .hint("mongodb+srv takes no port: DNS provides the ports; remove it, or write mongodb:// to name a server directly"),
        Trouble::Somewhere => match wrong::diagnose(given) {
            Some(wrong) => Error::usage(format!("{message}: {}", wrong.what)).hint(wrong.todo),
            None => Error::usage(message).hint(wrong::LOOKS_LIKE),
        },
    }
}

/// The valid values, unless the option's name already shows them.
fn expected(option: &str) -> &'static str {
    match option {
        "authMechanism" => {
            ": SCRAM-SHA-256, SCRAM-SHA-1, PLAIN and MONGODB-X509 are supported; Kerberos, AWS and OIDC are not supported"
        }
        "tls" | "ssl" => ", or contradicts another option: use true or false",
        _ => ", or contradicts another option",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Result<MongoUri> {
        MongoUri::parse(Role::Source, text)
    }

    #[test]
    fn the_path_selects_a_database_but_admin_selects_none() {
        assert_eq!(source("mongodb://h/shop?directConnection=true").unwrap().database(), Some("shop"));
        assert_eq!(source("mongodb://u:p@h/admin").unwrap().database(), None);
        assert_eq!(source("mongodb://h").unwrap().database(), None);
    }

    #[test]
    fn credentials_are_never_shown() {
        let uri = source("mongodb://user:secret@h1:1,h2:2/db?authSource=admin").unwrap();
        assert_eq!(uri.to_string(), "mongodb://h1:1,h2:2/db");
        assert!(!format!("{uri:?}").contains("secret"));
        for bad in [
            "mongodb://user:sec/ret@h1:1/db",
            "mongodb://user:secret?x@host/db",
            "mongodb://user:secret%40host/",
            "mongodb://user:1234?secret&cd@h",
            "mongodb://h/?authMechanismProperties=AWS_SESSION_TOKEN=secret",
        ] {
            let error = source(bad).unwrap_err();
            assert!(error.to_string().starts_with("Invalid Atlas URI format: "), "{error}");
            assert!(!format!("{error:?}").contains("ret"), "{bad}: {error:?}");
        }
    }

    #[test]
    fn what_does_not_parse_is_an_invalid_uri() {
        for bad in ["", "localhost", "http://h", "mongodb://", "mongodb://h:99999", "mongodb://h/?w=-1"] {
            let error = source(bad).unwrap_err();
            assert!(error.to_string().starts_with("Invalid Atlas URI format"), "{bad}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
        let error = MongoUri::parse(Role::Target, "nonsense").unwrap_err();
        assert!(error.to_string().starts_with("Invalid Local URI format"), "{error}");
    }

    #[test]
    fn a_socket_timeout_is_taken_out() {
        assert!(source("mongodb://h/?socketTimeoutMS=1000").is_ok());
        assert_eq!(source("mongodb://h/?w=1&socketTimeoutMS=5&journal=true").unwrap().secret(), "mongodb://h/?w=1&journal=true");
    }
}
