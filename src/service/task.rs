//! A job's task as data: its kind, and parameters that only this kind knows.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::job::JobKind;
use crate::error::{Error, ErrorKind, Result};

/// A job's task. It is stored with the job until the job has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Task {
    /// The kind of work.
    pub(super) kind: JobKind,
    /// The parameters of this kind.
    parameters: Value,
}

impl Task {
    /// # Errors
    /// [`ErrorKind::Internal`] if the parameters cannot be written as JSON.
    pub(super) fn new(kind: JobKind, parameters: &impl Serialize) -> Result<Self> {
        let parameters = serde_json::to_value(parameters).map_err(|e| wrong(kind, "written", e))?;
        Ok(Self { kind, parameters })
    }

    /// The parameters, as this kind's type.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if they belong to another kind.
    pub(super) fn parameters<T: DeserializeOwned>(self) -> Result<T> {
        serde_json::from_value(self.parameters).map_err(|e| wrong(self.kind, "read", e))
    }
}

fn wrong(kind: JobKind, how: &str, e: serde_json::Error) -> Error {
    let name = kind.name();
    Error::new(ErrorKind::Internal, format!("the parameters of a job of kind {name} cannot be {how}: {e}")).cause(e)
}
