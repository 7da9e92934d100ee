//! Turns driver errors into this crate's errors: a kind, a message without noise, and what to do.

use mongodb::error::{Error as DriverError, ErrorKind as DriverKind};

use super::Role;
use crate::error::{Error, ErrorKind};
use crate::names::BUCKETS_PREFIX;

/// Codes of the server's own list (`src/mongo/base/error_codes.yml` of mongodb/mongo) that are
/// handled here.
pub mod code {
    /// A host could not be reached.
    pub const HOST_UNREACHABLE: i32 = 6;
    /// A right is missing.
    pub const UNAUTHORIZED: i32 = 13;
    /// The login was refused.
    pub const AUTHENTICATION_FAILED: i32 = 18;
    /// The namespace does not exist.
    pub const NAMESPACE_NOT_FOUND: i32 = 26;
    /// The server does not allow this on this namespace.
    pub const ILLEGAL_OPERATION: i32 = 20;
    /// The namespace exists already.
    pub const NAMESPACE_EXISTS: i32 = 48;
    /// The server has no such command.
    pub const COMMAND_NOT_FOUND: i32 = 59;
    /// The index does not exist.
    pub const INDEX_NOT_FOUND: i32 = 27;
    /// Another operation on the namespace is in progress.
    pub const CONFLICTING_OPERATION_IN_PROGRESS: i32 = 117;
    /// A majority did not confirm a write in time.
    pub const WRITE_CONCERN_FAILED: i32 = 64;
    /// The command does not apply to a view.
    pub const COMMAND_NOT_SUPPORTED_ON_VIEW: i32 = 166;
    /// An index of the namespace is being built.
    pub const BACKGROUND_OPERATION_IN_PROGRESS: i32 = 12587;
    /// The command has an option that the server does not accept.
    pub const INVALID_OPTIONS: i32 = 72;
    /// The document after which a scan was to continue does not exist any more.
    pub const KEY_NOT_FOUND: i32 = 211;
    /// A capped collection overwrote the position of a cursor.
    pub const CAPPED_POSITION_LOST: i32 = 136;
    /// The collection of an open cursor was dropped or renamed.
    pub const QUERY_PLAN_KILLED: i32 = 175;
    /// The snapshot is older than the history that the server keeps.
    pub const SNAPSHOT_TOO_OLD: i32 = 239;
    /// The collection or its catalog entry is newer than the snapshot.
    pub const SNAPSHOT_UNAVAILABLE: i32 = 246;
    /// There is no such transaction: it was ended.
    pub const NO_SUCH_TRANSACTION: i32 = 251;
    /// A transaction was open for longer than `transactionLifetimeLimitSeconds`.
    pub const TRANSACTION_TOO_OLD: i32 = 290;
    /// A transaction is too large to be logged.
    pub const TRANSACTION_TOO_LARGE: i32 = 257;
    /// A transaction is too large for the server's cache.
    pub const TRANSACTION_TOO_LARGE_FOR_CACHE: i32 = 388;
    /// The name belongs to another collection than the UUID.
    pub const COLLECTION_UUID_MISMATCH: i32 = 361;
    /// A time series bucket holds several types of measurement in one field, for which the
    /// collection has no flag.
    pub const MIXED_SCHEMA: i32 = 408;
    /// A duplicate key.
    pub const DUPLICATE_KEY: i32 = 11000;
}

/// The server's code of a failed command.
#[must_use]
pub fn code_of(error: &DriverError) -> Option<i32> {
    match error.kind.as_ref() {
        DriverKind::Command(command) => Some(command.code),
        _ => None,
    }
}

/// Whether trying again later may help: the network, an election, a cursor that the server lost, a
/// shutdown.
#[must_use]
pub fn is_transient(error: &DriverError) -> bool {
    if matches!(error.kind.as_ref(), DriverKind::Authentication { .. }) {
        // Every failure of a login has this kind; its cause shows what it was.
        return behind(error).is_some_and(is_transient);
    }
    match error.kind.as_ref() {
        // Errors from `command::invalid` are replies that will not get better.
        DriverKind::Io(io) => io.kind() != std::io::ErrorKind::InvalidData,
        DriverKind::ConnectionPoolCleared { .. } | DriverKind::ServerSelection { .. } => true,
        // Network, elections and shutdowns (the retryable codes of the drivers' specification), and
        // cursors and operations that a failover or an operator killed.
        DriverKind::Command(c) => is_transient_code(c.code),
        _ => error.contains_label("RetryableWriteError") || error.contains_label("TransientTransactionError"),
    }
}

