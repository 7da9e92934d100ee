//! Users and roles: into collections of their own first, from where the server merges them, as mongorestore has it done.

use std::sync::Arc;

use bson::rawdoc;

use super::insert::Inserter;
use super::{Blueprint, Target, ddl};
use crate::error::{Error, Result};
use crate::names::{Namespace, STAGING_PREFIX};
use crate::pipeline::cpu::Cpu;
use crate::pipeline::progress::Progress;

/// The database that has the users and roles of all.
pub const DATABASE: &str = "admin";

/// Documents of `admin.system.users` and `admin.system.roles`, one after the other.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    /// The users.
    pub users: Vec<u8>,
    /// The roles.
    pub roles: Vec<u8>,
}

/// Merges users and roles into those of the target: who is there already stays as they are. `id` is that of the import, whose
/// lease must hold the database [`DATABASE`].
///
/// # Errors
/// The server's, such as [`ErrorKind::Denied`](crate::error::ErrorKind::Denied): it takes the role `restore` or `root`.
pub async fn merge(target: &Target, id: &str, accounts: &Accounts) -> Result<()> {
    let place = |what: &str| Namespace::new(DATABASE, format!("{STAGING_PREFIX}{id}.{what}"));
    let places = [(place("users"), &accounts.users), (place("roles"), &accounts.roles)];
    let merging = async {
        for (place, documents) in &places {
            fill(target, place, documents).await?;
        }
        // `drop: false`: who is there stays, as they are; the login that does this may be one of them.
        let command = rawdoc! {
            "_mergeAuthzCollections": 1,
            "tempUsersCollection": places[0].0.to_string(),
            "tempRolesCollection": places[1].0.to_string(),
            "drop": false,
            "db": "",
            "writeConcern": { "w": "majority" },
        };
        target.run("merging users and roles", DATABASE, command).await
    };
    let merged = merging.await.map_err(|e| e.hint("it takes the role `restore` or `root` in the target"));
    for (place, _) in &places {
        ddl::drop(target, place).await?;
    }
    merged.map(|_| ())
}

async fn fill(target: &Target, place: &Namespace, documents: &[u8]) -> Result<()> {
    ddl::drop(target, place).await?;
    if documents.is_empty() {
        return Ok(());
    }
    let item = Progress::default().item(place.to_string(), 0, 0);
    let inserter = Inserter::new(target.clone(), Arc::new(Blueprint::standing(place.clone())), Cpu::of_this_machine());
    inserter.insert(documents.to_vec(), &item).await.map_err(|e: Error| e.context("users and roles"))?;
    Ok(())
}
