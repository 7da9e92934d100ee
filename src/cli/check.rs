//! `check`: finds what would keep a backup or an import from working.

use super::output::{self, Outcome};
use super::render;
use crate::config::{Config, Flags};
use crate::context::Context;
use crate::engine::check::{self, Setup};
use crate::error::{Face, Result};
use crate::repository::Repository;

/// Flags of `check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The source [env: MONGO_URI_ATLAS]
    #[arg(long, value_name = "URI")]
    source: Option<String>,
    /// The target [env: MONGO_URI_LOCAL]
    #[arg(long, value_name = "URI")]
    target: Option<String>,
}

impl Args {
    pub(super) fn flags(&self) -> Flags {
        Flags { source: self.source.clone(), target: self.target.clone(), ..Flags::default() }
    }
}

pub(super) async fn run(config: &Config, cx: &Context) -> Result<Outcome> {
    let setup = Setup {
        settings: config.refuse_unknown(),
        source: config.configured_source(),
        target: config.configured_target(),
        repository: Repository::open(&config.path),
    };
    let mut report = check::run(setup, cx).await;
    report.lines.iter_mut().filter_map(|line| line.todo.as_mut()).for_each(|todo| *todo = Face::CommandLine.say(todo));
    Ok(Outcome {
        text: render::check::check(&report),
        json: output::fields(&report)?,
        failure: report.failure(),
        ..Outcome::default()
    })
}
