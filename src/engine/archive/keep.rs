//! Removes links that are out of the window, and that no backup needs.

use chrono::TimeDelta;

use crate::clock;
use crate::context::Context;
use crate::engine::bases::{self, Base};
use crate::error::Result;
use crate::format::chain::Link;
use crate::format::manifest::ClusterTime;
use crate::repository::Repository;
use crate::repository::chain::{ChainParts, ChainPlace};

/// Which links are out of the window: the oldest ones that end before it, and before what its
/// anchor needs. The anchor is the newest base that is older than the window.
#[must_use]
pub fn removable<'a>(links: &'a [Link], bases: &[Base], window: TimeDelta, newest: ClusterTime) -> &'a [Link] {
    let seconds = u32::try_from(window.num_seconds().max(0)).unwrap_or(u32::MAX);
    let start = ClusterTime { t: newest.t.saturating_sub(seconds), i: 0 };
    let anchor = bases.iter().rfind(|base| base.moment <= start);
    // Without an anchor, the first base in the window is where restoring begins.
    let needed = anchor.or(bases.first()).map_or(start, |base| base.from.time.min(start));
    let count = links.iter().take_while(|link| link.to.time < needed && link.to.time < start).count();
    // The last link says where the archive goes on.
    &links[..count.min(links.len().saturating_sub(1))]
}

/// The names of the bases that an archive needs so that its window can be restored: the anchor, and
/// all that are newer.
#[must_use]
pub fn anchored(bases: &[Base], window: TimeDelta, newest: ClusterTime) -> &[Base] {
    let seconds = u32::try_from(window.num_seconds().max(0)).unwrap_or(u32::MAX);
    let start = ClusterTime { t: newest.t.saturating_sub(seconds), i: 0 };
    let anchor = bases.iter().rposition(|base| base.moment <= start).unwrap_or(0);
    &bases[anchor.min(bases.len())..]
}

/// The last time that an archive holds, as far as its manifests and its heartbeat tell.
#[must_use]
pub fn newest(parts: &ChainParts) -> Option<ClusterTime> {
    let told = parts.archiver.as_ref().and_then(|archiver| archiver.position);
    parts.links.last().map(|link| link.to.time).max(told)
}

/// Removes the links that are out of the window, oldest first, each one's manifest first. Returns
/// them. The window ends at the last entry that is archived: the clock of this machine does not
/// matter.
///
/// # Errors
/// Those of [`ChainPlace::remove_links`].
pub(super) async fn out_of_window(
    place: &ChainPlace,
    repository: &Repository,
    window: TimeDelta,
    cx: &Context,
) -> Result<Vec<Link>> {
    let Some(parts) = place.parts().await? else { return Ok(Vec::new()) };
    let Some(newest) = newest(&parts) else { return Ok(Vec::new()) };
    let bases = bases::bases(repository, place.id(), &parts.config.databases, cx).await?;
    let removed = removable(&parts.links, &bases, window, newest).to_vec();
    let names: Vec<String> = removed.iter().map(|link| link.name.clone()).collect();
    if !names.is_empty() || parts.leftovers.iter().any(|name| parts.config.first.as_ref().is_some_and(|first| name < first)) {
        place.remove_links(&names, clock::now()).await?;
    }
    Ok(removed)
}
