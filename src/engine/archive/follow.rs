//! Follows the source without end: a source that is away is waited for, and a source that became
//! another one is told from it.

use std::time::Duration;

use bson::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::source::identity;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{ClusterTime, OplogPosition};
use crate::mongo::connect::ConnectOptions;
use crate::mongo::{Connection, MongoUri};
use crate::oplog::filter::Databases;
use crate::oplog::tail::{Entries, Next, Tail};
use crate::oplog::{Position, window};
use crate::source::optime;

/// The pause between two pieces while entries come, and when none do.
const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(1);
/// How long a read is retried before the connection is opened again.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause before the connection is opened again.
const AWAY: Duration = Duration::from_secs(1);
/// How often to ask how far back the source's oplog reaches.
const LOOK: Duration = Duration::from_secs(10);
/// How long the last read at the end may take.
const LAST: Duration = Duration::from_secs(15);
/// How long to look for the source when it is opened again.
const SELECTION: Duration = Duration::from_secs(5);

/// What the follower tells.
pub(super) enum Event {
    /// The next entries.
    Entries(Entries),
    /// Everything up to this time of the source was told.
    Through { time: ClusterTime, oldest: Option<ClusterTime> },
    /// It waits for the source, for this reason; or does not any more.
    Waiting(Option<String>),
    /// What comes after the last entry is lost. The next one is at `begin` or later.
    Lost { reason: String, begin: OplogPosition },
}

/// Follows one replica set.
pub(super) struct Follower {
    uri: MongoUri,
    replica_set_id: String,
    connection: Connection,
    databases: Databases,
    position: Position,
    waiting: bool,
    looked: Option<Instant>,
}

/// Why the following of a connection ended.
enum Ended {
    /// It was stopped, with everything told.
    Stopped,
    /// Nobody listens any more.
    Unheard,
}

impl Follower {
    pub(super) fn new(
        uri: MongoUri,
        replica_set_id: String,
        connection: Connection,
        databases: Databases,
        position: Position,
    ) -> Self {
        Self { uri, replica_set_id, connection, databases, position, waiting: false, looked: None }
    }

    /// Follows until `soft` is cancelled and the source was read to its end once more, or until
    /// `hard` is cancelled.
    pub(super) async fn run(mut self, to: mpsc::Sender<Event>, soft: CancellationToken, hard: CancellationToken) {
        loop {
            let error = match self.follow(&to, &soft, &hard).await {
                Ok(Ended::Stopped | Ended::Unheard) => break,
                Err(e) => e,
            };
            if hard.is_cancelled() || error.kind() == ErrorKind::Interrupted {
                break;
            }
            if error.kind() == ErrorKind::SnapshotLost {
                match self.begin_again().await {
                    Ok(begin) => {
                        self.position = begin.into();
                        if to.send(Event::Lost { reason: error.to_string(), begin }).await.is_err() {
                            break;
                        }
                        continue;
                    }
                    Err(e) => self.wait(&to, &e).await,
                }
            } else {
                self.wait(&to, &error).await;
            }
            // A source that is away when it ends in order has nothing more to tell.
            if soft.is_cancelled() {
                break;
            }
            let pause = tokio::time::sleep(AWAY);
            if soft.run_until_cancelled(pause).await.is_none() {
                continue;
            }
            if let Err(e) = self.open_again(&hard).await {
                self.wait(&to, &e).await;
            }
        }
        self.connection.close().await;
    }

    async fn wait(&mut self, to: &mpsc::Sender<Event>, problem: &Error) {
        if !std::mem::replace(&mut self.waiting, true) {
            let _heard = to.send(Event::Waiting(Some(problem.to_string()))).await;
        }
    }

