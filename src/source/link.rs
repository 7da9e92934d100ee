//! The way to the source: near, or so far or narrow that it, and not the machines, sets the pace.

use std::time::{Duration, Instant};

use bson::rawdoc;

use super::discover::{CollectionInfo, Size};
use crate::error::Result;
use crate::mongo::{Connection, command};

/// From this round trip on, a source is distant: a machine in the same data centre answers well below.
const DISTANT: Duration = Duration::from_millis(3);

/// Below this many bytes a second, compressing and decompressing is faster than sending.
const NARROW: f64 = 50e6;

/// How much is read to measure the width.
const PROBE: u64 = 2 * 1024 * 1024;

/// How far away the source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// On this machine or beside it: bytes are cheap, CPU is not.
    Near,
    /// Far or narrow: it pays to compress on the wire and to have more cursors under way.
    Far,
}

/// Measures the link by a few small round trips and, where the largest collection is worth it, by a few of its documents.
///
/// # Errors
/// The first command's, as for [`Connection::open`].
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
    // Twice: the first may wait for the server's disk.
    for _ in 0..2 {
        let begin = Instant::now();
        let Ok((found, _)) = command::run_cursor(&connection.documents(&data.database), find.clone()).await else {
            return Ok(Link::Near);
        };
        let bytes: usize = found.iter().map(|d| d.as_bytes().len()).sum();
        // A few bytes measure the round trip, not the width.
        if bytes < 64 * 1024 {
            return Ok(Link::Near);
        }
        fastest = fastest.max(bytes as f64 / begin.elapsed().as_secs_f64().max(1e-6));
    }
    Ok(if fastest < NARROW { Link::Far } else { Link::Near })
}
