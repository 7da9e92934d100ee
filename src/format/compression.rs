//! How frames are compressed: what is asked of zstd, whatever a frame is made of.

use serde::{Deserialize, Serialize};
use zstd::zstd_safe::CParameter;

use crate::error::{Error, ErrorKind};

/// The window of long-distance matching, as a power of two: the whole of the largest frame, and still one that every decoder takes.
const LONG_WINDOW: u32 = 24;

/// What frames are made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Documents as they are, compressed with zstd: zstd's own tools read it.
    #[default]
    Zstd,
    /// Documents taken apart into columns, which zstd then makes smaller; frames that gain nothing from it stay zstd's.
    Columns,
}

impl Codec {
    /// Whether it is the one that all versions of the format know.
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
    /// What frames are made of.
    pub codec: Codec,
    /// zstd's level, in its own numbering.
    pub level: i32,
    /// Whether repetitions are looked for in all of a frame, and not only in the window that belongs to the level.
    pub long_distance: bool,
}

impl Compression {
    /// A level and nothing else.
    #[must_use]
    pub fn of(level: i32) -> Self {
        Self { codec: Codec::Zstd, level, long_distance: false }
    }

    /// What zstd is told so that it looks for repetitions in all of a frame.
    pub(super) fn long_distance_parameters(self) -> &'static [CParameter] {
        match self.long_distance {
            true => &[CParameter::EnableLongDistanceMatching(true), CParameter::WindowLog(LONG_WINDOW)],
            false => &[],
        }
    }
}

/// A failure of zstd, which it has only without memory.
pub(super) fn internal(what: &str, cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, format!("{what}: {cause}")).cause(cause)
}
