//! Asks the process that follows into a target to prove it.

use std::time::Duration;

use super::control::{open, read};
use super::proof::ProofReport;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::mongo::MongoUri;
use crate::sink::Target;
use crate::sink::proven::Proven;
use crate::sink::synced::{Synced, SyncedState};

/// How often to look whether the request is answered.
const LOOK: Duration = Duration::from_millis(500);

/// Asks the process that follows into a target to prove it now, as fast as it may, and waits for
/// the result.
///
/// # Errors
/// [`ErrorKind::NotFound`] if it follows nothing; [`ErrorKind::Refused`] if no process follows into
/// it, if it does not follow now, or if it cannot be proven; server errors. A difference is no
/// error.
pub async fn verify(uri: &MongoUri, cx: &Context) -> Result<ProofReport> {
    cx.progress.begin("proving the target");
    let target = open(uri, cx).await?;
    let proven = cx.unless_cancelled(asked(&target)).await;
    target.connection.close().await;
    proven
}

async fn asked(target: &Target) -> Result<ProofReport> {
    let uri = &target.connection.uri;
    let refuse_still = |found: &Synced| {
        let follows = found.state == SyncedState::Following;
        if follows && found.holder.as_ref().is_some_and(|holder| holder.lives) {
            return Ok(());
        }
        let state = if follows { "followed into by no process" } else { found.state.name() };
        Err(Error::new(ErrorKind::Refused, format!("{uri} is {state}, and only what follows can be proven"))
            .hint("let a sync run, and ask again; if it follows no more, stop the writers, and compare both sides"))
    };
    refuse_still(&read(target).await?)?;
    let asked = Proven::ask(target).await?;
    loop {
        tokio::time::sleep(LOOK).await;
        let known = Proven::read(target).await?;
        if known.answered.as_ref() == Some(&asked) {
            return answer(known);
        }
        refuse_still(&read(target).await?)?;
    }
}

/// The report that answers a request.
fn answer(known: Proven) -> Result<ProofReport> {
    if let Some((failed, hint)) = known.failed {
        let error = Error::new(ErrorKind::Refused, failed);
        return Err(match hint {
            Some(hint) => error.hint(hint),
            None => error,
        });
    }
    let broken = "what was proven of the target is not what `sync` writes";
    let report = known.report.ok_or_else(|| Error::damaged(broken))?;
    serde_json::from_str(&report).map_err(|e| Error::damaged(broken).cause(e))
}
