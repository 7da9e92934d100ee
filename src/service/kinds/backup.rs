//! Backup jobs: take a backup, import it if wanted, and apply retention.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::asked::{bounded, some};
use super::import;
use crate::clock;
use crate::engine::backup::{self, BackupOptions, BackupReport};
use crate::engine::clean::{self, Keeping};
use crate::engine::import::{self as engine, ImportOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::format::key;
use crate::mongo::MongoUri;
use crate::names::{self, BackupName, NamespaceFilter, SYSTEM_DATABASES};
use crate::service::inner::Inner;
use crate::service::job::{Job, JobId, JobKind, Trigger};
use crate::service::jobs::{Failure, JobContext};
use crate::service::keep::Keep;
use crate::service::progress::JobProgress;
use crate::service::requests::BackupRequest;
use crate::service::results::{BackupResult, RetentionResult};
use crate::service::state::Claim;
use crate::service::task::Task;
use crate::service::told;

/// The options of a backup, checked.
struct Asked {
    options: BackupOptions,
    import: bool,
    keeping: Keeping,
}

impl Asked {
    /// Applies a request on top of the configuration.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`]; [`ErrorKind::NotConfigured`] if it asks for an import and no target is
    /// configured.
    fn read(service: &Inner, request: &BackupRequest) -> Result<Self> {
        bounded([&request.databases, &request.include, &request.exclude])?;
        let databases = some("databases", &request.databases)?;
        for name in databases {
            names::check_database(name)?;
            if SYSTEM_DATABASES.contains(&name.as_str()) {
                return Err(Error::usage(format!("{name} belongs to the deployment and is never part of a backup"))
                    .hint("name databases of your own"));
            }
        }
        let options = BackupOptions {
            filter: NamespaceFilter::parse(databases, some("include", &request.include)?, some("exclude", &request.exclude)?)?,
            tuning: service.config.tuning,
            ..BackupOptions::default()
        };
        if request.import == Some(true) {
            service.config.target()?;
        }
        let keep = request.keep.unwrap_or(Keep::Configured);
        let keeping = match keep.newest()? {
            Some(count) => Keeping::Newest(count),
            None if keep == Keep::All => Keeping::All,
            None => Keeping::Policy(service.config.retention),
        };
        Ok(Self { options, import: request.import.unwrap_or(service.settings.auto_import), keeping })
    }
}

/// Begins a backup job.
///
/// # Errors
/// [`ErrorKind::Usage`] for an invalid request; [`ErrorKind::NotConfigured`]; [`ErrorKind::Busy`]
/// if a backup of this source is running; those of
/// [`Jobs::submit`](crate::service::jobs::Jobs::submit).
pub(in crate::service) async fn begin(service: Arc<Inner>, trigger: Trigger, request: BackupRequest) -> Result<JobId> {
    // While the service shuts down, callers must learn that, not which backup is still running.
    let _entered = service.jobs.enter()?;
    let source = service.config.source()?;
    Asked::read(&service, &request)?;
    if let Some((name, progress)) = backup::running(&service.catalog, source.hosts(), clock::now()).await? {
        let error = Error::new(
            ErrorKind::Busy,
            format!("a backup of this source is running already: {name}, by process {} on {}", progress.process, progress.host),
        )
        .hint("wait until it ends, or stop it");
        // A base backup of an archive names no job.
        return Err(match progress.job.filter(|job| job.parse::<JobId>().is_ok()) {
            Some(job) => error.job(job),
            None => error,
        });
    }
    let task = Task::new(JobKind::Backup, &request)?;
    let mut job = Job::new(JobKind::Backup, trigger, clock::now());
    job.create = Some(request).filter(|request| *request != BackupRequest::default());
    let begun = service.jobs.submit(job, task, BTreeSet::from([Claim::Source])).await?;
    if trigger == Trigger::Manual {
        service.scheduler.ran(begun, clock::now()).await;
    }
    Ok(begun)
}

/// Takes a backup, imports it if wanted, and applies retention. If one part fails, earlier ones
/// stay done.
pub(super) async fn run(service: Arc<Inner>, task: Task, context: JobContext) -> Result<(), Failure> {
    let asked = task.parameters().and_then(|request| Ok((service.config.source()?, Asked::read(&service, &request)?)));
    let (source, Asked { options, import, keeping }) = asked.map_err(Failure::at(JobKind::Backup))?;

    // 1. The backup.
    let taken = take(&service, &source, options, &context).await;
    service.listing.forget();
    let report = taken.map_err(Failure::at(JobKind::Backup))?;
    told::took(&report);
    context.update(|job| {
        job.backup = Some(report.name.to_string());
        job.result.backup = Some(result_of(&report));
        let collections = report.manifest.collections.iter();
        job.progress = JobProgress::done(collections.map(|c| (c.namespace().to_string(), c.documents, c.bytes)));
    });
    context.keep().await;

    // 2. The import.
    let imported = match service.config.target() {
        _ if !import => Ok(()),
        target => {
            context.update(|job| job.result.imported = Some(false));
            import_if_there_is_a_target(&service, target, &report, &context).await
        }
    };

    // 3. Retention. The backup is a success, even if its import failed.
    if !context.stop.is_cancelled()
        && let Some(retained) = retain(&service, &report.name, keeping, &context).await
    {
        if let Some(error) = &retained.error {
            context.progress.note(format!("could not remove old backups: {error}"));
        }
        context.update(|job| job.result.retention = Some(retained));
        service.listing.forget();
    }
    if imported.is_ok() {
        context.done();
    }
    imported.map_err(Failure::at(JobKind::Import))
}

async fn take(service: &Inner, source: &MongoUri, options: BackupOptions, context: &JobContext) -> Result<BackupReport> {
    let options = BackupOptions { job: Some(context.id.to_string()), ..options };
    service.catalog.check_place().await?;
    let taken = backup::run(source, service.catalog.repository(), &options, &service.works_with(context)).await;
    match (taken, context.progress.backup()) {
        // A cancelled backup leaves nothing behind. One that the service's end interrupted can be
        // resumed.
        (Err(error), Some(name)) if context.is_cancelled() && error.kind() == ErrorKind::Interrupted => {
            let place = service.catalog.repository().place(name);
            match place.delete_all(key::MANIFEST).await {
                Ok(()) => Err(Error::new(ErrorKind::Interrupted, "cancelled; nothing of the backup is left")),
                Err(left) => Err(error.hint(format!("remove what is left in {}: {left}", place.location()))),
            }
        }
        (taken, _) => taken,
    }
}

/// Without a target, notes in the job that there is nothing to do.
async fn import_if_there_is_a_target(
    service: &Inner,
    target: Result<MongoUri>,
    report: &BackupReport,
    context: &JobContext,
) -> Result<()> {
    match target {
        Ok(target) => import_what_was_taken(service, report, &target, context).await,
        Err(e) if e.kind() == ErrorKind::NotConfigured => {
            context.progress.note(
                "no target is configured, so the backup is not imported: set MONGO_URI_LOCAL, or AUTO_IMPORT_TO_LOCAL=false",
            );
            Ok(())
        }
        Err(e) => Err(e),
    }
}

async fn import_what_was_taken(service: &Inner, report: &BackupReport, target: &MongoUri, context: &JobContext) -> Result<()> {
    let backup = service.catalog.find(report.name.as_str()).await?;
    let options = ImportOptions { tuning: service.config.tuning, ..ImportOptions::default() };
    context.progress.begin("waiting for the target");
    context.claim(import::claims(engine::databases(&backup, target, &options)?)).await?;
    import::import(&backup, target, &options, service, context).await
}

/// `None` if there is nothing to remove.
async fn retain(service: &Inner, made: &BackupName, keeping: Keeping, context: &JobContext) -> Option<RetentionResult> {
    let (zone, window, cx) = (service.config.timezone, service.config.pitr.window(), service.works_with(context));
    let retained = clean::after_backup(&service.catalog, made, keeping, zone, window, &cx).await?;
    told::cleaned(&retained.report, "retention");
    Some(RetentionResult {
        deleted: retained.report.deleted.iter().map(|d| d.name.to_string()).collect(),
        freed_bytes: retained.report.freed_bytes,
        error: retained.error,
    })
}

fn result_of(report: &BackupReport) -> BackupResult {
    let manifest = &report.manifest;
    BackupResult {
        name: report.name.to_string(),
        path: report.location.clone(),
        collections: manifest.collections.len() as u64,
        documents: manifest.totals.documents,
        raw_bytes: manifest.totals.raw_bytes,
        stored_bytes: manifest.totals.stored_bytes,
        consistency: manifest.consistency.kind,
    }
}
