//! The parts of a dump, as passed to their receiver.

use crate::context::memory::MemoryPermit;
use crate::format::arrival::Arrivals;
use crate::format::digest::Content;
use crate::names::Namespace;

/// How often the documents of a part are in memory on their way, which its budget share covers.
pub const COPIES: u64 = 4;

/// The most memory for reading a dump besides the shares of its parts.
pub const READING_BYTES: u64 = 32 * 1024 * 1024;

/// What a part of a dump belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Of {
    /// A collection, by its index in [`Dump::collections`](super::Dump::collections).
    Collection(usize),
    /// The oplog.
    Oplog,
    /// `admin.system.users`, or those of a database.
    Users,
    /// `admin.system.roles`, or those of a database.
    Roles,
}

/// A part of a dump on its way from a reader. Those of one collection arrive in order.
#[derive(Debug)]
pub enum Part {
    /// Whole documents, about one frame.
    Documents {
        /// What they belong to.
        of: Of,
        /// The documents, concatenated.
        frame: Vec<u8>,
        /// Their count, bytes and digest.
        content: Content,
        /// How a server accepts them.
        arrivals: Arrivals,
        /// Their share of the budget.
        share: MemoryPermit,
    },
    /// The end of all parts: everything was read, and matches what the dump says, if it says
    /// anything.
    End(Of),
}

/// Selects what to read from a dump.
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

/// The name of a dump's namespace in messages.
pub(super) fn named(namespace: &Namespace) -> String {
    if namespace.database.is_empty() { format!("the {}", namespace.collection) } else { namespace.to_string() }
}
