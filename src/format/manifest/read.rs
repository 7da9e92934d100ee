//! Reads a manifest: from its bytes, or piece by piece from a file that is too long to be held in
//! memory beside the result. If only the facts shown in lists of backups are wanted, its own lists
//! are skipped and not kept.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use bson::RawDocumentBuf;
use chrono::{DateTime, Utc};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use super::lists::{MOST_COLLECTIONS, MOST_LEFT_OUT, at_most};
use super::{
    Collection, CollectionKind, Consistency, LIMIT, LeftOut, Manifest, NEWEST_VERSION, OplogSlice, RawValue, Settings, Source,
    StoredObject, Tool, Totals,
};
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::{ContentDigest, Hasher, Sha256Hex};
use crate::format::key;
use crate::format::manifest::ClusterTime;
use crate::format::sealed::{digest, last};
use crate::names::BackupName;

/// How much of a file is in memory while it is read piece by piece.
const PIECE: usize = 256 * 1024;

/// The number of last bytes of a file in which its own digest is searched: it is the last field.
const END: u64 = 64 * 1024;

impl Manifest {
    /// Parses and verifies a manifest: version first, then its own digest, then the consistency of
    /// its parts.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if it is not a manifest, has an unknown version, was changed, or
    /// contradicts itself.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|e| why(e, || serde_json::from_slice(bytes)))?;
        known(manifest.format_version)?;
        if digest(bytes, &manifest.sha256) != manifest.sha256 && !cfg!(fuzzing) {
            return Err(changed());
        }
        manifest.check()?;
        Ok(manifest)
    }

    /// The same for one whose text should not be held in memory: it is read twice.
    ///
    /// # Errors
    /// As for [`from_bytes`](Self::from_bytes), and [`ErrorKind::Storage`] if it cannot be read.
    pub fn from_file(file: &mut (impl Read + Seek)) -> Result<Self> {
        let manifest: Self = parsed(file)?;
        prove(file, manifest.format_version, &manifest.sha256)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The parts of a manifest that lists of backups show: everything but skipped collections and
    /// the segments of the oplog slice. It only has the collections that such lists count: time
    /// series, and all those of a dump, with name, kind, UUID and number of documents. Its version
    /// and its digest are verified, but not that its parts agree.
    ///
    /// # Errors
    /// As for [`from_file`](Self::from_file).
    pub fn outline(file: &mut (impl Read + Seek)) -> Result<Self> {
        let outline: Outline = parsed(file)?;
        prove(file, outline.format_version, &outline.sha256)?;
        Ok(outline.into())
    }

    /// Verifies that readers accept these bytes as this manifest. Its lists are not kept, because
    /// they exist already.
    pub(super) fn prove(&self, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 > LIMIT {
            return Err(Error::damaged(format!("it has {} bytes, more than the limit of {LIMIT}", bytes.len())));
        }
        let proof: Proof = serde_json::from_slice(bytes).map_err(|e| why(e, || serde_json::from_slice(bytes)))?;
        known(proof.format_version)?;
        if digest(bytes, &proof.sha256) != proof.sha256 {
            return Err(changed());
        }
        self.check()
    }

    /// Drops the parts that [`outline`](Self::outline) skips.
    #[must_use]
    pub fn without_lists(mut self) -> Self {
        self.left_out = Vec::new();
        let (is_dump, collections) = (self.source.is_dump(), std::mem::take(&mut self.collections));
        self.collections = collections.into_iter().filter_map(|c| Brief::from(c).kept(is_dump)).collect();
        if let Some(slice) = &mut self.oplog {
            slice.segments = Vec::new();
        }
        self
    }
}

/// A value that can be read, and is not kept.
struct Readable<T>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Readable<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        T::deserialize(from).map(|_| Self(std::marker::PhantomData))
    }
}

/// A manifest that can be read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Proof {
    format_version: u32,
    #[serde(rename = "source")]
    _source: Readable<Source>,
    #[serde(rename = "settings")]
    _settings: Readable<Settings>,
    #[serde(rename = "consistency")]
    _consistency: Readable<Consistency>,
    #[serde(rename = "collections", deserialize_with = "at_most::<_, _, MOST_COLLECTIONS>")]
    _collections: Vec<Readable<Collection>>,
    #[serde(rename = "leftOut", deserialize_with = "at_most::<_, _, MOST_LEFT_OUT>")]
    _left_out: Vec<Readable<LeftOut>>,
    #[serde(rename = "oplog", default)]
    _oplog: Option<Readable<OplogSlice>>,
    sha256: Sha256Hex,
}

/// A manifest without its lists.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    format_version: u32,
    tool: Tool,
    id: Uuid,
    name: BackupName,
    source: Source,
    created: DateTime<Utc>,
    started: DateTime<Utc>,
    finished: DateTime<Utc>,
    consistency: Consistency,
    settings: Settings,
    #[serde(deserialize_with = "at_most::<_, _, MOST_COLLECTIONS>")]
    collections: Vec<Brief>,
    #[serde(rename = "leftOut")]
    _left_out: IgnoredAny,
    #[serde(default)]
    oplog: Option<SliceOutline>,
    totals: Totals,
    checksums: Sha256Hex,
    sha256: Sha256Hex,
}

