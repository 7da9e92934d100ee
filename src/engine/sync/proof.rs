//! Proves that a target that follows holds what its source held, while both are written to: once in
//! a while, and if somebody asks.
//!
//! At its position, the target is what the source was at that time. So each part is read in the
//! target as of a moment, and in the source as of the position of that moment. A part is small, and
//! the next one has a later position: so neither side needs a long history, and nothing waits.

mod part;
mod prover;
mod report;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use self::part::Part;
pub(super) use self::prover::Prover;
pub use self::report::{ProofReport, Unproven};
use super::status::{ProofStatus, SyncState};
use crate::clock;
use crate::engine::Tuning;
use crate::engine::compare::CompareOptions;
use crate::engine::compare::pinned::{Pinned, Subject, Subjects};
use crate::engine::compare::{Difference, What};
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::ClusterTime;
use crate::sink::proven::{Answer, Proven};

/// How often to look whether somebody asked.
const LOOK: Duration = Duration::from_secs(1);
/// The pause after a proof that could not be made.
const PAUSE: Duration = Duration::from_secs(60);
/// The most bits a second that are read from the source if nobody asked.
const QUIET_BITS: u64 = 64_000_000;
/// The approximate bytes of a part.
const PART_BYTES: u64 = 16 * 1024 * 1024;
/// The longest delay with which a target can be proven. Sources keep five minutes of history.
const LONGEST_DELAY: Duration = Duration::from_secs(240);
/// How often both sides are listed until they agree. What differs each time is reported.
const LISTINGS: u32 = 10;
/// The pause between two listings.
const BETWEEN: Duration = Duration::from_millis(500);
/// How often collections are proven again that were dropped, renamed or altered meanwhile.
const PASSES: u32 = 3;

