//! Finds everything that the target cannot hold, before anything is written.
//!
//! Reasons that follow from the version come from the manifest alone. Whether the target
//! understands the pipelines of views and the rules of collections, it is asked itself, without
//! running anything.

mod queries;

use bson::{RawBsonRef, RawDocument};

use super::{CollectionSpec, Target, same_index};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::few::Few;
use crate::format::document::is_true;
use crate::format::manifest::{Collection, CollectionKind, Source, Topology};
use crate::mongo::{Connection, Version, catalog};
use crate::names::{BUCKETS_PREFIX, Namespace};

/// Refuses a target that, behaving as `version`, cannot hold all of these collections of a backup
/// of `source`, or cannot replay its oplog slice. Only reads.
///
/// # Errors
/// [`ErrorKind::Refused`] with every item and its reason; [`ErrorKind::Unreachable`],
/// [`ErrorKind::Interrupted`].
pub async fn refuse<'a>(
    target: &Target,
    source: &Source,
    collections: impl IntoIterator<Item = &'a Collection>,
    specs: &[CollectionSpec],
    version: Version,
    replays_differences: bool,
) -> Result<()> {
    let wanted = Wanted {
        target: version,
        topology: target.connection.topology,
        source: Version::parse(&source.server_version),
        now: clock::now().timestamp() as f64,
    };
    let mut reasons = Vec::new();
    for (collection, spec) in collections.into_iter().zip(specs) {
        reasons.extend(wanted.reasons(collection, &spec.namespace));
    }
    reasons.extend(queries::not_understood(target, specs).await?);
    if replays_differences && version < Version(5, 0, 0) {
        reasons.push("the oplog slice has updates written as differences, which need a server of 5.0 or later".to_owned());
    }
    match refusal(&target.connection, version, &reasons) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The error that lists these reasons, each of the form `WHAT is WHY`; `None` if there are none.
#[must_use]
pub fn refusal(target: &Connection, behaves_as: Version, reasons: &[String]) -> Option<Error> {
    if reasons.is_empty() {
        return None;
    }
    let named = reasons.iter().cloned().collect::<Few>().into_sentences().join("; ");
    let compatible = if behaves_as == target.version {
        String::new()
    } else {
        format!(" with the feature compatibility version {}.{}", behaves_as.0, behaves_as.1)
    };
    let message = format!("the target, MongoDB {}{compatible}, cannot hold all of the backup: {named}", target.version);
    Some(
        Error::new(ErrorKind::Refused, message)
            .hint("import into a server that can, or take a backup without it ([[`backup exclude`]]); nothing has been changed"),
    )
}

/// The most bytes that `database.collection` may have.
#[must_use]
pub fn longest_namespace(target: Version) -> usize {
    if target < Version(4, 4, 0) { 120 } else { 255 }
}

/// The facts that decide what can be held.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// The version as which the target behaves.
    target: Version,
    topology: Topology,
    /// The version of the server that the backup was taken from, if the manifest names it.
    source: Option<Version>,
    /// In seconds since 1970.
    now: f64,
}

