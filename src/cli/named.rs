//! Which backup is meant by a name, a path or `latest`.

use std::path::Path;

use super::catalog::catalog;
use super::{meant, output, render};
use crate::clock;
use crate::config::Config;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::few::Few;
use crate::names::{LATEST, is_latest};
use crate::repository::catalog::{Backup, Latest};

/// Who asks for a backup.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    /// The verb.
    pub(super) verb: &'static str,
    /// Whether nothing is said but the result.
    pub(super) silent: bool,
}

/// The backup that is meant. What `latest` stands for is said.
///
/// # Errors
/// Those of [`Catalog::find`](crate::repository::catalog::Catalog::find) and [`Catalog::latest`](crate::repository::catalog::Catalog::latest);
/// [`ErrorKind::Usage`] for a connection string.
pub(super) async fn find(asked: &str, asking: Asking, config: &Config, cx: &Context) -> Result<Backup> {
    if meant::is_uri(asked) {
        return Err(meant::uri_in_place(asking.verb));
    }
    let catalog = catalog(config, cx)?;
    if is_latest(asked) {
        refuse_two(asked)?;
        let latest = catalog.latest(clock::now()).await?;
        if !asking.silent {
            output::to_stderr(&said(&latest));
        }
        return catalog.find(latest.name.as_str()).await;
    }
    catalog.find(asked).await.map_err(|e| match e.kind() {
        ErrorKind::NotFound if Path::new(asked).exists() && asking.verb != "import" => {
            Error::new(ErrorKind::NotFound, e.to_string()).hint(
                "a dump or a downloaded tar of a backup becomes a backup by `bsonvault adopt FILE`, and is imported by \
                 `bsonvault import FILE`",
            )
        }
        _ => e,
    })
}

/// `latest` always stands for a backup. If something else here is called so, that may be meant.
fn refuse_two(asked: &str) -> Result<()> {
    match Path::new(asked).symlink_metadata() {
        Ok(_) => Err(Error::usage(format!("{LATEST} stands for the newest backup, and something here is called so, too"))
            .hint(format!("write ./{asked} for what is here, or the backup's name"))),
        Err(_) => Ok(()),
    }
}

fn said(latest: &Latest) -> String {
    let of = render::provenance::line(&latest.provenance);
    let others = match latest.groups {
        0 | 1 => String::new(),
        many => format!("; there are backups of {many} sources or selections here, and this is the newest of all"),
    };
    let damaged = match latest.damaged.as_slice() {
        [] => String::new(),
        damaged => format!(
            "note: cannot be used, and may be newer: {}\n",
            damaged.iter().map(ToString::to_string).collect::<Few>().into_sentences().join(", ")
        ),
    };
    format!("{LATEST} is {} ({of}){others}\n{damaged}", latest.name)
}

/// Refuses the name of a backup where a dump is asked for and nothing is at that path.
///
/// # Errors
/// [`ErrorKind::Usage`].
pub(super) async fn refuse_for_a_dump(asked: &str, verb: &str, config: &Config, cx: &Context) -> Result<()> {
    if meant::is_uri(asked) {
        return Err(meant::uri_in_place(verb));
    }
    if asked == "-" || asked.contains('/') || Path::new(asked).symlink_metadata().is_ok() {
        return Ok(());
    }
    let is_backup = is_latest(asked) || {
        let found = catalog(config, cx)?.find(asked).await;
        !found.is_err_and(|e| e.kind() == ErrorKind::NotFound)
    };
    match (is_backup, verb) {
        (false, _) => Ok(()),
        (true, "adopt") => Err(Error::usage(format!("{asked} is a backup already, and no dump"))
            .hint("`bsonvault list` shows the backups; `bsonvault import NAME` imports one")),
        (true, _) => Err(Error::usage(format!("{asked} is a backup, and {verb} takes dumps of mongodump"))
            .hint(format!("`bsonvault import {asked}` imports it into the target"))),
    }
}
