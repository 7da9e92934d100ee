//! Divides a collection into ranges of `_id` without gaps, so that several cursors can read it.
//!
//! A plain `{_id: {$gte: lo, $lt: hi}}` matches values of one BSON type only. `min` and `max` are
//! bounds in the index itself, across types and without checking each document again. They only
//! miss a document whose `_id` is MaxKey, so that is read separately. If a collection has a
//! collation, `$expr` with `$gte` and `$lt` compares in the order of its index, from 5.0 on. The
//! server then checks each document again, which costs it a quarter more CPU time.

use bson::{RawDocumentBuf, rawdoc};

use super::discover::{CollectionInfo, Size};
use crate::error::{Error, Result};
use crate::format::checkpoint::{Part, Raw};
use crate::format::document::{self, Writer};
use crate::format::kind;
use crate::format::manifest::Topology;
use crate::mongo::{Connection, Version, command};

/// A collection below this many bytes is one range.
const SMALL: u64 = 48 * 1024 * 1024;

/// The approximate minimum of bytes that justifies a cursor.
const SMALLEST: u64 = SMALL / 4;

/// The approximate bytes per range of a large collection.
const RANGE: u64 = 256 * 1024 * 1024;

/// The maximum number of ranges per collection.
const MOST: u64 = 2048;

/// Up to this many bytes, the way to find samples does not matter.
const CHEAP_TO_SCAN: u64 = 64 * 1024 * 1024;

/// How many samples to take per bound: more samples make more equal ranges.
const OVERSAMPLING: u64 = 20;

/// The value of an `_id`: its type byte and its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdValue {
    /// The type byte.
    pub kind: u8,
    /// The bytes of the value.
    pub value: Vec<u8>,
}

impl IdValue {
    /// A document with this `_id` and nothing else.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal).
    pub fn document(&self) -> Result<RawDocumentBuf> {
        let bytes = Writer::default().with(self.kind, b"_id", &self.value).finish();
        let defect = |e| Error::new(crate::error::ErrorKind::Internal, "a bound of a range is not a document").cause(e);
        RawDocumentBuf::from_bytes(bytes).map_err(defect)
    }

    /// Whether a command can contain it: the driver cannot send text that is not UTF-8.
    #[must_use]
    pub fn can_be_sent(&self) -> bool {
        self.kind != kind::STRING || self.value.get(4..).is_some_and(|text| std::str::from_utf8(text).is_ok())
    }

    /// Whether it can bound a range. MinKey and MaxKey bound nothing.
    #[must_use]
    pub fn can_bound(&self) -> bool {
        !matches!(self.kind, kind::MIN_KEY | kind::MAX_KEY) && self.can_be_sent()
    }

    /// The `_id` of a document, if it has one.
    #[must_use]
    pub fn of(document: &[u8]) -> Option<Self> {
        document::id(document).ok().flatten().map(|(kind, value)| Self { kind, value: value.to_vec() })
    }
}

/// A part of a collection, and how to query it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Range {
    /// All of it, in storage order.
    Natural,
    /// From `lower` (or the start) up to `upper` (or the end), by `$expr`.
    Expression {
        /// Inclusive.
        lower: Option<IdValue>,
        /// Exclusive.
        upper: Option<IdValue>,
    },
    /// The same by `min` and `max`; the last range omits MaxKey.
    Bounds {
        /// Inclusive.
        lower: Option<IdValue>,
        /// Exclusive.
        upper: Option<IdValue>,
    },
    /// The document whose `_id` is MaxKey, if any.
    MaxKey,
}

impl Range {
    /// The same part, read in the order of `_id` instead of storage order. Without a snapshot, a
    /// document that is deleted and inserted again can appear twice in storage order, but never in
    /// the order of `_id`. And concurrent writes come last in storage order, whatever their `_id`,
    /// so that a rate-limited cursor may follow them forever. Capped collections stay as they are:
    /// their order matters, and nothing is deleted from them. So do those on several shards, which
    /// have an order each.
    #[must_use]
    pub fn in_order(&self, collection: &CollectionInfo, topology: Topology) -> Self {
        match self {
            Self::Natural
                if topology != Topology::Sharded
                    && !collection.is_capped()
                    && !collection.is_clustered()
                    && has_id_index(collection) =>
            {
                Self::Expression { lower: None, upper: None }
            }
            other => other.clone(),
        }
    }

