//! Repeatable commands on the target's catalog: list, create, drop.

use std::collections::BTreeMap;

use bson::{Document, RawDocument, RawDocumentBuf, rawdoc};
use mongodb::error::Error as DriverError;
use uuid::Uuid;

use super::{Attempts, Problem, Target};
use crate::error::Result;
use crate::format::document::Writer;
use crate::mongo::catalog::{self, ListedCollection};
use crate::mongo::command;
use crate::mongo::failure::{code, code_of};
use crate::names::{BUCKETS_PREFIX, Namespace};

/// The contents of one database, by name.
#[derive(Debug, Clone, Default)]
pub struct Standing(BTreeMap<String, ListedCollection>);

impl Standing {
    /// Lists a database, with retries.
    ///
    /// # Errors
    /// Server errors; [`ErrorKind::Interrupted`](crate::error::ErrorKind::Interrupted).
    pub async fn of(target: &Target, database: &str) -> Result<Self> {
        let listing = || catalog::collections(&target.connection, database);
        let (found, _) = target.unless_stopped(command::patiently(listing)).await??;
        Ok(Self(found.into_iter().map(|c| (c.name.clone(), c)).collect()))
    }

    /// What exists under this name: a collection, a view or a time series.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ListedCollection> {
        self.0.get(name)
    }

    /// The collection with this UUID.
    #[must_use]
    pub fn by_uuid(&self, uuid: Uuid) -> Option<&ListedCollection> {
        self.0.values().find(|c| c.uuid == Some(uuid))
    }

    /// The UUID of an entry; for a time series, that of its buckets. Views have none.
    #[must_use]
    pub fn identity(&self, info: &ListedCollection) -> Option<Uuid> {
        match info.kind.as_str() {
            "timeseries" => self.get(&format!("{BUCKETS_PREFIX}{}", info.name))?.uuid,
            _ => info.uuid,
        }
    }

    /// Everything, by name.
    pub fn iter(&self) -> impl Iterator<Item = &ListedCollection> {
        self.0.values()
    }
}

/// Drops whatever exists under a name, of any kind. If nothing does, that is not an error.
pub(super) async fn drop(target: &Target, namespace: &Namespace) -> Result<()> {
    let what = format!("dropping {namespace}");
    let mut attempts = Attempts::new(target, &what);
    loop {
        let drop = rawdoc! { "drop": namespace.collection.as_str(), "writeConcern": { "w": 1 } };
        match target.try_run(&namespace.database, drop, Some(command::COMMAND_LIMIT)).await? {
            Err(e) if code_of(&e) == Some(code::NAMESPACE_NOT_FOUND) => return Ok(()),
            tried => {
                if attempts.judge(tried).await?.is_some() {
                    return Ok(());
                }
            }
        }
    }
}

/// Creates a collection, time series or view with these options.
pub(super) async fn create(target: &Target, namespace: &Namespace, options: &RawDocument) -> Result<()> {
    let create = create_command(namespace, options)?;
    let what = format!("creating {namespace}");
    let mut attempts = Attempts::new(target, &what);
    loop {
        match target.try_run(&namespace.database, create.clone(), Some(command::COMMAND_LIMIT)).await? {
            // An earlier attempt whose reply was lost created it, or an application did. It is
            // dropped, as long as the retries last.
            Err(e) if code_of(&e) == Some(code::NAMESPACE_EXISTS) => {
                attempts.again_after(in_between(&e)).await?;
                drop(target, namespace).await?;
            }
            tried => {
                if attempts.judge(tried).await?.is_some() {
                    return Ok(());
                }
            }
        }
    }
}

pub(super) fn create_command(namespace: &Namespace, options: &RawDocument) -> Result<RawDocumentBuf> {
    let mut create = Writer::default();
    create.string("create", &namespace.collection);
    create.extend(options.as_bytes())?;
    create.document("writeConcern", rawdoc! { "w": 1 }.as_bytes());
    create.raw()
}

/// Changes a collection, time series or view by `collMod` with these fields.
pub(super) async fn modify(target: &Target, what: &str, namespace: &Namespace, fields: Writer) -> Result<()> {
    let mut command = Writer::default();
    command.string("collMod", &namespace.collection);
    command.extend(&fields.finish())?;
    command.document("writeConcern", rawdoc! { "w": 1 }.as_bytes());
    target.run(what, &namespace.database, command.raw()?).await.map(|_| ())
}

/// The outcome of a command that moves or creates a collection at a name that may be in use, as in
/// [`Attempts::judge`]. The conflict may be gone or settled the next time.
pub(super) async fn judge(attempts: &mut Attempts<'_>, tried: Result<Document, DriverError>) -> Result<Option<Document>> {
    match tried {
        Err(e) if is_in_between(&e) => attempts.again_after(in_between(&e)).await.map(|()| None),
        tried => attempts.judge(tried).await,
    }
}

fn is_in_between(error: &DriverError) -> bool {
    matches!(
        code_of(error),
        Some(
            code::NAMESPACE_NOT_FOUND
                | code::NAMESPACE_EXISTS
                | code::COMMAND_NOT_SUPPORTED_ON_VIEW
                | code::BACKGROUND_OPERATION_IN_PROGRESS
                | code::CONFLICTING_OPERATION_IN_PROGRESS
                | code::COLLECTION_UUID_MISMATCH
        )
    )
}

/// The same as a problem that is retried.
fn in_between(error: &DriverError) -> Problem {
    Problem { index: 0, code: code::HOST_UNREACHABLE, message: error.to_string() }
}
