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

/// Which of the two deployments is meant. The names in messages are those that users know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Where backups are taken from: "Atlas".
    Source,
    /// Where they are brought back to: "Local".
    Target,
}

impl Role {
    /// How messages name it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Source => "Atlas",
            Self::Target => "Local",
        }
    }

    /// Where its URI is said, for hints.
    #[must_use]
    pub(super) fn setting(self) -> &'static str {
        match self {
            Self::Source => "[[MONGO_URI_ATLAS (or source)]]",
            Self::Target => "[[MONGO_URI_LOCAL (or target)]]",
        }
    }

    /// The error of an operation that needs a URI where none is configured.
    #[must_use]
    pub fn not_configured(self) -> Error {
        Error::new(ErrorKind::NotConfigured, format!("{} MongoDB URI not configured", self.label())).hint(match self {
            Self::Source => "set [[MONGO_URI_ATLAS, or give source URI]]",
            Self::Target => "set [[MONGO_URI_LOCAL, or give target URI]]",
        })
    }
}

/// A connection string that parses. `Display` and `Debug` show scheme, hosts and database only.
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
    /// Reads a connection string.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`]: `Invalid Atlas URI format` or `Invalid Local URI format`, with the option that is not known, and no
    /// value of the string, which may hold a password.
    pub fn parse(role: Role, text: &str) -> Result<Self> {
        let given = text.trim().to_owned();
        let Understood { text, notes, names_compressors, any_hostname, .. } =
            understand(&given).map_err(|trouble| invalid(role, trouble, &given))?;
        // The driver's message is left out: it quotes parts of the string, and a password with a character that should have
        // been escaped ends up in any of them.
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

    /// The same with what else is said of the deployment.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] where that contradicts it.
    pub fn amended(&self, amendment: &amend::Amendment) -> Result<Self> {
        Self::parse(self.role, &amend::amended(&self.given, amendment)?)
    }

    /// The whole string, credentials included: for the driver alone.
    pub(super) fn secret(&self) -> &str {
        &self.text
    }

    /// The hosts it names, `host:port` in lower case; the one DNS name of an SRV string.
    #[must_use]
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// The one database that its path selects. `admin`, which is often there for the login, selects none.
    #[must_use]
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref().filter(|d| *d != "admin" && !d.is_empty())
    }

    /// Which deployment it leads to.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether it says which compression to use on the wire.
    #[must_use]
    pub fn names_compressors(&self) -> bool {
        self.names_compressors
    }

    pub(super) fn names_selection_timeout(&self) -> bool {
        self.names_selection_timeout
    }

    /// Whether the name in a server's certificate may be another one.
    pub(super) fn takes_any_hostname(&self) -> bool {
        self.any_hostname
    }

    /// Whether its hosts are looked up by a name of DNS.
    pub(super) fn is_srv(&self) -> bool {
        self.text.starts_with("mongodb+srv://")
    }

    /// What of it is left out of account, and why.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Warns of what is left out of account, of each once in a process: the service connects every half minute.
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
        Trouble::Value(option) => Error::usage(format!("{message}: the value of the option {option} is not possible"))
            .hint(format!("the value of the option {option} is not possible{}", expected(&option))),
        Trouble::Port => Error::usage(format!("{message}: mongodb+srv takes no port"))
            .hint("mongodb+srv takes no port: DNS tells the ports; take it out, or write mongodb:// to name a server itself"),
        Trouble::Somewhere => match wrong::diagnose(given) {
            Some(wrong) => Error::usage(format!("{message}: {}", wrong.what)).hint(wrong.todo),
            None => Error::usage(message).hint(wrong::LOOKS_LIKE),
        },
    }
}

/// What would be possible, where that is not told by the option's name.
fn expected(option: &str) -> &'static str {
    match option {
        "authMechanism" => {
            ": SCRAM-SHA-256, SCRAM-SHA-1, PLAIN and MONGODB-X509 are known; Kerberos, AWS and OIDC are not supported"
        }
        "tls" | "ssl" => ", or contradicts another option: true and false are known",
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
