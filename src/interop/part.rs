//! The parts of a dump, as they come to who takes them.

use crate::context::memory::MemoryPermit;
use crate::format::arrival::Arrivals;
use crate::format::digest::Content;
use crate::names::Namespace;

/// How often the documents of a part are in memory on their way: what a part's share of the budget is for.
pub const COPIES: u64 = 4;

/// What reading a dump takes of the memory beside the shares of its parts, at most.
pub const READING_BYTES: u64 = 32 * 1024 * 1024;

/// What a part of a dump belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Of {
    /// A collection, by its place in [`Dump::collections`](super::Dump::collections).
    Collection(usize),
    /// The oplog.
    Oplog,
    /// `admin.system.users`, or those of a database.
    Users,
    /// `admin.system.roles`, or those of a database.
    Roles,
}

/// A part of a dump, on its way from a reader. Those of one collection come in order.
#[derive(Debug)]
pub enum Part {
    /// Whole documents, about a frame of them.
    Documents {
        /// Whose they are.
        of: Of,
        /// The documents, one after the other.
        frame: Vec<u8>,
        /// Their count, bytes and digest.
        content: Content,
        /// How a server takes them.
        arrivals: Arrivals,
        /// What they take of the budget.
        share: MemoryPermit,
    },
    /// All of it was read, and is what the dump says it should be, as far as it says anything.
    End(Of),
}

/// What of a dump is to be read.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// For each of [`Dump::collections`](super::Dump::collections).
    pub collections: Vec<bool>,
    /// The oplog.
    pub oplog: bool,
    /// Users and roles.
    pub users: bool,
}

impl Wanted {
    pub(super) fn has(&self, of: Of) -> bool {
        match of {
            Of::Collection(number) => self.collections.get(number).copied().unwrap_or(false),
            Of::Oplog => self.oplog,
            Of::Users | Of::Roles => self.users,
        }
    }
}

/// A namespace of a dump as messages name it.
pub(super) fn named(namespace: &Namespace) -> String {
    if namespace.database.is_empty() { format!("the {}", namespace.collection) } else { namespace.to_string() }
}
