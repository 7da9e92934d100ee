//! Read preferences: which members to read from, as drivers and mongodump name them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bson::Document;
use mongodb::options::{ReadPreference as Criteria, ReadPreferenceOptions, SelectionCriteria};
use serde::Deserialize;

use crate::error::{Error, Result};

/// The lowest `maxStalenessSeconds` that servers and drivers accept.
const LEAST_STALENESS: u64 = 90;

/// The kinds of members to read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
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

/// Which members documents are read from: a mode, tag sets (the first that any member has counts),
/// and how far a secondary may lag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPreference {
    pub(super) mode: Mode,
    pub(super) tag_sets: Vec<BTreeMap<String, String>>,
    pub(super) max_staleness: Option<Duration>,
}

/// The document form that mongodump accepts.
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
    /// Reads a mode (`secondary`), or a document as mongodump accepts it: `{mode: "nearest",
    /// tagSets: [{dc: "east"}], maxStalenessSeconds: 120}`. Its names need no quotes.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage).
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let written = if text.starts_with('{') {
            serde_json::from_str(&with_quoted_names(text))
                .map_err(|e| unreadable(format!("the read preference {text} cannot be read: {e}")))?
        } else {
            Written { mode: text.to_owned(), tag_sets: TagSets::default(), max_staleness_seconds: None }
        };
        let known = MODES.iter().find(|(name, _)| name.eq_ignore_ascii_case(&written.mode));
        let Some((_, mode)) = known else { return Err(unreadable(format!("{:?} is not a read preference", written.mode))) };
        let tag_sets = match written.tag_sets {
            TagSets::Several(sets) => sets,
            TagSets::One(set) => vec![set],
        };
        // The drivers' specification: anything that is not positive means no limit.
        let max_staleness = written.max_staleness_seconds.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
        Self { mode: *mode, tag_sets, max_staleness: max_staleness.map(Duration::from_secs) }.checked()
    }

    /// The preference in a connection string, if any.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage).
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

    /// Whether a member must have tags.
    fn wants_tags(&self) -> bool {
        !self.tag_sets.is_empty() && self.tag_sets.iter().all(|set| !set.is_empty())
    }

    fn has_tags(&self, tags: &HashMap<String, String>) -> bool {
        let fits = |set: &BTreeMap<String, String>| set.iter().all(|(name, value)| tags.get(name) == Some(value));
        self.tag_sets.is_empty() || self.tag_sets.iter().any(fits)
    }

    /// The same for the driver, for members of this kind with these tag sets.
    fn criteria(&self, mode: Mode, sets: &[BTreeMap<String, String>]) -> SelectionCriteria {
        let sets: Vec<HashMap<_, _>> = sets.iter().map(|set| set.iter().map(|(n, v)| (n.clone(), v.clone())).collect()).collect();
        let sets = Some(sets).filter(|sets| !sets.is_empty());
        let options = ReadPreferenceOptions::builder().tag_sets(sets).max_staleness(self.max_staleness).build();
        SelectionCriteria::ReadPreference(match mode {
            Mode::Primary => Criteria::Primary,
            Mode::PrimaryPreferred => Criteria::primary_preferred(options),
            Mode::Secondary => Criteria::secondary(options),
            Mode::SecondaryPreferred => Criteria::secondary_preferred(options),
            Mode::Nearest => Criteria::nearest(options),
        })
    }

    /// The whole preference for the driver, for a mongos, which chooses itself.
    pub(super) fn handed_on(&self) -> SelectionCriteria {
        self.criteria(self.mode, &self.tag_sets)
    }

    /// What to look for, in order of preference. The driver alone would take the first member it
    /// hears of.
    pub(super) fn steps(&self) -> Vec<SelectionCriteria> {
        let each = |mode| -> Vec<_> {
            match self.tag_sets.as_slice() {
                [] => vec![self.criteria(mode, &[])],
                sets => sets.iter().map(|set| self.criteria(mode, std::slice::from_ref(set))).collect(),
            }
        };
        let primary = || self.criteria(Mode::Primary, &[]);
        match self.mode {
            Mode::Primary => vec![primary()],
            Mode::PrimaryPreferred => std::iter::once(primary()).chain(each(Mode::Secondary)).collect(),
            Mode::Secondary => each(Mode::Secondary),
            Mode::SecondaryPreferred => each(Mode::Secondary).into_iter().chain([primary()]).collect(),
            Mode::Nearest => each(Mode::Nearest),
        }
    }

    /// Why a single server cannot honor it; `None` if it can.
    pub(super) fn why_not(&self, hello: &Document) -> Option<String> {
        let is_primary = hello.get_bool("isWritablePrimary").unwrap_or(false);
        if hello.get_str("setName").is_err() {
            let strict = self.mode == Mode::Secondary || self.wants_tags();
            return strict.then(|| "it is a standalone, which has neither secondaries nor tags".to_owned());
        }
        if self.mode == Mode::Primary {
            return (!is_primary).then(|| "the connected member is not the primary".to_owned());
        }
        if self.mode == Mode::Secondary && is_primary {
            return Some("the directly connected member is the primary".to_owned());
        }
        // A primary as a fallback needs no tags.
        let needs_tags = !(is_primary && matches!(self.mode, Mode::PrimaryPreferred | Mode::SecondaryPreferred));
        let tags = tags(hello);
        if needs_tags && !self.has_tags(&tags) {
            return Some(format!("the directly connected member has the tags {}", show(&tags)));
        }
        let unknown_lag = self.max_staleness.is_some() && !is_primary;
        unknown_lag.then(|| "the lag of a member cannot be determined if only that member is connected".to_owned())
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
        "use primary, primaryPreferred, secondary, secondaryPreferred or nearest, or a document, for instance \
         {\"mode\": \"secondary\", \"tagSets\": [{\"dc\": \"east\"}], \"maxStalenessSeconds\": 120}",
    )
}

/// Converts a document whose names may lack quotes, as in examples for mongodump, to JSON.
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
            // White space may precede the colon after a name.
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
