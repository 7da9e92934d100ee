//! Works out from the manifest what the target will hold, before anything is written: pure.

mod alterations;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bson::{RawDocument, RawDocumentBuf};
use uuid::Uuid;

pub use self::alterations::Alterations;
use super::same_index;
use super::specification::{self, How, Specification, has_kind, is_id_index};
use crate::error::{Error, Result};
use crate::format::digest::Content;
use crate::format::document::{Element, Elements, Writer};
use crate::format::kind;
use crate::format::manifest::{Collection, CollectionKind};
use crate::format::value::Text;
use crate::mongo::{Version, catalog};
use crate::names::Namespace;

/// One collection, time series or view as it will be in the target.
#[derive(Debug, Clone)]
pub struct CollectionSpec {
    /// Its final name.
    pub namespace: Namespace,
    /// Its name while it is filled: a staging name in the same database, once there is one.
    pub place: Namespace,
    /// The UUID of the staging collection with its documents, once it is created.
    pub uuid: Option<Uuid>,
    /// Its kind.
    pub kind: CollectionKind,
    /// Whether it keeps the order of its documents.
    pub capped: bool,
    /// What it must hold in the end.
    pub content: Content,
    /// Its indexes, except the one on `_id` that every collection has.
    pub indexes: Vec<Index>,
    /// Parts that the target cannot hold and that are skipped, each with a reason.
    pub left_out: Vec<String>,
    /// The options for `create`, including the `_id` index.
    pub(super) options: RawDocumentBuf,
    /// The expiry, set once everything is verified, so that the server does not expire documents
    /// before.
    pub(super) expire_after: Option<(u8, Vec<u8>)>,
    /// Whether it may hold documents that its rules refuse.
    pub(super) has_rules: bool,
    /// A time series whose buckets may hold measurements of several types.
    pub(super) mixed_schema: bool,
    /// Whether documents are inserted in the order they arrive, even if it is not capped.
    pub(super) in_order: bool,
    /// Whether it is filled under its final name and cannot be read: see
    /// [`in_place`](super::in_place).
    pub(super) unread: bool,
    /// Whether an existing collection under its name may have other options.
    pub takes_any_options: bool,
    /// Whether its lasting indexes were built while it was empty, and still exist: they do as long
    /// as no document is refused.
    pub(super) indexed: Arc<AtomicBool>,
}

/// An index to build.
#[derive(Debug, Clone)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// Its specification for `createIndexes`.
    pub(super) specification: RawDocumentBuf,
    /// Whether a value in its key was changed.
    key_changed: bool,
}

impl Index {
    fn is_unique(&self) -> bool {
        matches!(self.specification.get("unique"), Ok(Some(value)) if value.as_bool().unwrap_or(true))
    }
}

impl CollectionSpec {
    /// What a server that behaves as this version needs to hold `collection` under the name
    /// `namespace`, if it can: see [`limits`](super::limits).
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if the options or an index are not
    /// documents.
    pub fn of(collection: &Collection, namespace: Namespace, version: Version) -> Result<Self> {
        let mut spec =
            Self { kind: collection.kind, content: collection.content(), has_rules: false, ..Self::standing(namespace) };
        spec.take_options(collection, version)?;
        if spec.kind != CollectionKind::View {
            spec.take_indexes(collection, version)?;
        }
        Ok(spec)
    }

