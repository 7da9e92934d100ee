//! What is to stand in the target, worked out from the manifest before anything is written: pure.

mod alterations;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bson::{RawDocument, RawDocumentBuf};
use uuid::Uuid;

pub use self::alterations::Alterations;
use crate::error::{Error, Result};
use crate::format::digest::Content;
use crate::format::document::{Element, Elements, Writer};
use crate::format::manifest::{Collection, CollectionKind};
use crate::format::value::Text;
use crate::mongo::Version;
use crate::names::Namespace;

/// One collection, time series or view as it is to stand in the target.
#[derive(Debug, Clone)]
pub struct Blueprint {
    /// Its name there, in the end.
    pub namespace: Namespace,
    /// Its name while it is filled: a staging name in the same database, once there is one.
    pub place: Namespace,
    /// The identity of the staging collection that holds its documents, once it is created.
    pub uuid: Option<Uuid>,
    /// What it is.
    pub kind: CollectionKind,
    /// Whether it keeps the order of its documents.
    pub capped: bool,
    /// What it must hold in the end.
    pub content: Content,
    /// Its indexes, but for the one on `_id` that comes with it.
    pub indexes: Vec<Index>,
    /// What the target cannot hold and can be done without, in words.
    pub left_out: Vec<String>,
    /// The options of `create`, and the `_id` index.
    pub(super) options: RawDocumentBuf,
    /// Set once everything is proven, so that the server does not expire documents before.
    pub(super) expire_after: Option<(u8, Vec<u8>)>,
    /// Documents that its rules refuse may be in it.
    pub(super) has_rules: bool,
    /// A time series whose buckets may hold measurements of several types.
    pub(super) mixed_schema: bool,
    /// Its documents are inserted in the order in which they come, if it is not capped, too.
    pub(super) in_order: bool,
    /// What stands under its name may have other options.
    pub takes_any_options: bool,
    /// Its lasting indexes were made while it was empty, and stand as long as no document is refused.
    pub(super) indexed: Arc<AtomicBool>,
}

/// An index to build.
#[derive(Debug, Clone)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// Its specification for `createIndexes`.
    pub(super) specification: RawDocumentBuf,
}

