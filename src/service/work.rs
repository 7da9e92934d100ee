//! What each kind of job does: the engine's verbs, one after the other, with what came of each kept in the job.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::Inner;
use super::job::JobKind;
use super::jobs::{Context, Failure};
use super::keep::Keep;
use super::progress::JobProgress;
use super::requests::{BackupRequest, ImportRequest};
use super::results::{BackupResult, ImportResult, RetentionResult, VerifyProblem, VerifyResult};
use super::told;
use crate::clock;
use crate::engine::backup::{self, BackupOptions, BackupReport};
use crate::engine::import::{self, ImportOptions, ImportReport};
use crate::engine::verify::{VerifyOptions, VerifyReport};
use crate::engine::{clean, record};
use crate::error::{Error, ErrorKind, Result};
use crate::format::key;
use crate::mongo::MongoUri;
use crate::names::{self, BackupName, NamespacePattern, SYSTEM_DATABASES};
use crate::repository::catalog::Backup;

/// The phase of a job that did all of its work.
const DONE: &str = "done";

/// What is asked of a backup, valid.
pub(super) struct Asked {
    options: BackupOptions,
    import: bool,
    retention: Retention,
}

/// Which backups stay after one was taken.
enum Retention {
    /// All.
    All,
    /// What is configured.
    Configured,
    /// The newest so many of its own group.
    Newest(NonZeroU32),
}

impl Asked {
    /// Reads what is asked for over what is configured.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`]; [`ErrorKind::NotConfigured`] where it is to be imported, and there is no target.
    pub(super) fn read(service: &Inner, request: &BackupRequest) -> Result<Self> {
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
            databases: databases.to_vec(),
            include: patterns("include", &request.include)?,
            exclude: patterns("exclude", &request.exclude)?,
            tuning: service.config.tuning,
            ..BackupOptions::default()
        };
        if request.import == Some(true) {
            service.config.target()?;
        }
        let keep = request.keep.unwrap_or(Keep::Configured);
        let retention = match keep.newest()? {
            Some(count) => Retention::Newest(count),
            None if keep == Keep::All => Retention::All,
            None => Retention::Configured,
        };
        Ok(Self { options, import: request.import.unwrap_or(service.settings.auto_import), retention })
    }
}

/// The most names and patterns that are taken with one request: each is kept in its job, and compared with every name.
const MOST_NAMES: usize = 1000;
/// And the most bytes of all of them.
const MOST_BYTES: usize = 64 * 1024;

/// Refuses more names and patterns than a job is to keep.
fn bounded<const N: usize>(lists: [&Option<Vec<String>>; N]) -> Result<()> {
    let names = || lists.into_iter().flatten().flatten();
    let (count, bytes) = (names().count(), names().map(String::len).sum::<usize>());
    if count > MOST_NAMES || bytes > MOST_BYTES {
        return Err(Error::usage(format!(
            "{count} names and patterns of {bytes} bytes: a request takes {MOST_NAMES} at most, of {MOST_BYTES} bytes together"
        ))
        .hint("use fewer patterns: `*` stands for any characters"));
    }
    Ok(())
}

/// A list that is given. An empty one is refused: whoever made it may have meant nothing by it, and it would stand for all.
fn some<'r>(what: &str, given: &'r Option<Vec<String>>) -> Result<&'r [String]> {
    match given.as_deref() {
        Some([]) => Err(Error::usage(format!("{what} is empty")).hint(format!("leave {what} out, or name at least one"))),
        given => Ok(given.unwrap_or_default()),
    }
}

fn patterns(what: &str, given: &Option<Vec<String>>) -> Result<Vec<NamespacePattern>> {
    some(what, given)?.iter().map(|text| NamespacePattern::parse(text)).collect()
}

/// Takes a backup, imports it where that is asked for, and removes what retention no longer keeps. A part that fails leaves what was done before.
pub(super) async fn backup(service: Arc<Inner>, source: MongoUri, asked: Asked, context: Context) -> Result<(), Failure> {
    let Asked { options, import, retention } = asked;

    // 1. The backup.
    let taken = take(&service, &source, options, &context).await;
    service.listing.forget();
    let report = taken.map_err(at(JobKind::Backup))?;
    told::took(&report);
    context.update(|job| {
        job.backup = Some(report.name.to_string());
        job.result.backup = Some(result_of(&report));
        let collections = report.manifest.collections.iter();
        job.progress = JobProgress::done(collections.map(|c| (c.namespace().to_string(), c.documents, c.bytes)));
    });
    context.keep().await;

    // 2. Its import.
    let imported = match service.config.target() {
        _ if !import => Ok(()),
        target => {
            context.update(|job| job.result.imported = Some(false));
            import_if_there_is_a_target(&service, target, &report, &context).await
        }
    };

    // 3. Retention: the backup is a success, whatever became of its import.
    if !context.stop.is_cancelled()
        && let Some(retained) = retain(&service, &report.name, &retention, &context).await
    {
        if let Some(error) = &retained.error {
            context.progress.note(format!("old backups could not be removed: {error}"));
        }
        context.update(|job| job.result.retention = Some(retained));
        service.listing.forget();
    }
    if imported.is_ok() {
        context.progress.begin(DONE);
    }
    imported.map_err(at(JobKind::Import))
}

