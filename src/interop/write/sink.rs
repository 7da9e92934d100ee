//! Writes bytes to a file or to standard output in a separate thread, so that the next ones are
//! made meanwhile.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::file::{blocking, failed};
use super::gzip::Gzip;
use crate::context::cpu::CpuPool;
use crate::error::{Error, ErrorKind, Result};

/// The most bytes that wait to be written, unless a single piece is larger.
pub(super) const ROOM: usize = 12 * 1024 * 1024;

/// The most pieces that wait.
const PIECES: usize = 64;

/// The room for waiting bytes, of one sink or of several together.
#[derive(Debug, Clone)]
pub(super) struct Room(Arc<Semaphore>);

/// A file to write to.
#[derive(Debug)]
pub(super) struct Goal {
    pub(super) file: File,
    /// Its name in messages.
    pub(super) name: String,
    /// Whether to make it durable.
    pub(super) durable: bool,
}

/// An order to the thread.
enum Order {
    /// Writes bytes, and then releases the permit.
    Write(Bytes, OwnedSemaphorePermit),
    /// The end: the file is made durable.
    End,
}

/// The destination of bytes.
#[derive(Debug)]
struct Sink {
    orders: mpsc::Sender<Order>,
    room: Room,
    /// `None` once it has ended and its result was returned.
    thread: Option<JoinHandle<Result<u64>>>,
    name: String,
}

/// Writes into a [`Sink`], unchanged or as gzip.
#[derive(Debug)]
pub(super) struct Output {
    sink: Sink,
    gzip: Option<Gzip>,
}

impl Room {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(ROOM)))
    }

    /// Waits until there is room for this many bytes, or for as many as possible.
    async fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit> {
        let room = u32::try_from(bytes.min(ROOM)).unwrap_or(u32::MAX);
        let permit = self.0.clone().acquire_many_owned(room).await;
        permit.map_err(|e| Error::new(ErrorKind::Internal, "a writer's room is closed").cause(e))
    }
}

impl Goal {
    /// Standard output.
    pub(super) fn stdout() -> Result<Self> {
        let name = "standard output".to_owned();
        // A separate file: the lock of the usual one would be held as long as nobody reads.
        let fd = std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned().map_err(|e| failed("write to", &name, e))?;
        Ok(Self { file: File::from(fd), name, durable: false })
    }
}

impl Output {
    pub(super) fn new(goal: Goal, gzip: Option<u32>, cpu: &CpuPool, room: &Room) -> Self {
        Self { sink: Sink::start(goal, room.clone()), gzip: gzip.map(|level| Gzip::new(level, cpu)) }
    }

    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let Some(gzip) = &mut self.gzip else { return self.sink.write(bytes).await };
        let mut rest = &*bytes;
        while !rest.is_empty() {
            rest = gzip.fill(rest);
            while let Some(member) = gzip.next(false).await? {
                self.sink.write(member).await?;
            }
        }
        Ok(())
    }

    /// Passes on the last bytes.
    pub(super) async fn end(&mut self) -> Result<()> {
        if let Some(mut gzip) = self.gzip.take() {
            gzip.end();
            while let Some(member) = gzip.next(true).await? {
                self.sink.write(member).await?;
            }
        }
        if self.sink.orders.send(Order::End).await.is_err() {
            return Err(self.sink.error().await);
        }
        Ok(())
    }

    /// Call after `end`: waits until all of it is durable, and returns the number of bytes.
    pub(super) async fn finish(&mut self) -> Result<u64> {
        self.sink.ended().await
    }

    /// Waits until nothing is being written any more.
    pub(super) async fn abandon(self) {
        let Sink { orders, thread, .. } = self.sink;
        drop(orders);
        if let Some(thread) = thread {
            // Its error does not matter any more.
            let _ended = thread.await;
        }
    }
}

