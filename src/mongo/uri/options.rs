//! The options of a connection string: those for the driver, those of other clients, and unknown
//! ones.
//!
//! Values are never shown: any of them may hold a password.

use mongodb::options::ConnectionString;

use crate::names::nearest;

/// Options that the driver knows, by the names of the drivers' specification: first Booleans, then
/// others.
const TRUTHS: &str = "
    tls ssl tlsInsecure tlsAllowInvalidCertificates tlsAllowInvalidHostnames directConnection loadBalanced journal
    retryWrites retryReads enableOverloadRetargeting";
const KNOWN: &str = "
    appName authMechanism authMechanismProperties authSource compressors connectTimeoutMS heartbeatFrequencyMS
    localThresholdMS maxAdaptiveRetries maxConnecting maxIdleTimeMS maxPoolSize maxStalenessSeconds minPoolSize
    readConcernLevel readPreference readPreferenceTags replicaSet serverMonitoringMode serverSelectionTimeoutMS
    srvMaxHosts srvServiceName tlsCAFile tlsCertificateKeyFile tlsCertificateKeyFilePassword w waitQueueTimeoutMS
    wTimeoutMS zlibCompressionLevel";

/// Other names for them.
const ALIASES: [(&str, &str); 8] = [
    ("journal", "j"),
    ("wTimeoutMS", "wtimeout"),
    ("tlsInsecure", "sslInsecure"),
    ("tlsAllowInvalidCertificates", "sslAllowInvalidCertificates"),
    ("tlsAllowInvalidHostnames", "sslAllowInvalidHostnames sslInvalidHostNameAllowed"),
    ("tlsCAFile", "sslCAFile sslCertificateAuthorityFile ssl_ca_certs"),
    ("tlsCertificateKeyFile", "sslPEMKeyFile sslClientCertificateKeyFile ssl_certfile tlsCertificateFile sslCertificateKeyFile"),
    (
        "tlsCertificateKeyFilePassword",
        "sslPEMKeyPassword sslClientCertificateKeyPassword ssl_pem_passphrase sslCertificateKeyFilePassword",
    ),
];

/// Options with which other clients manage connections and convert values. They do not affect what
/// is copied.
const OTHERS: &str = "
    acceptableLatencyMS auto_reconnect autoReconnect bsonRegExp bufferMaxEntries canonicalizeHostname checkKeys connect
    connectTimeout connectWithNoPrimary datetime_conversion document_class domainsEnabled enableUtf8Validation family
    forceServerObjectId fsync guids ha haInterval heartbeatConnectTimeoutMS heartbeatFrequency heartbeatSocketTimeoutMS
    ignoreUndefined ipv6 keepAlive keepAliveInitialDelay keepAliveInitialDelayMS localThreshold loggerLevel maxIdleTime
    maxLifeTime maxLifeTimeMS minHeartbeatFrequencyMS monitorCommands monitoring noDelay numberOfRetries poolSize
    promoteBuffers promoteLongs promoteValues raw reconnectInterval reconnectTries retries safe
    secondaryAcceptableLatencyMS serializeFunctions serverApi serverSelectionTimeout serverSelectionTryOnce slaveOk
    socketCheckIntervalMS socketKeepAlive socketTimeout streamType threadsAllowedToBlockForConnectionMultiplier
    type_registry tz_aware tzAware tzinfo unicode_decode_error_handler unicodeDecodeErrorHandler useBigInt64
    useNewUrlParser useRecoveryToken useUnifiedTopology validateOptions waitQueueMultiple waitQueueSize waitQueueTimeout
    defaultauthdb driverInfo";

/// Options of other clients that are ignored, and why.
const IGNORED: [(&str, &str); 9] = [
    ("uuidRepresentation", "documents are copied unchanged"),
    ("timeoutMS", "each command has its own limit"),
    ("socketTimeoutMS", "each command has its own limit"),
    ("gssapiServiceName", "Kerberos is neither supported nor requested"),
    ("tlsUseSystemCA", "only the usual public CAs are trusted; name others with tlsCAFile"),
    ("tlsCRLFile", "certificate revocation is not checked"),
    ("sslCRL", "certificate revocation is not checked"),
    ("tlsDisableOCSPEndpointCheck", "certificate revocation is not checked"),
    ("tlsDisableCertificateRevocationCheck", "certificate revocation is not checked"),
];

