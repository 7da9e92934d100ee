//! Who is at work on a backup: the [source lock](source), by which one backup of a source runs at a time, and the
//! [read lock](read), which keeps a backup from being deleted while it is read. Both are objects with a heartbeat, which
//! every machine sees, and a lock of the backend where it has one, which ends with its process.

pub mod heartbeat;
pub mod read;
pub mod source;