impl Wanted {
    /// Why the target cannot hold this collection, time series or view, or any of its indexes.
    fn reasons(self, collection: &Collection, namespace: &Namespace) -> Vec<String> {
        let options = &collection.options.bson;
        let mut reasons: Vec<String> = self.of_name(collection.kind, namespace).into_iter().collect();
        let series = (collection.kind == CollectionKind::TimeSeries).then(|| options.get_document("timeseries").ok()).flatten();
        if collection.kind == CollectionKind::TimeSeries
            && let Some(reason) = self.of_time_series(series)
        {
            // Without the series, its indexes mean nothing.
            reasons.push(format!("{namespace} {reason}"));
            return reasons;
        }
        let has = |name: &str| options.get(name).ok().flatten().is_some();
        let keeps_images =
            options.get_document("changeStreamPreAndPostImages").and_then(|d| d.get_bool("enabled")).unwrap_or(false);
        let logs_too = options.get_str("validationAction").is_ok_and(|action| action == "errorAndLog");
        let needs = [
            (has("clusteredIndex"), "is a clustered collection", Version(5, 3, 0)),
            (keeps_images, "keeps pre-images for change streams", Version(6, 0, 0)),
            (has("encryptedFields"), "has encrypted fields", Version(6, 0, 0)),
            (logs_too, "has the validation action errorAndLog", Version(8, 1, 0)),
        ];
        reasons.extend(self.lacking(&needs).map(|reason| format!("{namespace} {reason}")));
        if has("encryptedFields") && self.topology == Topology::Standalone {
            reasons.push(format!(
                "{namespace} has encrypted fields, which a replica set can hold (one member is enough), but a standalone server cannot"
            ));
        }
        if collection.kind != CollectionKind::View {
            let mut keys: Vec<(&RawDocument, _)> = Vec::new();
            for index in collection.indexes.iter().map(|index| &*index.bson) {
                let name = catalog::name(index).unwrap_or_else(|| "?".to_owned());
                let (identity, mut is_another) = (identity(index), false);
                // A duplicate index is built once.
                for (other, of) in &keys {
                    is_another |= *of == identity && !same_index::are_one(other, index, false, self.target);
                }
                keys.push((index, identity));
                let of_one_key = [(is_another, "has the key and the collation of another index", Version(5, 0, 0))];
                reasons.extend(self.lacking(&of_one_key).map(|reason| format!("index {name:?} of {namespace} {reason}")));
                reasons.extend(self.of_index(index, series).map(|reason| format!("index {name:?} of {namespace} {reason}")));
            }
        }
        reasons
    }

    fn of_name(self, kind: CollectionKind, namespace: &Namespace) -> Option<String> {
        let longest = longest_namespace(self.target);
        let buckets = if kind == CollectionKind::TimeSeries { BUCKETS_PREFIX.len() } else { 0 };
        let length = namespace.to_string().len() + buckets;
        (length > longest).then(|| {
            format!(
                "{namespace} is longer than the {longest} bytes that the target allows (choose a shorter database name with [[as]])"
            )
        })
    }

    fn of_time_series(self, series: Option<&RawDocument>) -> Option<String> {
        let span = series.is_some_and(|s| s.get("bucketRoundingSeconds").ok().flatten().is_some());
        let needs = [
            (true, "is a time series", Version(5, 0, 0)),
            (span, "is a time series with a custom bucket span", Version(6, 3, 0)),
            // Older servers accept them and fail to read them (seen on 5.0.4).
            (self.comes_from(Version(5, 2, 0)), "is a time series whose buckets may be compressed", Version(5, 2, 0)),
            (self.comes_from(Version(8, 0, 0)), "is a time series whose buckets may be compressed unsorted", Version(8, 0, 0)),
        ];
        if self.target >= Version(8, 3, 0) {
            return Some("is a time series, and writing those to a server of 8.3 or later is not yet supported".to_owned());
        }
        self.lacking(&needs).next()
    }

