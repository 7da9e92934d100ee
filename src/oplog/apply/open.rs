//! Which operations count with an entry: its own, or those of a transaction that it commits. Parts
//! of open transactions are kept until then, within a bound: pure.

use std::collections::HashSet;

use uuid::Uuid;

use crate::error::Result;
use crate::format::manifest::ClusterTime;
use crate::oplog::{Effect, Entry, Operation, OperationKind, Transactions};

/// The open transactions of a source.
pub(super) struct Open {
    parts: Transactions<Vec<u8>>,
    /// What the parts create that change the catalog. That is little, and always kept.
    changes: Transactions<Created>,
}

/// The UUIDs of the collections that are created.
pub(super) type Created = HashSet<Uuid>;

/// Which operations count.
#[derive(Debug)]
pub(super) enum Counts {
    /// None.
    Nothing,
    /// The entry's own.
    Itself,
    /// Those of the parts of a transaction, itself included, in this order.
    Parts(Vec<Vec<u8>>),
    /// Those of the parts of these times: they are too large to be kept.
    Large(Vec<ClusterTime>),
}

impl Open {
    /// Nothing up to `since` counts. At most so many bytes of parts are kept.
    pub(super) fn new(since: ClusterTime, most: usize) -> Self {
        Self { parts: Transactions::within(since, most, Vec::len), changes: Transactions::new(since) }
    }

    /// The first part of the oldest open transaction.
    pub(super) fn from(&self) -> Option<ClusterTime> {
        self.parts.open_from()
    }

    /// What counts with the next entry, and what is created if the catalog changes with it.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged).
    pub(super) fn take(&mut self, entry: &Entry<'_>, bytes: &[u8]) -> Result<(Counts, Option<Created>)> {
        let changes = changes_of(entry)?;
        if entry.part.is_none() {
            let counts = self.parts.counts(entry);
            return Ok(if counts { (Counts::Itself, changes) } else { (Counts::Nothing, None) });
        }
        let Effect { kept, parts, is_forgotten } = self.parts.take(entry, vec![bytes.to_vec()])?;
        let changes = self.changes.take(entry, changes.into_iter().collect())?.kept;
        let changes = changes.into_iter().reduce(|mut all, more| {
            all.extend(more);
            all
        });
        let counts = match (is_forgotten, kept.is_empty()) {
            (true, _) => Counts::Large(parts),
            (false, true) => Counts::Nothing,
            (false, false) => Counts::Parts(kept),
        };
        Ok((counts, changes))
    }
}

/// What an entry creates, if it changes the catalog.
fn changes_of(entry: &Entry<'_>) -> Result<Option<Created>> {
    if entry.operation.kind != OperationKind::Command && !changes_catalog(&entry.operation)? {
        return Ok(None);
    }
    let (mut changes, mut created) = (false, Created::new());
    entry.each(&mut |operation| {
        changes |= changes_catalog(&operation)?;
        if operation.kind == OperationKind::Command && operation.command()? == "create" {
            created.extend(operation.collection);
        }
        Ok(())
    })?;
    Ok(changes.then_some(created))
}

/// Whether an operation changes collections, views or indexes.
pub(super) fn changes_catalog(operation: &Operation<'_>) -> Result<bool> {
    Ok(match operation.kind {
        OperationKind::Nothing => false,
        OperationKind::Command => !matches!(operation.command()?, "emptycapped" | "commitTransaction" | "abortTransaction"),
        _ => operation.namespace.ends_with(".system.views"),
    })
}
