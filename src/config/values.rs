//! Converts raw values to typed ones. Each error names the setting, its origin, what was found and
//! what was expected.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use figment::Figment;
use figment::value::Value;

use super::origin::{Origin, place};
use super::places::find;
use super::settings::Setting;
use crate::error::{Error, Result};

/// Text, with its origin for later errors.
pub(super) fn text(settings: &Figment, setting: &Setting) -> Result<Option<(String, Origin)>> {
    match find(settings, setting) {
        None => Ok(None),
        Some((Value::String(_, text), origin)) => Ok(Some((text, origin))),
        Some((_, origin)) => Err(Error::usage(format!("{}: expected text in quotes", place(setting, origin)))),
    }
}

/// Text that `parse` converts. If that fails, the error names the place.
pub(super) fn parsed<T>(settings: &Figment, setting: &Setting, parse: impl Fn(&str) -> Result<T>) -> Result<Option<T>> {
    let Some((text, origin)) = text(settings, setting)? else { return Ok(None) };
    parse(&text).map(Some).map_err(|e| e.context(place(setting, origin)))
}

/// A whole number in this range.
pub(super) fn whole_number(settings: &Figment, setting: &Setting, range: RangeInclusive<i64>) -> Result<Option<i64>> {
    let Some((value, origin)) = find(settings, setting) else { return Ok(None) };
    let (number, shown) = match &value {
        Value::String(_, text) => (text.trim().parse().ok(), format!("{text:?}")),
        Value::Num(_, number) => {
            // The message shows a number that is not whole as it was written.
            let shown = number.to_f64().map_or_else(
                || number.to_i128().map(|n| n.to_string()).or_else(|| number.to_u128().map(|n| n.to_string())),
                |f| Some(f.to_string()),
            );
            let whole = number.to_i128().or_else(|| number.to_u128().and_then(|n| i128::try_from(n).ok()));
            (whole.and_then(|n| i64::try_from(n).ok()), shown.unwrap_or_default())
        }
        _ => (None, "neither number nor text".to_owned()),
    };
    number.filter(|n| range.contains(n)).map(Some).ok_or_else(|| {
        Error::usage(format!(
            "{} is {shown}: expected a whole number from {} to {}",
            place(setting, origin),
            range.start(),
            range.end()
        ))
    })
}

/// A whole number from one to `most`.
pub(super) fn count(settings: &Figment, setting: &Setting, most: u32) -> Result<Option<NonZeroU32>> {
    let number = whole_number(settings, setting, 1..=i64::from(most))?;
    Ok(number.and_then(|n| u32::try_from(n).ok()).and_then(NonZeroU32::new))
}

/// Parses a time span: a whole number with its unit, s, m, h, d or w, as `90s` or `7d`.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage).
pub fn duration(text: &str) -> Result<Duration> {
    let text = text.trim();
    let unit = text.chars().last();
    let seconds = match unit {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 24 * 3600,
        Some('w') => 7 * 24 * 3600,
        _ => 0,
    };
    let number = unit.and_then(|unit| text.strip_suffix(unit)).and_then(|digits| digits.parse::<u32>().ok());
    match number.filter(|number| *number > 0 && seconds > 0) {
        Some(number) => Ok(Duration::from_secs(u64::from(number) * seconds)),
        None => Err(Error::usage(format!("found {text:?}: expected a number above 0 with s, m, h, d or w, as 90s or 7d"))),
    }
}

/// A Boolean.
pub(super) fn truth(settings: &Figment, setting: &Setting) -> Result<Option<bool>> {
    let Some((value, origin)) = find(settings, setting) else { return Ok(None) };
    let (truth, shown) = match &value {
        Value::Bool(_, truth) => (Some(*truth), String::new()),
        Value::String(_, text) => {
            let truth = match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Some(true),
                "false" | "0" | "no" | "off" => Some(false),
                _ => None,
            };
            (truth, format!("{text:?}"))
        }
        Value::Num(_, number) => {
            let number = number.to_i128().or_else(|| number.to_u128().and_then(|n| i128::try_from(n).ok()));
            let truth = number.filter(|n| matches!(n, 0 | 1)).map(|n| n == 1);
            (truth, number.map_or_else(|| "a number".to_owned(), |n| n.to_string()))
        }
        _ => (None, "neither true nor false".to_owned()),
    };
    truth.map(Some).ok_or_else(|| Error::usage(format!("{} is {shown}: expected true or false", place(setting, origin))))
}