async fn take(service: &Inner, source: &MongoUri, options: BackupOptions, context: &Context) -> Result<BackupReport> {
    let options = BackupOptions { job: Some(context.id.to_string()), ..options };
    let claimed = options.claimed.clone();
    let taken = {
        let run = backup::run(source, service.catalog.store(), &options, &context.progress, &context.stop);
        tokio::pin!(run);
        // Its name, as soon as it has one.
        let mut look = tokio::time::interval(std::time::Duration::from_millis(100));
        loop {
            tokio::select! {
                taken = &mut run => break taken,
                _ = look.tick(), if claimed.get().is_none() => {}
            }
            if let Some(name) = claimed.get() {
                context.update(|job| job.backup = Some(name.to_string()));
                break run.await;
            }
        }
    };
    match (taken, claimed.get()) {
        // What was cancelled leaves nothing behind; what the service's end stopped may be resumed.
        (Err(error), Some(name)) if context.is_cancelled() && error.kind() == ErrorKind::Interrupted => {
            let place = service.catalog.store().below(name.as_str());
            match place.delete_all(key::MANIFEST).await {
                Ok(()) => Err(Error::new(ErrorKind::Interrupted, "cancelled; nothing of the backup is left")),
                Err(left) => Err(error.hint(format!("remove what is left in {}: {left}", place.location()))),
            }
        }
        (taken, _) => taken,
    }
}

