//! Which backups to keep after one that a request asked for: `true`, `false`, or a number.

use std::fmt;
use std::num::NonZeroU32;

use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ObjectBuilder, OneOfBuilder, RefOr, Schema};

use crate::error::Error;

/// Which backups to keep after one was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Keep all: nothing is deleted (`true`).
    All,
    /// As configured (`false`).
    Configured,
    /// Keep this many of the newest complete backups, 1 to 1,000,000, of the same source with the
    /// same databases and patterns. The new one counts. All others stay.
    Newest(i64),
}

/// The largest number.
const MOST_KEPT: u32 = 1_000_000;

impl Keep {
    /// The number, if this is one.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if it is out of range.
    pub(super) fn newest(self) -> Result<Option<NonZeroU32>, Error> {
        let Self::Newest(count) = self else { return Ok(None) };
        let known = u32::try_from(count).ok().filter(|count| *count <= MOST_KEPT).and_then(NonZeroU32::new);
        known.map(Some).ok_or_else(|| {
            Error::usage(format!("keep is {count}, expected true, false, or a whole number from 1 to {MOST_KEPT}"))
                .hint("a number is how many of the newest backups of the same source and selection to keep")
        })
    }
}

impl Serialize for Keep {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => to.serialize_bool(true),
            Self::Configured => to.serialize_bool(false),
            Self::Newest(count) => to.serialize_i64(*count),
        }
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(KeepVisitor)
    }
}

/// Takes any whole number, however it is written. [`Keep::newest`] checks the range.
struct KeepVisitor;

impl Visitor<'_> for KeepVisitor {
    type Value = Keep;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "true, false, or a whole number from 1 to {MOST_KEPT}")
    }

    fn visit_bool<E: de::Error>(self, all: bool) -> Result<Keep, E> {
        Ok(if all { Keep::All } else { Keep::Configured })
    }

    fn visit_i64<E: de::Error>(self, count: i64) -> Result<Keep, E> {
        Ok(Keep::Newest(count))
    }

    fn visit_u64<E: de::Error>(self, count: u64) -> Result<Keep, E> {
        Ok(Keep::Newest(i64::try_from(count).unwrap_or(i64::MAX)))
    }

    fn visit_f64<E: de::Error>(self, count: f64) -> Result<Keep, E> {
        if count.fract() == 0.0 { Ok(Keep::Newest(count as i64)) } else { Err(E::invalid_value(Unexpected::Float(count), &self)) }
    }
}

impl utoipa::PartialSchema for Keep {
    fn schema() -> RefOr<Schema> {
        let all = ObjectBuilder::new()
            .schema_type(Type::Boolean)
            .description(Some("`true` deletes nothing. `false` is the default: the configured retention applies"));
        let newest = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(MOST_KEPT)).description(Some(
            "Keep this many of the newest complete backups of the same source with the same databases and patterns. The new one counts. Backups of other sources or selections stay",
        ));
        OneOfBuilder::new().item(all).item(newest).into()
    }
}

impl ToSchema for Keep {}
