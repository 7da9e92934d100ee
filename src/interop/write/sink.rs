//! Bytes to a file or to standard output, by a thread of their own, so that the next ones are made meanwhile.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::gzip::Gzip;
use super::place::{blocking, failed};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::cpu::Cpu;

/// The most bytes that wait to be written, unless a single piece is larger.
pub(super) const ROOM: usize = 12 * 1024 * 1024;

/// The most pieces that wait.
const PIECES: usize = 64;

/// What the thread is told.
enum Order {
    /// The permit is given back when the bytes are written.
    Write(Bytes, OwnedSemaphorePermit),
    /// That was all: it is to be made durable.
    End,
}

/// Where bytes go.
#[derive(Debug)]
struct Sink {
    orders: mpsc::Sender<Order>,
    room: Arc<Semaphore>,
    thread: JoinHandle<Result<u64>>,
    name: String,
}

/// What is written into a [`Sink`], as it is or as gzip.
#[derive(Debug)]
pub(super) struct Output {
    sink: Sink,
    gzip: Option<Gzip>,
}

/// An output that has all its bytes and is being made durable.
#[derive(Debug)]
pub(super) struct Ending(Sink);

impl Output {
    /// Into this file, which is called `name`.
    pub(super) fn file(file: File, name: String, gzip: Option<u32>, cpu: &Cpu) -> Self {
        Self { sink: Sink::start(file, name, true), gzip: gzip.map(|level| Gzip::new(level, cpu)) }
    }

    /// To standard output.
    pub(super) fn stdout(gzip: Option<u32>, cpu: &Cpu) -> Result<Self> {
        let name = "standard output".to_owned();
        // A file of its own: the lock of the usual one would be held as long as nobody reads.
        let fd = std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned().map_err(|e| failed("write to", &name, e))?;
        Ok(Self { sink: Sink::start(File::from(fd), name, false), gzip: gzip.map(|level| Gzip::new(level, cpu)) })
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

    /// Hands the last bytes on.
    pub(super) async fn end(mut self) -> Result<Ending> {
        if let Some(mut gzip) = self.gzip.take() {
            gzip.end();
            while let Some(member) = gzip.next(true).await? {
                self.sink.write(member).await?;
            }
        }
        if self.sink.orders.send(Order::End).await.is_err() {
            return Err(self.sink.error().await);
        }
        Ok(Ending(self.sink))
    }

    /// Waits until nothing is written any more.
    pub(super) async fn abandon(self) {
        let Sink { orders, thread, .. } = self.sink;
        drop(orders);
        // What it failed with does not matter any more.
        let _ended = thread.await;
    }
}

impl Ending {
    /// Waits until all of it is durable, and gives the number of bytes.
    pub(super) async fn finish(self) -> Result<u64> {
        joined(self.0.thread.await, &self.0.name)
    }
}

impl Sink {
    fn start(mut file: File, name: String, durable: bool) -> Self {
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
        Self { orders, room: Arc::new(Semaphore::new(ROOM)), thread, name }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let room = u32::try_from(bytes.len().min(ROOM)).unwrap_or(u32::MAX);
        let permit = tokio::select! {
            permit = self.room.clone().acquire_many_owned(room) => permit,
            () = self.orders.closed() => return Err(self.error().await),
        };
        let permit = permit.map_err(|e| Error::new(ErrorKind::Internal, "a writer's room is closed").cause(e))?;
        if self.orders.send(Order::Write(bytes, permit)).await.is_err() {
            return Err(self.error().await);
        }
        Ok(())
    }

    /// Why the thread has ended.
    async fn error(&mut self) -> Error {
        match joined((&mut self.thread).await, &self.name) {
            Err(e) => e,
            Ok(_) => Error::new(ErrorKind::Internal, format!("writing to {} ended before its end", self.name)),
        }
    }
}

fn joined(ended: Result<Result<u64>, tokio::task::JoinError>, name: &str) -> Result<u64> {
    ended.map_err(|e| Error::new(ErrorKind::Internal, format!("writing to {name} died")).cause(e))?
}

/// Writes a small file whole and durably. Gives the bytes that it takes.
pub(super) async fn small(file: File, name: String, content: Vec<u8>, gzip: Option<u32>, cpu: &Cpu) -> Result<u64> {
    let content = match gzip {
        Some(level) => cpu.run(move || super::gzip::member(&content, level)).await?,
        None => content,
    };
    blocking(move || {
        let mut file = file;
        file.write_all(&content).and_then(|()| file.sync_all()).map_err(|e| failed("write to", &name, e))?;
        Ok(content.len() as u64)
    })
    .await
}