    /// The same part, as it is recorded.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal).
    pub fn part(&self) -> Result<Part> {
        let bound = |id: &Option<IdValue>| id.as_ref().map(|id| id.document().map(Raw)).transpose();
        Ok(match self {
            Self::Natural => Part::Natural,
            Self::Expression { lower, upper } => Part::Expression { lower: bound(lower)?, upper: bound(upper)? },
            Self::Bounds { lower, upper } => Part::Bounds { lower: bound(lower)?, upper: bound(upper)? },
            Self::MaxKey => Part::MaxKey,
        })
    }

    /// The part that was recorded. `None` if a bound has no `_id`.
    #[must_use]
    pub fn of(part: &Part) -> Option<Self> {
        let bound = |raw: &Option<Raw>| match raw {
            Some(raw) => IdValue::of(raw.0.as_bytes()).map(Some),
            None => Some(None),
        };
        Some(match part {
            Part::Natural => Self::Natural,
            Part::Expression { lower, upper } => Self::Expression { lower: bound(lower)?, upper: bound(upper)? },
            Part::Bounds { lower, upper } => Self::Bounds { lower: bound(lower)?, upper: bound(upper)? },
            Part::MaxKey => Self::MaxKey,
        })
    }

    /// The filter of exactly its documents, for commands that take no bounds.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal).
    pub fn filter(&self) -> Result<RawDocumentBuf> {
        let largest = IdValue { kind: kind::MAX_KEY, value: Vec::new() };
        let (lower, upper) = match self {
            Self::Natural => (None, None),
            Self::MaxKey => return largest.document(),
            Self::Expression { lower, upper } => (lower.as_ref(), upper.as_ref()),
            Self::Bounds { lower, upper } => (lower.as_ref(), Some(upper.as_ref().unwrap_or(&largest))),
        };
        let from = lower.map(|id| comparison(b"$gte", id));
        let parts: Vec<_> = from.into_iter().chain(upper.map(|id| comparison(b"$lt", id))).collect();
        let filter = if parts.is_empty() { Writer::default().finish() } else { all_of(&parts) };
        let defect = |e| Error::new(crate::error::ErrorKind::Internal, "the filter of a range is not a document").cause(e);
        RawDocumentBuf::from_bytes(filter).map_err(defect)
    }

    /// The same part, divided at these `_id`s. They are in it, and ascend in the collection's
    /// order. `by_bounds` is the way to divide a whole collection: see [`has_bounds`].
    #[must_use]
    pub fn split(&self, bounds: Vec<IdValue>, by_bounds: bool) -> Vec<Self> {
        let (first, last, by_bounds) = match self {
            Self::MaxKey => return vec![Self::MaxKey],
            Self::Natural => (None, None, by_bounds),
            Self::Expression { lower, upper } => (lower.clone(), upper.clone(), false),
            Self::Bounds { lower, upper } => (lower.clone(), upper.clone(), true),
        };
        let edges: Vec<Option<IdValue>> = [first].into_iter().chain(bounds.into_iter().map(Some)).chain([last]).collect();
        let between = edges.windows(2).map(|edge| {
            let (lower, upper) = (edge[0].clone(), edge[1].clone());
            if by_bounds { Self::Bounds { lower, upper } } else { Self::Expression { lower, upper } }
        });
        let beyond = (by_bounds && *self == Self::Natural).then_some(Self::MaxKey);
        between.chain(beyond).collect()
    }
}

/// Whether parts of a collection can be found by `_id`, and read in its order.
#[must_use]
pub fn has_order(connection: &Connection, collection: &CollectionInfo) -> bool {
    // Before 5.3, hints do not affect scans of clustered collections, and only the buckets of time
    // series are clustered.
    let by_cluster = collection.is_clustered() && connection.version >= Version(5, 3, 0);
    let by_index = !collection.is_clustered() && has_id_index(collection);
    (by_cluster || by_index) && connection.topology != Topology::Sharded
}

/// Whether a collection is divided by `min` and `max`, and not by expressions.
#[must_use]
pub fn has_bounds(connection: &Connection, collection: &CollectionInfo) -> bool {
    let has_collation = matches!(collection.options.get("collation"), Ok(Some(_)));
    collection.is_clustered() || connection.version < Version(5, 0, 0) || !has_collation
}

/// How to divide a collection into ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Division {
    /// The number of concurrent cursors.
    pub readers: usize,
    /// The approximate bytes of a range, if given.
    pub range_bytes: Option<u64>,
    /// Whether to divide the last range again. The server takes far too few samples at the end of
    /// documents inserted in order. The part after the last bound was measured at four times the
    /// size of any other, and its reader ran alone for a quarter of the time.
    pub fine_end: bool,
}