    /// A plain collection that exists already.
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
            unread: false,
            takes_any_options: false,
            indexed: Arc::default(),
            place: namespace.clone(),
            uuid: None,
            namespace,
        }
    }

    /// The same under its final name, where it exists already, with these indexes still to build.
    #[must_use]
    pub fn in_place(&self, indexes: Vec<Index>) -> Self {
        Self { place: self.namespace.clone(), uuid: None, indexes, indexed: Arc::default(), ..self.clone() }
    }

    /// The same with this content to hold.
    #[must_use]
    pub fn holding(&self, content: Content) -> Self {
        Self { content, ..self.clone() }
    }

    /// The options for `create`, including expiry.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal).
    pub fn all_options(&self) -> Result<RawDocumentBuf> {
        let mut options = Writer::default();
        options.extend(self.options.as_bytes())?;
        if let Some((kind, value)) = &self.expire_after {
            options.element(*kind, "expireAfterSeconds", value);
        }
        options.raw()
    }

    /// Whether a single writer fills it, in the order its documents arrive.
    #[must_use]
    pub fn keeps_order(&self) -> bool {
        self.capped || self.in_order
    }

    /// Whether it has documents of its own: everything but views.
    #[must_use]
    pub fn holds_documents(&self) -> bool {
        self.kind != CollectionKind::View
    }

    /// The collection that holds its documents while it is filled. For a time series, the one with
    /// its buckets.
    #[must_use]
    pub fn data_collection(&self) -> String {
        match self.kind {
            CollectionKind::TimeSeries => self.place.buckets().collection,
            CollectionKind::Collection | CollectionKind::View => self.place.collection.clone(),
        }
    }

    /// How its `_id` compares text.
    pub(super) fn text(&self) -> Text {
        let locale = self.options.get_document("collation").and_then(|collation| collation.get_str("locale"));
        if locale.is_ok_and(|locale| locale != "simple") { Text::IsAlike } else { Text::Counts }
    }

    fn take_options(&mut self, collection: &Collection, version: Version) -> Result<()> {
        let place = |e: Error| e.context(format!("options of {}", self.namespace));
        let elements =
            Elements::of(collection.options.bson.as_bytes()).and_then(Iterator::collect::<Result<Vec<_>>>).map_err(place)?;
        let has = |name: &[u8]| elements.iter().any(|e| e.name == name);
        // `convertToCapped` leaves both options. No server creates a collection with both.
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
                // Says how a server numbers its records; not an option of `create`.
                b"recordIdsReplicated" => {}
                // An index on `_id` is mandatory by now, and servers from 8.2 on do not know the
                // option. No server accepts `temp`, and temporary collections are not imported.
                b"temp" => {}
                b"autoIndexId" if version >= Version(8, 2, 0) => {}
                b"autoIndexId" => options.bool("autoIndexId", true),
                _ => options.element(kind, name, value),
            }
            self.has_rules |= self.kind == CollectionKind::Collection && matches!(name, b"validator" | b"encryptedFields");
        }
        self.capped = is_capped;
        let says_auto = has(b"autoIndexId") && version < Version(8, 2, 0);
        if self.kind == CollectionKind::Collection && !is_clustered && !says_auto {
            // The only place for the collation and the version of the index on `_id`; not allowed
            // together with `autoIndexId`.
            let specifications = collection.indexes.iter().map(|index| &*index.bson);
            if let Some(id_index) =
                specifications.into_iter().find(|i| is_id_index(i) && !i.get_bool("clustered").unwrap_or(false))
            {
                let (id_index, changes) = specification::id_index(id_index, has(b"collation")).map_err(place)?;
                options.document("idIndex", id_index.as_bytes());
                self.left_out.extend(changes.iter().map(|change| format!("the index on _id of {}: {change}", self.namespace)));
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
            let name = catalog::name(specification).unwrap_or_else(|| "?".to_owned());
            let key = specification
                .get_document("key")
                .map_err(|e| Error::damaged(format!("index {name:?} of {} has no key", self.namespace)).cause(e))?;
            if version >= Version(4, 9, 0) && has_kind(key, "geoHaystack") {
                self.left_out.push(format!("index {name:?} of {}: servers from 5.0 on have no geoHaystack", self.namespace));
                continue;
            }
            let how = How {
                collated_by_default: locale != "simple",
                without_expiry: self.expiry_for(specification, &name, version) == Expiry::LeftOut,
                is_of_series: self.kind == CollectionKind::TimeSeries,
            };
            let made = specification::index(specification, key, how);
            self.add_index(made.map_err(|e| e.context(format!("index {name:?} of {}", self.namespace)))?, version);
        }
        Ok(())
    }

    /// Adds an index, unless an equal one exists already: some keys that old servers told apart are
    /// equal now. Of two equal ones, a unique one stays.
    fn add_index(&mut self, made: Specification, version: Version) {
        let Specification { name, bson: specification, key_changed, changes } = made;
        self.left_out.extend(changes.iter().map(|change| format!("index {name:?} of {}: {change}", self.namespace)));
        let index = Index { name, specification, key_changed };
        let same = self.indexes.iter().position(|other| {
            same_index::are_one(&other.specification, &index.specification, other.key_changed || index.key_changed, version)
        });
        let Some(place) = same else { return self.indexes.push(index) };
        let other = &mut self.indexes[place];
        let gone = if index.is_unique() && !other.is_unique() { std::mem::replace(other, index) } else { index };
        self.left_out.push(format!(
            "index {:?} of {}: current servers treat its key as equal to that of index {:?}, and build it once",
            gone.name, self.namespace, other.name
        ));
    }

    /// What the target does with an index's expiry.
    fn expiry_for(&mut self, specification: &RawDocument, index: &str, version: Version) -> Expiry {
        if !matches!(specification.get("expireAfterSeconds"), Ok(Some(_))) {
            return Expiry::AsItIs;
        }
        if self.capped && version >= Version(5, 1, 0) && version < Version(7, 1, 0) {
            self.left_out.push(format!(
                "expireAfterSeconds of index {index:?} of {}: the target supports no expiry on a capped collection",
                self.namespace
            ));
            return Expiry::LeftOut;
        }
        // Before 5.0, nothing expires by it; 5.0.4 reads it as 0 and expires everything.
        if version >= Version(5, 0, 0) && specification.get_f64("expireAfterSeconds").is_ok_and(f64::is_nan) {
            self.left_out.push(format!(
                "expireAfterSeconds of index {index:?} of {}: it is NaN, which never expired a document",
                self.namespace
            ));
            return Expiry::LeftOut;
        }
        Expiry::AsItIs
    }
}

/// What happens to an index's `expireAfterSeconds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    AsItIs,
    LeftOut,
}

/// Whether servers of this version refuse buckets with several types of measurement in one field,
/// unless an option announces them. These servers have that option.
fn minds_mixed_schema(version: Version) -> bool {
    match version {
        Version(8.., _, _) => true,
        Version(7, 0, patch) => patch >= 13,
        Version(6, 0, patch) => patch >= 17,
        _ => false,
    }
}

fn is_true(kind: u8, value: &[u8]) -> bool {
    match kind {
        kind::BOOLEAN | kind::INT32 | kind::INT64 => value.iter().any(|&b| b != 0),
        kind::DOUBLE => value != 0f64.to_le_bytes(),
        _ => false,
    }
}