impl Blueprint {
    /// What a server that behaves as this version needs to hold `collection` under the name `namespace`, if it can: see
    /// [`limits`](super::limits).
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) where the options or an index are not documents.
    pub fn of(collection: &Collection, namespace: Namespace, version: Version) -> Result<Self> {
        let mut blueprint = Self {
            kind: collection.kind,
            capped: false,
            content: collection.content(),
            indexes: Vec::new(),
            left_out: Vec::new(),
            options: RawDocumentBuf::new(),
            expire_after: None,
            has_rules: false,
            mixed_schema: false,
            in_order: false,
            takes_any_options: false,
            indexed: Arc::default(),
            place: namespace.clone(),
            uuid: None,
            namespace,
        };
        blueprint.take_options(collection, version)?;
        if blueprint.kind != CollectionKind::View {
            blueprint.take_indexes(collection, version)?;
        }
        Ok(blueprint)
    }

    /// A plain collection that stands there already.
    #[must_use]
    pub(super) fn standing(namespace: Namespace) -> Self {
        Self {
            kind: CollectionKind::Collection,
            capped: false,
            content: Content::default(),
            indexes: Vec::new(),
            left_out: Vec::new(),
            options: RawDocumentBuf::new(),
            expire_after: None,
            has_rules: true,
            mixed_schema: false,
            in_order: false,
            takes_any_options: false,
            indexed: Arc::default(),
            place: namespace.clone(),
            uuid: None,
            namespace,
        }
    }

    /// The same where it stands under its final name already, with these indexes to be built.
    #[must_use]
    pub fn in_place(&self, indexes: Vec<Index>) -> Self {
        Self { place: self.namespace.clone(), uuid: None, indexes, indexed: Arc::default(), ..self.clone() }
    }

    /// The same where it must hold this.
    #[must_use]
    pub fn holding(&self, content: Content) -> Self {
        Self { content, ..self.clone() }
    }

    /// The options of `create`, expiry included.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal).
    pub fn all_options(&self) -> Result<RawDocumentBuf> {
        let mut options = Writer::default();
        for element in Elements::of(self.options.as_bytes())? {
            let element = element?;
            options.element(element.kind, element.name, element.value);
        }
        if let Some((kind, value)) = &self.expire_after {
            options.element(*kind, "expireAfterSeconds", value);
        }
        options.raw()
    }

    /// Whether one writer fills it, in the order in which its documents come.
    #[must_use]
    pub fn keeps_order(&self) -> bool {
        self.capped || self.in_order
    }

    /// Whether it has documents of its own: everything but views.
    #[must_use]
    pub fn holds_documents(&self) -> bool {
        self.kind != CollectionKind::View
    }

    /// The name of the collection that its documents are in while it is filled: for a time series that of its buckets.
    #[must_use]
    pub fn data_collection(&self) -> String {
        match self.kind {
            CollectionKind::TimeSeries => self.place.buckets().collection,
            CollectionKind::Collection | CollectionKind::View => self.place.collection.clone(),
        }
    }

    /// How text counts in an `_id` of it.
    pub(super) fn text(&self) -> Text {
        let locale = self.options.get_document("collation").and_then(|collation| collation.get_str("locale"));
        if locale.is_ok_and(|locale| locale != "simple") { Text::IsAlike } else { Text::Counts }
    }

    fn take_options(&mut self, collection: &Collection, version: Version) -> Result<()> {
        let place = |e: Error| e.context(format!("options of {}", self.namespace));
        let elements =
            Elements::of(collection.options.bson.as_bytes()).and_then(Iterator::collect::<Result<Vec<_>>>).map_err(place)?;
        let has = |name: &[u8]| elements.iter().any(|e| e.name == name);
        // `convertToCapped` leaves both, which no server creates.
        let is_capped = elements.iter().any(|e| e.name == b"capped" && is_true(e.kind, e.value));
        let is_clustered = has(b"clusteredIndex") && !is_capped;
        if has(b"clusteredIndex") && is_capped {
            self.left_out
                .push(format!("option \"clusteredIndex\" of {}: no server creates it for a capped collection", self.namespace));
        }
        let expires = self.kind == CollectionKind::TimeSeries || is_clustered;
        let mut options = Writer::default();
        for Element { kind, name, value } in elements.iter().copied() {
            match name {
                b"expireAfterSeconds" if expires => self.expire_after = Some((kind, value.to_vec())),
                b"timeseriesBucketsMayHaveMixedSchemaData" => {
                    self.mixed_schema = is_true(kind, value) && minds_mixed_schema(version)
                }
                b"clusteredIndex" if is_capped => {}
                // Says how one server numbers its records, and is no option of `create`.
                b"recordIdsReplicated" => {}
                // An index on `_id` can no longer be done without, and from 8.2 the option is unknown.
                b"autoIndexId" if version >= Version(8, 2, 0) => {}
                b"autoIndexId" => options.bool("autoIndexId", true),
                _ => options.element(kind, name, value),
            }
            self.has_rules |= self.kind == CollectionKind::Collection && matches!(name, b"validator" | b"encryptedFields");
        }
        self.capped = is_capped;
        let says_auto = has(b"autoIndexId") && version < Version(8, 2, 0);
        if self.kind == CollectionKind::Collection && !is_clustered && !says_auto {
            // The only place where the collation and the version of the index on `_id` can be said; not beside `autoIndexId`.
            let specifications = collection.indexes.iter().map(|index| &*index.bson);
            if let Some(id_index) =
                specifications.into_iter().find(|i| is_id_index(i) && !i.get_bool("clustered").unwrap_or(false))
            {
                options.document("idIndex", without(id_index, b"ns").map_err(place)?.as_bytes());
            }
        }
        self.options = options.raw()?;
        Ok(())
    }

    fn take_indexes(&mut self, collection: &Collection, version: Version) -> Result<()> {
        let options = &collection.options.bson;
        let locale = options.get_document("collation").and_then(|c| c.get_str("locale")).unwrap_or("simple");
        for specification in collection.indexes.iter().map(|index| &*index.bson) {
            let clustered = specification.get_bool("clustered").unwrap_or(false);
            if clustered || (self.kind == CollectionKind::Collection && is_id_index(specification)) {
                continue;
            }
            let name = specification.get_str("name").unwrap_or("?").to_owned();
            let key = specification
                .get_document("key")
                .map_err(|e| Error::damaged(format!("index {name:?} of {} has no key", self.namespace)).cause(e))?;
            if version >= Version(4, 9, 0) && has_kind(key, "geoHaystack") {
                self.left_out.push(format!("index {name:?} of {}: servers from 5.0 on have no geoHaystack", self.namespace));
                continue;
            }
            let expiry = self.expiry_for(specification, &name, version);
            let specification = index_for(specification, key, locale != "simple", expiry)
                .map_err(|e| e.context(format!("index {name:?} of {}", self.namespace)))?;
            self.indexes.push(Index { name, specification });
        }
        Ok(())
    }

    /// What of an index's expiry the target takes, or takes for something else.
    fn expiry_for(&mut self, specification: &RawDocument, index: &str, version: Version) -> Expiry {
        if !matches!(specification.get("expireAfterSeconds"), Ok(Some(_))) {
            return Expiry::AsItIs;
        }
        if self.capped && version >= Version(5, 1, 0) && version < Version(7, 1, 0) {
            self.left_out.push(format!(
                "expireAfterSeconds of index {index:?} of {}: the target takes none on a capped collection",
                self.namespace
            ));
            return Expiry::LeftOut;
        }
        // Nothing expires by it before 5.0; 5.0.4 takes it for 0, by which everything does.
        if version >= Version(5, 0, 0) && specification.get_f64("expireAfterSeconds").is_ok_and(f64::is_nan) {
            self.left_out.push(format!(
                "expireAfterSeconds of index {index:?} of {}: it is not a number, by which nothing expired",
                self.namespace
            ));
            return Expiry::LeftOut;
        }
        Expiry::AsItIs
    }
}

