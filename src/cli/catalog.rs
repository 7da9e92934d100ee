//! The catalog of the configured path.

use crate::config::Config;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::Repository;
use crate::repository::catalog::Catalog;

/// The catalog of the configured path.
pub(super) fn catalog(config: &Config, cx: &Context) -> Result<Catalog> {
    Ok(Catalog::new(Repository::open(&config.path)?, &cx.cpu).within(config.tuning.memory_bytes))
}

/// Refuses a path that does not exist: it is likely a typo.
pub(super) async fn refuse_missing(catalog: &Catalog) -> Result<()> {
    if catalog.repository().objects().exists().await {
        return Ok(());
    }
    let location = catalog.repository().location();
    Err(Error::new(ErrorKind::NotFound, format!("backup path {location} does not exist"))
        .hint("set BACKUP_PATH or --path to the directory that holds the backups; `bsonvault backup` creates it"))
}
