//! What an import restores, and where its documents come from: a backup, or a dump made by
//! mongodump.

use std::fmt;

use futures::FutureExt as _;
use futures::future::{self, BoxFuture};
use tokio::sync::mpsc::UnboundedSender;

use super::dump_source::{Documents, DumpSource};
use super::load::{Brought, Loaded, Loader, StagedBefore};
use super::planned::PlannedPointInTime;
use super::select::Selected;
use super::{documents, load_backup, load_dump};
use crate::context::Context;
use crate::engine::replayed::LastRead;
use crate::engine::verify;
use crate::error::{Error, ErrorKind, Result};
use crate::few::{Few, LISTED};
use crate::format::chain::ReplayRate;
use crate::format::manifest::{ClusterTime, Collection, TEMPORARY};
use crate::interop;
use crate::names::Namespace;
use crate::oplog::chain::ChainRange;
use crate::repository::catalog::Backup;
use crate::sink::Target;

/// How many problems of a damaged backup an error names.
const NAMED_PROBLEMS: usize = 3;

/// A source of documents for an import.
pub trait DocumentSource: fmt::Debug + Send + Sync {
    /// What is known of it in a backup's terms: its oplog, and its collections, whose documents may
    /// be elsewhere.
    fn backup(&self) -> &Backup;

    /// Its name, for people.
    fn name(&self) -> String;

    /// The stored backup, if it is one: it must not be deleted meanwhile, and keeps the result of
    /// the import.
    fn stored(&self) -> Option<&Backup> {
        None
    }

    /// Whether the number of documents is known before they are read.
    fn is_counted(&self) -> bool {
        true
    }

    /// The error if the target's primary changed or restarted, and the documents cannot be loaded a
    /// second time; `None` if they can.
    fn only_once(&self) -> Option<Error> {
        None
    }

    /// Where a collection is staged, if it is before the import begins.
    fn staged(&self, collection: &Collection) -> Option<&StagedBefore> {
        let _none = collection;
        None
    }

    /// Keeps that everything was read back.
    fn proven<'f>(&'f self, target: &'f Target) -> BoxFuture<'f, Result<()>> {
        let _nowhere = target;
        future::ready(Ok(())).boxed()
    }

    /// Whether there are users or roles.
    fn has_users(&self) -> bool {
        false
    }

    /// Collections whose documents are missing.
    fn lost(&self) -> &[Namespace] {
        &[]
    }

    /// In words: what it holds that is not imported, and how ambiguous files were read.
    fn beside(&self) -> Vec<String> {
        Vec::new()
    }

    /// The last document of each capped collection, if known without reading the backup.
    fn last_read(&self) -> Option<&LastRead> {
        None
    }

    /// The time up to which collections were read, if it is not the end of the slice.
    fn read_until(&self) -> Option<ClusterTime> {
        None
    }

    /// What of a point in time the plan tells, if this many entries are replayed.
    fn planned(&self, entries: u64) -> Option<PlannedPointInTime> {
        let _nothing = entries;
        None
    }

    /// Keeps how fast entries were replayed.
    fn replayed(&self, rate: ReplayRate) -> BoxFuture<'_, ()> {
        let _nowhere = rate;
        future::ready(()).boxed()
    }

    /// What an archive has of the time after it, up to the point in time that is restored.
    fn archived(&self) -> Option<&ChainRange> {
        None
    }

    /// The memory that reading it takes, and the description of all its collections, in bytes.
    fn memory(&self) -> u64;

    /// Refuses damaged data, and documents that the target does not accept, as far as that can be
    /// found before documents are loaded.
    fn prove<'f>(&'f self, selected: &'f [Selected<'_>], target: &'f Target, cx: &'f Context) -> BoxFuture<'f, Result<()>>;

    /// Loads the documents of all collections of the plan. Returns once the target has accepted
    /// every one. Sends each collection to `filled` once it is full.
    fn load<'f>(&'f self, loader: &'f Loader<'_>, filled: UnboundedSender<Loaded>) -> BoxFuture<'f, Result<Brought>>;
}

impl DocumentSource for Backup {
    fn backup(&self) -> &Backup {
        self
    }

    fn name(&self) -> String {
        self.manifest.name.to_string()
    }

