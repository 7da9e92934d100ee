//! Groups backups that count together: those of one deployment and one selection. Pure.

use std::collections::HashMap;

/// Decides which backups count together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// What must be equal.
    pub key: Vec<String>,
    /// Names of which one in common is enough, also indirectly through other backups: a server may
    /// be reached by several. If there are none, the key alone decides.
    pub marks: Vec<String>,
}

/// The number of each one's group, from 1 on in this order. None if the origin is unknown.
#[must_use]
pub fn number<'a>(origins: impl IntoIterator<Item = Option<&'a Origin>>) -> Vec<Option<usize>> {
    // 1. Backups that share a mark get one root.
    let origins: Vec<Option<&Origin>> = origins.into_iter().collect();
    let mut above: Vec<usize> = (0..origins.len()).collect();
    let mut bearers: HashMap<(&[String], Option<&str>), usize> = HashMap::new();
    for (place, origin) in origins.iter().enumerate().filter_map(|(place, origin)| Some((place, (*origin)?))) {
        let alone = origin.marks.is_empty().then_some(None);
        for mark in origin.marks.iter().map(|mark| Some(mark.as_str())).chain(alone) {
            let bearer = *bearers.entry((&origin.key, mark)).or_insert(place);
            let (root, other) = (root(&mut above, bearer), root(&mut above, place));
            above[other] = root;
        }
    }

    // 2. Roots get their numbers in order.
    let mut numbers = HashMap::new();
    let numbered = |(place, origin): (usize, &Option<&Origin>)| {
        origin.map(|_| {
            let next = numbers.len() + 1;
            *numbers.entry(root(&mut above, place)).or_insert(next)
        })
    };
    origins.iter().enumerate().map(numbered).collect()
}

/// The root above a place. Shortens the way to it.
fn root(above: &mut [usize], mut place: usize) -> usize {
    while above[place] != place {
        above[place] = above[above[place]];
        place = above[place];
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(given: &[(&str, &[&str])]) -> Vec<usize> {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        let origins: Vec<Origin> =
            given.iter().map(|(key, marks)| Origin { key: vec![(*key).to_owned()], marks: texts(marks) }).collect();
        number(origins.iter().map(Some)).into_iter().map(Option::unwrap).collect()
    }

    #[test]
    fn one_name_in_common_is_enough_and_never_across_keys() {
        assert_eq!(numbers(&[("a", &[]), ("b", &[]), ("a", &[]), ("a", &["x"])]), [1, 2, 1, 3]);
        assert_eq!(numbers(&[("a", &["x", "y"]), ("a", &["z"]), ("b", &["x"]), ("a", &["y"])]), [1, 2, 3, 1]);
        // Through one that comes last.
        assert_eq!(numbers(&[("a", &["x"]), ("a", &["z"]), ("a", &["w"]), ("a", &["z", "x"])]), [1, 1, 2, 1]);
        assert_eq!(number([None, Some(&Origin::default()), None]), [None, Some(1), None]);
        assert_eq!(number([]), []);
    }
}
