//! How frames are compressed: the parameters of zstd, for every codec.

use serde::{Deserialize, Serialize};
use zstd::zstd_safe::CParameter;

use crate::error::{Error, ErrorKind};

/// The window of long-distance matching, as a power of two: the whole of the largest frame, and
/// small enough for every decoder.
const LONG_WINDOW: u32 = 24;

/// The content of frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Unchanged documents, compressed with zstd: zstd's own tools can read them.
    #[default]
    Zstd,
    /// Documents split into columns, which zstd then compresses better. Frames that gain nothing
    /// stay plain zstd.
    Columns,
}

impl Codec {
    /// Whether all versions of the format know it.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Zstd => "zstd",
            Self::Columns => "columns",
        })
    }
}

/// How frames are compressed. Any decoder reads all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    /// The content of frames.
    pub codec: Codec,
    /// zstd's level, in its own numbering.
    pub level: i32,
    /// Whether to look for repetitions in the whole frame, and not only in the window of the level.
    pub long_distance: bool,
}

impl Compression {
    /// A level with default settings.
    #[must_use]
    pub fn of(level: i32) -> Self {
        Self { codec: Codec::Zstd, level, long_distance: false }
    }

    /// The parameters that make zstd look for repetitions in the whole frame.
    pub(super) fn long_distance_parameters(self) -> &'static [CParameter] {
        match self.long_distance {
            true => &[CParameter::EnableLongDistanceMatching(true), CParameter::WindowLog(LONG_WINDOW)],
            false => &[],
        }
    }
}

/// A failure of zstd, which only happens without memory.
pub(super) fn internal(what: &str, cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, format!("{what}: {cause}")).cause(cause)
}
