//! Finds out what a directory holds, from the names of its files and from its metadata files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::{Directory, Member};
use crate::error::{Error, ErrorKind, Result};
use crate::few::Few;
use crate::format::manifest::CollectionKind;
use crate::format::metadata::read::{Metadata, Versions};
use crate::format::{key, metadata, mongodump};
use crate::interop::contents::{Found, is_of_all_users, kind_of, sort_out};
use crate::interop::input::{self, Input};
use crate::interop::old_indexes::{self, OldIndexes, SYSTEM_INDEXES};
use crate::interop::room::Room;
use crate::names::{Namespace, SYSTEM_DATABASES};

/// The largest `prelude.json` that is read.
const PRELUDE_LIMIT: u64 = 1024 * 1024;

/// The endings of packed files.
const PACKED: [&str; 7] = [".tar", ".tgz", ".tar.gz", ".zip", ".7z", ".rar", ".xz"];

/// The hint if something is not a dump.
pub(in crate::interop) const WHAT_A_DUMP_IS: &str = "a dump is a directory with a directory for each database, that of one database, an archive, or a .bson file, as mongodump writes them";

/// The kind of a file by its name.
enum Kind {
    /// The documents of the collection with this escaped name.
    Documents(String),
    /// Its metadata.
    Metadata(String),
    /// `prelude.json`.
    Prelude,
    /// None of these.
    Other,
}

/// The files of one directory.
#[derive(Default)]
struct Files {
    documents: BTreeMap<String, PathBuf>,
    metadata: BTreeMap<String, PathBuf>,
    prelude: Option<PathBuf>,
    /// By their names.
    others: Vec<String>,
    directories: Vec<PathBuf>,
}

/// Inspects a directory. If it holds one database, that has the directory's name, or `name`.
pub(in crate::interop) fn look(root: &Path, name: Option<&str>, memory: u64, stop: &CancellationToken) -> Result<Directory> {
    let mut room = Room::of(memory);
    let mut top = Files::of(root, &mut room)?;
    let is_backup = |directory: &Path| [key::MANIFEST, key::SHA256SUMS].iter().all(|own| directory.join(own).is_file());
    if is_backup(root) || root.parent().is_some_and(is_backup) {
        return Err(Error::usage(format!("{} is a backup, or part of one, not a dump", root.display()))
            .hint("`bsonvault import NAME` imports it"));
    }
    let mut looking =
        Looking { stop, room, members: Vec::new(), found: Vec::new(), old: OldIndexes::default(), notes: Few::default() };
    let mut databases = Vec::new();
    for directory in std::mem::take(&mut top.directories) {
        let files = Files::of(&directory, &mut looking.room)?;
        match files.is_empty() {
            true => looking.notes.push(|| format!("{} holds no collections, and is not read", directory.display())),
            false => databases.push((directory, files)),
        }
    }
    let mut prelude = top.prelude.take();
    let mut is_of_one_database = false;
    let oplog_alone = top.documents.len() == 1 && !top.metadata.contains_key(mongodump::OPLOG);
    if databases.is_empty() && !top.is_empty() && !(oplog_alone && top.documents.contains_key(mongodump::OPLOG)) {
        prelude = prelude.or_else(|| root.parent().and_then(prelude_in));
        databases.push((root.to_owned(), std::mem::take(&mut top)));
        is_of_one_database = true;
    }
    if let Some(oplog) = top.documents.remove(mongodump::OPLOG) {
        // Its name never shows that it is gzip; those of the other files do.
        let is_gzip = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "gz");
        let compressed = databases.iter().any(|(_, files)| files.documents.values().chain(files.metadata.values()).any(is_gzip));
        let length = std::fs::metadata(&oplog).map_err(|e| input::unreadable(&oplog, e))?.len();
        if compressed && length == 0 {
            return Err(Error::damaged(format!("{} is cut at byte 0: the other files of the dump are gzip", oplog.display())));
        }
        looking.add(Namespace::new("", mongodump::OPLOG), Some(oplog), None, None)?;
    }
    if databases.is_empty() && looking.members.is_empty() && prelude.is_none() {
        let is_packed = |name: &&String| PACKED.iter().any(|ending| name.to_lowercase().ends_with(ending));
        let hint = match top.others.iter().find(|name| name.starts_with("archive") && !is_packed(name)) {
            None if let Some(name) = top.others.iter().find(is_packed) => {
                format!("unpack {name}, and name its content; {WHAT_A_DUMP_IS}")
            }
            Some(name) => format!("if {name} in it is an archive, name that; {WHAT_A_DUMP_IS}"),
            None => WHAT_A_DUMP_IS.to_owned(),
        };
        return Err(Error::new(ErrorKind::NotFound, format!("{} holds no part of a dump", root.display())).hint(hint));
    }
    if let (Some(path), Some((directory, _))) = (top.documents.values().chain(top.metadata.values()).next(), databases.first()) {
        return Err(Error::usage(format!(
            "{} holds collections ({}) and directories with collections ({}): it is unclear whether it is a database or a dump of several",
            root.display(),
            path.display(),
            directory.display()
        ))
        .hint("name the one that is meant, or move the other away"));
    }
    looking.others(root, &top.others);
    for (directory, files) in databases {
        prelude = prelude.or_else(|| files.prelude.clone());
        looking.database(&directory, name.filter(|_| is_of_one_database), files)?;
    }
    let server_version = prelude.map(|path| version(&path, stop)).transpose()?.flatten();
    looking.finish(server_version, is_of_one_database)
}

