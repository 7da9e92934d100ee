//! `/api/backups`: takes, imports, verifies, downloads and removes backups.

use rocket::http::{ContentType, Status};
use rocket::request::Request;
use rocket::response::{self, Responder, Response};
use rocket::{State, delete, get, post};

use super::access::{Admin, DownloadPlace, Downloader, Reader};
use super::answer::{Answer, Text, text};
use super::bodies::{CleanRequest, VerifyRequest};
use super::body::{Body, Optional};
use super::dto::{Begun, Created, Deleted, Done, FailureBody, Imported, Verified};
use super::failure::Failure;
use super::query::{Detail, Nothing, Query, Wait};
use crate::engine::clean::CleanReport;
use crate::engine::download::Download;
use crate::repository::lock::read::ReadLock;
use crate::service::{BackupRequest, BackupStatus, DualState, ImportRequest, JobKind, JobState, MongoBackupService, Trigger};

type Answered<T> = Result<Answer<T>, Failure>;

/// Returns the state of the service, its schedule and its backups, newest first.
#[utoipa::path(
    tag = "backups",
    operation_id = "getBackupStatus",
    responses((status = 200, description = "The status", body = Done<BackupStatus>))
)]
#[get("/api/backups/status")]
pub(super) async fn status(_by: Reader, _query: Query<Nothing>, service: &State<MongoBackupService>) -> Answered<BackupStatus> {
    Ok(Answer::data(service.get_backup_status().await?))
}

/// Takes a backup, and imports it if that is configured.
///
/// Without a body, the configuration applies. Fields in the body override it for this backup. By
/// default, the answer comes when the job has ended; the job continues if the client disconnects. A
/// complete backup is a success even if its import fails: see `imported` and `importError`.
#[utoipa::path(
    tag = "backups",
    operation_id = "createBackup",
    params(Wait),
    request_body(content = BackupRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "The backup is complete", body = Done<Created>),
        (status = 202, description = "The job has begun", body = Done<Begun>,
            headers(("Location" = String, description = "The job"))),
        (status = 404, description = "The source has nothing to back up, or lacks the database that its URI names", body = FailureBody),
        (status = 409, description = "A backup of this source is already running, this one was cancelled, or the source has no consistency point", body = FailureBody),
        (status = 422, description = "A name or value of the query is unknown, a value in the body is invalid, or the configured URI is invalid", body = FailureBody),
        (status = 502, description = "MongoDB refused or failed", body = FailureBody),
        (status = 503, description = "The service is shutting down", body = FailureBody),
    )
)]
#[post("/api/backups/create", data = "<body>")]
pub(super) async fn create(
    _by: Admin,
    query: Query<Wait>,
    body: Optional<BackupRequest>,
    service: &State<MongoBackupService>,
) -> Answered<Created> {
    let id = service.begin_backup_of(Trigger::Manual, body.0).await?;
    if !query.0.wait {
        return Ok(Answer::Begun(id));
    }
    let job = service.wait(id).await?;
    let failed = job.error.as_ref().filter(|error| error.stage != JobKind::Import);
    match (Created::of(&job), failed, &job.error) {
        (Some(created), None, None) => Ok(Answer::said("Manual backup completed successfully", created)),
        (Some(created), None, Some(error)) => {
            let message = format!("Manual backup completed successfully, but its import failed: {}", error.message);
            Ok(Answer::said(message, created))
        }
        _ => Err(Failure::of_job(&job)),
    }
}

