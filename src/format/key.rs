//! Where in a backup things are stored: names of files, made so that any name a server allows has one, that mongorestore
//! finds its own, and that no two meet on a file system that ignores case.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha1::{Digest as _, Sha1};
use uuid::Uuid;

use crate::names::Namespace;

/// The manifest: written last, it commits the backup.
pub const MANIFEST: &str = "manifest.json";
/// Every stored object but itself and the manifest, for `sha256sum -c`.
pub const SHA256SUMS: &str = "SHA256SUMS";
/// What a running backup tells others; removed at its end.
pub const PROGRESS: &str = "progress.json";
/// The stem of the oplog slice's segments, at the backup's top.
pub const OPLOG: &str = "oplog";

/// How the last checks of a backup ended: written after the manifest, and no part of what that commits.
pub const CHECKS: &str = "checks.json";
/// The stem of an unfinished backup's checkpoint, at its top; removed at its end.
const CHECKPOINT: &str = "resume";
/// What the names begin with of what readers leave at the top while they read.
const READER: &str = "reader";

/// The longest escaped collection name; mongodump's limit, so that a suffix still fits into 255 bytes.
const MAX_ESCAPED: usize = 238;
/// How much of a longer name is kept in front of its hash.
const KEPT: usize = 208;

/// Gives each collection of one backup its own stem, `DATABASE/COLLECTION` escaped.
///
/// Collections are escaped as mongodump does (Go's `url.QueryEscape`; an escaped name of more than 238 bytes is cut at 208,
/// followed by `%24` and the unpadded base64url of the SHA-1 of the name). Databases keep their names, but for `%`,
/// control characters and `#`. A stem that would meet another one, or one of the backup's own files, when case is
/// ignored gets that same ending.
#[derive(Debug, Default)]
pub struct Stems {
    taken: HashSet<String>,
    databases: std::collections::HashMap<String, String>,
    /// The directories of the databases, in lower case.
    directories: HashSet<String>,
}

impl Stems {
    /// The stem for this namespace. Asked twice, it gives two different ones.
    pub fn assign(&mut self, namespace: &Namespace) -> String {
        let directory = match self.databases.get(&namespace.database) {
            Some(directory) => directory.clone(),
            None => {
                let mut directory = escape_database(&namespace.database);
                if is_own_file(&directory) || self.directories.contains(&directory.to_lowercase()) {
                    directory = with_hash(&directory, &namespace.database);
                }
                self.directories.insert(directory.to_lowercase());
                self.databases.insert(namespace.database.clone(), directory.clone());
                directory
            }
        };
        let escaped = escape_collection(&namespace.collection);
        let mut stem = format!("{directory}/{escaped}");
        // A collection may itself be named like another one with its hash, so the way out is looked for until it is free.
        let mut hashed = namespace.collection.clone();
        while !self.taken.insert(stem.to_lowercase()) {
            stem = format!("{directory}/{}", with_hash(&escaped, &hashed));
            hashed.push('#');
        }
        stem
    }
}

/// Whether a file at the backup's top, or one that may come there, has this name when case is ignored.
fn is_own_file(name: &str) -> bool {
    let name = name.to_lowercase();
    let slice = name.starts_with(&format!("{OPLOG}.")) && name.ends_with(".bson.zst");
    let plain = [MANIFEST, SHA256SUMS, PROGRESS, CHECKS].iter().any(|own| own.to_lowercase() == name);
    slice || plain || checkpoint_number(&name).is_some() || is_reader(&name)
}

/// The key of a collection's metadata file.
#[must_use]
pub fn metadata(stem: &str) -> String {
    format!("{stem}.metadata.json")
}

/// The key of a collection's segment, numbered from 0.
#[must_use]
pub fn segment(stem: &str, number: usize) -> String {
    format!("{stem}.{number:05}.bson.zst")
}

/// The number of a segment of this stem, by its key.
#[must_use]
pub fn segment_number(stem: &str, key: &str) -> Option<usize> {
    let digits = key.strip_prefix(stem)?.strip_prefix('.')?.strip_suffix(".bson.zst")?;
    digits.parse().ok().filter(|number| segment(stem, *number) == key)
}

/// The key of an object of an unfinished backup's checkpoint, numbered from 0.
#[must_use]
pub fn checkpoint(number: usize) -> String {
    format!("{CHECKPOINT}.{number:05}.json")
}

/// The number of an object of a checkpoint, where this is the key of one.
#[must_use]
pub fn checkpoint_number(key: &str) -> Option<usize> {
    let digits = key.strip_prefix(CHECKPOINT)?.strip_prefix('.')?.strip_suffix(".json")?;
    digits.parse().ok().filter(|number| checkpoint(*number) == key)
}

/// The key of what a reader leaves while it reads.
#[must_use]
pub fn reader(id: Uuid) -> String {
    format!("{READER}.{id}.json")
}

/// Whether this is the key of what a reader leaves.
#[must_use]
pub fn is_reader(key: &str) -> bool {
    let id = key.strip_prefix(READER).and_then(|rest| rest.strip_prefix('.')?.strip_suffix(".json"));
    id.is_some_and(|id| Uuid::try_parse(id).is_ok_and(|parsed| reader(parsed) == key))
}

/// A collection's name as a file name, as mongodump escapes it.
#[must_use]
pub fn escape_collection(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            b' ' => escaped.push('+'),
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    if escaped.len() > MAX_ESCAPED { with_hash(&escaped, name) } else { escaped }
}

/// The name that mongodump escaped to this, where it can be one: Go's `url.QueryUnescape`, which takes a character that needs
/// no escape either way. One that [`is_cut_short`] gives what is left of the name and its hash, or nothing.
#[must_use]
pub fn unescape_collection(escaped: &str) -> Option<String> {
    let mut name = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.bytes();
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'+' => b' ',
            b'%' => hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?,
            other => other,
        });
    }
    String::from_utf8(name).ok()
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| value.try_into().ok())
}

/// Whether an escaped name was too long and ends with its hash: the true one is in the metadata. Names of just that length
/// with an escaped `$` in them look the same.
#[must_use]
pub fn is_cut_short(escaped: &str) -> bool {
    escaped.len() == MAX_ESCAPED && escaped.contains("%24")
}

fn escape_database(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for c in name.chars() {
        // A name the store could not keep as it is, or one that `sha256sum` could not read back.
        if c.is_control() || matches!(c, '%' | '#' | '/' | '\\') {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                escaped.push_str(&format!("%{byte:02X}"));
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

fn with_hash(escaped: &str, name: &str) -> String {
    let mut end = escaped.len().min(KEPT);
    while !escaped.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}%24{}", &escaped[..end], URL_SAFE_NO_PAD.encode(Sha1::digest(name.as_bytes())))
}
