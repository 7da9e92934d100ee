//! Probes both deployments: whether they answer, what they are, and what they allow.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock;
use crate::config::Config;
use crate::engine::check;
use crate::error::{Error, ErrorKind, Face, Result};
use crate::mongo::connect::ConnectOptions;
use crate::mongo::rights::Rights;
use crate::mongo::{Connection, MongoUri};
use crate::source::discover;

/// How long to look for a server.
const SELECTION_TIMEOUT: Duration = Duration::from_millis(3500);
/// How long all requests to one deployment may take together.
const LIMIT: Duration = Duration::from_millis(4500);

/// Connections to both deployments, and their states.
#[derive(Debug)]
pub struct DualConnection {
    /// The source: open if `state.atlas.connected`.
    pub atlas: Option<Connection>,
    /// The target: open if `state.local.connected`.
    pub local: Option<Connection>,
    /// The states of both.
    pub state: DualState,
}

/// The states of both deployments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DualState {
    /// The source.
    pub atlas: ConnectionState,
    /// The target.
    pub local: ConnectionState,
}

/// The state of a deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionState {
    /// Whether a URI is configured for it.
    pub configured: bool,
    /// Whether it answered and accepted the login.
    pub connected: bool,
    /// The hosts in its URI, as `host:port`, comma-separated.
    #[schema(example = "localhost:27017")]
    pub host: Option<String>,
    /// The round trip of a small command, in milliseconds.
    pub latency_ms: Option<f64>,
    /// The server's version.
    #[schema(example = "6.0.5")]
    pub version: Option<String>,
    /// The topology: `standalone`, `replicaSet` or `sharded`.
    #[schema(example = "replicaSet")]
    pub topology: Option<String>,
    /// Whether all of it can be read at one snapshot time.
    pub can_snapshot: bool,
    /// Whether the login may read the oplog. A backup that outlives its snapshot needs it for a
    /// consistency point.
    pub can_read_oplog: bool,
    /// When it was probed.
    pub checked: DateTime<Utc>,
    /// Why it is not connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ConnectionError>,
}

/// Why a deployment is not connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionError {
    /// The kind of error, as in all errors.
    #[schema(example = "unreachable")]
    pub kind: String,
    /// What went wrong.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Connects to both deployments in parallel, within five seconds even if nothing answers. Errors
/// are in each deployment's state.
///
/// ```no_run
/// # async fn example() -> bsonvault::error::Result<()> {
/// use bsonvault::config::{Config, Flags};
/// use bsonvault::service::connect_dual_db;
///
/// let config = Config::load(".".as_ref(), std::env::vars_os(), &Flags::default())?;
/// let both = connect_dual_db(&config).await;
/// println!("source: {}, target: {}", both.state.atlas.connected, both.state.local.connected);
/// both.close().await;
/// # Ok(())
/// # }
/// ```
pub async fn connect_dual_db(config: &Config) -> DualConnection {
    let (atlas, local) = tokio::join!(connect(config.source()), connect(config.target()));
    DualConnection { atlas: atlas.0, local: local.0, state: DualState { atlas: atlas.1, local: local.1 } }
}

impl DualConnection {
    /// Closes both.
    pub async fn close(self) {
        for connection in [self.atlas, self.local].into_iter().flatten() {
            connection.close().await;
        }
    }
}

/// The states of deployments that could not be probed.
pub(super) fn unknown(config: &Config) -> DualState {
    let unknown = |uri: &Result<MongoUri>| {
        let mut state = unasked(uri);
        let error = Error::new(ErrorKind::Internal, "the connection was not tested: the service is shutting down");
        state.error = Some(ConnectionError::from(&error));
        state
    };
    DualState { atlas: unknown(&config.source()), local: unknown(&config.target()) }
}

fn unasked(uri: &Result<MongoUri>) -> ConnectionState {
    ConnectionState {
        configured: !matches!(uri, Err(e) if e.kind() == ErrorKind::NotConfigured),
        connected: false,
        host: uri.as_ref().ok().map(|uri| uri.hosts().join(",")),
        latency_ms: None,
        version: None,
        topology: None,
        can_snapshot: false,
        can_read_oplog: false,
        checked: clock::now(),
        error: None,
    }
}

impl From<&Error> for ConnectionError {
    fn from(error: &Error) -> Self {
        let (message, hint) = error.told(Face::Service);
        Self { kind: error.kind().name().to_owned(), message, hint }
    }
}

async fn connect(uri: Result<MongoUri>) -> (Option<Connection>, ConnectionState) {
    let mut state = unasked(&uri);
    let reached = async {
        let uri = uri?;
        tokio::time::timeout(LIMIT, reach(&uri)).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Unreachable, format!("{uri} answers too slowly: nothing within {} ms", LIMIT.as_millis()))
                .hint("check the network and the load of the server"))
        })
    }
    .await;
    match reached {
        Ok((connection, latency, rights)) => {
            state.connected = true;
            // To the microsecond.
            state.latency_ms = Some((latency.as_secs_f64() * 1e6).round() / 1000.0);
            state.version = Some(connection.version.to_string());
            state.topology = serde_json::to_value(connection.topology).ok().and_then(|t| t.as_str().map(str::to_owned));
            state.can_snapshot = discover::can_snapshot(&connection);
            state.can_read_oplog = check::can_read_oplog(&connection, &rights);
            (Some(connection), state)
        }
        Err(error) => {
            state.error = Some(ConnectionError::from(&error));
            (None, state)
        }
    }
}

async fn reach(uri: &MongoUri) -> Result<(Connection, Duration, Rights)> {
    let how = ConnectOptions { pool: 1, selection_timeout: Some(SELECTION_TIMEOUT) };
    let connection = Connection::open(uri, how).await?;
    let latency = connection.round_trip().await?;
    let rights = Rights::ask(&connection).await?;
    Ok((connection, latency, rights))
}
