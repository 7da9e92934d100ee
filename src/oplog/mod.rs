//! The oplog as a stream with several users: the slice of a backup, the replay of an import, the oplogs of dumps.
//!
//! [`entry`] reads one entry, [`transactions`] tells which of them count, [`tail`] follows a source's oplog, [`catalog`] follows what
//! entries do to collections, [`filter`] leaves what is about a selection, and [`apply`] writes what is left to a target.

pub mod apply;
pub mod catalog;
pub mod entry;
pub mod filter;
mod head;
pub mod tail;
pub mod transactions;

pub use entry::{Entry, Operation, OperationKind, Part, Step, text, uuid};
pub use head::Head;
pub use transactions::{Committed, Transactions};
