//! Which member of a replica set documents are read from.
//!
//! A read preference chooses one member, and every read goes to it until it fails: what one cursor told (its place in the order of
//! storage, the newest document of a capped collection) means most to the member that told it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bson::{Document, rawdoc};
use mongodb::options::{DatabaseOptions, ReadPreference as Criteria, ReadPreferenceOptions, SelectionCriteria};
use mongodb::{Client, Database};
use serde::Deserialize;

use super::{Role, command, failure};
use crate::error::{Error, ErrorKind, Result};

/// How long to look for a member that is better than the next one that would do.
const WAIT_FOR_BETTER: Duration = Duration::from_secs(2);

/// How long the chosen member may take to say that it is still there.
const WAIT_FOR_CHOSEN: Duration = Duration::from_secs(2);

/// What is done, as messages say it.
const LOOKING: &str = "looking for a member to read from";

/// The shortest `maxStalenessSeconds` that servers and drivers take.
const LEAST_STALENESS: u64 = 90;

/// The kinds of members that are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Primary,
    PrimaryPreferred,
    Secondary,
    SecondaryPreferred,
    Nearest,
}

const MODES: [(&str, Mode); 5] = [
    ("primary", Mode::Primary),
    ("primaryPreferred", Mode::PrimaryPreferred),
    ("secondary", Mode::Secondary),
    ("secondaryPreferred", Mode::SecondaryPreferred),
    ("nearest", Mode::Nearest),
];

/// Which members documents are read from: a mode, sets of tags of which the first that any member has counts, and how far a
/// secondary may lag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPreference {
    mode: Mode,
    tag_sets: Vec<BTreeMap<String, String>>,
    max_staleness: Option<Duration>,
}

/// The form of a document, as mongodump takes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    mode: String,
    #[serde(default, alias = "tags")]
    tag_sets: TagSets,
    max_staleness_seconds: Option<i64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TagSets {
    Several(Vec<BTreeMap<String, String>>),
    One(BTreeMap<String, String>),
}

impl Default for TagSets {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl ReadPreference {
    /// Reads a mode (`secondary`), or a document as mongodump takes it:
    /// `{mode: "nearest", tagSets: [{dc: "east"}], maxStalenessSeconds: 120}`; its names need no quotes.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`].
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let written = if text.starts_with('{') {
            serde_json::from_str(&with_quoted_names(text))
                .map_err(|e| unreadable(format!("the read preference {text} cannot be read: {e}")))?
        } else {
            Written { mode: text.to_owned(), tag_sets: TagSets::default(), max_staleness_seconds: None }
        };
        let known = MODES.iter().find(|(name, _)| name.eq_ignore_ascii_case(&written.mode));
        let Some((_, mode)) = known else { return Err(unreadable(format!("{:?} is no read preference", written.mode))) };
        let tag_sets = match written.tag_sets {
            TagSets::Several(sets) => sets,
            TagSets::One(set) => vec![set],
        };
        // The drivers' specification: nothing that is positive means no limit.
        let max_staleness = written.max_staleness_seconds.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
        Self { mode: *mode, tag_sets, max_staleness: max_staleness.map(Duration::from_secs) }.checked()
    }

    /// That of a connection string, if it has one.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`].
    pub(super) fn of(criteria: Option<SelectionCriteria>) -> Result<Option<Self>> {
        let Some(SelectionCriteria::ReadPreference(criteria)) = criteria else { return Ok(None) };
        let (mode, options) = match criteria {
            Criteria::Primary => (Mode::Primary, None),
            Criteria::PrimaryPreferred { options } => (Mode::PrimaryPreferred, options),
            Criteria::Secondary { options } => (Mode::Secondary, options),
            Criteria::SecondaryPreferred { options } => (Mode::SecondaryPreferred, options),
            Criteria::Nearest { options } => (Mode::Nearest, options),
            _ => return Ok(None),
        };
        let options = options.unwrap_or_default();
        let tag_sets = options.tag_sets.unwrap_or_default().into_iter().map(|set| set.into_iter().collect()).collect();
        let max_staleness = options.max_staleness.filter(|s| !s.is_zero());
        Self { mode, tag_sets, max_staleness }.checked().map(Some)
    }

