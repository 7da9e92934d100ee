//! Chooses the names of the scratch databases of a test restore. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{Collection, CollectionKind};
use crate::names::{BUCKETS_PREFIX, NamespaceRename, SCRATCH_PREFIX, SHORT_SCRATCH_NAME, SHORT_SCRATCH_PREFIX};

/// The digits of a short name.
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// How many short names of one length are tried.
const TRIES: u64 = 10_000;

/// The scratch database of each database of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScratchNames(BTreeMap<String, String>);

impl ScratchNames {
    /// Chooses names that no database in `standing` has in any letter case. `longest` is the
    /// maximum length of a namespace there, in bytes. If the longest collection name leaves less
    /// room, the scratch database gets a shorter name. `random` distinguishes the names of two test
    /// restores.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if no name fits.
    pub(super) fn choose(collections: &[Collection], standing: &[String], longest: usize, random: u32) -> Result<Self> {
        let mut longest_of: BTreeMap<&str, &Collection> = BTreeMap::new();
        for collection in collections {
            let known = longest_of.entry(&collection.database).or_insert(collection);
            if length(collection) > length(known) {
                *known = collection;
            }
        }
        let mut taken: BTreeSet<String> = standing.iter().map(|name| name.to_lowercase()).collect();
        let mut names = BTreeMap::new();
        for (number, (database, collection)) in longest_of.into_iter().enumerate() {
            let room = longest.saturating_sub(length(collection) + 1);
            let name = candidates(random, number, room).find(|name| !taken.contains(name)).ok_or_else(|| {
                Error::new(
                    ErrorKind::Refused,
                    format!(
                        "{} is too long for a test restore: the target allows {longest} bytes, and no name of a \
                         scratch database fits before it",
                        collection.namespace()
                    ),
                )
                .hint("use another target, without databases whose names begin with '~'")
            })?;
            taken.insert(name.clone());
            names.insert(database.to_owned(), name);
        }
        Ok(Self(names))
    }

    /// The scratch databases.
    pub(super) fn databases(&self) -> Vec<String> {
        self.0.values().cloned().collect()
    }

    /// The rename rules of the import into them.
    pub(super) fn renames(&self) -> Result<Vec<NamespaceRename>> {
        let rule = |(from, to): (&String, &String)| {
            let mut escaped = String::new();
            for c in from.chars() {
                if matches!(c, '\\' | '*' | '=') {
                    escaped.push('\\');
                }
                escaped.push(c);
            }
            NamespaceRename::parse(&format!("{escaped}.*={to}.*"))
        };
        self.0.iter().map(rule).collect()
    }

    /// The backup's namespace for this namespace of a scratch database.
    pub(super) fn original(&self, namespace: &str) -> String {
        let stands_for = self.0.iter().find_map(|(from, to)| Some((from, namespace.strip_prefix(to)?.strip_prefix('.')?)));
        stands_for.map_or_else(|| namespace.to_owned(), |(from, collection)| format!("{from}.{collection}"))
    }

    /// A text with the backup's names.
    pub(super) fn in_text(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (from, to)| text.replace(&format!("{to}."), &format!("{from}.")))
    }

    /// The error with the backup's names.
    pub(super) fn in_words(&self, error: Error) -> Error {
        self.0.iter().fold(error, |error, (from, to)| error.reworded(&format!("{to}."), &format!("{from}.")))
    }
}

/// The bytes that a collection's name takes on a server.
fn length(collection: &Collection) -> usize {
    let buckets = if collection.kind == CollectionKind::TimeSeries { BUCKETS_PREFIX.len() } else { 0 };
    collection.name.len() + buckets
}

/// Names of at most `room` bytes, the best first.
fn candidates(random: u32, number: usize, room: usize) -> impl Iterator<Item = String> {
    let long = format!("{SCRATCH_PREFIX}{random:08x}_{number}");
    let long = Some(long).filter(|name| name.len() <= room);
    let digits = room.min(SHORT_SCRATCH_NAME).checked_sub(SHORT_SCRATCH_PREFIX.len());
    let short = digits.into_iter().flat_map(move |digits| {
        let first = u64::from(random) + number as u64;
        (0..TRIES).map(move |more| short_name(first + more, digits))
    });
    long.into_iter().chain(short)
}

