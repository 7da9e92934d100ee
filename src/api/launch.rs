//! The server's life cycle: start, work, orderly shutdown.

use std::time::Duration;

use rocket::{Build, Rocket};
use tokio::runtime::Builder;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::listen::{Bounds, Server};
use crate::error::{Error, ErrorKind, Result};
use crate::service::MongoBackupService;

/// Threads that answer requests. They are separate from the engine's, so a backup at full speed
/// delays no request.
const THREADS: usize = 2;
/// How long pending requests may take once the service has ended.
const LAST_REQUESTS: Duration = Duration::from_secs(10);

/// Serves, and takes scheduled backups, until `stop` is cancelled. Then the service accepts no more
/// work, and its jobs get a grace period to end. The server answers meanwhile, and stops last.
///
/// # Errors
/// [`ErrorKind::Usage`] if address, port or TLS cannot be used; [`ErrorKind::Internal`].
pub async fn serve(rocket: Rocket<Build>, service: &MongoBackupService, stop: &CancellationToken) -> Result<()> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("bsonvault-api")
        .enable_all()
        .build()
        .map_err(|e| Error::new(ErrorKind::Internal, format!("cannot start the runtime of the server: {e}")).cause(e))?;
    let served = serve_on(&runtime, rocket, service, stop).await;
    // A runtime may not be dropped in an async context. Only client connections are left on it.
    runtime.shutdown_background();
    served
}

async fn serve_on(
    runtime: &tokio::runtime::Runtime,
    rocket: Rocket<Build>,
    service: &MongoBackupService,
    stop: &CancellationToken,
) -> Result<()> {
    // A server that cannot listen begins no backup.
    let server = flatten(runtime.spawn(Server::bind(rocket, Bounds::of_this_process())).await)?;
    tracing::info!("listening on {}://{}", server.scheme(), server.address());
    let close = CancellationToken::new();
    let mut server = runtime.spawn({
        let close = close.clone();
        async move {
            server.run(close).await;
            Ok(())
        }
    });
    let work = async {
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
    close.cancel();
    finish(server).await
}

async fn finish(server: JoinHandle<Result<()>>) -> Result<()> {
    match tokio::time::timeout(LAST_REQUESTS, server).await {
        Ok(ended) => flatten(ended),
        Err(_) => {
            tracing::warn!("cut off requests that were still being answered");
            Ok(())
        }
    }
}

fn flatten<T>(ended: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    ended.map_err(|e| Error::new(ErrorKind::Internal, "the server died because of a defect in this program").cause(e))?
}
