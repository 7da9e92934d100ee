//! The seeds of fuzzing: real files of each kind, from the fixtures.

use std::io::Read;
use std::path::{Path, PathBuf};

use bson::rawdoc;
use bsonvault::format::document::Documents;
use bsonvault::format::frame::{Codec, Compression, Compressor};
use bsonvault::format::mongodump::read::{Event, Reader};
use bsonvault::format::mongodump::write::{Crc, end, segment};
use bsonvault::format::mongodump::{Member, Prelude, TERMINATOR};

/// Larger seeds make fuzzing slow.
const LARGEST: usize = 96 * 1024;

/// The seeds of a target, ordered by file. `root` is the project's directory.
#[must_use]
pub fn of(target: &str, root: &Path) -> Vec<Vec<u8>> {
    let fixtures = root.join("fixtures");
    let mut seeds = match target {
        "archive" => files(&fixtures.join("mongodump"), ".archive.gz").iter().flat_map(|file| small(file)).collect(),
        "metadata" => [files(&fixtures, ".metadata.json.gz"), files(&fixtures, "prelude.json.gz")].concat(),
        "manifest" => files(&fixtures, "manifest.json"),
        "documents" => [vec![odd_ids()], parts(files(&fixtures.join("mongodump"), ".bson.gz"))].concat(),
        "frames" => parts(files(&fixtures.join("mongodump"), ".bson.gz")),
        "columns" => parts(files(&fixtures.join("mongodump"), ".bson.gz")).iter().filter_map(|part| in_columns(part)).collect(),
        "oplog" => parts(files(&fixtures.join("mongodump"), "oplog.bson")),
        _ => Vec::new(),
    };
    seeds.retain(|seed| !seed.is_empty() && seed.len() <= LARGEST);
    seeds
}

/// Writes the seeds of a target into the directory in `SEEDS`, if it is set. Each target calls this
/// before it reads them.
///
/// # Panics
/// If they cannot be written.
pub fn write(target: &str) {
    let Some(folder) = std::env::var_os("SEEDS") else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (number, seed) in of(target, &root).iter().enumerate() {
        let file = Path::new(&folder).join(format!("seed-{number:03}"));
        std::fs::write(&file, seed).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
}

/// Documents, cut into parts that are small enough. No document is split.
fn parts(files: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    for file in files {
        let mut part = Vec::new();
        for document in Documents::of(&file).map_while(Result::ok) {
            if part.len() + document.len() > LARGEST / 4 {
                parts.push(std::mem::take(&mut part));
            }
            part.extend_from_slice(document);
        }
        parts.push(part);
    }
    parts
}

/// Documents as no server returns them: with `_id` in the middle, at the end, twice, or absent.
fn odd_ids() -> Vec<u8> {
    let documents = [
        rawdoc! { "a": 1, "_id": 2, "b": { "_id": 3 } },
        rawdoc! { "a": "text", "_id": 4 },
        rawdoc! { "a": { "b": [1, 2] } },
        rawdoc! { "a": 1, "_id": 5, "c": 6, "_id": 7 },
    ];
    documents.iter().flat_map(|document| document.as_bytes()).copied().collect()
}

/// Archives of a few namespaces each, with the first documents of each namespace.
fn small(archive: &[u8]) -> Vec<Vec<u8>> {
    let Ok(mut reader) = Reader::open(archive) else { return Vec::new() };
    let mut documents = vec![Vec::new(); reader.prelude().namespaces.len()];
    while let Ok(Some(event)) = reader.next() {
        if let Event::Document(place, document) = event
            && documents[place].len() + document.len() < 4096
        {
            documents[place].extend_from_slice(document);
        }
    }
    let Prelude { namespaces, concurrent, server_version, tool_version } = reader.into_prelude();
    let held: Vec<(Member, Vec<u8>)> = namespaces.into_iter().zip(documents).collect();
    let few = held.chunks(6).map(|few| {
        let namespaces = few.iter().map(|(member, _)| member.clone()).collect();
        let (server_version, tool_version) = (server_version.clone(), tool_version.clone());
        let mut bytes = Prelude { namespaces, concurrent, server_version, tool_version }.to_bytes();
        for (Member { database, collection, .. }, documents) in few {
            let mut crc = Crc::default();
            crc.update(documents);
            bytes.extend([segment(database, collection).as_slice(), documents, &TERMINATOR].concat());
            bytes.extend(end(database, collection, &crc));
        }
        bytes
    });
    few.collect()
}

fn in_columns(documents: &[u8]) -> Option<Vec<u8>> {
    let how = Compression { codec: Codec::Columns, ..Compression::of(1) };
    Compressor::new(how).and_then(|mut compressor| compressor.compress(documents)).ok()
}

/// The contents of files below a directory with this suffix; gzip files are decompressed.
fn files(folder: &Path, end: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            found.append(&mut files(&path, end));
        } else if path.is_file() && name.ends_with(end) {
            let Ok(bytes) = std::fs::read(&path) else { continue };
            let mut text = Vec::new();
            let whole = flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut text).is_ok();
            found.push(if whole && name.ends_with(".gz") { text } else { bytes });
        }
    }
    found
}