/// Inspects a single file of documents, and the metadata beside it. Its database is that of its
/// directory, or `database`.
pub(in crate::interop) fn look_at_file(
    path: &Path,
    database: Option<&str>,
    memory: u64,
    stop: &CancellationToken,
) -> Result<Directory> {
    let mut room = Room::of(memory);
    let directory = path.parent().ok_or_else(|| Error::usage(format!("{} is in no directory", path.display())))?;
    let name = utf8_name(path)?;
    let stem = match kind(&name) {
        Kind::Documents(stem) => stem,
        _ => name.strip_suffix(".gz").unwrap_or(&name).to_owned(),
    };
    let all = Files::of(directory, &mut room)?;
    let full = key::unescape_collection(&stem).unwrap_or_else(|| stem.clone());
    let wanted = |metadata: &str| {
        let name = key::unescape_collection(metadata).unwrap_or_else(|| metadata.to_owned());
        metadata == stem || Namespace::new("", name).buckets().collection == full
    };
    let files = Files {
        documents: BTreeMap::from([(stem.clone(), path.to_owned())]),
        metadata: all.metadata.into_iter().filter(|(stem, _)| wanted(stem)).collect(),
        ..Files::default()
    };
    let mut looking =
        Looking { stop, room, members: Vec::new(), found: Vec::new(), old: OldIndexes::default(), notes: Few::default() };
    let lacks_metadata = files.metadata.is_empty();
    looking.database(directory, database, files)?;
    if let (true, Some(list), [only]) = (lacks_metadata, all.documents.get(SYSTEM_INDEXES), looking.members.as_slice()) {
        let namespace = only.namespace.clone();
        looking.old_indexes(&namespace.database, list)?;
        looking.old.only(&namespace);
    }
    let prelude = all.prelude.or_else(|| directory.parent().and_then(prelude_in));
    let server_version = prelude.map(|path| version(&path, stop)).transpose()?.flatten();
    looking.finish(server_version, true)
}

/// What has been found so far.
struct Looking<'a> {
    stop: &'a CancellationToken,
    room: Room,
    members: Vec<Member>,
    found: Vec<Found>,
    old: OldIndexes,
    notes: Few,
}

