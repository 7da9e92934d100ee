//! Measures the link to the source: near, or so slow that the link and not the machines limits the
//! speed.

use std::time::{Duration, Instant};

use bson::rawdoc;

use super::discover::{CollectionInfo, Size};
use crate::error::Result;
use crate::mongo::{Connection, command};

/// From this latency on, a source is far: a machine in the same data center answers much faster.
const DISTANT: Duration = Duration::from_millis(3);

/// Below this many bytes per second, compressing and decompressing is faster than sending.
const NARROW: f64 = 50e6;

/// How many bytes to read to measure the bandwidth.
const PROBE: u64 = 2 * 1024 * 1024;

/// The distance to the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// On this machine or close to it: bandwidth is cheap, CPU is not.
    Near,
    /// Far away or narrow: compression on the wire and more concurrent cursors pay off.
    Far,
}

/// Measures the link by a few small round trips and, if the largest collection is big enough, by
/// reading a few of its documents.
///
/// # Errors
/// Those of the first command, as for [`Connection::open`].
pub async fn measure(connection: &Connection, largest: Option<(&CollectionInfo, Size)>) -> Result<Link> {
    if connection.round_trip().await? >= DISTANT {
        return Ok(Link::Far);
    }
    let worth = largest.filter(|(_, size)| size.bytes >= 16 * PROBE && size.documents > 0);
    let Some((collection, size)) = worth else { return Ok(Link::Near) };
    let documents = (PROBE * size.documents / size.bytes).clamp(1, 100_000);
    let data = collection.data();
    let find = rawdoc! {
        "find": data.collection.as_str(),
        "limit": i64::try_from(documents).unwrap_or(1),
        "batchSize": i64::try_from(documents).unwrap_or(1),
        "singleBatch": true,
    };
    let mut fastest = 0f64;
    // Twice: the first read may wait for the server's disk.
    for _ in 0..2 {
        let begin = Instant::now();
        let Ok((found, _)) = command::run_cursor(&connection.documents(&data.database), find.clone()).await else {
            return Ok(Link::Near);
        };
        let bytes: usize = found.iter().map(|d| d.as_bytes().len()).sum();
        // A few bytes measure the latency, not the bandwidth.
        if bytes < 64 * 1024 {
            return Ok(Link::Near);
        }
        fastest = fastest.max(bytes as f64 / begin.elapsed().as_secs_f64().max(1e-6));
    }
    Ok(if fastest < NARROW { Link::Far } else { Link::Near })
}