/// Options that must not be ignored: what to do instead.
const REFUSED: [(&str, &str); 12] = [
    ("proxyHost", PROXY),
    ("proxyPort", PROXY),
    ("proxyUsername", PROXY),
    ("proxyPassword", PROXY),
    ("ssl_keyfile", ONE_FILE),
    ("tlsPrivateKeyFile", ONE_FILE),
    ("sslCert", ONE_FILE),
    ("sslKey", ONE_FILE),
    ("sslPass", ONE_FILE),
    ("sslCA", "name the CA's file with tlsCAFile"),
    ("autoEncryption", "encrypted fields are copied unchanged: remove it"),
    ("authMechanismCallback", "log in by user and password or by a certificate"),
];
const PROXY: &str = "proxies are not supported: open a tunnel (`ssh -L`) and connect to its local end";
const ONE_FILE: &str = "put certificate and key into one PEM file and name it with tlsCertificateKeyFile";

/// The compressors supported here.
const COMPRESSORS: [&str; 3] = ["zstd", "snappy", "zlib"];
/// Options that mean nothing if empty.
const MAY_BE_EMPTY: [&str; 6] = ["authSource", "replicaSet", "appName", "authMechanism", "readPreference", "readConcernLevel"];

/// A connection string in the driver's form, and the parts that are not for the driver.
#[derive(Debug, Default)]
pub(super) struct Understood {
    /// For the driver.
    pub(super) text: String,
    /// The ignored parts, each with the reason.
    pub(super) notes: Vec<String>,
    /// Whether it chooses the compression on the wire, or disables it.
    pub(super) names_compressors: bool,
    /// Whether a server's certificate may have another name.
    pub(super) any_hostname: bool,
    /// The options for the driver, by the names of the specification.
    options: Vec<(String, String)>,
}

/// Why a connection string is not understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// An unknown place: naming it might reveal a password.
    Somewhere,
    /// An unknown or unsupported option: which one, and what to do.
    Option(String, String),
    /// This option has an invalid value.
    Value(String),
    /// A host of `mongodb+srv` has a port.
    Port,
}

/// Parses a connection string, with its options separate.
///
/// # Errors
/// What is not understood.
pub(super) fn understand(text: &str) -> Result<Understood, Trouble> {
    let mut found = Understood::default();
    let (base, query) = text.split_once('?').unwrap_or((text, ""));
    let base = found.without_empty_user(base);
    if ConnectionString::parse(&base).is_err() {
        if is_srv_with_port(&base) {
            return Err(Trouble::Port);
        }
        // Perhaps a password with a question mark: the apparent options may be a part of it.
        return Err(Trouble::Somewhere);
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        found.take(pair, query)?;
    }
    found.join(&base);
    match ConnectionString::parse(&found.text) {
        Ok(_) => Ok(found),
        Err(_) => Err(found.culprit(&base)),
    }
}

