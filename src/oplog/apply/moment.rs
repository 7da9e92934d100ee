//! Writes a batch to a target: in one transaction together with the position, so that whoever reads
//! the target at one time sees one moment of the source; or, if the target has no transactions, the
//! data first.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use bson::{Document, RawDocumentBuf, rawdoc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use mongodb::ClientSession;
use mongodb::error::Error as DriverError;
use mongodb::options::{Acknowledgment, ReadConcern, TransactionOptions, WriteConcern};

use super::batch::{Batch, Becomes, Change, Changed, updated};
use super::destination::Shared;
use super::lane::Id;
use crate::error::{Error, Result};
use crate::format::document::{self, Writer};
use crate::format::kind;
use crate::mongo::command;
use crate::mongo::failure::{code, code_of, describe};
use crate::names::Namespace;
use crate::sink::insert::{NAMES_ARE_FREE, Repeats, upsert};
use crate::sink::{Problem, Target, write_errors};

/// The most statements and the most bytes in one command.
const COMMAND_DOCUMENTS: usize = 5_000;
const COMMAND_BYTES: usize = 12 * 1024 * 1024;
/// How many documents to look up at a time.
const LOOKED_UP: usize = 1_000;
/// How many look-ups at a time.
const LOOK_UPS: usize = 4;
/// Larger documents are read a few at a time.
const REPLIES: u32 = 1_000;

/// How long an abort may take; what it does not reach is aborted by whoever takes the session.
const ABORT: Duration = Duration::from_secs(5);
/// What a transaction does, in words.
const WHAT: &str = "writing a moment of the source";

/// What a batch makes of the target, ready to be written.
#[derive(Debug)]
pub struct Writes(Vec<Written>);

/// What is written to one collection.
#[derive(Debug)]
struct Written {
    place: Shared,
    deletes: Vec<Id>,
    /// Documents that exist, most likely.
    replaced: Vec<(Id, Vec<u8>)>,
    /// Documents that do not exist, most likely.
    inserts: Vec<(Id, Vec<u8>)>,
}

/// How a batch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As the source wrote it.
    Plain,
    /// All documents that it changes are deleted, and then inserted as they are in the end. So it
    /// does not matter what a unique index refuses on the way, or what of it was written before.
    Anew,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is written.
    Done,
    /// The position is not where it should be: another process has moved it.
    Moved,
    /// A unique index refused it on the way, or a document existed already.
    Duplicate,
    /// It is too large for one transaction.
    TooLarge,
    /// The target ended the transaction: it took too long, or the primary changed.
    Ended,
    /// The transaction was aborted: it may be tried again.
    Aborted,
}

/// What a batch makes of the documents that it changes.
#[derive(Debug)]
pub enum Prepared {
    /// This.
    Writes(Writes),
    /// Only the server can work it out.
    Unclear,
    /// A document that is updated is not in this collection.
    Missing(Namespace),
}

/// Works out what a batch makes of the documents that it changes: reads those that are updated.
///
/// # Errors
/// Server errors; [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) for documents that are
/// none.
pub async fn prepare(target: &Target, batch: Batch) -> Result<Prepared> {
    if batch.is_unclear() {
        return Ok(Prepared::Unclear);
    }
    let collections: Vec<_> = batch.collections().map(|changed| prepare_one(target, changed)).collect();
    let prepared: Vec<One> = stream::iter(collections).buffer_unordered(LOOK_UPS).boxed().try_collect().await?;
    let version = target.connection.version;
    let mut writes = Vec::with_capacity(prepared.len());
    for one in prepared {
        match one {
            One::Missing(namespace) => return Ok(Prepared::Missing(namespace)),
            One::Written(written) if version >= NAMES_ARE_FREE || written.can_be_sent() => writes.push(written),
            One::Written(_) | One::Unclear => return Ok(Prepared::Unclear),
        }
    }
    Ok(Prepared::Writes(Writes(writes)))
}

/// What a batch makes of one collection.
enum One {
    Written(Written),
    Unclear,
    Missing(Namespace),
}

