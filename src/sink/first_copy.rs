//! What of a first copy is in a target already: where each collection is staged, and which parts of
//! it are there. A copy that was interrupted goes on from that.
//!
//! One document for the copy, one for each collection, and one for each part that is there, in
//! `bsonvault.sync.copy`.

use std::collections::BTreeSet;

use bson::{Document, RawDocument, RawDocumentBuf, doc};
use uuid::Uuid;

use super::Target;
use super::synced::{concern, internal, position, raw, source_id, time, timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::format::checkpoint::Part;
use crate::format::digest::{Content, ContentDigest};
use crate::format::document::{self, Writer};
use crate::format::manifest::{ClusterTime, Collection, OplogPosition};
use crate::mongo::{command, failure};
use crate::names::{Namespace, SYNC_DATABASE};

/// The collection with all of it.
const COPY: &str = "sync.copy";
/// The `_id` of the document for the copy.
const ID: &str = "copy";
/// The version of these documents.
const VERSION: i32 = 1;
/// How many documents are written at a time.
const AT_A_TIME: usize = 500;

/// A first copy, as far as it is made.
#[derive(Debug, Clone, PartialEq)]
pub struct FirstCopy {
    /// The first entry of the oplog that it needs.
    pub from: OplogPosition,
    /// When the source was listed: everything is read at this time or later.
    pub listed_at: ClusterTime,
    /// What was listed.
    pub collections: Vec<CopiedCollection>,
    /// The parts that are there.
    pub ranges: Vec<CopiedRange>,
}

/// A collection, time series or view that is copied.
#[derive(Debug, Clone, PartialEq)]
pub struct CopiedCollection {
    /// As it was listed. Has no segments.
    pub source: Collection,
    /// As it is staged, if its options were changed since.
    pub altered: Option<Collection>,
    /// Its staging: the name, and the UUID of the collection with the documents. Views have none.
    pub staged: Option<(Namespace, Uuid)>,
    /// Its parts.
    pub ranges: Vec<Part>,
    /// It was read back, and held what was read. It may hold what came later since.
    pub is_proven: bool,
}

/// A part of a collection that is in its staging, durably.
#[derive(Debug, Clone, PartialEq)]
pub struct CopiedRange {
    /// The UUID of the collection in the source.
    pub of: Uuid,
    /// Which of its parts.
    pub number: usize,
    /// What was read of it.
    pub content: Content,
    /// Until when it was read.
    pub end: Option<ClusterTime>,
    /// The `_id` of its last document: type byte and value.
    pub last: Option<(u8, Vec<u8>)>,
}

fn broken() -> Error {
    Error::damaged(format!("{SYNC_DATABASE}.{COPY} of the target is not what `sync` writes"))
        .hint(format!("somebody changed it, or a newer version wrote it; drop the database {SYNC_DATABASE}, and begin anew"))
}

impl FirstCopy {
    /// What is recorded; `None` if no first copy was begun.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if it is not what this program writes; server
    /// errors.
    pub async fn read(target: &Target) -> Result<Option<Self>> {
        let database = target.connection.database(SYNC_DATABASE);
        let find = raw(&doc! { "find": COPY, "filter": {}, "sort": { "_id": 1 } })?;
        let asking = || async {
            let asked = command::run_cursor(&database, find.clone()).await;
            asked.map_err(|e| failure::describe(target.connection.role(), "reading what is copied already", e))
        };
        let (found, _) = target.unless_stopped(command::patiently(asking)).await??;
        let (mut head, mut collections, mut ranges) = (None, Vec::new(), Vec::new());
        for document in &found {
            match document.get_str("kind") {
                Ok("copy") => head = Some(Self::head(document)?),
                Ok("collection") => collections.push(CopiedCollection::of(document)?),
                Ok("range") => ranges.push(CopiedRange::of(document)?),
                _ => return Err(broken()),
            }
        }
        // The head is written last: without it, the copy was never begun.
        let Some((from, listed_at, count)) = head else { return Ok(None) };
        if collections.len() != count {
            return Err(broken());
        }
        Ok(Some(Self { from, listed_at, collections, ranges }))
    }

    fn head(document: &RawDocument) -> Result<(OplogPosition, ClusterTime, usize)> {
        let document = Document::try_from(document).map_err(|e| broken().cause(e))?;
        if document.get_i32("version").ok() != Some(VERSION) {
            return Err(broken());
        }
        let digest = document.get_str("digest").ok().map(|digest| ContentDigest::try_from(digest.to_owned())).transpose();
        let from = OplogPosition {
            time: time(&document, "at").ok_or_else(broken)?,
            term: document.get_i64("term").ok(),
            digest: digest.map_err(|_| broken())?,
        };
        let count = document.get_i64("collections").ok().and_then(|count| usize::try_from(count).ok());
        Ok((from, time(&document, "listedAt").ok_or_else(broken)?, count.ok_or_else(broken)?))
    }

    /// Records a copy of which nothing is there yet, in place of any other one.
    ///
    /// # Errors
    /// Server errors.
    pub async fn begin(&self, target: &Target) -> Result<()> {
        Self::forget(target).await?;
        let documents = self.collections.iter().map(CopiedCollection::document).collect::<Result<Vec<_>>>()?;
        put(target, documents).await?;
        let mut head = doc! { "_id": ID, "kind": "copy", "version": VERSION, "listedAt": timestamp(self.listed_at) };
        head.extend(position(&self.from, None));
        head.insert("collections", i64::try_from(self.collections.len()).map_err(internal)?);
        put(target, vec![head]).await
    }

    /// Records that everything was read back, and held what was read.
    ///
    /// # Errors
    /// Server errors.
    pub async fn set_proven(target: &Target) -> Result<()> {
        let update = doc! {
            "update": COPY,
            "updates": [{ "q": { "kind": "collection" }, "u": { "$set": { "proven": true } }, "multi": true }],
            "writeConcern": concern(),
        };
        target.run("recording what is copied", SYNC_DATABASE, raw(&update)?).await.map(drop)
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// Server errors.
    pub async fn forget(target: &Target) -> Result<()> {
        super::ddl::drop(target, &Namespace::new(SYNC_DATABASE, COPY)).await
    }

    /// The parts of a collection that are there.
    pub fn ranges_of(&self, collection: Uuid) -> impl Iterator<Item = &CopiedRange> {
        self.ranges.iter().filter(move |range| range.of == collection)
    }

    /// The databases of the target with its staging.
    #[must_use]
    pub fn databases(&self) -> BTreeSet<String> {
        self.collections.iter().filter_map(|one| Some(one.staged.as_ref()?.0.database.clone())).collect()
    }

    /// Until when anything of it was read.
    #[must_use]
    pub fn read_until(&self) -> ClusterTime {
        self.ranges.iter().filter_map(|range| range.end).fold(self.listed_at, ClusterTime::max)
    }
}

impl CopiedCollection {
    fn of(document: &RawDocument) -> Result<Self> {
        let text = |field: &str| document.get_str(field).ok();
        let read = |field: &str| text(field).map(serde_json::from_str).transpose().map_err(|e| broken().cause(e));
        let place = text("database").zip(text("collection")).map(|(database, collection)| Namespace::new(database, collection));
        let uuid = text("uuid").map(str::parse).transpose().map_err(|_| broken())?;
        let ranges = text("ranges").map(serde_json::from_str).transpose().map_err(|e| broken().cause(e))?;
        Ok(Self {
            source: read("source")?.ok_or_else(broken)?,
            altered: read("altered")?,
            staged: place.zip(uuid),
            ranges: ranges.unwrap_or_default(),
            is_proven: document.get_bool("proven").unwrap_or(false),
        })
    }

    fn document(&self) -> Result<Document> {
        let json = |collection: &Collection| serde_json::to_string(collection).map_err(internal);
        let mut document = doc! { "_id": source_id(&self.source), "kind": "collection", "source": json(&self.source)? };
        if let Some(altered) = &self.altered {
            document.insert("altered", json(altered)?);
        }
        if let Some((place, uuid)) = &self.staged {
            document.extend(doc! {
                "database": &place.database, "collection": &place.collection, "uuid": uuid.to_string(),
            });
        }
        document.insert("ranges", serde_json::to_string(&self.ranges).map_err(internal)?);
        document.insert("proven", self.is_proven);
        Ok(document)
    }

    /// Records these as they are now.
    ///
    /// # Errors
    /// Server errors.
    pub async fn record(target: &Target, changed: &[Self]) -> Result<()> {
        put(target, changed.iter().map(Self::document).collect::<Result<_>>()?).await
    }

    /// Records this, of which nothing is there any more.
    ///
    /// # Errors
    /// Server errors.
    pub async fn begin_again(&self, target: &Target) -> Result<()> {
        let Some(uuid) = self.source.uuid else { return Ok(()) };
        let delete = doc! {
            "delete": COPY, "deletes": [{ "q": { "kind": "range", "of": uuid.to_string() }, "limit": 0 }],
            "writeConcern": concern(),
        };
        target.run("recording what is copied", SYNC_DATABASE, raw(&delete)?).await?;
        put(target, vec![self.document()?]).await
    }
}

impl CopiedRange {
    /// Records parts that are there. They must be durable.
    ///
    /// # Errors
    /// Server errors.
    pub async fn record(target: &Target, ranges: &[Self]) -> Result<()> {
        put(target, ranges.iter().map(Self::document).collect::<Result<_>>()?).await
    }

    fn of(document: &RawDocument) -> Result<Self> {
        let number = |field: &str| document.get_i64(field).ok().and_then(|number| u64::try_from(number).ok()).ok_or_else(broken);
        let of = document.get_str("of").ok().and_then(|of| of.parse().ok()).ok_or_else(broken)?;
        let digest = document.get_str("digest").map_err(|_| broken())?.to_owned();
        let sum = ContentDigest::try_from(digest).map_err(|_| broken())?.0;
        let id = |bytes| document::id(bytes).ok().flatten().map(|(kind, value)| (kind, value.to_vec())).ok_or_else(broken);
        let last = document.get_binary("last").ok().map(|last| id(last.bytes)).transpose()?;
        Ok(Self {
            of,
            number: usize::try_from(number("range")?).map_err(|_| broken())?,
            content: Content { documents: number("documents")?, bytes: number("bytes")?, sum },
            end: document.get_timestamp("end").ok().map(Into::into),
            last,
        })
    }

    fn document(&self) -> Result<Document> {
        let number = |number: u64| i64::try_from(number).map_err(internal);
        let mut document = doc! {
            "_id": format!("{} {}", self.of, self.number),
            "kind": "range",
            "of": self.of.to_string(),
            "range": number(self.number as u64)?,
            "documents": number(self.content.documents)?,
            "bytes": number(self.content.bytes)?,
            "digest": self.content.digest().to_string(),
            "end": self.end.map(timestamp),
        };
        if let Some((kind, value)) = &self.last {
            // A value that the driver cannot send as such is kept, too.
            let bytes = Writer::default().with(*kind, b"_id", value).finish();
            document.insert("last", bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes });
        }
        Ok(document)
    }
}

/// Writes documents, in place of those with the same `_id`s.
async fn put(target: &Target, documents: Vec<Document>) -> Result<()> {
    for some in documents.chunks(AT_A_TIME) {
        let updates: Vec<Document> =
            some.iter().map(|one| doc! { "q": { "_id": one.get("_id").cloned() }, "u": one.clone(), "upsert": true }).collect();
        let update: RawDocumentBuf = raw(&doc! { "update": COPY, "updates": updates, "writeConcern": concern() })?;
        let reply = target.run("recording what is copied", SYNC_DATABASE, update).await?;
        if let Some(problem) = super::write_errors(&reply).first() {
            return Err(problem.error("recording what is copied"));
        }
        if let Some(problem) = super::write_concern_error(&reply) {
            return Err(Error::new(ErrorKind::Unreachable, problem.error("recording what is copied").to_string()));
        }
    }
    Ok(())
}