impl Looking<'_> {
    fn finish(self, server_version: Option<String>, is_of_one_database: bool) -> Result<Directory> {
        let all_users = self.found.iter().any(|f| is_of_all_users(&f.database, &f.name));
        let mut contents = sort_out(self.found.into_iter().map(Ok), all_users, self.old)?;
        contents.notes.splice(0..0, self.notes.into_sentences());
        contents.taken = self.room.taken();
        Ok(Directory { members: self.members, contents, is_of_one_database, server_version })
    }

    fn others(&mut self, directory: &Path, others: &[String]) {
        self.notes.extend(
            others.iter().map(|name| format!("{} is not a file of a dump, and is not read", directory.join(name).display())),
        );
    }

    /// Matches the files in a database's directory with each other.
    fn database(&mut self, directory: &Path, name: Option<&str>, mut files: Files) -> Result<()> {
        let database = name.map_or_else(|| database_of(directory), |name| Ok(name.to_owned()))?;
        for path in files.directories.drain(..) {
            self.notes.push(|| format!("{} is a directory inside a database's directory, and is not read", path.display()));
        }
        for (stem, path) in std::mem::take(&mut files.metadata) {
            let place = || path.display().to_string();
            let limit = metadata::LIMIT.min(self.room.longest());
            let text = match input::whole(&path, limit, self.stop)? {
                Some(text) => text,
                None if limit < metadata::LIMIT => return Err(self.room.full().context(place())),
                None => return Err(input::too_long(&path, limit)),
            };
            self.room.namespace(text.len())?;
            let metadata = Metadata::parse(&text).map_err(|e| e.context(place()))?;
            let name = match (key::is_cut_short(&stem), &metadata.collection) {
                (false, _) => unescaped(&stem),
                (true, Some(name)) => name.clone(),
                (true, None) => return Err(cut_short(&path)),
            };
            let namespace = Namespace::new(&*database, name);
            let buckets = files.documents.remove(&key::escape_collection(&namespace.buckets().collection));
            let file = match (files.documents.remove(&stem), buckets) {
                (Some(own), Some(buckets)) => {
                    return Err(Error::damaged(format!(
                        "{namespace} has documents of its own in {} and buckets in {}",
                        own.display(),
                        buckets.display()
                    )));
                }
                (None, Some(buckets)) if kind_of(&metadata) != CollectionKind::TimeSeries => {
                    return Err(Error::damaged(format!(
                        "{} has buckets, but {} is not the metadata of a time series",
                        buckets.display(),
                        place()
                    )));
                }
                (own, buckets) => own.or(buckets),
            };
            let missing = match &file {
                None => Some(self.missing(directory, &stem, &metadata, &files.others)?),
                Some(_) => None,
            };
            let metadata = (!text.iter().all(u8::is_ascii_whitespace)).then_some(metadata);
            self.add(namespace, file, metadata, missing)?;
        }
        if let Some(path) = files.documents.get(SYSTEM_INDEXES)
            && files.documents.keys().any(|stem| !stem.starts_with("system."))
        {
            self.old_indexes(&database, path)?;
        }
        for (stem, path) in std::mem::take(&mut files.documents) {
            if key::is_cut_short(&stem) {
                return Err(cut_short(&path));
            }
            self.room.namespace(0)?;
            self.add(Namespace::new(&*database, unescaped(&stem)), Some(path), None, None)?;
        }
        self.others(directory, &files.others);
        Ok(())
    }

    /// Reads an old server's list of the indexes of a database.
    fn old_indexes(&mut self, database: &str, path: &Path) -> Result<()> {
        let limit = old_indexes::LIMIT.min(self.room.longest());
        let listed = input::whole(path, limit, self.stop)?.ok_or_else(|| input::too_long(path, limit))?;
        self.old.add(database, &listed).map_err(|e| e.context(path.display()))
    }

    /// The missing file of documents. If it exists in a form that cannot be read, that is an error.
    fn missing(&self, directory: &Path, stem: &str, metadata: &Metadata, others: &[String]) -> Result<String> {
        let file = match kind_of(metadata) {
            CollectionKind::TimeSeries => format!("{}{stem}.bson", crate::names::BUCKETS_PREFIX),
            _ => format!("{stem}.bson"),
        };
        match others.iter().find(|name| name.starts_with(&format!("{file}."))) {
            Some(name) => Err(Error::damaged(format!(
                "{} cannot be read: gzip is the only compression of a dump",
                directory.join(name).display()
            ))
            .hint("decompress it")),
            None => Ok(directory.join(file).display().to_string()),
        }
    }

    fn add(
        &mut self,
        namespace: Namespace,
        file: Option<PathBuf>,
        metadata: Option<Metadata>,
        missing: Option<String>,
    ) -> Result<()> {
        let (mut stored, mut bytes) = (0, 0);
        if let Some(path) = &file {
            stored = std::fs::metadata(path).map_err(|e| input::unreadable(path, e))?.len();
            bytes = if Input::file(path, self.stop)?.is_gzip { 0 } else { stored };
        }
        let Namespace { database, collection } = namespace.clone();
        self.found.push(Found { database, name: collection, metadata, missing, bytes });
        self.members.push(Member { namespace, file, stored });
        Ok(())
    }
}

