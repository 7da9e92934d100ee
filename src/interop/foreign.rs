//! Recognizes files that are mistaken for dumps by their beginnings, so that an error can say what
//! to do: pure.

use crate::names::BackupName;

/// How many bytes to check. A tar file needs the most: its first header, and before that one with
/// POSIX names, which most tools write.
pub(super) const HEAD: usize = 4 * HEADER;

/// The bytes of a tar file's header.
const HEADER: usize = 512;

/// Something that is not a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Foreign {
    /// What it is.
    pub(super) what: &'static str,
    /// What to do with it.
    pub(super) hint: &'static str,
}

/// The beginnings of compressed files, except gzip, which is supported.
const COMPRESSED: [(&[u8], &str); 7] = [
    (b"PK\x03\x04", "a zip file"),
    (b"PK\x05\x06", "an empty zip file"),
    (b"7z\xBC\xAF\x27\x1C", "a 7z file"),
    (b"Rar!\x1A\x07", "a RAR file"),
    (b"\xFD7zXZ\x00", "compressed by xz"),
    (b"\x28\xB5\x2F\xFD", "compressed by zstd"),
    (b"BZh", "compressed by bzip2"),
];

/// What content with this beginning is; `None` if unknown.
pub(super) fn recognize(head: &[u8]) -> Option<Foreign> {
    if let Some((_, what)) = COMPRESSED.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Some(Foreign { what, hint: "unpack it, and name the directory, the archive or the .bson file that was in it" });
    }
    if head.starts_with(&[0x1F, 0x8B]) {
        return Some(Foreign { what: "compressed by gzip twice", hint: "decompress it once" });
    }
    if tar_entry(head).is_some() {
        return Some(match is_backup(head) {
            true => Foreign {
                what: "a tar file of a backup, as the service's download makes it",
                hint: "`bsonvault import FILE` imports it, and `bsonvault adopt FILE` makes a backup of it",
            },
            false => Foreign {
                what: "a tar file",
                hint: "unpack it (tar -xf FILE), and name the directory or the archive that was in it",
            },
        });
    }
    let text = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head).trim_ascii_start();
    if matches!(text.first(), Some(b'{' | b'[')) && text.iter().all(|&b| b >= 0x20 || b.is_ascii_whitespace()) {
        return Some(Foreign {
            what: "text, perhaps JSON as mongoexport writes it",
            hint: "only dumps can be read: mongoimport reads JSON",
        });
    }
    None
}

/// Whether content with this beginning is a tar file of a backup, as in a download from the
/// service.
pub(super) fn is_backup(head: &[u8]) -> bool {
    let first = tar_entry(head);
    let name = first.as_deref().and_then(|first| first.split('/').find(|part| *part != "."));
    name.is_some_and(|name| name.starts_with(BackupName::PREFIX))
}

/// The name of the first entry of a tar archive. Its header has a checksum: the sum of its bytes,
/// with its own eight as spaces.
fn tar_entry(head: &[u8]) -> Option<String> {
    let header: &[u8; HEADER] = head.first_chunk()?;
    let said = std::str::from_utf8(&header[148..156]).ok()?.trim_matches([' ', '\0']).to_owned();
    let said = u32::from_str_radix(&said, 8).ok()?;
    let sum: u32 = header.iter().enumerate().map(|(at, &b)| u32::from(if (148..156).contains(&at) { b' ' } else { b })).sum();
    let name = header[..100].split(|&b| b == 0).next().unwrap_or_default();
    if said != sum || name.is_empty() {
        return None;
    }
    // This header describes the next entry.
    if matches!(header[156], b'x' | b'g' | b'L') {
        let bytes = std::str::from_utf8(&header[124..136]).ok().map(|text| text.trim_matches([' ', '\0']));
        let bytes = bytes.and_then(|text| usize::from_str_radix(text, 8).ok()).unwrap_or(usize::MAX);
        let next = bytes.checked_next_multiple_of(HEADER).and_then(|bytes| head.get(bytes.checked_add(HEADER)?..));
        if let Some(next) = next.and_then(tar_entry) {
            return Some(next);
        }
    }
    Some(String::from_utf8_lossy(name).into_owned())
}

