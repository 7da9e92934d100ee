//! Golden tables around every kind of clock change, and rules that hold for every expression.

use bsonvault::schedule::{Cadence, Expression, zone};
use chrono::{DateTime, Datelike as _, NaiveDate, NaiveDateTime, TimeDelta, TimeZone as _, Timelike as _, Utc};
use chrono_tz::Tz;
use proptest::prelude::*;

fn utc(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

/// The runs between two times, as the zone's clock shows them.
fn runs(expression: &str, zone: &str, from: &str, to: &str) -> Vec<String> {
    let cadence = Cadence::cron(expression, zone).unwrap();
    let zone = self::zone(zone).unwrap();
    moments(&cadence, utc(from), utc(to)).iter().map(|at| at.with_timezone(&zone).format("%d %H:%M %z").to_string()).collect()
}

fn moments(cadence: &Cadence, from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let next = |at: &DateTime<Utc>| cadence.next_after(DateTime::UNIX_EPOCH, *at);
    std::iter::successors(next(&from), next).take_while(|at| *at <= to).collect()
}

#[test]
fn a_time_that_is_skipped_runs_once_when_the_gap_ends() {
    let berlin = runs("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", "2026-03-30T12:00:00Z");
    assert_eq!(berlin, ["28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200"]);
    let new_york = runs("30 2 * * *", "America/New_York", "2026-03-06T12:00:00Z", "2026-03-09T12:00:00Z");
    assert_eq!(new_york, ["07 02:30 -0500", "08 03:00 -0400", "09 02:30 -0400"]);
    // There, the clock goes from 02:00 to 02:30.
    let lord_howe = runs("30 2 * * *", "Australia/Lord_Howe", "2026-10-02T00:00:00Z", "2026-10-05T00:00:00Z");
    assert_eq!(lord_howe, ["03 02:30 +1030", "04 02:30 +1100", "05 02:30 +1100"]);
    let lord_howe = runs("15 2 * * *", "Australia/Lord_Howe", "2026-10-02T00:00:00Z", "2026-10-05T00:00:00Z");
    assert_eq!(lord_howe, ["03 02:15 +1030", "04 02:30 +1100", "05 02:15 +1100"]);
    let utc = runs("30 2 * * *", "UTC", "2026-03-27T12:00:00Z", "2026-03-30T12:00:00Z");
    assert_eq!(utc, ["28 02:30 +0000", "29 02:30 +0000", "30 02:30 +0000"]);
}

#[test]
fn a_time_that_is_repeated_runs_where_it_comes_first() {
    let berlin = runs("30 2 * * *", "Europe/Berlin", "2026-10-23T12:00:00Z", "2026-10-26T12:00:00Z");
    assert_eq!(berlin, ["24 02:30 +0200", "25 02:30 +0200", "26 02:30 +0100"]);
    let new_york = runs("30 1 * * *", "America/New_York", "2026-10-30T12:00:00Z", "2026-11-02T12:00:00Z");
    assert_eq!(new_york, ["31 01:30 -0400", "01 01:30 -0400", "02 01:30 -0500"]);
    let new_york = runs("30 2 * * *", "America/New_York", "2026-10-30T12:00:00Z", "2026-11-02T12:00:00Z");
    assert_eq!(new_york, ["31 02:30 -0400", "01 02:30 -0500", "02 02:30 -0500"]);
    let lord_howe = runs("45 1 * * *", "Australia/Lord_Howe", "2026-04-03T00:00:00Z", "2026-04-06T00:00:00Z");
    assert_eq!(lord_howe, ["04 01:45 +1100", "05 01:45 +1100", "06 01:45 +1030"]);
    // Also from within the second half of the repeated hour.
    let later = runs("30 2 * * *", "Europe/Berlin", "2026-10-25T01:15:00Z", "2026-10-26T12:00:00Z");
    assert_eq!(later, ["26 02:30 +0100"]);
}

#[test]
fn several_times_of_a_day_run_once_each() {
    let spring = runs("0,30 2,3,14 * * *", "Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29T21:00:00Z");
    assert_eq!(spring, ["29 03:00 +0200", "29 03:30 +0200", "29 14:00 +0200", "29 14:30 +0200"]);
    let autumn = runs("30 */2 * * *", "Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T06:00:00Z");
    assert_eq!(autumn, ["25 00:30 +0200", "25 02:30 +0200", "25 04:30 +0100", "25 06:30 +0100"]);
    let spring = runs("30 */2 * * *", "Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29T05:00:00Z");
    assert_eq!(spring, ["29 00:30 +0100", "29 03:00 +0200", "29 04:30 +0200", "29 06:30 +0200"]);
}

#[test]
fn what_runs_every_hour_runs_in_every_hour_that_there_is() {
    let hourly = runs("0 * * * *", "Europe/Berlin", "2026-03-28T23:30:00Z", "2026-03-29T02:30:00Z");
    assert_eq!(hourly, ["29 01:00 +0100", "29 03:00 +0200", "29 04:00 +0200"]);
    let hourly = runs("0 * * * *", "Europe/Berlin", "2026-10-24T22:30:00Z", "2026-10-25T02:30:00Z");
    assert_eq!(hourly, ["25 01:00 +0200", "25 02:00 +0200", "25 02:00 +0100", "25 03:00 +0100"]);
    assert_eq!(hourly, runs("@hourly", "Europe/Berlin", "2026-10-24T22:30:00Z", "2026-10-25T02:30:00Z"));
    assert_eq!(hourly, runs("0 0-23 * * *", "Europe/Berlin", "2026-10-24T22:30:00Z", "2026-10-25T02:30:00Z"));
    // A clock that jumps from 02:00 to 02:30 never shows 02:00. One that goes back to 01:30 shows
    // 02:00 half an hour late.
    let hourly = runs("0 * * * *", "Australia/Lord_Howe", "2026-10-03T14:00:00Z", "2026-10-03T17:00:00Z");
    assert_eq!(hourly, ["04 01:00 +1030", "04 03:00 +1100", "04 04:00 +1100"]);
    let hourly = runs("0 * * * *", "Australia/Lord_Howe", "2026-04-04T13:30:00Z", "2026-04-04T17:00:00Z");
    assert_eq!(hourly, ["05 01:00 +1100", "05 02:00 +1030", "05 03:00 +1030"]);
    for (zone, around) in [
        ("Europe/Berlin", "2026-03-29T01:00:00Z"),
        ("Europe/Berlin", "2026-10-25T01:00:00Z"),
        ("America/New_York", "2026-03-08T07:00:00Z"),
        ("America/New_York", "2026-11-01T06:00:00Z"),
        ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
        ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
        ("Pacific/Apia", "2011-12-30T10:00:00Z"),
        ("UTC", "2026-03-29T01:00:00Z"),
    ] {
        let (from, to) = (utc(around) - TimeDelta::hours(30), utc(around) + TimeDelta::hours(30));
        for (expression, minutes) in [("*/15 * * * *", 15), ("0 * * * *", 60)] {
            if (zone, minutes) == ("Australia/Lord_Howe", 60) {
                continue;
            }
            let found = moments(&Cadence::cron(expression, zone).unwrap(), from, to);
            let step = TimeDelta::minutes(minutes);
            assert!(found.windows(2).all(|pair| pair[1] - pair[0] == step), "{expression} in {zone} around {around}");
            assert_eq!(i64::try_from(found.len()).unwrap(), 60 * 60 / minutes, "{expression} in {zone} around {around}");
        }
    }
}

#[test]
fn a_day_that_is_skipped_has_no_runs() {
    // Apia went from the 29th to the 31st of December 2011.
    let daily = runs("30 2 * * *", "Pacific/Apia", "2011-12-28T13:00:00Z", "2012-01-01T13:00:00Z");
    assert_eq!(daily, ["29 02:30 -1000", "31 02:30 +1400", "01 02:30 +1400", "02 02:30 +1400"]);
    let midnight = runs("0 0 * * *", "Pacific/Apia", "2011-12-29T09:00:00Z", "2012-01-01T09:00:00Z");
    assert_eq!(midnight, ["29 00:00 -1000", "31 00:00 +1400", "01 00:00 +1400"]);
    let friday = runs("0 12 * * FRI", "Pacific/Apia", "2011-12-20T00:00:00Z", "2012-01-10T00:00:00Z");
    assert_eq!(friday, ["23 12:00 -1000", "06 12:00 +1400"]);
    // In Nuuk, the last hour of a day is skipped: runs that were planned in it happen at midnight.
    let nuuk = runs("30 23 * * *", "America/Nuuk", "2024-03-30T12:00:00Z", "2024-04-01T12:00:00Z");
    assert_eq!(nuuk, ["31 00:00 -0100", "31 23:30 -0100"]);
    // In Beirut, the first hour of a day is skipped.
    let beirut = runs("0 0 * * *", "Asia/Beirut", "2024-03-30T12:00:00Z", "2024-04-01T12:00:00Z");
    assert_eq!(beirut, ["31 01:00 +0300", "01 00:00 +0300"]);
}

#[test]
fn days_of_month_and_of_week_are_joined_as_vixie_cron_does() {
    let days = |expression: &str| -> Vec<u32> {
        let found = moments(&Cadence::cron(expression, "UTC").unwrap(), utc("2026-05-31T23:59:00Z"), utc("2026-06-30T23:00:00Z"));
        found.iter().map(|at| at.day()).collect()
    };
    // June 2026 begins on a Monday.
    assert_eq!(days("0 0 13 * *"), [13]);
    assert_eq!(days("0 0 * * 5"), [5, 12, 19, 26]);
    assert_eq!(days("0 0 13 * 5"), [5, 12, 13, 19, 26], "either of them");
    assert_eq!(days("0 0 */2 * 5"), [5, 19], "both, where one begins with a star");
    assert_eq!(days("0 0 13 * */2"), [13], "the 13th is a Saturday, the sixth day");
    assert_eq!(days("0 0 12 * */2"), [] as [u32; 0]);
    assert_eq!(days("0 0 * * mon-fri"), days("0 0 * JUN 1-5"));
    assert_eq!(days("0 0 * * sat-sun"), [6, 7, 13, 14, 20, 21, 27, 28]);
    assert_eq!(days("0 0 * * 7"), days("0 0 * * SUN"));
    assert_eq!(days("@weekly"), [7, 14, 21, 28]);
    assert_eq!(days("@monthly"), [1]);
    assert_eq!(days("0 0 1-10/3,20 * *"), [1, 4, 7, 10, 20]);
}

#[test]
fn what_is_no_expression_is_refused_with_what_was_expected() {
    for (text, message) in [
        ("", "expected five fields, found 0"),
        ("* * * *", "expected five fields, found 4"),
        ("0 0 2 * * *", "expected five fields, without seconds and years, found 6"),
        ("0 0 2 * * * 2027", "without seconds and years, found 7"),
        ("60 * * * *", "found \"60\": expected 0 to 59 in the field minute"),
        ("0 24 * * *", "found \"24\": expected 0 to 23 in the field hour"),
        ("0 0 0 * *", "found \"0\": expected 1 to 31 in the field day of month"),
        ("0 0 1 13 *", "found \"13\": expected 1 to 12 or JAN to DEC in the field month"),
        ("0 0 * * 8", "found \"8\": expected 0 to 7 or SUN to SAT in the field day of week"),
        ("0 0 * * FRIDAY", "found \"FRIDAY\""),
        ("MON 0 * * *", "found \"MON\": expected 0 to 59 in the field minute"),
        ("5-1 * * * *", "\"5-1\" ends before it begins in the field minute"),
        ("*/90 * * * *", "\"*/90\" has a step of \"90\": expected 1 to 60"),
        ("*/0 * * * *", "has a step of \"0\""),
        ("5/10 * * * *", "\"5/10\" has a step without a range: expected */10 or a range"),
        ("1,,2 * * * *", "found \"\""),
        (", * * * *", "found \"\""),
        ("-1 * * * *", "found \"\""),
        ("+1 * * * *", "found \"+1\""),
        ("0 0 L * *", "found \"L\""),
        ("@reboot", "expected five fields or one of @hourly"),
        ("0 0 30 2 *", "\"0 0 30 2 *\" never fires"),
        ("0 0 31 4,6,9,11 *", "never fires"),
        ("99999999999999999999 * * * *", "expected 0 to 59"),
    ] {
        let error = Expression::parse(text).unwrap_err();
        assert!(error.to_string().contains(message), "{text}: {error}");
        assert!(error.hint_text().is_some(), "{text}");
    }
    assert!(Expression::parse("0 0 30 2 1").is_ok(), "the Mondays of February");
    assert_eq!(Expression::parse("  0   2 * *\t* ").unwrap().as_str(), "0 2 * * *");
    assert_eq!(Expression::parse("0 2 * * MON").unwrap().as_str(), "0 2 * * MON");
    assert_eq!(Cadence::every(0).unwrap_err().to_string(), "an interval of 0 hours: expected a whole number from 1 to 87600");
    assert!(Cadence::every(87_601).is_err() && Cadence::every(87_600).is_ok());
}

#[test]
fn a_zone_that_is_unknown_is_refused_with_those_that_may_be_meant() {
    assert_eq!(zone(" Europe/Berlin ").unwrap(), Tz::Europe__Berlin);
    for (name, hint) in [
        ("europe/berlin", "did you mean Europe/Berlin?"),
        ("Germany/Berlin", "did you mean Europe/Berlin?"),
        ("new york", "did you mean America/New_York?"),
        ("Mars/Base", "give an IANA name, for example Europe/Berlin or UTC"),
        ("", "give an IANA name, for example Europe/Berlin or UTC"),
    ] {
        let error = zone(name).unwrap_err();
        assert_eq!(error.to_string(), format!("{:?} is not a known time zone", name));
        assert_eq!(error.hint_text(), Some(hint), "{name}");
    }
}

#[test]
fn intervals_are_exact_in_absolute_time() {
    let anchor = utc("2026-03-28T10:07:03.250Z");
    let five = Cadence::every(5).unwrap();
    let next = |after: &str| five.next_after(anchor, utc(after)).unwrap();
    assert_eq!(next("2026-03-28T10:07:03.250Z"), utc("2026-03-28T15:07:03.250Z"));
    assert_eq!(next("2026-03-28T15:07:03.249Z"), utc("2026-03-28T15:07:03.250Z"));
    assert_eq!(next("2026-03-28T15:07:03.250Z"), utc("2026-03-28T20:07:03.250Z"));
    assert_eq!(
        next("2020-01-01T00:00:00Z"),
        utc("2026-03-28T15:07:03.250Z"),
        "the first one comes one interval after the anchor"
    );
    // 8349 intervals and part of another one have passed.
    assert_eq!(next("2031-01-01T00:00:00Z") - anchor, TimeDelta::hours(5) * 8350);
    assert_eq!(Cadence::every(87_600).unwrap().next_after(DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MAX_UTC), None);
}

#[test]
fn far_and_rare_times_are_found_soon() {
    let begin = std::time::Instant::now();
    let leap = Cadence::cron("* * 29 2 *", "Europe/Berlin").unwrap();
    let next = leap.next_after(DateTime::UNIX_EPOCH, utc("2096-03-01T00:00:00Z")).unwrap();
    assert_eq!(next, utc("2104-02-28T23:00:00Z"));
    let once = Cadence::cron("0 0 29 2 *", "Europe/Berlin").unwrap();
    assert_eq!(once.next_after(DateTime::UNIX_EPOCH, utc("2096-03-01T00:00:00Z")), Some(next));
    assert_eq!(leap.next_after(DateTime::UNIX_EPOCH, utc("6000-01-01T00:00:00Z")), None);
    assert_eq!(once.next_after(DateTime::UNIX_EPOCH, DateTime::<Utc>::MAX_UTC - TimeDelta::days(2)), None);
    assert!(begin.elapsed().as_millis() < 500, "{:?}", begin.elapsed());
}

const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "America/Sao_Paulo",
    "Africa/Casablanca",
    "Asia/Kathmandu",
];

