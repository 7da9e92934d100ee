//! Checks whether the login at the target may replay.

use super::destination::Destination;
use crate::error::{Error, ErrorKind, Result};
use crate::mongo::Version;
use crate::mongo::rights::{Place as On, Rights};
use crate::sink::Target;

/// How many missing rights an error names.
const NAMED_RIGHTS: usize = 5;

/// Refuses a login that lacks a right to replay into these places. Only reads.
///
/// # Errors
/// [`ErrorKind::Denied`] with the missing rights; [`ErrorKind::Unreachable`],
/// [`ErrorKind::Server`], [`ErrorKind::Interrupted`].
pub async fn refuse_without_rights<'a>(target: &Target, places: impl IntoIterator<Item = &'a Destination>) -> Result<()> {
    let rights = target.unless_stopped(Rights::ask(&target.connection)).await??;
    let places: Vec<&Destination> = places.into_iter().collect();
    let missing = missing(&rights, &places, target.connection.version);
    if missing.is_empty() {
        return Ok(());
    }
    let more = missing.len().saturating_sub(NAMED_RIGHTS);
    let named = missing.iter().take(NAMED_RIGHTS).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(Error::new(
        ErrorKind::Denied,
        format!("the backup has an oplog slice, and the login at the target lacks rights to replay it: {named}{more}; nothing was changed"),
    )
    .hint("grant it `readWriteAnyDatabase` and `dbAdminAnyDatabase`; `restore` alone is not enough"))
}

fn missing(rights: &Rights, places: &[&Destination], version: Version) -> Vec<String> {
    let mut missing = Vec::new();
    let mut need = |action: &str, on: On| {
        if !rights.allows(&on, action) {
            missing.push(format!("{action} on {on}"));
        }
    };
    if places.is_empty() {
        return Vec::new();
    }
    // Before 5.0, there is no such action: the rights for the operations themselves are enough.
    if version >= Version(5, 0, 0) {
        need("applyOps", On::Cluster);
    }
    // A command that bypasses rules does so for all its collections.
    let bypass = places.iter().any(|place| place.has_rules);
    // The rights on `system.js` come with several roles in several ways, so the server decides
    // there.
    for place in places.iter().filter(|p| p.namespace.collection != "system.js") {
        let on = || On::Collection(place.namespace.clone());
        for action in ["insert", "update", "remove", "find"] {
            need(action, on());
        }
        if bypass {
            need("bypassDocumentValidation", on());
        }
    }
    missing
}