/// Without a target there is nothing to do, which the job says.
async fn import_if_there_is_a_target(
    service: &Inner,
    target: Result<MongoUri>,
    report: &BackupReport,
    context: &Context,
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

async fn import_what_was_taken(service: &Inner, report: &BackupReport, target: &MongoUri, context: &Context) -> Result<()> {
    let backup = service.catalog.find(report.name.as_str()).await?;
    let options = ImportOptions { tuning: service.config.tuning, ..ImportOptions::default() };
    context.progress.begin("waiting for the target");
    context.claim_databases(&import::databases(&backup, target, &options)?).await?;
    import(backup, target, &options, service, context).await
}

/// An import that may be done, as far as that can be told without a connection. The manifest is read again when its turn comes: many may wait.
pub(super) struct Import {
    backup: BackupName,
    databases: BTreeSet<String>,
    target: MongoUri,
    options: ImportOptions,
}

impl Import {
    /// Reads the backup's manifest and what is asked for.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a backup that there is not; [`ErrorKind::Usage`] for what cannot be asked of it; [`ErrorKind::NotConfigured`].
    pub(super) async fn prepare(service: &Inner, request: &ImportRequest) -> Result<Self> {
        let database = request.database_name.clone().map(|name| vec![name]);
        bounded([&database, &request.include, &request.exclude])?;
        let target = service.config.target()?;
        let options = ImportOptions {
            database: request.database_name.clone(),
            include: patterns("include", &request.include)?,
            exclude: patterns("exclude", &request.exclude)?,
            mode: request.mode.map_or_else(Default::default, Into::into),
            tuning: service.config.tuning,
            ..ImportOptions::default()
        };
        let name = service.resolve(&request.backup_path).await?;
        let backup = service.find(name.as_str()).await?;
        let databases = import::databases(&backup, &target, &options)?;
        Ok(Self { backup: name, databases, target, options })
    }

    /// The backup.
    pub(super) fn backup(&self) -> &BackupName {
        &self.backup
    }

    /// The databases that it writes to.
    pub(super) fn databases(&self) -> &BTreeSet<String> {
        &self.databases
    }

    /// Does it.
    pub(super) async fn run(self, service: Arc<Inner>, context: Context) -> Result<(), Failure> {
        let Self { backup, target, options, .. } = self;
        let done = async { import(service.find(backup.as_str()).await?, &target, &options, &service, &context).await }.await;
        if done.is_ok() {
            context.progress.begin(DONE);
        }
        service.listing.forget();
        done.map_err(at(JobKind::Import))
    }
}

async fn import(backup: Backup, target: &MongoUri, options: &ImportOptions, service: &Inner, context: &Context) -> Result<()> {
    context.progress.begin("looking at the target");
    let source = service.config.configured_source()?;
    let plan = import::plan(&backup, target, source.as_ref(), options, &context.stop).await?;
    let report = record::import(&backup, plan, options, &context.progress, &context.stop).await?;
    told::imported(&report);
    context.update(|job| {
        job.result.import = Some(ImportResult::from(&report));
        job.result.imported = Some(true);
        let collections = report.collections.iter();
        job.progress = JobProgress::done(collections.map(|c| (c.namespace.clone(), c.documents, c.bytes)));
    });
    refuse_shortfall(&report)
}

/// What an import reports as lost is no success.
fn refuse_shortfall(report: &ImportReport) -> Result<()> {
    if let Some(wrong) = report.collections.iter().find(|c| !c.digest_matches) {
        return Err(Error::new(ErrorKind::Mismatch, format!("{} is not what the backup holds", wrong.namespace)));
    }
    match report.failed_indexes.first() {
        None => Ok(()),
        Some(index) => {
            Err(Error::new(ErrorKind::Server, format!("the index {} of {} could not be built", index.name, index.namespace)))
        }
    }
}

/// Verifies a backup.
pub(super) async fn verify(service: Arc<Inner>, name: BackupName, deep: bool, context: Context) -> Result<(), Failure> {
    context.progress.begin("verifying");
    let backup = match service.find(name.as_str()).await {
        Ok(backup) => backup,
        Err(error) => {
            service.listing.forget();
            return match error.kind() {
                ErrorKind::Damaged => unusable(error, deep, &context),
                _ => Err(at(JobKind::Verify)(error)),
            };
        }
    };
    let report = record::verify(&backup, &VerifyOptions { deep }, &context.stop).await;
    service.listing.forget();
    let report = report.map_err(at(JobKind::Verify))?;
    told::verified(&report);
    let failure = problems(&report);
    context.update(|job| job.result.verify = Some(report.into()));
    failure.map_or(Ok(()), |error| Err(at(JobKind::Verify)(error)))
}

/// What verifying a backup comes to whose manifest cannot be used.
fn unusable(error: Error, deep: bool, context: &Context) -> Result<(), Failure> {
    let problem = VerifyProblem { key: key::MANIFEST.to_owned(), message: error.to_string() };
    context.update(|job| {
        job.result.verify = Some(VerifyResult { deep, problems: vec![problem], ..VerifyResult::default() });
    });
    Err(at(JobKind::Verify)(error))
}

fn problems(report: &VerifyReport) -> Option<Error> {
    let first = report.problems.first()?;
    let count = if report.problem_count == 1 { "1 problem".to_owned() } else { format!("{} problems", report.problem_count) };
    Some(
        Error::new(ErrorKind::Mismatch, format!("backup {} has {count}: {}", report.name, first.message))
            .hint("do not rely on it: take a new backup, and look after the disk that it is on"),
    )
}

/// None where nothing is to be removed.
async fn retain(service: &Inner, made: &BackupName, retention: &Retention, context: &Context) -> Option<RetentionResult> {
    let (catalog, policy, zone) = (&service.catalog, &service.config.retention, service.config.timezone);
    let says_something = match retention {
        Retention::All => return None,
        Retention::Configured => !policy.is_empty(),
        Retention::Newest(_) => true,
    };
    if says_something {
        context.progress.begin("removing old backups");
    }
    let retained = match retention {
        Retention::Newest(count) => clean::beside(catalog, made, *count, zone, clock::now()).await,
        _ => clean::after_backup(catalog, policy, zone, clock::now()).await?,
    };
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

fn at(stage: JobKind) -> impl Fn(Error) -> Failure {
    move |error| Failure { stage, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_takes_so_many_names_and_patterns_and_no_more() {
        let names = |count: usize, length: usize| Some(vec!["x".repeat(length); count]);
        for (first, second) in [(names(600, 5), names(400, 5)), (names(1, MOST_BYTES), None), (None, None)] {
            bounded([&first, &second]).unwrap();
        }
        for (first, second) in [(names(600, 5), names(401, 5)), (names(1, MOST_BYTES), names(1, 1)), (names(2, 1_000_000), None)]
        {
            let error = bounded([&first, &second]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.to_string().contains("1000 at most, of 65536 bytes together"), "{error}");
        }
    }
}