async fn prepare_one(target: &Target, changed: Changed) -> Result<One> {
    let Changed { place, documents } = changed;
    let mut written = Written { place, deletes: Vec::new(), replaced: Vec::new(), inserts: Vec::new() };
    let mut wanted = Vec::new();
    for (id, Change { existed, becomes }) in documents {
        match becomes {
            Becomes::Gone if existed => written.deletes.push(id),
            Becomes::Gone => {}
            Becomes::Whole(document) if existed => written.replaced.push((id, document)),
            Becomes::Whole(document) => written.inserts.push((id, document)),
            Becomes::Updated(updates) if can_be_listed(&id) => wanted.push((id, updates)),
            Becomes::Updated(_) | Becomes::Unclear => return Ok(One::Unclear),
        }
    }
    for some in wanted.chunks(LOOKED_UP) {
        let found = look_up(target, &written.place, some.iter().map(|(id, _)| id)).await?;
        if some.iter().any(|(id, _)| !found.contains_key(id)) {
            return Ok(One::Missing(written.place.namespace.clone()));
        }
        let some: Vec<_> = some.to_vec();
        let after = target.cpu.run(move || {
            let after = some.into_iter().map(|(id, updates)| {
                let Some(document) = found.get(&id) else { return Ok(None) };
                Ok(updated(document, &updates)?.map(|after| (id, after)))
            });
            after.collect::<Result<Option<Vec<_>>>>()
        });
        match after.await? {
            Some(after) => written.replaced.extend(after),
            None => return Ok(One::Unclear),
        }
    }
    Ok(One::Written(written))
}

/// Whether a list of `_id`s in a query means just this one.
fn can_be_listed(id: &Id) -> bool {
    !matches!(id.0, kind::REGEX | kind::ARRAY | kind::NULL | kind::UNDEFINED)
}

async fn look_up(target: &Target, place: &Shared, ids: impl Iterator<Item = &Id>) -> Result<HashMap<Id, Vec<u8>>> {
    let mut list = Writer::default();
    for (number, (kind, id)) in ids.enumerate() {
        list.element(*kind, number.to_string(), id);
    }
    let within = Writer::default().with(kind::ARRAY, "$in", &list.finish()).finish();
    let filter = Writer::default().with(kind::DOCUMENT, "_id", &within).finish();
    let mut find = Writer::default();
    find.string("find", &place.namespace.collection);
    find.document("filter", &filter);
    find.element(kind::INT32, "batchSize", &REPLIES.to_le_bytes());
    find.document("readConcern", rawdoc! { "level": "local" }.as_bytes());
    let find = find.raw()?;
    let database = target.connection.database(&place.namespace.database);
    let what = format!("reading what is updated in {}", place.namespace);
    let asking = || async {
        let asked = command::run_cursor(&database, find.clone()).await;
        asked.map_err(|e| describe(target.connection.role(), &what, e))
    };
    let (documents, _) = target.unless_stopped(command::patiently(asking)).await??;
    let mut found = HashMap::with_capacity(documents.len());
    for document in documents {
        let document = document.into_bytes();
        if let Some((kind, id)) = document::id(&document)? {
            let id = (kind, id.to_vec());
            found.insert(id, document);
        }
    }
    Ok(found)
}

impl Writes {
    /// Writes it in one transaction of this session, which begins with `fence`: an update that must
    /// match.
    ///
    /// # Errors
    /// Server errors that a further try does not help against; [`ErrorKind::Interrupted`].
    ///
    /// [`ErrorKind::Interrupted`]: crate::error::ErrorKind::Interrupted
    pub async fn in_transaction(
        &self,
        target: &Target,
        session: &mut ClientSession,
        manner: Manner,
        fence: (&str, &RawDocumentBuf),
    ) -> Result<Outcome> {
        let commands = self.commands(manner)?;
        let written = target.unless_stopped(transact(target, session, fence, &commands)).await;
        if !matches!(written, Ok(Ok(Outcome::Done))) {
            let _aborted = tokio::time::timeout(ABORT, session.abort_transaction()).await;
        }
        match written? {
            Ok(outcome) => Ok(outcome),
            Err(Failed::Driver(e)) => judge(&e).ok_or_else(|| describe(target.connection.role(), WHAT, e)),
            Err(Failed::Refused(problem)) => Err(problem.error(WHAT)),
            Err(Failed::Broken(e)) => Err(e),
        }
    }

    /// Writes it without a transaction. It may be repeated, in the manner [`Manner::Anew`].
    ///
    /// # Errors
    /// Server errors; [`ErrorKind::Interrupted`].
    ///
    /// [`ErrorKind::Interrupted`]: crate::error::ErrorKind::Interrupted
    pub async fn without_transaction(&self, target: &Target, manner: Manner) -> Result<Outcome> {
        let concern = rawdoc! { "w": 1 };
        for command in self.commands(manner)? {
            let (what, database) = (format!("writing to {}", command.database()), command.database());
            match target.try_run(database, command.raw(Some(&concern))?, Some(command::COMMAND_LIMIT)).await? {
                Ok(reply) => match write_errors(&reply).into_iter().next() {
                    None => {}
                    Some(problem) if problem.is_duplicate() => return Ok(Outcome::Duplicate),
                    Some(problem) => return Err(problem.error(&what)),
                },
                Err(e) if code_of(&e) == Some(code::DUPLICATE_KEY) => return Ok(Outcome::Duplicate),
                Err(e) => return judge(&e).ok_or_else(|| describe(target.connection.role(), &what, e)),
            }
        }
        Ok(Outcome::Done)
    }

