//! The server's life: up, at work, and down in order.

use std::time::Duration;

use rocket::error::ErrorKind as RocketKind;
use rocket::fairing::AdHoc;
use rocket::{Build, Rocket};
use tokio::runtime::Builder;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::service::MongoBackupService;

/// Threads that answer requests. They are not those of the engine: a backup at full speed keeps no request waiting.
const THREADS: usize = 2;
/// How long requests that are being answered may take once the service has ended.
const LAST_REQUESTS: Duration = Duration::from_secs(10);

/// Serves, and takes backups by the schedule, until `stop` is cancelled. Then the service takes no more work, its jobs get their grace and end in order, and are told of meanwhile; the server
/// goes last.
///
/// # Errors
/// [`ErrorKind::Usage`] where address, port or TLS cannot be used; [`ErrorKind::Internal`].
pub async fn serve(rocket: Rocket<Build>, service: &MongoBackupService, stop: &CancellationToken) -> Result<()> {
    let up = CancellationToken::new();
    let tell = up.clone();
    let rocket = rocket.attach(AdHoc::on_liftoff("tells where it listens", move |rocket| {
        Box::pin(async move {
            let config = rocket.config();
            let scheme = if config.tls_enabled() { "https" } else { "http" };
            let address = std::net::SocketAddr::new(config.address, config.port);
            tracing::info!("listening on {scheme}://{address}");
            tell.cancel();
        })
    }));
    let runtime = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("bsonvault-api")
        .enable_all()
        .build()
        .map_err(|e| Error::new(ErrorKind::Internal, format!("cannot start the runtime of the server: {e}")).cause(e))?;
    let served = serve_on(&runtime, rocket, service, &up, stop).await;
    // It may not be dropped where others wait on it; what is left on it is connections of clients.
    runtime.shutdown_background();
    served
}

async fn serve_on(
    runtime: &tokio::runtime::Runtime,
    rocket: Rocket<Build>,
    service: &MongoBackupService,
    up: &CancellationToken,
    stop: &CancellationToken,
) -> Result<()> {
    let rocket = flatten(runtime.spawn(async { rocket.ignite().await.map_err(describe) }).await)?;
    let shutdown = rocket.shutdown();
    let mut server = runtime.spawn(async { rocket.launch().await.map(drop).map_err(describe) });
    let work = async {
        // A server that cannot listen begins no backup.
        up.cancelled().await;
        service.start_automatic_backup().await?;
        stop.cancelled().await;
        Ok(())
    };
    tokio::select! {
        ended = &mut server => {
            service.shut_down().await;
            return flatten(ended);
        }
        worked = work => {
            service.shut_down().await;
            worked?;
        }
    }
    shutdown.notify();
    finish(server).await
}

async fn finish(server: JoinHandle<Result<()>>) -> Result<()> {
    match tokio::time::timeout(LAST_REQUESTS, server).await {
        Ok(ended) => flatten(ended),
        Err(_) => {
            tracing::warn!("requests that were being answered still are cut off");
            Ok(())
        }
    }
}

fn flatten<T>(ended: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    ended.map_err(|e| Error::new(ErrorKind::Internal, "the server died of a defect of this program").cause(e))?
}

/// The server's own error. To look at its kind is what keeps it from panicking when it is dropped.
fn describe(error: rocket::Error) -> Error {
    match error.kind() {
        RocketKind::Bind(e) => Error::usage(format!("the server cannot listen: {e}")).hint(
            "another program may listen on this port: set ROCKET_PORT and ROCKET_ADDRESS, or port and address in rocket.toml; \
             with TLS, look at tls.certs and tls.key",
        ),
        RocketKind::Io(e) => Error::new(ErrorKind::Internal, format!("the server failed: {e}")),
        RocketKind::Config(e) => Error::usage(format!("the server's settings cannot be used: {e}"))
            .hint("they are in rocket.toml and in variables that begin with ROCKET_"),
        RocketKind::Shutdown(_, None) => Error::new(ErrorKind::Internal, "the server did not end in order"),
        RocketKind::Shutdown(_, Some(e)) => Error::new(ErrorKind::Internal, format!("the server did not end in order: {e}")),
        kind => Error::new(ErrorKind::Internal, format!("the server cannot be started: {kind}")),
    }
}
