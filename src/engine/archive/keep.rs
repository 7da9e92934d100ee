//! Which links of an archive are out of its window and needed by no backup, and which backups its
//! window needs.

use chrono::TimeDelta;

use crate::clock;
use crate::context::Context;
use crate::engine::bases::{self, Base};
use crate::engine::timeline;
use crate::error::Result;
use crate::format::chain::Link;
use crate::format::manifest::ClusterTime;
use crate::oplog::chain::spans::Spans;
use crate::repository::Repository;
use crate::repository::chain::ChainPlace;

/// What the window of an archive needs.
#[derive(Debug)]
pub struct Kept<'a> {
    /// The bases that it cannot be restored without, oldest first.
    pub bases: Vec<&'a Base>,
    /// The links that nothing needs, oldest first.
    pub removable: &'a [Link],
}

/// What the window of an archive needs. The window ends at the last entry that is archived: the
/// clock of this machine does not matter. `None` if the archive holds nothing.
#[must_use]
pub fn kept<'a>(place: &ChainPlace, found: &'a Spans, all: &'a [Base], window: TimeDelta) -> Option<Kept<'a>> {
    let told = found.parts.archiver.as_ref().and_then(|archiver| archiver.position);
    let newest = found.ends().map(|(_, end)| end).max(told)?;
    let seconds = u32::try_from(window.num_seconds().max(0)).unwrap_or(u32::MAX);
    let start = ClusterTime { t: newest.t.saturating_sub(seconds), i: 0 };
    let runs = found.runs().into_iter().filter(|run| run.to() >= start);
    let bases: Vec<&Base> = runs.filter_map(|run| anchored(&timeline::bases_of(place, found, run, all), start)).collect();
    let removable = removable(&found.parts.links, &bases, start);
    Some(Kept { bases, removable })
}

/// The base from which what is after `start` can be restored, out of those of one run: its anchor,
/// the newest one that is older. Without one, restoring begins with the first of them.
#[must_use]
pub fn anchored<'a>(of_run: &[&'a Base], start: ClusterTime) -> Option<&'a Base> {
    of_run.iter().rfind(|base| base.moment <= start).or(of_run.first()).copied()
}

/// Which links are out of a window that begins at `start`: the oldest ones that end before it, and
/// before what its bases need.
#[must_use]
pub fn removable<'a>(links: &'a [Link], bases: &[&Base], start: ClusterTime) -> &'a [Link] {
    let needed = bases.iter().map(|base| base.from.time).chain([start]).min().unwrap_or(start);
    let count = links.iter().take_while(|link| link.to.time < needed).count();
    // The last link says where the archive goes on.
    &links[..count.min(links.len().saturating_sub(1))]
}

