//! Finds the known name that an unknown name was probably meant to be.

/// The most characters of a name that is compared: no known name is this long.
const LONGEST: usize = 64;

/// The known name closest to this one, if it is close enough to be a typo: letters that are
/// swapped, missing, doubled or wrong, other case, other separators.
#[must_use]
pub fn nearest<'k>(given: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let (closest, slips) = closest(given, known)?;
    (slips <= tolerated(closest)).then_some(closest)
}

/// The known name closest to this one, and the number of typos between them. None if the given name
/// is too long to be any.
pub fn closest<'k>(given: &str, known: impl IntoIterator<Item = &'k str>) -> Option<(&'k str, usize)> {
    let given = plain(given);
    if given.len() > LONGEST {
        return None;
    }
    known.into_iter().map(|known| (known, strsim::osa_distance(&given, &plain(known)))).min_by_key(|(_, slips)| *slips)
}

/// How many typos a name of this length may have: one in a short name, three in a long one.
fn tolerated(known: &str) -> usize {
    match known.chars().count() {
        0..=5 => 1,
        6..=14 => 2,
        _ => 3,
    }
}

/// A name without what people mix up: case and separators.
fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-' | '.' | ' ')).flat_map(char::to_lowercase).take(LONGEST + 1).collect()
}
