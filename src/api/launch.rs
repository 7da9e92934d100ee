//! The server's life: up, at work, and down in order.

use std::time::Duration;

use rocket::{Build, Rocket};
use tokio::runtime::Builder;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::listen::{Bounds, Server};
use crate::error::{Error, ErrorKind, Result};
use crate::service::MongoBackupService;

/// Threads that answer requests. They are not those of the engine: a backup at full speed keeps no request waiting.
const THREADS: usize = 2;
/// How long requests that are being answered may take once the service has ended.
const LAST_REQUESTS: Duration = Duration::from_secs(10);

/// Serves, and takes backups by the schedule, until `stop` is cancelled. Then the service takes no more work, its jobs get their
/// grace and end in order, and are told of meanwhile; the server goes last.
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
    // It may not be dropped where others wait on it; what is left on it is connections of clients.
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
            tracing::warn!("requests that were being answered still are cut off");
            Ok(())
        }
    }
}

fn flatten<T>(ended: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    ended.map_err(|e| Error::new(ErrorKind::Internal, "the server died of a defect of this program").cause(e))?
}
