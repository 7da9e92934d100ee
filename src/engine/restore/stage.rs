//! From segments to staged collections that are proven and have their indexes: large ones are checked and indexed while others are filled.

use futures::stream::FuturesUnordered;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::fill::Filled;
use super::origin::Origin;
use super::plan::Plan;
use super::pour::Poured;
use super::{IndexMode, fill, pour};
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::Content;
use crate::pipeline::budget::Budget;
use crate::pipeline::cpu::Cpu;
use crate::pipeline::progress::Progress;
use crate::sink::indexes::{self, IndexBuilder, Which};
use crate::sink::insert::Repeats;
use crate::sink::users::Accounts;
use crate::sink::{Blueprint, check};

/// Collections of fewer bytes are checked and indexed once all are filled, when they are made durable together.
const LARGE: u64 = 16 * 1024 * 1024;

/// What the phases of staging share.
pub(super) struct Stage<'a> {
    pub(super) origin: Origin<'a>,
    pub(super) plan: &'a Plan,
    pub(super) writers: usize,
    pub(super) cpu: Cpu,
    pub(super) budget: Budget,
    pub(super) progress: &'a Progress,
    pub(super) builder: IndexBuilder,
    /// What happens to documents whose `_id` repeats.
    pub(super) repeats: Repeats,
    /// Indexes are built once the oplog slice is replayed, not before.
    pub(super) indexes_later: bool,
}

/// What was filled, and read back.
#[derive(Debug, Default)]
pub(super) struct Proven {
    /// What each collection must hold, and was found to hold.
    pub(super) contents: Vec<Content>,
    /// Documents that were passed over, because another one with the same `_id` came first.
    pub(super) passed_over: u64,
    /// Users and roles that are to be merged.
    pub(super) accounts: Accounts,
}

