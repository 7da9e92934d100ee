//! `token`: makes a token for the service, and its hash. The service knows only the hash.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::output::{self, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::Sha256Hex;

/// The prefix of every token. People and secret scanners recognize it.
const PREFIX: &str = "bv_";

/// Flags of `token`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Make a token that may read, but not download backups
    #[arg(long)]
    read: bool,
    /// Make a token that may read and download backups
    #[arg(long, conflicts_with = "read")]
    download: bool,
}

pub(super) fn run(args: &Args) -> Result<Outcome> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)
        .map_err(|e| Error::new(ErrorKind::Internal, format!("the operating system provides no random bytes: {e}")).cause(e))?;
    let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
    let sha256 = Sha256Hex::of(token.as_bytes());
    let (variable, may) = match (args.read, args.download) {
        (true, _) => ("READ_TOKEN_SHA256", "may read"),
        (_, true) => ("DOWNLOAD_TOKEN_SHA256", "may read and download backups"),
        _ => ("ADMIN_TOKEN_SHA256", "may do everything"),
    };
    let text = format!(
        "token:   {token}\nsha-256: {sha256}\n\nThe token {may}. It is shown only once and stored nowhere. Clients send it as\n\
         Authorization: Bearer TOKEN. The service needs only its hash. If the setting has one already, add this one after\n\
         a comma:\n\n{variable}={sha256}\n"
    );
    Ok(Outcome::done(text, output::fields(&json!({ "token": token, "sha256": sha256 }))?))
}
