//! The first copy of a source: straight into the target, or from a backup. What the archive has of
//! the time after it is replayed, and everything is published as one moment.

mod copier;
mod direct;
mod fill;
mod from_backup;
mod read;
mod resume;

pub(super) use self::copier::Copier;
use self::direct::Direct;
use self::read::Reader;
use self::resume::Resumed;
use crate::engine::import::StagedCopy;
use crate::error::Result;
use crate::sink::first_copy::FirstCopy;
use crate::sink::staging;
use crate::sink::synced::Synced;

/// Makes the first copy, or finishes one that was begun, and records what it is of.
///
/// # Errors
/// Those of an import; [`ErrorKind::NotFound`] if there is no base and none is being taken.
pub(super) async fn make(copier: &Copier<'_>) -> Result<Synced> {
    let target = copier.target;
    let (recorded, other) = match FirstCopy::read(target).await? {
        Some(copy) if copier.is_own() && copier.options.is_direct() => (Some(copy), None),
        other => (None, other),
    };
    if let Some(other) = other {
        staging::sweep_copies(target, &other.databases()).await?;
        FirstCopy::forget(target).await?;
    }
    if !copier.is_own() {
        copier.held.set_all(&copier.begun).await?;
    }
    if recorded.is_none()
        && let Some(point) = Box::pin(copier.backup()).await?
    {
        return Box::pin(copier.restore(point)).await;
    }
    let direct = Box::pin(Direct::open(copier)).await?;
    let made = Box::pin(copy(&direct, recorded)).await;
    direct.close().await;
    made
}

/// Makes the copy, or goes on with what is recorded.
async fn copy(direct: &Direct<'_>, recorded: Option<FirstCopy>) -> Result<Synced> {
    let copier = direct.copier;
    let mut copy = match recorded {
        Some(copy) => match Box::pin(direct.resume(copy)).await? {
            Resumed::Published(synced) => return Ok(*synced),
            Resumed::Copy(copy) => copy,
            Resumed::Lost(why) => {
                copier.cx.progress.note(format!("the first copy begins again: {why}"));
                Box::pin(direct.begin()).await?
            }
        },
        None => Box::pin(direct.begin()).await?,
    };
    // 1. Everything that is not there yet.
    copier.cx.progress.begin("copying");
    Box::pin(Reader::new(direct, &copy)?.read(&mut copy.ranges)).await?;
    // 2. What happened meanwhile, up to now.
    let (range, at) = direct.archived(copy.from, copy.read_until()).await?;
    let source = direct.source.describe().await;
    let origin = StagedCopy::new(&copy, source, &copier.options.filter, range);
    let (plan, options) = copier.plan(&origin).await?;
    direct.adapt(&copy, &plan).await?;
    let synced = copier.publish(plan, &options, at).await?;
    direct.sweep(&copy).await?;
    Ok(synced)
}
