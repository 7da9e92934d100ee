//! Base backups: those onto which an archived oplog can be replayed.

use crate::clock;
use crate::context::Context;
use crate::error::Result;
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
    /// A backup as a base of the archive of a replica set, of these databases. The error says, in
    /// words, why it is none.
    ///
    /// # Errors
    /// The reason.
    pub fn of(manifest: &Manifest, replica_set_id: &str, databases: &[String]) -> Result<Self, String> {
        let consistency = &manifest.consistency;
        if manifest.source.replica_set_id.as_deref() != Some(replica_set_id) {
            return Err(match &manifest.source.replica_set_id {
                Some(other) => format!("it is of another replica set, {other}"),
                None => "it does not say of which replica set it is".to_owned(),
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

/// The bases of an archive in its repository, oldest first. If any holds everything that the
/// archive is about, only those that do.
///
/// # Errors
/// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
pub async fn bases(repository: &Repository, replica_set_id: &str, databases: &[String], cx: &Context) -> Result<Vec<Base>> {
    let found = Catalog::new(repository.clone(), &cx.cpu).list(clock::now()).await?;
    Ok(among(&found, replica_set_id, databases))
}

/// The same among these backups.
#[must_use]
pub fn among(found: &[Summary], replica_set_id: &str, databases: &[String]) -> Vec<Base> {
    let mut bases: Vec<Base> = found
        .iter()
        .filter_map(|summary| match &summary.state {
            State::Complete(manifest) => {
                let base = Base::of(manifest, replica_set_id, databases).ok()?;
                // Its directory may have been renamed.
                Some(Base { name: summary.name.clone(), ..base })
            }
            _ => None,
        })
        .collect();
    bases.sort_by(|a, b| (a.moment, &a.name).cmp(&(b.moment, &b.name)));
    if bases.iter().any(|base| base.is_whole) {
        bases.retain(|base| base.is_whole);
    }
    bases
}
