//! The record of what an import publishes. It is the decision: once it exists in the target,
//! whoever finds it finishes it.
//!
//! It is stored beside the lease: one document per step, and a header with the number of steps,
//! which is written last. Steps without their header were never decided.
//!
//! Servers before 5.0 check the names in what an update writes, and refuse `$match` in the pipeline
//! of a view. So everything is inserted, and options are stored as bytes (binary, the BSON
//! document), where no server checks names or depth. Records with options as documents, which
//! earlier versions of this program wrote, are also read.

use std::collections::BTreeSet;

use bson::raw::cstr;
use bson::{RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};
use uuid::Uuid;

use super::step::{Keep, Staged, Step};
use super::{Attempts, MAJORITY_LIMIT, Target, write_concern_error, write_errors};
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::{Content, ContentDigest};
use crate::format::document::Writer;
use crate::format::kind;
use crate::mongo::command;
use crate::mongo::failure::{code, describe};
use crate::names::{IMPORT_COLLECTION, Namespace};

/// The most bytes of steps in one command.
const COMMAND_BYTES: usize = 8 * 1024 * 1024;

impl Step {
    fn to_document(&self, id: &str, number: usize) -> Result<RawDocumentBuf> {
        let mut step = Writer::default();
        step.document("_id", rawdoc! { "import": id, "step": i64::try_from(number).unwrap_or(i64::MAX) }.as_bytes());
        let names = |step: &mut Writer, staged: &Staged| {
            step.string("database", &staged.to.database);
            step.string("place", &staged.place.collection);
            step.string("to", &staged.to.collection);
            step.uuid("uuid", staged.uuid.as_bytes());
            step.bool("replaces", staged.replaces);
            keep_to_document(step, staged.keep.as_ref());
        };
        match self {
            Self::Swap(staged) => {
                step.string("kind", "swap");
                names(&mut step, staged);
            }
            Self::Series { staged, options } => {
                step.string("kind", "series");
                names(&mut step, staged);
                step.binary("options", options.as_bytes());
            }
            Self::Merge(staged) => {
                step.string("kind", "merge");
                names(&mut step, staged);
            }
            Self::Add(staged) => {
                step.string("kind", "add");
                names(&mut step, staged);
            }
            Self::View { to, options, replaces, keep } => {
                step.string("kind", "view");
                keep_to_document(&mut step, keep.as_ref());
                step.bool("replaces", *replaces);
                step.string("database", &to.database);
                step.string("to", &to.collection);
                step.binary("options", options.as_bytes());
            }
            Self::Drop { namespace, uuid, keep } => {
                step.string("kind", "drop");
                keep_to_document(&mut step, keep.as_ref());
                step.string("database", &namespace.database);
                step.string("to", &namespace.collection);
                if let Some(known) = uuid {
                    step.uuid("uuid", known.as_bytes());
                }
            }
            Self::Remember { record, id, backup, at } => {
                step.string("kind", "remember");
                step.string("database", &record.database);
                step.string("to", &record.collection);
                step.string("of", id);
                step.string("backup", backup);
                step.element(kind::DATE, "at", &at.timestamp_millis().to_le_bytes());
            }
            Self::Forget { record, id } => {
                step.string("kind", "forget");
                step.string("database", &record.database);
                step.string("to", &record.collection);
                step.string("of", id);
            }
        }
        step.raw()
    }

    fn of_document(document: &RawDocument) -> Option<Self> {
        let database = document.get_str("database").ok()?;
        let to = Namespace::new(database, document.get_str("to").ok()?);
        let uuid = || Uuid::from_slice(document.get_binary("uuid").ok()?.bytes).ok();
        let options = || match document.get("options").ok()?? {
            RawBsonRef::Binary(bytes) => RawDocumentBuf::from_bytes(bytes.bytes.to_vec()).ok(),
            earlier => earlier.as_document().map(RawDocument::to_owned),
        };
        let replaces = || document.get_bool("replaces").ok();
        let staged = |to: &Namespace| {
            let place = Namespace::new(database, document.get_str("place").ok()?);
            Some(Staged { place, to: to.clone(), uuid: uuid()?, replaces: replaces()?, keep: keep_of_document(document)? })
        };
        Some(match document.get_str("kind").ok()? {
            "swap" => Self::Swap(staged(&to)?),
            "series" => Self::Series { staged: staged(&to)?, options: options()? },
            "merge" => Self::Merge(staged(&to)?),
            "add" => Self::Add(staged(&to)?),
            "view" => Self::View { to, options: options()?, replaces: replaces()?, keep: keep_of_document(document)? },
            "drop" => Self::Drop { namespace: to, uuid: uuid(), keep: keep_of_document(document)? },
            "remember" => Self::Remember {
                id: document.get_str("of").ok()?.to_owned(),
                backup: document.get_str("backup").ok()?.to_owned(),
                at: document.get_datetime("at").ok()?,
                record: to,
            },
            "forget" => Self::Forget { id: document.get_str("of").ok()?.to_owned(), record: to },
            _ => return None,
        })
    }
}

fn keep_to_document(step: &mut Writer, keep: Option<&Keep>) {
    let Some(keep) = keep else { return };
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let keep = rawdoc! {
        "of": &*keep.id,
        "home": &*keep.home,
        "number": keep.number,
        "place": &*keep.place.collection,
        "documents": number(keep.imported.documents),
        "bytes": number(keep.imported.bytes),
        "digest": keep.imported.digest().to_string(),
    };
    step.document("keep", keep.as_bytes());
}

