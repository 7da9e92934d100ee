//! Which collections of a backup are exported: pure.

use crate::engine::export::ExportOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::Collection;
use crate::names::Namespace;

/// The collections that the patterns let through, in the manifest's order. Temporary ones, which older backups hold, are left out.
pub(super) fn select<'a>(collections: &'a [Collection], options: &ExportOptions) -> Result<Vec<&'a Collection>> {
    let patterns = options.include.iter().chain(&options.exclude);
    if let Some(idle) = patterns.into_iter().find(|p| !collections.iter().any(|c| p.matches(&c.namespace()))) {
        let what = format!("the pattern {:?} matches no namespace of the backup", idle.as_str());
        return Err(Error::new(ErrorKind::NotFound, what)
            .hint("`bsonvault show` lists them; case counts, '*' stands for any characters, quote it in the shell"));
    }
    let lasting = || collections.iter().filter(|c| !c.is_temporary());
    let wanted: Vec<&Collection> = lasting().filter(|c| passes(&c.namespace(), options)).collect();
    if wanted.is_empty() && lasting().next().is_some() {
        return Err(Error::usage("--include and --exclude leave nothing of the backup to export"));
    }
    Ok(wanted)
}

/// Whether the patterns let this namespace through.
pub(super) fn passes(namespace: &Namespace, options: &ExportOptions) -> bool {
    let included = options.include.is_empty() || options.include.iter().any(|p| p.matches(namespace));
    included && !options.exclude.iter().any(|p| p.matches(namespace))
}
