//! Which backups stay after one that was asked for: `true`, `false`, or a number.

use std::fmt;
use std::num::NonZeroU32;

use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ObjectBuilder, OneOfBuilder, RefOr, Schema};

use crate::error::Error;

/// Which backups stay after one was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All: nothing is deleted (`true`).
    All,
    /// What is configured (`false`).
    Configured,
    /// The newest so many complete backups, 1 to 1,000,000, of the same source and the same databases and patterns, the new one among
    /// them. All others stay.
    Newest(i64),
}

/// The most backups that can be asked to be kept.
const MOST_KEPT: u32 = 1_000_000;

impl Keep {
    /// How many stay; none if that is not said.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage), naming the range.
    pub(super) fn newest(self) -> Result<Option<NonZeroU32>, Error> {
        let Self::Newest(count) = self else { return Ok(None) };
        let known = u32::try_from(count).ok().filter(|count| *count <= MOST_KEPT).and_then(NonZeroU32::new);
        known.map(Some).ok_or_else(|| {
            Error::usage(format!("keep is {count}, expected true, false, or a whole number from 1 to {MOST_KEPT}"))
                .hint("a number says how many of the newest backups of the same source and selection are to stay")
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

/// Takes any whole number, however it is written; what of it makes sense is told by its range.
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
            .description(Some("`true`: nothing is deleted. `false`: as if it were not given"));
        let newest = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(MOST_KEPT)).description(Some(
            "So many of the newest complete backups of the same source and the same databases and patterns, this one among them; all others stay",
        ));
        OneOfBuilder::new().item(all).item(newest).into()
    }
}

impl ToSchema for Keep {}
