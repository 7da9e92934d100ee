//! `--query`, `--queryFile` and `--viewsAsCollections`: select the documents of a dump.

use bson::RawDocumentBuf;

use super::args::Args;
use crate::cli::tools::given;
use crate::engine::backup::Documents;
use crate::error::{Error, Result};
use crate::format::metadata::read;
use crate::system;

/// The documents that the flags select.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if a query cannot be read.
pub(super) fn documents(args: &Args) -> Result<Documents> {
    let query = match (given(args.query.as_deref()), &args.query_file) {
        (Some(_), Some(_)) => {
            return Err(Error::usage("--query and --queryFile were both given").hint("give only one of them"));
        }
        (Some(text), None) => Some(parse("--query", text.as_bytes())?),
        (None, Some(file)) => {
            let text = system::small_file(file)
                .map_err(|e| Error::usage(format!("--queryFile {} cannot be read: {}", file.display(), e.kind())).cause(e))?;
            Some(parse("--queryFile", &text)?)
        }
        (None, None) => None,
    };
    Ok(match (query, args.views_as_collections) {
        (query, true) => Documents::OfViews(query),
        (Some(query), false) => Documents::Matching(query),
        (None, false) => Documents::All,
    })
}

fn parse(flag: &str, text: &[u8]) -> Result<RawDocumentBuf> {
    read::extended(text).map_err(|e| {
        Error::usage(format!("{flag} is not a query: {e}")).hint(
            "use Extended JSON 2, like {\"created\": {\"$gte\": {\"$date\": \"2026-01-31T00:00:00Z\"}}}; quote it in the shell",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_keep_their_order_and_types() {
        let text =
            r#"{"b": {"$gte": {"$date": "2026-01-31T00:00:00Z"}}, "a": {"y": 1, "x": {"$oid": "5f0000000000000000000000"}}}"#;
        let query = bson::Document::try_from(parse("--query", text.as_bytes()).unwrap()).unwrap();
        assert_eq!(query.keys().collect::<Vec<_>>(), ["b", "a"]);
        assert!(query.get_document("b").unwrap().get_datetime("$gte").is_ok());
        let nested = query.get_document("a").unwrap();
        assert!(nested.keys().eq(["y", "x"]) && nested.get_object_id("x").is_ok());
        for bad in ["", "[]", "{", "x", r#"{"a": {"$date": "yesterday"}}"#] {
            let error = parse("--query", bad.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("--query") && error.exit_code() == 2, "{bad}: {error}");
        }
    }
}
