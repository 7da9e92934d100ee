//! Decides which parts of an oplog count for a selection.

pub mod by_name;

use bson::{Bson, Document, doc};

use super::Head;
use crate::names::SYSTEM_DATABASES;

/// The databases whose entries are kept: these, or all user databases if none is named; or every
/// entry, whatever it is about.
#[derive(Debug, Clone, Default)]
pub struct Databases {
    names: Vec<String>,
    everything: bool,
}

impl Databases {
    /// These databases, or all user databases if none is named.
    #[must_use]
    pub fn of(names: Vec<String>) -> Self {
        Self { names, everything: false }
    }

    /// These databases, or every entry if none is named: no-ops, too, and those about the
    /// deployment's own databases.
    #[must_use]
    pub fn or_everything(names: Vec<String>) -> Self {
        Self { everything: names.is_empty(), names }
    }

    /// Whether an entry is kept. Those that may be about several databases always are. No-ops and
    /// those about the deployment's own databases never are.
    #[must_use]
    pub fn want(&self, entry: &Head<'_>) -> bool {
        if self.everything {
            return true;
        }
        let is = |name: &str| name.as_bytes() == entry.database();
        let is_named = || self.names.is_empty() || self.names.iter().any(|d| is(d));
        let is_ours = || !SYSTEM_DATABASES.iter().any(|d| is(d)) && is_named();
        entry.operation != b"n" && (entry.is_grouped() || is_ours())
    }

    /// The part of this that a server can evaluate, so that fewer entries are sent: a filter on its
    /// oplog that passes everything wanted.
    #[must_use]
    pub fn query(&self) -> Document {
        if self.everything {
            return doc! {};
        }
        let mut wanted = doc! { "op": { "$ne": "n" } };
        if !self.names.is_empty() {
            // From `shop.` to before `shop/`, the next byte.
            let about = |d: &String| doc! { "ns": { "$gte": format!("{d}."), "$lt": format!("{d}/") } };
            let mut about: Vec<Bson> = self.names.iter().map(|d| about(d).into()).collect();
            about.push(doc! { "ns": "admin.$cmd" }.into());
            about.push(doc! { "op": "c", "o.applyOps": { "$exists": true } }.into());
            wanted.insert("$or", about);
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use bson::{Timestamp, doc};

    use super::*;

    #[test]
    fn entries_about_several_databases_are_wanted_and_those_of_the_deployment_are_not() {
        let shop = Databases::of(vec!["shop".to_owned()]);
        let several = doc! { "applyOps": [] };
        for (op, ns, o, of_all, of_shop) in [
            ("i", "shop.a", doc! {}, true, true),
            ("i", "shop2.a", doc! {}, true, false),
            ("c", "shop.$cmd", doc! { "create": "a" }, true, true),
            ("c", "other.$cmd", doc! { "create": "a" }, true, false),
            ("c", "admin.$cmd", several.clone(), true, true),
            ("c", "other.$cmd", several, true, true),
            ("c", "admin.$cmd", doc! { "commitTransaction": 1 }, true, true),
            ("i", "config.transactions", doc! {}, false, false),
            ("n", "", doc! {}, false, false),
        ] {
            let entry = doc! { "op": op, "ns": ns, "o": o, "ts": Timestamp { time: 1, increment: 1 } }.to_vec().unwrap();
            let head = Head::of(&entry).unwrap();
            assert_eq!((Databases::default().want(&head), shop.want(&head)), (of_all, of_shop), "{op} {ns}");
            assert!(Databases::or_everything(Vec::new()).want(&head));
        }
    }
}
