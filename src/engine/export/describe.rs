//! Describes a collection as mongodump would.

use super::options::Beside;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{Collection, CollectionKind, RawValue};
use crate::format::metadata::{self, text};
use crate::interop::write::Described;
use crate::mongo::Version;
use crate::names::BUCKETS_PREFIX;

/// From this version on, the buckets of a time series have no name of their own.
const VIEWLESS: Version = Version(8, 3, 0);

/// The names and the metadata of a collection on a server of this version.
pub(super) fn described(collection: &Collection, server_version: &str) -> Result<Described> {
    let named_buckets =
        collection.kind == CollectionKind::TimeSeries && Version::parse(server_version).is_none_or(|v| v < VIEWLESS);
    let name = collection.name.clone();
    let data = if named_buckets { format!("{BUCKETS_PREFIX}{name}") } else { name.clone() };
    let faithful = |value: &RawValue, what: &str| match text::is_faithful(&value.bson) {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Refused,
            format!(
                "{what} of {} cannot be exported: mongodump's metadata are JSON, which cannot represent them",
                collection.namespace()
            ),
        )
        .hint(format!("skip it with [[exclude]] {:?}; an import restores it completely", collection.namespace().to_string()))),
    };
    faithful(&collection.options, "the options")?;
    for index in &collection.indexes {
        faithful(index, "an index")?;
    }
    // mongodump reads the time series by name, and only its buckets have a UUID.
    let uuid = if named_buckets { None } else { collection.uuid };
    let indexes = collection.indexes.iter().map(|index| &*index.bson);
    let metadata = metadata::write(&name, collection.kind, uuid, &collection.options.bson, indexes);
    let metadata =
        String::from_utf8(metadata).map_err(|e| Error::new(ErrorKind::Internal, "metadata that are not text").cause(e))?;
    Ok(Described { database: collection.database.clone(), name, data, kind: collection.kind, metadata })
}

/// Users and roles have no metadata, as with mongodump.
pub(super) fn described_beside(beside: &Beside) -> Described {
    let (database, name) = (beside.database.clone(), beside.name.clone());
    Described { database, data: name.clone(), name, kind: CollectionKind::Collection, metadata: String::new() }
}
