//! The keys of a backup's objects: file names for every name that a server allows. mongorestore
//! finds its files, and no two names collide on a file system that ignores case.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha1::{Digest as _, Sha1};
use uuid::Uuid;

use crate::names::Namespace;

/// The manifest: written last, it commits the backup.
pub const MANIFEST: &str = "manifest.json";
/// The checksums of every stored object except itself and the manifest, for `sha256sum -c`.
pub const SHA256SUMS: &str = "SHA256SUMS";
/// The heartbeat of a running backup; removed at its end.
pub const PROGRESS: &str = "progress.json";
/// The stem of the oplog slice's segments, at the top of the backup.
pub const OPLOG: &str = "oplog";
/// The index of a link of an archived oplog.
pub const INDEX: &str = "index.bson.zst";

/// The results of the last checks: written after the manifest, which does not cover it.
pub const CHECKS: &str = "checks.json";
/// The stem of an unfinished backup's checkpoint, at its top; removed at its end.
const CHECKPOINT: &str = "resume";
/// The prefix of the files that readers leave at the top while they read.
const READER: &str = "reader";

/// The longest escaped collection name: mongodump's limit, so that a suffix still fits into 255
/// bytes.
const MAX_ESCAPED: usize = 238;
/// How much of a longer name is kept before its hash.
const KEPT: usize = 208;

/// Gives each collection of one backup its own stem, an escaped `DATABASE/COLLECTION`.
///
/// Collections are escaped as in mongodump (Go's `url.QueryEscape`). An escaped name of more than
/// 238 bytes is cut to 208, followed by `%24` and the unpadded base64url of the SHA-1 of the name.
/// Databases keep their names, except for `%`, control characters and `#`. If a stem would collide
/// with another one or with one of the backup's own files, ignoring case, it gets the same ending.
#[derive(Debug, Default)]
pub struct Stems {
    taken: HashSet<String>,
    databases: std::collections::HashMap<String, String>,
    /// The directories of the databases, in lower case.
    directories: HashSet<String>,
}

impl Stems {
    /// The stem for this namespace. Two calls return two different ones.
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
        // A collection may be named like another one with its hash, so this repeats until the stem
        // is free.
        let mut hashed = namespace.collection.clone();
        while !self.taken.insert(stem.to_lowercase()) {
            stem = format!("{directory}/{}", with_hash(&escaped, &hashed));
            hashed.push('#');
        }
        stem
    }
}

/// Whether a file at the top of the backup has this name, or may get it, ignoring case.
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

/// The number of a segment of this stem, from its key.
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

/// The number of an object of a checkpoint, if this is the key of one.
#[must_use]
pub fn checkpoint_number(key: &str) -> Option<usize> {
    let digits = key.strip_prefix(CHECKPOINT)?.strip_prefix('.')?.strip_suffix(".json")?;
    digits.parse().ok().filter(|number| checkpoint(*number) == key)
}

/// The key of a reader's file.
#[must_use]
pub fn reader(id: Uuid) -> String {
    format!("{READER}.{id}.json")
}

/// Whether this is the key of a reader's file.
#[must_use]
pub fn is_reader(key: &str) -> bool {
    let id = key.strip_prefix(READER).and_then(|rest| rest.strip_prefix('.')?.strip_suffix(".json"));
    id.is_some_and(|id| Uuid::try_parse(id).is_ok_and(|parsed| reader(parsed) == key))
}

/// A collection's name as a file name, escaped as in mongodump.
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

/// Reverses mongodump's escaping, if possible: Go's `url.QueryUnescape`, which accepts characters
/// that need no escape in either form. For a name that [`is_cut_short`], it returns the rest of the
/// name with its hash, or `None`.
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

/// Whether an escaped name was too long and ends with its hash: the true one is in the metadata.
/// Names of exactly that length with an escaped `$` look the same.
#[must_use]
pub fn is_cut_short(escaped: &str) -> bool {
    escaped.len() == MAX_ESCAPED && escaped.contains("%24")
}

fn escape_database(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for c in name.chars() {
        // Characters that the store might not keep, or that `sha256sum` could not read back.
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
