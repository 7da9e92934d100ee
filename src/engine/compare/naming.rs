//! Which name in the target belongs to which one in the source. Pure.

use std::collections::BTreeSet;

use super::options::CompareOptions;
use crate::error::{Error, Result};
use crate::names::{Namespace, NamespaceFilter, SYSTEM_DATABASES, check_database};

/// How names of the source become names of the target.
#[derive(Debug)]
pub(super) struct Naming<'a> {
    options: &'a CompareOptions,
    /// The compared namespaces, by their names in the source.
    filter: &'a NamespaceFilter,
    /// The single database of the source, and the one that it is compared with.
    database: Option<(String, String)>,
}

impl<'a> Naming<'a> {
    /// The naming for a source with these namespaces. The database in the path of the target's URI
    /// may be there for other programs: it counts only if a single database is compared, and nobody
    /// chose that by name.
    pub(super) fn of_sides(
        options: &'a CompareOptions,
        filter: &'a NamespaceFilter,
        source: impl Iterator<Item = &'a Namespace>,
        in_path: Option<&str>,
    ) -> Result<Self> {
        let mut naming = Self { options, filter, database: None };
        let mut databases = BTreeSet::new();
        for namespace in source {
            if naming.by_rule(namespace)?.is_none() {
                databases.insert(namespace.database.as_str());
            }
        }
        let new = in_path.filter(|_| databases.len() == 1 && options.filter.databases.is_empty());
        naming.database = databases.first().map(|&old| old.to_owned()).zip(new.map(str::to_owned));
        Ok(naming)
    }

    /// The name in the target.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if nothing there can have it.
    pub(super) fn of(&self, namespace: &Namespace) -> Result<Namespace> {
        let Some(to) = self.by_rule(namespace)? else { return Ok(self.by_database(namespace)) };
        check_database(&to.database)?;
        if SYSTEM_DATABASES.contains(&to.database.as_str()) {
            let what = format!("[[rename]] turns {namespace} into {to}, and the database {} belongs to the server", to.database);
            return Err(Error::usage(what).hint("choose another name"));
        }
        Ok(to)
    }

    /// The name that a namespace of the target has in the source, if it belongs to what is
    /// compared.
    pub(super) fn back(&self, standing: &Namespace) -> Result<Option<Namespace>> {
        Ok(self.origins(standing)?.into_iter().find(|name| self.filter.takes(name)))
    }

    /// The names in the source that a namespace of the target could come from, selected or not.
    pub(super) fn origins(&self, standing: &Namespace) -> Result<Vec<Namespace>> {
        let renamed = self.options.renames.iter().filter_map(|rename| rename.reverse(standing));
        let mut origins = Vec::new();
        for name in renamed.chain([self.back_by_database(standing)]) {
            if self.of(&name)? == *standing {
                origins.push(name);
            }
        }
        Ok(origins)
    }

    /// What to list in the target, if the source has these namespaces.
    pub(super) fn target_filter<'n>(&self, source: impl Iterator<Item = &'n Namespace>) -> Result<NamespaceFilter> {
        if self.options.renames.is_empty() && self.database.is_none() {
            return Ok(self.filter.clone());
        }
        if self.filter.databases.is_empty() && self.database.is_none() {
            return Ok(NamespaceFilter::default());
        }
        let mut databases = BTreeSet::new();
        for namespace in source {
            databases.insert(self.of(namespace)?.database);
        }
        for database in &self.filter.databases {
            // By the rules for a whole database.
            databases.insert(self.of(&Namespace::new(&**database, "any"))?.database);
        }
        Ok(NamespaceFilter { databases: databases.into_iter().collect(), ..NamespaceFilter::default() })
    }

    fn by_rule(&self, namespace: &Namespace) -> Result<Option<Namespace>> {
        for rename in &self.options.renames {
            if let Some(new) = rename.apply(namespace)? {
                return Ok(Some(new));
            }
        }
        Ok(None)
    }

    fn by_database(&self, namespace: &Namespace) -> Namespace {
        match &self.database {
            Some((old, new)) if *old == namespace.database => Namespace::new(&**new, &*namespace.collection),
            _ => namespace.clone(),
        }
    }

    fn back_by_database(&self, standing: &Namespace) -> Namespace {
        match &self.database {
            Some((old, new)) if *new == standing.database => Namespace::new(&**old, &*standing.collection),
            _ => standing.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::NamespaceRename;

    fn options(databases: &[&str], include: &[&str], renames: &[&str]) -> CompareOptions {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        CompareOptions {
            filter: NamespaceFilter::parse(&texts(databases), &texts(include), &[]).unwrap(),
            renames: renames.iter().map(|text| NamespaceRename::parse(text).unwrap()).collect(),
            ..CompareOptions::default()
        }
    }

    fn name(text: &str) -> Namespace {
        let (database, collection) = text.split_once('.').unwrap();
        Namespace::new(database, collection)
    }

    #[test]
    fn names_follow_the_first_rule_and_come_back() {
        let options = options(&[], &["shop.*", "crm.*"], &["shop.a=shop.b", "shop.*=copy.*"]);
        let source = [name("shop.a"), name("crm.x")];
        let naming = Naming::of_sides(&options, &options.filter, source.iter(), None).unwrap();
        for (from, to) in [("shop.a", "shop.b"), ("shop.z", "copy.z"), ("crm.x", "crm.x")] {
            assert_eq!(naming.of(&name(from)).unwrap(), name(to));
            assert_eq!(naming.back(&name(to)).unwrap(), Some(name(from)));
        }
        // Nothing comes here: the rules lead away, or the filter does not take it.
        for nothing in ["shop.z", "copy.a", "other.x"] {
            assert_eq!(naming.back(&name(nothing)).unwrap(), None, "{nothing}");
        }
        assert!(naming.target_filter(source.iter()).unwrap().databases.is_empty());
    }

    #[test]
    fn the_path_of_the_target_renames_a_single_database_that_nobody_named() {
        let source = [name("shop.a"), name("shop.b")];
        let (any, named) = (options(&[], &[], &[]), options(&["shop"], &[], &[]));
        let filter = any.filter.clone().or_in(Some("shop"));
        for filter in [&filter, &any.filter] {
            let naming = Naming::of_sides(&any, filter, source.iter(), Some("copy")).unwrap();
            assert_eq!(naming.of(&source[0]).unwrap(), name("copy.a"));
            assert_eq!(naming.back(&name("copy.new")).unwrap(), Some(name("shop.new")));
            assert_eq!(naming.back(&name("shop.new")).unwrap(), None);
            assert_eq!(naming.target_filter(source.iter()).unwrap().databases, ["copy"]);
        }
        let naming = Naming::of_sides(&named, &named.filter, source.iter(), Some("copy")).unwrap();
        assert_eq!(naming.of(&source[0]).unwrap(), source[0]);
        let two = [name("shop.a"), name("crm.b")];
        let naming = Naming::of_sides(&any, &any.filter, two.iter(), Some("copy")).unwrap();
        assert_eq!(naming.of(&two[0]).unwrap(), two[0]);
    }

    #[test]
    fn a_database_of_the_server_is_no_target() {
        let options = options(&["shop"], &[], &["shop.*=admin.*"]);
        let naming = Naming::of_sides(&options, &options.filter, [].iter(), None).unwrap();
        assert_eq!(naming.of(&name("shop.a")).unwrap_err().exit_code(), 2);
    }
}
