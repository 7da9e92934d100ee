//! What a server does to a document that is inserted, and which documents it refuses: pure.
//!
//! This follows `fixDocumentForInsert` in the server's sources; tried on 4.4.2, 5.0.4, 6.0.5 and
//! 6.0.27. A `Timestamp(0, 0)` is not handled here: servers have an option to keep it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::digest::Content;
use super::document::{self, Documents, Elements, Shape, Writer};
use crate::error::Result;
use crate::few::{self, LISTED};
use crate::format::kind;

/// The largest document that a server accepts from a user. It sends slightly larger ones, and dumps
/// have them.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// The most levels below the top that a server accepts: 200, less the 20 that it reserves. Servers
/// of 4.4 accept one less.
const MOST_LEVELS: usize = 180;

/// The bytes that an `_id` made by this program adds to a document: type, name, value.
const GIVEN_ID: usize = 1 + 4 + 12;

/// Why no server accepts a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Its `_id` is an array.
    ArrayId,
    /// Its `_id` is a regular expression.
    RegexId,
    /// Its `_id` is undefined.
    UndefinedId,
    /// Its `_id` has a field whose name begins with `$`, and is not a DBRef.
    DollarId,
    /// It has more than one `_id`.
    SeveralIds,
    /// It is larger than 16 MiB, including the `_id` that a document without one gets.
    TooLong,
    /// It is nested too deeply.
    TooDeep,
}

impl Refusal {
    /// Why no server accepts a document of this many bytes and this shape; `None` if servers accept
    /// it.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if its `_id` is broken.
    pub fn of(bytes: usize, shape: &Shape<'_>) -> Result<Option<Self>> {
        let stored = if shape.ids == 0 { bytes + GIVEN_ID } else { bytes };
        Ok(match shape.id {
            _ if stored > MOST_BYTES => Some(Self::TooLong),
            _ if shape.depth > MOST_LEVELS => Some(Self::TooDeep),
            _ if shape.ids > 1 => Some(Self::SeveralIds),
            Some((kind::ARRAY, _)) => Some(Self::ArrayId),
            Some((kind::UNDEFINED, _)) => Some(Self::UndefinedId),
            Some((kind::REGEX, _)) => Some(Self::RegexId),
            Some((kind::DOCUMENT, value)) if has_dollars(value, true)? => Some(Self::DollarId),
            _ => None,
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ArrayId => "an _id that is an array",
            Self::RegexId => "an _id that is a regular expression",
            Self::UndefinedId => "an _id that is undefined",
            Self::DollarId => "an _id with a field name that begins with $",
            Self::SeveralIds => "more than one _id",
            Self::TooLong => "more than 16 MiB",
            Self::TooDeep => "more than 180 levels of nesting",
        })
    }
}

/// Whether a field name in an `_id` begins with `$`, apart from those of a DBRef: `$ref`, `$id` and
/// perhaps `$db`, in this order, before all others.
fn has_dollars(value: &[u8], is_document: bool) -> Result<bool> {
    let elements = Elements::of(value)?.collect::<Result<Vec<_>>>()?;
    let is_reference = is_document
        && matches!(elements.as_slice(), [reference, id, ..] if reference.name == b"$ref" && reference.kind == kind::STRING && id.name == b"$id");
    for (number, element) in elements.iter().enumerate() {
        let belongs = is_reference && (number < 2 || (number == 2 && element.name == b"$db"));
        let inside =
            matches!(element.kind, kind::DOCUMENT | kind::ARRAY) && has_dollars(element.value, element.kind == kind::DOCUMENT)?;
        if inside || (element.name.starts_with(b"$") && !belongs) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Documents that no server accepts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = NotImportableResult)]
pub struct NotImportable {
    /// Their collection's namespace.
    pub namespace: String,
    /// Why no server accepts them.
    pub reason: String,
    /// How many there are.
    pub documents: u64,
}

/// Those of many collections; the first ones are listed, the others counted.
#[derive(Debug, Default)]
pub struct NotImportables {
    first: Vec<NotImportable>,
    more: usize,
    documents: u64,
}