    fn of_index(self, index: &RawDocument, series: Option<&RawDocument>) -> impl Iterator<Item = String> {
        let set = |name: &str| index.get(name).ok().flatten().is_some_and(is_true);
        let key: Vec<(&str, RawBsonRef<'_>)> = index
            .get_document("key")
            .map(|key| key.iter().flatten().map(|(name, value)| (name.as_str(), value)).collect())
            .unwrap_or_default();
        let is_kind = |kind: &str| key.iter().any(|(_, value)| value.as_str() == Some(kind));
        let wildcard = key.iter().any(|(name, _)| *name == "$**" || name.ends_with(".$**"));
        let filter = index.get_document("partialFilterExpression").ok();
        let beyond = series.is_some_and(|series| {
            let fields = [series.get_str("timeField").ok(), series.get_str("metaField").ok()];
            let within =
                |name: &str, field: &str| name == field || name.strip_prefix(field).is_some_and(|rest| rest.starts_with('.'));
            key.iter().any(|(name, _)| !fields.iter().flatten().any(|field| within(name, field)))
        });
        let expiry = index.get("expireAfterSeconds").ok().flatten();
        let ages = expiry.and_then(number).is_some_and(|seconds| seconds > self.now);
        let needs = [
            (set("hidden"), "is hidden", Version(4, 4, 0)),
            (is_kind("hashed") && key.len() > 1, "is compound and hashed", Version(4, 4, 0)),
            (set("prepareUnique"), "is to become unique (prepareUnique)", Version(6, 0, 0)),
            (
                filter.is_some_and(|f| needs_wider_filters(f, true)),
                "has a partial filter with $or, $in, a nested $and or geometry",
                Version(6, 0, 0),
            ),
            (beyond, "is on fields other than the time and the metadata of a time series", Version(6, 0, 0)),
            (series.is_some() && filter.is_some(), "is a partial index of a time series", Version(6, 0, 0)),
            (series.is_some() && expiry.is_some(), "expires measurements of a time series", Version(6, 3, 0)),
            (ages, "expires after more seconds than there are since 1970", Version(6, 0, 0)),
            (is_kind("columnstore"), "is a columnstore index", Version(6, 3, 0)),
            (wildcard && key.len() > 1, "is compound with a wildcard", Version(7, 0, 0)),
        ];
        self.lacking(&needs).collect::<Vec<_>>().into_iter()
    }

    fn comes_from(self, version: Version) -> bool {
        self.source.is_some_and(|source| source >= version)
    }

    /// What exists and the target is too old for.
    fn lacking(self, needs: &[(bool, &str, Version)]) -> impl Iterator<Item = String> {
        let lacking = needs.iter().filter(move |(there, _, since)| *there && self.target < *since);
        lacking.map(|(_, what, since)| format!("{what}, which needs a server of {}.{} or later", since.0, since.1))
    }
}

/// Whether a partial index's filter has parts that servers before 6.0 refuse. Of the logical
/// operators, they accept `$and` alone, and only at the top.
fn needs_wider_filters(filter: &RawDocument, top: bool) -> bool {
    let fields: Vec<_> = filter.iter().flatten().collect();
    fields.iter().any(|(name, value)| match (name.as_str(), value) {
        ("$or" | "$nor", _) => true,
        ("$and", RawBsonRef::Array(parts)) => {
            let alone = top && fields.len() == 1;
            !alone || parts.into_iter().flatten().filter_map(|p| p.as_document()).any(|p| needs_wider_filters(p, false))
        }
        (_, RawBsonRef::Document(operators)) => {
            let geometric = ["$in", "$geoWithin", "$geoIntersects"];
            operators.iter().flatten().any(|(name, _)| geometric.contains(&name.as_str()))
        }
        _ => false,
    })
}

/// What distinguished the indexes of a collection before 5.0: the key's fields with their
/// directions or kinds, and the collation.
fn identity(index: &RawDocument) -> (Vec<(String, String)>, Vec<u8>) {
    let direction = |value: RawBsonRef<'_>| match number(value) {
        Some(n) => n.to_string(),
        None => value.as_str().unwrap_or_default().to_owned(),
    };
    let key = index
        .get_document("key")
        .map(|key| key.iter().flatten().map(|(name, value)| (name.as_str().to_owned(), direction(value))).collect());
    let collation = index.get_document("collation").map(|c| c.as_bytes().to_vec());
    (key.unwrap_or_default(), collation.unwrap_or_default())
}