/// Imports a backup into the target.
///
/// The target does not change before the whole backup is verified. Each collection is replaced
/// atomically. With `to` or `undo`, a point in time is restored: a backup, and what the archive of
/// the oplog has of the time after it.
#[utoipa::path(
    tag = "backups",
    operation_id = "importBackup",
    params(Wait),
    request_body(content = ImportRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "The import is done", body = Done<Imported>),
        (status = 202, description = "The job has begun", body = Done<Begun>,
            headers(("Location" = String, description = "The job"))),
        (status = 404, description = "The backup does not exist below the configured path, nothing leads to the point in time, or the selection matches nothing", body = FailureBody),
        (status = 409, description = "An import into one of the databases is already running, the point in time is in a gap of the archive, or the import was refused or cancelled", body = FailureBody),
        (status = 422, description = "A value is out of range, or does not fit this backup", body = FailureBody),
        (status = 502, description = "MongoDB refused or failed", body = FailureBody),
        (status = 503, description = "The service is shutting down", body = FailureBody),
    )
)]
#[post("/api/backups/import", data = "<body>")]
pub(super) async fn import(
    _by: Admin,
    query: Query<Wait>,
    body: Body<ImportRequest>,
    service: &State<MongoBackupService>,
) -> Answered<Imported> {
    let id = service.begin_import(body.0).await?;
    if !query.0.wait {
        return Ok(Answer::Begun(id));
    }
    let job = service.wait(id).await?;
    match Imported::of(&job).filter(|_| job.state == JobState::Succeeded) {
        Some(imported) => Ok(Answer::said("Backup imported successfully", imported)),
        None => Err(Failure::of_job(&job)),
    }
}

/// Removes all but the newest backups of each source and selection.
///
/// Backups of one deployment with one selection (databases, include, exclude) are counted together.
/// The newest complete backup of each group always stays, and so do backups that are being made or
/// read.
#[utoipa::path(
    tag = "backups",
    operation_id = "cleanBackups",
    request_body(content = CleanRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "Backups that were deleted and kept, with reasons", body = Done<CleanReport>),
        (status = 422, description = "`keepCount` is out of range", body = FailureBody),
        (status = 503, description = "The service is shutting down", body = FailureBody),
    )
)]
#[post("/api/backups/clean", data = "<body>")]
pub(super) async fn clean(
    _by: Admin,
    _query: Query<Nothing>,
    body: Body<CleanRequest>,
    service: &State<MongoBackupService>,
) -> Answered<CleanReport> {
    let keep = body.0.keep()?;
    let cleaned = service.clean_old_backups(keep, body.0.dry_run).await?;
    let what = if cleaned.dry_run { "would be deleted" } else { "deleted" };
    Ok(Answer::said(format!("{} {what}", count(cleaned.deleted.len(), "backup")), cleaned))
}

/// Checks the connections to both deployments, within five seconds.
#[utoipa::path(
    tag = "backups",
    operation_id = "testConnections",
    responses((status = 200, description = "The state of each deployment, connected or not", body = Done<DualState>))
)]
#[get("/api/backups/test-connections")]
pub(super) async fn test_connections(
    _by: Reader,
    _query: Query<Nothing>,
    service: &State<MongoBackupService>,
) -> Answered<DualState> {
    Ok(Answer::data(service.test_connections().await))
}

/// Returns a backup's manifest, its path and the results of its last checks.
#[utoipa::path(
    tag = "backups",
    operation_id = "getBackup",
    params(("name" = String, Path, description = "The backup's name"), Detail),
    responses(
        (status = 200, description = "The manifest, with `path` and `verified`", body = Done<Object>),
        (status = 404, description = "The backup does not exist", body = FailureBody),
        (status = 409, description = "The backup is incomplete", body = FailureBody),
        (status = 422, description = "A value of the query is unknown", body = FailureBody),
    )
)]
#[get("/api/backups/<name>")]
pub(super) async fn show(
    _by: Reader,
    name: &str,
    query: Query<Detail>,
    service: &State<MongoBackupService>,
) -> Result<Text, Failure> {
    let write = |data| text(&Done { success: true, message: None, data });
    Ok(Text(service.show(name, query.0.segments, write).await?))
}

