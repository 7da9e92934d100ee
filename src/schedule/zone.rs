//! Converts between absolute time and the wall clock of a time zone: clocks change, and whole days
//! may be skipped.

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, Offset as _, TimeDelta, TimeZone as _, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};

use crate::error::{Error, Result};

/// No zone ever had two changes within this time (the closest were four days apart). So if two
/// times are no further apart, their offsets tell whether the clock changed between them.
const STRIDE: TimeDelta = TimeDelta::hours(12);
/// No zone is further from UTC than this.
const FURTHEST: TimeDelta = TimeDelta::hours(16);

/// Parses an IANA zone name.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage), with the zones that were probably meant.
pub fn parse(name: &str) -> Result<Tz> {
    let name = name.trim();
    name.parse().map_err(|_| {
        let city = |name: &str| name.rsplit('/').next().unwrap_or_default().replace(' ', "_").to_lowercase();
        let meant: Vec<_> = TZ_VARIANTS.iter().map(|zone| zone.name()).filter(|zone| city(zone) == city(name)).take(3).collect();
        let hint = match meant.as_slice() {
            [] => "give an IANA name, for example Europe/Berlin or UTC".to_owned(),
            meant => format!("did you mean {}?", meant.join(" or ")),
        };
        Error::usage(format!("{name:?} is not a known time zone")).hint(hint)
    })
}

/// The first moment later than `after` at which the clock shows a time that `next` names. `next`
/// returns the first time after the given one, or at it.
pub(super) fn each_match(
    zone: Tz,
    after: DateTime<Utc>,
    next: impl Fn(NaiveDateTime, bool) -> Option<NaiveDateTime>,
) -> Option<DateTime<Utc>> {
    let (mut from, mut inclusive) = (after, false);
    loop {
        // Until the clock changes, wall clock and absolute time advance together.
        let wanted = next(shown(zone, from), inclusive)?;
        let found = from.checked_add_signed(wanted - shown(zone, from))?;
        match first_change(zone, from, found) {
            None => return Some(found),
            Some(change) => (from, inclusive) = (change, true),
        }
    }
}

/// The first moment later than `after` that stands for a time that `next` names; each time has one
/// moment. `next` returns the first time after the given one.
///
/// Later times have later or equal moments, so the search need not begin before the wall clock time
/// at `after`.
pub(super) fn each_once(
    zone: Tz,
    after: DateTime<Utc>,
    next: impl Fn(NaiveDateTime) -> Option<NaiveDateTime>,
) -> Option<DateTime<Utc>> {
    let mut time = shown(zone, after);
    loop {
        time = next(time)?;
        match moment(zone, time) {
            Some(found) if found > after => return Some(found),
            _ => {}
        }
    }
}

/// The moment of a time on the clock. None if the whole day was skipped.
fn moment(zone: Tz, time: NaiveDateTime) -> Option<DateTime<Utc>> {
    match zone.from_local_datetime(&time) {
        MappedLocalTime::Single(found) => Some(found.to_utc()),
        MappedLocalTime::Ambiguous(one, other) => Some(one.min(other).to_utc()),
        MappedLocalTime::None => {
            let end = after_gap(zone, time)?;
            let before = end.checked_sub_signed(TimeDelta::seconds(1))?;
            [before, end].iter().any(|at| shown(zone, *at).date() == time.date()).then_some(end)
        }
    }
}

/// The first moment after the gap that this time lies in.
fn after_gap(zone: Tz, time: NaiveDateTime) -> Option<DateTime<Utc>> {
    let low = time.and_utc().checked_sub_signed(FURTHEST)?;
    let high = time.and_utc().checked_add_signed(FURTHEST)?;
    Some(first(low, high, |at| shown(zone, at) > time))
}

/// The first moment later than `from` and no later than `to` at which the clock changes.
fn first_change(zone: Tz, from: DateTime<Utc>, to: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let offset = |at: DateTime<Utc>| zone.offset_from_utc_datetime(&at.naive_utc()).fix();
    let before = offset(from);
    let mut low = from;
    while low < to {
        let high = low.checked_add_signed(STRIDE).map_or(to, |high| high.min(to));
        if offset(high) != before {
            return Some(first(low, high, |at| offset(at) != before));
        }
        low = high;
    }
    None
}

/// The first whole second after `low` at which `holds` is true. It must hold from that second up to
/// `high`.
fn first(low: DateTime<Utc>, high: DateTime<Utc>, holds: impl Fn(DateTime<Utc>) -> bool) -> DateTime<Utc> {
    let (mut low, mut high) = (low.timestamp(), high.timestamp());
    let at = |second: i64| DateTime::from_timestamp(second, 0).unwrap_or(DateTime::UNIX_EPOCH);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if holds(at(middle)) {
            high = middle;
        } else {
            low = middle;
        }
    }
    at(high)
}

/// What the clock shows.
fn shown(zone: Tz, at: DateTime<Utc>) -> NaiveDateTime {
    zone.from_utc_datetime(&at.naive_utc()).naive_local()
}
