//! Publishing a time series. Servers do not rename it, so its buckets are renamed from below, or copied; the old one goes only once
//! the new one is filled and proven under its staging name.

use bson::{RawDocument, RawDocumentBuf, rawdoc};
use mongodb::error::Error as DriverError;

use super::ddl::{self, Standing};
use super::step::Staged;
use super::{Attempts, CollectionSpec, Target, check, copy, kept};
use crate::context::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::Writer;
use crate::format::manifest::CollectionKind;
use crate::mongo::command;
use crate::mongo::failure::{code, code_of};

/// What reading buckets back may take, in bytes.
const MEMORY: u64 = 64 * 1024 * 1024;

/// How often it is copied anew because the target's primary changed meanwhile.
const ROUNDS: u32 = 5;

/// Brings a staged time series to its place, from wherever an earlier run got to. Where something stands there that is to be kept, it gives
/// what it saw: that is moved aside, and then this goes on.
pub(super) async fn publish(target: &Target, staged: &Staged, options: &RawDocument) -> Result<Option<Standing>> {
    let what = format!("publishing {}", staged.to);
    let mut attempts = Attempts::new(target, &what);
    let (staged_buckets, final_buckets) = (staged.place.buckets(), staged.to.buckets());
    loop {
        // Anew each time: what is dropped here must be what stands there now.
        let standing = Standing::of(target, &staged.to.database).await?;
        let there = standing.get(&staged.to.collection);
        let Some(buckets) = standing.by_uuid(staged.uuid) else {
            // Published and replaced since, or copied.
            return leave_staging(target, staged, &standing).await.map(|()| None);
        };
        if buckets.name == final_buckets.collection {
            match there.map(|c| c.kind.as_str()) {
                Some("timeseries") => return leave_staging(target, staged, &standing).await.map(|()| None),
                // It hides the buckets, and they stay.
                Some(_) if staged.keep.is_some() => return Ok(Some(standing)),
                Some(_) => ddl::drop(target, &staged.to).await?,
                None => {}
            }
            // Over buckets that are there, servers make one of their storage options only: a mark of mixed buckets is among these.
            let mut same = Writer::default();
            same.extend_without(options.as_bytes(), |name| name == b"storageEngine")?;
            same.extend_without(buckets.options.as_bytes(), |name| name != b"storageEngine")?;
            // Not by `ddl::create`, which drops what is in its way: that would be the time series itself, where a reply was lost.
            let create = ddl::create_command(&staged.to, &same.raw()?)?;
            let tried = target.try_run(&staged.to.database, create, Some(command::COMMAND_LIMIT)).await?;
            ddl::judge(&mut attempts, tried).await?;
            continue;
        }
        // The staging is whole and proven: what stands in its place may go.
        match &staged.keep {
            Some(_) if there.is_some() => return Ok(Some(standing)),
            Some(keep) => kept::was_free(target, &staged.to, keep, Some(staged.uuid)).await?,
            None => {}
        }
        for name in [&staged.to, &final_buckets] {
            if standing.get(&name.collection).is_some() {
                ddl::drop(target, name).await?;
            }
        }
        // Never with `dropTarget`: of buckets, that makes a server abort at the next listing.
        let rename = rawdoc! {
            "applyOps": [{
                "op": "c", "ns": format!("{}.$cmd", staged.to.database),
                "o": { "renameCollection": staged_buckets.to_string(), "to": final_buckets.to_string() },
            }],
            "writeConcern": { "w": 1 },
        };
        match target.try_run("admin", rename, Some(command::COMMAND_LIMIT)).await? {
            Err(e) if is_refused(&e) => return copy_over(target, staged, options).await.map(|()| None),
            tried => drop(ddl::judge(&mut attempts, tried).await?),
        }
    }
}

/// Whether the login or the deployment cannot do this at all.
fn is_refused(error: &DriverError) -> bool {
    matches!(code_of(error), Some(code::UNAUTHORIZED | code::COMMAND_NOT_FOUND | code::ILLEGAL_OPERATION))
}

/// Drops the staged view of buckets that are elsewhere by now.
async fn leave_staging(target: &Target, staged: &Staged, standing: &Standing) -> Result<()> {
    if standing.get(&staged.place.collection).is_some() {
        ddl::drop(target, &staged.place).await?;
    }
    Ok(())
}

/// Makes the time series anew and copies the buckets. The staging stays until the copy is proven.
async fn copy_over(target: &Target, staged: &Staged, options: &RawDocument) -> Result<()> {
    let (plain, expiry) = without_expiry(options)?;
    for _ in 0..ROUNDS {
        let before = target.identity().await?;
        for name in [&staged.to, &staged.to.buckets()] {
            ddl::drop(target, name).await?;
        }
        let copied = copy_once(target, staged, &plain).await;
        // What a primary took that is none any more may be gone.
        if target.identity().await? != before {
            continue;
        }
        copied?;
        if let Some(fields) = expiry.clone() {
            ddl::modify(target, &format!("setting expireAfterSeconds of {}", staged.to), &staged.to, fields).await?;
        }
        target.make_durable(&staged.to.database).await?;
        if target.identity().await? == before {
            return ddl::drop(target, &staged.place).await;
        }
    }
    Err(Error::new(ErrorKind::Unreachable, format!("publishing {}: the target's primary changes too often", staged.to))
        .hint("the next import finishes it, once the deployment is stable"))
}

async fn copy_once(target: &Target, staged: &Staged, plain: &RawDocument) -> Result<()> {
    ddl::create(target, &staged.to, plain).await?;
    let standing = Standing::of(target, &staged.to.database).await?;
    let is_mixed = standing
        .by_uuid(staged.uuid)
        .is_some_and(|b| b.options.get_bool("timeseriesBucketsMayHaveMixedSchemaData").unwrap_or(false));
    if is_mixed {
        let mut mixed = Writer::default();
        mixed.bool("timeseriesBucketsMayHaveMixedSchemaData", true);
        ddl::modify(target, &format!("allowing mixed buckets in {}", staged.to), &staged.to, mixed).await?;
    }
    let to = CollectionSpec { kind: CollectionKind::TimeSeries, has_rules: false, ..CollectionSpec::standing(staged.to.clone()) };
    let from = CollectionSpec { place: staged.place.clone(), ..to.clone() };
    copy::documents(target, staged, &to).await?;
    target.make_durable(&staged.to.database).await?;
    let (cpu, budget, item) = (&target.cpu, target.memory.part(MEMORY), Progress::default().item(staged.to.to_string(), 0, 0));
    let held = check::content(target, &from, cpu, &budget, &item).await?;
    if check::content(target, &to, cpu, &budget, &item).await? != held {
        return Err(Error::new(
            ErrorKind::Mismatch,
            format!("{} was copied from its staging and does not hold the same", staged.to),
        )
        .hint("something else writes to it: stop it, and run the import again; the staging is kept until then"));
    }
    copy::indexes(target, &staged.place, &staged.to).await
}

/// The options without expiry, and the expiry.
fn without_expiry(options: &RawDocument) -> Result<(RawDocumentBuf, Option<Writer>)> {
    let (mut plain, mut expiry) = (Writer::default(), Writer::default());
    plain.extend_without(options.as_bytes(), |name| name == b"expireAfterSeconds")?;
    expiry.extend_without(options.as_bytes(), |name| name != b"expireAfterSeconds")?;
    Ok((plain.raw()?, Some(expiry).filter(|expiry| !expiry.is_empty())))
}