impl Understood {
    /// The part before the options. A login without a name is removed.
    fn without_empty_user(&mut self, base: &str) -> String {
        let parts = base.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?)));
        match parts {
            Some((scheme, (user, hosts))) if user.is_empty() || user.starts_with(':') => {
                self.notes.push("the user's name is empty: no login is used".to_owned());
                format!("{scheme}://{hosts}")
            }
            _ => base.to_owned(),
        }
    }

    fn take(&mut self, pair: &str, query: &str) -> Result<(), Trouble> {
        let (given, value) = pair.split_once('=').ok_or(Trouble::Somewhere)?;
        let is = |name: &str| name.eq_ignore_ascii_case(given);
        if let Some((name, why)) = IGNORED.iter().find(|(name, _)| is(name)) {
            self.notes.push(format!("{name} is ignored: {why}"));
        } else if is("connect") && value.eq_ignore_ascii_case("direct") {
            // From C# and mgo.
            self.keep("directConnection", "true")?;
        } else if let Some(name) = listed(OTHERS, given) {
            self.notes.push(format!("{name} is ignored: it belongs to another client"));
        } else if given.len() > 3 && given.to_ascii_lowercase().starts_with("3t.") {
            let note = "options that begin with 3t. are ignored: they belong to Studio 3T";
            if !self.notes.iter().any(|said| said == note) {
                self.notes.push(note.to_owned());
            }
        } else if let Some((name, instead)) = REFUSED.iter().find(|(name, _)| is(name)) {
            return Err(Trouble::Option(format!("{name} is not supported"), (*instead).to_owned()));
        } else if is("ssl_cert_reqs") || is("sslValidate") || is("sslVerifyCertificate") {
            let lax = ["cert_none", "none", "false", "0"].contains(&value.to_ascii_lowercase().as_str());
            self.keep("tlsAllowInvalidCertificates", if lax { "true" } else { "false" })?;
        } else if is("ssl_match_hostname") || is("checkServerIdentity") {
            self.keep("tlsAllowInvalidHostnames", if truth(value) == "false" { "true" } else { "false" })?;
        } else {
            let alias = || ALIASES.iter().find(|(_, others)| listed(others, given).is_some()).map(|(name, _)| *name);
            let name = listed(TRUTHS, given).or_else(|| listed(KNOWN, given)).or_else(alias);
            match name {
                Some(name) => self.keep(name, value)?,
                None => return Err(unknown(given, pair, query)),
            }
        }
        Ok(())
    }

    /// Keeps an option for the driver.
    fn keep(&mut self, name: &str, value: &str) -> Result<(), Trouble> {
        let value = if listed(TRUTHS, name).is_some() { truth(value) } else { value.to_owned() };
        if value.is_empty() && MAY_BE_EMPTY.contains(&name) {
            self.notes.push(format!("{name} is ignored: it is empty"));
            return Ok(());
        }
        if name != "readPreferenceTags"
            && let Some((_, before)) = self.options.iter().find(|(known, _)| known == name)
        {
            return match *before == value {
                true => Ok(()),
                false => Err(Trouble::Option(format!("{name} is given twice"), "give it once".to_owned())),
            };
        }
        match name {
            // To other clients, this means no limit.
            "maxPoolSize" if value == "0" => {
                self.notes.push("maxPoolSize=0 is ignored: connections are opened as needed".to_owned());
                return Ok(());
            }
            "tlsCAFile" | "tlsCertificateKeyFile" if value.is_empty() => return Err(Trouble::Value(name.to_owned())),
            // Compass writes this if nothing was chosen: the server is asked.
            "authMechanism" if value.eq_ignore_ascii_case("DEFAULT") => return Ok(()),
            "compressors" => return self.keep_compressors(&value),
            "tlsAllowInvalidHostnames" => self.any_hostname = value == "true",
            _ => {}
        }
        self.options.push((name.to_owned(), value));
        Ok(())
    }

    fn keep_compressors(&mut self, value: &str) -> Result<(), Trouble> {
        self.names_compressors = true;
        let known = |name: &str| COMPRESSORS.iter().find(|known| known.eq_ignore_ascii_case(name.trim())).copied();
        let kept: Vec<&str> = value.split(',').filter_map(known).collect();
        if kept.len() < value.split(',').count() {
            let used = if kept.is_empty() { "none is used".to_owned() } else { format!("{} is used", kept.join(", ")) };
            self.notes.push(format!("compressors names some that are not supported: {used}"));
        }
        if !kept.is_empty() {
            self.options.push(("compressors".to_owned(), kept.join(",")));
        }
        Ok(())
    }

    /// Assembles the string for the driver. It does not know `tlsAllowInvalidHostnames`, which
    /// implies TLS all the same.
    fn join(&mut self, base: &str) {
        let is = |name: &'static str| self.options.iter().any(|(known, _)| known == name);
        let implies_tls = is("tlsAllowInvalidHostnames") && !is("tls") && !is("ssl");
        self.options.retain(|(name, _)| name != "tlsAllowInvalidHostnames");
        if implies_tls {
            self.options.push(("tls".to_owned(), "true".to_owned()));
        }
        self.text = written(base, &self.options);
    }

    /// The option for which the driver refuses the string, if a single one is the reason.
    fn culprit(&self, base: &str) -> Trouble {
        let parses = |options: &[(String, String)]| ConnectionString::parse(written(base, options)).is_ok();
        for at in 0..self.options.len() {
            let mut others = self.options.clone();
            let (name, _) = others.remove(at);
            if parses(&others) {
                return Trouble::Value(name);
            }
        }
        let alone = self.options.iter().find(|option| !parses(std::slice::from_ref(*option)));
        alone.map_or(Trouble::Somewhere, |(name, _)| Trouble::Value(name.clone()))
    }
}

