//! Accepts connections, and bounds what each may take before anyone knows whose it is.
//!
//! Rocket's own listener has no limit of connections and no timeout for headers, handshakes or readers that stall. So hyper's
//! HTTP/1 server listens here, and hands whole requests to Rocket in memory (`dispatch`). HTTP/2 is not spoken: a proxy can.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rocket::local::asynchronous::Client;
use rocket::{Build, Rocket};
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::dispatch;
use super::launch::describe;
use super::stall::Watched;
use super::tls;
use crate::error::{Error, Result};

/// The most connections at a time, if the system allows enough open files.
const CONNECTIONS: usize = 1024;
/// The share of the files that this process may open that is left to clients: backups need the others.
const SHARE_OF_FILES: u64 = 4;
/// How long to wait before the next connection is accepted if the system refuses one, and between looks for one that is idle.
const PAUSE: Duration = Duration::from_millis(100);

/// What clients may take.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Connections at a time.
    pub connections: usize,
    /// How long a client may take to send the headers of a request, the first one and each that follows on the same connection.
    pub headers: Duration,
    /// The most bytes of a request's headers, and of what is buffered for a connection.
    pub header_bytes: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a client may read nothing of what is sent to it.
    pub stalled: Duration,
}

impl Bounds {
    /// Those of this process. Connections stay well below what the system lets it open, so that backups never lack files.
    #[must_use]
    pub fn of_this_process() -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self {
            connections: usize::try_from(files / SHARE_OF_FILES).unwrap_or(CONNECTIONS).clamp(8, CONNECTIONS),
            headers: Duration::from_secs(15),
            header_bytes: 64 * 1024,
            handshake: Duration::from_secs(10),
            stalled: Duration::from_secs(60),
        }
    }
}

/// The web server: a listening socket, and Rocket behind it.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    keep_alive: bool,
    client: Arc<Client>,
    open: Arc<Open>,
    bounds: Bounds,
}

