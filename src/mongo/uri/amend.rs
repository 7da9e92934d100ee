//! Adds what flags say about a deployment to its URI, or refuses contradictions. Pure.

use crate::error::{Error, Result};

/// What flags say about a deployment. It holds passwords and is never shown.
#[derive(Clone, Default)]
pub struct Amendment {
    /// The hosts, `SET/HOST,HOST`.
    pub host: Option<String>,
    /// The port for hosts without one.
    pub port: Option<u16>,
    /// The user.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// Options.
    pub options: Vec<Addition>,
}

/// A URI option that a flag gives.
#[derive(Clone)]
pub struct Addition {
    /// Its name in the URI.
    pub option: &'static str,
    /// Its value.
    pub value: String,
    /// The flag.
    pub flag: &'static str,
    /// When to add it.
    pub when: When,
}

/// When to add an option to a URI that does not have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// In any case.
    Always,
    /// If the connection is encrypted: otherwise it has no meaning.
    Encrypted,
    /// If the URI names neither this option nor a database: that is where the login is looked up.
    NothingTells,
}

/// Synonyms in URIs for one option, in lower case. The last one is the canonical name.
const SYNONYMS: [&[&str]; 5] = [
    &["ssl", "tls"],
    &["sslcertificateauthorityfile", "sslcafile", "tlscafile"],
    &["sslclientcertificatekeyfile", "sslpemkeyfile", "tlscertificatekeyfile"],
    &["sslclientcertificatekeypassword", "sslpemkeypassword", "tlscertificatekeyfilepassword"],
    &["sslinsecure", "tlsinsecure"],
];

/// An option that may be given more than once.
const REPEATED: &str = "readpreferencetags";

/// The parts of a connection string, as written.
struct Parts<'a> {
    scheme: &'a str,
    login: Option<&'a str>,
    hosts: &'a str,
    path: &'a str,
    options: Vec<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once("://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, authority),
        };
        let options = query.split('&').filter(|option| !option.is_empty()).collect();
        Some(Self { scheme, login, hosts, path, options })
    }

    fn option(&self, name: &str) -> Option<&'a str> {
        let wanted = canonical(name);
        self.options.iter().filter_map(|o| o.split_once('=')).find(|(name, _)| canonical(name) == wanted).map(|(_, value)| value)
    }

    fn is_encrypted(&self) -> bool {
        match self.option("tls") {
            Some(value) => value == "true",
            None => self.scheme == "mongodb+srv" || self.option("tlsCAFile").or(self.option("tlsCertificateKeyFile")).is_some(),
        }
    }
}

/// The login in a complete connection string: the user, and whether there is a password.
#[must_use]
pub fn login(text: &str) -> Option<(String, bool)> {
    let login = Parts::of(text)?.login?;
    Some(login.split_once(':').map_or((decoded(login), false), |(name, password)| (decoded(name), !password.is_empty())))
}

/// The authentication mechanism in a connection string, if any.
#[must_use]
pub fn mechanism(text: &str) -> Option<String> {
    Parts::of(text)?.option("authMechanism").map(decoded)
}

/// The connection string with all of this added.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if the two contradict each other. No value
/// is quoted: some are secret.
pub fn amended(text: &str, amendment: &Amendment) -> Result<String> {
    // Parsing reports an invalid connection string.
    let Some(parts) = Parts::of(text) else { return Ok(text.to_owned()) };
    let hosts = hosts(&parts, amendment)?;
    let login = amended_login(&parts, amendment)?;
    let mut options: Vec<String> = parts.options.iter().map(|&option| option.to_owned()).collect();
    let set = amendment.host.as_deref().and_then(|host| host.split_once('/')).map(|(set, _)| set).filter(|set| !set.is_empty());
    let of_set = set.map(|set| Addition { option: "replicaSet", value: set.to_owned(), flag: "[[host]]", when: When::Always });
    let mut is_encrypted = parts.is_encrypted();
    for addition in of_set.iter().chain(&amendment.options) {
        let there = parts.option(addition.option).map(decoded);
        let wanted = match addition.when {
            When::Always => true,
            When::Encrypted => is_encrypted,
            When::NothingTells => there.is_none() && parts.path.is_empty() && !login.is_empty(),
        };
        is_encrypted |= wanted && canonical(addition.option) == "tls";
        match there {
            Some(there) if wanted && there != addition.value && canonical(addition.option) != REPEATED => {
                return Err(contradiction(addition.flag, &format!("{} in the URI", addition.option)));
            }
            Some(_) => {}
            None if wanted => options.push(format!("{}={}", addition.option, encoded(&addition.value))),
            None => {}
        }
    }
    let Parts { scheme, path, .. } = parts;
    let query = if options.is_empty() { String::new() } else { format!("?{}", options.join("&")) };
    Ok(format!("{scheme}://{login}{hosts}/{path}{query}"))
}

