//! Limits on the names and patterns in a request.

use crate::error::{Error, Result};

/// The most names and patterns in one request. The job stores each, and compares each with every
/// name.
const MOST_NAMES: usize = 1000;
/// The most bytes of all names and patterns together.
const MOST_BYTES: usize = 64 * 1024;

/// Refuses more names and patterns than a job may store.
pub(super) fn bounded<const N: usize>(lists: [&Option<Vec<String>>; N]) -> Result<()> {
    let names = || lists.into_iter().flatten().flatten();
    let (count, bytes) = (names().count(), names().map(String::len).sum::<usize>());
    if count > MOST_NAMES || bytes > MOST_BYTES {
        return Err(Error::usage(format!(
            "{count} names and patterns of {bytes} bytes: a request takes {MOST_NAMES} at most, of {MOST_BYTES} bytes together"
        ))
        .hint("use fewer patterns: `*` stands for any characters"));
    }
    Ok(())
}

/// A list, if given. An empty one is refused: it would stand for all, and its author may have meant
/// none.
pub(super) fn some<'r>(what: &str, given: &'r Option<Vec<String>>) -> Result<&'r [String]> {
    match given.as_deref() {
        Some([]) => Err(Error::usage(format!("{what} is empty")).hint(format!("leave {what} out, or name at least one"))),
        given => Ok(given.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_request_takes_so_many_names_and_patterns_and_no_more() {
        let names = |count: usize, length: usize| Some(vec!["x".repeat(length); count]);
        for (first, second) in [(names(600, 5), names(400, 5)), (names(1, MOST_BYTES), None), (None, None)] {
            bounded([&first, &second]).unwrap();
        }
        for (first, second) in [(names(600, 5), names(401, 5)), (names(1, MOST_BYTES), names(1, 1)), (names(2, 1_000_000), None)]
        {
            let error = bounded([&first, &second]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.to_string().contains("1000 at most, of 65536 bytes together"), "{error}");
        }
    }
}
