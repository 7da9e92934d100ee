//! The oplog as a stream with several users: the oplog slice of a backup, the replay of an import,
//! the oplogs of dumps.
//!
//! [`entry`] parses one entry. [`transactions`] decides which of them count. [`tail`] follows a
//! source's oplog from a [`position`] on, and [`window`] finds out how far back that reaches.
//! [`chain`] keeps an archive of it. [`catalog`] follows what entries do to collections. [`filter`]
//! keeps what concerns a selection, and [`apply`] writes what counts to a target. Each takes one
//! entry at a time and can report its state after any of them: nothing needs to know the end.

pub mod apply;
pub mod catalog;
pub mod chain;
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
