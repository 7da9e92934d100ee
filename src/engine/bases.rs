//! Base backups: those onto which an archived oplog can be replayed.

use crate::clock;
use crate::context::Context;
use crate::error::Result;
use crate::format::chain::ChainConfig;
use crate::format::manifest::{ClusterTime, ConsistencyKind, Manifest, OplogPosition};
use crate::names::BackupName;
use crate::repository::Repository;
use crate::repository::catalog::{Catalog, State, Summary};

/// A backup onto which an archived oplog can be replayed.
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    /// Its name.
    pub name: BackupName,
    /// The position from which the archive must reach.
    pub from: OplogPosition,
    /// The earliest time that can be restored from it: its consistency point.
    pub moment: ClusterTime,
    /// The end of its own oplog slice, if it has one.
    pub slice_end: Option<ClusterTime>,
    /// Whether it holds everything that the archive is about.
    pub is_whole: bool,
}

impl Base {
    /// A backup as a base of an archive. The error says, in words, why it is none.
    ///
    /// # Errors
    /// The reason.
    pub fn of(manifest: &Manifest, archive: &ChainConfig) -> Result<Self, String> {
        let consistency = &manifest.consistency;
        let databases = &archive.databases;
        if !archive.is_of(&manifest.source) {
            return Err(match &manifest.source.replica_set_id {
                Some(other) => format!("it is of another replica set, {other}"),
                None => "its login could not read of which replica set it is".to_owned(),
            });
        }
        if manifest.settings.query.is_some() || manifest.settings.views_as_collections {
            return Err("it has only some of the documents".to_owned());
        }
        if let Some(exception) = consistency.exceptions.first() {
            return Err(format!("{}.{} is not part of its snapshot", exception.database, exception.collection));
        }
        let moment = match consistency.kind {
            ConsistencyKind::Snapshot => consistency.cluster_time,
            ConsistencyKind::Oplog => consistency.to,
            ConsistencyKind::None => None,
        };
        let Some(moment) = moment else { return Err("it has no consistency point".to_owned()) };
        // Backups of older versions with a slice say where that begins.
        let slice = consistency.from.map(|time| OplogPosition { time, term: None, digest: None });
        let Some(from) = consistency.replay_from.or(slice) else {
            return Err(
                "it does not say from where on the oplog is needed: the source's oplog could not be read while it was taken, \
                        or an older version took it"
                    .to_owned(),
            );
        };
        let settings = &manifest.settings;
        let has = |database: &String| settings.databases.contains(database);
        let is_whole = settings.include.is_empty()
            && settings.exclude.is_empty()
            && (settings.databases.is_empty() || (!databases.is_empty() && databases.iter().all(has)));
        Ok(Self { name: manifest.name.clone(), from, moment, slice_end: consistency.to, is_whole })
    }
}

/// The bases of an archive in its repository, oldest first.
///
/// # Errors
/// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
pub async fn bases(repository: &Repository, archive: &ChainConfig, cx: &Context) -> Result<Vec<Base>> {
    let found = Catalog::new(repository.clone(), &cx.cpu).list(clock::now()).await?;
    Ok(among(&found, archive))
}

/// The same among these backups.
#[must_use]
pub fn among(found: &[Summary], archive: &ChainConfig) -> Vec<Base> {
    let mut bases: Vec<Base> = found
        .iter()
        .filter_map(|summary| match &summary.state {
            State::Complete(manifest) => {
                let base = Base::of(manifest, archive).ok()?;
                // Its directory may have been renamed.
                Some(Base { name: summary.name.clone(), ..base })
            }
            _ => None,
        })
        .collect();
    bases.sort_by(|a, b| (a.moment, &a.name).cmp(&(b.moment, &b.name)));
    bases
}

/// The bases of a run of an archive that restores use: those that hold everything that the archive
/// is about, and others only before the first of them.
#[must_use]
pub fn preferred<'a>(bases: &[&'a Base]) -> Vec<&'a Base> {
    let first = bases.iter().position(|base| base.is_whole).unwrap_or(bases.len());
    let is_used = |(at, base): (usize, &&'a Base)| (at < first || base.is_whole).then_some(*base);
    bases.iter().enumerate().filter_map(is_used).collect()
}
