//! Applies entries to the options of one collection.

use super::fields::{Fields, is_true};
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::{Element, Writer};
use crate::format::kind;
use crate::format::manifest::CollectionKind;
use crate::oplog::text;

/// The most seconds in a bucket, by granularity.
const SPANS: [(&str, i32); 3] = [("seconds", 3_600), ("minutes", 86_400), ("hours", 2_592_000)];

/// The options of a created collection, as `listCollections` returns them.
pub(super) fn of_created(create: &Fields, kind: CollectionKind) -> Fields {
    let mut options = create.clone();
    options.remove("create");
    options.remove("idIndex");
    if kind == CollectionKind::TimeSeries {
        // Implied by the fact that these are buckets.
        options.remove("validator");
        options.remove("clusteredIndex");
    }
    options
}

/// `collMod` without its `index` part. `was_read` are the documents in the backup of the
/// collection, and their bytes.
pub(super) fn modify(options: &mut Fields, command: &Fields, was_read: Option<(u64, u64)>) -> Result<()> {
    // If any of the three is set, the others are set to their defaults.
    if ["validator", "validationLevel", "validationAction"].iter().any(|rule| command.get(rule).is_some()) {
        for (rule, default) in [("validationLevel", "strict"), ("validationAction", "error")] {
            if options.get(rule).is_none() {
                options.set_text(rule, default);
            }
        }
    }
    for element in command.iter() {
        let Element { kind, name, value } = element;
        match name {
            b"validator" if value.len() == 5 => options.remove("validator"),
            b"validator" => options.set("validator", kind, value),
            b"validationLevel" => options.set("validationLevel", kind, value),
            b"validationAction" => options.set("validationAction", kind, value),
            b"cappedSize" => resize(options, "size", element, was_read.map(|(_, bytes)| bytes))?,
            b"cappedMax" => resize(options, "max", element, was_read.map(|(documents, _)| documents))?,
            b"expireAfterSeconds" if kind == kind::STRING => options.remove("expireAfterSeconds"),
            b"expireAfterSeconds" => options.set("expireAfterSeconds", kind, value),
            b"timeseries" => modify_series(options, &Fields::of(value)?)?,
            b"timeseriesBucketsMayHaveMixedSchemaData" => options.set("timeseriesBucketsMayHaveMixedSchemaData", kind, value),
            b"recordPreImages" if is_true(element) => options.set("recordPreImages", kind, value),
            b"recordPreImages" => options.remove("recordPreImages"),
            b"changeStreamPreAndPostImages" => {
                let images = Fields::of(value)?;
                if images.get("enabled").is_some_and(is_true) {
                    options.set("changeStreamPreAndPostImages", kind, value);
                } else {
                    options.remove("changeStreamPreAndPostImages");
                }
            }
            // `index` is handled elsewhere; the others have no effect any more, or say who asked.
            b"collMod" | b"index" | b"noPadding" | b"usePowerOf2Sizes" | b"isTimeseriesNamespace" => {}
            other => return Err(unsupported(&format!("collMod changes {:?}", String::from_utf8_lossy(other)))),
        }
    }
    Ok(())
}

/// Changes the limit of a capped collection. It is created with the new limit, so the documents or
/// bytes that were read must fit.
fn resize(options: &mut Fields, limit: &str, to: Element<'_>, was_read: Option<u64>) -> Result<()> {
    // No value or 0 means no limit on the number of documents.
    let new = number(to).filter(|n| *n > 0.0);
    if let (Some(new), Some(was_read)) = (new, was_read)
        && new < was_read as f64
    {
        return Err(unsupported(&format!(
            "collMod makes a capped collection smaller ({limit} {new}) than the part of it that was read before"
        )));
    }
    options.set(limit, to.kind, to.value);
    Ok(())
}

fn number(element: Element<'_>) -> Option<f64> {
    match element.kind {
        kind::DOUBLE => Some(f64::from_le_bytes(element.value.try_into().ok()?)),
        kind::INT32 => Some(f64::from(i32::from_le_bytes(element.value.try_into().ok()?))),
        // Limits are far below 2^53, up to which this is exact.
        kind::INT64 => Some(i64::from_le_bytes(element.value.try_into().ok()?) as f64),
        _ => None,
    }
}

/// The `timeseries` part: the granularity, or the span and rounding of buckets instead.
fn modify_series(options: &mut Fields, change: &Fields) -> Result<()> {
    let mut series = match options.get("timeseries") {
        Some(series) if series.kind == kind::DOCUMENT => Fields::of(series.value)?,
        _ => Fields::default(),
    };
    for element in change.iter() {
        let Element { kind, name, value } = element;
        match name {
            b"granularity" => {
                series.set("granularity", kind, value);
                let granularity = text(element)?;
                if let Some((_, span)) = SPANS.iter().find(|(name, _)| *name == granularity) {
                    series.set("bucketMaxSpanSeconds", kind::INT32, &span.to_le_bytes());
                }
                series.remove("bucketRoundingSeconds");
            }
            b"bucketMaxSpanSeconds" => series.set("bucketMaxSpanSeconds", kind, value),
            b"bucketRoundingSeconds" => {
                series.set("bucketRoundingSeconds", kind, value);
                series.remove("granularity");
            }
            other => return Err(unsupported(&format!("collMod changes {:?} of a time series", String::from_utf8_lossy(other)))),
        }
    }
    let mut document = Writer::default();
    for Element { kind, name, value } in series.iter() {
        document.element(kind, name, value);
    }
    options.set("timeseries", kind::DOCUMENT, &document.finish());
    Ok(())
}

/// The error for an entry that cannot be replayed.
pub(super) fn unsupported(what: &str) -> Error {
    Error::new(ErrorKind::Refused, format!("the oplog slice cannot be replayed: {what}")).hint("take a new backup")
}
