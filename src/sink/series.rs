//! Publishes a time series. Servers do not rename one, so its buckets are renamed directly, or
//! copied. The old one is dropped only once the new one is filled and verified under its staging
//! name.

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

/// The memory for reading buckets back, in bytes.
const MEMORY: u64 = 64 * 1024 * 1024;

/// How many times the copy may start again because the target's primary changed meanwhile.
const ROUNDS: u32 = 5;

/// Publishes a staged time series, from any point that an earlier run reached. If something in its
/// place is to be kept, it returns the listing: the caller moves that aside and calls again.
pub(super) async fn publish(target: &Target, staged: &Staged, options: &RawDocument) -> Result<Option<Standing>> {
    let what = format!("publishing {}", staged.to);
    let mut attempts = Attempts::new(target, &what);
    let (staged_buckets, final_buckets) = (staged.place.buckets(), staged.to.buckets());
    loop {
        // Listed again each time: only what exists now may be dropped here.
        let standing = Standing::of(target, &staged.to.database).await?;
        let there = standing.get(&staged.to.collection);
        let Some(buckets) = standing.by_uuid(staged.uuid) else {
            // Published and replaced since, or copied.
            return leave_staging(target, staged, &standing).await.map(|()| None);
        };
        if buckets.name == final_buckets.collection {
            match there.map(|c| c.kind.as_str()) {
                Some("timeseries") => return leave_staging(target, staged, &standing).await.map(|()| None),
                // This hides the buckets, which stay.
                Some(_) if staged.keep.is_some() => return Ok(Some(standing)),
                Some(_) => ddl::drop(target, &staged.to).await?,
                None => {}
            }
            // Over existing buckets, servers only create a time series with the same storage
            // options. The flag for mixed buckets is one of these.
            let mut same = Writer::default();
            same.extend_without(options.as_bytes(), |name| name == b"storageEngine")?;
            same.extend_without(buckets.options.as_bytes(), |name| name != b"storageEngine")?;
            // Not `ddl::create`, which drops what is in its way: after a lost reply, that is the
            // time series itself.
            let create = ddl::create_command(&staged.to, &same.raw()?)?;
            let tried = target.try_run(&staged.to.database, create, Some(command::COMMAND_LIMIT)).await?;
            ddl::judge(&mut attempts, tried).await?;
            continue;
        }
        // Staging is complete and verified: the old one may be dropped.
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
        // Never with `dropTarget`: for buckets, that makes a server abort at the next listing.
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

/// Recreates the time series and copies the buckets. Staging stays until the copy is verified.
async fn copy_over(target: &Target, staged: &Staged, options: &RawDocument) -> Result<()> {
    let (plain, expiry) = without_expiry(options)?;
    for _ in 0..ROUNDS {
        let before = target.identity().await?;
        for name in [&staged.to, &staged.to.buckets()] {
            ddl::drop(target, name).await?;
        }
        let copied = copy_once(target, staged, &plain).await;
        // Writes that a former primary accepted may be lost.
        if target.identity().await? != before {
            continue;
        }
        copied?;
        if let Some(fields) = expiry.clone() {
            ddl::modify(target, &format!("setting expireAfterSeconds of {}", staged.to), &staged.to, fields).await?;
        }
        target.make_durable(&staged.to.database).await?;
        if target.identity().await? == before {
            if let Some(keep) = &staged.keep {
                let standing = Standing::of(target, &staged.to.database).await?;
                let new = standing.get(&staged.to.collection).and_then(|there| standing.identity(there));
                kept::was_copied(target, keep, new).await?;
            }
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
            format!("{} was copied from its staging collection but differs from it", staged.to),
        )
        .hint("something else writes to it: stop it, and run the import again; the staging collection is kept until then"));
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
