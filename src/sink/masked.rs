//! Inserts documents that servers before 5.0 cannot take unchanged in a single command.
//!
//! These have a `Timestamp(0, 0)` at the top, which an insert replaces by the server's time, and
//! names inside that begin with `$`, which every update of a whole document refuses. Each is
//! inserted with dates in place of those timestamps. Then the timestamps are set by name alone
//! (seen on 4.4.2: the fields keep their places, in capped collections too). The stored document
//! shows how far an earlier try got.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bson::{RawDocumentBuf, rawdoc};

use super::insert::{Inserter, Repeats, refused};
use super::settle::LIMIT;
use super::{Attempts, CollectionSpec, Problem, Target, indexes, write_concern_error, write_errors};
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::Content;
use crate::format::document::{self, Element, Elements, Writer};
use crate::format::kind;
use crate::mongo::command;
use crate::mongo::failure::{code, is_transient_code};
use crate::names::Namespace;

/// Inserts such a document, if no document has its `_id`.
pub(crate) async fn put(target: &Target, collection: &Namespace, has_rules: bool, document: &[u8]) -> Result<()> {
    let spec = CollectionSpec { has_rules, ..CollectionSpec::standing(collection.clone()) };
    let inserter = Inserter::new(target.clone(), Arc::new(spec));
    inserter.insert_masked(document, &mut Content::default()).await
}

impl Inserter {
    /// Inserts one such document, or finds that it exists. A skipped one is added to `passed_over`.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert); [`ErrorKind::Refused`] if a field cannot be set by its
    /// name.
    pub(super) async fn insert_masked(&self, document: &[u8], passed_over: &mut Content) -> Result<()> {
        let what = format!("inserting into {}", self.spec.namespace);
        let (masked, set) = mask(document).map_err(|e| e.context(what.clone()))?;
        let mut attempts = Attempts::new(&self.target, &what);
        let mut refusal: Option<Problem> = None;
        loop {
            let found = match self.find_equal(document).await? {
                Ok(found) => found,
                Err(e) => {
                    attempts.again(e).await?;
                    continue;
                }
            };
            let command = match (found, refusal.take()) {
                (Some(found), _) if found.as_bytes() == document => return Ok(()),
                (Some(found), _) if found.as_bytes() == masked => {
                    self.statement("update", "updates", &update(document, &set)?)?
                }
                // Another document is in its way.
                (_, Some(problem)) if self.repeats == Repeats::PassOver && problem.code == code::DUPLICATE_KEY => {
                    passed_over.add(document);
                    return Ok(());
                }
                (Some(_), _) if self.repeats == Repeats::PassOver => {
                    passed_over.add(document);
                    return Ok(());
                }
                (_, Some(problem)) => {
                    let (place, name) = (self.spec.place.to_string(), self.spec.namespace.to_string());
                    return Err(refused(&what, &problem, document).reworded(&place, &name));
                }
                (Some(_), None) => {
                    return Err(Error::new(
                        ErrorKind::Server,
                        format!("{what}: a document with the same _id but other content already exists"),
                    )
                    .hint("stop other writers to the target, and run the import again"));
                }
                (None, None) => self.statement("insert", "documents", &masked)?,
            };
            match self.target.try_run(&self.spec.place.database, command, Some(LIMIT)).await? {
                Ok(reply) => match (write_errors(&reply).into_iter().next(), write_concern_error(&reply)) {
                    (None, None) => attempts.progress(),
                    (Some(problem), _) if !is_transient_code(problem.code) => {
                        // Without indexes, it shows whether an index was the reason.
                        if self.spec.indexed.load(Ordering::Relaxed) && problem.may_be_of_an_index() {
                            indexes::take_back(&self.target, &self.spec).await?;
                        } else {
                            refusal = Some(problem);
                        }
                    }
                    (Some(problem), _) | (None, Some(problem)) => attempts.again_after(problem).await?,
                },
                Err(e) => attempts.again(e).await?,
            }
        }
    }

    async fn find_equal(&self, document: &[u8]) -> Result<Result<Option<RawDocumentBuf>, mongodb::error::Error>> {
        let mut find = Writer::default();
        find.string("find", &self.spec.data_collection());
        find.document("filter", &document::by_id(document)?);
        let database = self.target.connection.database(&self.spec.place.database);
        let found = self.target.unless_stopped(command::run_cursor(&database, find.raw()?)).await?;
        Ok(found.map(|(found, _)| found.into_iter().next()))
    }

    fn statement(&self, verb: &str, statements: &str, statement: &[u8]) -> Result<RawDocumentBuf> {
        let mut command = Writer::with_capacity(statement.len() + 256);
        command.string(verb, &self.spec.data_collection());
        command.documents(statements, [statement]);
        command.document("writeConcern", rawdoc! { "w": 1 }.as_bytes());
        // This needs a right of its own, so it is only requested if necessary.
        if self.spec.has_rules {
            command.bool("bypassDocumentValidation", true);
        }
        command.raw()
    }
}

/// The document with dates for its empty timestamps, and `{$set: {NAME: Timestamp(0, 0), ...}}`.
fn mask(document: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let (mut masked, mut set) = (Writer::with_capacity(document.len()), Writer::default());
    for element in Elements::of(document)? {
        let Element { kind, name, value } = element?;
        if kind != kind::TIMESTAMP || value != [0; 8] || name == b"_id" {
            masked.element(kind, name, value);
            continue;
        }
        if name.is_empty() || name.starts_with(b"$") || name.contains(&b'.') {
            return Err(Error::new(
                ErrorKind::Refused,
                "a document holds Timestamp(0, 0) in a field whose name is empty, begins with '$' or has a dot, and names that \
                 begin with '$' inside: servers before 5.0 cannot store it",
            )
            .hint("import into a server of 5.0 or later"));
        }
        masked.element(kind::DATE, name, &[0; 8]);
        set.element(kind::TIMESTAMP, name, &[0; 8]);
    }
    let mut update = Writer::default();
    update.document("$set", &set.finish());
    Ok((masked.finish(), update.finish()))
}

fn update(document: &[u8], set: &[u8]) -> Result<Vec<u8>> {
    let mut update = Writer::default();
    update.document("q", &document::by_id(document)?);
    update.document("u", set);
    Ok(update.finish())
}