impl Division {
    /// The number of ranges. By default, every reader gets several, so that all end at about the
    /// same time. None is smaller than what justifies a cursor, and none so large that reading it
    /// again would cost much.
    fn parts(self, size: Size) -> u64 {
        let parts = match self.range_bytes {
            Some(bytes) => size.bytes / bytes.max(1),
            None if size.bytes < SMALL || self.readers < 2 => 1,
            None => (size.bytes / RANGE).max(4 * self.readers as u64).min(size.bytes / SMALLEST),
        };
        parts.min(size.documents).min(MOST)
    }
}

/// Divides a collection. If sampling fails or finds too little, the result is one range: only speed
/// depends on it.
pub async fn divide(connection: &Connection, collection: &CollectionInfo, size: Size, how: Division) -> Vec<Range> {
    let whole = vec![Range::Natural];
    let divisible = !collection.is_capped() && has_order(connection, collection);
    let parts = how.parts(size);
    if parts < 2 || !divisible {
        return whole;
    }
    let mut samples = parts * OVERSAMPLING;
    if size.bytes > CHEAP_TO_SCAN {
        // From a twentieth of the documents on, `$sample` reads all of them instead of picking
        // some.
        samples = samples.min((size.documents / 20).saturating_sub(1));
    }
    let parts = parts.min(samples / 2);
    if parts < 2 {
        return whole;
    }
    let last_parts = if how.fine_end { usize::try_from(size.bytes / parts / SMALLEST).unwrap_or(1).max(1) } else { 1 };
    let Some(bounds) = sample(connection, collection, (parts, last_parts), samples).await else { return whole };
    if bounds.is_empty() {
        return whole;
    }
    Range::Natural.split(bounds, has_bounds(connection, collection))
}

/// Which of this many samples, in order, are bounds between `parts` parts of about equal size. The
/// last part is divided again into up to `last_parts`.
fn places(samples: usize, parts: usize, last_parts: usize) -> impl Iterator<Item = usize> {
    let step = samples.div_ceil(parts.max(1)).max(1);
    let last = samples.saturating_sub(1) / step * step;
    let small_step = step.div_ceil(last_parts.max(1));
    (step..last).step_by(step).chain((last.max(step)..samples).step_by(small_step))
}

/// Bounds between `parts` parts of about equal size, ascending in the collection's own order,
/// without duplicates.
async fn sample(
    connection: &Connection,
    collection: &CollectionInfo,
    (parts, last_parts): (u64, usize),
    samples: u64,
) -> Option<Vec<IdValue>> {
    let data = collection.data();
    let samples = i64::try_from(samples).ok()?;
    let aggregate = rawdoc! {
        "aggregate": data.collection.as_str(),
        // The server sorts, by the collection's own collation.
        "pipeline": [ { "$sample": { "size": samples } }, { "$project": { "_id": 1 } }, { "$sort": { "_id": 1 } } ],
        "cursor": { "batchSize": 100_000 },
        "allowDiskUse": false,
    };
    let (documents, _) = command::run_cursor(&connection.documents(&data.database), aggregate).await.ok()?;
    let parts = usize::try_from(parts).ok()?;
    let mut bounds: Vec<IdValue> =
        places(documents.len(), parts, last_parts).filter_map(|at| IdValue::of(documents[at].as_bytes())).collect();
    bounds.dedup();
    bounds.retain(IdValue::can_bound);
    Some(bounds)
}

fn has_id_index(collection: &CollectionInfo) -> bool {
    collection.indexes.iter().any(|index| {
        index.get_document("key").is_ok_and(|key| {
            let mut elements = key.iter();
            let first = elements.next();
            elements.next().is_none()
                && first.is_some_and(|e| e.is_ok_and(|(name, _)| name.as_str() == "_id"))
                && index.get_str("name").is_ok_and(|n| n == "_id_")
        })
    })
}

/// `{$lt: ["$_id", {$literal: id}]}`
pub(super) fn comparison(operator: &[u8], id: &IdValue) -> Vec<u8> {
    let literal = Writer::default().with(id.kind, b"$literal", &id.value).finish();
    let sides = Writer::default().with(kind::STRING, b"0", b"\x05\0\0\0$_id\0").with(kind::DOCUMENT, b"1", &literal).finish();
    Writer::default().with(kind::ARRAY, operator, &sides).finish()
}