    /// The commands that write it, in order.
    fn commands(&self, manner: Manner) -> Result<Vec<Command<'_>>> {
        let mut commands = Vec::new();
        for written in &self.0 {
            written.commands(manner, &mut commands)?;
        }
        Ok(commands)
    }
}

/// Why a transaction failed.
enum Failed {
    Driver(DriverError),
    Refused(Problem),
    Broken(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

impl From<DriverError> for Failed {
    fn from(error: DriverError) -> Self {
        Self::Driver(error)
    }
}

async fn transact(
    target: &Target,
    session: &mut ClientSession,
    (fence_database, fence): (&str, &RawDocumentBuf),
    commands: &[Command<'_>],
) -> Result<Outcome, Failed> {
    let concern = WriteConcern::builder().w(Acknowledgment::Nodes(1)).build();
    let options = TransactionOptions::builder().read_concern(ReadConcern::snapshot()).write_concern(concern).build();
    session.start_transaction().with_options(options).await?;
    let fenced = within(target, session, fence_database, fence.clone()).await?;
    if fenced.get_i32("n").unwrap_or(0) == 0 {
        return Ok(Outcome::Moved);
    }
    for command in commands {
        let reply = within(target, session, command.database(), command.raw(None)?).await?;
        if let Some(problem) = write_errors(&reply).into_iter().next() {
            return meaning(problem.code).ok_or(Failed::Refused(problem));
        }
    }
    session.commit_transaction().await?;
    Ok(Outcome::Done)
}

async fn within(
    target: &Target,
    session: &mut ClientSession,
    database: &str,
    command: RawDocumentBuf,
) -> Result<Document, DriverError> {
    let database = target.connection.database(database);
    let running = database.run_raw_command(command).session(session);
    command::bounded(command::COMMAND_LIMIT, running.into_future()).await
}

/// What an error of a transaction means, if it may be tried again in some way.
fn judge(error: &DriverError) -> Option<Outcome> {
    code_of(error).and_then(meaning).or_else(|| {
        let passes = error.contains_label("TransientTransactionError")
            || error.contains_label("UnknownTransactionCommitResult")
            || crate::mongo::failure::is_transient(error);
        passes.then_some(Outcome::Aborted)
    })
}

/// What the code of an error means, whether of a command or of a statement in it.
fn meaning(code: i32) -> Option<Outcome> {
    match code {
        code::DUPLICATE_KEY => Some(Outcome::Duplicate),
        code::TRANSACTION_TOO_LARGE | code::TRANSACTION_TOO_LARGE_FOR_CACHE => Some(Outcome::TooLarge),
        code::NO_SUCH_TRANSACTION | code::TRANSACTION_TOO_OLD => Some(Outcome::Ended),
        _ => None,
    }
}

/// A command of a batch. Its bytes are made when it is sent: those of all would be as many again as
/// the batch has.
struct Command<'a> {
    place: &'a Shared,
    verb: &'static str,
    field: &'static str,
    statements: Vec<Cow<'a, [u8]>>,
    bytes: usize,
}

impl<'a> Command<'a> {
    /// Adds commands of one kind with these statements, as many as they need.
    fn add(to: &mut Vec<Self>, place: &'a Shared, (verb, field): (&'static str, &'static str), statements: Vec<Cow<'a, [u8]>>) {
        let mut statements = statements.into_iter().peekable();
        while statements.peek().is_some() {
            let (mut some, mut bytes) = (Vec::new(), 0);
            while let Some(statement) =
                statements.next_if(|s| some.is_empty() || (some.len() < COMMAND_DOCUMENTS && bytes + s.len() <= COMMAND_BYTES))
            {
                bytes += statement.len() + 16;
                some.push(statement);
            }
            to.push(Self { place, verb, field, statements: some, bytes });
        }
    }

    fn database(&self) -> &'a str {
        &self.place.namespace.database
    }

    fn raw(&self, concern: Option<&RawDocumentBuf>) -> Result<RawDocumentBuf> {
        let mut command = Writer::with_capacity(self.bytes + 256);
        command.string(self.verb, &self.place.namespace.collection);
        command.bool("ordered", true);
        if self.place.has_rules && self.verb != "delete" {
            command.bool("bypassDocumentValidation", true);
        }
        if let Some(concern) = concern {
            command.document("writeConcern", concern.as_bytes());
        }
        command.documents(self.field, &self.statements);
        command.raw()
    }
}

/// The documents of a collection, by what becomes of them.
struct Sorted<'a> {
    deletes: Vec<&'a Id>,
    replaced: Vec<&'a (Id, Vec<u8>)>,
    inserts: Vec<&'a (Id, Vec<u8>)>,
}

