//! Finds the backup that a name, a path or `latest` stands for.

use std::path::Path;

use super::catalog::catalog;
use super::{meant, output, render};
use crate::clock;
use crate::config::Config;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::few::Few;
use crate::names::{LATEST, is_latest, nearest};
use crate::repository::catalog::{Backup, Catalog, Latest};

/// What to do with a dump, or with a backup that was downloaded.
const OF_A_FILE: &str = "for a dump or a downloaded tar of a backup: `bsonvault adopt FILE` makes it a backup, and \
                         `bsonvault import FILE` imports it";

/// The verb that asks for a backup.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    /// Its name.
    pub(super) verb: &'static str,
    /// Whether it prints only the result.
    pub(super) silent: bool,
}

/// The backup that is meant. If it is `latest`, a line says which backup that is.
///
/// # Errors
/// Those of [`Catalog::find`](crate::repository::catalog::Catalog::find) and
/// [`Catalog::latest`](crate::repository::catalog::Catalog::latest); [`ErrorKind::Usage`] for a
/// connection string.
pub(super) async fn find(asked: &str, asking: Asking, config: &Config, cx: &Context) -> Result<Backup> {
    if meant::is_uri(asked) {
        return Err(meant::uri_in_place(asking.verb));
    }
    let catalog = catalog(config, cx)?;
    if is_latest(asked) {
        refuse_two(asked)?;
        return newest(&catalog, asking).await;
    }
    if asking.verb != "import" && Path::new(asked).is_file() {
        let error = Error::new(ErrorKind::NotFound, format!("{asked} is a file, and a backup is a directory"));
        return Err(error.hint(OF_A_FILE));
    }
    match catalog.find(asked).await {
        Err(e) if e.kind() == ErrorKind::NotFound => Err(not_found(e, asked, asking, &catalog).await),
        Ok(backup) => Ok(warned(backup, asking).await),
        Err(e) => Err(e),
    }
}

/// The newest complete backup. A line says which one that is.
///
/// # Errors
/// Those of [`Catalog::latest`].
pub(super) async fn newest(catalog: &Catalog, asking: Asking) -> Result<Backup> {
    let latest = catalog.latest(clock::now()).await?;
    if !asking.silent {
        output::to_stderr(&said(&latest));
    }
    Ok(warned(catalog.find(latest.name.as_str()).await?, asking).await)
}

/// The backup, after a warning if its last check failed.
async fn warned(backup: Backup, asking: Asking) -> Backup {
    let checks = backup.checks().await;
    if let Some(failed) = checks.verdict().filter(|check| !check.passed && !asking.silent) {
        let problem = failed.problem.as_deref().map(|problem| format!(": {}", render::plain(problem))).unwrap_or_default();
        output::to_stderr(&format!("warning: the last check of {} FAILED{problem}\n", backup.manifest.name));
    }
    backup
}

/// The error with what may be meant by this name or path.
async fn not_found(error: Error, asked: &str, asking: Asking, catalog: &Catalog) -> Error {
    let path = Path::new(asked);
    if path.exists() && asking.verb != "import" {
        return error.hint(OF_A_FILE);
    }
    if asked.contains('/') && !path.exists() {
        return error.hint(format!("nothing is at the path {asked}; `bsonvault list` shows the names of all backups"));
    }
    let names: Vec<String> = match catalog.list(clock::now()).await {
        Ok(backups) => backups.iter().map(|backup| backup.name.to_string()).chain([LATEST.to_owned()]).collect(),
        Err(_) => Vec::new(),
    };
    match nearest(asked, names.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("probably meant: {near}; `bsonvault list` shows the names of all backups")),
        None => error,
    }
}

/// `latest` always stands for a backup. Refused if the current directory has something of that
/// name, because that may be meant.
fn refuse_two(asked: &str) -> Result<()> {
    match Path::new(asked).symlink_metadata() {
        Ok(_) => Err(Error::usage(format!(
            "{LATEST} stands for the newest backup, but the current directory has something of that name"
        ))
        .hint(format!("use ./{asked} for what is here, or the backup's own name"))),
        Err(_) => Ok(()),
    }
}

fn said(latest: &Latest) -> String {
    let of = render::provenance::line(&latest.provenance);
    let others = match latest.groups {
        0 | 1 => String::new(),
        many => format!("; of backups of {many} sources or selections, it is the newest"),
    };
    let damaged = match latest.damaged.as_slice() {
        [] => String::new(),
        damaged => format!(
            "note: damaged, and perhaps newer: {}\n",
            damaged.iter().map(ToString::to_string).collect::<Few>().into_sentences().join(", ")
        ),
    };
    format!("{LATEST} is {} ({of}){others}\n{damaged}", latest.name)
}

/// Refuses the name of a backup if a dump is asked for and the path does not exist.
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
        (true, "adopt") => Err(Error::usage(format!("{asked} is a backup already, not a dump"))
            .hint("`bsonvault list` shows the backups; `bsonvault import NAME` imports one")),
        (true, _) => Err(Error::usage(format!("{asked} is a backup, and {verb} takes dumps from mongodump"))
            .hint(format!("`bsonvault import {asked}` imports it into the target"))),
    }
}
