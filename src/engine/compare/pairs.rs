//! Which collections are compared with which. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::naming::Naming;
use super::options::CompareOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::names::{Namespace, NamespaceFilter, NamespacePattern};
use crate::source::discover::{CollectionInfo, Listing};

/// What both sides have, and what only one has.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// Each of the source with the one of the target.
    pub(super) both: Vec<(CollectionInfo, CollectionInfo)>,
    /// Names in the source, and the names that the target does not have.
    pub(super) missing: Vec<(Namespace, Namespace)>,
    /// The same for what only the target has.
    pub(super) extra: Vec<(Namespace, Namespace)>,
}

impl Pairs {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.both.len() + self.missing.len() + self.extra.len()
    }
}

/// Pairs two listings, in the order of the source's names.
///
/// # Errors
/// [`ErrorKind::Usage`] if two namespaces of the source would be compared with one.
pub(super) fn pair(source: Vec<CollectionInfo>, target: Vec<CollectionInfo>, naming: &Naming<'_>) -> Result<Pairs> {
    let mut standing: BTreeMap<Namespace, CollectionInfo> =
        target.into_iter().map(|info| (info.namespace.clone(), info)).collect();
    let mut pairs = Pairs::default();
    let mut compared: BTreeMap<Namespace, Namespace> = BTreeMap::new();
    for info in source {
        let (from, to) = (info.namespace.clone(), naming.of(&info.namespace)?);
        if let Some(other) = compared.insert(to.clone(), from.clone()) {
            return Err(Error::usage(format!("{other} and {from} would both be compared with {to}"))
                .hint("change [[rename]] so that each has a name of its own, or skip one with [[exclude]]"));
        }
        match standing.remove(&to) {
            Some(there) => pairs.both.push((info, there)),
            None => pairs.missing.push((from, to)),
        }
    }
    for to in standing.into_keys() {
        if let Some(from) = naming.back(&to)? {
            pairs.extra.push((from, to));
        }
    }
    Ok(pairs)
}

/// Refuses patterns, rules and databases that match nothing on either side, and a comparison of
/// nothing.
///
/// # Errors
/// [`ErrorKind::NotFound`].
pub(super) fn refuse_idle(
    (source, target): (&Listing, &Listing),
    options: &CompareOptions,
    filter: &NamespaceFilter,
    naming: &Naming<'_>,
) -> Result<()> {
    let check = "check it (case counts, '*' stands for any characters, quote it in the shell)";
    // Every name of either side, and every one that something in the target would have in the
    // source.
    let mut names: BTreeSet<Namespace> = source.names.iter().chain(&target.names).cloned().collect();
    for name in &target.names {
        names.extend(naming.origins(name)?);
    }
    let is_idle = |pattern: &&NamespacePattern| !names.iter().any(|name| pattern.matches(name));
    if let Some(pattern) = filter.patterns().find(is_idle) {
        let what = format!("the pattern {:?} matches no namespace of the source or the target", pattern.as_str());
        return Err(Error::new(ErrorKind::NotFound, what).hint(check));
    }
    for rename in &options.renames {
        let mut matches = target.names.iter().any(|name| rename.reverse(name).is_some());
        for name in &source.names {
            matches |= rename.apply(name)?.is_some();
        }
        if !matches {
            let what = format!("[[rename]] {:?} matches no namespace of the source or the target", rename.as_str());
            return Err(Error::new(ErrorKind::NotFound, what).hint(check));
        }
    }
    if let Some(database) = filter.databases.iter().find(|database| !names.iter().any(|name| name.database == **database)) {
        let what = format!("neither the source nor the target has anything of the database {database:?}");
        return Err(Error::new(ErrorKind::NotFound, what).hint("check its name; case counts"));
    }
    Ok(())
}

/// The error of a comparison of nothing.
pub(super) fn nothing() -> Error {
    Error::new(ErrorKind::NotFound, "there is nothing to compare: neither the source nor the target has any of it").hint(
        "check that both URIs lead to the right deployments, that the users may see their databases, and [[database]], [[include]] \
         and [[exclude]]",
    )
}

/// Refuses to compare a collection with itself, if both sides are one deployment.
///
/// # Errors
/// [`ErrorKind::Usage`].
pub(super) fn refuse_itself(pairs: &Pairs) -> Result<()> {
    match pairs.both.iter().find(|(source, target)| source.namespace == target.namespace) {
        None => Ok(()),
        Some((itself, _)) => Err(Error::usage(format!(
            "the source and the target are the same deployment, and {} would be compared with itself",
            itself.namespace
        ))
        .hint(
            "check [[MONGO_URI_ATLAS (or source)]] and [[MONGO_URI_LOCAL (or target)]]; to compare two namespaces of one deployment, \
             select one with [[database]] or [[include]], and name the other by [[rename]]",
        )),
    }
}
