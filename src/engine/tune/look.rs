//! Looks at the source: what it holds, how far away it is, and which parts of it to read.

use std::time::Duration;

use futures::StreamExt as _;
use serde::Serialize;

use super::options::TuneOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{CollectionKind, Source};
use crate::mongo::connect::ConnectOptions;
use crate::mongo::{Connection, MongoUri, command};
use crate::source::discover::{self, CollectionInfo, Selection, Size};
use crate::source::link::{self, Link};
use crate::source::ranges::{self, Division, Range};
use crate::source::sample::Part;
use crate::system;

/// How long to look for a server.
const SELECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(22);

/// How long dividing the collections may take. What is not divided by then is read as one range.
const DIVISION_LIMIT: Duration = Duration::from_secs(4);

/// How many collections are sampled: the largest ones.
const COLLECTIONS: usize = 8;

/// At how many places each of them is sampled.
const PLACES: usize = 4;

/// The assumed size of a collection whose size the login may not ask for.
const UNKNOWN: Size = Size { documents: 0, bytes: 1024 * 1024 };

/// The source, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceFacts {
    /// Which deployment.
    #[serde(flatten)]
    pub source: Source,
    /// The collections that a backup would read, without views.
    pub collections: u64,
    /// About how many documents, by the server's counters.
    pub documents: u64,
    /// About how many bytes, uncompressed.
    pub bytes: u64,
    /// Whether its distance or its narrow link sets the pace of small commands.
    pub far: bool,
    /// Whether it runs on this machine.
    pub local: bool,
    /// The time from a small command to its reply.
    pub round_trip_seconds: f64,
}

/// A source that answered and has something to read.
pub(super) struct Looked {
    pub(super) connection: Connection,
    /// The same without compression on the wire, if a backup would compress.
    pub(super) plain: Option<Connection>,
    pub(super) facts: SourceFacts,
    /// Parts of the largest collections, in turns.
    pub(super) parts: Vec<Part>,
    pub(super) notes: Vec<String>,
}

impl Looked {
    pub(super) async fn close(&self) {
        self.connection.close().await;
        if let Some(plain) = &self.plain {
            plain.close().await;
        }
    }
}

/// Connects, and looks at what there is.
pub(super) async fn look(uri: &MongoUri, options: &TuneOptions, most_readers: usize) -> Result<Looked> {
    let limit = LIMIT;
    match tokio::time::timeout(limit, look_at(uri, options, most_readers)).await {
        Ok(looked) => looked,
        Err(_) => Err(Error::new(
            ErrorKind::Unreachable,
            format!("{uri} answers too slowly: its collections were not listed within {} seconds", limit.as_secs()),
        )
        .hint("check the network and the load of the server, or select a part of it with [[database]] or [[include]]")),
    }
}

async fn look_at(uri: &MongoUri, options: &TuneOptions, most_readers: usize) -> Result<Looked> {
    let how = ConnectOptions { pool: u32::try_from(most_readers).unwrap_or(8), selection_timeout: Some(SELECTION_TIMEOUT) };
    let mut connection = Connection::open(uri, how).await?;
    let selection = Selection {
        filter: options.filter.clone().or_in(uri.database()),
        allow_empty: false,
        idle_excludes: false,
        documents: discover::Documents::All,
    };
    let listing = command::patiently(|| discover::list(&connection, &selection)).await?;
    let sizes = discover::sizes(&connection, &listing.collections).await;
    let held: Vec<(&CollectionInfo, Option<Size>)> =
        listing.collections.iter().zip(sizes).filter(|(found, _)| found.kind != CollectionKind::View).collect();
    let views = listing.collections.len() - held.len();
    let unknown = held.iter().filter(|(_, size)| size.is_none()).count();
    let all = held
        .iter()
        .filter_map(|(_, size)| *size)
        .fold(Size::default(), |sum, size| Size { documents: sum.documents + size.documents, bytes: sum.bytes + size.bytes });
    if unknown == 0 && all.documents == 0 {
        return Err(empty(held.len(), views));
    }
    let mut notes = Vec::new();
    if unknown > 0 {
        notes.push(format!(
            "the sizes of {unknown} of {} collections are unknown, because the login may not run collStats on them: times and \
             sizes cover only the rest",
            held.len()
        ));
    }
    let mut filled: Vec<(&CollectionInfo, Size)> =
        held.iter().map(|(found, size)| (*found, size.unwrap_or(UNKNOWN))).filter(|(_, size)| size.bytes > 0).collect();
    filled.sort_by(|a, b| b.1.bytes.cmp(&a.1.bytes).then_with(|| a.0.namespace.cmp(&b.0.namespace)));
    filled.truncate(COLLECTIONS);

    let round_trip = connection.round_trip().await?;
    let link = link::measure(&connection, filled.first().filter(|(_, size)| size.documents > 0).copied()).await?;
    let parts = parts(&connection, &filled, most_readers).await;
    let facts = SourceFacts {
        source: connection.describe().await,
        collections: held.len() as u64,
        documents: all.documents,
        bytes: all.bytes,
        far: link == Link::Far,
        local: link == Link::Near && connection.uri.hosts().iter().all(|host| is_this_machine(host)),
        round_trip_seconds: round_trip.as_secs_f64(),
    };
    let plain = if link == Link::Far && !uri.names_compressors() {
        let compressed = connection.compressed().await?;
        Some(std::mem::replace(&mut connection, compressed))
    } else {
        None
    };
    Ok(Looked { connection, plain, facts, parts, notes })
}

fn empty(collections: usize, views: usize) -> Error {
    let what = if collections == 0 {
        format!("a backup of the source would contain only views ({views}), which hold no documents")
    } else {
        format!("the source has no documents to measure: every collection that a backup would read ({collections}) is empty")
    };
    Error::new(ErrorKind::NotFound, what).hint(
        "run tune once the source holds documents, or select another with [[source]], [[database]] or [[include]]; the defaults need \
         no tuning",
    )
}

/// Some ranges of each collection, as a backup would read them: the first of each, then the second,
/// and so on.
async fn parts(connection: &Connection, filled: &[(&CollectionInfo, Size)], readers: usize) -> Vec<Part> {
    let division = Division { readers, range_bytes: None, fine_end: false };
    let divided: Vec<Vec<Range>> = futures::stream::iter(filled)
        .map(|(found, size)| async move {
            let divide = ranges::divide(connection, found, *size, division);
            tokio::time::timeout(DIVISION_LIMIT, divide).await.unwrap_or_else(|_| vec![Range::Natural])
        })
        .buffered(COLLECTIONS)
        .boxed()
        .collect()
        .await;
    let places = PLACES.max(readers.div_ceil(filled.len().max(1)));
    let mut parts = Vec::new();
    for turn in 0..places {
        for ((found, size), ranges) in filled.iter().zip(&divided) {
            let ranges: Vec<&Range> = ranges.iter().filter(|range| **range != Range::MaxKey).collect();
            let taken = places.min(ranges.len());
            if turn < taken {
                let range = ranges[turn * ranges.len() / taken].clone();
                parts.push(Part { collection: (*found).clone(), size: *size, range, most: size.bytes.div_ceil(taken as u64) });
            }
        }
    }
    parts
}

fn is_this_machine(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    name == "localhost" || name == "::1" || name.starts_with("127.") || name.starts_with('/') || name == system::host()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_its_names() {
        for host in ["localhost:27017", "127.0.0.1:3", "[::1]:27017", "localhost"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["10.0.0.1:27017", "localhost.example.com:1", "db:27017"] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
