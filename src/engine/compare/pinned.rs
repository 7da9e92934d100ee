//! Proves parts of two deployments at times of each that belong together: for a target that
//! follows, and so is what the source was at some time.

use std::sync::{Arc, Mutex};

use bson::Timestamp;

use super::folds::Sum;
use super::half::{Half, Means, Pass};
use super::naming::Naming;
use super::options::CompareOptions;
use super::pairs::{self, Pairs};
use super::plan;
use super::report::{Difference, What};
use super::search::search;
use super::shared::{Pair, Shared};
use super::side::Side;
use crate::context::Context;
use crate::context::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::CollectionKind;
use crate::mongo::{Connection, MongoUri};
use crate::source::discover::{self, CollectionInfo, Listing, Size};
use crate::source::ranges::{self, Division, Range};

/// Two deployments, of which parts are proven.
pub(in crate::engine) struct Pinned<'a> {
    here: Side,
    there: Side,
    options: &'a CompareOptions,
    cx: &'a Context,
}

/// The times at which both sides hold the same if all is well.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Times {
    /// Of the source.
    pub(in crate::engine) source: Timestamp,
    /// Of the target; `None` to read it as it is.
    pub(in crate::engine) target: Option<Timestamp>,
}

/// What both sides have, and what differs of it apart from documents.
pub(in crate::engine) struct Subjects {
    pub(in crate::engine) both: Vec<Subject>,
    pub(in crate::engine) differences: Vec<Difference>,
}

/// A collection or time series that both sides have.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Subject {
    source: CollectionInfo,
    target: CollectionInfo,
    sizes: [Option<Size>; 2],
}

/// What was found of a part.
#[derive(Debug)]
pub(in crate::engine) enum Proof {
    /// Both sides hold the same: so many documents, and bytes.
    Same(u64, u64),
    /// They do not: what differs, and how many documents and bytes of the source were read.
    Differs(Vec<What>, u64, u64),
    /// They did not, and the target may have changed since it was read.
    Unclear,
    /// One of them could not be read at its time, for this reason.
    NotThen(String),
}

impl Subject {
    /// Its name in the source, and in the target.
    pub(in crate::engine) fn names(&self) -> (String, String) {
        (self.source.namespace.to_string(), self.target.namespace.to_string())
    }

    /// Whether it is the same collection of the source as another one.
    pub(in crate::engine) fn is(&self, other: &Self) -> bool {
        self.source.uuid == other.source.uuid
    }

    /// Whether it cannot be read at a time.
    pub(in crate::engine) fn is_capped(&self) -> bool {
        self.source.is_capped()
    }

    /// What is said of it.
    pub(in crate::engine) fn difference(&self, what: What) -> Difference {
        let (namespace, target_namespace) = self.names();
        Difference { namespace, target_namespace, what }
    }
}

impl<'a> Pinned<'a> {
    /// Connects to both. The rate limit is for the source.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if the source cannot be read at a time; server errors.
    pub(in crate::engine) async fn open(
        source: &MongoUri,
        target: &MongoUri,
        options: &'a CompareOptions,
        cx: &'a Context,
    ) -> Result<Self> {
        let opening = async { tokio::try_join!(Side::open(source, 2, options.tuning.max_bits), Side::open(target, 2, None)) };
        let (here, there) = cx.unless_cancelled(opening).await?;
        let pinned = Self { here, there, options, cx };
        match pinned.here.cannot() {
            None => Ok(pinned),
            Some(why) => {
                pinned.close().await;
                Err(Error::new(ErrorKind::Refused, format!("the target cannot be proven while it follows: {why}"))
                    .hint("stop the writers, and compare both sides"))
            }
        }
    }

    /// Whether the target can be read at a time.
    pub(in crate::engine) fn keeps_history(&self) -> bool {
        self.there.cannot().is_none()
    }

    pub(in crate::engine) async fn close(self) {
        tokio::join!(self.here.connection.close(), self.there.connection.close());
    }

    /// Lists the source, and tells when.
    ///
    /// # Errors
    /// Server errors.
    pub(in crate::engine) async fn list(&mut self) -> Result<Listing> {
        let filter = self.options.filter.clone();
        self.cx.unless_cancelled(self.here.list(filter)).await
    }

