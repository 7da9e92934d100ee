//! Parses JSON without loss: the order of keys, repeated keys, and the text of numbers. Beyond the
//! standard, it accepts the output of old tools: unquoted keys, and `NaN` and `Infinity` as
//! numbers.

use std::borrow::Cow;

use crate::error::{Error, Result};

/// The maximum nesting depth. Servers store 200 levels; the file and Extended JSON add some.
const MAX_DEPTH: usize = 256;

/// The most values to read: in memory, they take many times their text.
const MAX_VALUES: usize = 2_000_000;

/// How much of a string is shown.
const SHOWN: usize = 40;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json<'a> {
    Null,
    Bool(bool),
    /// Its text.
    Number(&'a str),
    String(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    Object(Vec<Member<'a>>),
}

/// A member of an object.
pub(super) type Member<'a> = (Cow<'a, str>, Json<'a>);

impl Json<'_> {
    /// Its name in messages.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(text) => format!("the number {}", shown(text)),
            Self::String(text) => format!("{:?}", shown(text)),
            Self::Array(_) => "an array".to_owned(),
            Self::Object(_) => "an object".to_owned(),
        }
    }
}

/// The beginning of a long text.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

/// Parses one value, with only white space around it.
pub(super) fn parse(text: &[u8]) -> Result<Json<'_>> {
    let text = str::from_utf8(text)
        .map_err(|e| Error::damaged(format!("at byte {}: the text is not UTF-8", e.valid_up_to())).cause(e))?;
    let mut parser = Parser { text, at: 0, values: 0 };
    let value = parser.value(0)?;
    match parser.next_token() {
        None => Ok(value),
        Some(_) => Err(parser.expected("the end")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    values: usize,
}

impl<'a> Parser<'a> {
    fn value(&mut self, depth: usize) -> Result<Json<'a>> {
        if depth > MAX_DEPTH {
            return Err(self.error(format!("it is nested deeper than {MAX_DEPTH} levels")));
        }
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(self.error(format!("it holds more than {MAX_VALUES} values")));
        }
        match self.next_token() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Json::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'a'..=b'z' | b'A'..=b'Z') => self.word(),
            _ => Err(self.expected("a value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json<'a>> {
        self.at += 1;
        let mut members = Vec::new();
        if self.next_token() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(members));
        }
        loop {
            let name = match self.next_token() {
                Some(b'"') => self.string()?,
                Some(b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$') => Cow::Borrowed(self.bare()),
                _ => return Err(self.expected("a key")),
            };
            if self.next_token() != Some(b':') {
                return Err(self.expected("':'"));
            }
            self.at += 1;
            let value = self.value(depth + 1)?;
            members.push((name, value));
            match self.next_token() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.expected("',' or '}'")),
            }
        }
        self.at += 1;
        Ok(Json::Object(members))
    }

    fn array(&mut self, depth: usize) -> Result<Json<'a>> {
        self.at += 1;
        let mut values = Vec::new();
        if self.next_token() == Some(b']') {
            self.at += 1;
            return Ok(Json::Array(values));
        }
        loop {
            values.push(self.value(depth + 1)?);
            match self.next_token() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.expected("',' or ']'")),
            }
        }
        self.at += 1;
        Ok(Json::Array(values))
    }

    fn string(&mut self) -> Result<Cow<'a, str>> {
        self.at += 1;
        let mut whole = Cow::Borrowed("");
        loop {
            let rest = &self.text[self.at..];
            let Some(length) = rest.bytes().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)) else {
                self.at = self.text.len();
                return Err(self.expected("the end of a string"));
            };
            let plain = &rest[..length];
            if whole.is_empty() {
                whole = Cow::Borrowed(plain);
            } else {
                whole.to_mut().push_str(plain);
            }
            self.at += length;
            match rest.as_bytes()[length] {
                b'"' => {
                    self.at += 1;
                    return Ok(whole);
                }
                b'\\' => {
                    let c = self.escape()?;
                    whole.to_mut().push(c);
                }
                _ => return Err(self.error("a string contains a control character")),
            }
        }
    }

    fn escape(&mut self) -> Result<char> {
        let c = match self.text.as_bytes().get(self.at + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{C}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err(self.error("an escape that JSON does not have")),
        };
        self.at += 2;
        Ok(c)
    }

    /// `\uXXXX`, or two of them for a character beyond the first plane.
    fn unicode(&mut self) -> Result<char> {
        let unit = |at: usize| {
            let digits = self.text.get(at..at + 6)?.strip_prefix("\\u")?;
            if digits.bytes().all(|b| b.is_ascii_hexdigit()) { u16::from_str_radix(digits, 16).ok() } else { None }
        };
        let units = [unit(self.at), unit(self.at + 6)];
        let decoded = match units {
            [Some(first), _] if !(0xD800..0xE000).contains(&first) => char::from_u32(first.into()).map(|c| (c, 6)),
            [Some(first), Some(second)] => char::decode_utf16([first, second]).next().and_then(Result::ok).map(|c| (c, 12)),
            _ => None,
        };
        let Some((c, length)) = decoded else { return Err(self.error("an escape that names no character")) };
        self.at += length;
        Ok(c)
    }

    fn number(&mut self) -> Result<Json<'a>> {
        let rest = &self.text[self.at..];
        if rest.starts_with("-Infinity") {
            self.at += "-Infinity".len();
            return Ok(Json::Number(&rest[.."-Infinity".len()]));
        }
        let length =
            rest.bytes().position(|b| !matches!(b, b'+' | b'-' | b'.' | b'e' | b'E' | b'0'..=b'9')).unwrap_or(rest.len());
        let number = &rest[..length];
        if !is_number(number) {
            return Err(self.error(format!("{} is not a number", shown(number))));
        }
        self.at += length;
        Ok(Json::Number(number))
    }

    fn word(&mut self) -> Result<Json<'a>> {
        let start = self.at;
        let value = match self.bare() {
            "null" => Json::Null,
            "true" => Json::Bool(true),
            "false" => Json::Bool(false),
            number @ ("NaN" | "Infinity") => Json::Number(number),
            _ => {
                self.at = start;
                return Err(self.expected("a value"));
            }
        };
        Ok(value)
    }

    /// A word without quotes.
    fn bare(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let length = rest.bytes().position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$'))).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// Skips white space, and returns what comes after it.
    fn next_token(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().position(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r')).unwrap_or(rest.len());
        self.at += length;
        rest.get(length).copied()
    }

    fn expected(&self, what: &str) -> Error {
        match self.text[self.at..].chars().next() {
            Some(found) => self.error(format!("expected {what}, found {found:?}")),
            None => self.error(format!("it ends early: expected {what}")),
        }
    }

    fn error(&self, what: impl std::fmt::Display) -> Error {
        let before = &self.text[..self.at];
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Error::damaged(format!("at line {line}, column {column}: {what}"))
    }
}

/// Whether this is a number in JSON.
pub(super) fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn order_repeated_keys_and_the_text_of_numbers_are_kept() {
        let text = r#" {"b": 1.50, "a": [true, false, null, -0, 1E+2], "b": {}, bare_$1: NaN, "n": -Infinity} "#;
        let Json::Object(members) = parse(text.as_bytes()).unwrap() else { panic!("not an object") };
        let names: Vec<&str> = members.iter().map(|(name, _)| name.as_ref()).collect();
        assert_eq!(names, ["b", "a", "b", "bare_$1", "n"]);
        assert_eq!(members[0].1, Json::Number("1.50"));
        let values = [Json::Bool(true), Json::Bool(false), Json::Null, Json::Number("-0"), Json::Number("1E+2")];
        assert_eq!(members[1].1, Json::Array(values.to_vec()));
        assert_eq!((&members[3].1, &members[4].1), (&Json::Number("NaN"), &Json::Number("-Infinity")));
    }

    #[test]
    fn escapes_are_read() {
        let text = r#""\"\\\/\b\f\n\r\t\u00fc\uD83D\ude00\u0000 ü""#;
        assert_eq!(parse(text.as_bytes()).unwrap(), Json::String("\"\\/\u{8}\u{C}\n\r\tü😀\0 ü".into()));
        for wrong in [r#""\x""#, r#""\uD83D""#, r#""\uDE00\uD83D""#, r#""\u12g4""#, r#""\u+123""#, r#""\u12"#, "\"a\nb\""] {
            assert!(error(wrong).starts_with("at line 1, column "), "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        assert_eq!(error("{\n \"ü\": tru}"), "at line 2, column 7: expected a value, found 't'");
        assert_eq!(error("[1 2]"), "at line 1, column 4: expected ',' or ']', found '2'");
        assert_eq!(error("{\"a\":"), "at line 1, column 6: it ends early: expected a value");
        assert_eq!(error("[01]"), "at line 1, column 2: 01 is not a number");
        assert_eq!(error("{} {}"), "at line 1, column 4: expected the end, found '{'");
        assert_eq!(parse(b"[\"\xFF\"]").unwrap_err().to_string(), "at byte 2: the text is not UTF-8");
        for wrong in ["-", "1.", ".5", "1e", "+1", "1e+", "--1", "1.2.3", "0x1", "'a'", "{,}", "[1,]", "{\"a\":1,}", "{1:1}"] {
            parse(wrong.as_bytes()).unwrap_err();
        }
    }

    #[test]
    fn depth_and_number_of_values_are_bounded() {
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        parse(nested(MAX_DEPTH).as_bytes()).unwrap();
        assert!(error(&nested(1_000_000)).contains("nested deeper than 256 levels"));
        assert!(error(&"{\"a\":".repeat(1_000_000)).contains("nested deeper"));
        assert!(error(&format!("[{}1]", "1,".repeat(MAX_VALUES))).contains("more than 2000000 values"));
    }
}
