//! The rights of a login, as `connectionStatus` reports them, and what they mean for a namespace,
//! by the server's rules of which privilege covers what.

use std::collections::BTreeSet;

use bson::{Bson, Document, rawdoc};

use super::failure::{describe, is_transient};
use super::{Connection, command};
use crate::error::Result;
use crate::names::{BUCKETS_PREFIX, Namespace};

/// A privilege with `anyAction` covers all actions.
const ANY_ACTION: &str = "anyAction";

/// The rights of a login.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// The logged-in users, `name@database`; empty without a login.
    pub users: Vec<String>,
    /// Whether the server enforces rights at all.
    pub enforced: bool,
    privileges: Vec<Privilege>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Privilege {
    resource: Resource,
    actions: BTreeSet<String>,
}

/// The resource of a privilege. `None` means any.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Resource {
    Everything,
    Cluster,
    Collections {
        database: Option<String>,
        collection: Option<String>,
    },
    Buckets {
        database: Option<String>,
        series: Option<String>,
    },
    /// An unknown kind. It grants nothing, so that in doubt there is a warning.
    Unknown,
}

/// The object of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The deployment.
    Cluster,
    /// A database as such.
    Database(String),
    /// A collection.
    Collection(Namespace),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cluster => f.write_str("the cluster"),
            Self::Database(database) => f.write_str(database),
            Self::Collection(namespace) => namespace.fmt(f),
        }
    }
}

impl Rights {
    /// Asks the server.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`](crate::error::ErrorKind::Denied),
    /// [`ErrorKind::Unreachable`](crate::error::ErrorKind::Unreachable),
    /// [`ErrorKind::Server`](crate::error::ErrorKind::Server).
    pub async fn ask(connection: &Connection) -> Result<Self> {
        let admin = connection.database("admin");
        let status = command::ask(&admin, rawdoc! { "connectionStatus": 1, "showPrivileges": true })
            .await
            .map_err(|e| describe(connection.role(), "reading the login's rights", e))?;
        let mut rights = Self::of(&status);
        // Servers do not say directly whether they enforce rights. This command needs a right,
        // changes nothing, and shows the settings if it is allowed.
        rights.enforced = match command::ask(&admin, rawdoc! { "getCmdLineOpts": 1 }).await {
            Err(e) if is_transient(&e) => return Err(describe(connection.role(), "reading the login's rights", e)),
            Err(_) => true,
            Ok(options) => rights.allows(&Place::Cluster, "getCmdLineOpts") && asks_for_rights(&options),
        };
        Ok(rights)
    }

    /// The rights in a reply to `connectionStatus`.
    fn of(status: &Document) -> Self {
        let documents = |name| {
            let listed = status.get_document("authInfo").and_then(|info| info.get_array(name));
            listed.ok().into_iter().flatten().filter_map(Bson::as_document)
        };
        let users = documents("authenticatedUsers")
            .map(|u| format!("{}@{}", u.get_str("user").unwrap_or("?"), u.get_str("db").unwrap_or("?")))
            .collect();
        let privileges = documents("authenticatedUserPrivileges")
            .map(|p| Privilege {
                resource: p.get_document("resource").map_or(Resource::Unknown, resource),
                actions: p.get_array("actions").into_iter().flatten().filter_map(Bson::as_str).map(str::to_owned).collect(),
            })
            .collect();
        Self { users, enforced: true, privileges }
    }

    /// Whether this action is allowed on this place.
    #[must_use]
    pub fn allows(&self, place: &Place, action: &str) -> bool {
        !self.enforced
            || self
                .privileges
                .iter()
                .any(|p| (p.actions.contains(action) || p.actions.contains(ANY_ACTION)) && p.resource.covers(place))
    }
}

/// Whether the settings in a reply to `getCmdLineOpts` enable access control.
fn asks_for_rights(options: &Document) -> bool {
    let Ok(security) = options.get_document("parsed").and_then(|parsed| parsed.get_document("security")) else { return false };
    let on = security.get_str("authorization").is_ok_and(|a| a == "enabled")
        || security.contains_key("keyFile")
        || security.get_str("clusterAuthMode").is_ok();
    on && !security.get_bool("transitionToAuth").unwrap_or(false)
}

fn resource(document: &Document) -> Resource {
    let text = |name| document.get_str(name).ok().filter(|t| !t.is_empty()).map(str::to_owned);
    if document.get_bool("anyResource").unwrap_or(false) {
        Resource::Everything
    } else if document.get_bool("cluster").unwrap_or(false) {
        Resource::Cluster
    } else if document.contains_key("system_buckets") {
        Resource::Buckets { database: text("db"), series: text("system_buckets") }
    } else if document.contains_key("db") && document.contains_key("collection") {
        Resource::Collections { database: text("db"), collection: text("collection") }
    } else {
        Resource::Unknown
    }
}

