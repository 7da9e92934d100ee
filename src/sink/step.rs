//! The steps with which an import publishes its result, one per namespace.

use bson::RawDocumentBuf;
use uuid::Uuid;

use crate::error::{Error, ErrorKind};
use crate::format::digest::Content;
use crate::mongo::failure::is_passing;
use crate::names::Namespace;

/// A step for one namespace. Each step can be repeated, by another process too, and changes nothing
/// if it was done before.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A staged collection replaces the existing one.
    Swap(Staged),
    /// A staged time series replaces the existing one.
    Series {
        /// The staged buckets.
        staged: Staged,
        /// The options for `create`, expiry included.
        options: RawDocumentBuf,
    },
    /// The documents of a staged collection are merged into the existing one.
    Merge(Staged),
    /// Those documents of a staged collection are added whose `_id` the existing one does not have.
    Add(Staged),
    /// A view is created, or changed into this one.
    View {
        /// Its name.
        to: Namespace,
        /// The options for `create`.
        options: RawDocumentBuf,
        /// Whether it replaces something else under its name.
        replaces: bool,
        /// Where the existing one is kept.
        keep: Option<Keep>,
    },
    /// A collection that the backup does not have is dropped.
    Drop {
        /// Its name.
        namespace: Namespace,
        /// Its UUID; for a time series, that of its buckets; `None` for views.
        uuid: Option<Uuid>,
        /// Where it is kept.
        keep: Option<Keep>,
    },
    /// A note that an import keeps what it replaces.
    Remember {
        /// Where the note is stored.
        record: Namespace,
        /// The import.
        id: String,
        /// The backup that it imports.
        backup: String,
        /// When, by the target's clock.
        at: bson::DateTime,
    },
    /// The record of what an import kept is deleted.
    Forget {
        /// Where the record is stored.
        record: Namespace,
        /// The import.
        id: String,
    },
}

/// A staged collection and its destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// Its staging name.
    pub place: Namespace,
    /// Its final name.
    pub to: Namespace,
    /// The UUID of the collection with the documents; for a time series, that of its buckets.
    pub uuid: Uuid,
    /// Whether it replaces an existing collection under its name. If not, the existing one stays,
    /// and this one is not published.
    pub replaces: bool,
    /// Where the replaced collection is kept.
    pub keep: Option<Keep>,
}

/// Where a step keeps what it replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// The import.
    pub id: String,
    /// The database with its record.
    pub home: String,
    /// The number of the namespace within the import.
    pub number: i64,
    /// The name under which it is kept.
    pub place: Namespace,
    /// The content that the import puts in its place.
    pub imported: Content,
}

impl Step {
    /// The namespace that it publishes or drops.
    #[must_use]
    pub fn name(&self) -> &Namespace {
        match self {
            Self::Swap(staged) | Self::Series { staged, .. } | Self::Merge(staged) | Self::Add(staged) => &staged.to,
            Self::View { to, .. } => to,
            Self::Drop { namespace, .. } => namespace,
            Self::Remember { record, .. } | Self::Forget { record, .. } => record,
        }
    }

    /// The database that it changes.
    pub(super) fn database(&self) -> &str {
        &self.name().database
    }

    pub(super) fn staged(&self) -> Option<&Staged> {
        match self {
            Self::Swap(staged) | Self::Series { staged, .. } | Self::Merge(staged) | Self::Add(staged) => Some(staged),
            Self::View { .. } | Self::Drop { .. } | Self::Remember { .. } | Self::Forget { .. } => None,
        }
    }

    /// Whether this error means that the step can never be done, and that giving it up loses
    /// nothing: the existing collection stays. Otherwise all later imports would wait for it
    /// forever.
    pub(super) fn can_be_given_up_after(&self, error: &Error) -> bool {
        match self {
            Self::Swap(_) => error.kind() == ErrorKind::Refused,
            Self::Merge(_) | Self::Add(_) | Self::View { .. } => {
                matches!(error.kind(), ErrorKind::Refused | ErrorKind::Server) && !is_passing(error)
            }
            Self::Series { .. } | Self::Drop { .. } | Self::Remember { .. } | Self::Forget { .. } => false,
        }
    }
}

impl Staged {
    pub(super) fn is_staged_as(&self, name: &str) -> bool {
        name == self.place.collection || name == self.place.buckets().collection
    }
}

/// The error for an existing collection that must not be replaced.
pub(super) fn in_the_way(name: &Namespace, kind: &str) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!("{name} was not imported: a {kind} was created under its name meanwhile, which was left unchanged"),
    )
    .hint("import it under another name ([[rename]]), or choose another [[mode]]")
}