impl Extend<NotImportable> for NotImportables {
    fn extend<T: IntoIterator<Item = NotImportable>>(&mut self, others: T) {
        for other in others {
            if self.first.len() < LISTED {
                self.first.push(other);
            } else {
                self.more += 1;
                self.documents += other.documents;
            }
        }
    }
}

impl NotImportables {
    /// The first ones, and a last item without a namespace that counts the others.
    #[must_use]
    pub fn into_list(mut self) -> Vec<NotImportable> {
        if self.more > 0 {
            let reason = few::and_more(self.more);
            self.first.push(NotImportable { namespace: String::new(), reason, documents: self.documents });
        }
        self.first
    }
}

/// How the documents of a collection arrive in a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// Documents without an `_id`, which get one.
    pub without_id: u64,
    /// Documents whose `_id` is not their first field and is moved there.
    pub id_later: u64,
    /// Documents that no server accepts, by reason.
    pub refused: BTreeMap<Refusal, u64>,
}

impl Arrivals {
    /// Counts a document of this many bytes and this shape.
    ///
    /// # Errors
    /// As for [`Refusal::of`].
    pub fn add(&mut self, bytes: usize, shape: &Shape<'_>) -> Result<()> {
        if let Some(refusal) = Refusal::of(bytes, shape)? {
            *self.refused.entry(refusal).or_default() += 1;
        } else if shape.ids == 0 {
            self.without_id += 1;
        } else if !shape.id_is_first {
            self.id_later += 1;
        }
        Ok(())
    }

    /// Notes about them for people. `name` is that of the collection.
    #[must_use]
    pub fn notes(&self, name: &str) -> Vec<String> {
        let documents = |count: u64| if count == 1 { "1 document".to_owned() } else { format!("{count} documents") };
        let mut notes: Vec<String> = Vec::new();
        for (refusal, count) in &self.refused {
            notes.push(format!(
                "{name}: {} with {refusal}: no server accepts them, and the collection cannot be imported",
                documents(*count)
            ));
        }
        if self.without_id > 0 {
            notes.push(format!("{name}: {} without an _id: an import gives each one", documents(self.without_id)));
        }
        if self.id_later > 0 {
            let words = "with an _id that is not the first field: an import moves it there";
            notes.push(format!("{name}: {} {words}", documents(self.id_later)));
        }
        notes
    }

    /// Those that no server accepts, for programs.
    #[must_use]
    pub fn not_importable(&self, name: &str) -> Vec<NotImportable> {
        let one = |(refusal, documents): (&Refusal, &u64)| NotImportable {
            namespace: name.to_owned(),
            reason: refusal.to_string(),
            documents: *documents,
        };
        self.refused.iter().map(one).collect()
    }

    /// Adds the counts of others.
    pub fn merge(&mut self, others: &Self) {
        self.without_id += others.without_id;
        self.id_later += others.id_later;
        for (refusal, count) in &others.refused {
            *self.refused.entry(*refusal).or_default() += count;
        }
    }
}

/// Changes to documents that a server would make.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Documents without an `_id` that got one.
    pub given: u64,
    /// Documents whose `_id` was moved to their front.
    pub moved: u64,
    /// All these documents before the change.
    before: Content,
    /// All these documents after the change.
    after: Content,
}

impl Changes {
    /// Adds the counts of others.
    pub fn merge(&mut self, others: &Self) {
        self.given += others.given;
        self.moved += others.moved;
        self.before.merge(&others.before);
        self.after.merge(&others.after);
    }

    /// The new content of a set of documents that had this content and includes these.
    #[must_use]
    pub fn applied_to(&self, content: &Content) -> Content {
        let mut changed = content.without(&self.before);
        changed.merge(&self.after);
        changed
    }

    fn count(&mut self, before: &[u8], after: &[u8]) {
        self.before.add(before);
        self.after.add(after);
    }
}

