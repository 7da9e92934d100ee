//! What a backup was asked to hold.

use std::collections::HashSet;

use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::names::{Namespace, NamespaceFilter};

/// What a backup was asked to hold, and what of that it had to skip.
#[derive(Debug)]
pub(super) struct AskedFor {
    left_out: HashSet<Namespace>,
    filter: NamespaceFilter,
}

impl AskedFor {
    pub(super) fn of(manifest: &Manifest) -> Result<Self> {
        let settings = &manifest.settings;
        Ok(Self {
            left_out: manifest.left_out.iter().map(|l| Namespace::new(&*l.database, &*l.collection)).collect(),
            filter: NamespaceFilter::parse(&settings.databases, &settings.include, &settings.exclude)?,
        })
    }

    /// Whether the backup would hold this namespace if the source had it.
    pub(super) fn has(&self, namespace: &Namespace) -> bool {
        self.filter.takes(namespace) && !namespace.is_of_an_import()
    }

    /// The same, without the namespaces that the backup had to skip.
    pub(super) fn could_have(&self, namespace: &Namespace) -> bool {
        self.has(namespace) && !self.left_out.contains(namespace)
    }
}
