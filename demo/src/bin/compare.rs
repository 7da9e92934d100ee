//! Compares the data of two servers byte for byte, as the tests do.
//!
//! `compare [--ignore-extra]` compares the server at `MONGO_URI_ATLAS` with the one at
//! `MONGO_URI_LOCAL`. The exit code is 1 if they differ.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

#[path = "../../../tests/support/compare.rs"]
#[expect(clippy::unwrap_used, unreachable_pub, reason = "it is made for tests, which fail by panicking")]
mod compare;

use std::process::ExitCode;

use compare::{CompareOptions, compare};
use mongodb::Client;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let ignore_extra = std::env::args().skip(1).any(|arg| arg == "--ignore-extra");
    let (source_uri, target_uri) = (std::env::var("MONGO_URI_ATLAS")?, std::env::var("MONGO_URI_LOCAL")?);
    let (source, target) = (Client::with_uri_str(&source_uri).await?, Client::with_uri_str(&target_uri).await?);
    // As in a backup, a database in the source's path is the only one. One in the target's path is
    // its name there.
    let mut only = source.default_database().map(|db| db.name().to_owned()).filter(|name| name != "admin");
    if only.is_none() {
        let mut held = source.list_database_names().await?;
        held.retain(|name| !["admin", "local", "config"].contains(&name.as_str()));
        only = (held.len() == 1).then(|| held.remove(0));
    }
    let renamed = target.default_database().map(|db| db.name().to_owned()).filter(|name| name != "admin");
    let rename = only.clone().zip(renamed).into_iter().collect();
    let databases = only.map(|name| vec![name]);
    let found = compare(&source, &target, CompareOptions { databases, rename, ignore_extra, ..CompareOptions::default() }).await;
    for difference in &found.differences {
        println!("{difference}");
    }
    println!("{} namespaces, {} documents, {} differences", found.namespaces, found.documents, found.differences.len());
    Ok(if found.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