    fn stored(&self) -> Option<&Backup> {
        Some(self)
    }

    fn memory(&self) -> u64 {
        self.manifest.memory()
    }

    fn prove<'f>(&'f self, selected: &'f [Selected<'_>], target: &'f Target, cx: &'f Context) -> BoxFuture<'f, Result<()>> {
        let proving = async move {
            cx.progress.begin("proving the backup");
            refuse_damaged(self, cx).await?;
            documents::refuse(self, selected, target, cx).await
        };
        proving.boxed()
    }

    fn load<'f>(&'f self, loader: &'f Loader<'_>, filled: UnboundedSender<Loaded>) -> BoxFuture<'f, Result<Brought>> {
        load_backup::load(self, loader, filled).boxed()
    }
}

/// A dump is verified while it is read, before anything is published. A dump that can be read only
/// once was copied to a backup, which stands for it.
impl DocumentSource for DumpSource {
    fn backup(&self) -> &Backup {
        &self.backup
    }

    fn name(&self) -> String {
        self.location()
    }

    fn is_counted(&self) -> bool {
        matches!(self.documents, Documents::InBackup(_))
    }

    fn only_once(&self) -> Option<Error> {
        let can_be_read_again = self.is_counted() || self.dump().can_be_read_again();
        (!can_be_read_again).then(|| {
            let what = "the target's primary changed or restarted, and an archive on standard input can be read only once";
            Error::new(ErrorKind::Unreachable, what).hint("save the archive to a file, and import that")
        })
    }

    fn has_users(&self) -> bool {
        self.dump().has_users()
    }

    fn lost(&self) -> &[Namespace] {
        self.dump().missing()
    }

    fn beside(&self) -> Vec<String> {
        // A dump that was copied has its temporary collections skipped already.
        let temporary = self.backup.manifest.left_out.iter().filter(|l| l.reason == TEMPORARY);
        let left_out = self.dump().left_out().iter().chain(temporary);
        let left_out = left_out.map(|l| format!("{}: {}", Namespace::new(&*l.database, &*l.collection), l.reason));
        let mut beside = Few::up_to(LISTED);
        beside.extend(left_out.chain(self.dump().notes().iter().cloned()));
        beside.into_sentences()
    }

    fn last_read(&self) -> Option<&LastRead> {
        match &self.documents {
            Documents::InDump(last_read) => Some(last_read),
            Documents::InBackup(_) => None,
        }
    }

    fn memory(&self) -> u64 {
        match self.documents {
            Documents::InDump(_) => interop::READING_BYTES + self.dump().taken(),
            Documents::InBackup(_) => self.backup.memory(),
        }
    }

    fn prove<'f>(&'f self, selected: &'f [Selected<'_>], target: &'f Target, cx: &'f Context) -> BoxFuture<'f, Result<()>> {
        match self.documents {
            Documents::InDump(_) => future::ready(Ok(())).boxed(),
            Documents::InBackup(_) => self.backup.prove(selected, target, cx),
        }
    }

    fn load<'f>(&'f self, loader: &'f Loader<'_>, filled: UnboundedSender<Loaded>) -> BoxFuture<'f, Result<Brought>> {
        match &self.documents {
            Documents::InDump(_) => load_dump::load(self, loader, filled).boxed(),
            Documents::InBackup(accounts) => {
                let loading = self.backup.load(loader, filled);
                async { Ok(Brought { accounts: accounts.clone(), ..loading.await? }) }.boxed()
            }
        }
    }
}

async fn refuse_damaged(backup: &Backup, cx: &Context) -> Result<()> {
    let report = verify::prove(backup, &verify::VerifyOptions::default(), cx).await?;
    if report.is_sound() {
        return Ok(());
    }
    let mut named = Few::up_to(NAMED_PROBLEMS);
    named.extend(report.problems.into_iter().map(|problem| problem.message));
    Err(Error::damaged(format!(
        "backup {} is damaged, and nothing was imported: {}",
        report.name,
        named.into_sentences().join("; ")
    ))
    .hint(
        "import another backup; `bsonvault verify` names every problem of this one; to rescue its intact collections, export \
         them with [[include]] and import the export",
    ))
}
