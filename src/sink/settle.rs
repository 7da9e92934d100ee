//! Sends writes that later writes depend on: one whose reply was lost must not be executed after
//! them.

use std::time::Duration;

use bson::{Document, RawDocumentBuf, rawdoc};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Attempts, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::mongo::command;

/// The limit of one command.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);
/// The pause between two checks whether a command with a lost reply is still running.
const SETTLING: Duration = Duration::from_millis(50);

/// Sends writes with a unique comment, by which the server can show whether one of them is still
/// running.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) target: Target,
    /// The comment that identifies its commands on the server.
    pub(crate) comment: String,
}

impl Settled {
    pub(crate) fn new(target: Target, what: &str) -> Self {
        Self { target, comment: format!("bsonvault {what} {}", Uuid::new_v4()) }
    }

    /// Sends a repeatable write that carries the comment.
    pub(crate) async fn write(&self, what: &str, database: &str, command: RawDocumentBuf) -> Result<Document> {
        let mut attempts = Attempts::new(&self.target, what);
        loop {
            let tried = self.target.try_run(database, command.clone(), Some(LIMIT)).await?;
            if let Some(reply) = attempts.judge(tried).await? {
                return Ok(reply);
            }
            self.settle(what).await?;
        }
    }

    /// Waits until no command with the comment is running any more.
    pub(crate) async fn settle(&self, what: &str) -> Result<()> {
        let mut attempts = Attempts::new(&self.target, what);
        let waiting = Instant::now();
        loop {
            let ask = rawdoc! {
                "aggregate": 1,
                "pipeline": [{ "$currentOp": {} }, { "$match": { "command.comment": self.comment.as_str() } }, { "$project": { "opid": 1 } }],
                "cursor": {},
            };
            let admin = self.target.connection.database("admin");
            match self.target.unless_stopped(command::run_cursor(&admin, ask)).await? {
                Ok((working, _)) if working.is_empty() => return Ok(()),
                Ok(_) if waiting.elapsed() > LIMIT => {
                    let seconds = LIMIT.as_secs();
                    return Err(Error::new(
                        ErrorKind::Server,
                        format!("{what}: a command whose reply was lost is still running after {seconds} seconds"),
                    )
                    .hint("run the import again once the target is less busy"));
                }
                Ok(_) => self.target.unless_stopped(tokio::time::sleep(SETTLING)).await?,
                Err(e) => attempts.again(e).await?,
            }
        }
    }
}
