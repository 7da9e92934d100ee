//! Translates indexes of time series: entries have those on buckets, `createIndexes` takes those
//! that users see.

use super::fields::Fields;
use crate::error::Result;
use crate::format::document::{Element, Elements, Writer};
use crate::format::kind;
use crate::oplog::text;

const MINIMUM: &[u8] = b"control.min.";
const MAXIMUM: &[u8] = b"control.max.";

/// The index that users see for this bucket index of a time series with these options.
pub(super) fn user_index(index: &Fields, options: &Fields) -> Result<Fields> {
    // If it cannot be derived from that of the buckets, servers store it.
    if let Some(original) = index.get("originalSpec").filter(|o| o.kind == kind::DOCUMENT) {
        return Fields::of(original.value);
    }
    let meta = meta_field(options)?;
    let Some(key) = index.get("key").filter(|k| k.kind == kind::DOCUMENT) else { return Ok(index.clone()) };
    let mut user = index.clone();
    user.set("key", kind::DOCUMENT, &user_key(key.value, meta.as_deref())?);
    Ok(user)
}

/// Fields of measurements are indexed by their bounds. For ascending ones, the minimum comes first,
/// for descending ones the maximum.
fn user_key(key: &[u8], meta: Option<&str>) -> Result<Vec<u8>> {
    let mut user = Writer::default();
    let mut bound: Option<&[u8]> = None;
    for element in Elements::of(key)? {
        let Element { kind, name, value } = element?;
        let measured = name.strip_prefix(MINIMUM).or_else(|| name.strip_prefix(MAXIMUM));
        let geographic = name.strip_prefix(b"data.").filter(|_| kind == kind::STRING);
        match (measured, geographic, meta) {
            // The second bound of a field.
            (Some(field), ..) if bound == Some(field) => bound = None,
            (Some(field), ..) => {
                user.element(kind, field, value);
                bound = Some(field);
            }
            (_, Some(field), _) => {
                let kind = text(Element { kind, name, value })?;
                let kind = kind.strip_suffix("_bucket").unwrap_or(kind).to_owned();
                user.string(&String::from_utf8_lossy(field), &kind);
            }
            (_, _, Some(meta)) if name == b"meta" || name.starts_with(b"meta.") => {
                user.element(kind, [meta.as_bytes(), &name[4..]].concat(), value);
            }
            _ => user.element(kind, name, value),
        }
    }
    Ok(user.finish())
}

fn meta_field(options: &Fields) -> Result<Option<String>> {
    let Some(series) = options.get("timeseries").filter(|s| s.kind == kind::DOCUMENT) else { return Ok(None) };
    let series = Fields::of(series.value)?;
    series.get("metaField").map(|meta| text(meta).map(str::to_owned)).transpose()
}
