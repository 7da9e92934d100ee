//! Finds out why a deployment does not answer, and what to do. Used after the driver gave up, since
//! it only reports what broke.

use std::sync::Arc;

use mongodb::error::{Error as DriverError, ErrorKind as DriverKind};
use mongodb::options::{ClientOptions, ServerAddress, Tls};

use super::failure::unselected;
use super::{MongoUri, probe, tls};
use crate::error::{Error, ErrorKind};

/// How many servers to look at.
const LOOKED_AT: usize = 3;
/// What to do if a server refuses clients without a certificate.
const ASKS_FOR_CERTIFICATE: &str =
    "if the server requires a client certificate, name a PEM file with the certificate and its key with tlsCertificateKeyFile";

/// The error of a failed connection, with what to do about it.
pub(super) async fn explain(uri: &MongoUri, options: &ClientOptions, error: Error) -> Error {
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<DriverError>());
    let Some(DriverKind::ServerSelection { message, .. }) = cause.map(|cause| cause.kind.as_ref()) else { return error };
    if let Some(other) = of_another_set(uri, options, message).await {
        return other;
    }
    match hint(uri, options, message).await {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

async fn hint(uri: &MongoUri, options: &ClientOptions, message: &str) -> Option<String> {
    let setting = uri.role().setting();
    let servers: Vec<ServerAddress> = unselected(message).filter_map(|address| ServerAddress::parse(address).ok()).collect();

    // 1. A refused certificate, on either side.
    if let Some(hint) = of_certificates(message) {
        return Some(format!("{hint}, in {setting}"));
    }

    // 2. TLS on one side only, or without the client certificate that the server requires.
    let anything = tls::anything();
    for server in servers.iter().take(LOOKED_AT) {
        let speaks_tls = match &anything {
            Some(config) => probe::speaks_tls(server, Arc::clone(config)).await,
            None => continue,
        };
        match &options.tls {
            Some(Tls::Enabled(tls)) if speaks_tls && tls.cert_key_file_path.is_none() => {
                return Some(format!(
                    "{server} speaks TLS and closes the connection: {ASKS_FOR_CERTIFICATE}, in {setting}; the server's log shows why"
                ));
            }
            Some(Tls::Enabled(_)) if !speaks_tls && probe::speaks_plain(server).await => {
                return Some(format!(
                    "{server} does not speak TLS: remove the TLS options from {setting}; mongodb+srv uses TLS unless tls=false is added"
                ));
            }
            Some(Tls::Enabled(_)) => {}
            _ if speaks_tls && !probe::speaks_plain(server).await => {
                return Some(format!(
                    "{server} speaks TLS: add tls=true to {setting}, and tlsCAFile=FILE if its certificate was not issued by a public CA"
                ));
            }
            _ => {}
        }
    }

    // 3. Names that only the members know.
    let is_named = |server: &ServerAddress| options.hosts.contains(server);
    if !servers.is_empty() && !servers.iter().any(is_named) {
        for host in options.hosts.iter().take(LOOKED_AT) {
            if probe::listens(host).await {
                let inner: Vec<String> = servers.iter().map(ToString::to_string).collect();
                let alone = if uri.is_srv() { "" } else { ", or add directConnection=true to talk to that host alone" };
                return Some(format!(
                    "{host} answers, and its replica set names its members {}, which cannot be reached from here: make these names known \
                     to this machine (DNS, /etc/hosts){alone}, in {setting}",
                    inner.join(", ")
                ));
            }
        }
    }

    // 4. What the network reports.
    of_the_network(message).map(|hint| format!("{hint}; the host is named in {setting}"))
}

/// The error of servers that belong to another replica set than the URI's. The driver drops them
/// without a message.
async fn of_another_set(uri: &MongoUri, options: &ClientOptions, message: &str) -> Option<Error> {
    let asked = options.repl_set_name.as_ref()?;
    let is_dropped = message.contains("Topology: {") && !message.contains("Address: ");
    if !is_dropped && !message.contains("does not match actual name") {
        return None;
    }
    let mut found = Vec::new();
    for host in options.hosts.iter().take(LOOKED_AT) {
        let Some(set) = probe::replica_set(host, options).await else { continue };
        found.push(match set {
            Some(set) if set == *asked => return None,
            Some(set) => format!("{host} belongs to the replica set {set:?}"),
            None => format!("{host} belongs to no replica set"),
        });
    }
    let setting = uri.role().setting();
    let what = match found.is_empty() {
        true => "no server belongs to the replica set that the URI names".to_owned(),
        false => format!("{}, but the URI asks for {asked:?}", found.join(", ")),
    };
    Some(
        Error::new(ErrorKind::Unreachable, format!("connecting to {uri}: {what}"))
            .hint(format!("correct replicaSet in {setting}, or remove it: the hosts report their set")),
    )
}

/// What to do about a network failure.
fn of_the_network(message: &str) -> Option<&'static str> {
    let says = |what: &str| message.contains(what);
    if says("failed to lookup address information") {
        Some("the name cannot be resolved: check its spelling, and this machine's DNS")
    } else if says("Connection refused") {
        Some("nothing listens there: check that it runs, its port, and that bindIp allows this machine")
    } else if says("Network is unreachable") || says("No route to host") {
        Some("this machine has no route to it: check its network, VPN and routes")
    } else {
        None
    }
}

/// What to do about a certificate.
fn of_certificates(message: &str) -> Option<&'static str> {
    let says = |what: &str| message.contains(what);
    if says("UnknownIssuer") || says("CaUsedAsEndEntity") {
        Some("the server's certificate was not issued by a trusted CA: name the file of its CA with tlsCAFile")
    } else if says("NotValidForName") || says("not valid for name") {
        Some(
            "the server's certificate is for another name: connect by a name in the certificate, or add tlsAllowInvalidHostnames=true",
        )
    } else if says("invalid peer certificate: Expired") || says("certificate expired") {
        Some("the server's certificate has expired: renew it, or check this machine's clock")
    } else if says("fatal alert: InternalError") || says("tlsv1 alert internal error") {
        Some(
            "the server aborts TLS with an internal error; Atlas does so if this machine's address is not in the IP access list of \
             the project: add it there, under Network Access, and check whether the cluster is paused",
        )
    } else if says("CertificateRequired") || says("HandshakeFailure") || says("CertificateUnknown") || says("BadCertificate") {
        Some(
            "the server requires a client certificate: name a PEM file with the certificate and its key with tlsCertificateKeyFile",
        )
    } else {
        None
    }
}
