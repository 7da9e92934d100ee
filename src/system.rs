//! Asks the operating system: for the machine's name, and for small files that a user names.

use std::io::{self, Read as _};
use std::path::Path;

/// The largest file that is read as a whole because a user names it: settings, certificates,
/// queries.
const SMALL: u64 = 16 * 1024 * 1024;

/// The name of this machine: only its own processes see its locks.
#[must_use]
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Whether a process with this ID exists on this machine.
#[must_use]
pub fn has_process(id: i64) -> bool {
    let id = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw);
    // One of another user exists, too, but may not be asked.
    id.is_some_and(|id| rustix::process::test_kill_process(id) != Err(rustix::io::Errno::SRCH))
}

/// Whether every machine uses this name for itself: `localhost` and the like, or a socket's path;
/// `host:port` or the host alone.
#[must_use]
pub fn is_own_name(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.starts_with("127.") || matches!(name, "::1" | "[::1]") || name.starts_with('/')
}

/// Reads a small file that a user names. Blocks on the disk.
///
/// # Errors
/// The operating system's; one of the kind `FileTooLarge` beyond 16 MiB.
pub fn small_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(SMALL + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > SMALL {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {} MiB", SMALL >> 20))),
        false => Ok(bytes),
    }
}