/// Reads a whole backup, and compares every object with its SHA-256.
///
/// A damaged backup is a result of this call, not a failure: see `sound`. The same holds for an
/// unusable manifest.
#[utoipa::path(
    tag = "backups",
    operation_id = "verifyBackup",
    params(("name" = String, Path, description = "The backup's name"), Wait),
    request_body(content = VerifyRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "The findings", body = Done<Verified>),
        (status = 202, description = "The job has begun", body = Done<Begun>,
            headers(("Location" = String, description = "The job"))),
        (status = 404, description = "The backup does not exist", body = FailureBody),
        (status = 409, description = "The backup is incomplete, or its verification was cancelled", body = FailureBody),
        (status = 422, description = "A value of the query is unknown", body = FailureBody),
        (status = 503, description = "The service is shutting down", body = FailureBody),
    )
)]
#[post("/api/backups/<name>/verify", data = "<body>")]
pub(super) async fn verify(
    _by: Admin,
    name: &str,
    query: Query<Wait>,
    body: Optional<VerifyRequest>,
    service: &State<MongoBackupService>,
) -> Answered<Verified> {
    let id = service.begin_verify(name, body.0.deep).await?;
    if !query.0.wait {
        return Ok(Answer::Begun(id));
    }
    let job = service.wait(id).await?;
    match Verified::of(&job) {
        Some(verified) if verified.sound => Ok(Answer::said("Backup verified: nothing is wrong with it", verified)),
        Some(verified) => {
            let message = format!("Backup verified: it has {}", count(verified.report.problems.len(), "problem"));
            Ok(Answer::said(message, verified))
        }
        None => Err(Failure::of_job(&job)),
    }
}

/// Downloads a backup as one tar stream.
///
/// This needs an admin token or a download token. The stream has exactly the announced length. It
/// breaks off if the client reads nothing for a minute, or after a day. The manifest comes last, so
/// a truncated stream is no backup. The backup cannot be deleted meanwhile.
#[utoipa::path(
    tag = "backups",
    operation_id = "downloadBackup",
    params(("name" = String, Path, description = "The backup's name")),
    responses(
        (status = 200, description = "A tar archive that unpacks into the backup's directory", content_type = "application/x-tar", body = Vec<u8>,
            headers(("Content-Disposition" = String, description = "The suggested file name"))),
        (status = 403, description = "The token may read, but not download backups", body = FailureBody),
        (status = 404, description = "The backup does not exist", body = FailureBody),
        (status = 409, description = "The backup is incomplete or being deleted", body = FailureBody),
    )
)]
#[get("/api/backups/<name>/download")]
pub(super) async fn download(
    by: Downloader,
    name: &str,
    _query: Query<Nothing>,
    service: &State<MongoBackupService>,
) -> Result<Tar, Failure> {
    Ok(Tar(service.download(name).await?.keeping(by.0)))
}

/// A tar stream of known length.
pub(super) struct Tar(Download<(ReadLock, DownloadPlace)>);

impl<'r> Responder<'r, 'static> for Tar {
    fn respond_to(self, _: &'r Request<'_>) -> response::Result<'static> {
        let length = usize::try_from(self.0.length()).map_err(|_| Status::InternalServerError)?;
        let disposition = format!("attachment; filename=\"{}\"", self.0.name());
        Response::build().header(ContentType::TAR).raw_header("Content-Disposition", disposition).sized_body(length, self.0).ok()
    }
}

/// Removes one backup.
#[utoipa::path(
    tag = "backups",
    operation_id = "deleteBackup",
    params(("name" = String, Path, description = "The backup's name")),
    responses(
        (status = 200, description = "The backup is deleted", body = Done<Deleted>),
        (status = 404, description = "The backup does not exist", body = FailureBody),
        (status = 409, description = "The backup is being made or read", body = FailureBody),
        (status = 503, description = "The service is shutting down", body = FailureBody),
    )
)]
#[delete("/api/backups/<name>")]
pub(super) async fn delete(
    _by: Admin,
    name: &str,
    _query: Query<Nothing>,
    service: &State<MongoBackupService>,
) -> Answered<Deleted> {
    service.delete_backup(name).await?;
    Ok(Answer::said("Backup deleted", Deleted { name: name.to_owned() }))
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
