//! From segments to staged collections that are verified and indexed. Large ones are verified and
//! indexed while others are filled.

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;

use super::load::{Brought, Came, Loaded};
use super::options::IndexMode;
use super::stage::Stage;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::few::Few;
use crate::format::digest::Content;
use crate::sink::indexes::{self, Which};
use crate::sink::users::{self, Accounts};
use crate::sink::{Target, check};

/// Smaller collections are verified and indexed once all are filled, when they are made durable
/// together.
const LARGE: u64 = 16 * 1024 * 1024;

/// What was filled and read back.
#[derive(Debug, Default)]
pub(super) struct Proven {
    /// What each collection must hold: what arrived, less what was overwritten.
    pub(super) expected: Vec<Content>,
    /// What each was found to hold.
    pub(super) contents: Vec<Content>,
    /// What happened to the documents of each on their way.
    pub(super) came: Vec<Came>,
    /// Documents that were skipped because another one with the same `_id` came first.
    pub(super) passed_over: u64,
    /// Documents of capped collections that later ones overwrote, because the dump holds more than
    /// the collections can.
    pub(super) overwritten: u64,
    /// Users and roles to be merged.
    pub(super) accounts: Accounts,
}

impl Proven {
    /// Adds users and roles to those of the target, once everything else exists.
    pub(super) async fn add_accounts(&self, target: &Target, through: users::Through<'_>, cx: &Context) -> Result<()> {
        if self.accounts.is_empty() {
            return Ok(());
        }
        cx.progress.begin("adding users and roles");
        let merging = Box::pin(users::merge(&target.unstoppable(), through, &self.accounts)).await;
        merging.map_err(|e| e.context("everything else was imported, and the users and roles were not added"))
    }
}

/// A collection that was read back.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) filled: Loaded,
    /// What it must hold.
    pub(super) expected: Content,
    /// What it holds.
    pub(super) content: Content,
}

impl Read {
    /// A collection that is still to be read back, or need not be.
    pub(super) fn of(filled: Loaded, content: Content) -> Self {
        Self { expected: filled.content, filled, content }
    }
}

