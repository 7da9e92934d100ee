//! Restores users and roles: fills collections of its own, which the server then merges, as for
//! mongorestore.

use std::sync::Arc;

use bson::{RawDocument, rawdoc};

use super::insert::Inserter;
use super::{CollectionSpec, Target, ddl};
use crate::context::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::Documents;
use crate::names::{Namespace, STAGING_PREFIX};

/// The most bytes of users, and of roles, that are kept in memory until they are added.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// The database that stores all users and roles.
pub const DATABASE: &str = "admin";

/// Documents of `admin.system.users` and `admin.system.roles`, concatenated.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    /// The users.
    pub users: Vec<u8>,
    /// The roles.
    pub roles: Vec<u8>,
}

/// Selects users and roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedAccounts {
    /// Whether users are wanted.
    pub users: bool,
    /// Whether roles are wanted.
    pub roles: bool,
    /// Only those of this database; by default those of all databases.
    pub database: Option<String>,
}

impl WantedAccounts {
    /// All of them.
    #[must_use]
    pub fn all() -> Self {
        Self { users: true, roles: true, database: None }
    }
}

impl Accounts {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.roles.is_empty()
    }

    /// Takes more users.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if there are more than fit in memory.
    pub fn take_users(&mut self, documents: &[u8]) -> Result<()> {
        take(&mut self.users, documents)
    }

    /// Takes more roles.
    ///
    /// # Errors
    /// As for [`take_users`](Self::take_users).
    pub fn take_roles(&mut self, documents: &[u8]) -> Result<()> {
        take(&mut self.roles, documents)
    }

    /// The selected ones.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if they are not documents.
    pub fn only(&self, wanted: &WantedAccounts) -> Result<Self> {
        let of = |wants: bool, documents: &[u8]| -> Result<Vec<u8>> {
            let mut kept = Vec::new();
            for document in Documents::of(documents) {
                let document = document?;
                let database = RawDocument::from_bytes(document).ok().and_then(|d| d.get_str("db").ok());
                if wants && wanted.database.as_deref().is_none_or(|only| database == Some(only)) {
                    kept.extend_from_slice(document);
                }
            }
            Ok(kept)
        };
        Ok(Self { users: of(wanted.users, &self.users)?, roles: of(wanted.roles, &self.roles)? })
    }
}

fn take(kept: &mut Vec<u8>, documents: &[u8]) -> Result<()> {
    kept.extend_from_slice(documents);
    if kept.len() > MOST_BYTES {
        return Err(Error::new(ErrorKind::Refused, "the dump has more users or roles than can be added at once")
            .hint("import it without its users and roles"));
    }
    Ok(())
}

/// The collections through which users and roles are added.
#[derive(Debug, Clone, Copy)]
pub enum Through<'a> {
    /// Those of the import with this id, whose lease must cover the database [`DATABASE`].
    Own(&'a str),
    /// Those of MongoDB's tools: the only ones that the role `restore` allows the server to read.
    OfTools,
}

/// Adds users and roles to those of the target. Existing ones stay unchanged.
///
/// # Errors
/// Server errors; [`ErrorKind::Denied`] without the role `restore` or `root`.
pub async fn merge(target: &Target, through: Through<'_>, accounts: &Accounts) -> Result<()> {
    let place = |what: &str| match through {
        Through::Own(id) => Namespace::new(DATABASE, format!("{STAGING_PREFIX}{id}.{what}")),
        Through::OfTools => Namespace::new(DATABASE, format!("temp{what}")),
    };
    let places = [(place("users"), &accounts.users), (place("roles"), &accounts.roles)];
    let merging = async {
        for (place, documents) in &places {
            fill(target, place, documents, matches!(through, Through::OfTools)).await?;
        }
        // `drop: false`: existing users stay unchanged; the login that does this may be one of
        // them.
        let command = rawdoc! {
            "_mergeAuthzCollections": 1,
            "tempUsersCollection": places[0].0.to_string(),
            "tempRolesCollection": places[1].0.to_string(),
            "drop": false,
            "db": "",
            "writeConcern": { "w": "majority" },
        };
        target.run("adding users and roles", DATABASE, command).await
    };
    let merged = merging.await.map_err(|e| match e.kind() {
        ErrorKind::Denied => e.hint("this needs the role `restore` or `root` in the target"),
        _ => e,
    });
    for (place, _) in &places {
        let dropped = ddl::drop(target, place).await;
        if merged.is_ok() {
            dropped?;
        }
    }
    merged.map(|_| ())
}

async fn fill(target: &Target, place: &Namespace, documents: &[u8], unread: bool) -> Result<()> {
    ddl::drop(target, place).await?;
    if documents.is_empty() {
        return Ok(());
    }
    let item = Progress::default().item(place.to_string(), 0, 0);
    let inserter = Inserter::new(target.clone(), Arc::new(CollectionSpec { unread, ..CollectionSpec::standing(place.clone()) }));
    inserter.insert(documents.to_vec(), &item).await.map_err(|e: Error| e.context("users and roles"))?;
    Ok(())
}
