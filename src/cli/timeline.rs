//! `timeline`: which times can be restored.

use super::output::{self, Outcome};
use super::render;
use crate::config::Config;
use crate::context::Context;
use crate::engine::timeline;
use crate::error::Result;
use crate::repository::Repository;

pub(super) async fn run(config: &Config, cx: &Context) -> Result<Outcome> {
    let repository = Repository::open(&config.path)?;
    let timeline = timeline::look(&repository, true, cx).await?;
    Ok(Outcome::done(render::archive::timeline(&timeline), output::fields(&timeline)?))
}
