//! What was proven of a target that follows, and who asked for it: one document beside its
//! position.

use bson::{Document, RawDocumentBuf, doc};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{MAJORITY_LIMIT, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::names::SYNC_DATABASE;

/// The collection with the position.
const COLLECTION: &str = "sync";
/// The `_id` of this document.
const ID: &str = "proof";

/// What was proven of a target.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Proven {
    /// What distinguishes the last request.
    pub asked: Option<String>,
    /// The last request that was answered.
    pub answered: Option<String>,
    /// When the last proof ended.
    pub ended: Option<DateTime<Utc>>,
    /// Whether everything was proven to be the same then.
    pub same: Option<bool>,
    /// How many differences it found.
    pub differences: u64,
    /// The report of the last proof, as JSON.
    pub report: Option<String>,
    /// Why the last request could not be answered by a proof, and what to do.
    pub failed: Option<(String, Option<String>)>,
}

/// What becomes known of a target.
#[derive(Debug)]
pub struct Answer(Document);

fn raw(document: &Document) -> Result<RawDocumentBuf> {
    let defect = |e| Error::new(ErrorKind::Internal, "a proof cannot be written as a document").cause(e);
    RawDocumentBuf::try_from(document).map_err(defect)
}

impl Proven {
    /// What is known of a target.
    ///
    /// # Errors
    /// Server errors.
    pub async fn read(target: &Target) -> Result<Self> {
        let find = doc! { "find": COLLECTION, "filter": { "_id": ID }, "limit": 1 };
        let reply = target.run("reading what was proven", SYNC_DATABASE, raw(&find)?).await?;
        let found = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        let found = found.ok().and_then(|found| found.first()?.as_document());
        Ok(found.map(Self::of).unwrap_or_default())
    }

    fn of(document: &Document) -> Self {
        let text = |field: &str| document.get_str(field).ok().map(str::to_owned);
        Self {
            asked: text("asked"),
            answered: text("answered"),
            ended: document
                .get_datetime("ended")
                .ok()
                .and_then(|ended| DateTime::from_timestamp_millis(ended.timestamp_millis())),
            same: document.get_bool("same").ok(),
            differences: document.get_i64("differences").ok().and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
            report: text("report"),
            failed: text("failed").map(|failed| (failed, text("hint"))),
        }
    }

    /// Asks for a proof. Returns what distinguishes the request.
    ///
    /// # Errors
    /// Server errors.
    pub async fn ask(target: &Target) -> Result<String> {
        let asked = Uuid::new_v4().to_string();
        set(target, "asking for a proof", doc! { "asked": &asked }, doc! {}).await?;
        Ok(asked)
    }
}

impl Answer {
    /// A report, and the most important of it.
    #[must_use]
    pub fn reported(ended: DateTime<Utc>, same: bool, differences: u64, report: String) -> Self {
        let differences = i64::try_from(differences).unwrap_or(i64::MAX);
        let ended = bson::DateTime::from_millis(ended.timestamp_millis());
        Self(doc! { "ended": ended, "same": same, "differences": differences, "report": report })
    }

    /// Why there is no report.
    #[must_use]
    pub fn failed(error: &Error) -> Self {
        Self(doc! { "failed": error.to_string(), "hint": error.hint_text() })
    }

    /// Records it as the answer to a request, if there was one.
    ///
    /// # Errors
    /// Server errors.
    pub async fn record(self, target: &Target, asked: Option<&str>) -> Result<()> {
        let Self(mut fields) = self;
        let mut unset = Document::new();
        if !fields.contains_key("failed") {
            unset.extend(doc! { "failed": 1, "hint": 1 });
        }
        if let Some(asked) = asked {
            fields.insert("answered", asked);
        }
        set(target, "recording what was proven", fields, unset).await
    }
}

async fn set(target: &Target, what: &str, set: Document, unset: Document) -> Result<()> {
    let mut change = doc! { "$set": set };
    if !unset.is_empty() {
        change.insert("$unset", unset);
    }
    let update = doc! {
        "update": COLLECTION,
        "updates": [{ "q": { "_id": ID }, "u": change, "upsert": true }],
        "writeConcern": { "w": "majority", "wtimeout": MAJORITY_LIMIT },
    };
    target.run(what, SYNC_DATABASE, raw(&update)?).await.map(drop)
}
