//! While a backup reads: how many cursors, how hard frames are compressed, and how much the source is eased follow what is the limit at the moment.

use std::sync::Arc;
use std::time::Duration;

use bson::rawdoc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::plan::Prepared;
use super::read::Shared;
use crate::context::progress::Progress;
use crate::format::frame::Compressors;
use crate::format::manifest::CollectionKind;
use crate::mongo::{Connection, command};
use crate::names::Namespace;
use crate::pipeline::pace::LatencyThrottle;
use crate::pipeline::steer::{ConcurrencyController, LevelController, Sample, Watched};
use crate::source::discover::{CollectionInfo, Listing};

/// How many times a second a polite backup asks how late the source answers.
const ASKED_A_SECOND: u32 = 5;

/// How long an answer may take; a source that is later than this is late.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How many answers say how late a source usually is.
const USUAL: usize = 9;

/// What the decisions rest on, and what they change.
pub(super) struct Steering {
    shared: Arc<Shared>,
    crew: ConcurrencyController,
    /// Absent where the level stays as it is.
    effort: Option<LevelController>,
    compressors: Arc<Compressors>,
    watched: Watched,
    starved: Duration,
}

impl Steering {
    pub(super) fn new(prepared: &Prepared, shared: Arc<Shared>, progress: Progress) -> Self {
        Self {
            crew: ConcurrencyController::new(prepared.settings.readers, prepared.most_readers),
            effort: prepared.follows_level.then(|| LevelController::new(prepared.settings.level)),
            compressors: prepared.compressors.clone(),
            watched: Watched::new(prepared.cpu.clone(), progress),
            starved: shared.starved(),
            shared,
        }
    }

    /// Waits until it is time to look again, looks, and changes what is to be changed.
    pub(super) async fn go_on(&mut self) {
        let sample = self.watched.next().await;
        let starved = self.shared.starved();
        let possible = sample.lasted.mul_f64(self.crew.now() as f64).as_secs_f64();
        let share = starved.saturating_sub(self.starved).as_secs_f64() / possible.max(1e-3);
        let sample = Sample { starved: share.min(1.0), ..sample };
        self.starved = starved;
        // What is held back on purpose says nothing of what more readers would bring.
        let now = if self.shared.pace.is_held_back() { self.crew.now() } else { self.crew.take(&sample) };
        // Where the queue is empty, nobody is to wait any more.
        self.shared.allowed.send_if_modified(|allowed| *allowed != usize::MAX && std::mem::replace(allowed, now) != now);
        if let Some(effort) = &mut self.effort {
            self.compressors.set_level(effort.take(&sample));
        }
        tracing::debug!(limit = ?sample.limit(), readers = now, level = self.compressors.level(), ?sample, "steered");
    }
}

/// The collection that a polite backup asks the source about: the first that is no view.
pub(super) fn place(listing: &Listing) -> Option<Namespace> {
    listing.collections.iter().find(|found| found.kind != CollectionKind::View).map(CollectionInfo::data)
}

/// Asks the source again and again how late it answers, and eases it accordingly, until dropped. `place` is a collection to be asked of.
pub(super) async fn be_polite(connection: &Connection, place: Option<&Namespace>, usual: Vec<Duration>, shared: &Shared) {
    let mut courtesy = LatencyThrottle::new(&usual);
    let mut tick = interval(Duration::from_secs(1) / ASKED_A_SECOND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answers = Vec::new();
    loop {
        tick.tick().await;
        answers.push(latency(connection, place).await);
        if answers.len() as u32 >= ASKED_A_SECOND {
            let (before, ease) = (shared.pace.ease(), courtesy.take(&answers));
            if (before > 0.0) != (ease > 0.0) {
                tracing::info!(
                    ?answers,
                    ?usual,
                    ease,
                    "the source answers {}",
                    if ease > 0.0 { "late: it is eased" } else { "as usual" }
                );
            }
            shared.pace.ease_by(ease);
            answers.clear();
        }
    }
}

/// How late the source answers before it is read.
pub(super) async fn usual_latencies(connection: &Connection, place: Option<&Namespace>) -> Vec<Duration> {
    let mut answers = Vec::with_capacity(USUAL);
    for _ in 0..USUAL {
        answers.push(latency(connection, place).await);
    }
    answers
}

/// From a small question to its answer: the first document of a collection, as any client of the source would ask; where there is none, a ping.
async fn latency(connection: &Connection, place: Option<&Namespace>) -> Duration {
    let begun = Instant::now();
    let (database, question) = match place {
        Some(place) => {
            let find = rawdoc! {
                "find": place.collection.as_str(), "limit": 1, "singleBatch": true, "projection": { "_id": 1 },
            };
            (place.database.as_str(), find)
        }
        None => ("admin", rawdoc! { "ping": 1 }),
    };
    // What it says does not matter, and an error comes late or soon as an answer does.
    let _answer = tokio::time::timeout(ANSWER_LIMIT, command::run(&connection.documents(database), question)).await;
    begun.elapsed()
}
