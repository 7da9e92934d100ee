//! `oplog-search`: finds entries of an archived oplog.

use bson::RawDocument;
use chrono::{DateTime, TimeDelta};

use super::output::{self, Outcome};
use super::render;
use crate::clock;
use crate::config::{Config, duration};
use crate::context::Context;
use crate::engine::moment::Moment;
use crate::engine::oplog_search::{self, OPERATIONS, SearchOptions};
use crate::error::{Error, Result};
use crate::format::manifest::ClusterTime;
use crate::format::metadata::read;
use crate::names::NamespacePattern;
use crate::repository::Repository;

/// Flags of `oplog-search`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The namespaces: a pattern in which * matches any characters. Repeatable
    #[arg(long, value_name = "NS", required = true)]
    namespace: Vec<String>,
    /// The operations: insert, update, delete, drop, dropDatabase, renameCollection and other
    /// commands, separated by commas
    #[arg(long, value_name = "OP", value_delimiter = ',')]
    op: Vec<String>,
    /// From this time on: 2026-11-28T14:03:22Z, SECONDS:ORDINAL, or how long ago, as 2h
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Up to this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Fields that the document or its _id must have with these values, in Extended JSON. Of a
    /// deleted document, the oplog has the _id only
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
    /// The most entries to print; the oldest are printed
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    limit: usize,
}

pub(super) async fn run(args: Args, config: &Config, cx: &Context) -> Result<Outcome> {
    if let Some(unknown) = args.op.iter().find(|op| !OPERATIONS.contains(&op.as_str())) {
        return Err(
            Error::usage(format!("--op {unknown:?} is no operation")).hint(format!("choose from {}", OPERATIONS.join(", ")))
        );
    }
    let filter = args.filter.as_deref().map(|text| {
        read::extended(text.as_bytes()).map_err(|e| {
            Error::usage(format!("--filter is not a document: {e}"))
                .hint("use Extended JSON 2, like {\"_id\": 5}; quote it in the shell")
        })
    });
    let filter = filter.transpose()?;
    if let Some(operator) = filter.as_deref().and_then(operator) {
        return Err(Error::usage(format!("--filter compares values, and does not know the operator {operator}"))
            .hint("give the value itself, like {\"_id\": 5}"));
    }
    let options = SearchOptions {
        namespaces: args.namespace.iter().map(|text| NamespacePattern::parse(text)).collect::<Result<_>>()?,
        operations: args.op,
        since: args.since.as_deref().map(since).transpose()?,
        until: args.until.as_deref().map(|text| time(text).map(Moment::upto)).transpose()?,
        filter,
        limit: args.limit,
    };
    let repository = Repository::open(&config.path)?;
    let report = oplog_search::search(&repository, &options, cx).await?;
    Ok(Outcome::done(render::archive::found(&report), output::fields(&report)?))
}

/// A time, or how long ago: then it is that long before now by this machine's clock.
fn time(text: &str) -> Result<Moment> {
    match duration(text) {
        Ok(ago) if text.ends_with(|c: char| c.is_ascii_alphabetic()) => {
            let ago = TimeDelta::from_std(ago).unwrap_or(TimeDelta::MAX);
            let then = clock::now().checked_sub_signed(ago).unwrap_or(DateTime::UNIX_EPOCH);
            Ok(Moment::WholeSecond(u32::try_from(then.timestamp()).unwrap_or(0)))
        }
        _ => Moment::parse(text),
    }
}

fn since(text: &str) -> Result<ClusterTime> {
    Ok(match time(text)? {
        Moment::WholeSecond(t) => ClusterTime { t, i: 0 },
        moment => moment.upto(),
    })
}

/// The first operator of a query in a filter, which would be compared as if it was a value.
fn operator(filter: &RawDocument) -> Option<String> {
    let mut fields = filter.iter().flatten();
    fields.find_map(|(name, value)| {
        let first = value.as_document().and_then(|inner| Some(inner.iter().next()?.ok()?.0.as_str().to_owned()));
        [name.as_str().to_owned()].into_iter().chain(first).find(|name| name.starts_with('$'))
    })
}
