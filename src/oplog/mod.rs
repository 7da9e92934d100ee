//! The oplog as a stream with several users: the slice of a backup, the replay of an import, the oplogs of dumps.
//!
//! [`entry`] reads one entry, [`transactions`] tells which of them count, [`tail`] follows a source's oplog from a [`position`] on, and
//! [`window`] says how far that reaches; [`catalog`] follows what entries do to collections, [`filter`] leaves what is about a selection,
//! and [`apply`] writes what counts to a target. Each is fed entry by entry and can be asked at any of them: nothing needs to know the end.

pub mod apply;
pub mod catalog;
pub mod entry;
pub mod filter;
pub mod position;
pub mod tail;
pub mod transactions;
pub mod window;

pub use entry::{Entry, Head, Operation, OperationKind, Part, Step, text, uuid};
pub use position::Position;
pub use transactions::{Committed, Effect, Transactions};

#[cfg(test)]
mod tests;
