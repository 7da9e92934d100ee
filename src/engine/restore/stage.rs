//! From segments to staged collections that are proven and have their indexes: large ones are checked and indexed while others are filled.

use futures::stream::FuturesUnordered;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::plan::Plan;
use super::{IndexMode, fill};
use crate::catalog::Backup;
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::Content;
use crate::pipeline::budget::Budget;
use crate::pipeline::cpu::Cpu;
use crate::pipeline::progress::Progress;
use crate::sink::indexes::{self, IndexBuilder, Which};
use crate::sink::{Blueprint, check};

/// Collections of fewer bytes are checked and indexed once all are filled, when they are made durable together.
const LARGE: u64 = 16 * 1024 * 1024;

/// What the phases of staging share.
pub(super) struct Stage<'a> {
    pub(super) backup: &'a Backup,
    pub(super) plan: &'a Plan,
    pub(super) writers: usize,
    pub(super) cpu: Cpu,
    pub(super) budget: Budget,
    pub(super) progress: &'a Progress,
    pub(super) builder: IndexBuilder,
    /// Indexes are built once the oplog slice is replayed, not before.
    pub(super) indexes_later: bool,
}

impl Stage<'_> {
    /// Fills every staged collection, proves it by reading it back, and builds its indexes. Gives what each collection holds.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] where one does not hold what the backup holds; [`ErrorKind::Server`] where a document or an index is refused; others
    /// of the server's; [`ErrorKind::Damaged`]; [`ErrorKind::Interrupted`].
    pub(super) async fn fill_and_prove(&self) -> Result<Vec<Content>> {
        self.progress.begin("filling");
        let (filled, full) = unbounded_channel();
        let (proven, ()) = tokio::try_join!(self.prove_large(full), fill::fill(self, filled))?;

        self.progress.begin("checking");
        let mut found = vec![None; self.plan.blueprints.len()];
        for (number, content) in proven {
            found[number] = Some(content);
        }
        self.make_durable().await?;
        let small: Vec<usize> =
            (0..found.len()).filter(|&n| found[n].is_none() && self.plan.blueprints[n].holds_documents()).collect();
        for (number, content) in self.prove(&small).await? {
            found[number] = Some(content);
        }
        if !self.indexes_later {
            self.progress.begin("building indexes");
            self.build(&small, Which::All).await?;
        }
        Ok(found.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// Waits until all that was written is on the disks of a majority.
    pub(super) async fn make_durable(&self) -> Result<()> {
        match self.plan.databases().first() {
            Some(database) => self.plan.target.make_durable(database).await,
            None => Ok(()),
        }
    }

    /// Proves large collections as they come, and builds their indexes beside the filling of others.
    async fn prove_large(&self, mut full: UnboundedReceiver<usize>) -> Result<Vec<(usize, Content)>> {
        let mut running = FuturesUnordered::new();
        let mut proven = Vec::new();
        let mut more = true;
        while more || !running.is_empty() {
            tokio::select! {
                number = full.recv(), if more => match number {
                    Some(number) if self.plan.blueprints[number].content.bytes >= LARGE => running.push(self.prove_one(number)),
                    Some(_) => {}
                    None => more = false,
                },
                Some(done) = running.next(), if !running.is_empty() => proven.push(done?),
            }
        }
        Ok(proven)
    }

    async fn prove_one(&self, number: usize) -> Result<(usize, Content)> {
        let blueprint = &self.plan.blueprints[number];
        self.plan.target.make_durable(&blueprint.place.database).await?;
        let reading = self.plan.item(self.progress, blueprint, "reading back");
        let check = async {
            let content = check::content(&self.plan.target, blueprint, &self.cpu, &self.budget, &reading).await?;
            refuse_differences([(blueprint, content)])?;
            Ok(content)
        };
        if self.indexes_later {
            return Ok((number, check.await?));
        }
        let this = [number];
        let (content, ()) = tokio::try_join!(check, self.build(&this, Which::Lasting))?;
        self.build(&this, Which::Expiring).await?;
        Ok((number, content))
    }

    /// What these collections hold now; an error where any is not what the backup holds.
    pub(super) async fn prove(&self, numbers: &[usize]) -> Result<Vec<(usize, Content)>> {
        let blueprints = &self.plan.blueprints;
        let mut work = numbers.to_vec();
        work.sort_by_key(|&number| std::cmp::Reverse(blueprints[number].content.bytes));
        let checks = work.into_iter().map(|number| async move {
            let item = self.plan.item(self.progress, &blueprints[number], "reading back");
            let content = check::content(&self.plan.target, &blueprints[number], &self.cpu, &self.budget, &item).await?;
            Ok::<_, Error>((number, content))
        });
        let found: Vec<(usize, Content)> = stream::iter(checks).buffer_unordered(self.writers).try_collect().await?;
        refuse_differences(found.iter().map(|(number, content)| (&blueprints[*number], *content)))?;
        Ok(found)
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
