//! Merges documents of a staged collection into an existing one: they replace those with the same
//! `_id`, or only fill gaps.

mod kept;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bson::rawdoc;

use self::kept::{Keeper, standing};
use super::ddl::{self, Standing};
use super::insert::{Repeats, keeps_empty_timestamps};
use super::step::{Staged, in_the_way};
use super::{Attempts, CollectionSpec, Target, check, copy, write_concern_error, write_errors};
use crate::context::lock;
use crate::context::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::{self, Documents, Writer};
use crate::mongo::failure::is_transient_code;
use crate::names::Namespace;

/// The most bytes of documents in one command, unless a single one is larger.
const COMMAND_BYTES: usize = 8 * 1024 * 1024;
/// The most documents in one command; servers accept 100,000.
const COMMAND_DOCUMENTS: usize = 20_000;
/// How many times it may start again because the target's primary changed meanwhile.
const ROUNDS: u32 = 10;
/// The limit of one command.
const UPDATE_LIMIT: Duration = Duration::from_secs(90);

/// What happens to existing documents under an `_id` of the backup.
#[derive(Debug, Clone, Copy)]
pub(super) enum Merging<'a> {
    /// They are replaced.
    Replace,
    /// They stay, and the skipped documents of the backup are counted here.
    Keep(&'a PassedOver),
}

/// The number of documents not added because of an existing one with the same `_id` or a unique
/// index, by collection. It has an entry for every collection that is added to.
#[derive(Debug, Default)]
pub(super) struct PassedOver(Mutex<BTreeMap<Namespace, u64>>);

impl PassedOver {
    /// The count of each collection.
    pub(super) fn into_counts(self) -> BTreeMap<Namespace, u64> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, to: &Namespace, documents: u64) {
        *lock(&self.0).entry(to.clone()).or_default() += documents;
    }
}

/// Merges a staged collection into the existing one under its final name, or finds that this was
/// done.
pub(super) async fn publish(target: &Target, staged: &Staged, merging: Merging<'_>) -> Result<()> {
    for round in 0..ROUNDS {
        let standing = Standing::of(target, &staged.to.database).await?;
        if standing.by_uuid(staged.uuid).is_none() {
            return Ok(());
        }
        let there = standing.get(&staged.to.collection);
        if let Some(other) = there.filter(|c| c.kind != "collection") {
            return Err(in_the_way(&staged.to, &other.kind));
        }
        let has_rules = there.is_some_and(|c| c.options.get("validator").is_ok_and(|v| v.is_some()));
        let before = target.identity().await?;
        match merging {
            Merging::Replace => documents(target, staged, has_rules).await?,
            // Only the first round counts: in later rounds, its own additions already exist.
            Merging::Keep(passed_over) => {
                let counted = missing(target, staged, has_rules).await?;
                if round == 0 {
                    passed_over.count(&staged.to, counted);
                }
            }
        }
        copy::indexes(target, &staged.place, &staged.to).await?;
        target.make_durable(&staged.to.database).await?;
        // Staging is dropped once all of it is known to be elsewhere: it existed all the time, and
        // no change of primary rolled back writes.
        let is_whole = Standing::of(target, &staged.to.database).await?.by_uuid(staged.uuid).is_some();
        if !is_whole {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!("merging into {}: the staging collection was dropped meanwhile", staged.to),
            )
            .hint("something else drops collections in the target: stop it, and run the import again"));
        }
        if target.identity().await? == before {
            // What an earlier run kept and could not finish is replaced now.
            Keeper::new(target, staged, has_rules).drop_all().await?;
            return ddl::drop(target, &staged.place).await;
        }
    }
    Err(Error::new(ErrorKind::Unreachable, format!("merging into {}: the target's primary changes too often", staged.to))
        .hint("the next import finishes it, once the deployment is stable"))
}

/// Puts every staged document into the collection under the final name, in place of the one with
/// the same `_id`, if any. `has_rules` says that the collection has a validator, which older
/// documents need not meet.
///
/// # Errors
/// [`ErrorKind::Server`] if one is refused, for instance by a unique index;
/// [`ErrorKind::Mismatch`] if the server reports fewer documents; other server errors.
async fn documents(target: &Target, staged: &Staged, has_rules: bool) -> Result<()> {
    let keeper = Keeper::new(target, staged, has_rules);
    let what = format!("reading the staged documents of {}", staged.to);
    copy::each_batch(target, &what, &staged.place, Some(staged.uuid), |batch| put(target, &staged.to, batch, &keeper)).await
}