/// `{$expr: {$and: [..]}}`, which compares in the collection's order, across types.
pub(super) fn all_of(expressions: &[Vec<u8>]) -> Vec<u8> {
    let and = Writer::default().with(kind::ARRAY, b"$and", &array(expressions)).finish();
    Writer::default().with(kind::DOCUMENT, b"$expr", &and).finish()
}

/// An array of these documents.
pub(super) fn array(documents: &[Vec<u8>]) -> Vec<u8> {
    let mut all = Writer::default();
    for (place, document) in documents.iter().enumerate() {
        all = all.with(kind::DOCUMENT, place.to_string().as_bytes(), document);
    }
    all.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_divided_without_gaps_and_its_kind_and_ends_stay() {
        let id = |n: i32| IdValue { kind: kind::INT32, value: n.to_le_bytes().to_vec() };
        let bounds = |lower: Option<i32>, upper: Option<i32>| Range::Bounds { lower: lower.map(id), upper: upper.map(id) };
        let expression =
            |lower: Option<i32>, upper: Option<i32>| Range::Expression { lower: lower.map(id), upper: upper.map(id) };
        let whole = Range::Natural.split(vec![id(3), id(7)], true);
        assert_eq!(whole, [bounds(None, Some(3)), bounds(Some(3), Some(7)), bounds(Some(7), None), Range::MaxKey]);
        assert_eq!(Range::Natural.split(vec![id(3)], false), [expression(None, Some(3)), expression(Some(3), None)]);
        assert_eq!(bounds(None, Some(9)).split(vec![id(3)], false), [bounds(None, Some(3)), bounds(Some(3), Some(9))]);
        assert_eq!(expression(Some(1), None).split(vec![id(3)], true), [expression(Some(1), Some(3)), expression(Some(3), None)]);
        assert_eq!(Range::MaxKey.split(vec![id(3)], true), [Range::MaxKey]);
        assert_eq!(bounds(None, None).split(Vec::new(), true), [bounds(None, None)]);
    }

    #[test]
    fn a_range_is_recorded_and_filtered_as_it_is_read() {
        let id = |n: i32| IdValue { kind: kind::INT32, value: n.to_le_bytes().to_vec() };
        let compare = |operator: &str, literal: bson::Bson| bson::doc! { operator: ["$_id", { "$literal": literal }] };
        let max = || compare("$lt", bson::Bson::MaxKey);
        for (range, wanted) in [
            (Range::Natural, bson::doc! {}),
            (Range::MaxKey, bson::doc! { "_id": bson::Bson::MaxKey }),
            (
                Range::Bounds { lower: Some(id(3)), upper: None },
                bson::doc! { "$expr": { "$and": [compare("$gte", 3.into()), max()] } },
            ),
            (Range::Bounds { lower: None, upper: None }, bson::doc! { "$expr": { "$and": [max()] } }),
            (
                Range::Expression { lower: Some(id(3)), upper: Some(id(7)) },
                bson::doc! { "$expr": { "$and": [compare("$gte", 3.into()), compare("$lt", 7.into())] } },
            ),
            (Range::Expression { lower: None, upper: None }, bson::doc! {}),
        ] {
            assert_eq!(Range::of(&range.part().unwrap()), Some(range.clone()));
            let filter = bson::Document::try_from(&*range.filter().unwrap()).unwrap();
            assert_eq!(filter, wanted, "{range:?}");
        }
    }

    #[test]
    fn bounds_are_equally_far_apart_and_closer_at_the_end() {
        let of = |samples, parts, last_parts| places(samples, parts, last_parts).collect::<Vec<_>>();
        assert_eq!(of(80, 4, 1), [20, 40, 60]);
        assert_eq!(of(80, 4, 4), [20, 40, 60, 65, 70, 75]);
        assert_eq!(of(80, 4, 3), [20, 40, 60, 67, 74]);
        assert_eq!(of(80, 4, 1000), (20..60).step_by(20).chain(60..80).collect::<Vec<_>>());
        // Fewer samples than requested, one too many, and hardly any.
        assert_eq!(of(41, 4, 2), [11, 22, 33, 39]);
        assert_eq!(of(3, 2, 1), [2]);
        assert_eq!(of(2, 4, 1), [1]);
        assert_eq!(of(1, 4, 1), [0; 0]);
        assert_eq!(of(0, 4, 1), [0; 0]);
    }
}
