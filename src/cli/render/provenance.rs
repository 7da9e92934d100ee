//! Where a backup came from and what was asked for, in a few words.

use super::plain;
use crate::format::manifest::DUMP_SCHEME;
use crate::repository::catalog::Provenance;
use crate::repository::catalog::provenance::{BriefSource, Grouped, Selection};

/// The deployment by its replica set's name and a host: `rs0 at db1:27017 and 2 more`.
#[must_use]
pub fn source(source: &BriefSource) -> String {
    if let Some(dump) = source.uri.strip_prefix(DUMP_SCHEME) {
        return format!("dump {}", plain(dump));
    }
    let set = source.replica_set.as_ref().map(|name| format!("{name} at ")).unwrap_or_default();
    let host = source.hosts.first().map_or(source.uri.as_str(), String::as_str);
    let more = match source.hosts.len() {
        0 | 1 => String::new(),
        many => format!(" and {} more", many - 1),
    };
    plain(&format!("{set}{host}{more}"))
}

/// What was asked for: `everything`, or databases and patterns.
#[must_use]
pub fn selection(selection: &Selection) -> String {
    let Selection { databases, include, exclude, query, views_as_collections } = selection;
    let mut parts = Vec::new();
    if !databases.is_empty() {
        parts.push(databases.join(", "));
    }
    if !include.is_empty() {
        parts.push(format!("only {}", include.join(", ")));
    }
    if parts.is_empty() {
        parts.push("everything".to_owned());
    }
    if !exclude.is_empty() {
        parts.push(format!("without {}", exclude.join(", ")));
    }
    if *views_as_collections {
        parts.push("(what views show)".to_owned());
    }
    if let Some(query) = query {
        parts.push(format!("matching {query}"));
    }
    plain(&parts.join(" "))
}

/// Both.
#[must_use]
pub fn line(provenance: &Provenance) -> String {
    both(&provenance.source, &provenance.selection)
}

/// Both; none of a backup that is not complete.
#[must_use]
pub fn of(of: &Grouped) -> Option<String> {
    Some(both(of.source.as_ref()?, of.selection.as_ref()?))
}

fn both(of: &BriefSource, asked: &Selection) -> String {
    format!("{}: {}", source(of), selection(asked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::Topology;

    #[test]
    fn a_deployment_and_a_selection_take_a_few_words() {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let of = |uri: &str, hosts: &[&str], set: Option<&str>| {
            let (uri, hosts, replica_set) = (uri.to_owned(), texts(hosts), set.map(str::to_owned));
            source(&BriefSource { uri, hosts, topology: Topology::ReplicaSet, replica_set, id: None })
        };
        assert_eq!(of("mongodb://a:1,b:2", &["a:1", "b:2", "c:3"], Some("rs0")), "rs0 at a:1 and 2 more");
        assert_eq!(of("mongodb://a:1", &["a:1"], None), "a:1");
        assert_eq!(of("dump:all.\u{1b}archive", &[], None), "dump all.\\u{1b}archive");
        let asked = |databases: &[&str], include: &[&str], exclude: &[&str]| {
            let (databases, include, exclude) = (texts(databases), texts(include), texts(exclude));
            selection(&Selection { databases, include, exclude, ..Selection::default() })
        };
        assert_eq!(asked(&[], &[], &[]), "everything");
        assert_eq!(asked(&[], &[], &["*.log"]), "everything without *.log");
        let query = Some(r#"{"a":1}"#.to_owned());
        let part = Selection { include: texts(&["a.b"]), query, ..Selection::default() };
        assert_eq!(selection(&part), r#"only a.b matching {"a":1}"#);
        assert_eq!(asked(&["crm", "shop"], &["*.a"], &["*.b", "*.c"]), "crm, shop only *.a without *.b, *.c");
    }
}