/// The hosts as in the URI, with the port added to those without one.
fn hosts(parts: &Parts<'_>, amendment: &Amendment) -> Result<String> {
    let is_dns = parts.scheme == "mongodb+srv";
    if let (true, Some(_)) = (is_dns, amendment.port) {
        return Err(Error::usage("[[port]] cannot be used with a mongodb+srv URI: DNS provides the ports").hint("omit [[port]]"));
    }
    let with_port = |host: &str, port: Option<u16>| match port {
        // An IPv6 address has colons itself, and is in brackets if a port follows.
        Some(port) if !host.rsplit(']').next().unwrap_or_default().contains(':') => format!("{host}:{port}"),
        _ => host.to_owned(),
    };
    let hosts: Vec<String> = parts.hosts.split(',').map(|host| with_port(host, amendment.port)).collect();
    let same = |host: &String| with_port(host, Some(27017).filter(|_| !is_dns)).to_lowercase();
    if let Some(port) = amendment.port
        && hosts.iter().any(|host| !host.ends_with(&format!(":{port}")))
    {
        return Err(contradiction("[[port]]", "the port in the URI"));
    }
    if let Some(given) = &amendment.host {
        let given = given.rsplit_once('/').map_or(given.as_str(), |(_, hosts)| hosts);
        let mut given: Vec<String> = given.split(',').map(|host| same(&with_port(host, amendment.port))).collect();
        let mut named: Vec<String> = hosts.iter().map(same).collect();
        given.sort();
        named.sort();
        if given != named && given != [""] {
            return Err(contradiction("[[host]]", "the hosts in the URI"));
        }
    }
    Ok(hosts.join(","))
}

/// `USER:PASSWORD@`, or nothing.
fn amended_login(parts: &Parts<'_>, amendment: &Amendment) -> Result<String> {
    let (name, password) = match parts.login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
        Some((name, password)) => (Some(name).filter(|n| !n.is_empty()), Some(password).filter(|p| !p.is_empty())),
        None => (None, None),
    };
    let contradicts = |there: Option<&str>, given: &Option<String>| {
        there.zip(given.as_ref()).is_some_and(|(there, given)| decoded(there) != *given)
    };
    if contradicts(name, &amendment.username) {
        return Err(contradiction("[[username]]", "the user in the URI"));
    }
    if contradicts(password, &amendment.password) {
        return Err(contradiction("[[password]]", "the password in the URI"));
    }
    let name = name.map(str::to_owned).or_else(|| amendment.username.as_deref().map(encoded));
    let password = password.map(str::to_owned).or_else(|| amendment.password.as_deref().map(encoded));
    match (name, password) {
        (Some(name), Some(password)) => Ok(format!("{name}:{password}@")),
        (Some(name), None) => Ok(format!("{name}@")),
        (None, Some(_)) => Err(Error::usage("[[password]] was given without a user").hint("give [[username]], too")),
        (None, None) => Ok(String::new()),
    }
}

fn contradiction(flag: &str, other: &str) -> Error {
    Error::usage(format!("{flag} and {other} differ")).hint("give only one of them")
}

fn canonical(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    let synonyms = SYNONYMS.iter().find(|names| names.contains(&name.as_str())).and_then(|names| names.last());
    synonyms.map_or(name.clone(), |&name| name.to_owned())
}

