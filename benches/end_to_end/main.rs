//! Measures the binary from end to end: its speed and memory, against the limits of server, memory
//! and disk in the same run.
//!
//! `cargo bench --bench end_to_end -- [--documents N] [--runs N] [--uri URI] [--all]`, with
//! `[--json FILE]` and `[--baseline FILE]`
//!
//! It starts a server (a replica set of one) and fills it with orders of a shop, of about 880 bytes
//! each. With `--uri`, it uses databases `bench_…` of that server. Each run measures everything
//! once, in turn; the table shows medians. A limit is the least time that the work needs, measured
//! without the binary. Compare the ratios to the limits. With `--scaling`, `--many`, `--wide`,
//! `--huge` and `--slow-link`, it measures those scenarios instead; with `--all`, everything. See
//! `benches/README.md`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    unreachable_pub,
    clippy::allow_attributes,
    reason = "a measurement prints, and ends where something is wrong"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

#[path = "../shop/mod.rs"]
mod shop;

mod figures;
mod inserts;
mod limits;
mod report;
mod scenarios;
mod whole;

use std::path::{Path, PathBuf};

use figures::{Results, Setting};
use scenarios::Scenario;
use shop::arguments::Arguments;
use support::server::{Server, ServerOptions};
use tempfile::TempDir;

const USAGE: &str = "\
cargo bench --bench end_to_end -- [FLAGS]

  --documents N    documents of the shop (150000)
  --runs N         how often everything is measured; figures are medians (5)
  --standalone     servers of its own are standalone ones instead of replica sets of one
  --uri URI        measure with this server instead of one of its own; uses the databases bench_…
  --all            the whole and every scenario
  --scaling, --many, --wide, --huge, --slow-link
                   these scenarios, without the whole; each has servers of its own
  --collections N  how many --many makes (5000)
  --json FILE      write all figures
  --baseline FILE  write the ratios of this run as a baseline; benches/baseline.json is the one that is compared with";

/// The options of the run.
struct Asked {
    documents: usize,
    runs: usize,
    collections: usize,
    standalone: bool,
    uri: Option<String>,
    whole: bool,
    scenarios: Vec<Scenario>,
    json: Option<PathBuf>,
    baseline: Option<PathBuf>,
}

impl Asked {
    fn read() -> Self {
        let mut arguments = Arguments::read(USAGE);
        let all = arguments.flag("--all");
        let named: Vec<Scenario> = Scenario::ALL.into_iter().filter(|scenario| arguments.flag(scenario.flag())).collect();
        let asked = Self {
            documents: arguments.number("--documents", 150_000),
            runs: arguments.number("--runs", 5),
            collections: arguments.number("--collections", 5_000),
            standalone: arguments.flag("--standalone"),
            uri: arguments.text("--uri"),
            whole: all || named.is_empty(),
            scenarios: if all { Scenario::ALL.to_vec() } else { named },
            json: arguments.text("--json").map(PathBuf::from),
            baseline: arguments.text("--baseline").map(PathBuf::from),
        };
        arguments.finish();
        assert!(asked.documents >= 1000 && asked.runs >= 1, "that is too little to be measured");
        asked
    }

    /// A new server with a cache of this many GiB.
    async fn server(&self, cache_gb: f64) -> Server {
        let repl_set = (!self.standalone).then(|| "bench".to_owned());
        Server::start(ServerOptions { repl_set, cache_gb: Some(cache_gb), ..ServerOptions::default() }).await
    }
}

#[tokio::main]
async fn main() {
    let asked = Asked::read();
    let mut results = Results::new(Setting::here(&asked));
    scenarios::resting(&asked, &mut results).await;
    if asked.whole {
        whole::run(&asked, &mut results).await;
    }
    for scenario in &asked.scenarios {
        println!("{}", scenario.flag());
        scenario.run(&asked, &mut results).await;
    }
    let baseline = report::Baseline::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/baseline.json"));
    report::print(&results, baseline.as_ref());
    if let Some(file) = &asked.json {
        report::write(file, &report::json(&results));
    }
    if let Some(file) = &asked.baseline {
        report::write(file, &report::Baseline::of(&results).json());
    }
}

/// A directory on the disk of the build. A directory in memory would tell nothing about writing.
fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}