impl Stage<'_> {
    /// Fills every staged collection, proves it by reading it back, and builds its indexes.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] where one does not hold what the backup holds; [`ErrorKind::Server`] where a document or an index is refused; others
    /// of the server's; [`ErrorKind::Damaged`]; [`ErrorKind::Interrupted`].
    pub(super) async fn fill_and_prove(&self) -> Result<Proven> {
        self.progress.begin("filling");
        let (filled, full) = unbounded_channel();
        let filling = async {
            match self.origin.poured() {
                None => fill::fill(self, filled).await.map(|passed_over| Poured { passed_over, ..Poured::default() }),
                Some(dumped) => pour::pour(self, dumped, filled).await,
            }
        };
        let ((mut contents, small), Poured { passed_over, accounts }) = tokio::try_join!(self.prove_large(full), filling)?;

        self.progress.begin("checking");
        self.make_durable().await?;
        self.prove(&small).await?;
        for Filled { number, content } in &small {
            contents[*number] = *content;
        }
        if !self.indexes_later {
            self.progress.begin("building indexes");
            let small: Vec<usize> = small.iter().map(|filled| filled.number).collect();
            self.build(&small, Which::All).await?;
        }
        Ok(Proven { contents, passed_over, accounts })
    }

    /// Waits until all that was written is on the disks of a majority.
    pub(super) async fn make_durable(&self) -> Result<()> {
        match self.plan.databases().first() {
            Some(database) => self.plan.target.make_durable(database).await,
            None => Ok(()),
        }
    }

    /// Proves large collections as they come, and builds their indexes beside the filling of others. Gives what they hold, by number, and those that are left.
    async fn prove_large(&self, mut full: UnboundedReceiver<Filled>) -> Result<(Vec<Content>, Vec<Filled>)> {
        let mut running = FuturesUnordered::new();
        let mut contents = vec![Content::default(); self.plan.blueprints.len()];
        let mut small = Vec::new();
        let mut more = true;
        while more || !running.is_empty() {
            tokio::select! {
                filled = full.recv(), if more => match filled {
                    Some(filled) if filled.content.bytes >= LARGE => running.push(self.prove_one(filled)),
                    Some(filled) => small.push(filled),
                    None => more = false,
                },
                Some(done) = running.next(), if !running.is_empty() => {
                    let Filled { number, content } = done?;
                    contents[number] = content;
                }
            }
        }
        Ok((contents, small))
    }

    async fn prove_one(&self, filled: Filled) -> Result<Filled> {
        let blueprint = self.filled(filled);
        self.plan.target.make_durable(&blueprint.place.database).await?;
        let check = async {
            let found = self.read_back(&blueprint).await?;
            refuse_differences([(&blueprint, found)])
        };
        if self.indexes_later {
            return check.await.map(|()| filled);
        }
        let this = [filled.number];
        tokio::try_join!(check, self.build(&this, Which::Lasting))?;
        self.build(&this, Which::Expiring).await?;
        Ok(filled)
    }

    /// Reads these collections back; an error where any does not hold what it must.
    async fn prove(&self, filled: &[Filled]) -> Result<()> {
        let mut work: Vec<Blueprint> = filled.iter().map(|&filled| self.filled(filled)).collect();
        work.sort_by_key(|blueprint| std::cmp::Reverse(blueprint.content.bytes));
        let checks = work.iter().map(|blueprint| async move { Ok::<_, Error>((blueprint, self.read_back(blueprint).await?)) });
        let found: Vec<(&Blueprint, Content)> = stream::iter(checks).buffer_unordered(self.writers).try_collect().await?;
        refuse_differences(found)
    }

    /// The blueprint of a collection that is full: what it holds was not known before where it came from a dump.
    fn filled(&self, filled: Filled) -> Blueprint {
        self.plan.blueprints[filled.number].holding(filled.content)
    }

    async fn read_back(&self, blueprint: &Blueprint) -> Result<Content> {
        let item = self.plan.item(self.progress, blueprint, "reading back");
        check::content(&self.plan.target, blueprint, &self.cpu, &self.budget, &item).await
    }

    /// How many documents each collection has now.
    pub(super) async fn count(&self) -> Result<Vec<u64>> {
        let counts = self.plan.blueprints.iter().map(|blueprint| async move {
            if !blueprint.holds_documents() {
                return Ok(0);
            }
            check::count(&self.plan.target, blueprint).await
        });
        stream::iter(counts).buffered(self.writers).try_collect().await
    }

    /// Builds indexes of these collections. One that the target refuses is an error, which names all that it refused.
    pub(super) async fn build(&self, numbers: &[usize], which: Which) -> Result<()> {
        if self.plan.indexes == IndexMode::Skip {
            return Ok(());
        }
        let builds = numbers.iter().map(|&number| async move {
            let blueprint = &self.plan.blueprints[number];
            let item = self.progress.item(format!("{} (indexes)", blueprint.namespace), blueprint.indexes.len() as u64, 0);
            let failures = self.builder.build(blueprint, which, &item).await;
            item.finish();
            failures
        });
        let failures: Vec<_> = stream::iter(builds).buffer_unordered(self.writers).try_collect().await?;
        let failures: Vec<_> = failures.into_iter().flatten().collect();
        match indexes::sum_up(&failures) {
            None => Ok(()),
            Some(error) => {
                Err(error.hint("import with --indexes skip to have the documents, and build the indexes with --indexes only once nothing is in their way"))
            }
        }
    }
}

fn refuse_differences<'a>(found: impl IntoIterator<Item = (&'a Blueprint, Content)>) -> Result<()> {
    let words = |c: &Content| format!("{} documents of {} bytes with digest {}", c.documents, c.bytes, c.digest());
    let differences: Vec<String> = found
        .into_iter()
        .filter(|(blueprint, content)| blueprint.content != *content)
        .map(|(b, content)| format!("{}: expected {}, found {}", b.namespace, words(&b.content), words(&content)))
        .collect();
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Mismatch, format!("the target does not hold what the backup holds: {}", differences.join("; ")))
        .hint("something else may be writing to the staging collections: stop it"))
}