/// Encodes a text for a URI.
#[must_use]
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Decodes a text from a URI.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(hex.unwrap_or(bytes[at]));
        at += if hex.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Face;

    fn addition(option: &'static str, value: &str, when: When) -> Addition {
        Addition { option, value: value.to_owned(), flag: "[[password]]", when }
    }

    fn with(options: Vec<Addition>) -> Amendment {
        Amendment { options, ..Amendment::default() }
    }

    #[test]
    fn what_flags_say_is_put_into_the_uri() {
        let amendment = Amendment {
            username: Some("x@y".to_owned()),
            password: Some("p/w".to_owned()),
            port: Some(7),
            host: Some("rs/B:5,a".to_owned()),
            options: vec![addition("authSource", "shop", When::NothingTells), addition("tls", "true", When::Always)],
        };
        let uri = amended("mongodb://a,b:5", &Amendment { port: None, ..amendment.clone() }).unwrap();
        assert_eq!(uri, "mongodb://x%40y:p%2Fw@a,b:5/?replicaSet=rs&authSource=shop&tls=true");
        assert!(amended("mongodb://a,b:5", &amendment).unwrap_err().told(Face::CommandLine).0.contains("--port"));
        let uri = amended("mongodb://a,b:7/crm?ssl=true&replicaSet=rs", &Amendment { host: None, ..amendment }).unwrap();
        assert_eq!(uri, "mongodb://x%40y:p%2Fw@a:7,b:7/crm?ssl=true&replicaSet=rs");
        assert_eq!(amended("nonsense", &Amendment::default()).unwrap(), "nonsense");
    }

    #[test]
    fn what_only_matters_on_an_encrypted_connection_is_added_there_alone() {
        let insecure = with(vec![addition("tlsInsecure", "true", When::Encrypted)]);
        assert_eq!(amended("mongodb://a/", &insecure).unwrap(), "mongodb://a/");
        assert_eq!(amended("mongodb+srv://a/", &insecure).unwrap(), "mongodb+srv://a/?tlsInsecure=true");
        let both = with(vec![addition("tls", "true", When::Always), insecure.options[0].clone()]);
        assert_eq!(amended("mongodb://a/", &both).unwrap(), "mongodb://a/?tls=true&tlsInsecure=true");
    }

    #[test]
    fn what_contradicts_the_uri_is_refused_without_its_value() {
        let of = |username: &str, password: &str| Amendment {
            username: Some(username.to_owned()),
            password: Some(password.to_owned()),
            ..Amendment::default()
        };
        let host = |host: &str| Amendment { host: Some(host.to_owned()), ..Amendment::default() };
        for (uri, amendment, named) in [
            ("mongodb://u:p@a/", of("v", "p"), "--username"),
            ("mongodb://u:p@a/", of("u", "secret"), "--password"),
            ("mongodb://a,b/", host("a"), "--host"),
            ("mongodb://a/?replicaSet=r", host("s/a"), "--host"),
            ("mongodb://a/?ssl=false", with(vec![addition("tls", "true", When::Always)]), "--password"),
            ("mongodb://a/?authsource=x", with(vec![addition("authSource", "secret", When::Always)]), "--password"),
            ("mongodb+srv://a/", Amendment { port: Some(1), ..Amendment::default() }, "--port"),
            ("mongodb://a/", Amendment { password: Some("secret".to_owned()), ..Amendment::default() }, "--password"),
        ] {
            let error = amended(uri, &amendment).unwrap_err();
            assert!(error.told(Face::CommandLine).0.contains(named), "{uri}: {error}");
            assert!(!format!("{error:?}").contains("secret"), "{uri}: {error:?}");
        }
        assert_eq!(amended("mongodb://u%40:p@A:27017/", &of("u@", "p")).unwrap(), "mongodb://u%40:p@A:27017/");
        assert_eq!(amended("mongodb://A:27017/", &host("a")).unwrap(), "mongodb://A:27017/");
    }

    #[test]
    fn a_login_is_told_without_its_password() {
        assert_eq!(login("mongodb://a/"), None);
        assert_eq!(login("mongodb://u%40x@a/"), Some(("u@x".to_owned(), false)));
        assert_eq!(login("mongodb://u:p@a/"), Some(("u".to_owned(), true)));
        assert_eq!(mechanism("mongodb://u@a/?authmechanism=MONGODB-X509").as_deref(), Some("MONGODB-X509"));
    }
}
