//! The locks of a backup. The [source lock](source) lets one backup of a source run at a time. The
//! [read lock](read) keeps a backup from being deleted while it is read. Both are objects with a
//! heartbeat, which every machine sees, plus a lock of the backend, if it has locks, which ends
//! with its process.

pub mod heartbeat;
pub mod read;
pub mod source;