/// Whether a connection broke, or the server could not answer just then. Not if no server was
/// found: the driver waited for that.
#[must_use]
pub fn is_break(error: &DriverError) -> bool {
    is_transient(error) && !matches!(error.kind.as_ref(), DriverKind::ServerSelection { .. })
}

/// The same for a code alone, for instance from a reply's `writeErrors`.
#[must_use]
pub fn is_transient_code(code: i32) -> bool {
    // Network, elections and shutdowns (the retryable codes of the drivers' specification), and
    // cursors and operations that a failover or an operator killed.
    const TRANSIENT: [i32; 22] =
        [6, 7, 43, 50, 63, 89, 91, 134, 150, 189, 234, 237, 262, 290, 9001, 10107, 11600, 11601, 11602, 13388, 13435, 13436];
    TRANSIENT.contains(&code)
}

/// This crate's error for a driver error, with the operation `what` in front: `what: message`.
#[must_use]
pub fn describe(role: Role, what: &str, error: DriverError) -> Error {
    let (side, grant) = match role {
        Role::Source => {
            ("source", "the role `backup`, or `readAnyDatabase` together with `clusterMonitor`; for one database `read` on it")
        }
        Role::Target => ("target", "the role `root`, or `restore` together with `readWriteAnyDatabase` and `dbAdminAnyDatabase`"),
    };
    let side_uri = role.setting();
    let described = match error.kind.as_ref() {
        DriverKind::Authentication { message, .. } if is_transient(&error) => {
            Error::new(ErrorKind::Unreachable, format!("{what}: the {side} broke off the login: {message}"))
                .hint("run it again once the deployment is stable")
        }
        DriverKind::Authentication { message, .. } => {
            Error::new(ErrorKind::Denied, format!("{what}: the {side} refuses the login: {message}")).hint(login(side_uri))
        }
        DriverKind::Command(c) if c.code == code::AUTHENTICATION_FAILED => {
            Error::new(ErrorKind::Denied, format!("{what}: the {side} refuses the login: {}", c.message)).hint(login(side_uri))
        }
        DriverKind::Command(c) if c.code == code::UNAUTHORIZED && c.message.contains("requires authentication") => {
            without_login(role, what)
        }
        DriverKind::Command(c) if c.code == code::UNAUTHORIZED && c.message.contains(BUCKETS_PREFIX) => Error::new(
            ErrorKind::Denied,
            format!("{what}: the {side} denies it: {}, in the buckets of a time series", shorten(&c.message)),
        )
        .hint(format!("roles on a database or on all collections do not cover system.buckets: {}", buckets(role))),
        DriverKind::Command(c) if c.code == code::UNAUTHORIZED => {
            Error::new(ErrorKind::Denied, format!("{what}: the {side} denies it: {}", shorten(&c.message)))
                .hint(format!("grant the user {grant}; `bsonvault check` shows which rights are missing"))
        }
        DriverKind::Command(c) => {
            Error::new(ErrorKind::Server, format!("{what}: {} (code {}, {})", c.message, c.code, c.code_name))
        }
        DriverKind::ServerSelection { message, .. } => {
            Error::new(ErrorKind::Unreachable, format!("{what}: the {side} does not answer: {}", why_unselected(message))).hint(
                format!("check that it runs, that this machine may reach it (firewall, Atlas IP access list), and {side_uri}"),
            )
        }
        DriverKind::Io(io) => Error::new(ErrorKind::Unreachable, format!("{what}: the connection to the {side} broke: {io}"))
            .hint("run it again once the network is stable"),
        DriverKind::DnsResolve { message, .. } if missing_record(message).is_some() => {
            let record = missing_record(message).unwrap_or_default();
            Error::new(ErrorKind::Unreachable, format!("{what}: DNS has no record {record}, which names the servers of mongodb+srv"))
                .hint(format!(
                    "check the host in {side_uri} and this machine's DNS; write mongodb:// instead of mongodb+srv:// if the host is a server"
                ))
        }
        DriverKind::DnsResolve { message, .. } => {
            Error::new(ErrorKind::Unreachable, format!("{what}: a name in the {side}'s URI cannot be resolved: {message}"))
                .hint(format!("check the host in {side_uri} and this machine's DNS"))
        }
        other => Error::new(ErrorKind::Server, format!("{what}: {other}")),
    };
    described.cause(error)
}

