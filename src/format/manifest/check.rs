//! Checks a manifest for contradictions, whoever wrote it.

use super::{
    CollectionKind, Consistency, ConsistencyKind, Manifest, Segment, StoredObject, Totals, WITH_COLUMNS, WITH_OPLOG,
    WITH_REPLAY_FROM,
};
use crate::error::{Error, Result};
use crate::format::digest::Content;
use crate::format::{document, key, metadata};

impl Manifest {
    /// Checks that no key leads elsewhere, no size exceeds a reader's limits, and all sums agree.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) with the contradiction.
    pub(super) fn check(&self) -> Result<()> {
        let mut keys = std::collections::HashSet::new();
        for object in self.objects() {
            let inside = !object.key.is_empty() && object.key.split('/').all(|part| !matches!(part, "" | "." | ".."));
            if !inside || !keys.insert(object.key.as_str()) {
                return Err(contradiction(format!("the key {:?} leads outside of the backup or occurs twice", object.key)));
            }
            // `SHA256SUMS` has a line for each, and `sha256sum` writes names with these characters
            // in another form.
            let plain = !object.key.contains(|c: char| c.is_control() || c == '\\');
            let own = key::checkpoint_number(&object.key).is_some();
            if !plain || own || [key::MANIFEST, key::SHA256SUMS, key::PROGRESS, key::CHECKS].contains(&object.key.as_str()) {
                return Err(contradiction(format!("the key {:?} cannot be that of a collection's object", object.key)));
            }
        }
        let mut namespaces = std::collections::HashSet::new();
        for collection in &self.collections {
            if !namespaces.insert((&collection.database, &collection.name)) {
                return Err(contradiction(format!("{} occurs twice", collection.namespace())));
            }
            if collection.kind == CollectionKind::View && !collection.segments.is_empty() {
                return Err(contradiction(format!("the view {} has documents", collection.namespace())));
            }
            if collection.metadata.bytes > metadata::LIMIT {
                return Err(beyond(&collection.metadata));
            }
            if sum(&collection.segments)? != collection.content() {
                return Err(contradiction(format!("the segments of {} do not add up to it", collection.namespace())));
            }
            for value in std::iter::once(&collection.options).chain(&collection.indexes) {
                document::check(value.bson.as_bytes())
                    .map_err(|e| e.context(format!("options or indexes of {}", collection.namespace())))?;
            }
        }
        if self.format_version < WITH_COLUMNS && !self.settings.codec.is_default() {
            return Err(contradiction(format!("format version {} has no codec {}", self.format_version, self.settings.codec)));
        }
        self.check_moment()?;
        self.check_replay_from()?;
        if Totals::of(&self.collections, self.oplog.as_ref()) != self.totals {
            return Err(contradiction("the collections do not add up to the totals".to_owned()));
        }
        Ok(())
    }

    /// Checks that there is an oplog slice if and only if the consistency needs one, and that its
    /// times are in order.
    fn check_moment(&self) -> Result<()> {
        let Consistency { kind, cluster_time, from, to, exceptions, .. } = &self.consistency;
        if self.format_version < WITH_OPLOG && (self.oplog.is_some() || *kind == ConsistencyKind::Oplog) {
            return Err(contradiction(format!("format version {} has no oplog slices", self.format_version)));
        }
        if (*kind == ConsistencyKind::Oplog) != self.oplog.is_some() {
            return Err(contradiction(format!(
                "the consistency is {kind}, and there is {} oplog slice",
                if self.oplog.is_some() { "an" } else { "no" }
            )));
        }
        if (*from, *to) != (self.oplog.as_ref().map(|o| o.from), self.oplog.as_ref().map(|o| o.to)) {
            return Err(contradiction("the times of the consistency are not those of the oplog slice".to_owned()));
        }
        let Some(slice) = &self.oplog else { return Ok(()) };
        if !cluster_time.is_some_and(|listed| slice.from <= listed && listed <= slice.to) || !exceptions.is_empty() {
            return Err(contradiction("the oplog slice does not begin before the listing and end after it".to_owned()));
        }
        if sum(&slice.segments)? != slice.content() {
            return Err(contradiction("the segments of the oplog slice do not add up to it".to_owned()));
        }
        Ok(())
    }

    /// Checks that an archive of the oplog can continue the backup from the position that it names.
    fn check_replay_from(&self) -> Result<()> {
        let Consistency { kind, cluster_time, from, replay_from, .. } = &self.consistency;
        let Some(position) = replay_from else { return Ok(()) };
        if self.format_version < WITH_REPLAY_FROM {
            return Err(contradiction(format!("format version {} has no position to replay from", self.format_version)));
        }
        if *kind == ConsistencyKind::None {
            return Err(contradiction("a backup without a consistency point has a position to replay from".to_owned()));
        }
        if !cluster_time.is_some_and(|listed| position.time <= listed) {
            return Err(contradiction("the position to replay from is not at or before the listing".to_owned()));
        }
        if from.is_some_and(|from| from != position.time) {
            return Err(contradiction("the position to replay from is not the start of the oplog slice".to_owned()));
        }
        if position.term.is_some() && position.digest.is_none() {
            return Err(contradiction("the position to replay from has the term of an entry without its digest".to_owned()));
        }
        Ok(())
    }
}

fn contradiction(what: String) -> Error {
    Error::damaged(format!("{} contradicts itself: {what}", key::MANIFEST))
}

fn beyond(object: &StoredObject) -> Error {
    contradiction(format!("the sizes of {} are beyond the limits", object.key))
}

/// The content of these segments, if their sizes are possible.
fn sum(segments: &[Segment]) -> Result<Content> {
    match segments.iter().find(|segment| !segment.is_possible()) {
        Some(segment) => Err(beyond(&segment.object)),
        None => Ok(segments.iter().map(Segment::content).sum()),
    }
}