impl Written {
    /// Whether servers before 5.0 take all of its documents.
    fn can_be_sent(&self) -> bool {
        let mut documents = self.replaced.iter().chain(&self.inserts);
        documents.all(|(_, document)| document::has_operator_names(document).is_ok_and(|has| !has))
    }

    fn sorted(&self, manner: Manner) -> Sorted<'_> {
        match manner {
            Manner::Plain => Sorted {
                deletes: self.deletes.iter().collect(),
                replaced: self.replaced.iter().collect(),
                inserts: self.inserts.iter().collect(),
            },
            Manner::Anew => {
                let inserts: Vec<_> = self.replaced.iter().chain(&self.inserts).collect();
                let deletes = self.deletes.iter().chain(inserts.iter().map(|(id, _)| id)).collect();
                Sorted { deletes, replaced: Vec::new(), inserts }
            }
        }
    }

    fn commands<'a>(&'a self, manner: Manner, to: &mut Vec<Command<'a>>) -> Result<()> {
        let Sorted { deletes, replaced, inserts } = self.sorted(manner);
        let (listed, others): (Vec<&Id>, Vec<&Id>) = deletes.into_iter().partition(|id| can_be_listed(id));
        let listed = listed.chunks(LOOKED_UP).map(delete_listed);
        let statements = listed.chain(others.into_iter().map(delete_one)).map(Cow::Owned).collect();
        Command::add(to, &self.place, ("delete", "deletes"), statements);
        let updates = replaced.into_iter().map(|(id, document)| replace(id, document).map(Cow::Owned));
        Command::add(to, &self.place, ("update", "updates"), updates.collect::<Result<_>>()?);
        let (plain, special): (Vec<_>, Vec<_>) = inserts.into_iter().partition(|(_, document)| is_kept_by_insert(document));
        let plain = plain.into_iter().map(|(_, document)| Cow::Borrowed(document.as_slice())).collect();
        Command::add(to, &self.place, ("insert", "documents"), plain);
        let upserts = special.into_iter().map(|(_, document)| upsert(document, Repeats::Refuse).map(Cow::Owned));
        Command::add(to, &self.place, ("update", "updates"), upserts.collect::<Result<_>>()?);
        Ok(())
    }
}

/// Whether an insert stores the document as it is: it moves an `_id` to the front, and replaces
/// empty timestamps.
fn is_kept_by_insert(document: &[u8]) -> bool {
    let first = document::Elements::of(document).ok().and_then(|mut elements| elements.next());
    first.is_some_and(|first| first.is_ok_and(|first| first.name == b"_id"))
        && !document::has_empty_timestamp(document).unwrap_or(true)
}

fn delete_listed(ids: &[&Id]) -> Vec<u8> {
    let mut list = Writer::default();
    for (number, (kind, id)) in ids.iter().enumerate() {
        list.element(*kind, number.to_string(), id);
    }
    let within = Writer::default().with(kind::ARRAY, "$in", &list.finish()).finish();
    let query = Writer::default().with(kind::DOCUMENT, "_id", &within).finish();
    Writer::default().with(kind::DOCUMENT, "q", &query).with(kind::INT32, "limit", &[0; 4]).finish()
}

fn by_id((kind, id): &Id) -> Vec<u8> {
    let equal = Writer::default().with(*kind, "$eq", id).finish();
    Writer::default().with(kind::DOCUMENT, "_id", &equal).finish()
}

fn delete_one(id: &Id) -> Vec<u8> {
    Writer::default().with(kind::DOCUMENT, "q", &by_id(id)).with(kind::INT32, "limit", &1_i32.to_le_bytes()).finish()
}

/// The statement that makes this document of the one with its `_id`, whether that exists or not.
fn replace(id: &Id, document: &[u8]) -> Result<Vec<u8>> {
    // Names at the top that begin with `$` would be taken for operators.
    if !is_kept_by_insert(document) || document::has_operator_names_at_top(document)? {
        return upsert(document, Repeats::Refuse);
    }
    let mut statement = Writer::with_capacity(document.len() + id.1.len() + 64);
    statement.document("q", &by_id(id));
    statement.document("u", document);
    statement.bool("upsert", true);
    Ok(statement.finish())
}
