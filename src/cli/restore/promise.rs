//! What flags of mongorestore promise of documents: how safe they are, and that none is passed over.

use crate::cli::output::Outcome;
use crate::error::{Error, ErrorKind, Result};

/// What a majority always has: of a set of any size, as many members at least as can be asked for with this number.
const ALWAYS: i64 = 2;

/// Refuses a write concern that asks for more than what is always waited for.
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
    Err(Error::usage("--writeConcern is refused: more members or tagged ones cannot be waited for")
        .hint("leave it out: before anything is published, a majority has all of it on disk"))
}

/// What a write concern says of `w`: `majority`, or `{w: 2, j: true}`.
fn w(concern: &str) -> String {
    let bare = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
    let Some(fields) = concern.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else { return bare(concern) };
    let of_w = fields.split(',').filter_map(|field| field.split_once(':')).find(|(name, _)| bare(name) == "w");
    of_w.map(|(_, value)| bare(value)).unwrap_or_default()
}

/// The failure of a restore that was to stop where a document is not inserted.
pub(super) fn not_added(outcome: &Outcome) -> Option<Error> {
    let left = outcome.json.get("notAdded").and_then(serde_json::Value::as_u64).filter(|left| *left > 0)?;
    let what = if left == 1 { "a document was".to_owned() } else { format!("{left} documents were") };
    Some(
        Error::new(ErrorKind::Server, format!("--stopOnError: {what} not added, because others stand in the way"))
            .hint("all others were added; restore with --drop to replace what stands there"),
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