impl Stage<'_> {
    /// Fills every staged collection, verifies it by reading back, and builds its indexes.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] if one does not hold what the backup holds; [`ErrorKind::Server`] if
    /// a document or an index is refused; others of the server; [`ErrorKind::Damaged`];
    /// [`ErrorKind::Interrupted`].
    pub(super) async fn fill_and_prove(&self) -> Result<Proven> {
        self.loader.cx.progress.begin("filling");
        let (filled, full) = unbounded_channel();
        let filling = self.plan.origin.load(&self.loader, filled);
        let ((mut proven, small), Brought { passed_over, accounts }) =
            tokio::try_join!(Box::pin(self.prove_large(full)), filling)?;

        self.loader.cx.progress.begin("checking");
        self.make_durable().await?;
        let small = Box::pin(self.prove(small)).await?;
        if !self.indexes_later {
            self.loader.cx.progress.begin("building indexes");
            self.build(&small, Which::All).await?;
        }
        proven.extend(small);
        let mut expected = vec![Content::default(); self.plan.specs.len()];
        let mut contents = expected.clone();
        let mut came = vec![Came::default(); expected.len()];
        let mut overwritten = 0;
        for Read { filled, expected: left, content } in proven {
            overwritten += filled.content.documents - left.documents;
            expected[filled.number] = left;
            contents[filled.number] = content;
            came[filled.number] = filled.came;
        }
        let accounts = self.plan.users.as_ref().map(|wanted| accounts.only(wanted)).transpose()?.unwrap_or_default();
        Ok(Proven { expected, contents, came, passed_over, overwritten, accounts })
    }

    /// Waits until all writes are on the disks of a majority.
    pub(super) async fn make_durable(&self) -> Result<()> {
        if self.plan.in_place {
            // A majority had each document on disk when it was acknowledged.
            return Ok(());
        }
        match self.plan.databases().first() {
            Some(database) => self.plan.target.make_durable(database).await,
            None => Ok(()),
        }
    }

    /// Verifies large collections as they become full, and builds their indexes while others are
    /// filled. Returns these, and the rest.
    async fn prove_large(&self, mut full: UnboundedReceiver<Loaded>) -> Result<(Vec<Read>, Vec<Loaded>)> {
        let mut running = FuturesUnordered::new();
        let (mut proven, mut small) = (Vec::new(), Vec::new());
        let mut more = true;
        while more || !running.is_empty() {
            tokio::select! {
                filled = full.recv(), if more => match filled {
                    Some(filled) if filled.content.bytes >= LARGE => running.push(self.prove_one(filled)),
                    Some(filled) => small.push(filled),
                    None => more = false,
                },
                Some(done) = running.next(), if !running.is_empty() => proven.push(done?),
            }
        }
        Ok((proven, small))
    }

    async fn prove_one(&self, filled: Loaded) -> Result<Read> {
        let spec = &self.plan.specs[filled.number];
        if !self.plan.in_place {
            self.plan.target.make_durable(&spec.place.database).await?;
        }
        let check = async {
            let content = self.read_back(&filled).await?;
            self.refuse_differences([Read::of(filled.clone(), content)])
        }
        .boxed();
        if self.indexes_later {
            return check.await.map(|mut read| read.remove(0));
        }
        let this = [Read::of(filled.clone(), filled.content)];
        // Each build keeps one core of the target busy, and the longest build decides. Reading back
        // waits for a free core.
        let (left, mut builds) = watch::channel(spec.indexes.len());
        let checked_beside = async {
            let has_room = |left: &usize| self.target_cores.is_none_or(|cores| (*left as u64) < cores.max(2));
            // If the sender is gone, the builds have ended. The result is a lock and must not be
            // kept.
            let _ended = builds.wait_for(has_room).await.is_err();
            check.await
        }
        .boxed();
        let building = async {
            let built = self.build_telling(&this, Which::Lasting, &left).await;
            left.send_replace(0);
            built
        }
        .boxed();
        let (mut read, ()) = tokio::try_join!(checked_beside, building)?;
        self.build(&this, Which::Expiring).await?;
        Ok(read.remove(0))
    }

    /// Reads these collections back. Fails if any does not hold what it must.
    async fn prove(&self, mut filled: Vec<Loaded>) -> Result<Vec<Read>> {
        filled.sort_by_key(|filled| std::cmp::Reverse(filled.content.bytes));
        let checks = filled.into_iter().map(|filled| async move {
            let content = Box::pin(self.read_back(&filled)).await?;
            Ok::<_, Error>(Read::of(filled, content))
        });
        let found: Vec<Read> = stream::iter(checks).buffer_unordered(self.loader.writers.now).boxed().try_collect().await?;
        self.refuse_differences(found)
    }

    async fn read_back(&self, filled: &Loaded) -> Result<Content> {
        let staged = self.plan.origin.staged(&self.plan.selected[filled.number].collection);
        if self.plan.in_place || staged.is_some_and(|staged| staged.is_proven) {
            return Ok(filled.content);
        }
        // The content of a dump's collections is known only now.
        let spec = self.plan.specs[filled.number].holding(filled.content);
        let item = self.loader.item(&spec, "reading back");
        check::content(&self.plan.target, &spec, &self.loader.cx.cpu, &self.loader.budget, &item).await
    }

    /// Returns the collections if each holds what arrived. A capped one that received more from a
    /// dump than it can hold must hold the last of that.
    fn refuse_differences(&self, found: impl IntoIterator<Item = Read>) -> Result<Vec<Read>> {
        let words = |c: &Content| format!("{} documents of {} bytes with digest {}", c.documents, c.bytes, c.digest());
        let (mut proven, mut differences) = (Vec::new(), Few::default());
        for read in found {
            let Read { filled, content, .. } = &read;
            let overwritten = filled.content.documents.saturating_sub(content.documents);
            let left = filled.first_documents.overwritten(&filled.content, overwritten).unwrap_or(filled.content);
            if left != *content {
                let namespace = &self.plan.specs[filled.number].namespace;
                differences.push(|| format!("{namespace}: expected {}, found {}", words(&filled.content), words(content)));
            }
            proven.push(Read { expected: left, ..read });
        }
        let differences = differences.into_sentences();
        if differences.is_empty() {
            return Ok(proven);
        }
        Err(Error::new(
            ErrorKind::Mismatch,
            format!("the collections read back from the target differ from the backup: {}", differences.join("; ")),
        )
        .hint("something else may be writing to the staging collections: stop it"))
    }

    /// What each collection holds now, in the plan's order.
    pub(super) async fn read_all_back(&self) -> Result<Vec<Content>> {
        let reading = self.plan.specs.iter().map(|spec| async move {
            if !spec.holds_documents() {
                return Ok(Content::default());
            }
            let item = self.loader.item(spec, "reading back");
            check::content(&self.plan.target, spec, &self.loader.cx.cpu, &self.loader.budget, &item).await
        });
        stream::iter(reading).buffered(self.loader.writers.now).boxed().try_collect().await
    }

    /// How many documents each collection has now.
    pub(super) async fn count(&self) -> Result<Vec<u64>> {
        let counts = self.plan.specs.iter().map(|spec| async move {
            if !spec.holds_documents() {
                return Ok(0);
            }
            check::count(&self.plan.target, spec).await
        });
        stream::iter(counts).buffered(self.loader.writers.now).boxed().try_collect().await
    }

    /// Builds indexes of these collections. The error names every index that the target refused.
    pub(super) async fn build(&self, collections: &[Read], which: Which) -> Result<()> {
        self.build_telling(collections, which, &watch::Sender::new(0)).await
    }

    async fn build_telling(&self, collections: &[Read], which: Which, left: &watch::Sender<usize>) -> Result<()> {
        if self.plan.indexes == IndexMode::Skip {
            return Ok(());
        }
        let builds = collections.iter().map(|Read { filled, content, .. }| async move {
            // The number of builds at a time depends on the content.
            let spec = &self.plan.specs[filled.number].holding(*content);
            let item = self.loader.cx.progress.item(format!("{} (indexes)", spec.namespace), spec.indexes.len() as u64, 0);
            let failures = self.builder.build_telling(spec, which, &item, left).await;
            item.finish();
            failures
        });
        let failures: Vec<_> = stream::iter(builds).buffer_unordered(self.loader.writers.now).boxed().try_collect().await?;
        let failures: Vec<_> = failures.into_iter().flatten().collect();
        match indexes::sum_up(&failures) {
            None => Ok(()),
            Some(error) => Err(error.hint(
                "import with [[indexes]] skip to get the documents; build the indexes with [[indexes]] only once the cause \
                     is fixed",
            )),
        }
    }
}