impl Sink {
    fn start(goal: Goal, room: Room) -> Self {
        let Goal { mut file, name, durable } = goal;
        let (orders, mut taken) = mpsc::channel(PIECES);
        let of_thread = name.clone();
        let thread = tokio::task::spawn_blocking(move || {
            let mut written = 0;
            while let Some(order) = taken.blocking_recv() {
                match order {
                    Order::Write(bytes, _room) => {
                        file.write_all(&bytes).map_err(|e| failed("write to", &of_thread, e))?;
                        written += bytes.len() as u64;
                    }
                    Order::End => {
                        if durable {
                            file.sync_all().map_err(|e| failed("write to", &of_thread, e))?;
                        }
                        break;
                    }
                }
            }
            Ok(written)
        });
        Self { orders, room, thread: Some(thread), name }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let permit = tokio::select! {
            permit = self.room.take(bytes.len()) => permit?,
            () = self.orders.closed() => return Err(self.error().await),
        };
        if self.orders.send(Order::Write(bytes, permit)).await.is_err() {
            return Err(self.error().await);
        }
        Ok(())
    }

    /// Why the thread has ended.
    async fn error(&mut self) -> Error {
        match self.ended().await {
            Err(e) => e,
            Ok(_) => Error::new(ErrorKind::Internal, format!("writing to {} ended before its end", self.name)),
        }
    }

    /// The result of the thread, returned once.
    async fn ended(&mut self) -> Result<u64> {
        let thread = self.thread.as_mut();
        let thread = thread.ok_or_else(|| Error::new(ErrorKind::Internal, format!("writing to {} is over", self.name)))?;
        let ended = thread.await;
        self.thread = None;
        ended.map_err(|e| Error::new(ErrorKind::Internal, format!("writing to {} crashed", self.name)).cause(e))?
    }
}

/// Writes a whole small file durably, within this room. Returns its size in bytes.
pub(super) async fn small(goal: Goal, content: Vec<u8>, gzip: Option<u32>, cpu: &CpuPool, room: &Room) -> Result<u64> {
    let _room = room.take(content.len()).await?;
    let Goal { mut file, name, .. } = goal;
    let content = match gzip {
        Some(level) => cpu.run(move || super::gzip::member(&content, level)).await?,
        None => content,
    };
    blocking(move || {
        file.write_all(&content).and_then(|()| file.sync_all()).map_err(|e| failed("write to", &name, e))?;
        Ok(content.len() as u64)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use super::*;

    fn output(file: impl Into<OwnedFd>, room: &Room) -> Output {
        let goal = Goal { file: File::from(file.into()), name: "here".to_owned(), durable: false };
        Output::new(goal, None, &CpuPool::of_this_machine(), room)
    }

    #[tokio::test]
    async fn outputs_of_one_room_hold_no_more_than_that_together() {
        let (mut reader, writer) = io::pipe().unwrap();
        let room = Room::new();
        let (mut full, mut other) = (output(writer, &room), output(File::create("/dev/null").unwrap(), &room));
        // Nobody reads, so it waits.
        full.write(vec![0; ROOM].into()).await.unwrap();
        let waits = tokio::time::timeout(Duration::from_millis(100), other.write(vec![0; 1].into())).await;
        assert!(waits.is_err(), "there was more room");
        let reader = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map(|_| bytes.len())
        });
        other.write(vec![0; 1].into()).await.unwrap();
        for output in [&mut full, &mut other] {
            output.end().await.unwrap();
        }
        assert_eq!((full.finish().await.unwrap(), other.finish().await.unwrap()), (ROOM as u64, 1));
        assert_eq!(reader.await.unwrap().unwrap(), ROOM);
        full.abandon().await;
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_told_and_can_be_given_up_then() {
        let mut output = output(File::options().write(true).open("/dev/full").unwrap(), &Room::new());
        let error = loop {
            if let Err(e) = output.write(vec![0; 10].into()).await {
                break e;
            }
        };
        assert!(error.to_string().starts_with("cannot write to here: No space"), "{error}");
        assert_eq!(output.write(vec![0; 10].into()).await.unwrap_err().kind(), ErrorKind::Internal);
        output.abandon().await;
    }
}