    /// Opens the connection again, and makes sure that it leads to the same replica set.
    async fn open_again(&mut self, hard: &CancellationToken) -> Result<()> {
        let how = ConnectOptions { pool: 1, selection_timeout: Some(SELECTION) };
        let open = async {
            let connection = Connection::open(&self.uri, how).await?;
            let id = identity(&connection).await.map(|identity| identity.id);
            match id {
                Ok(id) if id == self.replica_set_id => Ok(connection),
                Ok(id) => {
                    connection.close().await;
                    Err(Error::new(
                        ErrorKind::Refused,
                        format!("{} is another replica set now, {id} and not {}", self.uri, self.replica_set_id),
                    )
                    .hint("stop this archive, and begin one of the new replica set"))
                }
                Err(e) => {
                    connection.close().await;
                    Err(e)
                }
            }
        };
        let connection = hard.run_until_cancelled(open).await.ok_or_else(Error::interrupted)??;
        let old = std::mem::replace(&mut self.connection, connection);
        old.close().await;
        Ok(())
    }

    /// Where to begin after the last entry is lost: at the oldest that the source has, if that is
    /// later; otherwise its history is another one, and what it wrote at times of the old one is
    /// passed over.
    async fn begin_again(&self) -> Result<OplogPosition> {
        let after = self.position.time;
        let oldest = ClusterTime::from(window::reaches_back_to(&self.connection).await?);
        let start = window::start(&self.connection).await?;
        let begin = if oldest > after { oldest } else { start.since.into() };
        if begin <= after {
            return Err(Error::new(
                ErrorKind::SnapshotLost,
                format!("the source's history is another one than before, and is only at {begin}, before {after}"),
            ));
        }
        Ok(OplogPosition { time: begin, term: None, digest: None })
    }

    async fn follow(&mut self, to: &mpsc::Sender<Event>, soft: &CancellationToken, hard: &CancellationToken) -> Result<Ended> {
        let known = optime::now(&self.connection).await?;
        let tail = Tail::new(self.connection.clone(), self.databases.clone(), self.position, known);
        let mut tail = tail.patient_for(PATIENCE);
        loop {
            if soft.is_cancelled() {
                return self.end(&mut tail, to, hard).await;
            }
            let mut moved = false;
            let time = loop {
                match tail.next(None, hard).await? {
                    Next::Entries(entries) => {
                        moved = true;
                        self.position = entries.position;
                        if std::mem::take(&mut self.waiting) {
                            let _heard = to.send(Event::Waiting(None)).await;
                        }
                        if to.send(Event::Entries(entries)).await.is_err() {
                            return Ok(Ended::Unheard);
                        }
                    }
                    Next::Through(time) => break time,
                }
            };
            if std::mem::take(&mut self.waiting) {
                let _heard = to.send(Event::Waiting(None)).await;
            }
            let oldest = self.oldest().await;
            if to.send(Event::Through { time: time.into(), oldest }).await.is_err() {
                return Ok(Ended::Unheard);
            }
            let pause = tokio::time::sleep(if moved { SHORT } else { LONG });
            let _stopped = soft.run_until_cancelled(pause).await;
        }
    }

    /// How far back the source's oplog reaches, if it is time to ask, and it answers.
    async fn oldest(&mut self) -> Option<ClusterTime> {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return None;
        }
        self.looked = Some(Instant::now());
        window::reaches_back_to(&self.connection).await.ok().map(Into::into)
    }

    /// Reads everything that the source has now.
    async fn end(&mut self, tail: &mut Tail, to: &mpsc::Sender<Event>, hard: &CancellationToken) -> Result<Ended> {
        let reading = async {
            let goal: Timestamp = optime::now(&self.connection).await?;
            loop {
                match tail.next(Some(goal), hard).await? {
                    Next::Entries(entries) => {
                        if to.send(Event::Entries(entries)).await.is_err() {
                            return Ok(Ended::Unheard);
                        }
                    }
                    // A piece that was begun before may end earlier.
                    Next::Through(time) if time < goal => {}
                    Next::Through(time) => {
                        let _heard = to.send(Event::Through { time: time.into(), oldest: None }).await;
                        return Ok(Ended::Stopped);
                    }
                }
            }
        };
        tokio::time::timeout(LAST, reading).await.unwrap_or(Ok(Ended::Stopped))
    }
}
