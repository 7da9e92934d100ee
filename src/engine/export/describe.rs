//! How mongodump would describe a collection.

use bson::{Bson, Document, RawDocument};

use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{Collection, CollectionKind, RawValue};
use crate::format::metadata;
use crate::interop::write::Described;
use crate::mongo::Version;
use crate::names::BUCKETS_PREFIX;

/// From this version on the buckets of a time series have no name of their own.
const VIEWLESS: Version = Version(8, 3, 0);

/// The names and the metadata of a collection that a server of this version held.
pub(super) fn described(collection: &Collection, server_version: &str) -> Result<Described> {
    let named_buckets =
        collection.kind == CollectionKind::TimeSeries && !Version::parse(server_version).is_some_and(|v| v >= VIEWLESS);
    let name = collection.name.clone();
    let data = if named_buckets { format!("{BUCKETS_PREFIX}{name}") } else { name.clone() };
    let faithful = |value: &RawValue, what: &str| match is_faithful(&value.bson) {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Refused,
            format!(
                "{what} of {} cannot be exported: mongodump's metadata are JSON, which does not keep them",
                collection.namespace()
            ),
        )
        .hint(format!("leave it out with --exclude {:?}; an import brings it whole", collection.namespace().to_string()))),
    };
    faithful(&collection.options, "the options")?;
    for index in &collection.indexes {
        faithful(index, "an index")?;
    }
    // mongodump asks for the time series, and only its buckets have a UUID.
    let uuid = if named_buckets { None } else { collection.uuid };
    let indexes = collection.indexes.iter().map(|index| &*index.bson);
    let metadata = metadata::write(&name, collection.kind, uuid, &collection.options.bson, indexes);
    let metadata =
        String::from_utf8(metadata).map_err(|e| Error::new(ErrorKind::Internal, "metadata that are not text").cause(e))?;
    Ok(Described { database: collection.database.clone(), name, data, kind: collection.kind, metadata })
}

/// Whether a reader of the document's JSON comes to the same document: it may look like JSON's own notation for something else.
fn is_faithful(document: &RawDocument) -> bool {
    let read = |json| match Bson::try_from(json) {
        Ok(Bson::Document(read)) => bytes(&read).is_some_and(|read| read == document.as_bytes()),
        _ => false,
    };
    metadata::canonical_json(document).is_some_and(read)
}

fn bytes(document: &Document) -> Option<Vec<u8>> {
    document.to_vec().ok()
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;
    use crate::format::document::Writer;

    #[test]
    fn only_what_json_keeps_is_faithful() {
        for kept in [
            rawdoc! {},
            rawdoc! { "capped": true, "size": 4096, "max": 5i64, "x": 1.5, "nan": f64::NAN },
            rawdoc! { "pipeline": [{ "$match": { "n": { "$gt": 1 }, "name": { "$regex": "^a", "$options": "i" } } }] },
            rawdoc! { "validator": { "$jsonSchema": { "required": ["a"] } } },
        ] {
            assert!(is_faithful(&kept), "{kept:?}");
        }
        assert!(!is_faithful(&rawdoc! { "validator": { "a": { "$numberInt": "1" } } }));
        assert!(!is_faithful(&rawdoc! { "validator": { "a": { "$oid": "x" } } }));
        let twice = Writer::default().with(0x10, "a", &[1, 0, 0, 0]).with(0x10, "a", &[2, 0, 0, 0]).raw().unwrap();
        assert!(!is_faithful(&twice));
    }
}
