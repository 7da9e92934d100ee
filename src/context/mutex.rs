//! Locks mutexes, always in the same way.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, even if its last holder panicked: no mutex is held over anything that may fail.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
