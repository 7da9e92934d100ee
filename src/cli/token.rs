//! `token`: a token for the service, made anew, and its hash, which is all that the service knows of it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::output::{self, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::Sha256Hex;

/// What every token begins with: by it people and scanners tell what they have found.
const PREFIX: &str = "bv_";

/// Flags of `token`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A token that may only read, and not download backups
    #[arg(long)]
    read: bool,
    /// A token that may read and download backups
    #[arg(long, conflicts_with = "read")]
    download: bool,
}

pub(super) fn run(args: &Args) -> Result<Outcome> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)
        .map_err(|e| Error::new(ErrorKind::Internal, format!("the operating system gives no randomness: {e}")).cause(e))?;
    let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
    let sha256 = Sha256Hex::of(token.as_bytes());
    let (variable, may) = match (args.read, args.download) {
        (true, _) => ("READ_TOKEN_SHA256", "may read"),
        (_, true) => ("DOWNLOAD_TOKEN_SHA256", "may read and download backups"),
        _ => ("ADMIN_TOKEN_SHA256", "may do everything"),
    };
    let text = format!(
        "token:   {token}\nsha-256: {sha256}\n\nThe token {may}. It is shown this once and kept nowhere: programs send it as\n\
         Authorization: Bearer TOKEN. The service knows it by its hash; set, after a comma where there is one already:\n\n\
         {variable}={sha256}\n"
    );
    Ok(Outcome::done(text, output::fields(&json!({ "token": token, "sha256": sha256 }))?))
}
