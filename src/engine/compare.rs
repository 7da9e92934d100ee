//! `compare`: proves that two deployments hold the same, or finds what differs.
//!
//! Both sides are read at the same time, in ranges of `_id` that have the same bounds on both. Each
//! range has a content digest per side. Only ranges whose digests differ are read again, in smaller
//! and smaller parts, until the documents that differ can be named. So memory does not grow with
//! the data, and little is read twice if little differs.

mod describe;
mod folds;
mod half;
mod naming;
mod options;
mod pairs;
pub(super) mod pinned;
mod plan;
mod report;
mod search;
mod shared;
mod shown;
mod side;
mod work;

use std::sync::Arc;
use std::time::Instant;

pub use self::options::CompareOptions;
pub use self::report::{
    CompareReport, ComparedCollection, ComparedContent, ComparedSide, Difference, DocumentDifferences, HowDocument,
    NamedDocument, What,
};

use self::plan::Plan;
use self::shared::Shared;
use crate::clock;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::manifest::{ConsistencyException, LeftOut};
use crate::mongo::MongoUri;
use crate::names::Namespace;

/// Compares what two deployments hold: collections, views and time series, their options and
/// indexes, and every document byte for byte. For capped collections the natural order counts, too.
/// Databases of the servers and this program's own collections are not compared.
///
/// A side that can be read at one cluster time is read at one, each at its own. The others are read
/// as they are. The report says which.
///
/// # Errors
/// [`ErrorKind::NotFound`](crate::error::ErrorKind::NotFound) if a pattern, a rename or a database
/// matches nothing, or if there is nothing to compare;
/// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if something would be compared with itself,
/// or two namespaces with one;
/// [`ErrorKind::Denied`](crate::error::ErrorKind::Denied),
/// [`ErrorKind::Unreachable`](crate::error::ErrorKind::Unreachable),
/// [`ErrorKind::Server`](crate::error::ErrorKind::Server);
/// [`ErrorKind::Interrupted`](crate::error::ErrorKind::Interrupted). A difference is no error.
pub async fn run(source: &MongoUri, target: &MongoUri, options: &CompareOptions, cx: &Context) -> Result<CompareReport> {
    let begun = Instant::now();
    // If one reader fails, the others stop.
    let halt = cx.cancel.child_token();

    // 1. Connect, list, and pair what belongs together.
    cx.progress.begin("looking at both sides");
    let plan = cx.unless_cancelled(Box::pin(plan::prepare(source, target, options, &halt, cx))).await?;
    let Plan { shared, readers, missing, extra, left_out } = plan;
    let shared = Arc::new(shared);

    // 2. Read both sides, and search what differs.
    let worked = Box::pin(work::work(&shared, readers)).await;
    let exceptions = match worked {
        Ok(()) => cx.unless_cancelled(exceptions(&shared)).await,
        Err(_) if cx.cancel.is_cancelled() => Err(Error::interrupted()),
        Err(error) => Err(error),
    };
    tokio::join!(shared.source.connection.close(), shared.target.connection.close());

    // 3. Report.
    let mut report = report(&shared, [missing, extra], exceptions?, left_out);
    report.milliseconds = clock::millis_since(begun);
    Ok(report)
}

/// The collections that were not read at their side's time.
async fn exceptions(shared: &Shared) -> Result<[Vec<ConsistencyException>; 2]> {
    let mut exceptions = [Vec::new(), Vec::new()];
    for pair in &shared.pairs {
        exceptions[0].extend(pair.source.exception(&shared.source).await);
        exceptions[1].extend(pair.target.exception(&shared.target).await);
    }
    Ok(exceptions)
}

fn report(
    shared: &Shared,
    [missing, extra]: [Vec<(Namespace, Namespace)>; 2],
    [source_exceptions, target_exceptions]: [Vec<ConsistencyException>; 2],
    [source_left_out, target_left_out]: [Vec<LeftOut>; 2],
) -> CompareReport {
    let alone = |names: Vec<(Namespace, Namespace)>, what: What| {
        names.into_iter().map(move |(from, to)| Difference {
            namespace: from.to_string(),
            target_namespace: to.to_string(),
            what: what.clone(),
        })
    };
    let namespaces = (shared.pairs.len() + missing.len() + extra.len()) as u64;
    let mut differences: Vec<Difference> = alone(missing, What::Missing).chain(alone(extra, What::Extra)).collect();
    let mut collections = Vec::with_capacity(shared.pairs.len());
    for pair in &shared.pairs {
        let (found, collection) = pair.conclude();
        differences.extend(found.into_iter().map(|what| Difference {
            namespace: collection.namespace.clone(),
            target_namespace: collection.target_namespace.clone(),
            what,
        }));
        collections.push(collection);
    }
    // What differs of one namespace stays in its order.
    differences.sort_by(|one, other| one.namespace.cmp(&other.namespace));
    let sources = || collections.iter().filter_map(|collection| collection.source.as_ref());
    CompareReport {
        source: shared.source.report(source_exceptions, source_left_out),
        target: shared.target.report(target_exceptions, target_left_out),
        same: differences.is_empty(),
        namespaces,
        documents: sources().map(|content| content.documents).sum(),
        bytes: sources().map(|content| content.bytes).sum(),
        differences,
        collections,
        milliseconds: 0,
    }
}
