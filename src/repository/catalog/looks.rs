//! Looks at places that may not answer, for example a network mount whose server is gone. Each look
//! has a time limit. While one is overdue, nobody else waits for that place until it returns. So a
//! hanging mount takes few threads, however often it is looked at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::context::lock;
use crate::error::{Error, ErrorKind, Result};

/// How many looks may be overdue at a time: each has a thread of its own.
const MOST: usize = 32;
/// How many must be overdue before others get less time.
const FEW: usize = 4;
/// The reduced time limit.
const HASTE: Duration = Duration::from_secs(1);
/// The bytes per second of a slow disk, or of a busy machine.
const SLOWEST: u64 = 1024 * 1024;

/// The looks at one repository. Cloning shares them.
#[derive(Debug, Clone)]
pub(in crate::repository) struct Looks {
    limit: Duration,
    overdue: Arc<Mutex<BTreeMap<String, Instant>>>,
}

impl Looks {
    /// Looks with this time limit each.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, overdue: Arc::default() }
    }

    /// The result of a look at `place` that reads this many bytes. The look goes on if the caller
    /// stops waiting.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] if there is no answer in time. While a look is overdue, the error
    /// comes at once.
    pub(super) async fn at<T: Send + 'static>(
        &self,
        place: &str,
        bytes: u64,
        look: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        let limit = self.limit_at(place)? + Duration::from_secs(bytes / SLOWEST);
        let (looks, place) = (self.clone(), place.to_owned());
        let watched = async move {
            let begun = Instant::now();
            let mut look = tokio::spawn(look);
            if let Ok(found) = tokio::time::timeout(limit, &mut look).await {
                return found.map_err(died);
            }
            looks.overdue().insert(place.clone(), begun);
            let error = no_answer(&place, begun);
            tokio::spawn(async move {
                let _found_too_late = look.await;
                looks.overdue().remove(&place);
            });
            Err(error)
        };
        tokio::spawn(watched).await.map_err(died)?
    }

    /// Fails if a look at the place is overdue.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub(in crate::repository) fn refuse_overdue(&self, place: &str) -> Result<()> {
        self.limit_at(place).map(drop)
    }

    fn limit_at(&self, place: &str) -> Result<Duration> {
        let overdue = self.overdue();
        if let Some(since) = overdue.get(place) {
            return Err(no_answer(place, *since));
        }
        match overdue.len() {
            MOST.. => {
                Err(Error::new(ErrorKind::Storage, format!("{place} was not looked at: {MOST} other places do not answer"))
                    .hint(HINT))
            }
            FEW.. => Ok(HASTE.min(self.limit)),
            _ => Ok(self.limit),
        }
    }

    fn overdue(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        lock(&self.overdue)
    }
}

const HINT: &str = "check the disk or the network mount that it is on";

fn no_answer(place: &str, since: Instant) -> Error {
    let seconds = since.elapsed().as_secs();
    Error::new(ErrorKind::Storage, format!("{place} has not answered for {seconds} s")).hint(HINT)
}

fn died(e: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Internal, "a look at the backups died").cause(e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::context::cpu::CpuPool;
    use crate::format::key;
    use crate::names::BackupName;
    use crate::repository::Repository;
    use crate::repository::backend::hang::Hang;
    use crate::repository::catalog::{Catalog, State};

    const LIMIT: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn a_place_that_does_not_answer_is_named_hides_no_other_and_is_not_waited_for_again() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["good", "hung"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
            std::fs::write(directory.path().join(name).join(key::MANIFEST), "{").unwrap();
        }
        let catalog =
            Catalog::new(Repository::open(directory.path().to_str().unwrap()).unwrap(), &CpuPool::new(1)).patient_for(LIMIT);
        let hang = Hang::at(&directory.path().join("hung"));
        let reasons = async || {
            let mut found = catalog.list(clock::now()).await.unwrap();
            found.sort_by(|a, b| a.name.cmp(&b.name));
            let reasons = found.into_iter().map(|summary| match summary.state {
                State::Damaged(reason) => reason,
                other => panic!("{other:?}"),
            });
            reasons.collect::<Vec<_>>()
        };
        let first = tokio::time::timeout(100 * LIMIT, reasons()).await.unwrap();
        assert!(first[0].contains("manifest.json") && first[1].contains("hung has not answered for"), "{first:?}");

        // From now on nobody waits there, whatever the look is for.
        let begun = Instant::now();
        let name = BackupName::parse("hung").unwrap();
        assert_eq!(reasons().await.len(), 2);
        assert!(catalog.stamp(&name).await.is_none());
        assert_eq!(catalog.find("hung").await.unwrap_err().kind(), ErrorKind::Storage);
        assert_eq!(catalog.running(clock::now()).await.unwrap().len(), 0);
        let found = catalog.look(&name, clock::now()).await.unwrap().unwrap();
        assert_eq!(catalog.delete(&found, clock::now()).await.unwrap_err().kind(), ErrorKind::Storage);
        assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());

        // It is like any other once it answers.
        drop(hang);
        while !catalog.looks.overdue().is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(reasons().await[1].contains("manifest.json"));
    }

    #[tokio::test]
    async fn a_path_that_does_not_answer_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let catalog =
            Catalog::new(Repository::open(directory.path().to_str().unwrap()).unwrap(), &CpuPool::new(1)).patient_for(LIMIT);
        let hang = Hang::at(directory.path());
        for _ in 0..2 {
            let listed = tokio::time::timeout(100 * LIMIT, catalog.list(clock::now())).await.unwrap();
            let error = listed.unwrap_err();
            assert!(error.to_string().contains("has not answered for"), "{error}");
        }
        assert_eq!((catalog.looks.overdue().len(), hang.waiting()), (1, 1), "a thread for each question");
    }

    #[tokio::test]
    async fn what_reads_much_gets_more_time_and_only_so_many_may_hang() {
        let looks = Looks::new(LIMIT);
        looks.at("/large", SLOWEST, tokio::time::sleep(2 * LIMIT)).await.unwrap();
        for number in 0..MOST {
            looks.refuse_overdue("/other").unwrap();
            looks.overdue().insert(format!("/{number}"), Instant::now());
        }
        assert!(looks.refuse_overdue("/other").unwrap_err().to_string().contains("was not looked at"));
    }
}
