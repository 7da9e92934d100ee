//! Replaces documents that no server replaces unchanged: the existing documents are copied aside
//! and deleted, and the copies are dropped only once the new ones are in place.
//!
//! Servers before 5.0 refuse names with `$` in everything that an update writes. Others refuse a
//! name with `$` at the top, or replace an empty timestamp. Inserts carry them all. After a crash
//! at any point, the next import finds the staged and the kept documents.

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

/// The most documents to replace at a time.
const AT_A_TIME: usize = 500;
/// The most bytes of documents to replace at a time, unless a single one is larger.
const BYTES_AT_A_TIME: usize = 8 * 1024 * 1024;

/// Replaces documents of one collection.
pub(super) struct Keeper<'a> {
    staged: &'a Staged,
    /// The collection has a validator, which older documents need not meet.
    pub(super) has_rules: bool,
    /// A deletion whose reply was lost must not be executed after the insert.
    settled: Settled,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(target: &Target, staged: &'a Staged, has_rules: bool) -> Self {
        Self { staged, has_rules, settled: Settled::new(target.clone(), "merge") }
    }

    /// Replaces the documents with the same `_id`s by these documents of the batch. Safe to repeat.
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
                keeping.map_err(|e| e.context(format!("keeping the existing documents of {}", self.staged.to)))?;
                self.delete(&old).await?;
            }
        }
        if !wanted.is_empty() {
            let item = Progress::default().item(self.staged.to.to_string(), 0, 0);
            let inserter = standing(self.target(), &self.staged.to, self.has_rules);
            if let Err(refused) = Box::pin(inserter.insert(wanted.concat(), &item)).await {
                // In other cases, the next import finds them and continues.
                if matches!(refused.kind(), ErrorKind::Refused | ErrorKind::Server) && !is_passing(&refused) {
                    Box::pin(self.bring_back(&wanted)).await?;
                }
                return Err(refused.reworded("inserting into", "merging into"));
            }
        }
        if keeps { ddl::drop(self.target(), &kept).await } else { Ok(()) }
    }

    /// Drops everything kept: all replacements are done.
    pub(super) async fn drop_all(&self) -> Result<()> {
        for kept in self.all_kept().await? {
            ddl::drop(self.target(), &kept).await?;
        }
        Ok(())
    }

    /// Removes these documents, as far as they exist, and restores the kept ones.
    async fn bring_back(&self, new: &[&[u8]]) -> Result<()> {
        self.delete(new).await?;
        for kept in self.all_kept().await? {
            let what = format!("restoring the former documents of {}", self.staged.to);
            copy::each_batch(self.target(), &what, &kept, None, |batch| self.bring_back_some(batch)).await?;
            ddl::drop(self.target(), &kept).await?;
        }
        Ok(())
    }

    async fn bring_back_some(&self, batch: Vec<u8>) -> Result<()> {
        let item = Progress::default().item(self.staged.to.to_string(), 0, 0);
        // A document that has the `_id` by now is newer.
        let inserter = standing(self.target(), &self.staged.to, self.has_rules).with_repeats(Repeats::PassOver);
        Box::pin(inserter.insert(batch.clone(), &item)).await?;
        let documents = Documents::of(&batch).collect::<Result<Vec<_>>>()?;
        let mut count = Writer::default();
        count.string("count", &self.staged.to.collection);
        count.document("query", &document::by_ids(documents.iter().copied())?);
        let what = format!("counting the restored documents of {}", self.staged.to);
        let reply = self.target().run(&what, &self.staged.to.database, count.raw()?).await?;
        if catalog::number(&reply, "n") == Some(documents.len() as u64) {
            return Ok(());
        }
        // Not a kind after which a step is given up: the kept documents would be dropped with the
        // rest of staging.
        Err(Error::new(
            ErrorKind::Mismatch,
            format!("a document of {} could not be replaced, and the former document could not be restored", self.staged.to),
        )
        .hint(format!(
            "it is kept in {}.{}*, and the next import tries again: remove documents that conflict with a unique index",
            self.staged.to.database,
            self.prefix()
        )))
    }

    /// Some of the existing documents with an `_id` of these: as many as fit into one reply.
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

    /// Deletes the documents with an `_id` of these.
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

/// An inserter for an existing collection.
pub(super) fn standing(target: &Target, to: &Namespace, has_rules: bool) -> Inserter {
    let spec = CollectionSpec { has_rules, ..CollectionSpec::standing(to.clone()) };
    Inserter::new(target.clone(), Arc::new(spec))
}
