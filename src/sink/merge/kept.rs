//! Documents put in the place of others that no server replaces as they are: what stands there is kept beside, deleted, and dropped
//! only once the new ones are in its place.
//!
//! Servers before 5.0 refuse names with `$` in all that an update writes, others a name with `$` at the top, or replace an empty
//! timestamp; inserts carry them all. Whatever dies in between, the next import finds the staged documents and those that were kept.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use bson::{RawDocumentBuf, rawdoc};
use uuid::Uuid;

use super::super::ddl::{self, Standing};
use super::super::insert::{Inserter, Repeats};
use super::super::settle::Settled;
use super::super::step::Staged;
use super::super::{Attempts, CollectionSpec, Target, copy};
use crate::context::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::{self, Documents, Writer};
use crate::format::kind;
use crate::mongo::failure::is_passing;
use crate::mongo::{catalog, command};
use crate::names::Namespace;

/// The most documents that are replaced at a time.
const AT_A_TIME: usize = 500;
/// The most bytes of them, unless a single one is larger.
const BYTES_AT_A_TIME: usize = 8 * 1024 * 1024;

/// Replaces documents of one collection.
pub(super) struct Keeper<'a> {
    staged: &'a Staged,
    /// The collection has a validator, which documents that were there before it need not meet.
    pub(super) has_rules: bool,
    /// A deletion whose reply was lost must not be carried out after what is inserted.
    settled: Settled,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(target: &Target, staged: &'a Staged, has_rules: bool) -> Self {
        Self { staged, has_rules, settled: Settled::new(target.clone(), "merge") }
    }

    /// Puts these documents of the batch in the place of those with their `_id`s. It may be repeated.
    pub(super) async fn replace(&self, batch: &[u8], places: &[Range<usize>]) -> Result<()> {
        let (mut some, mut bytes): (Vec<&[u8]>, usize) = (Vec::new(), 0);
        for document in places.iter().map(|place| &batch[place.clone()]) {
            if some.len() == AT_A_TIME || (!some.is_empty() && bytes + document.len() > BYTES_AT_A_TIME) {
                self.replace_some(std::mem::take(&mut some)).await?;
                bytes = 0;
            }
            bytes += document.len();
            some.push(document);
        }
        self.replace_some(some).await
    }

    async fn replace_some(&self, mut wanted: Vec<&[u8]>) -> Result<()> {
        let name = format!("{}{}", self.prefix(), &Uuid::new_v4().simple().to_string()[..8]);
        let kept = Namespace::new(&*self.staged.to.database, name);
        let mut keeps = false;
        while !wanted.is_empty() {
            let found = self.find(&wanted).await?;
            if found.is_empty() {
                break;
            }
            let new: HashSet<&[u8]> = wanted.iter().copied().collect();
            let (same, old): (Vec<_>, Vec<_>) = found.iter().map(|f| f.as_bytes()).partition(|found| new.contains(found));
            let same: HashSet<&[u8]> = same.into_iter().collect();
            wanted.retain(|document| !same.contains(document));
            if !old.is_empty() {
                keeps = true;
                let item = Progress::default().item(kept.to_string(), 0, 0);
                let keeping = Box::pin(standing(self.target(), &kept, false).insert(old.concat(), &item)).await;
                keeping.map_err(|e| e.context(format!("keeping what stands in {}", self.staged.to)))?;
                self.delete(&old).await?;
            }
        }
        if !wanted.is_empty() {
            let item = Progress::default().item(self.staged.to.to_string(), 0, 0);
            let inserter = standing(self.target(), &self.staged.to, self.has_rules);
            if let Err(refused) = Box::pin(inserter.insert(wanted.concat(), &item)).await {
                // Else the next import finds them, and goes on.
                if matches!(refused.kind(), ErrorKind::Refused | ErrorKind::Server) && !is_passing(&refused) {
                    Box::pin(self.bring_back(&wanted)).await?;
                }
                return Err(refused.reworded("inserting into", "merging into"));
            }
        }
        if keeps { ddl::drop(self.target(), &kept).await } else { Ok(()) }
    }

    /// Drops all that is kept: everything that was to be replaced is.
    pub(super) async fn drop_all(&self) -> Result<()> {
        for kept in self.all_kept().await? {
            ddl::drop(self.target(), &kept).await?;
        }
        Ok(())
    }

    /// Takes these documents out, as far as they are there, and brings back what was kept.
    async fn bring_back(&self, new: &[&[u8]]) -> Result<()> {
        self.delete(new).await?;
        for kept in self.all_kept().await? {
            let what = format!("bringing back what stood in {}", self.staged.to);
            copy::each_batch(self.target(), &what, &kept, None, |batch| self.bring_back_some(batch)).await?;
            ddl::drop(self.target(), &kept).await?;
        }
        Ok(())
    }

    async fn bring_back_some(&self, batch: Vec<u8>) -> Result<()> {
        let item = Progress::default().item(self.staged.to.to_string(), 0, 0);
        // Who has the `_id` by now is newer.
        let inserter = standing(self.target(), &self.staged.to, self.has_rules).with_repeats(Repeats::PassOver);
        Box::pin(inserter.insert(batch.clone(), &item)).await?;
        let documents = Documents::of(&batch).collect::<Result<Vec<_>>>()?;
        let mut count = Writer::default();
        count.string("count", &self.staged.to.collection);
        count.document("query", &document::by_ids(documents.iter().copied())?);
        let what = format!("looking for what was brought back into {}", self.staged.to);
        let reply = self.target().run(&what, &self.staged.to.database, count.raw()?).await?;
        if catalog::number(&reply, "n") == Some(documents.len() as u64) {
            return Ok(());
        }
        // Of no kind after which a step is given up: what is kept would go with the rest of the staging.
        Err(Error::new(
            ErrorKind::Mismatch,
            format!("a document of {} could not be replaced, and what stood there could not be brought back", self.staged.to),
        )
        .hint(format!(
            "it is kept in {}.{}*, and the next import tries again: remove what is in the way of a unique index",
            self.staged.to.database,
            self.prefix()
        )))
    }

    /// Some of the documents that stand there with an `_id` of these: as many as fit into one reply.
    async fn find(&self, documents: &[&[u8]]) -> Result<Vec<RawDocumentBuf>> {
        let mut find = Writer::default();
        find.string("find", &self.staged.to.collection);
        find.document("filter", &document::by_ids(documents.iter().copied())?);
        find.element(kind::INT32, "batchSize", &1000i32.to_le_bytes());
        find.bool("singleBatch", true);
        let find = find.raw()?;
        let what = format!("merging into {}", self.staged.to);
        let database = self.target().connection.database(&self.staged.to.database);
        let mut attempts = Attempts::new(self.target(), &what);
        loop {
            match self.target().unless_stopped(command::run_cursor(&database, find.clone())).await? {
                Ok((found, _)) => return Ok(found),
                Err(e) => attempts.again(e).await?,
            }
        }
    }

    /// Deletes what has an `_id` of these.
    async fn delete(&self, documents: &[&[u8]]) -> Result<()> {
        let mut delete = Writer::default();
        delete.document("q", &document::by_ids(documents.iter().copied())?);
        delete.element(kind::INT32, "limit", &0i32.to_le_bytes());
        let delete = delete.finish();
        let mut command = Writer::default();
        command.string("delete", &self.staged.to.collection);
        command.documents("deletes", [delete.as_slice()]);
        command.document("writeConcern", rawdoc! { "w": 1 }.as_bytes());
        command.string("comment", &self.settled.comment);
        let what = format!("merging into {}", self.staged.to);
        self.settled.write(&what, &self.staged.to.database, command.raw()?).await.map(|_| ())
    }

    fn target(&self) -> &Target {
        &self.settled.target
    }

    fn prefix(&self) -> String {
        format!("{}.kept.", self.staged.place.collection)
    }

    async fn all_kept(&self) -> Result<Vec<Namespace>> {
        let (database, prefix) = (&*self.staged.to.database, self.prefix());
        let standing = Standing::of(self.target(), database).await?;
        let kept = standing.iter().filter(|c| c.name.starts_with(&prefix));
        Ok(kept.map(|c| Namespace::new(database, &*c.name)).collect())
    }
}

/// What inserts into a collection that stands there.
pub(super) fn standing(target: &Target, to: &Namespace, has_rules: bool) -> Inserter {
    let spec = CollectionSpec { has_rules, ..CollectionSpec::standing(to.clone()) };
    Inserter::new(target.clone(), Arc::new(spec))
}
