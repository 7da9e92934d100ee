//! Patterns over namespaces.

use std::fmt;

use super::Namespace;
use crate::error::{Error, Result};

/// A pattern over the whole of `database.collection`. `*` stands for any run of characters, dots
/// included. A backslash takes the next character literally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespacePattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(char),
    Any,
}

impl NamespacePattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if it can match no namespace: it is
    /// empty, or has neither a dot nor a `*`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            parts.push(match c {
                '*' => Part::Any,
                '\\' => Part::Literal(chars.next().ok_or_else(|| {
                    Error::usage(format!("namespace pattern {text:?} ends in a lone backslash")).hint(r"write \\ for a backslash")
                })?),
                c => Part::Literal(c),
            });
        }
        if !parts.iter().any(|p| matches!(p, Part::Any | Part::Literal('.'))) {
            return Err(Error::usage(format!("namespace pattern {text:?} has neither a dot nor a '*'"))
                .hint(format!("write \"{text}.*\" for all of a database, \"{text}.NAME\" for one collection")));
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// The pattern that matches only this namespace.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if a name is empty.
    pub fn exactly(namespace: &Namespace) -> Result<Self> {
        Self::parse(&literal(namespace))
    }

    /// The pattern of every collection of the database whose name begins with this collection's
    /// name.
    ///
    /// # Errors
    /// As for [`exactly`](Self::exactly).
    pub fn beginning_with(namespace: &Namespace) -> Result<Self> {
        Self::parse(&format!("{}*", literal(namespace)))
    }

    /// The pattern of everything in this database.
    ///
    /// # Errors
    /// As for [`exactly`](Self::exactly).
    pub fn of_database(database: &str) -> Result<Self> {
        Self::beginning_with(&Namespace::new(database, ""))
    }

    /// The texts of patterns, as they were given.
    #[must_use]
    pub fn texts(patterns: &[Self]) -> Vec<String> {
        patterns.iter().map(ToString::to_string).collect()
    }

    /// The pattern as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches this namespace.
    #[must_use]
    pub fn matches(&self, namespace: &Namespace) -> bool {
        let text: Vec<char> = namespace.to_string().chars().collect();
        // Greedy with one position to backtrack to: linear except for the last `*`, quadratic at
        // worst.
        let (mut p, mut t, mut back) = (0, 0, None);
        while t < text.len() {
            match self.parts.get(p) {
                Some(Part::Any) => {
                    back = Some((p, t));
                    p += 1;
                }
                Some(Part::Literal(c)) if *c == text[t] => {
                    p += 1;
                    t += 1;
                }
                _ => match back {
                    Some((any, from)) => {
                        p = any + 1;
                        t = from + 1;
                        back = Some((any, from + 1));
                    }
                    None => return false,
                },
            }
        }
        self.parts[p..].iter().all(|part| *part == Part::Any)
    }
}

impl fmt::Display for NamespacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A pattern that matches only this namespace.
pub(super) fn literal(namespace: &Namespace) -> String {
    let mut pattern = String::new();
    for c in namespace.to_string().chars() {
        if matches!(c, '*' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}
