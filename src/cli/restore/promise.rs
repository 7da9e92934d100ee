//! Flags of mongorestore that promise how safely documents are written, and that none is skipped.

use crate::cli::output::Outcome;
use crate::error::{Error, ErrorKind, Result};

/// The highest `w` that a majority always satisfies, whatever the size of the replica set.
const ALWAYS: i64 = 2;

/// Refuses a write concern that is stronger than the one always used.
///
/// # Errors
/// [`ErrorKind::Usage`].
pub(super) fn refuse_stronger(concern: Option<&str>) -> Result<()> {
    let concern = concern.unwrap_or_default().trim();
    let is_more = match w(concern).as_str() {
        "" | "majority" => false,
        number => number.parse::<i64>().map_or(true, |number| number > ALWAYS),
    };
    if !is_more {
        return Ok(());
    }
    Err(Error::usage("--writeConcern is refused: a restore cannot wait for more than a majority, or for tagged members")
        .hint("leave it out: a majority has everything on disk before anything is published"))
}

/// The `w` of a write concern like `majority` or `{w: 2, j: true}`.
fn w(concern: &str) -> String {
    let bare = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
    let Some(fields) = concern.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else { return bare(concern) };
    let of_w = fields.split(',').filter_map(|field| field.split_once(':')).find(|(name, _)| bare(name) == "w");
    of_w.map(|(_, value)| bare(value)).unwrap_or_default()
}

/// The failure of a restore with `--stopOnError` that did not insert all documents.
pub(super) fn not_added(outcome: &Outcome) -> Option<Error> {
    let left = outcome.json.get("notAdded").and_then(serde_json::Value::as_u64).filter(|left| *left > 0)?;
    let what = if left == 1 { "a document was".to_owned() } else { format!("{left} documents were") };
    Some(
        Error::new(
            ErrorKind::Server,
            format!("--stopOnError: {what} not added: the _id or a unique key already exists in the target"),
        )
        .hint("all others were added; restore with --drop to replace existing collections"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_anyway_is_taken() {
        for taken in [
            "",
            "majority",
            "\"majority\"",
            "0",
            "1",
            "2",
            "{w: 1, wtimeout: 500, j: true}",
            "{\"w\": \"majority\"}",
            "{j: true}",
        ] {
            assert!(refuse_stronger(Some(taken)).is_ok(), "{taken}");
        }
        for refused in ["3", "{w: 3}", "{\"w\": \"twoDataCenters\"}", "twoDataCenters"] {
            assert!(refuse_stronger(Some(refused)).unwrap_err().to_string().contains("--writeConcern"), "{refused}");
        }
        assert!(refuse_stronger(None).is_ok());
    }
}
