//! Finds given names that are no settings: a typo must not silently leave a setting at its default.

use figment::Profile;
use figment::value::{Dict, Map};

use super::origin::Origin;
use super::settings::{DOTENV, ROCKET_TOML, SERVER_KEYS, SERVER_PREFIX, SETTINGS};
use crate::error::{Error, Result};
use crate::names::nearest;

/// Every name with one of these prefixes belongs to this program.
const OWN: [&str; 2] = ["BACKUP_", "AUTO_IMPORT"];
/// The table of `rocket.toml` that is read.
const TABLE: &str = "[default.backup]";

/// A given name that is no setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unknown {
    /// The name as written.
    name: String,
    /// Where it is given, for example `.env`.
    place: &'static str,
    /// What was probably meant.
    meant: Option<String>,
    /// Whether no other program has such names.
    own: bool,
}

impl Unknown {
    /// Checks the name of a variable. Most variables of the environment belong to other programs.
    pub(super) fn variable(name: &str, origin: Origin) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let own = OWN.iter().any(|prefix| upper.starts_with(prefix));
        let meant = match upper.strip_prefix(SERVER_PREFIX) {
            Some(key) if SERVER_KEYS.contains(&key.to_ascii_lowercase().as_str()) => None,
            Some(key) => nearest(key, SERVER_KEYS).map(|key| format!("{SERVER_PREFIX}{}", key.to_ascii_uppercase())),
            None => nearest(name, SETTINGS.iter().map(|s| s.variable)).filter(|meant| *meant != name).map(str::to_owned),
        };
        let known = SETTINGS.iter().any(|s| s.variable == name);
        (!known && (own || meant.is_some())).then(|| Self { name: name.to_owned(), place: origin.name(), meant, own })
    }

    /// Names in `rocket.toml` that are meant for this program, but are outside its table. `rest` is
    /// the file without that table.
    pub(super) fn misplaced(rest: &Map<Profile, Dict>) -> Vec<Self> {
        let mut found = Vec::new();
        let mut add = |name: String, meant: &str| {
            found.push(Self { name, place: ROCKET_TOML, meant: Some(meant.to_owned()), own: true });
        };
        for (profile, table) in rest {
            if nearest(profile.as_str().as_str(), ["backup"]).is_some() {
                add(format!("[{profile}]"), TABLE);
            }
            for (key, value) in table {
                if SETTINGS.iter().any(|s| s.key == key) {
                    add(format!("{key} in [{profile}]"), &format!("{key} in {TABLE}"));
                } else if value.as_dict().is_some() && nearest(key, ["backup"]).is_some() {
                    add(format!("[{profile}.{key}]"), TABLE);
                } else if let (false, Some(meant)) = (SERVER_KEYS.contains(&&**key), nearest(key, SERVER_KEYS)) {
                    add(format!("{key} in [{profile}]"), meant);
                }
            }
        }
        found
    }

    /// Whether the setting that was probably meant is given, too. Then this name likely belongs to
    /// another program, unless no other program has such names.
    pub(super) fn is_beside(&self, given: &dyn Fn(&str) -> bool) -> bool {
        !self.own && self.meant.as_deref().is_some_and(given)
    }

    /// Whether it is probably a typo.
    pub(super) fn is_slip(&self) -> bool {
        self.meant.is_some()
    }

    fn told(&self) -> String {
        format!("{} in {}", self.name, self.place)
    }
}

/// Refuses given names that are no settings.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage), naming all of them and what was probably
/// meant.
pub(super) fn refuse<'u>(unknown: impl IntoIterator<Item = &'u Unknown>) -> Result<()> {
    let unknown: Vec<&Unknown> = unknown.into_iter().collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let told: Vec<String> = unknown.iter().map(|u| u.told()).collect();
    let meant: Vec<String> = unknown
        .iter()
        .filter_map(|u| Some(format!("{} instead of {}", u.meant.as_ref()?, u.name)))
        .chain(unknown.iter().any(|u| u.meant.is_none()).then(|| {
            format!(
                "all names that begin with BACKUP_ or AUTO_IMPORT must be settings: correct or remove them; {DOTENV}.example \
                 lists all settings"
            )
        }))
        .collect();
    let is = if told.len() == 1 { "is not a setting" } else { "are not settings" };
    let begin = if unknown.iter().any(|u| u.is_slip()) { "probably meant: " } else { "" };
    Err(Error::usage(format!("{} {is}", told.join(", "))).hint(format!("{begin}{}", meant.join("; "))))
}

/// Refuses variables with more than one value in `.env`: most programs take the last, and this one
/// the first. The error shows no values.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage), naming all of them.
pub(super) fn refuse_contradicted(variables: &[String]) -> Result<()> {
    if variables.is_empty() {
        return Ok(());
    }
    let has = if variables.len() == 1 { "has" } else { "have" };
    Err(Error::usage(format!("{} {has} more than one value in {DOTENV}", variables.join(", ")))
        .hint("keep one line and remove the others: until now the first one counted, while most programs take the last"))
}

/// Warns of given names that are no settings, if they are not refused.
pub(super) fn warn<'u>(unknown: impl IntoIterator<Item = &'u Unknown>) {
    for unknown in unknown {
        tracing::warn!("{} is not a setting, and has no effect", unknown.told());
    }
}