impl Files {
    /// The files of a directory; links are followed.
    fn of(directory: &Path, room: &mut Room) -> Result<Self> {
        let mut files = Self::default();
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(|e| input::unreadable(directory, e))? {
            room.file().map_err(|e| e.context(directory.display()))?;
            paths.push(entry.map_err(|e| input::unreadable(directory, e))?.path());
        }
        paths.sort();
        for path in paths {
            // A dangling link is ignored unless its name belongs to a dump.
            let found = std::fs::metadata(&path);
            if found.as_ref().is_ok_and(std::fs::Metadata::is_dir) {
                files.directories.push(path);
                continue;
            }
            let shown = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let name = match kind(&shown) {
                Kind::Other => shown,
                _ => utf8_name(&path)?,
            };
            let (list, stem) = match kind(&name) {
                Kind::Documents(stem) => (&mut files.documents, stem),
                Kind::Metadata(stem) => (&mut files.metadata, stem),
                // Reading a pipe would wait.
                Kind::Prelude if !found.as_ref().is_ok_and(std::fs::Metadata::is_file) => {
                    files.others.push(name);
                    continue;
                }
                Kind::Prelude => {
                    files.prelude = Some(path);
                    continue;
                }
                Kind::Other => {
                    files.others.push(name);
                    continue;
                }
            };
            if !found.map_err(|e| input::unreadable(&path, e))?.is_file() {
                return Err(Error::new(ErrorKind::Storage, format!("{} is not a regular file", path.display())));
            }
            if let Some(other) = list.insert(stem, path.clone()) {
                return Err(Error::damaged(format!("{} and {} are the same file of a dump", other.display(), path.display()))
                    .hint("move one of them away"));
            }
        }
        Ok(files)
    }

    /// Whether it has no files of collections.
    fn is_empty(&self) -> bool {
        self.documents.is_empty() && self.metadata.is_empty()
    }
}

fn kind(name: &str) -> Kind {
    let plain = name.strip_suffix(".gz").unwrap_or(name);
    if plain == "prelude.json" {
        return Kind::Prelude;
    }
    if let Some(stem) = plain.strip_suffix(".metadata.json") {
        return Kind::Metadata(stem.to_owned());
    }
    // Very old tools wrote `.bin`.
    match plain.strip_suffix(".bson").or_else(|| plain.strip_suffix(".bin")) {
        Some(stem) if !stem.is_empty() => Kind::Documents(stem.to_owned()),
        _ => Kind::Other,
    }
}

/// The collection's name from its file name; unchanged if that is not an escaped name.
fn unescaped(stem: &str) -> String {
    key::unescape_collection(stem).unwrap_or_else(|| stem.to_owned())
}

fn cut_short(path: &Path) -> Error {
    Error::damaged(format!("{} has a name that was cut short, and no metadata file has the whole one", path.display()))
}

fn utf8_name(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(std::ffi::OsStr::to_str);
    name.map(str::to_owned).ok_or_else(|| Error::damaged(format!("{} has a name that is not UTF-8", path.display())))
}

/// The database name for a directory.
fn database_of(directory: &Path) -> Result<String> {
    let name = utf8_name(directory)?;
    let good = name.len() <= 63 && !name.contains(['/', '\\', '.', ' ', '"', '$']);
    if good || SYSTEM_DATABASES.contains(&name.as_str()) {
        Ok(name)
    } else {
        Err(Error::usage(format!("{} holds collections, but its name cannot be that of a database", directory.display()))
            .hint("give the directory the database's name"))
    }
}

fn prelude_in(directory: &Path) -> Option<PathBuf> {
    ["prelude.json", "prelude.json.gz"].iter().map(|name| directory.join(name)).find(|path| path.is_file())
}

/// The version of the server, if the file has it.
fn version(prelude: &Path, stop: &CancellationToken) -> Result<Option<String>> {
    let text = input::whole(prelude, PRELUDE_LIMIT, stop)?.ok_or_else(|| input::too_long(prelude, PRELUDE_LIMIT))?;
    let versions = Versions::parse(&text).map_err(|e| e.context(prelude.display()))?;
    Ok(Some(versions.server))
}
