//! Simulates a hanging mount in tests: whatever waits for the disk below a place waits until it is
//! released.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::Result;

static PLACES: Mutex<Places> = Mutex::new(Places { hung: Vec::new(), waiting: Vec::new() });
static LET_GO: Condvar = Condvar::new();

struct Places {
    hung: Vec<PathBuf>,
    /// One entry for each thread.
    waiting: Vec<PathBuf>,
}

/// A place that hangs while this exists.
pub(crate) struct Hang(PathBuf);

impl Hang {
    pub(crate) fn at(place: &Path) -> Self {
        places().hung.push(place.to_owned());
        Self(place.to_owned())
    }

    /// How many threads wait there.
    pub(crate) fn waiting(&self) -> usize {
        places().waiting.iter().filter(|place| place.starts_with(&self.0)).count()
    }
}

impl Drop for Hang {
    fn drop(&mut self) {
        places().hung.retain(|place| *place != self.0);
        LET_GO.notify_all();
    }
}

/// The same work, once the place does not hang any more.
pub(super) fn before<T, W: FnOnce() -> Result<T>>(place: &Path, work: W) -> impl FnOnce() -> Result<T> + use<T, W> {
    let place = place.to_owned();
    move || {
        let mut places = places();
        places.waiting.push(place.clone());
        let hangs = |places: &mut Places| places.hung.iter().any(|at| place.starts_with(at));
        let mut places = LET_GO.wait_while(places, hangs).unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = places.waiting.iter().position(|waiting| *waiting == place) {
            places.waiting.swap_remove(at);
        }
        drop(places);
        work()
    }
}

fn places() -> MutexGuard<'static, Places> {
    PLACES.lock().unwrap_or_else(PoisonError::into_inner)
}