impl Server {
    /// Listens as the configuration says. Nothing is answered before [`run`](Self::run).
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if address, port, certificate or key cannot be used;
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal).
    pub async fn bind(rocket: Rocket<Build>, bounds: Bounds) -> Result<Self> {
        let client = Client::untracked(rocket).await.map_err(describe)?;
        let config = client.rocket().config();
        let tls = config.tls.as_ref().filter(|_| config.tls_enabled()).map(tls::acceptor).transpose()?;
        let wanted = SocketAddr::new(config.address, config.port);
        let cannot = |e: std::io::Error| {
            Error::usage(format!("the server cannot listen on {wanted}: {e}"))
                .hint("another program may listen there: set ROCKET_PORT and ROCKET_ADDRESS, or port and address in rocket.toml")
        };
        let listener = TcpListener::bind(wanted).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let keep_alive = config.keep_alive != 0;
        let open = Open::new(bounds.connections);
        Ok(Self { listener, address, tls, keep_alive, client: Arc::new(client), open, bounds })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Answers requests until `stop` is cancelled; then those that are under way get their end, and streams of events are ended.
    pub async fn run(self, stop: CancellationToken) {
        let shutdown = self.client.rocket().shutdown();
        let tasks = TaskTracker::new();
        while let Some((stream, peer, place)) = stop.run_until_cancelled(self.next()).await {
            let connection = Connection {
                client: self.client.clone(),
                tls: self.tls.clone(),
                keep_alive: self.keep_alive,
                seat: Seat::take(self.open.clone(), place),
                peer,
                bounds: self.bounds.clone(),
                stop: stop.clone(),
            };
            tasks.spawn(connection.serve(stream));
        }
        drop(self.listener);
        shutdown.notify();
        tasks.close();
        tasks.wait().await;
    }

    /// The next connection that there is a place for.
    async fn next(&self) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => return (stream, peer, self.open.place().await),
                Err(e) => {
                    tracing::warn!("a connection cannot be accepted: {e}");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// The connections that are open, and which of them answer nothing now.
struct Open {
    places: Arc<Semaphore>,
    idle: Mutex<Idle>,
}

/// Those that answer nothing, the one that has done so for the longest time first.
#[derive(Default)]
struct Idle {
    closers: BTreeMap<u64, CancellationToken>,
    next: u64,
}

impl Open {
    fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { places: Arc::new(Semaphore::new(most)), idle: Mutex::default() })
    }

    /// A place. If there is none, the connection that has been idle for the longest time is closed: clients that never ask
    /// anything keep nobody out.
    async fn place(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(place) = self.places.clone().try_acquire_owned() {
                return place;
            }
            if let Some((_, closer)) = self.idle().closers.pop_first() {
                closer.cancel();
            }
            // What is never closed: somebody else may become idle meanwhile.
            if let Ok(Ok(place)) = timeout(PAUSE, self.places.clone().acquire_owned()).await {
                return place;
            }
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection. It is free again once this is dropped.
pub(super) struct Seat {
    open: Arc<Open>,
    /// Under which number it is idle, if it is.
    number: Mutex<Option<u64>>,
    closer: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Seat {
    fn take(open: Arc<Open>, place: OwnedSemaphorePermit) -> Arc<Self> {
        let seat = Self { open, number: Mutex::default(), closer: CancellationToken::new(), _place: place };
        seat.rest();
        Arc::new(seat)
    }

    /// It answers nothing from now on.
    fn rest(&self) {
        let mut idle = self.open.idle();
        idle.next += 1;
        let number = idle.next;
        idle.closers.insert(number, self.closer.clone());
        *self.number() = Some(number);
    }

    /// It answers a request.
    fn wake(&self) {
        if let Some(number) = self.number().take() {
            self.open.idle().closers.remove(&number);
        }
    }

    /// Whether it answers nothing now.
    fn is_idle(&self) -> bool {
        self.number().is_some()
    }

    /// Keeps it from being idle.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.wake();
        Busy(self.clone())
    }

    fn number(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.number.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.wake();
    }
}

/// A connection answers a request as long as this lives.
pub(super) struct Busy(Arc<Seat>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.rest();
    }
}

/// One connection of a client.
struct Connection {
    client: Arc<Client>,
    tls: Option<TlsAcceptor>,
    keep_alive: bool,
    seat: Arc<Seat>,
    peer: SocketAddr,
    bounds: Bounds,
    stop: CancellationToken,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        if let Err(e) = stream.set_nodelay(true) {
            tracing::debug!("a connection of {} cannot be set up: {e}", self.peer);
        }
        let stream = Watched::new(stream, self.bounds.stalled);
        let Some(acceptor) = self.tls.clone() else { return self.speak(stream).await };
        let closed = self.seat.closer.clone();
        let handshake = closed.run_until_cancelled(timeout(self.bounds.handshake, acceptor.accept(stream)));
        match self.stop.clone().run_until_cancelled(handshake).await.flatten() {
            Some(Ok(Ok(stream))) => self.speak(stream).await,
            Some(Ok(Err(e))) => tracing::debug!("a TLS handshake of {} failed: {e}", self.peer),
            Some(Err(_)) => tracing::debug!("a TLS handshake of {} took too long", self.peer),
            None => {}
        }
    }

    async fn speak(self, stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static) {
        let Self { client, keep_alive, seat, peer, bounds, stop, .. } = self;
        let (closed, own) = (seat.closer.clone(), seat.clone());
        let service = service_fn(move |request| dispatch::answer(client.clone(), request, peer, seat.clone()));
        let mut server = http1::Builder::new();
        server
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.headers)
            .max_buf_size(bounds.header_bytes)
            .max_header_size(bounds.header_bytes)
            .keep_alive(keep_alive);
        let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = closed.cancelled() => return,
            () = stop.cancelled() => {
                // Nobody waits for the rest of a request that has not come.
                if own.is_idle() {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(e) = ended {
            tracing::debug!("a connection of {peer} ended: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn the_one_that_is_idle_for_the_longest_time_makes_room() {
        let open = Open::new(3);
        let mut seats = Vec::new();
        for _ in 0..3 {
            seats.push(Seat::take(open.clone(), open.place().await));
        }
        let answering = seats[0].busy();
        // Nobody leaves while nobody waits.
        assert!(seats.iter().all(|seat| !seat.closer.is_cancelled()));
        let waiting = tokio::spawn({
            let open = open.clone();
            async move { open.place().await }
        });
        timeout(SOON, seats[1].closer.cancelled()).await.expect("it is not closed");
        assert!(!seats[0].closer.is_cancelled() && !seats[2].closer.is_cancelled());
        drop(seats.remove(1));
        let place = waiting.await.unwrap();
        drop(answering);
        // The first one became idle last.
        let waiting = tokio::spawn({
            let open = open.clone();
            async move { open.place().await }
        });
        timeout(SOON, seats[1].closer.cancelled()).await.expect("it is not closed");
        assert!(!seats[0].closer.is_cancelled());
        drop(seats.remove(1));
        drop((place, waiting.await.unwrap(), seats));
        assert!(open.idle().closers.is_empty(), "who left is not looked for");
        assert_eq!(open.places.available_permits(), 3);
    }
}
