//! Renames namespaces by pattern, `FROM=TO`. Each `*` of FROM stands for any run of characters,
//! which replaces the `*` of the same number in TO.

use super::Namespace;
use super::pattern::literal;
use crate::error::{Error, Result};

/// A renaming rule over the whole of `database.collection`. A backslash takes the next character
/// literally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceRename {
    text: String,
    from: Vec<String>,
    to: Vec<String>,
}

impl NamespaceRename {
    /// Parses `FROM=TO`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if there is no `=`, a side cannot be a
    /// namespace, or the sides differ in their number of `*`.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::usage(format!("[[rename]] {text:?}: {why}"))
                .hint("write FROM=TO over whole namespaces, for example shop.orders=shop.orders_old or shop.*=copy.*")
        };
        let sides = split(text).ok_or_else(|| bad("it ends in a lone backslash"))?;
        let [from, to] = <[Vec<String>; 2]>::try_from(sides).map_err(|_| bad("expected one '=' between two namespaces"))?;
        if from.len() != to.len() {
            return Err(bad(&format!("{} '*' on the left and {} on the right", from.len() - 1, to.len() - 1)));
        }
        if [&from, &to].iter().any(|side| side.len() == 1 && !is_namespace(&side[0])) {
            return Err(bad("both sides must be namespaces, DATABASE.COLLECTION"));
        }
        Ok(Self { text: text.to_owned(), from, to })
    }

    /// The rule of two patterns, which may contain a plain `=`.
    ///
    /// # Errors
    /// As for [`parse`](Self::parse).
    pub fn between(from: &str, to: &str) -> Result<Self> {
        let side = |text: &str| text.replace('=', "\\=");
        Self::parse(&format!("{}={}", side(from), side(to)))
    }

    /// The rule for one namespace, whatever characters are in its names.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if a name is empty.
    pub fn exactly(from: &Namespace, to: &Namespace) -> Result<Self> {
        Self::between(&literal(from), &literal(to))
    }

    /// The rule as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The new name of a namespace that the left side matches.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if the result is not a namespace.
    pub fn apply(&self, namespace: &Namespace) -> Result<Option<Namespace>> {
        let Some(new) = transform(&self.from, &self.to, &namespace.to_string()) else { return Ok(None) };
        match new.split_once('.') {
            Some((database, collection)) if is_namespace(&new) => Ok(Some(Namespace::new(database, collection))),
            _ => {
                Err(Error::usage(format!("[[rename]] {:?} turns {namespace} into {new:?}, which is not a namespace", self.text)))
            }
        }
    }

    /// The name from which the rule would have made this one.
    #[must_use]
    pub fn reverse(&self, namespace: &Namespace) -> Option<Namespace> {
        let old = transform(&self.to, &self.from, &namespace.to_string())?;
        old.split_once('.').map(|(database, collection)| Namespace::new(database, collection))
    }
}

fn is_namespace(text: &str) -> bool {
    text.split_once('.').is_some_and(|(database, collection)| !database.is_empty() && !collection.is_empty())
}

/// The sides, each as the literal pieces between its `*`. None if a backslash has nothing to
/// escape.
fn split(text: &str) -> Option<Vec<Vec<String>>> {
    let mut sides = vec![vec![String::new()]];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let side = sides.last_mut()?;
        match c {
            '=' => sides.push(vec![String::new()]),
            '*' => side.push(String::new()),
            '\\' => side.last_mut()?.push(chars.next()?),
            c => side.last_mut()?.push(c),
        }
    }
    Some(sides)
}

/// `text` with the literal pieces of one side replaced by those of the other. Each `*` except the
/// last matches as little as it can.
fn transform(from: &[String], to: &[String], text: &str) -> Option<String> {
    let runs = captures(from, text)?;
    let mut new = to.first()?.clone();
    for (run, piece) in runs.iter().zip(&to[1..]) {
        new.push_str(run);
        new.push_str(piece);
    }
    Some(new)
}

fn captures<'a>(pieces: &[String], text: &'a str) -> Option<Vec<&'a str>> {
    let (first, others) = pieces.split_first()?;
    let mut rest = text.strip_prefix(first.as_str())?;
    let Some((last, inner)) = others.split_last() else { return rest.is_empty().then(Vec::new) };
    // The first place for each piece leaves the most to the others.
    let mut runs = Vec::new();
    for piece in inner {
        let (run, after) = rest.split_once(piece.as_str())?;
        runs.push(run);
        rest = after;
    }
    runs.push(rest.strip_suffix(last.as_str())?);
    Some(runs)
}
