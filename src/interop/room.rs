//! How much of what a dump says of itself is kept: as much as the memory has room for.

use crate::error::{Error, ErrorKind, Result};

/// About what a namespace takes on its way through an import, beside its metadata.
const NAMESPACE: u64 = 1792;
/// About what the name of a file takes.
const FILE: u64 = 256;
/// How often the metadata are in memory, as text or as what is made of them.
const COPIES: u64 = 3;
const MIB: u64 = 1024 * 1024;

/// What is left for what a dump says of itself.
#[derive(Debug)]
pub(super) struct Room {
    all: u64,
    left: u64,
    namespaces: u64,
}

impl Room {
    /// In so many bytes of memory.
    pub(super) fn of(memory: u64) -> Self {
        Self { all: memory, left: memory, namespaces: 0 }
    }

    /// Takes what one more namespace needs that so many bytes describe.
    pub(super) fn namespace(&mut self, bytes: usize) -> Result<()> {
        self.namespaces += 1;
        self.take(NAMESPACE + COPIES * bytes as u64)
    }

    /// Takes what the name of one more file needs.
    pub(super) fn file(&mut self) -> Result<()> {
        self.take(FILE)
    }

    /// What was taken of it.
    pub(super) fn taken(&self) -> u64 {
        self.all - self.left
    }

    /// The longest metadata that there is room for.
    pub(super) fn longest(&self) -> u64 {
        self.left / COPIES
    }

    fn take(&mut self, bytes: u64) -> Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| self.full())?;
        Ok(())
    }

    /// The error where there is no more room.
    pub(super) fn full(&self) -> Error {
        let (all, namespaces) = (self.all / MIB, self.namespaces);
        let what =
            format!("what the dump says of itself takes more than {all} MiB of memory: {namespaces} namespaces were counted");
        let hint = format!("if the dump is as large as that, set [[memory-mb or BACKUP_MEMORY_MB]] to {} or more", 2 * all);
        Error::new(ErrorKind::Refused, what).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_real_deployments_have_fits_and_hostile_names_do_not() {
        let mut room = Room::of(64 * MIB);
        (0..20_000).for_each(|_| room.namespace(400).unwrap());
        let mut room = Room::of(256 * MIB);
        (0..100_000).for_each(|_| room.namespace(256).unwrap());
        let error = (0..1_500_000).try_for_each(|_| room.namespace(60)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.hint_text().is_some_and(|hint| hint.contains("set [[memory-mb or BACKUP_MEMORY_MB]] to 512 or more")));
        assert!(room.taken() <= 256 * MIB && room.taken() > 255 * MIB);
        let mut room = Room::of(256 * MIB);
        assert!((0..28).try_for_each(|_| room.namespace(16 << 20)).is_err());
        assert!(Room::of(4096 * MIB).namespace(16 << 20).is_ok());
    }
}
