//! Encodes and decodes bytes: varints, words of sixteen bytes, the ends of texts, and a reader of
//! hostile streams.

/// Why a frame of columns cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged(pub(super) &'static str);

/// The result of reading.
pub(super) type Read<T> = Result<T, Damaged>;

const SHORT: Damaged = Damaged("one of its streams ends early");

/// The last position that is written as a key: longer arrays are not kept in columns.
pub(super) const MAX_POSITION: u32 = 99_999;

/// Appends a number as LEB128.
pub(super) fn put_varint(to: &mut Vec<u8>, mut number: u32) {
    while number >= 128 {
        to.push(number as u8 | 128);
        number >>= 7;
    }
    to.push(number as u8);
}

/// The 4-byte number at a position.
#[inline]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Eight bytes as a number; 0 if there are not exactly eight.
#[inline]
pub(super) fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap_or_default())
}

/// The sixteen bytes at a position, padded with zeros at the end.
#[inline]
pub(super) fn wide_word(bytes: &[u8], at: usize) -> u128 {
    match bytes.get(at..at + 16) {
        Some(whole) => u128::from_le_bytes(whole.try_into().unwrap_or_default()),
        None => {
            let mut padded = [0; 16];
            let rest = bytes.get(at..).unwrap_or_default();
            padded[..rest.len()].copy_from_slice(rest);
            u128::from_le_bytes(padded)
        }
    }
}

/// The position of the first NUL.
#[inline]
pub(super) fn nul(bytes: &[u8]) -> Option<usize> {
    std::ffi::CStr::from_bytes_until_nul(bytes).ok().map(std::ffi::CStr::count_bytes)
}

/// A position as an array key: its decimal digits and a NUL, and the number of these bytes. Correct
/// up to 9,999,999.
#[inline]
pub(super) fn position_key(position: u32) -> (u64, u32) {
    const DIGITS: [u32; 1000] = {
        let mut digits = [0; 1000];
        let mut i = 0u32;
        while i < 1000 {
            digits[i as usize] = match i {
                0..10 => 0x30 + i,
                10..100 => (0x30 + i / 10) | (0x30 + i % 10) << 8,
                _ => (0x30 + i / 100) | (0x30 + i / 10 % 10) << 8 | (0x30 + i % 10) << 16,
            };
            i += 1;
        }
        digits
    };
    if let Some(&digits) = DIGITS.get(position as usize) {
        return (u64::from(digits), 2 + u32::from(position >= 10) + u32::from(position >= 100));
    }
    let (mut key, mut length, mut rest) = (0u64, 1, position);
    while rest > 0 {
        key = key << 8 | u64::from(0x30 + rest % 10);
        rest /= 10;
        length += 1;
    }
    (key, length)
}

/// Reads from the front of a stream.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next `count` bytes.
    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// The next byte.
    #[inline]
    pub(super) fn byte(&mut self) -> Read<u8> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// The next number, in LEB128 of at most 32 bits.
    #[inline]
    pub(super) fn varint(&mut self) -> Read<u32> {
        let (mut number, mut shift) = (0u32, 0);
        loop {
            let byte = self.byte()?;
            if shift > 28 || (shift == 28 && byte > 15) {
                return Err(Damaged("a number in it has more than 32 bits"));
            }
            number |= u32::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(number);
            }
            shift += 7;
        }
    }

    /// The next number, as a count of bytes or values.
    #[inline]
    pub(super) fn count(&mut self) -> Read<usize> {
        self.varint().map(|n| n as usize)
    }

    /// The next text and its NUL.
    #[inline]
    pub(super) fn text(&mut self) -> Read<&'a [u8]> {
        let length = nul(self.0).ok_or(SHORT)?;
        self.take(length + 1)
    }
}
