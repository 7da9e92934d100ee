//! A point in time as it is asked for, and what leads there.

use crate::context::Context;
use crate::engine::import::PointInTime;
use crate::engine::moment::Moment;
use crate::engine::oplog_search;
use crate::error::{Error, Result};
use crate::format::manifest::ClusterTime;
use crate::names::{NamespaceFilter, NamespacePattern, is_latest};
use crate::repository::Repository;

/// Which point in time is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// This time.
    To(Moment),
    /// Right before the operation at this time, and only what that touched.
    Undo(ClusterTime),
}

impl Wanted {
    /// Right before an operation: `SECONDS:ORDINAL`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage).
    pub fn undo(text: &str) -> Result<Self> {
        match Moment::parse(text)? {
            Moment::At(time) => Ok(Self::Undo(time)),
            _ => Err(Error::usage("[[undo]] takes the exact time of an operation, SECONDS:ORDINAL")
                .hint("`bsonvault oplog-search` prints it")),
        }
    }

    /// Finds the base and the archive that lead there. Without a name, or with `latest`, the base
    /// is the newest that does. If an operation is undone, the filter then takes what that touched.
    ///
    /// # Errors
    /// Those of [`PointInTime::open`]; [`ErrorKind::Refused`](crate::error::ErrorKind::Refused) if
    /// the operation touched nothing.
    pub async fn find(
        self,
        repository: &Repository,
        named: Option<&str>,
        filter: &mut NamespaceFilter,
        cx: &Context,
    ) -> Result<PointInTime> {
        let moment = match self {
            Self::To(moment) => moment,
            Self::Undo(time) => {
                let accident = oplog_search::accident(repository, time, cx).await?;
                filter.include = accident.namespaces.iter().map(NamespacePattern::exactly).collect::<Result<_>>()?;
                Moment::Before(accident.before)
            }
        };
        cx.progress.begin("reading the archived oplog");
        PointInTime::open(repository, named.filter(|name| !is_latest(name)), moment, cx).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_undone_is_one_operation() {
        assert_eq!(Wanted::undo("1795383900:7").unwrap(), Wanted::Undo(ClusterTime { t: 1_795_383_900, i: 7 }));
        for bad in ["", "1795383900", "before:1795383900:7", "2026-11-22T21:45:00Z", "1795383900:"] {
            assert_eq!(Wanted::undo(bad).unwrap_err().exit_code(), 2, "{bad:?}");
        }
    }
}
