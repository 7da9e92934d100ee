//! Runs raw commands with their own limits, because the driver has no timeout for commands.

use std::time::Duration;

use bson::{Bson, Document, RawDocument, RawDocumentBuf};
use futures::TryStreamExt as _;
use mongodb::Database;
use mongodb::error::{CommandError, Error as DriverError, ErrorKind as DriverKind};
use mongodb::options::{RunCommandOptions, RunCursorCommandOptions};
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};

use super::{failure, retry};
use crate::format::readable;

/// The limit of a command whose work is not proportional to the data.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Limits a future of the driver. Past the limit, it counts as a broken connection, which it mostly
/// is. The server's message of a failure is kept, even if it is not UTF-8.
///
/// # Errors
/// The future's own, or an I/O error of kind `TimedOut`.
pub async fn bounded<T>(limit: Duration, future: impl Future<Output = Result<T, DriverError>>) -> Result<T, DriverError> {
    match tokio::time::timeout(limit, future).await {
        Ok(done) => done.map_err(readable_error),
        Err(_) => {
            Err(std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {} seconds", limit.as_secs())).into())
        }
    }
}

/// Runs a command and returns its reply.
///
/// # Errors
/// Driver errors. A reply with `writeErrors` or `writeConcernError` is no error to the driver:
/// callers that write must check.
pub async fn run(database: &Database, command: RawDocumentBuf) -> Result<Document, DriverError> {
    reply(database, command, Some(COMMAND_LIMIT)).await
}

/// The same with another limit, or none.
///
/// # Errors
/// As for [`run`].
pub async fn reply(database: &Database, command: RawDocumentBuf, limit: Option<Duration>) -> Result<Document, DriverError> {
    // By default, the driver would ask the primary, whatever the database was created for.
    let options = RunCommandOptions::builder().selection_criteria(database.selection_criteria().cloned()).build();
    let running = database.run_raw_command(command).with_options(options).into_future();
    let done = match limit {
        Some(limit) => bounded(limit, running).await,
        None => running.await.map_err(readable_error),
    };
    // The driver's error contains a reply that it could not decode.
    done.or_else(|error| match undecoded(&error) {
        Some(reply) if reply.get("ok").is_some_and(is_one) => Ok(reply),
        _ => Err(error),
    })
}

/// The reply of a driver error, made readable, if its text is not UTF-8.
///
/// A server cuts long keys in its messages at a byte, even in the middle of a character. The driver
/// decodes replies strictly: such a refusal of a document is a failure of the whole command to it.
fn undecoded(error: &DriverError) -> Option<Document> {
    if !matches!(error.kind.as_ref(), DriverKind::InvalidResponse { .. } | DriverKind::Bson(_)) {
        return None;
    }
    let readable = readable::document(error.server_response()?.as_bytes()).ok()?;
    bson::deserialize_from_slice(&readable).ok()
}

/// The error of a failed command whose reason the driver could not read; any other error unchanged.
fn readable_error(error: DriverError) -> DriverError {
    let Some(reply) = undecoded(&error).filter(|reply| reply.get("ok").is_some_and(|ok| !is_one(ok))) else { return error };
    match bson::deserialize_from_document::<CommandError>(reply) {
        Ok(command) => DriverKind::Command(command).into(),
        Err(_) => error,
    }
}

fn is_one(ok: &Bson) -> bool {
    match ok {
        Bson::Double(ok) => (ok - 1.0).abs() < f64::EPSILON,
        Bson::Int32(ok) => *ok == 1,
        Bson::Int64(ok) => *ok == 1,
        _ => false,
    }
}

/// Runs a command that changes nothing, and repeats it if the connection breaks. An unreachable
/// server is not asked twice.
///
/// # Errors
/// The last try's, as for [`run`].
pub async fn ask(database: &Database, command: RawDocumentBuf) -> Result<Document, DriverError> {
    retry::ask(retry::OPENING, failure::is_break, || run(database, command.clone())).await
}

/// Runs a command that answers with a cursor, with this batch size if given.
///
/// # Errors
/// Driver errors.
pub async fn open_cursor(
    database: &Database,
    command: RawDocumentBuf,
    batch: Option<u32>,
) -> Result<RawBatchCursor, DriverError> {
    let criteria = database.selection_criteria().cloned();
    let options = RunCursorCommandOptions::builder().batch_size(batch).selection_criteria(criteria).build();
    database.run_raw_cursor_command(command).with_options(options).batch().await
}

/// Runs a command that answers with a cursor. Returns every document, raw, and the operation time
/// of the last reply, which only members of a replica set report.
///
/// # Errors
/// Driver errors.
pub async fn run_cursor(
    database: &Database,
    command: RawDocumentBuf,
) -> Result<(Vec<RawDocumentBuf>, Option<bson::Timestamp>), DriverError> {
    let all = async {
        let mut cursor = open_cursor(database, command, None).await?;
        let (mut documents, mut time) = (Vec::new(), None);
        while let Some(batch) = cursor.try_next().await? {
            for document in batch.doc_slices()? {
                let document = document?;
                let document = document.as_document().ok_or_else(|| invalid("a cursor gave something that is not a document"))?;
                documents.push(document.to_owned());
            }
            time = operation_time(batch.as_raw_document()).or(time);
        }
        Ok((documents, time))
    };
    bounded(COMMAND_LIMIT, all).await
}

/// Repeats something for half a minute as long as its failures are transient: listings and other
/// small requests within longer work.
///
/// # Errors
/// The last try's.
pub async fn patiently<T, F: Future<Output = crate::error::Result<T>>>(ask: impl Fn() -> F) -> crate::error::Result<T> {
    retry::ask(retry::QUESTION, failure::is_passing, ask).await
}

/// The bytes of a batch's document array: a BSON array whose elements are the documents.
///
/// # Errors
/// Driver errors, if the reply has none.
pub fn batch_array(batch: &RawBatch) -> Result<&[u8], DriverError> {
    Ok(batch.doc_slices()?.as_bytes())
}

/// `operationTime` of a reply.
#[must_use]
pub fn operation_time(reply: &RawDocument) -> Option<bson::Timestamp> {
    reply.get_timestamp("operationTime").ok()
}

/// An error for a reply that contradicts the server's documentation.
#[must_use]
pub fn invalid(what: &str) -> DriverError {
    DriverError::from(DriverKind::Io(std::sync::Arc::new(std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned()))))
}

/// An error for a connection that may lead elsewhere by now: transient.
#[must_use]
pub fn broken(what: &str) -> DriverError {
    std::io::Error::other(what.to_owned()).into()
}