/// A brief collection.
#[derive(Deserialize)]
struct Brief {
    database: String,
    name: String,
    #[serde(rename = "type")]
    kind: CollectionKind,
    uuid: Option<Uuid>,
    documents: u64,
}

impl From<Collection> for Brief {
    fn from(Collection { database, name, kind, uuid, documents, .. }: Collection) -> Self {
        Self { database, name, kind, uuid, documents }
    }
}

impl Brief {
    /// The collection, if lists count it.
    fn kept(self, is_dump: bool) -> Option<Collection> {
        let Self { database, name, kind, uuid, documents } = self;
        (is_dump || kind == CollectionKind::TimeSeries).then(|| Collection {
            database,
            name,
            kind,
            uuid,
            options: RawValue { bson: RawDocumentBuf::new() },
            indexes: Vec::new(),
            metadata: StoredObject { key: String::new(), bytes: 0, sha256: Sha256Hex::zero() },
            documents,
            bytes: 0,
            digest: ContentDigest::default(),
            segments: Vec::new(),
        })
    }
}

/// An oplog slice without its segments.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SliceOutline {
    from: ClusterTime,
    to: ClusterTime,
    documents: u64,
    bytes: u64,
    digest: ContentDigest,
}

impl From<Outline> for Manifest {
    fn from(outline: Outline) -> Self {
        let slice = |SliceOutline { from, to, documents, bytes, digest }: SliceOutline| OplogSlice {
            from,
            to,
            documents,
            bytes,
            digest,
            segments: Vec::new(),
        };
        let is_dump = outline.source.is_dump();
        Self {
            format_version: outline.format_version,
            tool: outline.tool,
            id: outline.id,
            name: outline.name,
            source: outline.source,
            created: outline.created,
            started: outline.started,
            finished: outline.finished,
            consistency: outline.consistency,
            settings: outline.settings,
            collections: outline.collections.into_iter().filter_map(|brief| brief.kept(is_dump)).collect(),
            left_out: Vec::new(),
            oplog: outline.oplog.map(slice),
            totals: outline.totals,
            checksums: outline.checksums,
            sha256: outline.sha256,
        }
    }
}

fn parsed<T: DeserializeOwned>(file: &mut (impl Read + Seek)) -> Result<T> {
    match serde_json::from_reader(begun(file)?) {
        Ok(parsed) => Ok(parsed),
        Err(e) if e.is_io() => Err(unreadable(e.into())),
        Err(e) => {
            let again = begun(file)?;
            Err(why(e, || serde_json::from_reader(again)))
        }
    }
}

fn begun<R: Read + Seek>(file: &mut R) -> Result<BufReader<&mut R>> {
    file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
    Ok(BufReader::with_capacity(PIECE, file))
}

fn prove(file: &mut (impl Read + Seek), version: u32, held: &Sha256Hex) -> Result<()> {
    known(version)?;
    match digest_of(file, held).map_err(unreadable)? {
        Some(found) if found == *held => Ok(()),
        _ if cfg!(fuzzing) => Ok(()),
        _ => Err(changed()),
    }
}

/// [`digest`] of a file; `None` if `held` is not at its end.
fn digest_of(file: &mut (impl Read + Seek), held: &Sha256Hex) -> io::Result<Option<Sha256Hex>> {
    let length = file.seek(SeekFrom::End(0))?;
    let from = length.saturating_sub(END);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.take(END).read_to_end(&mut end)?;
    let Some(at) = last(&end, held) else { return Ok(None) };
    end[at..at + held.as_str().len()].fill(b'0');

    let (mut hasher, mut piece) = (Hasher::default(), vec![0; PIECE]);
    file.seek(SeekFrom::Start(0))?;
    let mut left = from;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        file.read_exact(&mut piece[..most])?;
        hasher.update(&piece[..most]);
        left -= most as u64;
    }
    hasher.update(&end);
    Ok(Some(hasher.finish()))
}

/// What to do about a backup whose manifest is damaged.
const USELESS: &str = "a backup cannot be used without its manifest: use another one, and check the disk";

/// The version of a manifest, whatever else it contains.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    format_version: u32,
}

/// Why a manifest cannot be parsed: an unknown version is a better reason than a syntax error.
fn why(e: serde_json::Error, version: impl FnOnce() -> serde_json::Result<Version>) -> Error {
    match version() {
        Ok(Version { format_version }) => match known(format_version) {
            Ok(()) => no_manifest(e),
            Err(unknown) => unknown,
        },
        Err(e) => no_manifest(e),
    }
}

fn no_manifest(e: serde_json::Error) -> Error {
    Error::damaged(format!("{} cannot be read: {e}", key::MANIFEST)).cause(e).hint(USELESS)
}

fn known(version: u32) -> Result<()> {
    if version == 0 || version > NEWEST_VERSION {
        return Err(Error::damaged(format!(
            "the backup is of format version {version}, and this program reads up to {NEWEST_VERSION}"
        ))
        .hint("use the version of bsonvault that wrote it, or a newer one; if none did, the manifest is damaged"));
    }
    Ok(())
}

fn changed() -> Error {
    Error::damaged(format!("{} was changed after it was written: its SHA-256 does not match", key::MANIFEST)).hint(USELESS)
}

fn unreadable(e: io::Error) -> Error {
    Error::new(ErrorKind::Storage, format!("{} cannot be read: {e}", key::MANIFEST)).cause(e)
}
