//! Chooses the member of a replica set that documents are read from.
//!
//! A read preference chooses one member, and every read goes to it until it fails. What a cursor
//! returned (a position in the storage order, the newest document of a capped collection) is only
//! exact on the same member.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bson::{Document, rawdoc};
use mongodb::options::{DatabaseOptions, SelectionCriteria};
use mongodb::{Client, Database};

use super::read_preference::{Mode, ReadPreference};
use super::{Role, command, failure};
use crate::error::{Error, ErrorKind, Result};

/// How long to look for the best kind of member before trying the next.
const WAIT_FOR_BETTER: Duration = Duration::from_secs(2);

/// How long the chosen member may take to confirm that it still serves reads.
const WAIT_FOR_CHOSEN: Duration = Duration::from_secs(2);

/// The operation, as messages name it.
const LOOKING: &str = "looking for a member to read from";

/// Who answers which requests.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    documents: Reader,
    /// There was no primary at the start: the member for reads answers everything.
    for_all: bool,
}

#[derive(Debug, Clone, Default)]
enum Reader {
    /// The server that accepts writes, or the only one there is.
    #[default]
    Main,
    /// A mongos chooses.
    Mongos(SelectionCriteria),
    /// One member.
    Member(Arc<Chosen>),
}

/// The chosen member.
#[derive(Debug)]
struct Chosen {
    preference: ReadPreference,
    role: Role,
    /// `host:port` in lower case, as the set names it, and whether it was the primary.
    member: RwLock<(String, bool)>,
    /// Only one task at a time looks for another member.
    turn: tokio::sync::Mutex<()>,
}

impl Members {
    /// Looks for a server by a preference. Returns the first `hello` reply, which is the primary's
    /// if the set has one.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] if nothing answers; [`ErrorKind::Refused`] if the preference
    /// cannot be honored.
    pub(super) async fn find(client: &Client, preference: &ReadPreference, role: Role, direct: bool) -> Result<(Self, Document)> {
        let any = ReadPreference { mode: Mode::PrimaryPreferred, tag_sets: Vec::new(), max_staleness: None };
        let strict = ReadPreference { mode: Mode::Primary, ..any.clone() };
        let first = if preference.mode == Mode::Primary { &strict } else { &any };
        let hello = first_of(client, first.steps()).await.map_err(|e| failure::describe(role, LOOKING, e))?;
        if hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") {
            return Ok((Self { documents: Reader::Mongos(preference.handed_on()), for_all: false }, hello));
        }
        if direct || hello.get_str("setName").is_err() {
            return match preference.why_not(&hello) {
                Some(why) => Err(refused(preference, &why)),
                None => Ok((Self::default(), hello)),
            };
        }
        if preference.mode == Mode::Primary {
            return Ok((Self::default(), hello));
        }
        let member = choose(client, preference, role).await?;
        let chosen =
            Chosen { preference: preference.clone(), role, member: RwLock::new(member), turn: tokio::sync::Mutex::default() };
        let for_all = !hello.get_bool("isWritablePrimary").unwrap_or(false);
        Ok((Self { documents: Reader::Member(Arc::new(chosen)), for_all }, hello))
    }

    /// A database for everything but document reads.
    pub(super) fn database(&self, client: &Client, name: &str) -> Database {
        if self.for_all { self.documents(client, name) } else { client.database(name) }
    }

    /// A database for document reads.
    pub(super) fn documents(&self, client: &Client, name: &str) -> Database {
        match &self.documents {
            Reader::Main => client.database(name),
            Reader::Mongos(criteria) => with(client, name, criteria.clone()),
            Reader::Member(chosen) => with(client, name, chosen.criteria()),
        }
    }

    /// The chosen member (`host:port`), whether it was the primary, and the preference that chose
    /// it.
    pub(super) fn chosen(&self) -> Option<(String, bool, &ReadPreference)> {
        let Reader::Member(chosen) = &self.documents else { return None };
        let (address, is_primary) = chosen.member.read().unwrap_or_else(PoisonError::into_inner).clone();
        Some((address, is_primary, &chosen.preference))
    }

    /// Handles a failure: if the chosen member does not answer any more, or changed its state,
    /// another matching one is chosen.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] if none matches.
    pub(super) async fn reconsider(&self, client: &Client) -> Result<()> {
        let Reader::Member(chosen) = &self.documents else { return Ok(()) };
        let _one_at_a_time = chosen.turn.lock().await;
        let admin = with(client, "admin", chosen.criteria());
        let ask = command::run(&admin, rawdoc! { "hello": 1 });
        if let Ok(Ok(hello)) = tokio::time::timeout(WAIT_FOR_CHOSEN, ask).await
            && serves(&hello)
        {
            return Ok(());
        }
        let found = choose(client, &chosen.preference, chosen.role).await?;
        tracing::warn!("now reading documents from {}", found.0);
        *chosen.member.write().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(())
    }
}