fn number(value: RawBsonRef<'_>) -> Option<f64> {
    match value {
        RawBsonRef::Int32(n) => Some(f64::from(n)),
        RawBsonRef::Int64(n) => Some(n as f64),
        RawBsonRef::Double(n) => Some(n),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]
mod tests {
    use bson::{RawDocumentBuf, rawdoc};

    use super::*;
    use crate::format::digest::{ContentDigest, Sha256Hex};
    use crate::format::manifest::{RawValue, StoredObject};

    fn reasons(kind: CollectionKind, target: Version, options: RawDocumentBuf, indexes: &[RawDocumentBuf]) -> Vec<String> {
        let collection = Collection {
            database: "d".to_owned(),
            name: "c".to_owned(),
            kind,
            uuid: None,
            options: RawValue::of(&options),
            indexes: indexes.iter().map(|i| RawValue::of(i)).collect(),
            metadata: StoredObject { key: "d/c.metadata.json".to_owned(), bytes: 0, sha256: Sha256Hex::of(b"") },
            documents: 0,
            bytes: 0,
            digest: ContentDigest(0),
            segments: Vec::new(),
        };
        let (topology, source) = (Topology::Standalone, Version::parse("7.0.2-rc1"));
        Wanted { target, topology, source, now: 1.8e9 }.reasons(&collection, &Namespace::new("d", "c"))
    }

    /// Cases that no server available to the tests can show.
    #[test]
    fn things_of_newer_servers_are_told_where_the_target_is_older_and_nowhere_else() {
        let (plain, series) = (CollectionKind::Collection, CollectionKind::TimeSeries);
        let span = rawdoc! { "timeseries": { "timeField": "t", "bucketMaxSpanSeconds": 9, "bucketRoundingSeconds": 9 } };
        let ordinary = rawdoc! { "timeseries": { "timeField": "t" } };
        let index = |index: RawDocumentBuf| vec![index];
        for (kind, options, indexes, since, words) in [
            (series, span, vec![], Version(6, 3, 0), "bucket span"),
            (
                series,
                ordinary,
                index(rawdoc! { "key": { "t": 1 }, "name": "i", "expireAfterSeconds": 9 }),
                Version(6, 3, 0),
                "expires measurements",
            ),
            (plain, rawdoc! { "validationAction": "errorAndLog" }, vec![], Version(8, 1, 0), "errorAndLog"),
            (plain, rawdoc! {}, index(rawdoc! { "key": { "$**": "columnstore" }, "name": "i" }), Version(6, 3, 0), "columnstore"),
            (plain, rawdoc! {}, index(rawdoc! { "key": { "a.$**": 1, "b": 1 }, "name": "i" }), Version(7, 0, 0), "wildcard"),
        ] {
            let older = Version(since.0, since.1 - u32::from(since.1 > 0), 99);
            let older = if since.1 == 0 { Version(since.0 - 1, 3, 0) } else { older };
            let told = reasons(kind, older, options.clone(), &indexes);
            assert!(told.len() == 1 && told[0].contains(words), "{older}: {told:?}");
            assert_eq!(reasons(kind, since, options, &indexes), Vec::<String>::new(), "{since}");
        }
        let told = reasons(series, Version(8, 3, 0), rawdoc! { "timeseries": { "timeField": "t" } }, &[]);
        assert!(told.len() == 1 && told[0].contains("not yet supported"), "{told:?}");
        let told = reasons(plain, Version(6, 0, 5), rawdoc! { "encryptedFields": { "fields": [] } }, &[]);
        assert!(told.len() == 1 && told[0].contains("standalone"), "{told:?}");
        let told = reasons(plain, Version(5, 0, 4), rawdoc! { "encryptedFields": { "fields": [] } }, &[]);
        assert_eq!(told.len(), 2, "{told:?}");
    }

    #[test]
    fn a_filter_is_as_wide_as_servers_before_6_0_take_it_or_wider() {
        for narrow in [
            rawdoc! { "a": 1 },
            rawdoc! { "a": { "$gt": 1, "$lt": 5 }, "b": { "$exists": true } },
            rawdoc! { "$and": [{ "a": 1 }, { "b": { "$type": "int" } }] },
        ] {
            assert!(!needs_wider_filters(&narrow, true), "{narrow:?}");
        }
        for wide in [
            rawdoc! { "$or": [{ "a": 1 }] },
            rawdoc! { "a": { "$in": [1, 2] } },
            rawdoc! { "$and": [{ "$and": [{ "a": 1 }] }, { "b": 1 }] },
            rawdoc! { "$and": [{ "a": 1 }], "b": 1 },
            rawdoc! { "$and": [{ "$or": [{ "a": 1 }] }] },
        ] {
            assert!(needs_wider_filters(&wide, true), "{wide:?}");
        }
    }
}
