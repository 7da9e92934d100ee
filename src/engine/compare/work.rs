//! Compares every range of every pair, several at a time, both sides of a range at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::JoinSet;

use super::folds::Sum;
use super::half::Pass;
use super::search::search;
use super::shared::{Pair, Shared, Unit};
use crate::context::lock;
use crate::error::{Error, ErrorKind, Result};

/// Compares all that is queued, this many ranges at a time.
pub(super) async fn work(shared: &Arc<Shared>, readers: usize) -> Result<()> {
    let mut workers = JoinSet::new();
    for _ in 0..readers.max(1) {
        workers.spawn(worker(shared.clone()));
    }
    let mut first = None;
    while let Some(ended) = workers.join_next().await {
        let died = |e| Err(Error::new(ErrorKind::Internal, "a comparing task died").cause(e));
        if let Err(error) = ended.unwrap_or_else(died) {
            // The first error counts; the others follow from it.
            shared.means.halt.cancel();
            first.get_or_insert(error);
        }
    }
    first.map_or(Ok(()), Err)
}

/// Takes one range after the other until none is left.
async fn worker(shared: Arc<Shared>) -> Result<()> {
    loop {
        if shared.means.halt.is_cancelled() {
            return Err(Error::interrupted());
        }
        let unit = lock(&shared.queue).pop_front();
        let Some(unit) = unit else { return Ok(()) };
        let pair = &shared.pairs[unit.pair];
        compare(&shared, pair, &unit).await?;
        if pair.ranges_left.fetch_sub(1, Ordering::Relaxed) == 1 {
            pair.item.finish();
        }
    }
}

/// Compares one range, and searches it if it differs.
async fn compare(shared: &Shared, pair: &Pair, unit: &Unit) -> Result<()> {
    let pass = || Pass { range: &unit.range, only_ids: false, by_id: false, item: Some(&pair.item) };
    let sum = || Sum::new(pair.is_ordered());
    let (source, target) = tokio::try_join!(
        pair.source.read(&shared.source, pass(), sum(), &shared.means),
        pair.target.read(&shared.target, pass(), sum(), &shared.means),
    )?;
    if pair.add(&source, &target) {
        search(shared, pair, &unit.range, source.content, target.content).await?;
    }
    Ok(())
}