/// The option of this name in a list, in any case.
fn listed(list: &'static str, given: &str) -> Option<&'static str> {
    list.split_whitespace().find(|name| name.eq_ignore_ascii_case(given))
}

/// Whether this is a `mongodb+srv` connection string whose host has a port.
fn is_srv_with_port(base: &str) -> bool {
    let Some(rest) = base.strip_prefix("mongodb+srv://") else { return false };
    let hosts = rest.rsplit_once('@').map_or(rest, |(_, hosts)| hosts);
    let host = hosts.split_once('/').map_or(hosts, |(host, _)| host);
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    host.rsplit_once(':').is_some_and(|(_, port)| is_port(port))
}

fn written(base: &str, options: &[(String, String)]) -> String {
    let pairs: Vec<String> = options.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if pairs.is_empty() { base.to_owned() } else { format!("{base}?{}", pairs.join("&")) }
}

/// What other clients accept as true and false; anything else unchanged.
fn truth(value: &str) -> String {
    match value.to_ascii_lowercase().as_str() {
        "true" | "t" | "1" | "yes" | "y" => "true".to_owned(),
        "false" | "f" | "0" | "-1" | "no" | "n" => "false".to_owned(),
        _ => value.to_owned(),
    }
}

/// The error of an unknown option. Its name is shown if it cannot be anything else.
fn unknown(given: &str, pair: &str, query: &str) -> Trouble {
    let is_name = given.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) && given.len() <= 64 && !given.is_empty();
    let is_login = query.contains('@') || pair.to_ascii_lowercase().contains("%40");
    if !is_name || is_login {
        return Trouble::Somewhere;
    }
    let known = [TRUTHS, KNOWN, OTHERS].into_iter().flat_map(str::split_whitespace);
    let known = known.chain(IGNORED.iter().map(|(name, _)| *name)).chain(REFUSED.iter().map(|(name, _)| *name));
    let hint = match nearest(given, known) {
        Some(meant) => format!("{meant} was probably meant"),
        None => "remove it if it belongs to another program".to_owned(),
    };
    Trouble::Option(format!("{given} is not known"), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Understood {
        understand(&format!("mongodb://h/?{query}")).unwrap_or_else(|e| panic!("{query}: {e:?}"))
    }

    #[test]
    fn what_other_clients_write_is_said_and_taken_out() {
        for query in [
            "uuidRepresentation=standard",
            "uuidRepresentation=unspecified",
            "timeoutMS=5000",
            "sockettimeoutms=5",
            "gssapiServiceName=mongodb",
            "3t.uriVersion=3&3t.connection.name=Prod&3t.databases=admin&3t.alwaysShowAuthDB=true",
            "useNewUrlParser=true",
            "useUnifiedTopology=true",
            "tlsUseSystemCA=true",
            "slaveOk=true",
            "waitQueueMultiple=5",
            "tz_aware=True",
            "compressors=disabled",
            "compressors=none",
            "replicaSet=",
            "maxPoolSize=0",
        ] {
            let found = read(query);
            assert_eq!((found.text.as_str(), found.notes.len()), ("mongodb://h/", 1), "{query}: {:?}", found.notes);
            let name = query.split('=').next().unwrap().split('.').next().unwrap().to_lowercase();
            assert!(found.notes[0].to_lowercase().contains(&name), "{query}: {:?}", found.notes);
            assert!(!found.notes[0].contains("Prod"), "{:?}", found.notes);
        }
        // These two mean nothing.
        assert!(read("authMechanism=DEFAULT&").notes.is_empty());
        assert_eq!(read("retryWrites=true&&retryWrites=true").text, "mongodb://h/?retryWrites=true");
    }

    #[test]
    fn other_names_and_other_truths_mean_the_same() {
        for (query, text) in [
            ("tls=1&directConnection=True", "tls=true&directConnection=true"),
            ("SSL=yes", "ssl=true"),
            ("ssl=true&ssl_cert_reqs=CERT_NONE", "ssl=true&tlsAllowInvalidCertificates=true"),
            ("ssl=true&ssl_ca_certs=rds.pem", "ssl=true&tlsCAFile=rds.pem"),
            (
                "sslCertificateAuthorityFile=ca.pem&sslClientCertificateKeyFile=me.pem",
                "tlsCAFile=ca.pem&tlsCertificateKeyFile=me.pem",
            ),
            ("connect=direct", "directConnection=true"),
            ("compressors=lz4,Zstd", "compressors=zstd"),
            ("tlsAllowInvalidHostnames=true", "tls=true"),
            ("tls=true&ssl_match_hostname=false", "tls=true"),
        ] {
            assert_eq!(read(query).text, format!("mongodb://h/?{text}"), "{query}");
        }
        assert!(read("sslInvalidHostNameAllowed=true").any_hostname && !read("tlsAllowInvalidHostnames=false").any_hostname);
        assert!(read("compressors=disabled").names_compressors && !read("w=1").names_compressors);
        for login in ["mongodb://@h/?w=1", "mongodb://:@h/?w=1", "mongodb://:secret@h/?w=1"] {
            let found = understand(login).unwrap();
            assert_eq!((found.text.as_str(), found.notes.len()), ("mongodb://h/?w=1", 1), "{login}");
        }
        // Azure writes this.
        assert_eq!(read("retrywrites=false&appName=@account@").notes.len(), 0);
    }

    #[test]
    fn what_is_not_known_is_named_and_a_password_never_is() {
        for (query, told, hint) in [
            ("retryWrite=true", "retryWrite is not known", "retryWrites was probably meant"),
            ("readPreferance=secondary", "readPreferance is not known", "readPreference was probably meant"),
            ("foo=bar", "foo is not known", "remove it"),
            ("proxyHost=p&proxyPort=1", "proxyHost is not supported", "tunnel"),
            ("ssl_certfile=a&ssl_keyfile=b", "ssl_keyfile is not supported", "one PEM file"),
            ("w=1&w=2", "w is given twice", "give it once"),
        ] {
            match understand(&format!("mongodb://u:p@h/?{query}")) {
                Err(Trouble::Option(found, what)) => assert!(found == told && what.contains(hint), "{query}: {found}; {what}"),
                other => panic!("{query}: {other:?}"),
            }
        }
        for (query, name) in [
            ("w=-1", "w"),
            ("tls=maybe", "tls"),
            ("retryWrites=true&connectTimeoutMS=soon&w=1", "connectTimeoutMS"),
            ("authMechanism=GSSAPI", "authMechanism"),
            ("tls=false&tlsCAFile=ca.pem", "tls"),
            ("tlsCAFile=", "tlsCAFile"),
        ] {
            assert_eq!(understand(&format!("mongodb://u:p@h/?{query}")).unwrap_err(), Trouble::Value(name.to_owned()), "{query}");
        }
        for (text, trouble) in [
            ("mongodb+srv://u:1@h.invalid:27017/?w=1", Trouble::Port),
            ("mongodb+srv://h:1", Trouble::Port),
            ("mongodb+srv://u:1@a,b/", Trouble::Somewhere),
        ] {
            assert_eq!(understand(text).unwrap_err(), trouble, "{text}");
        }
        for bad in [
            "mongodb://u:sec?ret=1@h/",
            "mongodb://u:1?ret@h/?w=1",
            "mongodb://u:1?ret=x%40h/",
            "mongodb://h/?secret",
            "mongodb://h/?sec%20ret=1",
            "mongodb://h:port/?foo=1",
        ] {
            let found = understand(bad).unwrap_err();
            assert!(!format!("{found:?}").contains("ret"), "{bad}: {found:?}");
        }
    }
}
