//! A TCP proxy on loopback that behaves like a distant or a bad network.
//!
//! It runs on its own thread, so that a test that blocks does not delay it. Drivers must connect
//! through it with `directConnection=true`, as [`super::server::Server::uri_through`] does.
//! Otherwise they learn the server's own address.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

#[derive(Clone, Debug, Default)]
pub struct LinkOptions {
    /// Added to each round trip, half each way.
    pub round_trip: Duration,
    /// Megabits a second each way, shared by all connections.
    pub mbit: Option<f64>,
    /// The most for one connection: what packet loss and windows leave to a single stream over a
    /// long path.
    pub stream_mbit: Option<f64>,
    /// Reset every connection at this interval.
    pub cut_every: Option<Duration>,
    /// Reset every connection once, after this many bytes in both directions together.
    pub cut_after_bytes: Option<u64>,
    /// Refuse connections for this long after each cut.
    pub down_for: Duration,
}

/// A link to one port. When it is dropped, it closes, with all connections.
pub struct Link {
    port: u16,
    shared: Arc<Shared>,
    closing: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Link {
    /// A link to a port of this machine. [`Link::port`] is its own port.
    pub fn to(target: u16, options: LinkOptions) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            up: Lane::new(options.mbit),
            down: Lane::new(options.mbit),
            cut_at: Mutex::new(options.cut_after_bytes),
            open: Mutex::default(),
            closed_until: Mutex::default(),
            refusing: AtomicBool::new(false),
            cuts: AtomicU64::new(0),
            options,
        });
        let (closing, closed) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let thread = std::thread::spawn({
            let shared = shared.clone();
            move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = closed => {}
                        () = serve(listener, target, shared.clone()) => {}
                        () = cut_now_and_then(&shared) => {}
                    }
                });
            }
        });
        Self { port, shared, closing: Some(closing), thread: Some(thread) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Resets all connections. New ones are accepted once `down_for` has passed.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Resets all connections after this many more bytes.
    pub fn cut_after(&self, bytes: u64) {
        *self.shared.cut_at.lock().unwrap() = Some(self.shared.carried() + bytes);
    }

    /// Refuses new connections, or accepts them again. Open ones stay.
    pub fn refuse(&self, refusing: bool) {
        self.shared.refusing.store(refusing, Ordering::SeqCst);
    }

    /// Resets all connections, and refuses new ones for a while.
    pub fn down_for(&self, time: Duration) {
        self.shared.cut();
        *self.shared.closed_until.lock().unwrap() = Some(Instant::now() + time);
    }

    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }

    /// The bytes that went to the server.
    pub fn bytes_up(&self) -> u64 {
        self.shared.up.carried.load(Ordering::SeqCst)
    }

    /// The bytes that came from the server.
    pub fn bytes_down(&self) -> u64 {
        self.shared.down.carried.load(Ordering::SeqCst)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        drop(self.closing.take());
        _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

struct Shared {
    options: LinkOptions,
    up: Lane,
    down: Lane,
    cut_at: Mutex<Option<u64>>,
    /// Handles that abort the open connections.
    open: Mutex<Vec<AbortHandle>>,
    closed_until: Mutex<Option<Instant>>,
    refusing: AtomicBool,
    cuts: AtomicU64,
}

impl Shared {
    fn carried(&self) -> u64 {
        self.up.carried.load(Ordering::SeqCst) + self.down.carried.load(Ordering::SeqCst)
    }

    fn cut(&self) {
        *self.closed_until.lock().unwrap() = Some(Instant::now() + self.options.down_for);
        self.open.lock().unwrap().drain(..).for_each(|connection| connection.abort());
        self.cuts.fetch_add(1, Ordering::SeqCst);
    }

    fn refuses(&self) -> bool {
        let closed = self.closed_until.lock().unwrap().is_some_and(|until| Instant::now() < until);
        closed || self.refusing.load(Ordering::SeqCst)
    }
}

/// One direction of the link: its byte count, and the bandwidth that all connections share.
struct Lane {
    bucket: Bucket,
    carried: AtomicU64,
}

impl Lane {
    fn new(mbit: Option<f64>) -> Self {
        Self { bucket: Bucket::new(mbit), carried: AtomicU64::new(0) }
    }
}

/// When this many bytes have passed, at this rate.
struct Bucket {
    bytes_per_second: Option<f64>,
    free_at: Mutex<Option<Instant>>,
}

impl Bucket {
    fn new(mbit: Option<f64>) -> Self {
        Self { bytes_per_second: mbit.map(|m| m * 125_000.0), free_at: Mutex::default() }
    }

    fn reserve(&self, bytes: usize, now: Instant) -> Instant {
        let Some(rate) = self.bytes_per_second else { return now };
        let mut free_at = self.free_at.lock().unwrap();
        let passed = free_at.map_or(now, |at| at.max(now)) + Duration::from_secs_f64(bytes as f64 / rate);
        *free_at = Some(passed);
        passed
    }
}

async fn cut_now_and_then(shared: &Shared) {
    match shared.options.cut_every {
        Some(every) => loop {
            tokio::time::sleep(every).await;
            shared.cut();
        },
        None => std::future::pending().await,
    }
}

async fn serve(listener: std::net::TcpListener, target: u16, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        near.set_zero_linger().unwrap(); // so that it ends with a reset, unless it is shut down first
        if shared.refuses() {
            continue;
        }
        let connection = tokio::spawn(carry(near, target, shared.clone())).abort_handle();
        let mut open = shared.open.lock().unwrap();
        open.retain(|connection| !connection.is_finished());
        open.push(connection);
    }
}

async fn carry(near: TcpStream, target: u16, shared: Arc<Shared>) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    far.set_zero_linger().unwrap();
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    let up = pump(near_read, far_write, &shared, &shared.up);
    let down = pump(far_read, near_write, &shared, &shared.down);
    // Each direction may end by itself; an error in either ends both.
    _ = tokio::try_join!(up, down);
}

/// Reads data, computes when each piece is due on the other side, and delivers it then.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared, lane: &Lane) -> std::io::Result<()> {
    let own = Bucket::new(shared.options.stream_mbit);
    let (due, mut delivered) = mpsc::channel::<(Instant, Vec<u8>)>(4096);
    let read = async move {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let bytes = from.read(&mut buffer).await?;
            if bytes == 0 {
                return Ok(());
            }
            let now = Instant::now();
            let sent = own.reserve(bytes, now).max(lane.bucket.reserve(bytes, now));
            _ = due.send((sent + shared.options.round_trip / 2, buffer[..bytes].to_vec())).await;
            lane.carried.fetch_add(bytes as u64, Ordering::SeqCst);
            if shared.cut_at.lock().unwrap().take_if(|at| shared.carried() > *at).is_some() {
                shared.cut();
            }
            // No further ahead than a TCP window would allow.
            tokio::time::sleep_until(sent - Duration::from_millis(50)).await;
        }
    };
    let deliver = async move {
        while let Some((at, bytes)) = delivered.recv().await {
            tokio::time::sleep_until(at).await;
            to.write_all(&bytes).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(read, deliver).map(|_: ((), ())| ())
}
