//! What a slice's entries do to the options of one collection.

use super::fields::{Fields, is_true};
use super::unsupported;
use crate::error::Result;
use crate::format::document::{Element, Writer};
use crate::format::manifest::CollectionKind;
use crate::format::oplog::text;

/// How many seconds a bucket spans at most, by granularity.
const SPANS: [(&str, i32); 3] = [("seconds", 3_600), ("minutes", 86_400), ("hours", 2_592_000)];

/// The options of a created collection, as `listCollections` gives them.
pub(super) fn of_created(create: &Fields, kind: CollectionKind) -> Fields {
    let mut options = create.clone();
    options.remove("create");
    options.remove("idIndex");
    if kind == CollectionKind::TimeSeries {
        // What makes buckets of it, and goes without saying.
        options.remove("validator");
        options.remove("clusteredIndex");
    }
    options
}

/// `collMod`, but for its `index` part.
pub(super) fn modify(options: &mut Fields, command: &Fields) -> Result<()> {
    // Whichever of the three is said, the others become what they have been without being said.
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
            b"cappedSize" => options.set("size", kind, value),
            b"cappedMax" => options.set("max", kind, value),
            b"expireAfterSeconds" if kind == 0x02 => options.remove("expireAfterSeconds"),
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
            // `index` is elsewhere; the others mean nothing any more, or say who asked.
            b"collMod" | b"index" | b"noPadding" | b"usePowerOf2Sizes" | b"isTimeseriesNamespace" => {}
            other => return Err(unsupported(&format!("collMod changes {:?}", String::from_utf8_lossy(other)))),
        }
    }
    Ok(())
}

/// The `timeseries` part: the granularity, or the span and rounding of buckets instead.
fn modify_series(options: &mut Fields, change: &Fields) -> Result<()> {
    let mut series = match options.get("timeseries") {
        Some(series) if series.kind == 0x03 => Fields::of(series.value)?,
        _ => Fields::default(),
    };
    for element in change.iter() {
        let Element { kind, name, value } = element;
        match name {
            b"granularity" => {
                series.set("granularity", kind, value);
                let granularity = text(element)?;
                if let Some((_, span)) = SPANS.iter().find(|(name, _)| *name == granularity) {
                    series.set("bucketMaxSpanSeconds", 0x10, &span.to_le_bytes());
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
    options.set("timeseries", 0x03, &document.finish());
    Ok(())
}