impl Prover {
    /// Proves the target whenever that is due or asked for, until it is stopped.
    pub(super) async fn run(self) {
        loop {
            let mut pause = LOOK;
            match self.turn().await {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => return,
                Err(e) => {
                    tracing::warn!("the target was not proven: {e}");
                    self.tell(|proof| proof.problem = Some(e.to_string()));
                    pause = PAUSE;
                }
            }
            self.tell(|proof| proof.running = false);
            if self.cx.cancel.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    fn tell(&self, change: impl FnOnce(&mut ProofStatus)) {
        self.status.change(|status| change(&mut status.proof));
    }

    /// Proves the target if that is due, or somebody asked.
    async fn turn(&self) -> Result<()> {
        if self.status.get().state != SyncState::Following {
            return Ok(());
        }
        let known = Proven::read(&self.target).await?;
        self.remember(&known);
        let asked = known.asked.clone().filter(|asked| known.answered.as_ref() != Some(asked));
        if asked.is_none() && !self.is_due(known.ended) {
            return Ok(());
        }
        self.tell(|proof| proof.running = true);
        let answer = match self.prove(asked.is_some()).await {
            Ok(report) => self.reported(report)?,
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::Unreachable) => return Err(e),
            Err(e) if asked.is_none() => return Err(e),
            Err(e) => Answer::failed(&e),
        };
        answer.record(&self.target, asked.as_deref()).await
    }

    /// Tells what a process before found, until this one finds something.
    fn remember(&self, known: &Proven) {
        let (Some(ended), Some(same), None) = (known.ended, known.same, self.status.get().proof.ended) else { return };
        self.tell(|proof| (proof.ended, proof.same, proof.differences) = (Some(ended), same, known.differences));
    }

    /// Tells what was found.
    fn reported(&self, report: ProofReport) -> Result<Answer> {
        let differences = report.differences.len() as u64;
        if differences > 0 {
            let first = report.differences.first().map_or("", |difference| difference.namespace.as_str());
            tracing::error!("the target is not what the source is: {differences} differences, the first of {first}");
            self.cx
                .progress
                .note(format!("the target is not what the source is: {differences} differences, the first of {first}"));
        }
        let (ended, same) = (report.ended, report.same);
        self.tell(|proof| *proof = ProofStatus { running: false, ended: Some(ended), same, differences, problem: None });
        let text = serde_json::to_string(&report).map_err(|e| Error::new(ErrorKind::Internal, "a proof is no JSON").cause(e))?;
        Ok(Answer::reported(report.ended, report.same, differences, text))
    }

    fn is_due(&self, ended: Option<DateTime<Utc>>) -> bool {
        let Some(every) = self.options.proof else { return false };
        let every = TimeDelta::from_std(every).unwrap_or(TimeDelta::MAX);
        ended.is_none_or(|ended| clock::now() - ended >= every)
    }

    /// Proves everything, as fast as it may if somebody asked.
    async fn prove(&self, asked: bool) -> Result<ProofReport> {
        if let Some(delay) = self.options.delay.filter(|delay| *delay > LONGEST_DELAY) {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "a target that stays {} s behind cannot be proven: the source cannot be read as it was then",
                    delay.as_secs()
                ),
            )
            .hint("let it follow without a delay for a while, and prove it then"));
        }
        let quiet = self.options.tuning.max_bits.map_or(QUIET_BITS, |bits| bits.min(QUIET_BITS));
        let max_bits = if asked { self.options.tuning.max_bits } else { Some(quiet) };
        let options = CompareOptions {
            filter: self.options.filter.clone(),
            renames: self.options.renames.clone(),
            tuning: Tuning { max_bits, ..self.options.tuning },
        };
        let mut pinned = Pinned::open(&self.source, &self.uri, &options, &self.cx).await?;
        let proven = Box::pin(self.everything(&mut pinned)).await;
        pinned.close().await;
        proven
    }

    async fn everything(&self, pinned: &mut Pinned<'_>) -> Result<ProofReport> {
        let mut report = ProofReport::begun(&self.uri);
        let Subjects { mut both, differences } = self.agree(pinned).await?;
        (report.differences, report.namespaces) = (differences, both.len() as u64);
        for _ in 0..PASSES {
            let mut again = Vec::new();
            for mut subject in both {
                if !self.one(pinned, &mut subject, &mut report).await? {
                    again.push(subject);
                }
            }
            if again.is_empty() {
                both = again;
                break;
            }
            // Those that are gone by now need no proof.
            let now = self.agree(pinned).await?.both;
            both = now.into_iter().filter(|subject| again.iter().any(|other| other.is(subject))).collect();
        }
        for subject in both {
            report.leave(&subject, "it was altered or renamed each time that it was read");
        }
        report.debts = self.status.get().debts;
        report.end();
        Ok(report)
    }

    /// Lists both sides until they agree, or the same differs each time.
    async fn agree(&self, pinned: &mut Pinned<'_>) -> Result<Subjects> {
        let mut always: Option<Vec<Difference>> = None;
        for turn in 1.. {
            let mut found = self.listed(pinned).await?;
            let differences = match always {
                None => found.differences,
                Some(always) => always.into_iter().filter(|one| found.differences.contains(one)).collect(),
            };
            if differences.is_empty() || turn == LISTINGS {
                found.differences = differences;
                return Ok(found);
            }
            always = Some(differences);
            self.pause(BETWEEN).await?;
        }
        Err(Error::new(ErrorKind::Internal, "listing both sides ended early"))
    }

    /// What both sides have: the source now, and the target once it is as far.
    async fn listed(&self, pinned: &mut Pinned<'_>) -> Result<Subjects> {
        let listed = pinned.list().await?;
        if let Some(time) = listed.time {
            self.follows(|status| status.at.is_some_and(|at| at >= ClusterTime::from(time))).await?;
        }
        let mut found = pinned.pair(listed).await?;
        if self.status.get().debts > 0 {
            // They are known, and told apart.
            found.differences.retain(|difference| !matches!(difference.what, What::Index { target: None, .. }));
        }
        Ok(found)
    }

    /// Proves a collection, part by part. False if it is not what was listed any more.
    async fn one(&self, pinned: &Pinned<'_>, subject: &mut Subject, report: &mut ProofReport) -> Result<bool> {
        let mut found = Vec::new();
        for range in pinned.divide(subject, PART_BYTES).await {
            let part = self.part(pinned, subject, &range, &mut report.at).await?;
            match part {
                Part::Same(documents, bytes) => report.count(documents, bytes),
                Part::Differs(what, documents, bytes) => {
                    report.count(documents, bytes);
                    report::merge(&mut found, what);
                }
                Part::Unproven(why) => {
                    report.leave(subject, &why);
                    break;
                }
                Part::Gone => return Ok(false),
            }
        }
        report.differences.extend(found.into_iter().map(|what| subject.difference(what)));
        Ok(true)
    }
}
