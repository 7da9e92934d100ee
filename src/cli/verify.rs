//! `verify`: whether a backup is whole.

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::output::{self, Outcome};
use super::{catalog, render};
use crate::config::Config;
use crate::engine::verify::{self, VerifyOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::format::key;

const HINT: &str = "do not rely on it: take a new backup, and look after the disk that it is on";

/// Flags of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The backup: a name that `list` shows, or the path of one
    #[arg(value_name = "BACKUP")]
    backup: String,
    /// Decompress every document and prove counts and content digests too, not only that each file is as it was written
    #[arg(long)]
    deep: bool,
}

pub(super) async fn run(args: Args, config: &Config, stop: &CancellationToken) -> Result<Outcome> {
    let backup = match catalog(config)?.find(&args.backup).await {
        // A manifest that cannot be used is what a verification is there to find.
        Err(error) if error.kind() == ErrorKind::Damaged => return Ok(unusable(&args, error)),
        found => found?,
    };
    let report = verify::run(&backup, &VerifyOptions { deep: args.deep }, stop).await?;
    let problems: Vec<_> = report.problems.iter().map(|p| json!({ "key": p.key, "message": p.message })).collect();
    let fields = json!({
        "name": report.name,
        "path": report.location,
        "deep": report.deep,
        "objects": report.objects,
        "storedBytes": report.stored_bytes,
        "documents": report.documents,
        "problems": problems,
        "notes": report.notes,
    });
    let failure = (!problems.is_empty()).then(|| {
        let count = if problems.len() == 1 { "1 problem".to_owned() } else { format!("{} problems", problems.len()) };
        Error::new(ErrorKind::Mismatch, format!("backup {} has {count}", report.name)).hint(HINT)
    });
    Ok(Outcome { text: render::verify(&report), json: output::fields(&fields)?, failure })
}

fn unusable(args: &Args, error: Error) -> Outcome {
    let message = error.to_string();
    let problem = json!({ "key": key::MANIFEST, "message": message });
    let json = [("name", json!(args.backup)), ("deep", json!(args.deep)), ("problems", json!([problem]))];
    let failure = Error::new(ErrorKind::Mismatch, message).hint(error.hint_text().unwrap_or(HINT).to_owned()).cause(error);
    Outcome {
        text: String::new(),
        json: json.map(|(name, value)| (name.to_owned(), value)).into_iter().collect(),
        failure: Some(failure),
    }
}
