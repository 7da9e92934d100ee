//! A mount that hangs, for tests: whatever waits for the disk below a place waits until it is let go.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::Result;

static HUNG: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static LET_GO: Condvar = Condvar::new();

/// A place that hangs as long as this is there.
pub(crate) struct Hang(PathBuf);

impl Hang {
    pub(crate) fn at(place: &Path) -> Self {
        hung().push(place.to_owned());
        Self(place.to_owned())
    }
}

impl Drop for Hang {
    fn drop(&mut self) {
        hung().retain(|place| *place != self.0);
        LET_GO.notify_all();
    }
}

/// The same work, once the place does not hang any more.
pub(super) fn before<T, W: FnOnce() -> Result<T>>(place: &Path, work: W) -> impl FnOnce() -> Result<T> + use<T, W> {
    let place = place.to_owned();
    move || {
        let waits = |hung: &mut Vec<PathBuf>| hung.iter().any(|at| place.starts_with(at));
        drop(LET_GO.wait_while(hung(), waits).unwrap_or_else(PoisonError::into_inner));
        work()
    }
}

fn hung() -> MutexGuard<'static, Vec<PathBuf>> {
    HUNG.lock().unwrap_or_else(PoisonError::into_inner)
}
