//! Selects the collections of a backup that are exported. Pure.

use super::options::ExportOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::Collection;

/// The collections that the patterns select, in the manifest's order. Temporary ones, which older
/// backups hold, are skipped.
pub(super) fn select<'a>(collections: &'a [Collection], options: &ExportOptions) -> Result<Vec<&'a Collection>> {
    if let Some(idle) = options.filter.patterns().find(|p| !collections.iter().any(|c| p.matches(&c.namespace()))) {
        let what = format!("the pattern {:?} matches no namespace of the backup", idle.as_str());
        return Err(Error::new(ErrorKind::NotFound, what).hint(
            "`bsonvault show` lists them; patterns are case-sensitive, and '*' stands for any characters; quote it in the shell",
        ));
    }
    let lasting = || collections.iter().filter(|c| !c.is_temporary());
    let wanted: Vec<&Collection> = lasting().filter(|c| options.filter.takes(&c.namespace())).collect();
    if wanted.is_empty() && lasting().next().is_some() {
        return Err(Error::usage("[[include]] and [[exclude]] leave nothing of the backup to export"));
    }
    Ok(wanted)
}