/// Where a step keeps what it replaces. `Some(None)` if it keeps nothing; `None` if this cannot be
/// read.
#[expect(clippy::option_option, reason = "it need not be there, and it may be unreadable")]
fn keep_of_document(step: &RawDocument) -> Option<Option<Keep>> {
    let Ok(keep) = step.get_document("keep") else { return Some(None) };
    let number = |field| u64::try_from(keep.get_i64(field).ok()?).ok();
    let digest = ContentDigest::try_from(keep.get_str("digest").ok()?.to_owned()).ok()?;
    Some(Some(Keep {
        id: keep.get_str("of").ok()?.to_owned(),
        home: keep.get_str("home").ok()?.to_owned(),
        number: keep.get_i64("number").ok()?,
        place: Namespace::new(step.get_str("database").ok()?, keep.get_str("place").ok()?),
        imported: Content { documents: number("documents")?, bytes: number("bytes")?, sum: digest.0 },
    }))
}

/// Writes the steps, then the header. On return they are decided, and durable on a majority.
pub(super) async fn write(target: &Target, home: &str, id: &str, steps: &[Step]) -> Result<()> {
    let mut documents = Vec::new();
    let mut bytes = 0;
    for (number, step) in steps.iter().enumerate() {
        let document = step.to_document(id, number)?;
        bytes += document.as_bytes().len();
        documents.push(document);
        if bytes >= COMMAND_BYTES {
            put(target, home, &std::mem::take(&mut documents)).await?;
            bytes = 0;
        }
    }
    put(target, home, &documents).await?;
    let header = rawdoc! { "_id": { "import": id }, "steps": i64::try_from(steps.len()).unwrap_or(i64::MAX) };
    put(target, home, &[header]).await
}

/// Inserts them. Safe to repeat: nobody else writes documents with these `_id`s, so an existing one
/// is the same.
async fn put(target: &Target, home: &str, documents: &[RawDocumentBuf]) -> Result<()> {
    if documents.is_empty() {
        return Ok(());
    }
    let what = format!("writing the record of the import into {home}");
    let mut command = Writer::default();
    command.string("insert", IMPORT_COLLECTION);
    command.bool("ordered", false);
    command.document("writeConcern", rawdoc! { "w": "majority", "j": true, "wtimeout": MAJORITY_LIMIT }.as_bytes());
    command.documents("documents", documents.iter().map(|d| d.as_bytes()));
    let command = command.raw()?;
    let mut attempts = Attempts::new(target, &what);
    loop {
        match target.try_run(home, command.clone(), Some(command::COMMAND_LIMIT)).await? {
            Ok(reply) => {
                let refused = write_errors(&reply).into_iter().find(|problem| problem.code != code::DUPLICATE_KEY);
                match write_concern_error(&reply).or(refused) {
                    None => return Ok(()),
                    Some(problem) => attempts.again_after(problem).await?,
                }
            }
            Err(e) => attempts.again(e).await?,
        }
    }
}

/// The decided steps of an import; `None` if it did not get that far.
pub(super) async fn read(target: &Target, home: &str, id: &str) -> Result<Option<Vec<Step>>> {
    let found = find(target, home, rawdoc! { "_id.import": id }).await?;
    let Some(header) = found.iter().find(|d| d.get("steps").is_ok_and(|steps| steps.is_some())) else { return Ok(None) };
    let steps: Vec<Step> = found.iter().filter_map(|document| Step::of_document(document)).collect();
    if header.get_i64("steps").ok() != i64::try_from(steps.len()).ok() {
        return Err(Error::new(
            ErrorKind::Refused,
            format!("the record of an unfinished import in {home}.{IMPORT_COLLECTION} cannot be read: a part of it is missing, or a newer version wrote it"),
        )
        .hint(format!(
            "inspect it and the collections bsonvault.staging.{id}.*, which hold data that was about to be published; drop them once you need neither"
        )));
    }
    Ok(Some(steps))
}

/// The ids of all imports that have a record in this database, decided or not.
pub(super) async fn ids(target: &Target, database: &str) -> Result<BTreeSet<String>> {
    let found = find(target, database, rawdoc! { "_id.import": { "$exists": true } }).await?;
    let id = |document: &RawDocumentBuf| Some(document.get_document("_id").ok()?.get_str("import").ok()?.to_owned());
    Ok(found.iter().filter_map(id).collect())
}

/// The matching documents in the import's collection of a database.
pub(super) async fn find(target: &Target, database: &str, filter: RawDocumentBuf) -> Result<Vec<RawDocumentBuf>> {
    let what = format!("reading the records of imports in {database}");
    let ask = || async {
        let mut find = rawdoc! { "find": IMPORT_COLLECTION };
        find.append(cstr!("filter"), filter.clone());
        let found = command::run_cursor(&target.connection.database(database), find).await;
        found.map_err(|e| describe(target.connection.role(), &what, e))
    };
    let (found, _) = target.unless_stopped(command::patiently(ask)).await??;
    Ok(found)
}

/// Removes the record of an import.
pub(super) async fn remove(target: &Target, home: &str, id: &str) -> Result<()> {
    // The header first: without it, remaining steps count as never decided.
    for query in [rawdoc! { "_id": { "import": id } }, rawdoc! { "_id.import": id }] {
        let delete = rawdoc! {
            "delete": IMPORT_COLLECTION, "deletes": [{ "q": query, "limit": 0 }], "writeConcern": { "w": "majority", "wtimeout": MAJORITY_LIMIT },
        };
        target.run(&format!("removing the record of the import from {home}"), home, delete).await?;
    }
    Ok(())
}