/// What becomes of an index's `expireAfterSeconds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    AsItIs,
    LeftOut,
}

/// Whether servers of this version refuse buckets whose measurements have several types in one field, unless they are told that there are
/// such, and so have an option to tell them.
fn minds_mixed_schema(version: Version) -> bool {
    match version {
        Version(8.., _, _) => true,
        Version(7, 0, patch) => patch >= 13,
        Version(6, 0, patch) => patch >= 17,
        _ => false,
    }
}

/// A specification as `createIndexes` must be given it to make the same index: as `listIndexes` told it, but for what it implies there and
/// for what older servers took and newer ones refuse.
fn index_for(listed: &RawDocument, key: &RawDocument, collated_by_default: bool, expiry: Expiry) -> Result<RawDocumentBuf> {
    let mut specification = Writer::default();
    let (mut has_collation, mut has_sphere_version) = (false, false);
    for element in Elements::of(listed.as_bytes())? {
        let Element { kind, name, value } = element?;
        match name {
            // The namespace in specifications of servers before 4.4: another one here.
            b"ns" => continue,
            b"key" => {
                specification.document("key", &modern_key(key)?);
                continue;
            }
            b"expireAfterSeconds" if expiry == Expiry::LeftOut => continue,
            b"collation" => has_collation = true,
            b"2dsphereIndexVersion" => has_sphere_version = true,
            _ => {}
        }
        specification.element(kind, name, value);
    }
    // `listIndexes` leaves the simple collation out, and `createIndexes` takes the collection's where none is named. Version 1
    // indexes cannot name one.
    let version_one = matches!(listed.get_i32("v"), Ok(1)) || listed.get_f64("v").is_ok_and(|v| v <= 1.0);
    if collated_by_default && !has_collation && !version_one {
        specification.document("collation", bson::rawdoc! { "locale": "simple" }.as_bytes());
    }
    // Those of version 1 do not name it.
    if has_kind(key, "2dsphere") && !has_sphere_version {
        specification.element(0x10, "2dsphereIndexVersion", &1i32.to_le_bytes());
    }
    specification.raw()
}

/// The key with those values replaced by 1 that only servers before 3.4 took: 0, NaN, empty text, and what is neither a number nor
/// text. They all meant an ascending index.
fn modern_key(key: &RawDocument) -> Result<Vec<u8>> {
    let mut modern = Writer::default();
    for element in Elements::of(key.as_bytes())? {
        let Element { kind, name, value } = element?;
        let taken = match kind {
            0x01 => f64::from_le_bytes(fixed(value)?).abs() > 0.0,
            0x02 => value.len() > 5,
            0x10 | 0x12 => value.iter().any(|&b| b != 0),
            0x13 => true,
            _ => false,
        };
        if taken {
            modern.element(kind, name, value);
        } else {
            modern.element(0x10, name, &1i32.to_le_bytes());
        }
    }
    Ok(modern.finish())
}

fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N]> {
    value.try_into().map_err(|e| Error::damaged("a number of the wrong length").cause(e))
}

/// Whether this is the index on `_id` that every ordinary collection comes with: its key is `_id` ascending and nothing else.
fn is_id_index(specification: &RawDocument) -> bool {
    let Ok(key) = specification.get_document("key") else { return false };
    let fields: Vec<_> = key.iter().collect();
    let [Ok((name, value))] = fields.as_slice() else { return false };
    let one = value.as_i32() == Some(1) || value.as_i64() == Some(1) || value.as_f64() == Some(1.0);
    name.as_str() == "_id" && one
}

fn has_kind(key: &RawDocument, kind: &str) -> bool {
    key.iter().flatten().any(|(_, value)| value.as_str() == Some(kind))
}

fn is_true(kind: u8, value: &[u8]) -> bool {
    match kind {
        0x08 | 0x10 | 0x12 => value.iter().any(|&b| b != 0),
        0x01 => value != 0f64.to_le_bytes(),
        _ => false,
    }
}

fn without(document: &RawDocument, left_out: &[u8]) -> Result<RawDocumentBuf> {
    let mut rest = Writer::default();
    for element in Elements::of(document.as_bytes())? {
        let Element { kind, name, value } = element?;
        if name != left_out {
            rest.element(kind, name, value);
        }
    }
    rest.raw()
}
