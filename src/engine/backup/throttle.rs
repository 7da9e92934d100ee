//! The adaptive throttle: the source is asked how late it answers, and eased accordingly.

use std::time::Duration;

use bson::rawdoc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::format::manifest::CollectionKind;
use crate::mongo::{Connection, command};
use crate::names::Namespace;
use crate::pipeline::pace::{LatencyThrottle, RateLimiter};
use crate::source::discover::{CollectionInfo, Listing};

/// How many times a second a backup with the adaptive throttle asks how late the source answers.
const ASKED_A_SECOND: u32 = 5;

/// How long an answer may take; a source that is later than this is late.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How many answers say how late a source usually is.
const USUAL: usize = 9;

/// The collection that a backup with the adaptive throttle asks the source about: the first that is no view.
pub(super) fn place(listing: &Listing) -> Option<Namespace> {
    listing.collections.iter().find(|found| found.kind != CollectionKind::View).map(CollectionInfo::data)
}

/// Asks the source again and again how late it answers, and eases it accordingly, until dropped. `place` is a collection to be asked of.
pub(super) async fn throttle(connection: &Connection, place: Option<&Namespace>, usual: Vec<Duration>, pace: &RateLimiter) {
    let mut throttle = LatencyThrottle::new(&usual);
    let mut tick = interval(Duration::from_secs(1) / ASKED_A_SECOND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answers = Vec::new();
    loop {
        tick.tick().await;
        answers.push(latency(connection, place).await);
        if answers.len() as u32 >= ASKED_A_SECOND {
            let (before, ease) = (pace.ease(), throttle.take(&answers));
            if (before > 0.0) != (ease > 0.0) {
                tracing::info!(
                    ?answers,
                    ?usual,
                    ease,
                    "the source answers {}",
                    if ease > 0.0 { "late: it is eased" } else { "as usual" }
                );
            }
            pace.ease_by(ease);
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