    fn checked(self) -> Result<Self> {
        if self.mode == Mode::Primary && (self.max_staleness.is_some() || self.wants_tags()) {
            return Err(unreadable("the read preference `primary` takes neither tags nor maxStalenessSeconds".to_owned()));
        }
        match self.max_staleness {
            Some(seconds) if seconds.as_secs() < LEAST_STALENESS => {
                Err(unreadable(format!("maxStalenessSeconds is {}: expected {LEAST_STALENESS} or more", seconds.as_secs())))
            }
            _ => Ok(self),
        }
    }

    /// Whether a member without the tags does not do.
    fn wants_tags(&self) -> bool {
        !self.tag_sets.is_empty() && self.tag_sets.iter().all(|set| !set.is_empty())
    }

    fn has_tags(&self, tags: &HashMap<String, String>) -> bool {
        let fits = |set: &BTreeMap<String, String>| set.iter().all(|(name, value)| tags.get(name) == Some(value));
        self.tag_sets.is_empty() || self.tag_sets.iter().any(fits)
    }

    /// The same in the driver's words, of members of this kind with these tags.
    fn criteria(&self, mode: Mode, tags: Option<&BTreeMap<String, String>>) -> SelectionCriteria {
        let tag_sets = tags.map(|set| vec![set.iter().map(|(n, v)| (n.clone(), v.clone())).collect()]);
        let options = ReadPreferenceOptions::builder().tag_sets(tag_sets).max_staleness(self.max_staleness).build();
        SelectionCriteria::ReadPreference(match mode {
            Mode::Primary => Criteria::Primary,
            Mode::PrimaryPreferred => Criteria::primary_preferred(options),
            Mode::Secondary => Criteria::secondary(options),
            Mode::SecondaryPreferred => Criteria::secondary_preferred(options),
            Mode::Nearest => Criteria::nearest(options),
        })
    }

    /// All of it in the driver's words, for a mongos, which chooses itself.
    fn handed_on(&self) -> SelectionCriteria {
        let sets = self.tag_sets.iter().map(|set| set.iter().map(|(n, v)| (n.clone(), v.clone())).collect()).collect();
        match self.criteria(self.mode, None) {
            SelectionCriteria::ReadPreference(mut criteria) if !self.tag_sets.is_empty() => {
                if let Criteria::PrimaryPreferred { options: Some(options) }
                | Criteria::Secondary { options: Some(options) }
                | Criteria::SecondaryPreferred { options: Some(options) }
                | Criteria::Nearest { options: Some(options) } = &mut criteria
                {
                    options.tag_sets = Some(sets);
                }
                SelectionCriteria::ReadPreference(criteria)
            }
            plain => plain,
        }
    }

    /// What to look for, the best first. The driver alone would take the first member that it hears of.
    fn steps(&self) -> Vec<SelectionCriteria> {
        let each = |mode| -> Vec<_> {
            match self.tag_sets.as_slice() {
                [] => vec![self.criteria(mode, None)],
                sets => sets.iter().map(|set| self.criteria(mode, Some(set))).collect(),
            }
        };
        let primary = || self.criteria(Mode::Primary, None);
        match self.mode {
            Mode::Primary => vec![primary()],
            Mode::PrimaryPreferred => std::iter::once(primary()).chain(each(Mode::Secondary)).collect(),
            Mode::Secondary => each(Mode::Secondary),
            Mode::SecondaryPreferred => each(Mode::Secondary).into_iter().chain([primary()]).collect(),
            Mode::Nearest => each(Mode::Nearest),
        }
    }

