//! What `clean` removes of archived oplogs: links that are out of the window, and leftovers of
//! crashed archivers. And which backups the windows need.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde::Serialize;
use utoipa::ToSchema;

use crate::clock;
use crate::context::cpu::CpuPool;
use crate::engine::archive::keep;
use crate::engine::bases;
use crate::engine::timeline::TimelineTime;
use crate::error::{Error, ErrorKind, Result};
use crate::format::chain::{Link, is_link_name};
use crate::format::key;
use crate::names::BackupName;
use crate::oplog::chain::spans::Spans;
use crate::repository::Repository;
use crate::repository::catalog::Summary;
use crate::repository::chain::ChainPlace;

/// What was done to an archive. In a dry run, what would be done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CleanedArchive {
    /// Where it is.
    pub path: String,
    /// The replica set's ID.
    pub replica_set_id: String,
    /// The links that were removed, oldest first: they were out of the window, and no backup that
    /// the window needs could do without them.
    pub links: Vec<RemovedLink>,
    /// Other things that were removed, in words.
    pub leftovers: Vec<String>,
    /// The bytes that the links and leftovers took.
    pub freed_bytes: u64,
    /// Why something stays that could have been removed, and what else there is to say.
    pub notes: Vec<String>,
    /// Why something could not be removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A link that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RemovedLink {
    /// Its name.
    pub name: String,
    /// Its first time.
    pub from: TimelineTime,
    /// Its last entry.
    pub to: TimelineTime,
    /// The bytes that it took.
    pub bytes: u64,
}

/// What to do with the archives of a repository.
#[derive(Debug, Clone, Default)]
pub(super) struct ArchivesPlan {
    archives: Vec<ArchivePlan>,
}

#[derive(Debug, Clone)]
struct ArchivePlan {
    place: ChainPlace,
    /// The backups that it can be replayed on.
    bases: Vec<BackupName>,
    /// Those of them that its window needs.
    needed: Vec<BackupName>,
    links: Vec<Link>,
    /// Links that were never finished, or given up, and their bytes.
    leftovers: BTreeMap<String, u64>,
    /// Pieces that are part of a link.
    rolled: Vec<u64>,
    notes: Vec<String>,
}

/// Looks at all archives. With a window, links out of it are removed, and the backups that it needs
/// stay.
///
/// # Errors
/// [`ErrorKind::Storage`]; with a window, [`ErrorKind::Damaged`] if it is unclear which backups an
/// archive needs.
pub(super) async fn plan(
    repository: &Repository,
    found: &[Summary],
    window: Option<TimeDelta>,
    cpu: &CpuPool,
) -> Result<ArchivesPlan> {
    let mut archives = Vec::new();
    for place in repository.chains().await? {
        let mut plan = ArchivePlan {
            place: place.clone(),
            bases: Vec::new(),
            needed: Vec::new(),
            links: Vec::new(),
            leftovers: BTreeMap::new(),
            rolled: Vec::new(),
            notes: Vec::new(),
        };
        let spans = match Spans::of(&place, cpu).await {
            Ok(None) if is_empty(&place).await? => continue,
            spans => spans.and_then(|spans| spans.ok_or_else(|| unclear(&place))),
        };
        match spans {
            Ok(spans) => plan.take(&spans, found, window).await?,
            Err(e) if window.is_some() || e.kind() == ErrorKind::Storage => {
                return Err(Error::new(e.kind(), format!("which backups an archive of the oplog needs is unclear: {e}"))
                    .hint("`bsonvault verify oplog` says what is wrong with it")
                    .cause(e));
            }
            Err(e) => plan.notes.push(format!("nothing of it was removed: {e}")),
        }
        archives.push(plan);
    }
    Ok(ArchivesPlan { archives })
}

/// Whether nothing is archived there: an archiver has just begun.
async fn is_empty(place: &ChainPlace) -> Result<bool> {
    Ok(place.pieces().await?.is_empty() && !place.objects().top().await?.prefixes.iter().any(|name| is_link_name(name)))
}

fn unclear(place: &ChainPlace) -> Error {
    Error::damaged(format!("{} has no {}", place.location(), crate::repository::layout::CHAIN))
}

impl ArchivePlan {
    async fn take(&mut self, spans: &Spans, found: &[Summary], window: Option<TimeDelta>) -> Result<()> {
        let place = self.place.clone();
        let bases = bases::among(found, &spans.parts.config);
        self.bases = bases.iter().map(|base| base.name.clone()).collect();
        if let Some(kept) = window.and_then(|window| keep::kept(&place, spans, &bases, window)) {
            self.needed = kept.bases.iter().map(|base| base.name.clone()).collect();
            self.links = kept.removable.to_vec();
        }
        for name in &spans.parts.leftovers {
            self.leftovers.insert(name.clone(), place.link(name).measure().await?.0);
        }
        self.rolled.clone_from(&spans.parts.rolled);
        if self.has_work() && place.is_written(spans.parts.archiver.as_ref()).await {
            self.leave();
        }
        Ok(())
    }