/// Removes the links that are out of the window, oldest first, each one's manifest first. Returns
/// them.
///
/// # Errors
/// Those of [`ChainPlace::remove_links`].
pub(super) async fn out_of_window(
    place: &ChainPlace,
    repository: &Repository,
    window: TimeDelta,
    cx: &Context,
) -> Result<Vec<Link>> {
    let Some(found) = Spans::of(place, &cx.cpu).await? else { return Ok(Vec::new()) };
    let bases = bases::bases(repository, &found.parts.config, cx).await?;
    let removed = kept(place, &found, &bases, window).map(|kept| kept.removable.to_vec()).unwrap_or_default();
    let names: Vec<String> = removed.iter().map(|link| link.name.clone()).collect();
    if !names.is_empty() || found.parts.given_up().next().is_some() {
        place.remove_links(&names, clock::now()).await?;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::format::chain::{CHAIN_VERSION, ChainConfig, Gap};
    use crate::format::digest::{Content, Sha256Hex};
    use crate::format::manifest::{OplogPosition, Segment, StoredObject, Tool};
    use crate::names::BackupName;
    use crate::oplog::chain::spans::{Part, Span};
    use crate::repository::chain::ChainParts;
    use uuid::Uuid;

    const ID: &str = "6386c5a0f1d2e3b4a5968778";

    fn at(t: u32) -> OplogPosition {
        OplogPosition { time: ClusterTime { t, i: 1 }, term: None, digest: None }
    }

    /// A link with the entries after one time and up to another.
    fn link((from, to): (u32, u32)) -> Link {
        let digest = Content::default().digest();
        let object = StoredObject { key: "index.bson.zst".to_owned(), bytes: 1, sha256: Sha256Hex::zero() };
        Link {
            format_version: CHAIN_VERSION,
            tool: Tool { name: String::new(), version: String::new() },
            id: Uuid::from_u128(u128::from(from)),
            name: format!("{from}"),
            replica_set_id: String::new(),
            previous: None,
            gap: None,
            from: at(from),
            to: at(to),
            pieces: (from.into(), to.into()),
            entries: 0,
            bytes: 0,
            digest,
            last_piece: Sha256Hex::zero(),
            segments: Vec::new(),
            index: Segment { object, raw_bytes: 0, documents: 0, digest, frames: 0 },
            checksums: Sha256Hex::zero(),
            sha256: Sha256Hex::zero(),
        }
    }

    /// A base that needs the oplog from two seconds before its moment.
    fn base(t: u32) -> Base {
        let name = BackupName::parse(&format!("base-{t}")).unwrap();
        Base { name, from: at(t - 2), moment: at(t).time, slice_end: None, is_whole: true }
    }

    #[test]
    fn the_newest_base_before_the_window_is_its_anchor() {
        let bases = [15, 25, 35, 45].map(base);
        let bases: Vec<&Base> = bases.iter().collect();
        let anchor = |start: u32| anchored(&bases, ClusterTime { t: start, i: 0 }).map(|base| base.moment.t);
        // A base at the first time of the window is after its start.
        assert_eq!([30, 35, 36, 60].map(anchor), [25, 25, 35, 45].map(Some));
        // Restoring begins in the window.
        assert_eq!(anchor(10), Some(15));
        assert_eq!(anchored(&[], at(30).time), None);
    }

    #[test]
    fn links_go_that_end_before_the_window_and_before_what_its_bases_need() {
        let links = [(0, 10), (10, 20), (20, 30), (30, 40), (40, 50)].map(link);
        let goes = |start: u32, bases: &[u32]| {
            let bases: Vec<Base> = bases.iter().copied().map(base).collect();
            let bases: Vec<&Base> = bases.iter().collect();
            removable(&links, &bases, ClusterTime { t: start, i: 0 }).len()
        };
        // No base: the window alone counts. Its first link has its start.
        assert_eq!([5, 10, 11, 35].map(|start| goes(start, &[])), [0, 0, 1, 3]);
        // What the anchor needs begins at 13.
        assert_eq!([11, 15, 35, 60].map(|start| goes(start, &[15])), [1, 1, 1, 1]);
        // The entry that an anchor begins with is the last one of a link, which stays.
        assert_eq!(goes(35, &[22]), 1);
        assert_eq!(goes(35, &[23]), 2);
        // A base that is newer than the window's start frees nothing in the window.
        assert_eq!(goes(25, &[45]), 2);
        // Of several runs, the first base counts.
        assert_eq!(goes(35, &[15, 45]), 1);
        // The last link stays, and so does an empty archive.
        assert_eq!(goes(1_000, &[]), 4);
        assert_eq!(removable(&[], &[], at(1_000).time).len(), 0);
    }

    /// An archive of these links. Before those that do not follow, there is a gap.
    fn archive(links: &[(u32, u32)]) -> Spans {
        let config = ChainConfig {
            format_version: CHAIN_VERSION,
            replica_set_id: ID.to_owned(),
            deployment_id: None,
            replica_set: String::new(),
            created: DateTime::UNIX_EPOCH,
            databases: Vec::new(),
            first: None,
        };
        let mut end = None;
        let links: Vec<Link> = links.iter().copied().map(link).collect();
        let spans = links.iter().map(|link| {
            let before = end.replace(link.to.time).filter(|before| *before != link.from.time);
            let gap = |from| Gap { from, to: link.from.time, reason: String::new(), found: DateTime::UNIX_EPOCH };
            let what = Part::Link(Box::new(link.clone()));
            Span { what, from: link.from, to: link.to, gap: before.map(gap), broken: None }
        });
        let spans = spans.collect();
        let parts = ChainParts {
            config,
            links,
            pieces: Vec::new(),
            archiver: None,
            damaged: Vec::new(),
            leftovers: Vec::new(),
            rolled: Vec::new(),
        };
        Spans { spans, problems: Vec::new(), parts }
    }

    #[test]
    fn after_a_gap_the_window_begins_again() {
        let place = Repository::in_memory().chain(ID);
        let found = archive(&[(100, 110), (110, 120), (130, 140), (140, 150)]);
        // The first one is older than the archive, and needs entries that it does not have.
        let bases = [95, 105, 115, 133, 145].map(base);
        let of = |seconds: i64| {
            let kept = kept(&place, &found, &bases, TimeDelta::seconds(seconds)).unwrap();
            let moments: Vec<u32> = kept.bases.iter().map(|base| base.moment.t).collect();
            (moments, kept.removable.len())
        };
        assert_eq!(of(1_000), (vec![105, 133], 0));
        assert_eq!(of(150 - 118), (vec![115, 133], 1));
        assert_eq!(of(150 - 125), (vec![133], 2));
        assert_eq!(of(1), (vec![145], 3));
        assert!(kept(&place, &archive(&[]), &bases, TimeDelta::seconds(1)).is_none());
    }

    #[test]
    fn only_links_from_the_beginning_on_go() {
        // One that ends late keeps those after it, however they are ordered.
        let links = [(0, 10), (10, 90), (20, 30), (30, 40)].map(link);
        assert_eq!(removable(&links, &[], ClusterTime { t: 80, i: 0 }).len(), 1);
    }
}
