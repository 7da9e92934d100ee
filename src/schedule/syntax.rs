//! The syntax of a cron expression. It is stricter than `croner`, which accepts seconds and years,
//! names in any field, empty items, and steps larger than their field.

use crate::error::{Error, Result};

/// The values of a field.
struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", first: 0, last: 59, names: &[] },
    Field { name: "hour", first: 0, last: 23, names: &[] },
    Field { name: "day of month", first: 1, last: 31, names: &[] },
    Field {
        name: "month",
        first: 1,
        last: 12,
        names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
    },
    Field { name: "day of week", first: 0, last: 7, names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"] },
];

const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// The five fields of an expression, for `croner`: in numbers, and marked if both kinds of days
/// must match.
pub(super) fn fields(text: &str) -> Result<Vec<String>> {
    let refused = |what: String| {
        Error::usage(format!("cron expression {text:?}: {what}"))
            .hint("the fields are minute, hour, day of month, month, day of week: `30 2 * * *` is 2:30 every night")
    };
    let plain = match NICKNAMES.iter().find(|(nickname, _)| nickname.eq_ignore_ascii_case(text)) {
        Some((_, plain)) => plain,
        None if text.starts_with('@') => {
            let known: Vec<_> = NICKNAMES.iter().map(|(nickname, _)| *nickname).collect();
            return Err(refused(format!("expected five fields or one of {}", known.join(", "))));
        }
        None => text,
    };
    let written: Vec<&str> = plain.split_whitespace().collect();
    if written.len() != FIELDS.len() {
        let more = if written.len() > FIELDS.len() { ", without seconds and years" } else { "" };
        return Err(refused(format!("expected five fields{more}, found {}", written.len())));
    }
    let mut fields = FIELDS
        .iter()
        .zip(&written)
        .map(|(field, written)| {
            let items: Result<Vec<_>, _> = written.split(',').map(|item| field.item(item)).collect();
            items.map(|items| items.join(",")).map_err(|what| refused(format!("{what} in the field {}", field.name)))
        })
        .collect::<Result<Vec<_>>>()?;
    // Vixie cron treats a field that begins with a star, even `*/2`, as one that says nothing: then
    // both fields must match. `croner` does so only for a lone star, and otherwise lets either
    // field match. Its mark for "both" makes up for the difference.
    if fields[2] != "*" && fields[4] != "*" && (fields[2].starts_with('*') || fields[4].starts_with('*')) {
        fields[4].insert(0, '+');
    }
    Ok(fields)
}

impl Field {
    /// One item of a list, in numbers: `*`, a value or a range, with or without a step.
    fn item(&self, item: &str) -> Result<String, String> {
        let (base, step) = match item.split_once('/') {
            Some((base, step)) => (base, Some(step)),
            None => (item, None),
        };
        let (base, many) = match base.split_once('-') {
            _ if base == "*" => ("*".to_owned(), true),
            Some((low, high)) => {
                let (low, high) = (self.value(low)?, self.value(high)?);
                // A week may be written as ending with its Sunday.
                let high = if self.last == 7 && high == 0 && low > 0 { 7 } else { high };
                if low > high {
                    return Err(format!("{item:?} ends before it begins"));
                }
                (format!("{low}-{high}"), true)
            }
            None => (self.value(base)?.to_string(), false),
        };
        let Some(step) = step else { return Ok(base) };
        let most = self.last - self.first + 1;
        match step.parse::<u32>() {
            _ if !many => Err(format!("{item:?} has a step without a range: expected */{step} or a range")),
            Ok(step) if (1..=most).contains(&step) => Ok(format!("{base}/{step}")),
            _ => Err(format!("{item:?} has a step of {step:?}: expected 1 to {most}")),
        }
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let value = match named {
            Some(at) => u32::try_from(at).ok().map(|at| at + u32::from(self.names.len() == 12)),
            None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
            None => None,
        };
        value.filter(|value| (self.first..=self.last).contains(value)).ok_or_else(|| {
            let names = match (self.names.first(), self.names.last()) {
                (Some(first), Some(last)) => format!(" or {first} to {last}"),
                _ => String::new(),
            };
            format!("found {text:?}: expected {} to {}{names}", self.first, self.last)
        })
    }
}