    fn has_work(&self) -> bool {
        !(self.links.is_empty() && self.leftovers.is_empty() && self.rolled.is_empty())
    }

    /// An archiver is at work. What looks like a leftover may be a link that it makes.
    fn leave(&mut self) {
        if !self.links.is_empty() {
            self.notes.push(format!(
                "{} out of the window stay: an archiver is at work, and removes what is out of its own window",
                links(self.links.len())
            ));
        }
        (self.links, self.leftovers, self.rolled) = (Vec::new(), BTreeMap::new(), Vec::new());
    }

    fn report(&self) -> CleanedArchive {
        let links: Vec<RemovedLink> = self.links.iter().map(removed).collect();
        let leftovers = self.leftovers.keys().map(|name| leftover(name));
        CleanedArchive {
            path: self.place.location(),
            replica_set_id: self.place.id().to_owned(),
            freed_bytes: links.iter().map(|link| link.bytes).chain(self.leftovers.values().copied()).sum(),
            links,
            leftovers: leftovers.chain(pieces(self.rolled.len())).collect(),
            notes: self.notes.clone(),
            error: None,
        }
    }

    /// Removes what is planned, unless an archiver has begun since, or a reader.
    async fn execute(mut self) -> CleanedArchive {
        let mut done = CleanedArchive {
            path: self.place.location(),
            replica_set_id: self.place.id().to_owned(),
            notes: std::mem::take(&mut self.notes),
            ..CleanedArchive::default()
        };
        if self.has_work()
            && let Err(e) = self.remove(&mut done).await
        {
            match e.kind() {
                ErrorKind::Busy => done.notes.push(format!("what is out of the window stays: {e}")),
                _ => done.error = Some(e.to_string()),
            }
        }
        done
    }

    async fn remove(&mut self, done: &mut CleanedArchive) -> Result<()> {
        let Some(_lock) = self.place.keep_archivers_out(clock::now()).await? else {
            self.leave();
            done.notes.append(&mut self.notes);
            return Ok(());
        };
        let Some(parts) = self.place.parts().await? else { return Ok(()) };
        // What was never finished: nobody makes links now.
        for name in parts.leftovers.iter().filter(|name| self.leftovers.contains_key(*name)) {
            if !parts.given_up().any(|given_up| given_up == name) {
                let store = self.place.link(name);
                let bytes = store.measure().await?.0;
                store.delete_all(key::MANIFEST).await?;
                done.freed_bytes += bytes;
                done.leftovers.push(leftover(name));
            }
        }
        let rolled: Vec<u64> = parts.rolled.iter().copied().filter(|number| self.rolled.contains(number)).collect();
        self.place.remove_pieces(rolled.iter().copied()).await?;
        done.leftovers.extend(pieces(rolled.len()));
        // Links that count, and those that were given up.
        let names: Vec<String> = self.links.iter().map(|link| link.name.clone()).collect();
        if !names.is_empty() || parts.given_up().next().is_some() {
            done.freed_bytes += self.place.remove_links(&names, clock::now()).await?;
            done.links = self.links.iter().map(removed).collect();
            done.leftovers.extend(parts.given_up().map(|name| leftover(name)));
        }
        Ok(())
    }
}

impl ArchivesPlan {
    /// Whether the window of an archive needs this backup.
    pub(super) fn needs(&self, name: &BackupName) -> bool {
        self.archives.iter().any(|archive| archive.needed.contains(name))
    }

    /// Says which archives will have no backup left once these are deleted.
    pub(super) fn without<'a>(&mut self, deleted: impl Iterator<Item = &'a BackupName> + Clone) {
        for archive in self.archives.iter_mut().filter(|archive| !archive.bases.is_empty()) {
            if archive.bases.iter().all(|base| deleted.clone().any(|name| name == base)) {
                archive.notes.push("no backup is left that it can be replayed on: take one while it is written".to_owned());
            }
        }
    }

    /// The plan as the report of a dry run.
    pub(super) fn report(&self) -> Vec<CleanedArchive> {
        self.archives.iter().map(ArchivePlan::report).collect()
    }

    /// Carries it out. What goes wrong is in the result.
    pub(super) async fn execute(self) -> Vec<CleanedArchive> {
        let mut done = Vec::with_capacity(self.archives.len());
        for archive in self.archives {
            done.push(archive.execute().await);
        }
        done
    }
}

fn removed(link: &Link) -> RemovedLink {
    RemovedLink { name: link.name.clone(), from: link.from.time.into(), to: link.to.time.into(), bytes: link.stored_bytes() }
}

fn links(count: usize) -> String {
    if count == 1 { "1 link that is".to_owned() } else { format!("{count} links that are") }
}

fn leftover(name: &str) -> String {
    format!("{name}: a link that was not finished, or not removed completely")
}

fn pieces(count: usize) -> Option<String> {
    (count > 0).then(|| format!("{count} pieces that are part of a link"))
}
