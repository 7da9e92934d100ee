//! The provenance of a backup: its deployment and its selection. Together they decide which backups
//! count together.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Summary;
use crate::format::digest::Sha256Hex;
use crate::format::manifest::{DUMP_SCHEME, Manifest, Settings, Source, Topology};
use crate::repository::retention::group::{self, Origin};

/// How many collections of a dump are compared for a common UUID. Dumps of one deployment with the
/// same collections share one among the first.
const IDENTITIES: usize = 64;

/// The source and the selection of a backup, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// The deployment, or the dump.
    pub source: BriefSource,
    /// The selection.
    pub selection: Selection,
}

/// A source, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BriefSource {
    /// Scheme, hosts and database of the URI that was used; `dump:NAME` for an adopted dump.
    #[schema(example = "mongodb://db1.example.net:27017")]
    pub uri: String,
    /// Its members as they name themselves, or the host that was connected to.
    pub hosts: Vec<String>,
    /// `standalone`, `replicaSet` or `sharded`.
    #[schema(value_type = String, example = "replicaSet")]
    pub topology: Topology,
    /// The replica set's name.
    pub replica_set: Option<String>,
    /// Distinguishes the deployment from others: the replica set's id, or a substitute. None if it
    /// could not be read.
    pub id: Option<String>,
}

impl BriefSource {
    /// Whether it is an adopted dump.
    #[must_use]
    pub fn is_dump(&self) -> bool {
        self.uri.starts_with(DUMP_SCHEME)
    }
}

/// The selection of a backup. Empty lists skip nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selection {
    /// Only these databases; all if empty. For an adopted dump, those that it holds.
    pub databases: Vec<String>,
    /// Only namespaces in them that any of these patterns match; all if empty.
    pub include: Vec<String>,
    /// Without namespaces that any of these patterns match.
    pub exclude: Vec<String>,
    /// Only documents that match this query, in Extended JSON.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub query: Option<String>,
    /// Only the contents of views.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub views_as_collections: bool,
}

impl Selection {
    /// The selection of these settings, in an order that does not depend on how it was written.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let sorted = |texts: &[String]| {
            let mut texts = texts.to_vec();
            texts.sort();
            texts.dedup();
            texts
        };
        let Settings { databases, include, exclude, query, views_as_collections, .. } = settings;
        Self {
            databases: sorted(databases),
            include: sorted(include),
            exclude: sorted(exclude),
            query: query.clone(),
            views_as_collections: *views_as_collections,
        }
    }

    /// Its part of a key: how many of each there are, and all of them.
    fn key(&self) -> Vec<String> {
        [&self.databases, &self.include, &self.exclude]
            .into_iter()
            .flat_map(|texts| std::iter::once(texts.len().to_string()).chain(texts.iter().cloned()))
            .chain(self.query.iter().cloned())
            .chain(self.views_as_collections.then(|| "views".to_owned()))
            .collect()
    }
}

impl Provenance {
    /// The provenance of a backup.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        let Source { uri, hosts, topology, replica_set, replica_set_id, deployment_id, .. } = manifest.source.clone();
        let mut selection = Selection::of(&manifest.settings);
        if manifest.source.is_dump() {
            selection.databases = manifest.collections.iter().map(|c| c.database.clone()).collect();
            selection.databases.sort();
            selection.databases.dedup();
        }
        let id = replica_set_id.or(deployment_id);
        Self { source: BriefSource { uri, hosts, topology, replica_set, id }, selection }
    }
}

/// What a backup counts with in retention: all backups of one group in an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Grouped {
    /// Its deployment or dump. None if the backup is not complete.
    pub source: Option<BriefSource>,
    /// Its selection. None if the backup is not complete.
    pub selection: Option<Selection>,
    /// Backups of one group are of one deployment and one selection. They count together in
    /// retention, and separately from all others. The number is valid only in this answer. None if
    /// the backup is not complete.
    pub group: Option<usize>,
}

impl Grouped {
    /// The source and selection of a backup, with the number of its group.
    #[must_use]
    pub fn of(summary: &Summary, group: Option<usize>) -> Self {
        let (source, selection) = summary.provenance().map(|p| (p.source, p.selection)).unzip();
        Self { source, selection, group }
    }
}

/// The origin, which decides what a backup counts with.
#[must_use]
pub fn origin(manifest: &Manifest) -> Origin {
    match manifest.source.is_dump() {
        true => of_dump(manifest),
        false => of_deployment(&manifest.source, &Selection::of(&manifest.settings)),
    }
}

/// The origin of a backup of this deployment. A replica set's id is enough. A file copy of any
/// other server has the identity of the original, so a name must match, too: a copy must not count
/// as its original.
#[must_use]
pub fn of_deployment(source: &Source, selection: &Selection) -> Origin {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (mut key, marks) = match (&source.replica_set_id, source.known_as.is_empty()) {
        (Some(id), _) => (vec!["set".to_owned(), id.clone()], Vec::new()),
        (None, true) => (deployment_key(source, text), source.hosts.clone()),
        (None, false) => (deployment_key(source, text), source.known_as.clone()),
    };
    key.extend(selection.key());
    Origin { key, marks }
}

