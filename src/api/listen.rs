//! Accepts connections, and limits what each may use before its client is known.
//!
//! Rocket's own listener does not limit connections, and has no timeout for headers, handshakes or
//! stalled readers. So hyper's HTTP/1 server listens here, and hands whole requests to Rocket in
//! memory (`dispatch`). HTTP/2 is not supported; a proxy can add it.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rocket::error::ErrorKind as RocketKind;
use rocket::local::asynchronous::Client;
use rocket::{Build, Rocket};
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::dispatch;
use super::seats::{Open, Seat};
use super::stall::Watched;
use super::tls;
use crate::error::{Error, ErrorKind, Result};

/// The most connections at a time, if the system allows enough open files.
const CONNECTIONS: usize = 1024;
/// Clients may use one in this many of the files that this process may open. Backups need the rest.
const SHARE_OF_FILES: u64 = 4;
/// How long to wait before the next connection is accepted if the system refuses one.
const PAUSE: Duration = Duration::from_millis(100);

/// Limits for clients.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Concurrent connections.
    pub connections: usize,
    /// How long a client may take to send the headers of each request.
    pub headers: Duration,
    /// The most bytes of a request's headers, and of a connection's buffer.
    pub header_bytes: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a client may read nothing while an answer is sent.
    pub stalled: Duration,
}

impl Bounds {
    /// The limits of this process. Connections stay well below its limit of open files, so that
    /// backups never lack files.
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
    /// Listens on the configured address. Requests are answered only from [`run`](Self::run) on.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if address, port, certificate or key cannot be used;
    /// [`ErrorKind::Internal`].
    pub async fn bind(rocket: Rocket<Build>, bounds: Bounds) -> Result<Self> {
        let client = Client::untracked(rocket).await.map_err(describe)?;
        let config = client.rocket().config();
        let tls = config.tls.as_ref().filter(|_| config.tls_enabled()).map(tls::acceptor).transpose()?;
        let wanted = SocketAddr::new(config.address, config.port);
        let cannot = |e: std::io::Error| {
            Error::usage(format!("the server cannot listen on {wanted}: {e}"))
                .hint("another program may use it: set ROCKET_PORT and ROCKET_ADDRESS, or port and address in rocket.toml")
        };
        let listener = TcpListener::bind(wanted).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let keep_alive = config.keep_alive != 0;
        let open = Open::new(bounds.connections);
        Ok(Self { listener, address, tls, keep_alive, client: Arc::new(client), open, bounds })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Answers requests until `stop` is cancelled. Then pending requests are completed, and event
    /// streams end.
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

    /// The next connection, once there is a slot for it.
    async fn next(&self) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => return (stream, peer, self.open.place().await),
                Err(e) => {
                    tracing::warn!("cannot accept a connection: {e}");
                    sleep(PAUSE).await;
                }
            }
        }
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
            tracing::debug!("cannot set up a connection from {}: {e}", self.peer);
        }
        let stream = Watched::new(stream, self.bounds.stalled);
        let Some(acceptor) = self.tls.clone() else { return self.speak(stream).await };
        let closed = self.seat.closer.clone();
        let handshake = closed.run_until_cancelled(timeout(self.bounds.handshake, acceptor.accept(stream)));
        match self.stop.clone().run_until_cancelled(handshake).await.flatten() {
            Some(Ok(Ok(stream))) => self.speak(stream).await,
            Some(Ok(Err(e))) => tracing::debug!("TLS handshake with {} failed: {e}", self.peer),
            Some(Err(_)) => tracing::debug!("TLS handshake with {} took too long", self.peer),
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
                // Do not wait for the rest of an incomplete request.
                if own.is_idle() {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(e) = ended {
            tracing::debug!("connection from {peer} ended: {e}");
        }
    }
}

/// Converts the server's own error. Reading its kind keeps it from panicking on drop.
fn describe(error: rocket::Error) -> Error {
    match error.kind() {
        RocketKind::Bind(e) => Error::usage(format!("the server cannot listen: {e}")).hint(
            "another program may use this port: set ROCKET_PORT and ROCKET_ADDRESS, or port and address in rocket.toml; \
             with TLS, look at tls.certs and tls.key",
        ),
        RocketKind::Io(e) => Error::new(ErrorKind::Internal, format!("the server failed: {e}")),
        RocketKind::Config(e) => Error::usage(format!("the server's settings are invalid: {e}"))
            .hint("check rocket.toml and environment variables that begin with ROCKET_"),
        RocketKind::Shutdown(_, None) => Error::new(ErrorKind::Internal, "the server did not shut down cleanly"),
        RocketKind::Shutdown(_, Some(e)) => Error::new(ErrorKind::Internal, format!("the server did not shut down cleanly: {e}")),
        kind => Error::new(ErrorKind::Internal, format!("the server cannot start: {kind}")),
    }
}
