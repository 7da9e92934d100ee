//! Measures how fast the backup path stores data durably, and reads them back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::repository::{Repository, Scratch};

/// The size of the first object, which decides the size of the others.
const FIRST: u64 = 4 * 1024 * 1024;

/// The most objects beside it.
const OBJECTS: usize = 4;

/// How long writing may go on. The object under way is finished.
const TIME: Duration = Duration::from_secs(3);

/// The divisor of the free space: at most this part of it is used.
const OF_FREE_SPACE: u64 = 20;

/// The backup path.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PathSpeed {
    /// Where it is.
    pub location: String,
    /// Bytes per second, each object on disk before the next one.
    pub write_bytes_per_second: f64,
    /// Bytes per second of just written data: mostly from memory.
    pub read_bytes_per_second: f64,
    /// The largest object that was written.
    pub object_bytes: u64,
    /// The free space in bytes, if the system tells.
    pub free_bytes: Option<u64>,
}

/// Writes a few objects of at most `segment` bytes, reads them back, and deletes them.
pub(super) async fn measure(repository: &Repository, segment: u64, cx: &Context) -> Result<PathSpeed> {
    let free = repository.free_space();
    let scratch = Scratch::make(repository).await?;
    let measured = write_and_read(&scratch, segment, free, cx).await;
    scratch.remove().await?;
    let (object_bytes, write, read) = measured?;
    Ok(PathSpeed {
        location: repository.location(),
        write_bytes_per_second: write,
        read_bytes_per_second: read,
        object_bytes,
        free_bytes: free,
    })
}

async fn write_and_read(scratch: &Scratch, segment: u64, free: Option<u64>, cx: &Context) -> Result<(u64, f64, f64)> {
    let most = free.map_or(u64::MAX, |free| free / OF_FREE_SPACE / (OBJECTS as u64 + 1));
    let first = noise(FIRST.min(segment).min(most).max(1));
    let took = write(scratch, 0, &first).await?;
    // About half a second each.
    let affordable = (first.len() as f64 / took.as_secs_f64().max(1e-6) / 2.0) as u64;
    let object = noise(segment.min(affordable).min(most).max(first.len() as u64));
    let (mut bytes, mut time, mut objects) = (0u64, Duration::ZERO, 0);
    while objects < OBJECTS && time < TIME {
        if cx.cancel.is_cancelled() {
            return Err(Error::interrupted());
        }
        objects += 1;
        time += write(scratch, objects, &object).await?;
        bytes += object.len() as u64;
    }
    let begin = Instant::now();
    let mut back = 0u64;
    for number in 1..=objects {
        back += scratch.objects().get(&key(number)).await?.len() as u64;
    }
    Ok((object.len() as u64, rate(bytes, time), rate(back, begin.elapsed())))
}

async fn write(scratch: &Scratch, number: usize, object: &Bytes) -> Result<Duration> {
    let begin = Instant::now();
    scratch.objects().put(&key(number), vec![object.clone()]).await?;
    Ok(begin.elapsed())
}

fn key(number: usize) -> String {
    format!("object-{number}")
}

/// Bytes that no file system can compress.
fn noise(length: u64) -> Bytes {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 8);
    while (bytes.len() as u64) < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(usize::try_from(length).unwrap_or(0));
    bytes.into()
}

fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64().max(1e-6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_measures_and_leaves_nothing_also_where_it_is_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::open(directory.path().join("new/backups").to_str().unwrap()).unwrap();
        let cx = Context::default();
        let speed = measure(&repository, 1 << 20, &cx).await.unwrap();
        assert!(speed.write_bytes_per_second > 1e3 && speed.read_bytes_per_second > 1e3, "{speed:?}");
        assert!(speed.object_bytes == 1 << 20 && speed.free_bytes.is_some(), "{speed:?}");
        cx.cancel.cancel();
        let stopped = measure(&repository, 1 << 20, &cx).await.unwrap_err();
        assert_eq!(stopped.exit_code(), 130);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
