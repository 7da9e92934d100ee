//! Limits how much of a dump's metadata is kept, by the memory available.

use crate::error::{Error, ErrorKind, Result};

/// The approximate memory of a namespace during an import, besides its metadata.
const NAMESPACE: u64 = 1792;
/// The approximate memory of a file name.
const FILE: u64 = 256;
/// How often the metadata is in memory, as text or in parsed form.
const COPIES: u64 = 3;
const MIB: u64 = 1024 * 1024;

/// The room left for a dump's metadata.
#[derive(Debug)]
pub(super) struct Room {
    all: u64,
    left: u64,
    namespaces: u64,
}

impl Room {
    /// Within this many bytes of memory.
    pub(super) fn of(memory: u64) -> Self {
        Self { all: memory, left: memory, namespaces: 0 }
    }

    /// Takes room for one more namespace, described by this many bytes.
    pub(super) fn namespace(&mut self, bytes: usize) -> Result<()> {
        self.namespaces += 1;
        self.take(NAMESPACE + COPIES * bytes as u64)
    }

    /// Takes room for the name of one more file.
    pub(super) fn file(&mut self) -> Result<()> {
        self.take(FILE)
    }

    /// How much was taken.
    pub(super) fn taken(&self) -> u64 {
        self.all - self.left
    }

    /// The longest metadata that still fits.
    pub(super) fn longest(&self) -> u64 {
        self.left / COPIES
    }

    fn take(&mut self, bytes: u64) -> Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| self.full())?;
        Ok(())
    }

    /// The error if there is no more room.
    pub(super) fn full(&self) -> Error {
        let (all, namespaces) = (self.all / MIB, self.namespaces);
        let what = format!("the metadata of the dump takes more than {all} MiB of memory: {namespaces} namespaces were counted");
        let hint = format!("if the dump is really that large, set [[memory-mb or BACKUP_MEMORY_MB]] to {} or more", 2 * all);
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
