//! Text that holds its own SHA-256: the digest of all its bytes, with 64 zeros in its place.

use super::digest::Sha256Hex;

/// Puts the digest in place of `held`, which the text holds.
pub(super) fn seal(bytes: &mut [u8], held: &Sha256Hex) {
    let sha256 = digest(bytes, held);
    if let Some(at) = last(bytes, held) {
        bytes[at..at + held.as_str().len()].copy_from_slice(sha256.as_str().as_bytes());
    }
}

/// The SHA-256 of bytes with zeros for the last occurrence of `held`. The digest's own field is the
/// last one.
pub(super) fn digest(bytes: &[u8], held: &Sha256Hex) -> Sha256Hex {
    match last(bytes, held) {
        None => Sha256Hex::of(bytes),
        Some(at) => {
            let rest = &bytes[at + held.as_str().len()..];
            Sha256Hex::of_chunks([&bytes[..at], Sha256Hex::zero().as_str().as_bytes(), rest])
        }
    }
}

/// Where `held` occurs last.
pub(super) fn last(bytes: &[u8], held: &Sha256Hex) -> Option<usize> {
    let digits = held.as_str().as_bytes();
    bytes.windows(digits.len()).rposition(|window| window == digits)
}
