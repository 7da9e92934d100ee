//! `clean`: deletes backups that retention no longer keeps, parts of archived oplogs that are out
//! of the window, and leftovers of crashed runs.

use std::num::NonZeroU32;

use chrono::TimeDelta;

use super::catalog::{catalog, refuse_missing};
use super::output::{self, Outcome};
use super::render;
use crate::clock;
use crate::config::Config;
use crate::context::Context;
use crate::engine::clean::{self, CleanOptions};
use crate::error::{Error, Face, Result};
use crate::repository::retention::{Policy, Rule};

/// The most backups that a rule may ask for. More is a typo.
const MOST: u32 = 1_000_000;

/// Flags of `clean`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keep the newest N complete backups of each source and selection. Without another rule,
    /// delete all others
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    keep: Option<String>,
    /// Keep the newest backup of each of the last N days that have one
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    keep_daily: Option<String>,
    /// Keep the newest backup of each of the last N weeks that have one. A week begins on Monday
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    keep_weekly: Option<String>,
    /// Keep the newest backup of each of the last N months that have one
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    keep_monthly: Option<String>,
    /// Keep the newest backup of each of the last N years that have one
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    keep_yearly: Option<String>,
    /// Delete every incomplete backup that nobody works on, not only those older than a day.
    /// Without a rule, delete nothing else
    #[arg(long)]
    incomplete: bool,
    /// Show what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
}

impl Args {
    /// The rule of the flags, else the configured policy; and the window of archived oplogs. A
    /// window alone keeps all backups.
    fn rule(&self, configured: Policy, window: Option<TimeDelta>) -> Result<(Rule, Option<TimeDelta>)> {
        let last = number("--keep", self.keep.as_deref())?;
        let by_calendar = Policy {
            last: None,
            daily: number("--keep-daily", self.keep_daily.as_deref())?,
            weekly: number("--keep-weekly", self.keep_weekly.as_deref())?,
            monthly: number("--keep-monthly", self.keep_monthly.as_deref())?,
            yearly: number("--keep-yearly", self.keep_yearly.as_deref())?,
        };
        match last {
            Some(count) if by_calendar.is_empty() => Ok((Rule::Count(count), window)),
            _ if !by_calendar.is_empty() => Ok((Rule::Policy(Policy { last, ..by_calendar }), window)),
            _ if self.incomplete => Ok((Rule::Policy(Policy::default()), None)),
            _ if !configured.is_empty() => Ok((Rule::Policy(configured), window)),
            // Then only archived oplogs are cleaned.
            _ if window.is_some() => Ok((Rule::Policy(Policy::default()), window)),
            _ => Err(Error::usage("nothing says which backups stay").hint(
                "give --keep N, or any of --keep-daily, --keep-weekly, --keep-monthly and --keep-yearly; --incomplete alone \
                 deletes only incomplete backups",
            )),
        }
    }
}

fn number(flag: &str, text: Option<&str>) -> Result<Option<NonZeroU32>> {
    // As with every setting, an empty value counts as not set.
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
    let number = text.trim().parse().ok().and_then(NonZeroU32::new).filter(|n| n.get() <= MOST);
    number.map(Some).ok_or_else(|| Error::usage(format!("{flag} is {text:?}: expected a whole number from 1 to {MOST}")))
}

pub(super) async fn run(args: Args, config: &Config, cx: &Context) -> Result<Outcome> {
    let (zone, window) = (config.timezone, config.pitr.window());
    let (rule, window) = args.rule(config.retention, window)?;
    let options = CleanOptions { rule, all_incomplete: args.incomplete, zone, window };
    let catalog = catalog(config, cx)?;
    cx.unless_cancelled(refuse_missing(&catalog)).await?;
    let plan = cx.unless_cancelled(clean::plan(&catalog, &options, clock::now())).await?;
    let mut report = if args.dry_run { plan.report() } else { clean::execute(&catalog, plan, &cx.cancel).await };
    report.say(Face::CommandLine);
    let failure = if cx.cancel.is_cancelled() { Some(Error::interrupted()) } else { report.failure() };
    Ok(Outcome { text: render::clean::text(&report), json: output::fields(&report)?, failure, ..Outcome::default() })
}