    /// Why it cannot be honored where one server is all there is; nothing where that one fits.
    fn why_not(&self, hello: &Document) -> Option<String> {
        let is_primary = hello.get_bool("isWritablePrimary").unwrap_or(false);
        if hello.get_str("setName").is_err() {
            let strict = self.mode == Mode::Secondary || self.wants_tags();
            return strict.then(|| "it is a standalone, which has neither secondaries nor tags".to_owned());
        }
        if self.mode == Mode::Primary {
            return (!is_primary).then(|| "the member that is connected to is not the primary".to_owned());
        }
        if self.mode == Mode::Secondary && is_primary {
            return Some("the member that is connected to directly is the primary".to_owned());
        }
        // The primary that is fallen back to needs no tags.
        let needs_tags = !(is_primary && matches!(self.mode, Mode::PrimaryPreferred | Mode::SecondaryPreferred));
        let tags = tags(hello);
        if needs_tags && !self.has_tags(&tags) {
            return Some(format!("the member that is connected to directly has the tags {}", show(&tags)));
        }
        let unknown_lag = self.max_staleness.is_some() && !is_primary;
        unknown_lag.then(|| "how far one member lags cannot be told when it alone is connected to".to_owned())
    }
}

impl std::fmt::Display for ReadPreference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mode = MODES.iter().find(|(_, mode)| *mode == self.mode).map_or("", |(name, _)| name);
        write!(f, "readPreference={mode}")?;
        if !self.tag_sets.is_empty() {
            write!(f, " with the tags {}", self.tag_sets.iter().map(show).collect::<Vec<_>>().join(" or "))?;
        }
        match self.max_staleness {
            Some(most) => write!(f, " and maxStalenessSeconds={}", most.as_secs()),
            None => Ok(()),
        }
    }
}

/// Who answers what is asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    documents: Reader,
    /// There was no primary at the beginning: the member that is read from answers everything.
    for_all: bool,
}

#[derive(Debug, Clone, Default)]
enum Reader {
    /// The server that takes writes, or the only one there is.
    #[default]
    Main,
    /// A mongos chooses.
    Mongos(SelectionCriteria),
    /// One member.
    Member(Arc<Chosen>),
}

/// The member that was chosen.
#[derive(Debug)]
struct Chosen {
    preference: ReadPreference,
    role: Role,
    /// `host:port` in lower case, as the set names it, and whether it was the primary.
    member: RwLock<(String, bool)>,
    /// One at a time looks for another.
    turn: tokio::sync::Mutex<()>,
}

impl Members {
    /// Looks for a server by a preference. Gives what answers first says of itself: of a set that has a primary, it is that.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] where nothing answers; [`ErrorKind::Refused`] where the preference cannot be honored.
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

    /// A database as everything but documents is asked of it.
    pub(super) fn database(&self, client: &Client, name: &str) -> Database {
        if self.for_all { self.documents(client, name) } else { client.database(name) }
    }

    /// A database as documents are read from it.
    pub(super) fn documents(&self, client: &Client, name: &str) -> Database {
        match &self.documents {
            Reader::Main => client.database(name),
            Reader::Mongos(criteria) => with(client, name, criteria.clone()),
            Reader::Member(chosen) => with(client, name, chosen.criteria()),
        }
    }

    /// The member that was chosen, `host:port`, whether it was the primary, and why it was.
    pub(super) fn chosen(&self) -> Option<(String, bool, &ReadPreference)> {
        let Reader::Member(chosen) = &self.documents else { return None };
        let (address, is_primary) = chosen.member.read().unwrap_or_else(PoisonError::into_inner).clone();
        Some((address, is_primary, &chosen.preference))
    }

