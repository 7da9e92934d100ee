//! Proves one part of a collection, at a position at which that can be done.

use std::time::Duration;

use bson::Timestamp;

use super::prover::Prover;
use crate::engine::compare::What;
use crate::engine::compare::pinned::{Pinned, Proof, Subject, Times};
use crate::error::{ErrorKind, Result};
use crate::format::manifest::ClusterTime;
use crate::sink::synced::Synced;
use crate::source::ranges::Range;

/// How often a part is tried.
const TRIES: u32 = 30;
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(300);
/// How often to look whether the target is at a moment, while nothing is written to it.
const LOOKS: u32 = 20;
/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// How often a part must differ, at another position each time.
const TIMES: u32 = 2;

/// What was found of a part.
pub(super) enum Part {
    /// Both sides hold the same: so many documents and bytes.
    Same(u64, u64),
    /// They do not.
    Differs(Vec<What>, u64, u64),
    /// It could not be proven, for this reason.
    Unproven(String),
    /// The collection was dropped, renamed or altered.
    Gone,
}

impl Prover {
    /// Proves a part. `at` becomes the position at which that was done.
    ///
    /// # Errors
    /// Server errors.
    pub(super) async fn part(&self, pinned: &Pinned<'_>, subject: &Subject, range: &Range, at: &mut ClusterTime) -> Result<Part> {
        // Without history, the target is kept as it is while it is read.
        let (at_a_time, mut keep) = (pinned.keeps_history() && !subject.is_capped(), subject.is_capped());
        let (mut differed, mut why) = (0, "the target was never at one moment of the source".to_owned());
        for _ in 0..TRIES {
            self.follows(|_| true).await?;
            // Between two writes, the target is at a moment.
            let still = self.unless_stopped(self.still.hold()).await?;
            let Some((position, target)) = self.moment(at_a_time).await? else {
                drop(still);
                self.pause(PAUSE).await?;
                continue;
            };
            let still = Some(still).filter(|_| !at_a_time);
            let times = Times { source: position.into(), target };
            match pinned.prove(subject, range, times, (still, keep)).await {
                Ok(Proof::Same(documents, bytes)) => {
                    *at = position;
                    return Ok(Part::Same(documents, bytes));
                }
                Ok(Proof::Differs(what, documents, bytes)) => {
                    differed += 1;
                    if differed == TIMES {
                        *at = position;
                        return Ok(Part::Differs(what, documents, bytes));
                    }
                }
                Ok(Proof::Unclear) => keep = true,
                Ok(Proof::NotThen(reason)) => why = reason,
                Err(e) if e.kind() == ErrorKind::Server => {
                    tracing::debug!("a part was not proven: {e}");
                    return Ok(Part::Gone);
                }
                Err(e) => return Err(e),
            }
            self.pause(PAUSE).await?;
        }
        Ok(Part::Unproven(why))
    }

    /// Where the target is, if it is at a moment. What was just written is seen once a majority has
    /// it.
    async fn moment(&self, at_a_time: bool) -> Result<Option<(ClusterTime, Option<Timestamp>)>> {
        for _ in 0..LOOKS {
            let moment = Synced::moment(&self.target, at_a_time).await?;
            if moment.is_some() || !at_a_time {
                return Ok(moment);
            }
            self.pause(LOOK).await?;
        }
        Ok(None)
    }
}