/// Watches the bytes before line feeds. If they are always carriage returns, the file was treated
/// as text.
#[derive(Debug, Default)]
pub(super) struct LineEnds {
    last: u8,
    pairs: u64,
    /// A line feed without a carriage return was found: nothing more is checked.
    alone: bool,
}

impl LineEnds {
    pub(super) fn see(&mut self, bytes: &[u8]) {
        let mut from = 0;
        while !self.alone
            && let Some(at) = bytes[from..].iter().position(|&b| b == b'\n')
        {
            let before = if from + at == 0 { self.last } else { bytes[from + at - 1] };
            self.alone = before != b'\r';
            self.pairs += 1;
            from += at + 1;
        }
        self.last = bytes.last().copied().unwrap_or(self.last);
    }

    /// Whether there were line feeds, all of them after a carriage return.
    pub(super) fn are_of_text(&self) -> bool {
        self.pairs > 0 && !self.alone
    }
}

/// The hint for such files.
pub(super) const AS_TEXT: &str = "every line feed in it comes after a carriage return: it looks as if it was transferred or stored as text, which damages it; transfer it again as binary (git, FTP and some shells change line ends)";

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn tar(name: &str) -> Vec<u8> {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_size(0);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    #[test]
    fn what_is_no_dump_is_known_by_its_beginning() {
        for (head, what) in [
            (b"PK\x03\x04rest".to_vec(), "a zip file"),
            (b"\xFD7zXZ\x00".to_vec(), "compressed by xz"),
            (b"\x1F\x8B\x08".to_vec(), "compressed by gzip twice"),
            (tar("dump/shop/users.bson"), "a tar file"),
            (tar("atlas-backup-2026-11-28T18-14-53-439Z/"), "a tar file of a backup, as the service's download makes it"),
            (b"{\"_id\":1}\n".to_vec(), "text, perhaps JSON as mongoexport writes it"),
        ] {
            assert_eq!(recognize(&head).map(|foreign| foreign.what), Some(what));
        }
        let mut described = tar("PaxHeader/x");
        described[156] = b'x';
        described[124..136].copy_from_slice(b"00000000010\0");
        let sum: u32 =
            described.iter().enumerate().map(|(at, &b)| u32::from(if (148..156).contains(&at) { b' ' } else { b })).sum();
        described[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        described.extend([b'm'; HEADER]);
        described.extend(tar("./atlas-backup-2026-11-28T18-14-53-439Z/manifest.json"));
        assert!(recognize(&described).is_some_and(|foreign| foreign.what.contains("of a backup")));
        let mut broken = tar("dump/");
        broken[0] ^= 1;
        for head in [broken, Vec::new(), vec![0x10, 0, 0, 0, 0x10], b"\x6D\xE2\x99\x81".to_vec(), vec![0; HEADER]] {
            assert_eq!(recognize(&head), None);
        }
    }

    #[test]
    fn line_ends_are_of_text_where_no_line_feed_stands_alone() {
        for (chunks, of_text) in [
            (vec![b"\x0D\x0Aab".to_vec(), b"c\x0D\x0A".to_vec()], true),
            (vec![b"a\x0D".to_vec(), b"\x0Ab".to_vec()], true),
            (vec![b"a\x0D\x0A".to_vec(), b"\x0A".to_vec()], false),
            (vec![b"\x0A".to_vec()], false),
            (vec![b"abc\x0D".to_vec(), Vec::new()], false),
        ] {
            let mut ends = LineEnds::default();
            chunks.iter().for_each(|chunk| ends.see(chunk));
            assert_eq!(ends.are_of_text(), of_text, "{chunks:?}");
        }
    }
}
