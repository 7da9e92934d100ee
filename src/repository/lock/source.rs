//! The source lock: one backup of a source at a time. If several begin together, this decides which
//! one goes on.
//!
//! Each writes a heartbeat with its source's hosts, marked *undecided*, and looks at all others of
//! these hosts. Then it either gives way, or writes that it is decided. It gives way to a decided
//! backup, and to an undecided one with an earlier name. It waits for undecided ones with later
//! names.
//!
//! Proof: of two backups, let A be the one that wrote *undecided* later. When A looks, it sees the
//! other, which exists, decided or not, until it gives way. So both cannot go on. Only the one with
//! the later name gives way to an undecided one, and a decided one gives way to nobody. So both
//! cannot give way.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::heartbeat;
use crate::clock;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::format::heartbeat::Heartbeat;
use crate::names::BackupName;
use crate::repository::Repository;
use crate::repository::backend::Objects;
use crate::repository::catalog::Catalog;
use crate::system;

/// How long to wait before looking again at another backup's decision.
const PAUSE: Duration = Duration::from_millis(100);

/// The backup of a source with one of these hosts that runs into this repository, with its
/// heartbeat. A host is `host:port` in lower case, or the name of an SRV string.
///
/// # Errors
/// [`ErrorKind::Storage`] if the repository cannot be listed.
pub async fn running(catalog: &Catalog, hosts: &[String], now: DateTime<Utc>) -> Result<Option<(BackupName, Heartbeat)>> {
    Ok(others(catalog, None, hosts, now).await?.into_iter().min_by_key(|(_, heartbeat)| heartbeat.undecided))
}

/// Claims a new name, from the time, and its directory.
pub async fn claim(repository: &Repository) -> Result<(BackupName, Objects)> {
    // Fail before anything is read, if the repository cannot be written to.
    repository.config().await?;
    let mut time = clock::now();
    loop {
        let name = BackupName::at(time);
        let place = repository.place(&name);
        match place.claim().await {
            Ok(()) => return Ok((name, place)),
            // Another backup began in the same millisecond.
            Err(e) if e.kind() == ErrorKind::Refused => time += TimeDelta::milliseconds(1),
            Err(e) => return Err(e),
        }
    }
}

/// The hosts of a source: those of its URI, and its own names of them.
pub fn hosts(uri: &[String], members: &[String]) -> Vec<String> {
    let mut hosts: Vec<String> = uri.iter().chain(members).map(|host| host.to_lowercase()).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

/// Fails if a backup of these hosts is running.
pub async fn look(repository: &Repository, hosts: &[String], cx: &Context) -> Result<()> {
    match running(&Catalog::new(repository.clone(), &cx.cpu), hosts, clock::now()).await? {
        Some((name, heartbeat)) => Err(busy(&name, &heartbeat)),
        None => Ok(()),
    }
}

/// Waits until it is decided that this backup goes on.
///
/// # Errors
/// [`ErrorKind::Busy`] if it gives way; [`ErrorKind::Storage`]; [`ErrorKind::Interrupted`].
pub async fn take(repository: &Repository, name: &BackupName, place: &Objects, first: &Heartbeat, cx: &Context) -> Result<()> {
    let catalog = Catalog::new(repository.clone(), &cx.cpu);
    loop {
        let now = clock::now();
        heartbeat::write(&Heartbeat { heartbeat: now, undecided: true, ..first.clone() }, place).await?;
        match verdict(name, &others(&catalog, Some(name), &first.source, now).await?) {
            Verdict::GoOn => return heartbeat::write(&Heartbeat { heartbeat: clock::now(), ..first.clone() }, place).await,
            Verdict::GiveWay((other, heartbeat)) => return Err(busy(other, heartbeat)),
            Verdict::Wait => {}
        }
        let pause = async {
            tokio::time::sleep(PAUSE).await;
            Ok(())
        };
        cx.unless_cancelled(pause).await?;
    }
}

/// The error for a directory that another process locked as soon as it was made.
pub fn taken(place: &Objects) -> Error {
    Error::new(ErrorKind::Busy, format!("{} is locked by another process", place.location())).hint("run it again")
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict<'a> {
    GoOn,
    GiveWay(&'a (BackupName, Heartbeat)),
    Wait,
}

fn verdict<'a>(own: &BackupName, others: &'a [(BackupName, Heartbeat)]) -> Verdict<'a> {
    if let Some(decided) = others.iter().find(|(_, heartbeat)| !heartbeat.undecided) {
        return Verdict::GiveWay(decided);
    }
    match others.iter().min_by_key(|(name, _)| name) {
        Some(earlier) if earlier.0 < *own => Verdict::GiveWay(earlier),
        Some(_) => Verdict::Wait,
        None => Verdict::GoOn,
    }
}

async fn others(
    catalog: &Catalog,
    own: Option<&BackupName>,
    hosts: &[String],
    now: DateTime<Utc>,
) -> Result<Vec<(BackupName, Heartbeat)>> {
    let here = system::host();
    let mut running = catalog.running(now).await?;
    running.retain(|(name, heartbeat)| Some(name) != own && meets(heartbeat, hosts, &here));
    Ok(running)
}

/// Whether the heartbeat is of a source with one of these hosts. A name that every machine uses for
/// itself means another source on each.
fn meets(heartbeat: &Heartbeat, hosts: &[String], here: &str) -> bool {
    heartbeat.source.iter().any(|host| hosts.contains(host) && (heartbeat.host == here || !system::is_own_name(host)))
}

fn busy(name: &BackupName, heartbeat: &Heartbeat) -> Error {
    let error = Error::new(
        ErrorKind::Busy,
        format!("a backup of this source is running already: {name}, process {} on {}", heartbeat.process, heartbeat.host),
    )
    .hint("wait until it is done; `bsonvault list` shows how far it is; [[allow-concurrent]] takes another one at the same time");
    match &heartbeat.job {
        Some(job) => error.job(job),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(name: &str, undecided: bool) -> (BackupName, Heartbeat) {
        let heartbeat = heartbeat::first(DateTime::UNIX_EPOCH, vec!["db:1".to_owned(), "localhost:2".to_owned()], None, true);
        (BackupName::parse(name).unwrap(), Heartbeat { undecided, ..heartbeat })
    }

    #[test]
    fn who_is_decided_goes_on_and_of_the_others_the_earliest_name() {
        let own = BackupName::parse("m").unwrap();
        assert_eq!(verdict(&own, &[]), Verdict::GoOn);
        assert_eq!(verdict(&own, &[other("z", true)]), Verdict::Wait);
        let earlier = [other("z", true), other("b", true), other("a", true)];
        assert_eq!(verdict(&own, &earlier), Verdict::GiveWay(&earlier[2]));
        let decided = [other("a", true), other("z", false)];
        assert_eq!(verdict(&own, &decided), Verdict::GiveWay(&decided[1]));
    }

    #[test]
    fn one_host_in_common_is_one_source_unless_it_is_each_machines_own_name() {
        let (_, mut heartbeat) = other("a", false);
        let here = heartbeat.host.clone();
        let meets = |heartbeat: &Heartbeat, host: &str| meets(heartbeat, &["x:9".to_owned(), host.to_owned()], &here);
        assert!(meets(&heartbeat, "db:1") && meets(&heartbeat, "localhost:2") && !meets(&heartbeat, "db:2"));
        heartbeat.host = "elsewhere".to_owned();
        assert!(meets(&heartbeat, "db:1") && !meets(&heartbeat, "localhost:2"));
    }
}
