//! Compares values as servers do: pure.

use std::hash::{Hash as _, Hasher};

use super::document::{Element, Elements};
use crate::error::Result;
use crate::format::kind;

/// How text contributes to a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// Byte for byte.
    Counts,
    /// Not at all: a collation may treat any two texts as equal.
    IsAlike,
}

/// Adds a value to a hash, so that values that are equal to servers have the same hash: numbers of
/// all types, and symbols and text.
///
/// # Errors
/// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if it is broken.
pub fn hash(kind: u8, value: &[u8], text: Text, hasher: &mut impl Hasher) -> Result<()> {
    let number = match kind {
        kind::DOUBLE => value.try_into().ok().map(f64::from_le_bytes),
        kind::INT32 => value.try_into().ok().map(|v| i32::from_le_bytes(v).into()),
        // Equal numbers are rounded equally.
        #[expect(clippy::cast_precision_loss, reason = "as is said above")]
        kind::INT64 => value.try_into().ok().map(|v| i64::from_le_bytes(v) as f64),
        kind::DECIMAL128 => value.try_into().ok().and_then(|v| bson::Decimal128::from_bytes(v).to_string().parse().ok()),
        _ => None,
    };
    match (kind, number) {
        (_, Some(number)) => {
            let number = if number.is_nan() { f64::NAN } else { number + 0.0 };
            (kind::DOUBLE, number.to_bits()).hash(hasher);
        }
        (kind::STRING | kind::SYMBOL, _) if text == Text::IsAlike => kind::STRING.hash(hasher),
        (kind::STRING | kind::SYMBOL, _) => (kind::STRING, value).hash(hasher),
        (kind::DOCUMENT | kind::ARRAY, _) => {
            kind.hash(hasher);
            for element in Elements::of(value)? {
                let Element { kind, name, value } = element?;
                name.hash(hasher);
                hash(kind, value, text, hasher)?;
            }
        }
        _ => (kind, value).hash(hasher),
    }
    Ok(())
}