#[test]
fn daily_runs_come_on_each_day_of_the_zone_once() {
    for name in ZONES {
        let zone = zone(name).unwrap();
        for time in ["0 0", "30 2", "59 23", "0 2", "30 1"] {
            let cadence = Cadence::cron(&format!("{time} * * *"), name).unwrap();
            let from = zone.with_ymd_and_hms(2009, 6, 15, 23, 59, 30).unwrap().to_utc();
            let found: Vec<NaiveDate> = moments(&cadence, from, from + TimeDelta::days(3653))
                .iter()
                .map(|at| at.with_timezone(&zone).date_naive())
                .collect();
            let mut days: Vec<NaiveDate> = found[0].iter_days().take_while(|day| day <= found.last().unwrap()).collect();
            if name == "Pacific/Apia" {
                days.retain(|day| *day != NaiveDate::from_ymd_opt(2011, 12, 30).unwrap());
            }
            assert!(found == days, "{time} in {name}");
            assert!(found.len() > 3640, "{time} in {name}");
        }
    }
}

/// One field: everything, a step, a list, or a range.
fn field(first: u32, last: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        2 => Just("*".to_owned()),
        1 => (1..=last - first).prop_map(|step| format!("*/{step}")),
        2 => proptest::collection::vec(first..=last, 1..4).prop_map(|values| values.iter().map(u32::to_string).collect::<Vec<_>>().join(",")),
        1 => (first..=last, first..=last).prop_map(|(one, other)| format!("{}-{}", one.min(other), one.max(other))),
    ]
}