fn short_name(mut value: u64, digits: usize) -> String {
    let mut name = SHORT_SCRATCH_PREFIX.to_owned();
    for _ in 0..digits {
        name.push(char::from(DIGITS[(value % 36) as usize]));
        value /= 36;
    }
    name
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::format::digest::{Content, Sha256Hex};
    use crate::format::manifest::{RawValue, StoredObject};
    use crate::names::{Namespace, may_be_scratch};

    fn collection(database: &str, name: &str, kind: CollectionKind) -> Collection {
        Collection {
            database: database.to_owned(),
            name: name.to_owned(),
            kind,
            uuid: Some(Uuid::nil()),
            options: RawValue::of(&bson::RawDocumentBuf::new()),
            indexes: Vec::new(),
            metadata: StoredObject { key: "k".to_owned(), bytes: 0, sha256: Sha256Hex::zero() },
            documents: 0,
            bytes: 0,
            digest: Content::default().digest(),
            segments: Vec::new(),
        }
    }

    fn choose(collections: &[Collection], standing: &[&str], longest: usize) -> Result<ScratchNames> {
        let standing: Vec<String> = standing.iter().map(|&s| s.to_owned()).collect();
        ScratchNames::choose(collections, &standing, longest, 0xabc)
    }

    #[test]
    fn names_are_recognised_again_and_lead_back() {
        let odd = r"a*b=c\d";
        let names = choose(
            &[collection(odd, "x.y", CollectionKind::Collection), collection("shop", "c", CollectionKind::View)],
            &["shop"],
            255,
        )
        .unwrap();
        assert_eq!(names.databases(), ["bsonvault_drill_00000abc_0", "bsonvault_drill_00000abc_1"]);
        assert!(names.databases().iter().all(|name| may_be_scratch(name)));
        let renames = names.renames().unwrap();
        let new = renames[0].apply(&Namespace::new(odd, "x.y")).unwrap().unwrap();
        assert_eq!(new, Namespace::new("bsonvault_drill_00000abc_0", "x.y"));
        assert_eq!(names.original(&new.to_string()), format!("{odd}.x.y"));
        let error = names.in_words(Error::usage(format!("creating {new}")));
        assert_eq!(error.to_string(), format!("creating {odd}.x.y"));
    }

    #[test]
    fn a_long_collection_name_makes_the_databases_short() {
        for (room, expected) in [(26, "bsonvault_drill_00000abc_0"), (25, "~c4200"), (3, "~c4"), (1, "~")] {
            let long = collection("d", &"n".repeat(255 - 1 - room), CollectionKind::Collection);
            let names = choose(&[long], &[], 255).unwrap();
            assert_eq!(names.databases(), [expected]);
            assert!(may_be_scratch(expected));
        }
        let series = collection("d", &"n".repeat(255 - 1 - 15 - 2), CollectionKind::TimeSeries);
        assert_eq!(choose(&[series], &["~C"], 255).unwrap().databases(), ["~d"]);
        // A server before 4.4 allows less.
        let long = collection("d", &"n".repeat(115), CollectionKind::Collection);
        assert_eq!(choose(&[long], &[], 120).unwrap().databases(), ["~c42"]);
    }

    #[test]
    fn where_no_name_fits_the_collection_is_named() {
        let long = collection("d", &"n".repeat(253), CollectionKind::Collection);
        let error = choose(&[long], &["~"], 255).unwrap_err();
        assert!(error.kind() == ErrorKind::Refused && error.to_string().starts_with("d.nnn"), "{error}");
        assert!(choose(&[collection("d", &"n".repeat(119), CollectionKind::Collection)], &[], 120).is_err());
    }
}
