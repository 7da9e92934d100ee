//! Import jobs: import a backup into the target.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::asked::{bounded, some};
use crate::clock;
use crate::context::Context;
use crate::engine::import::{self, DocumentSource, ImportOptions, PointInTime};
use crate::engine::wanted::Wanted;
use crate::error::Result;
use crate::mongo::MongoUri;
use crate::names::{BackupName, NamespaceFilter, is_latest};
use crate::service::inner::Inner;
use crate::service::job::{Job, JobId, JobKind, Trigger};
use crate::service::jobs::{Failure, JobContext};
use crate::service::progress::JobProgress;
use crate::service::requests::ImportRequest;
use crate::service::state::Claim;
use crate::service::task::Task;
use crate::service::told;

/// What to import. The manifest is read again when the job starts, since many jobs may wait.
#[derive(Serialize, Deserialize)]
struct Parameters {
    backup: BackupName,
    request: ImportRequest,
}

/// Begins an import job, if the request is valid as far as that can be checked without a
/// connection.
///
/// # Errors
/// [`ErrorKind::NotFound`] if the backup does not exist; [`ErrorKind::Usage`] if the request does
/// not fit it; [`ErrorKind::NotConfigured`]; those of [`Wanted::find`] and of
/// [`Jobs::submit`](crate::service::jobs::Jobs::submit).
pub(in crate::service) async fn begin(service: Arc<Inner>, request: ImportRequest) -> Result<JobId> {
    let _entered = service.jobs.enter()?;
    let database = request.database_name.clone().map(|name| vec![name]);
    bounded([&database, &request.include, &request.exclude])?;
    let wanted = request.wanted()?;
    let target = service.config.target()?;
    let mut options = options(&service, &request)?;
    let (name, claims) = match wanted {
        Some(wanted) => {
            let origin = point_in_time(&service, &request, wanted, &mut options, &service.operation()).await?;
            let databases = of_point_in_time(&origin, &target, &options);
            (origin.base().clone(), claims(databases))
        }
        None => {
            let name = service.resolve(&request.backup_path).await?;
            let backup = service.find(name.as_str()).await?;
            (name, claims(import::databases(&backup, &target, &options)?))
        }
    };
    let mut job = Job::new(JobKind::Import, Trigger::Manual, clock::now());
    (job.backup, job.import) = (Some(name.to_string()), Some(request.clone()));
    let task = Task::new(JobKind::Import, &Parameters { backup: name, request })?;
    service.jobs.submit(job, task, claims).await
}

/// Finds the base and the archive for a point in time. What is undone becomes the selection.
async fn point_in_time(
    service: &Inner,
    request: &ImportRequest,
    wanted: Wanted,
    options: &mut ImportOptions,
    cx: &Context,
) -> Result<PointInTime> {
    let named = match request.backup_path.as_str() {
        "" => None,
        latest if is_latest(latest) => None,
        // Nothing outside of the path is a backup.
        name => Some(service.find(name).await?.manifest.name),
    };
    let repository = service.catalog.repository();
    wanted.find(repository, named.as_ref().map(BackupName::as_str), &mut options.filter, cx).await
}

/// The databases that a point in time is restored to, as far as its base tells without reading the
/// archive. Those that began later are not told: the lease in the target keeps them apart.
fn of_point_in_time(origin: &PointInTime, target: &MongoUri, options: &ImportOptions) -> BTreeSet<String> {
    import::databases(origin.backup(), target, options).unwrap_or_else(|_| {
        // The plan of the job knows whether it fits what there is at that time.
        let selected = options.filter.include.iter().filter_map(|pattern| pattern.as_str().split_once('.'));
        match &options.database {
            Some(database) => BTreeSet::from([database.clone()]),
            None => selected.map(|(database, _)| database.to_owned()).filter(|name| !name.contains('*')).collect(),
        }
    })
}

/// The databases of the target that the import writes to.
pub(super) fn claims(databases: BTreeSet<String>) -> BTreeSet<Claim> {
    databases.into_iter().map(Claim::Database).collect()
}

fn options(service: &Inner, request: &ImportRequest) -> Result<ImportOptions> {
    Ok(ImportOptions {
        database: request.database_name.clone(),
        filter: NamespaceFilter::parse(&[], some("include", &request.include)?, some("exclude", &request.exclude)?)?,
        mode: request.mode.map_or_else(Default::default, Into::into),
        tuning: service.config.tuning,
        ..ImportOptions::default()
    })
}

/// Runs an import job.
pub(super) async fn run(service: Arc<Inner>, task: Task, context: JobContext) -> Result<(), Failure> {
    let done = async {
        let Parameters { backup, mut request } = task.parameters()?;
        let (target, mut options) = (service.config.target()?, options(&service, &request)?);
        match request.wanted()? {
            Some(wanted) => {
                // The base that was chosen when the job was asked for: its databases are claimed.
                request.backup_path = backup.to_string();
                let cx = service.works_with(&context);
                let origin = point_in_time(&service, &request, wanted, &mut options, &cx).await?;
                import(&origin, &target, &options, &service, &context).await
            }
            None => import(&service.find(backup.as_str()).await?, &target, &options, &service, &context).await,
        }
    }
    .await;
    if done.is_ok() {
        context.done();
    }
    service.listing.forget();
    done.map_err(Failure::at(JobKind::Import))
}

/// Imports a backup or a point in time, and stores the result in the job.
pub(super) async fn import(
    origin: &dyn DocumentSource,
    target: &MongoUri,
    options: &ImportOptions,
    service: &Inner,
    context: &JobContext,
) -> Result<()> {
    context.progress.begin("looking at the target");
    let source = service.config.configured_source()?;
    let cx = &service.works_with(context);
    let plan = import::plan(origin, target, source.as_ref(), options, cx).await?;
    let report = import::execute(plan, options, cx).await?;
    told::imported(&report);
    let failure = report.failure();
    context.update(|job| {
        let collections = report.collections.iter();
        job.progress = JobProgress::done(collections.map(|c| (c.namespace.clone(), c.documents, c.bytes)));
        (job.result.import, job.result.imported) = (Some(report), Some(true));
    });
    failure.map_or(Ok(()), Err)
}
