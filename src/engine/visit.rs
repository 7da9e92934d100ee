//! Works at a target for verbs that import nothing: connect, work, close.

use std::time::Instant;

use crate::clock;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::mongo::connect::ConnectOptions;
use crate::mongo::{Connection, MongoUri};
use crate::sink::Target;

/// Connections to the target.
const POOL: u32 = 8;

/// A target that is visited.
pub(super) struct Visit {
    pub(super) target: Target,
    begun: Instant,
}

impl Visit {
    /// Connects to a target.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`](crate::error::ErrorKind::Unreachable),
    /// [`ErrorKind::Denied`](crate::error::ErrorKind::Denied);
    /// [`ErrorKind::Interrupted`](crate::error::ErrorKind::Interrupted).
    pub(super) async fn begin(uri: &MongoUri, cx: &Context) -> Result<Self> {
        let begun = Instant::now();
        cx.progress.begin("looking at the target");
        let how = ConnectOptions { pool: POOL, selection_timeout: None };
        let connection = cx.unless_cancelled(Connection::open(uri, how)).await?;
        let version = cx.cancel.run_until_cancelled(connection.behaves_as()).await.ok_or_else(Error::interrupted)?;
        Ok(Self { target: Target::new(connection, version, cx), begun })
    }

    /// Closes the connection, whatever the result of the work. Also returns how long everything
    /// took, in milliseconds.
    ///
    /// # Errors
    /// Those of the work.
    pub(super) async fn end<T>(self, done: Result<T>) -> Result<(T, u64)> {
        self.target.connection.close().await;
        Ok((done?, clock::millis_since(self.begun)))
    }
}