fn deployment_key(source: &Source, text: impl Fn(&Option<String>) -> String) -> Vec<String> {
    vec![source.topology.to_string(), text(&source.replica_set), text(&source.deployment_id)]
}

/// The origin of a dump. Dumps count together if they hold the same collections and are of one
/// deployment. That is, a collection has the same UUID in both. Without UUIDs, they must come from
/// the same path.
fn of_dump(manifest: &Manifest) -> Origin {
    let namespaces: String = manifest.collections.iter().map(|c| format!("{}\0", c.namespace())).collect();
    let mut key = vec!["dump".to_owned(), Sha256Hex::of(namespaces.as_bytes()).to_string()];
    key.extend(Selection::of(&manifest.settings).key());
    let identities = manifest.collections.iter().filter_map(|c| c.uuid).take(IDENTITIES);
    let marks = match manifest.source.known_as.is_empty() {
        true => identities.map(|uuid| uuid.to_string()).collect(),
        false => manifest.source.known_as.clone(),
    };
    Origin { key, marks }
}

impl Summary {
    /// Its source and selection. None if it is not complete.
    #[must_use]
    pub fn provenance(&self) -> Option<Provenance> {
        self.state.manifest().map(Provenance::of)
    }

    /// What it counts with. None if it is not complete.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        self.state.manifest().map(origin)
    }
}

/// The number of each backup's group, in their order. None for those that are not complete.
#[must_use]
pub fn groups(backups: &[Summary]) -> Vec<Option<usize>> {
    let origins: Vec<Option<Origin>> = backups.iter().map(Summary::origin).collect();
    group::number(origins.iter().map(Option::as_ref))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(topology: Topology, id: Option<&str>, names: &[&str]) -> Source {
        Source {
            uri: "mongodb://x".to_owned(),
            hosts: vec!["localhost:27017".to_owned()],
            server_version: "6.0.5".to_owned(),
            feature_compatibility_version: None,
            topology,
            replica_set: (topology == Topology::ReplicaSet).then(|| "rs0".to_owned()),
            replica_set_id: None,
            deployment_id: id.map(str::to_owned),
            known_as: names.iter().map(ToString::to_string).collect(),
        }
    }

    fn are_one(a: &Source, b: &Source) -> bool {
        let everything = Selection::default();
        let [a, b] = [a, b].map(|source| of_deployment(source, &everything));
        group::number([Some(&a), Some(&b)]) == [Some(1), Some(1)]
    }

    #[test]
    fn a_server_is_known_by_its_data_and_a_name_and_a_set_by_its_id() {
        use Topology::{ReplicaSet, Standalone};
        let one = source(Standalone, Some("u1"), &["m:27017", "db:27017"]);
        assert!(are_one(&one, &source(Standalone, Some("u1"), &["db:27017", "other:1"])), "by another name");
        assert!(!are_one(&one, &source(Standalone, Some("u1"), &["m:27018"])), "a copy of its files");
        assert!(!are_one(&one, &source(Standalone, Some("u2"), &["m:27017"])), "other data at its address");
        assert!(!are_one(&one, &source(Standalone, None, &["m:27017"])), "which of both it was is not known");
        assert!(!are_one(&one, &source(ReplicaSet, Some("u1"), &["m:27017"])), "it was made a set");
        // As in older backups: hosts only.
        assert!(are_one(&source(Standalone, None, &[]), &source(Standalone, None, &[])));
        assert!(!are_one(&source(Standalone, None, &[]), &source(Standalone, Some("u1"), &["localhost:27017"])));

        let set = |id: &str, host: &str| {
            let hosts = vec![host.to_owned()];
            Source { replica_set_id: Some(id.to_owned()), hosts, ..source(ReplicaSet, None, &[]) }
        };
        assert!(are_one(&set("a", "h:1"), &set("a", "h:2")) && !are_one(&set("a", "h:1"), &set("b", "h:1")));
    }

    #[test]
    fn a_selection_is_a_set_and_no_list_runs_into_the_next() {
        let key = |databases: &[&str], include: &[&str]| {
            let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
            let settings = Settings {
                codec: Default::default(),
                level: 1,
                long_distance: false,
                readers: 1,
                frame_bytes: 1,
                segment_bytes: 1,
                databases: texts(databases),
                include: texts(include),
                exclude: Vec::new(),
                query: None,
                views_as_collections: false,
            };
            Selection::of(&settings).key()
        };
        assert_eq!(key(&["a", "b", "a"], &["y.*", "x.*"]), key(&["b", "a"], &["x.*", "y.*"]));
        assert_ne!(key(&["1", "a"], &[]), key(&[], &["1", "a"]));
        assert_ne!(key(&["a"], &[]), key(&[], &["a.*"]));
    }
}
