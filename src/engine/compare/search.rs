//! Finds the documents of a range that differ: divides it until few are left, and compares those
//! one by one.

use std::collections::HashSet;
use std::sync::Arc;

use super::folds::{Against, Bounds, Hashes, Names, Sum};
use super::half::{Half, Pass};
use super::report::HowDocument;
use super::shared::{NAMED, Pair, Shared};
use super::side::Side;
use crate::error::Result;
use crate::format::digest::Content;
use crate::source::ranges::Range;

/// From this many documents on one side, they are compared one by one.
const FEW: u64 = 2_000;

/// The most parts that a range is divided into at a time.
const PARTS: u64 = 256;

/// A range that differs, and what each side has in it.
struct Open {
    range: Range,
    source: Content,
    target: Content,
}

/// Searches a range that differs.
pub(super) async fn search(shared: &Shared, pair: &Pair, range: &Range, source: Content, target: Content) -> Result<()> {
    let mut open = vec![Open { range: range.clone(), source, target }];
    while let Some(part) = open.pop() {
        if !pair.is_worth_searching(shared) {
            pair.leave("enough documents are named, so the rest was not searched");
            return Ok(());
        }
        pair.reads_again(&part.source, &part.target);
        if part.source.documents.min(part.target.documents) <= FEW {
            one_by_one(shared, pair, &part).await?;
        } else if pair.has_order {
            let mut smaller = divided(shared, pair, &part).await?;
            // The first part comes next.
            smaller.reverse();
            open.extend(smaller);
        } else {
            pair.leave("it cannot be read in parts by _id, so its documents were not searched");
        }
    }
    Ok(())
}

/// The parts of a range that differ.
async fn divided(shared: &Shared, pair: &Pair, part: &Open) -> Result<Vec<Open>> {
    let (side, half, documents) = match part.source.documents <= part.target.documents {
        true => (&shared.source, &pair.source, part.source.documents),
        false => (&shared.target, &pair.target, part.target.documents),
    };
    let every = (FEW / 2).max(documents / PARTS);
    let pass = Pass { only_ids: true, by_id: true, ..Pass::again(&part.range) };
    let bounds = half.read(side, pass, Bounds::every(every), &shared.means).await?.ids;
    let ranges = part.range.split(bounds, pair.by_bounds);
    if ranges.len() < 2 {
        pair.leave("its _ids cannot be used in a query, so its documents were not searched");
        return Ok(Vec::new());
    }
    let mut differing = Vec::new();
    for range in ranges {
        let (source, target) = tokio::try_join!(
            pair.source.read(&shared.source, Pass::again(&range), Sum::new(false), &shared.means),
            pair.target.read(&shared.target, Pass::again(&range), Sum::new(false), &shared.means),
        )?;
        if source != target {
            differing.push(Open { range, source: source.content, target: target.content });
        }
    }
    Ok(differing)
}

/// Compares the documents of a range one by one. The side with fewer is kept as hashes; the other
/// one is of any size.
async fn one_by_one(shared: &Shared, pair: &Pair, part: &Open) -> Result<()> {
    let source = (&shared.source, &pair.source);
    let target = (&shared.target, &pair.target);
    // What only one side has: the few are of the target, or of the source.
    let (few, many, of_few, of_many) = match part.target.documents <= part.source.documents {
        true => (target, source, HowDocument::Extra, HowDocument::Missing),
        false => (source, target, HowDocument::Missing, HowDocument::Extra),
    };
    let range = &part.range;
    // Without a time, there may be more by now.
    let most = usize::try_from(4 * FEW).unwrap_or(usize::MAX);
    let hashes = read(few, range, Hashes::of_at_most(most), shared).await?;
    if hashes.overflows {
        pair.leave("documents are inserted faster than they can be searched");
        return Ok(());
    }
    let hashes = Arc::new(hashes.by_id);
    let against = read(many, range, Against::new(hashes.clone(), NAMED), shared).await?;
    let left: HashSet<u128> = hashes.keys().filter(|id| !against.met.contains(id)).copied().collect();
    pair.name(against.differing, HowDocument::Differs, shared);
    pair.name(against.alone, of_many, shared);
    if !left.is_empty() {
        let names = read(few, range, Names::of(Arc::new(left), NAMED), shared).await?;
        pair.name(names.found, of_few, shared);
    }
    Ok(())
}

async fn read<F: super::folds::Fold>((side, half): (&Side, &Half), range: &Range, fold: F, shared: &Shared) -> Result<F> {
    half.read(side, Pass::again(range), fold, &shared.means).await
}
