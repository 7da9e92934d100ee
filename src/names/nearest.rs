//! The known name that was probably meant by one that is not known.

/// The most characters of a name that is compared: no known one is as long.
const LONGEST: usize = 64;

/// The known name that is closest to this one, if it is close enough to be a slip: letters that are swapped, missing, doubled or
/// wrong, other case, other separators.
#[must_use]
pub fn nearest<'k>(given: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let (closest, slips) = closest(given, known)?;
    (slips <= tolerated(closest)).then_some(closest)
}

/// The known name that is closest to this one, and how many slips lie between them; none if the given one is too long to be any.
pub fn closest<'k>(given: &str, known: impl IntoIterator<Item = &'k str>) -> Option<(&'k str, usize)> {
    let given = plain(given);
    if given.len() > LONGEST {
        return None;
    }
    known.into_iter().map(|known| (known, strsim::osa_distance(&given, &plain(known)))).min_by_key(|(_, slips)| *slips)
}

/// How many slips a name of this length may hold: one in a short name, three in a long one.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_told_and_other_names_are_not() {
        let known = ["databases", "include", "keep", "BACKUP_KEEP_DAILY", "BACKUP_KEEP_WEEKLY", "MONGO_URI_ATLAS"];
        for (given, meant) in [
            ("database", "databases"),
            ("Databases", "databases"),
            ("includes", "include"),
            ("inculde", "include"),
            ("kep", "keep"),
            ("BACKUP_KEEP_DAYLY", "BACKUP_KEEP_DAILY"),
            ("backup-keep-weekly", "BACKUP_KEEP_WEEKLY"),
            ("BAKCUP_KEEP_DAILY", "BACKUP_KEEP_DAILY"),
            ("MONGO_URL_ATLAS", "MONGO_URI_ATLAS"),
        ] {
            assert_eq!(nearest(given, known), Some(meant), "{given}");
        }
        for given in ["", "x", "collection", "PATH", "MONGO_URI_PRODUCTION", &"databases".repeat(1000)] {
            assert_eq!(nearest(given, known), None, "{given}");
        }
        assert_eq!(nearest("x", []), None);
        assert_eq!(closest("ab", ["ba", "abcd"]), Some(("ba", 1)));
    }
}