/// Changes documents as a server would: each has its `_id` as the first field, from `new_id` if it
/// has none. A document with several `_id`s stays unchanged, because no server accepts it.
///
/// # Errors
/// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if they are not documents.
pub fn arrange(frame: Vec<u8>, mut new_id: impl FnMut() -> [u8; 12]) -> Result<(Vec<u8>, Changes)> {
    let mut changes = Changes::default();
    // Usually, there is nothing to do.
    let mut all_first = true;
    for document in Documents::of(&frame) {
        all_first &= begins_with_id(document?);
    }
    if all_first {
        return Ok((frame, changes));
    }
    let mut arranged = Vec::with_capacity(frame.len() + frame.len() / 4);
    for document in Documents::of(&frame) {
        let document = document?;
        let elements = || Elements::of(document);
        let ids = if begins_with_id(document) { 1 } else { count_ids(document)? };
        let start = arranged.len();
        match (begins_with_id(document), ids) {
            (false, 0) => {
                let length = (document.len() + GIVEN_ID) as u32;
                arranged.extend(length.to_le_bytes());
                arranged.push(kind::OBJECT_ID);
                arranged.extend(b"_id\0");
                arranged.extend(new_id());
                arranged.extend(&document[4..]);
                changes.given += 1;
                changes.count(document, &arranged[start..]);
            }
            (false, 1) => {
                let mut moved = Writer::with_capacity(document.len());
                if let Some((kind, value)) = document::id(document)? {
                    moved.element(kind, "_id", value);
                }
                for element in elements()? {
                    let element = element?;
                    if element.name != b"_id" {
                        moved.element(element.kind, element.name, element.value);
                    }
                }
                arranged.extend(moved.finish());
                changes.moved += 1;
                changes.count(document, &arranged[start..]);
            }
            _ => arranged.extend(document),
        }
    }
    Ok((arranged, changes))
}

fn begins_with_id(document: &[u8]) -> bool {
    document.get(5..9) == Some(b"_id\0")
}

fn count_ids(document: &[u8]) -> Result<usize> {
    let mut count = 0;
    for element in Elements::of(document)? {
        count += usize::from(element?.name == b"_id");
    }
    Ok(count)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]
mod tests {
    use bson::{Bson, RawDocumentBuf, Regex, rawdoc};

    use super::*;

    #[test]
    fn of_very_many_collections_the_first_are_kept_and_the_others_counted() {
        let one = |n: usize| NotImportable { namespace: format!("d.{n}"), reason: "odd".to_owned(), documents: 2 };
        let list = |count: usize| {
            let mut all = NotImportables::default();
            all.extend((0..count).map(one));
            all.into_list()
        };
        assert_eq!((list(LISTED).len(), list(LISTED).last()), (LISTED, Some(&one(LISTED - 1))));
        let last = NotImportable { namespace: String::new(), reason: "and 1,500 more".to_owned(), documents: 3_000 };
        assert_eq!(list(LISTED + 1_500).last(), Some(&last));
    }