impl Resource {
    /// The rules of `buildResourceSearchList` in the server's `authorization_session_impl.cpp`. A
    /// privilege on a database covers its ordinary collections, not those named `system.`. One on
    /// any database does not cover `local` and `config`. One on a collection's name covers just
    /// that.
    fn covers(&self, place: &Place) -> bool {
        let is = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|w| w == name);
        let is_internal = |database: &str| matches!(database, "local" | "config");
        match (self, place) {
            (Self::Everything, _) | (Self::Cluster, Place::Cluster) => true,
            (Self::Collections { database: None, collection: None }, Place::Database(database)) => !is_internal(database),
            (Self::Collections { database: Some(wanted), collection: None }, Place::Database(database)) => wanted == database,
            (Self::Collections { database, collection: None }, Place::Collection(namespace)) => {
                !namespace.collection.starts_with("system.")
                    && match database {
                        Some(wanted) => *wanted == namespace.database,
                        None => !is_internal(&namespace.database),
                    }
            }
            (Self::Collections { database, collection }, Place::Collection(namespace)) => {
                is(database, &namespace.database) && is(collection, &namespace.collection)
            }
            (Self::Buckets { database, series }, Place::Collection(namespace)) => {
                namespace.collection.strip_prefix(BUCKETS_PREFIX).is_some_and(|name| is(series, name))
                    && is(database, &namespace.database)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    fn rights(privileges: Vec<Document>) -> Rights {
        Rights::of(&doc! { "authInfo": { "authenticatedUsers": [{ "user": "u", "db": "admin" }],
        "authenticatedUserPrivileges": privileges } })
    }

    fn may_find(resource: Document, database: &str, collection: &str) -> bool {
        let rights = rights(vec![doc! { "resource": resource, "actions": ["find"] }]);
        assert!(!rights.allows(&Place::Collection(Namespace::new(database, collection)), "insert"));
        rights.allows(&Place::Collection(Namespace::new(database, collection)), "find")
    }

    #[test]
    fn a_database_is_its_ordinary_collections() {
        let shop = || doc! { "db": "shop", "collection": "" };
        assert!(may_find(shop(), "shop", "orders"));
        assert!(!may_find(shop(), "shop2", "orders"));
        assert!(!may_find(shop(), "shop", "system.js"));
        assert!(!may_find(shop(), "shop", "system.buckets.ts"));
        assert!(may_find(doc! { "db": "shop", "collection": "system.js" }, "shop", "system.js"));
        assert!(may_find(doc! { "db": "", "collection": "orders" }, "shop", "orders"));
        assert!(!may_find(doc! { "db": "shop", "collection": "orders" }, "shop", "orders2"));
    }

    #[test]
    fn any_database_leaves_local_and_config_out() {
        let any = || doc! { "db": "", "collection": "" };
        assert!(may_find(any(), "shop", "orders"));
        assert!(may_find(any(), "admin", "x"));
        assert!(!may_find(any(), "local", "oplog.rs"));
        assert!(!may_find(any(), "config", "transactions"));
        assert!(!may_find(any(), "shop", "system.buckets.ts"));
        assert!(may_find(doc! { "db": "local", "collection": "" }, "local", "oplog.rs"));
        assert!(may_find(doc! { "anyResource": true }, "local", "oplog.rs"));
    }

    #[test]
    fn buckets_have_resources_of_their_own() {
        for resource in [
            doc! { "system_buckets": "" },
            doc! { "db": "shop", "system_buckets": "" },
            doc! { "system_buckets": "ts" },
            doc! { "db": "shop", "system_buckets": "ts" },
            doc! { "db": "shop", "collection": "system.buckets.ts" },
        ] {
            assert!(may_find(resource.clone(), "shop", "system.buckets.ts"), "{resource}");
            assert!(!may_find(resource, "shop", "ts"));
        }
        assert!(!may_find(doc! { "db": "other", "system_buckets": "" }, "shop", "system.buckets.ts"));
        assert!(!may_find(doc! { "system_buckets": "other" }, "shop", "system.buckets.ts"));
    }

    #[test]
    fn the_cluster_is_covered_by_itself_and_by_everything() {
        for (resource, covered) in [
            (doc! { "cluster": true }, true),
            (doc! { "anyResource": true }, true),
            (doc! { "db": "", "collection": "" }, false),
            (doc! { "something": "new" }, false),
        ] {
            let rights = rights(vec![doc! { "resource": resource.clone(), "actions": ["anyAction"] }]);
            assert_eq!(rights.allows(&Place::Cluster, "replSetGetConfig"), covered, "{resource}");
        }
    }

    #[test]
    fn the_settings_say_whether_rights_are_asked_for() {
        assert!(asks_for_rights(&doc! { "parsed": { "security": { "authorization": "enabled" } } }));
        assert!(asks_for_rights(&doc! { "parsed": { "security": { "keyFile": "/k" } } }));
        assert!(!asks_for_rights(&doc! { "parsed": { "security": { "keyFile": "/k", "transitionToAuth": true } } }));
        assert!(!asks_for_rights(&doc! { "parsed": { "net": {} } }));
    }

    #[test]
    fn without_access_control_all_is_allowed() {
        let rights = Rights { enforced: false, ..Rights::default() };
        assert!(rights.allows(&Place::Cluster, "shutdown"));
    }
}