    /// Something failed: if the chosen member does not answer any more, or is not what it was, another one that fits is chosen.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] where none fits.
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
        tracing::warn!("documents are read from {} now", found.0);
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

/// The member that fits best, `host:port` as the set names it, and whether it is the primary.
async fn choose(client: &Client, preference: &ReadPreference, role: Role) -> Result<(String, bool)> {
    let hello = first_of(client, preference.steps()).await.map_err(|e| match members_of(&e) {
        // An error that passes: a member that fits may come back.
        Some(members) => refused(preference, &members).cause(e),
        None => failure::describe(role, LOOKING, e),
    })?;
    let me = hello.get_str("me").map_err(|_| Error::new(ErrorKind::Server, "a member of the set does not tell its name"))?;
    Ok((me.to_lowercase(), hello.get_bool("isWritablePrimary").unwrap_or(false)))
}

fn refused(preference: &ReadPreference, why: &str) -> Error {
    Error::new(ErrorKind::Refused, format!("{preference} cannot be honored: {why}"))
        .hint("choose another read preference, or leave it out to read from the primary")
}

/// Asks for the best there is; for the last that would do, as long as a server is looked for at all.
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

/// What members there are, from the driver's description of the topology, where it looked for one in vain.
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
            _ => format!("{address} does not answer as a member that can be read from"),
        })
    });
    let members: Vec<String> = members.collect();
    (!members.is_empty()).then(|| format!("no member fits: {}", members.join(", ")))
}

fn tags(hello: &Document) -> HashMap<String, String> {
    let tags = hello.get_document("tags").into_iter().flatten();
    tags.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

fn show<'t>(tags: impl IntoIterator<Item = (&'t String, &'t String)>) -> String {
    let mut shown: Vec<String> = tags.into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
    shown.sort();
    format!("{{{}}}", shown.join(", "))
}

fn unreadable(what: String) -> Error {
    Error::usage(what).hint(
        "it is primary, primaryPreferred, secondary, secondaryPreferred or nearest, or a document such as \
         {\"mode\": \"secondary\", \"tagSets\": [{\"dc\": \"east\"}], \"maxStalenessSeconds\": 120}",
    )
}

/// A document whose names may stand without quotes, as in examples for mongodump, as JSON.
fn with_quoted_names(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 16);
    let (mut in_string, mut escaped, mut name) = (false, false, String::new());
    for c in text.chars() {
        if in_string {
            (in_string, escaped) = (escaped || c != '"', c == '\\' && !escaped);
            json.push(c);
        } else if c.is_alphanumeric() || matches!(c, '_' | '$') {
            name.push(c);
        } else {
            let is_name = c == ':' && !name.is_empty();
            json.push_str(&if is_name { format!("\"{name}\"") } else { std::mem::take(&mut name) });
            // White space may stand between a name and its colon.
            name.clear();
            in_string = c == '"';
            json.push(c);
        }
    }
    json + &name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preference_is_a_mode_or_a_document_as_mongodump_takes_it() {
        assert_eq!(ReadPreference::parse("Secondary").unwrap().to_string(), "readPreference=secondary");
        let examples = [
            r#"{mode: "nearest", tagSets: [ { dc: "a:b" }, {} ], maxStalenessSeconds: 123}"#,
            r#"{"mode": "nearest", "tagSets": [{"dc": "a:b"}, {}], "maxStalenessSeconds": 123}"#,
        ];
        for text in examples {
            let shown = ReadPreference::parse(text).unwrap().to_string();
            assert_eq!(shown, "readPreference=nearest with the tags {dc: a:b} or {} and maxStalenessSeconds=123");
        }
        let one = ReadPreference::parse(r#"{"mode": "secondary", "tags": {"use": "backup"}}"#).unwrap();
        assert_eq!(one.to_string(), "readPreference=secondary with the tags {use: backup}");
    }

    #[test]
    fn what_is_no_preference_is_refused_with_what_one_looks_like() {
        let bad = [
            "",
            "second",
            "{}",
            "{mode: 1}",
            "{mode: \"secondary\", maxStalenessSeconds: 5}",
            "{mode: \"primary\", tags: {a: \"b\"}}",
        ];
        for text in bad {
            let error = ReadPreference::parse(text).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{text}: {error}");
            assert!(error.hint_text().unwrap().contains("secondaryPreferred"), "{text}");
        }
    }
}