impl Chosen {
    fn criteria(self: &Arc<Self>) -> SelectionCriteria {
        let chosen = self.clone();
        SelectionCriteria::Predicate(Arc::new(move |server| {
            let member = chosen.member.read().unwrap_or_else(PoisonError::into_inner);
            server.address().to_string().eq_ignore_ascii_case(&member.0)
        }))
    }
}

fn with(client: &Client, name: &str, criteria: SelectionCriteria) -> Database {
    client.database_with_options(name, DatabaseOptions::builder().selection_criteria(criteria).build())
}

/// Whether a member serves reads.
fn serves(hello: &Document) -> bool {
    ["isWritablePrimary", "secondary"].iter().any(|state| hello.get_bool(state).unwrap_or(false))
}

/// The best matching member, `host:port` as the set names it, and whether it is the primary.
async fn choose(client: &Client, preference: &ReadPreference, role: Role) -> Result<(String, bool)> {
    let hello = first_of(client, preference.steps()).await.map_err(|e| match members_of(&e) {
        // A transient error: a matching member may come back.
        Some(members) => refused(preference, &members).cause(e),
        None => failure::describe(role, LOOKING, e),
    })?;
    let me =
        hello.get_str("me").map_err(|_| Error::new(ErrorKind::Server, "a member of the replica set does not report its name"))?;
    Ok((me.to_lowercase(), hello.get_bool("isWritablePrimary").unwrap_or(false)))
}

fn refused(preference: &ReadPreference, why: &str) -> Error {
    Error::new(ErrorKind::Refused, format!("{preference} cannot be honored: {why}"))
        .hint("choose another read preference, or omit it to read from the primary")
}

/// Asks for the best kind of member, and then for the next; for the last kind, as long as the
/// server selection lasts.
async fn first_of(client: &Client, steps: Vec<SelectionCriteria>) -> Result<Document, mongodb::error::Error> {
    let last = steps.len().saturating_sub(1);
    for (number, criteria) in steps.into_iter().enumerate() {
        let admin = with(client, "admin", criteria);
        let ask = command::ask(&admin, rawdoc! { "hello": 1 });
        if number == last {
            return ask.await;
        }
        if let Ok(Ok(hello)) = tokio::time::timeout(WAIT_FOR_BETTER, ask).await {
            return Ok(hello);
        }
    }
    Err(command::broken("there is nothing to look for"))
}

/// The members in the driver's description of the topology, if it looked for one in vain.
fn members_of(error: &mongodb::error::Error) -> Option<String> {
    let mongodb::error::ErrorKind::ServerSelection { message, .. } = error.kind.as_ref() else { return None };
    let members = message.split("Address: ").skip(1).filter_map(|member| {
        let (address, rest) = member.split_once(", Type: ")?;
        let kind = rest.split([',', ' ']).next()?;
        let tags = rest.split_once("Tags: {").and_then(|(_, tags)| tags.split_once('}')).map_or("", |(tags, _)| tags);
        let tags = if tags.is_empty() { String::new() } else { format!(" with the tags {{{tags}}}") };
        Some(match kind {
            "RsPrimary" => format!("{address} is the primary{tags}"),
            "RsSecondary" => format!("{address} is a secondary{tags}"),
            _ => format!("{address} does not answer as a readable member"),
        })
    });
    let members: Vec<String> = members.collect();
    (!members.is_empty()).then(|| format!("no member fits: {}", members.join(", ")))
}