/// Whether a field admits a value, in an independent, slow implementation.
fn admits(field: &str, first: u32, value: u32) -> bool {
    field.split(',').any(|item| match (item.strip_prefix("*/"), item.split_once('-')) {
        (Some(step), _) => (value - first).is_multiple_of(step.parse().unwrap()),
        (_, Some((low, high))) => (low.parse::<u32>().unwrap()..=high.parse().unwrap()).contains(&value),
        _ => item == "*" || item.parse() == Ok(value),
    })
}

/// Whether the clock shows what the fields name.
fn names(fields: &[String], at: NaiveDateTime) -> bool {
    let week = at.weekday().num_days_from_sunday();
    let (day, weekday) =
        (admits(&fields[2], 1, at.day()), admits(&fields[4], 0, week) || (week == 0 && admits(&fields[4], 0, 7)));
    let days = if fields[2].starts_with('*') || fields[4].starts_with('*') { day && weekday } else { day || weekday };
    admits(&fields[0], 0, at.minute()) && admits(&fields[1], 0, at.hour()) && admits(&fields[3], 1, at.month()) && days
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn runs_are_what_a_look_at_every_minute_finds(
        fields in (field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 7)).prop_map(|f| vec![f.0, f.1, f.2, f.3, f.4]),
        zone_at in 0..ZONES.len(),
        change in 0..4usize,
        skew in -90_000..90_000i64,
    ) {
        let Ok(cadence) = Cadence::cron(&fields.join(" "), ZONES[zone_at]) else { return Ok(()) };
        let zone = zone(ZONES[zone_at]).unwrap();
        let around = ["2026-03-29T01:00:00Z", "2026-10-25T01:00:00Z", "2011-12-30T10:00:00Z", "2026-04-04T15:00:00Z"][change];
        let from = utc(around) + TimeDelta::seconds(skew);
        let to = from + TimeDelta::hours(40);
        let found = moments(&cadence, from, to);
        prop_assert!(found.windows(2).all(|pair| pair[0] < pair[1]));
        let every_hour = (0..24).all(|hour| admits(&fields[1], 0, hour));
        // Every minute of the wall clock in four days, and the times that show it.
        let mut expected: Vec<DateTime<Utc>> = Vec::new();
        let first = utc(around).naive_utc().date().and_hms_opt(0, 0, 0).unwrap() - TimeDelta::days(3);
        for minute in 0..7 * 1440 {
            let shown = first + TimeDelta::minutes(minute);
            if !names(&fields, shown) {
                continue;
            }
            match zone.from_local_datetime(&shown) {
                chrono::MappedLocalTime::Single(at) => expected.push(at.to_utc()),
                chrono::MappedLocalTime::Ambiguous(one, other) => {
                    expected.push(one.to_utc());
                    if every_hour { expected.push(other.to_utc()) }
                }
                chrono::MappedLocalTime::None if every_hour => {}
                chrono::MappedLocalTime::None => {
                    let after = (0..).map(|m| shown + TimeDelta::minutes(m)).find_map(|later| zone.from_local_datetime(&later).earliest());
                    if ZONES[zone_at] != "Pacific/Apia" { expected.extend(after.map(|at| at.to_utc())) }
                }
            }
        }
        expected.retain(|at| *at > from && *at <= to);
        expected.sort();
        expected.dedup();
        prop_assert_eq!(found, expected);
    }
}
