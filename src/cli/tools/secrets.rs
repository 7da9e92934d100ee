//! Reads the file of `--config`, in which MongoDB's tools accept secrets: a flat YAML mapping.

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::system;

/// The contents of such a file. They are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Secrets {
    pub(super) password: Option<String>,
    pub(super) uri: Option<String>,
    pub(super) key_password: Option<String>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// Reads the file.
///
/// # Errors
/// [`ErrorKind::Usage`] if it cannot be read or parsed. Of its contents, the error quotes only
/// names.
pub(super) fn read(file: &Path) -> Result<Secrets> {
    let named = |e: Error| e.context(format!("--config {}", file.display()));
    let bytes = system::small_file(file).map_err(|e| named(Error::usage(format!("cannot be read: {}", e.kind())).cause(e)))?;
    let text = String::from_utf8(bytes).map_err(|_| named(Error::usage("it is not text in UTF-8")))?;
    parse(&text).map_err(named)
}

fn parse(text: &str) -> Result<Secrets> {
    let mut secrets = Secrets::default();
    for (number, line) in text.lines().enumerate() {
        let place = |what: &str| {
            Error::new(ErrorKind::Usage, format!("line {}: {what}", number + 1))
                .hint("the file may hold only lines like `password: \"…\"`, `uri: …` and `sslPEMKeyPassword: …`")
        };
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') || trimmed == "---" || trimmed == "..." {
            continue;
        }
        let is_flat = !line.starts_with([' ', '\t', '-', '{', '[']);
        let (name, value) = line.split_once(':').filter(|_| is_flat).ok_or_else(|| place("expected NAME: VALUE"))?;
        let value = match value.strip_prefix([' ', '\t']) {
            Some(value) => scalar(value.trim()).map_err(place)?,
            None if value.is_empty() => String::new(),
            None => return Err(place("expected NAME: VALUE, with a space after the colon")),
        };
        let name = name.trim().trim_matches(['"', '\'']);
        let field = match name {
            "password" => &mut secrets.password,
            "uri" => &mut secrets.uri,
            "sslPEMKeyPassword" => &mut secrets.key_password,
            _ => return Err(place("expected the name password, uri or sslPEMKeyPassword")),
        };
        if field.is_some() {
            return Err(place(&format!("{name} was given twice")));
        }
        *field = Some(value);
    }
    let given = |value: Option<String>| value.filter(|value| !value.is_empty());
    Ok(Secrets { password: given(secrets.password), uri: given(secrets.uri), key_password: given(secrets.key_password) })
}

/// A value of one line: plain, or in single or double quotes.
fn scalar(text: &str) -> std::result::Result<String, &'static str> {
    const UNENDED: &str = "a quote is not closed";
    let mut chars = text.chars();
    match chars.next() {
        Some('\'') => {
            let mut value = String::new();
            loop {
                match (chars.next().ok_or(UNENDED)?, chars.clone().next()) {
                    ('\'', Some('\'')) => value.extend(chars.next()),
                    ('\'', _) => return ended(chars.as_str(), value),
                    (c, _) => value.push(c),
                }
            }
        }
        Some('"') => {
            let mut value = String::new();
            loop {
                match chars.next().ok_or(UNENDED)? {
                    '"' => return ended(chars.as_str(), value),
                    '\\' => value.push(match chars.next().ok_or(UNENDED)? {
                        'n' => '\n',
                        't' => '\t',
                        c @ ('"' | '\\' | '/') => c,
                        _ => return Err("this escape in double quotes is not supported: put the value in single quotes"),
                    }),
                    c => value.push(c),
                }
            }
        }
        Some('|' | '>' | '&' | '*' | '!' | '%' | '@' | '`' | '{' | '[') => {
            Err("a plain value cannot begin with this character: put the value in quotes")
        }
        _ => {
            let plain = text.find(" #").map_or(text, |comment| &text[..comment]).trim();
            Ok(if matches!(plain, "~" | "null") { String::new() } else { plain.to_owned() })
        }
    }
}

fn ended(rest: &str, value: String) -> std::result::Result<String, &'static str> {
    let rest = rest.trim();
    if rest.is_empty() || rest.starts_with('#') { Ok(value) } else { Err("unexpected text after the closing quote") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_comments_and_plain_values_are_understood() {
        let text = "# secrets\n---\npassword: 'it''s # 1' # x\nuri: mongodb://u@h/ # here\n\"sslPEMKeyPassword\": \"a\\\"b\"\r\n";
        let secrets = parse(text).unwrap();
        assert_eq!(secrets.password.as_deref(), Some("it's # 1"));
        assert_eq!(secrets.uri.as_deref(), Some("mongodb://u@h/"));
        assert_eq!(secrets.key_password.as_deref(), Some("a\"b"));
        assert_eq!(parse("password:\nuri: ''\n").unwrap(), Secrets::default());
        assert_eq!(parse("password: 12345").unwrap().password.as_deref(), Some("12345"));
    }

    #[test]
    fn what_is_not_understood_is_refused_and_not_quoted() {
        for bad in [
            "passwort: secret",
            "password: \"secret",
            "password: 'secret' secret",
            "password: |\n  secret",
            "password:secret",
            "secret",
            "  password: secret",
            "- password: secret",
            "{password: secret}",
            "password: secret\npassword: secret",
        ] {
            let error = parse(bad).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{bad}");
            assert!(!format!("{error:?}").contains("secret"), "{bad}: {error:?}");
        }
    }
}
