//! Checks whether the target understands the pipelines of views and the rules of collections.
//! `explain` over a missing collection parses them as `create` will, and runs nothing.

use bson::{RawDocument, RawDocumentBuf};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use mongodb::error::ErrorKind as DriverKind;

use super::super::{Attempts, CollectionSpec, Target};
use crate::error::Result;
use crate::format::document::Writer;
use crate::format::kind;
use crate::format::manifest::CollectionKind;
use crate::mongo::command::COMMAND_LIMIT;
use crate::mongo::failure::is_transient;

/// The collection name used in the explained queries.
const NO_COLLECTION: &str = "bsonvault_explained";
/// How many queries to ask at a time.
const AT_A_TIME: usize = 4;

/// Why the target refuses a view or a collection's validator. Other errors of the server, such as a
/// missing right or an index that the query would need, do not count: the server decides when the
/// view or collection is created.
///
/// # Errors
/// [`ErrorKind::Unreachable`](crate::error::ErrorKind::Unreachable),
/// [`ErrorKind::Interrupted`](crate::error::ErrorKind::Interrupted).
pub(super) async fn not_understood(target: &Target, specs: &[CollectionSpec]) -> Result<Vec<String>> {
    let questions = specs.iter().filter_map(|spec| {
        let what = match spec.kind {
            CollectionKind::View => "is a view whose pipeline",
            CollectionKind::Collection => "has a validator",
            CollectionKind::TimeSeries => return None,
        };
        Some((spec, what, question(spec)?))
    });
    let answers = stream::iter(questions.map(|(spec, what, question)| async move {
        let refused = ask(target, &spec.namespace.database, question?).await?;
        Ok(refused.map(|why| format!("{} {what} the target does not understand ({why})", spec.namespace)))
    }))
    .buffered(AT_A_TIME)
    .boxed();
    answers.try_filter_map(|answer| async move { Ok(answer) }).try_collect().await
}

/// The command that explains a view's pipeline or a collection's validator, if it has one.
fn question(spec: &CollectionSpec) -> Option<Result<RawDocumentBuf>> {
    let options: &RawDocument = &spec.options;
    let mut query = Writer::default();
    if spec.kind == CollectionKind::View {
        let pipeline = options.get_array("pipeline").ok()?;
        query.string("aggregate", NO_COLLECTION);
        query.element(kind::ARRAY, "pipeline", pipeline.as_bytes());
        query.document("cursor", bson::rawdoc! {}.as_bytes());
    } else {
        let validator = options.get_document("validator").ok()?;
        query.string("find", NO_COLLECTION);
        query.document("filter", validator.as_bytes());
    }
    if let Ok(collation) = options.get_document("collation") {
        query.document("collation", collation.as_bytes());
    }
    let mut explain = Writer::default();
    explain.document("explain", &query.finish());
    explain.string("verbosity", "queryPlanner");
    Some(explain.raw())
}

async fn ask(target: &Target, database: &str, question: RawDocumentBuf) -> Result<Option<String>> {
    let mut attempts = Attempts::new(target, "checking whether the target understands the backup's views and validators");
    loop {
        match target.try_run(database, question.clone(), Some(COMMAND_LIMIT)).await? {
            Ok(_) => return Ok(None),
            Err(e) if is_transient(&e) => attempts.again(e).await?,
            Err(e) => {
                return Ok(match e.kind.as_ref() {
                    DriverKind::Command(refusal) if is_about_the_query(refusal.code) => {
                        Some(refusal.message.chars().take(200).collect())
                    }
                    _ => None,
                });
            }
        }
    }
}

/// Whether this code of the server says that it could not parse a query. Codes above 14000 are
/// places in its source where it found something unknown. 31082 is `$search` without a search
/// server, which a view may have anyway.
fn is_about_the_query(code: i32) -> bool {
    // BadValue, FailedToParse, TypeMismatch, InvalidOptions, InvalidPipelineOperator,
    // QueryFeatureNotAllowed.
    matches!(code, 2 | 9 | 14 | 72 | 168 | 224) || (code > 14_000 && code != 31_082)
}