/// Inserts those staged documents into the collection under the final name whose `_id` is new to it
/// and which its unique indexes accept. The others are skipped, as in mongorestore.
async fn missing(target: &Target, staged: &Staged, has_rules: bool) -> Result<u64> {
    let item = Progress::default().item(staged.to.to_string(), 0, 0);
    let inserter = standing(target, &staged.to, has_rules).with_repeats(Repeats::PassOver);
    let all = check::count(target, &CollectionSpec::standing(staged.place.clone())).await?;
    // If reading begins again, earlier additions already exist. So additions are counted, each one
    // once.
    let added = AtomicU64::new(0);
    let what = format!("reading the staged documents of {}", staged.to);
    copy::each_batch(target, &what, &staged.place, Some(staged.uuid), |batch| {
        let documents = Documents::of(&batch).count() as u64;
        let (insertion, added) = (inserter.insert(batch, &item), &added);
        async move {
            let passed_over = insertion.await?.documents;
            added.fetch_add(documents.saturating_sub(passed_over), Ordering::Relaxed);
            Ok(())
        }
    })
    .await?;
    Ok(all.saturating_sub(added.into_inner()))
}

async fn put(target: &Target, to: &Namespace, batch: Vec<u8>, keeper: &Keeper<'_>) -> Result<()> {
    let bypass = keeps_empty_timestamps(target.connection.version);
    let (mut plain, mut special) = (Vec::new(), Vec::new());
    let mut at = 0;
    for document in Documents::of(&batch) {
        let document = document?;
        let place = at..at + document.len();
        at = place.end;
        // A replacement, too, gets the server's time for an empty timestamp, unless the server has
        // an option against that. And a name at its top that begins with `$` counts as an operator.
        let is_special = (!bypass && document::has_empty_timestamp(document)?) || document::has_operator_names_at_top(document)?;
        if is_special { special.push(place) } else { plain.push(place) }
    }
    for part in divide(&plain) {
        special.extend(Box::pin(update(target, to, &batch, part, (bypass, keeper.has_rules))).await?);
    }
    // Boxed apart from the futures around it: unoptimized, all of them together need more than a
    // thread's stack.
    Box::pin(keeper.replace(&batch, &special)).await
}

fn divide(places: &[Range<usize>]) -> Vec<&[Range<usize>]> {
    let (mut parts, mut begin, mut bytes) = (Vec::new(), 0, 0);
    for (number, place) in places.iter().enumerate() {
        if number > begin && (bytes + place.len() > COMMAND_BYTES || number - begin >= COMMAND_DOCUMENTS) {
            parts.push(&places[begin..number]);
            (begin, bytes) = (number, 0);
        }
        bytes += place.len();
    }
    if begin < places.len() {
        parts.push(&places[begin..]);
    }
    parts
}

/// `{q: {_id: {$eq: ID}}, u: DOCUMENT, upsert: true}` for each. Returns those refused for their
/// names.
async fn update(
    target: &Target,
    to: &Namespace,
    batch: &[u8],
    places: &[Range<usize>],
    (keeps_timestamps, has_rules): (bool, bool),
) -> Result<Vec<Range<usize>>> {
    let mut updates = Vec::with_capacity(places.len());
    for place in places {
        let document = &batch[place.clone()];
        let mut update = Writer::with_capacity(document.len() + 96);
        update.document("q", &document::by_id(document)?);
        update.document("u", document);
        update.bool("upsert", true);
        updates.push(update.finish());
    }
    let mut command = Writer::default();
    command.string("update", &to.collection);
    command.bool("ordered", false);
    command.document("writeConcern", rawdoc! { "w": 1 }.as_bytes());
    if has_rules {
        command.bool("bypassDocumentValidation", true);
    }
    if keeps_timestamps {
        command.bool("bypassEmptyTsReplacement", true);
    }
    command.documents("updates", updates.iter().map(Vec::as_slice));
    let command = command.raw()?;
    let what = format!("merging into {to}");
    let mut attempts = Attempts::new(target, &what);
    loop {
        match target.try_run(&to.database, command.clone(), Some(UPDATE_LIMIT)).await? {
            Ok(reply) => {
                let (names, errors): (Vec<_>, Vec<_>) = write_errors(&reply).into_iter().partition(|p| is_of_a_name(p.code));
                let problems: Vec<_> = errors.into_iter().chain(write_concern_error(&reply)).collect();
                if let Some(refused) = problems.iter().find(|p| !is_transient_code(p.code)) {
                    return Err(refused.error(&what));
                }
                match problems.into_iter().next() {
                    Some(problem) => attempts.again_after(problem).await?,
                    None => {
                        counted(&reply, places.len() - names.len(), &what)?;
                        return Ok(names.iter().filter_map(|p| places.get(p.index).cloned()).collect());
                    }
                }
            }
            Err(e) => attempts.again(e).await?,
        }
    }
}

fn counted(reply: &bson::Document, sent: usize, what: &str) -> Result<()> {
    let taken = crate::mongo::catalog::number(reply, "n").unwrap_or(0);
    if taken == sent as u64 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Mismatch, format!("{what}: {sent} documents were sent, but the server reports {taken}")))
}

/// Whether a server refuses an update because of a name in the document, or because of an
/// incomplete reference. Before 5.0, servers check nested names too. They do not check an insert
/// like that.
fn is_of_a_name(code: i32) -> bool {
    // DollarPrefixedFieldName, InvalidIdField, NotSingleValueField, InvalidDBRef, EmptyFieldName,
    // DottedFieldName.
    (52..=57).contains(&code)
}
