//! Mutexes, which are taken in one way.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a mutex holds, also where who held it last died: nothing is held over anything that may fail.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