    fn digest<'a>(documents: impl IntoIterator<Item = &'a [u8]>) -> Content {
        let mut content = Content::default();
        documents.into_iter().for_each(|document| content.add(document));
        content
    }

    #[test]
    fn documents_get_an_id_in_front_and_nothing_else_is_changed() {
        let documents = [
            rawdoc! { "_id": 1, "a": 1 },
            rawdoc! { "a": 1, "b": { "_id": 2 } },
            rawdoc! { "a": 1, "_id": "x", "b": 2 },
            rawdoc! {},
            rawdoc! { "_idx": 1 },
        ];
        let frame: Vec<u8> = documents.iter().flat_map(|d| d.as_bytes().to_vec()).collect();
        let mut next = 0u8;
        let new_id = || {
            next += 1;
            [next; 12]
        };
        let (arranged, changes) = arrange(frame.clone(), new_id).unwrap();
        let id = |n: u8| bson::oid::ObjectId::from_bytes([n; 12]);
        let expected = [
            rawdoc! { "_id": 1, "a": 1 },
            rawdoc! { "_id": id(1), "a": 1, "b": { "_id": 2 } },
            rawdoc! { "_id": "x", "a": 1, "b": 2 },
            rawdoc! { "_id": id(2) },
            rawdoc! { "_id": id(3), "_idx": 1 },
        ];
        let found: Vec<&[u8]> = Documents::of(&arranged).map(Result::unwrap).collect();
        assert_eq!(found, expected.iter().map(|d| d.as_bytes()).collect::<Vec<_>>());
        assert_eq!((changes.given, changes.moved), (3, 1));
        let before = digest(Documents::of(&frame).map(Result::unwrap));
        assert_eq!(changes.applied_to(&before), digest(found));
        // Arranged documents stay unchanged, and get no new `_id`.
        assert_eq!(arrange(arranged.clone(), || [0xFF; 12]).unwrap(), (arranged, Changes::default()));
    }

    #[test]
    fn what_no_server_takes_is_known_by_its_shape() {
        let two = Writer::default().with(kind::NULL, "_id", &[]).with(kind::NULL, "_id", &[]).raw().unwrap();
        let deep = |levels: usize| (0..levels).fold(rawdoc! { "_id": 1 }, |inner, _| rawdoc! { "_id": 1, "d": inner });
        let long = |bytes: usize| {
            let mut blob = rawdoc! { "_id": 1 };
            blob.append(bson::raw::cstr!("b"), "x".repeat(bytes - blob.as_bytes().len() - 8));
            blob
        };
        let unnamed = |bytes: usize| rawdoc! { "b": "x".repeat(bytes - 13) };
        let regex = Bson::RegularExpression(Regex { pattern: "a".try_into().unwrap(), options: "".try_into().unwrap() });
        let cases: Vec<(RawDocumentBuf, Option<Refusal>)> = vec![
            (rawdoc! { "a": 1, "_id": [1] }, Some(Refusal::ArrayId)),
            (RawDocumentBuf::try_from(&bson::doc! { "_id": regex }).unwrap(), Some(Refusal::RegexId)),
            (Writer::default().with(kind::UNDEFINED, "_id", &[]).raw().unwrap(), Some(Refusal::UndefinedId)),
            (rawdoc! { "_id": { "$a": 1 } }, Some(Refusal::DollarId)),
            (rawdoc! { "_id": { "x": [{ "$a": 1 }] } }, Some(Refusal::DollarId)),
            (rawdoc! { "_id": { "$id": 1 } }, Some(Refusal::DollarId)),
            (rawdoc! { "_id": { "x": 1, "$ref": "c", "$id": 1 } }, Some(Refusal::DollarId)),
            (rawdoc! { "_id": { "$ref": 1, "$id": 1 } }, Some(Refusal::DollarId)),
            (rawdoc! { "_id": { "$ref": "c", "$id": 1, "$db": "d" }, "$x": { "$y": 1 } }, None),
            (rawdoc! { "_id": { "a.b": 1, "x$": 1 } }, None),
            (two, Some(Refusal::SeveralIds)),
            (deep(180), None),
            (deep(181), Some(Refusal::TooDeep)),
            (long(MOST_BYTES), None),
            (long(MOST_BYTES + 1), Some(Refusal::TooLong)),
            (unnamed(MOST_BYTES - GIVEN_ID), None),
            (unnamed(MOST_BYTES - GIVEN_ID + 1), Some(Refusal::TooLong)),
        ];
        let mut arrivals = Arrivals::default();
        for (document, expected) in &cases {
            let bytes = document.as_bytes();
            let shape = document::shape(bytes).unwrap();
            assert_eq!(Refusal::of(bytes.len(), &shape).unwrap(), *expected, "{} bytes", bytes.len());
            arrivals.add(bytes.len(), &shape).unwrap();
        }
        assert_eq!(arrivals.refused.values().sum::<u64>(), 12);
        assert_eq!((arrivals.without_id, arrivals.id_later), (1, 0));
    }
}
