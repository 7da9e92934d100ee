//! Work at a target by verbs that import nothing: connect, work, close.

use std::time::Instant;

use crate::clock;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::mongo::connect::ConnectOptions;
use crate::mongo::{Connection, MongoUri};
use crate::sink::Target;

/// Connections to the target.
const POOL: u32 = 8;

/// Connects to a target, does this work there, and closes the connection whatever comes of it. Gives how long it took, in milliseconds,
/// too.
///
/// # Errors
/// [`ErrorKind::Unreachable`](crate::error::ErrorKind::Unreachable), [`ErrorKind::Denied`](crate::error::ErrorKind::Denied); the work's;
/// [`ErrorKind::Interrupted`](crate::error::ErrorKind::Interrupted).
pub(super) async fn target<T>(uri: &MongoUri, cx: &Context, work: impl AsyncFnOnce(&Target) -> Result<T>) -> Result<(T, u64)> {
    let begun = Instant::now();
    cx.progress.begin("looking at the target");
    let how = ConnectOptions { pool: POOL, selection_timeout: None };
    let connection = cx.unless_cancelled(Connection::open(uri, how)).await?;
    let version = cx.cancel.run_until_cancelled(connection.behaves_as()).await.ok_or_else(Error::interrupted)?;
    let target = Target::new(connection, version, cx);
    let done = work(&target).await;
    target.connection.close().await;
    Ok((done?, clock::millis_since(begun)))
}