/// The name of the SRV record that DNS does not have, if a driver's DNS message is about that.
fn missing_record(message: &str) -> Option<&str> {
    let (_, name) = message.split_once("no records found")?.1.split_once("Name(\"")?;
    let (name, _) = name.split_once('"')?;
    name.starts_with("_mongodb._tcp.").then(|| name.trim_end_matches('.'))
}

/// The error of a server that requires a login that the URI does not have.
#[must_use]
pub fn without_login(role: Role, what: &str) -> Error {
    let side = if role == Role::Source { "source" } else { "target" };
    Error::new(ErrorKind::Denied, format!("{what}: the {side} requires authentication, and the URI names no user")).hint(format!(
        "write USER:PASSWORD@ in front of the host in {}, and ?authSource=DATABASE if the user was created in a database that is \
         not admin",
        role.setting()
    ))
}

/// How to grant rights on the buckets of time series.
#[must_use]
pub fn buckets(role: Role) -> &'static str {
    match role {
        Role::Source => {
            "grant `readAnyDatabase` or `backup` on admin, or a role of your own with find on {db: DATABASE, system_buckets: \"\"}, \
             or on {db: DATABASE, collection: \"system.buckets.NAME\"} for each time series"
        }
        Role::Target => {
            "grant `readWriteAnyDatabase` with `dbAdminAnyDatabase` on admin, or a role of your own with find, insert and dropCollection on \
             {db: DATABASE, system_buckets: \"\"}"
        }
    }
}

fn login(side_uri: &str) -> String {
    format!(
        "check user and password in {side_uri}, and authSource: the database that the user was created in; the default is the one \
         in the URI's path, or else admin"
    )
}

/// Whether an error of this crate has a transient driver error as its cause.
#[must_use]
pub fn is_passing(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<DriverError>());
    cause.is_some_and(is_transient)
}

fn behind(error: &DriverError) -> Option<&DriverError> {
    std::error::Error::source(error)?.downcast_ref()
}

/// What the driver met on each server, from its description of the topology. The whole message if
/// it names no servers.
fn why_unselected(message: &str) -> String {
    let servers = message.split("Address: ").skip(1).filter_map(|server| {
        let (address, rest) = server.split_once(',')?;
        let (_, error) = rest.split_once("Error: Kind: ")?;
        let error = error.split(", labels:").next()?;
        Some(format!("{address}: {error}"))
    });
    let met: Vec<String> = servers.collect();
    if met.is_empty() { shorten(message) } else { met.join("; ") }
}

/// The addresses of the servers that did not answer the driver.
pub(super) fn unselected(message: &str) -> impl Iterator<Item = &str> {
    message.split("Address: ").skip(1).filter_map(|server| {
        let (address, rest) = server.split_once(',')?;
        rest.trim_start().starts_with("Type: Unknown").then_some(address)
    })
}

/// The first part of a message, without the command or the topology it is about.
fn shorten(message: &str) -> String {
    let cut = message.find(" to execute command").unwrap_or(message.len());
    let text: String = message[..cut].chars().take(600).collect();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_dns_does_not_have_is_named_as_it_is_asked_for() {
        let of = |name: &str, kind: &str| {
            format!("no records found for Query {{ name: Name(\"{name}\"), query_type: {kind}, query_class: IN }}")
        };
        assert_eq!(missing_record(&of("_mongodb._tcp.a.invalid.", "SRV")), Some("_mongodb._tcp.a.invalid"));
        assert_eq!(missing_record(&of("a.invalid.", "A")), None);
        assert_eq!(missing_record("proto error: io error: timed out"), None);
    }

    #[test]
    fn what_was_met_on_each_server_is_told_without_the_topology() {
        let message = "Server selection timeout: No available servers. Topology: { Type: Unknown, Servers: [ { Address: a:1, Type: Unknown, \
                       Error: Kind: I/O error: Connection refused (os error 111), labels: {\"X\"}, source: None }, { Address: b:2, Type: Unknown, \
                       Error: Kind: I/O error: timed out, labels: {} } ] }";
        assert_eq!(why_unselected(message), "a:1: I/O error: Connection refused (os error 111); b:2: I/O error: timed out");
        assert_eq!(why_unselected("something else"), "something else");
        assert_eq!(unselected(message).collect::<Vec<_>>(), ["a:1", "b:2"]);
        assert_eq!(unselected("Servers: [ { Address: a:1, Type: RsSecondary, Tags: {} } ]").count(), 0);
    }
}
