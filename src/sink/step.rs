//! What an import does at the end, namespace by namespace.

use bson::RawDocumentBuf;
use uuid::Uuid;

use crate::error::{Error, ErrorKind};
use crate::format::digest::Content;
use crate::mongo::failure::is_passing;
use crate::names::Namespace;

/// One namespace that is put in its place. Each step can be repeated, by another process too, and changes nothing where it was done before.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A staged collection takes the place of what stands under its name.
    Swap(Staged),
    /// A staged time series does.
    Series {
        /// The staged buckets.
        staged: Staged,
        /// The options of `create`, expiry included.
        options: RawDocumentBuf,
    },
    /// The documents of a staged collection go into the one that stands there.
    Merge(Staged),
    /// Those of them go into the one that stands there whose `_id` it does not have.
    Add(Staged),
    /// A view is created, or changed into this one.
    View {
        /// Its name.
        to: Namespace,
        /// The options of `create`.
        options: RawDocumentBuf,
        /// Whether what stands there otherwise goes.
        replaces: bool,
        /// Where what stands there is kept.
        keep: Option<Keep>,
    },
    /// What the backup does not have is dropped.
    Drop {
        /// Its name.
        namespace: Namespace,
        /// Its identity, of a time series that of its buckets; views have none.
        uuid: Option<Uuid>,
        /// Where it is kept.
        keep: Option<Keep>,
    },
    /// It is written down that an import keeps what it replaces.
    Remember {
        /// Where.
        record: Namespace,
        /// The import.
        id: String,
        /// What it imports.
        backup: String,
        /// When, by the target's clock.
        at: bson::DateTime,
    },
    /// What an import kept is forgotten.
    Forget {
        /// Where it is written down.
        record: Namespace,
        /// The import.
        id: String,
    },
}

/// A staged collection and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// Its staging name.
    pub place: Namespace,
    /// Its name in the end.
    pub to: Namespace,
    /// The identity of the collection that holds the documents: of a time series, of its buckets.
    pub uuid: Uuid,
    /// Whether a collection that stands under its name goes; else it stays, and this one is not published.
    pub replaces: bool,
    /// Where what it replaces is kept.
    pub keep: Option<Keep>,
}

/// Where a step keeps what it replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// The import.
    pub id: String,
    /// The database that has its record.
    pub home: String,
    /// Which of its namespaces.
    pub number: i64,
    /// The name that it gets.
    pub place: Namespace,
    /// What the import puts in its place.
    pub imported: Content,
}

impl Step {
    /// What it puts in place, or drops.
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

    /// Whether this error means that the step can never be done, and that nothing is lost by giving it up: what stood there stands. Else everything
    /// that comes after would wait for it for ever.
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

/// Something stands under a name that is not to be replaced.
pub(super) fn in_the_way(name: &Namespace, kind: &str) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!("{name} was not imported: a {kind} was made under its name meanwhile, and it was left as it is"),
    )
    .hint("import it under another name ([[rename]]), or choose another [[mode]]")
}