    /// Lists the target, which is what the source was at the time of its listing, or later, and
    /// pairs what belongs together. What only the target has may be anybody's.
    ///
    /// # Errors
    /// Server errors.
    pub(in crate::engine) async fn pair(&mut self, listed: Listing) -> Result<Subjects> {
        let names: Vec<_> = listed.collections.iter().map(|info| info.namespace.clone()).collect();
        let naming = Naming::of_sides(self.options, &self.options.filter, names.iter(), None)?;
        let filter = naming.target_filter(names.iter())?;
        let standing = self.cx.unless_cancelled(self.there.list(filter)).await?;
        let Pairs { both, missing, .. } = pairs::pair(listed.collections, standing.collections, &naming)?;
        let missing = missing.into_iter().map(|(from, to)| Difference {
            namespace: from.to_string(),
            target_namespace: to.to_string(),
            what: What::Missing,
        });
        let mut differences: Vec<Difference> = missing.collect();
        let mut subjects = Vec::with_capacity(both.len());
        for (source, target) in both {
            let subject = Subject { source, target, sizes: [None, None] };
            let described = plan::described(&subject.source, &subject.target, &naming)?;
            differences.extend(described.into_iter().map(|what| subject.difference(what)));
            if subject.source.kind == subject.target.kind && subject.source.kind != CollectionKind::View {
                subjects.push(subject);
            }
        }
        Ok(Subjects { both: subjects, differences })
    }

    /// Divides what both have into parts of about this many bytes.
    pub(in crate::engine) async fn divide(&self, subject: &mut Subject, bytes: u64) -> Vec<Range> {
        let sizes = |connection: Connection, info: CollectionInfo| async move {
            discover::sizes(&connection, std::slice::from_ref(&info)).await.into_iter().next().flatten()
        };
        let here = sizes(self.here.connection.clone(), subject.source.clone());
        let there = sizes(self.there.connection.clone(), subject.target.clone());
        let (here, there) = tokio::join!(here, there);
        subject.sizes = [here, there];
        if subject.is_capped() || subject.target.is_capped() || !self.has_order(subject) {
            return vec![Range::Natural];
        }
        let division = Division { readers: 2, range_bytes: Some(bytes), fine_end: false };
        ranges::divide(&self.here.connection, &subject.source, here.unwrap_or_default(), division).await
    }

    fn has_order(&self, subject: &Subject) -> bool {
        plan::have_order(&self.here, &subject.source, &self.there, &subject.target)
    }

    /// Reads a part on both sides, the target first. `still` keeps the target as it is while it is
    /// held; it is dropped once the target is read, unless it is `kept`.
    ///
    /// # Errors
    /// [`ErrorKind::Server`] if a collection was dropped, renamed or altered; server errors.
    pub(in crate::engine) async fn prove<S>(
        &self,
        subject: &Subject,
        range: &Range,
        times: Times,
        (still, kept): (Option<S>, bool),
    ) -> Result<Proof> {
        let has_still = still.is_some();
        let shared = self.shared(subject, times);
        let pair = &shared.pairs[0];
        let pass = || Pass { range, only_ids: false, by_id: false, item: None };
        let sum = || Sum::new(pair.is_ordered());
        let target = pair.target.read(&shared.target, pass(), sum(), &shared.means).await?;
        let still = still.filter(|_| kept);
        let source = pair.source.read(&shared.source, pass(), sum(), &shared.means).await?;
        let differs = pair.add(&source, &target) || source.order != target.order;
        if differs && has_still && still.is_none() {
            return Ok(Proof::Unclear);
        }
        if source.content != target.content {
            search(&shared, pair, range, source.content, target.content).await?;
        }
        drop(still);
        if let Some(why) = self.not_then(&shared, times).await {
            return Ok(Proof::NotThen(why));
        }
        let (what, _) = pair.conclude();
        let (documents, bytes) = (source.content.documents, source.content.bytes);
        Ok(if what.is_empty() { Proof::Same(documents, bytes) } else { Proof::Differs(what, documents, bytes) })
    }

    /// Why a side was not read at its time, if so.
    async fn not_then(&self, shared: &Shared, times: Times) -> Option<String> {
        let exception = shared.pairs[0].source.exception(&shared.source).await;
        if let Some(exception) = exception {
            return Some(format!("in the source, it is {}", exception.reason));
        }
        let sides = [(&shared.source, true), (&shared.target, times.target.is_some())];
        sides
            .into_iter()
            .find_map(|(side, at_a_time)| side.cannot().filter(|_| at_a_time).map(|why| format!("{}: {why}", side.name())))
    }

    fn shared(&self, subject: &Subject, times: Times) -> Arc<Shared> {
        let Subject { source, target, sizes } = subject.clone();
        let means = Means {
            budget: self.cx.memory.part(self.options.tuning.counted_bytes()),
            cpu: self.cx.cpu.share(),
            progress: Progress::default(),
            halt: self.cx.cancel.child_token(),
        };
        let pair = Pair {
            has_order: self.has_order(subject),
            by_bounds: ranges::has_bounds(&self.here.connection, &source),
            ranges_left: 1.into(),
            item: means.progress.item("", 0, 0),
            described: Vec::new(),
            found: Mutex::default(),
            source: Half::new(source, sizes[0]),
            target: Half::new(target, sizes[1]),
        };
        let (here, there) = (self.here.pinned(Some(times.source)), self.there.pinned(times.target));
        Arc::new(Shared::new(here, there, means, vec![pair], Vec::new()))
    }
}
