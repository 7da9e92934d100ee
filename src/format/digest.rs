//! Digests: SHA-256 of stored bytes, and the content digest of documents, which does not depend on
//! their order.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh3::xxh3_128;

use crate::error::{Error, Result};

/// The digest of a set of documents: the wrapping 128-bit sum of the XXH3-128 (seed 0) of each
/// document's bytes, with their number and the sum of their lengths. Two sets that differ in one
/// bit, or in how often a document occurs, have different digests, but for a chance of 2^-128. It
/// detects damage and loss, not forgery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Content {
    /// The number of documents.
    pub documents: u64,
    /// Their bytes, uncompressed.
    pub bytes: u64,
    /// The wrapping sum of their hashes.
    pub sum: u128,
}

impl Content {
    /// Adds one document.
    pub fn add(&mut self, document: &[u8]) {
        self.documents += 1;
        self.bytes += document.len() as u64;
        self.sum = self.sum.wrapping_add(xxh3_128(document));
    }

    /// Adds another set, as if its documents had been added one by one. Counts from a hostile
    /// manifest stop at the largest number instead of wrapping.
    pub fn merge(&mut self, other: &Self) {
        self.documents = self.documents.saturating_add(other.documents);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// The rest without these, which must be part of it.
    #[must_use]
    pub fn without(&self, others: &Self) -> Self {
        Self {
            documents: self.documents.saturating_sub(others.documents),
            bytes: self.bytes.saturating_sub(others.bytes),
            sum: self.sum.wrapping_sub(others.sum),
        }
    }

    /// The sum in written form: 32 hexadecimal digits, lower case.
    #[must_use]
    pub fn digest(&self) -> ContentDigest {
        ContentDigest(self.sum)
    }
}

/// The hash of one document: the XXH3-128 (seed 0) of its bytes.
#[must_use]
pub fn hash(document: &[u8]) -> u128 {
    xxh3_128(document)
}

/// The digest of documents in their order: the XXH3-128 of the digest before and of each document's
/// hash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sequence(u128);

impl Sequence {
    /// Adds the next document.
    pub fn add(&mut self, document: &[u8]) {
        let mut both = [0; 32];
        both[..16].copy_from_slice(&self.0.to_le_bytes());
        both[16..].copy_from_slice(&xxh3_128(document).to_le_bytes());
        self.0 = xxh3_128(&both);
    }

    /// The digest in written form: 32 hexadecimal digits, lower case.
    #[must_use]
    pub fn digest(&self) -> ContentDigest {
        ContentDigest(self.0)
    }
}

impl std::iter::Sum for Content {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |mut sum, part| {
            sum.merge(&part);
            sum
        })
    }
}

/// The written form of a content digest: 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentDigest(pub u128);

impl std::fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl From<ContentDigest> for String {
    fn from(digest: ContentDigest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for ContentDigest {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        if text.len() != 32 || !is_lower_hex(&text) {
            return Err(Error::damaged(format!("{text:?} is not a content digest of 32 lower-case hexadecimal digits")));
        }
        u128::from_str_radix(&text, 16).map(Self).map_err(|e| Error::damaged("unreadable content digest").cause(e))
    }
}

/// A SHA-256 in written form: 64 lower-case hexadecimal digits. Clones share them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256Hex(Arc<str>);

impl Sha256Hex {
    /// The placeholder for a digest over bytes that contain it.
    #[must_use]
    pub fn zero() -> Self {
        Self("0".repeat(64).into())
    }

    /// The SHA-256 of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_chunks([bytes])
    }

    /// The SHA-256 of these chunks, concatenated.
    #[must_use]
    pub fn of_chunks<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = Hasher::default();
        for chunk in chunks {
            hasher.update(chunk);
        }
        hasher.finish()
    }

    /// The 64 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Sha256Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Sha256Hex> for String {
    fn from(digest: Sha256Hex) -> Self {
        digest.0.as_ref().to_owned()
    }
}

impl TryFrom<String> for Sha256Hex {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        if text.len() == 64 && is_lower_hex(&text) {
            Ok(Self(text.into()))
        } else {
            Err(Error::damaged(format!("{text:?} is not a SHA-256 of 64 lower-case hexadecimal digits")))
        }
    }
}

/// Computes a SHA-256 piece by piece.
#[derive(Debug, Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything added.
    #[must_use]
    pub fn finish(self) -> Sha256Hex {
        let mut text = String::with_capacity(64);
        for byte in self.0.finalize() {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
        }
        Sha256Hex(text.into())
    }
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
