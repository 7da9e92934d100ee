//! Renders what `tune` measured and chose. Pure: values in, whole lines out.

use std::time::Duration;

use indicatif::{BinaryBytes, HumanCount, HumanDuration};

use super::{count, plain, right_align, source, table};
use crate::engine::tune::{Choice, Limit, Row, TuneReport, slack};
use crate::format::frame;

/// The width of the longest bar.
const BAR: f64 = 30.0;

/// The whole report.
#[must_use]
pub fn text(report: &TuneReport) -> String {
    let mut text = facts(report);
    text += &readers(report);
    text += &rows(report);
    text += &chart(report);
    let [frame, long] = lines(report.choice);
    text += &choice(report);
    text += &format!("paste        {frame}\n             {long}\n");
    text + "             into .env; readers and level need no setting: by default they adapt to what limits a backup\n"
}

/// The settings of the choice for `.env`, a line each. Readers and level are not among them: once
/// set, they no longer adapt.
#[must_use]
pub fn lines(choice: Choice) -> [String; 2] {
    [format!("BACKUP_FRAME_MB={}", choice.frame_mb), format!("BACKUP_LONG_DISTANCE={}", choice.long_distance)]
}

fn facts(report: &TuneReport) -> String {
    let facts = &report.source;
    let distance = match (facts.local, facts.far) {
        (true, _) => "on this machine",
        (false, true) => "far or narrow",
        (false, false) => "near",
    };
    let mut text = format!("source       {}\n", source(&facts.source));
    text += &format!(
        "data         about {} documents in {}, {}\n",
        HumanCount(facts.documents),
        count(facts.collections, "collection"),
        BinaryBytes(facts.bytes)
    );
    let sample = &report.sample;
    let names: Vec<String> = sample.collections.iter().map(|c| plain(&c.namespace)).collect();
    text += &format!(
        "sample       {} documents, {}, of {}\n",
        HumanCount(sample.documents),
        BinaryBytes(sample.bytes),
        names.join(", ")
    );
    text += &format!("link         {distance}, {:.1} ms round trip\n", facts.round_trip_seconds * 1000.0);
    let path = &report.path;
    let free = path.free_bytes.map(|free| format!(", {} free", BinaryBytes(free))).unwrap_or_default();
    text += &format!(
        "path         {}: writes {} MB/s in objects of {}, reads them back at {} MB/s{free}\n",
        plain(&path.location),
        mb(path.write_bytes_per_second),
        BinaryBytes(path.object_bytes),
        mb(path.read_bytes_per_second)
    );
    text + &format!(
        "machine      {}; each hashes {} MB/s by SHA-256 and {} MB/s by XXH3\n",
        count(report.cores as u64, "core"),
        mb(report.sha256_bytes_per_second),
        mb(report.xxh3_bytes_per_second)
    )
}

fn readers(report: &TuneReport) -> String {
    let mut table = table(["readers", "MB/s from the source", "latency"]);
    right_align(&mut table, &[0, 1, 2]);
    for read in &report.readers {
        let latency = read.latency_seconds.map(|seconds| format!("{:.1} ms", seconds * 1000.0)).unwrap_or_default();
        table.add_row([read.readers.to_string(), mb(read.bytes_per_second), latency]);
    }
    let mut text = format!("\n{table}\n");
    if let Some(wire) = &report.wire_compression {
        text += &format!(
            "with compression on the wire, which a backup uses over such a link: {} MB/s; without: {} MB/s\n",
            mb(wire.bytes_per_second),
            mb(wire.without_bytes_per_second)
        );
    }
    text
}

fn rows(report: &TuneReport) -> String {
    let mut table =
        table(["level", "frame", "ratio", "MB/s/core", "back", "memory", "takes", "stored", "limit", "against the choice"]);
    right_align(&mut table, &[0, 2, 3, 4, 5, 6, 7]);
    for row in &report.rows {
        let (candidate, prediction) = (&row.candidate, &row.prediction);
        let long = if candidate.long_distance { ", long" } else { "" };
        table.add_row([
            format!("{}{}", if row.chosen { "* " } else { "" }, candidate.level),
            format!("{} MiB{long}", candidate.frame_bytes >> 20),
            format!("{:.2}", candidate.ratio),
            mb(candidate.compress_bytes_per_second),
            mb(candidate.decompress_bytes_per_second),
            BinaryBytes(candidate.memory_bytes).to_string(),
            took(prediction.seconds),
            BinaryBytes(prediction.stored_bytes).to_string(),
            limit(prediction.limit).to_owned(),
            against(report.chosen(), row),
        ]);
    }
    format!(
        "\n{table}\n\"long\" is long-distance matching. \"back\" is MB/s of decompression per core. \"memory\" is what each core that\n\
         compresses takes in addition to the buffers. \"takes\" and \"stored\" are predictions for all of the data.\n"
    )
}

/// `12 % smaller, 14.0 times as long`
fn against(chosen: Option<&Row>, row: &Row) -> String {
    let Some(chosen) = chosen.filter(|_| !row.chosen) else { return String::new() };
    if !row.prediction.fits {
        return "does not fit into memory".to_owned();
    }
    let size = (row.candidate.ratio / chosen.candidate.ratio).recip() - 1.0;
    let size = match (size * 100.0).round() {
        0.0 => "same size".to_owned(),
        percent if percent < 0.0 => format!("{:.0} % smaller", -percent),
        percent => format!("{percent:.0} % larger"),
    };
    let time = row.prediction.seconds / chosen.prediction.seconds.max(1e-9);
    let time = match time {
        t if t >= 1.995 => format!("{t:.1} times as long"),
        t if t >= 1.005 => format!("{:.0} % slower", (t - 1.0) * 100.0),
        t if t <= 0.995 => format!("{:.0} % faster", (1.0 - t) * 100.0),
        _ => "same time".to_owned(),
    };
    format!("{size}, {time}")
}

/// Speed and ratio by level, with frames of the default size.
fn chart(report: &TuneReport) -> String {
    let rows: Vec<&Row> =
        report.rows.iter().filter(|r| r.candidate.frame_bytes == frame::TARGET && !r.candidate.long_distance).collect();
    let speed = |row: &Row| row.prediction.bytes_per_second;
    let ratio = |row: &Row| row.candidate.ratio;
    let fastest = rows.iter().map(|row| speed(row)).fold(f64::MIN_POSITIVE, f64::max);
    let smallest = rows.iter().map(|row| ratio(row)).fold(f64::MIN_POSITIVE, f64::max);
    let bar = |part: f64, mark: &str| mark.repeat((part * BAR).round().clamp(1.0, BAR) as usize);
    let mut text = "\nlevel  a backup's MB/s (#) and ratio (=)\n".to_owned();
    for row in rows {
        let mark = if row.candidate.level == report.choice.level { '*' } else { ' ' };
        text += &format!("{:>4} {mark} {} {}\n", row.candidate.level, bar(speed(row) / fastest, "#"), mb(speed(row)));
        text += &format!("       {} {:.2}\n", bar(ratio(row) / smallest, "="), ratio(row));
    }
    text
}

fn choice(report: &TuneReport) -> String {
    let mut text = String::from("\n");
    if let Some(row) = report.chosen() {
        let readers = count(report.choice.readers as u64, "reader");
        text += &format!(
            "choice       {}, {readers}: about {}, {} stored\n",
            row.candidate.words(),
            took(row.prediction.seconds),
            BinaryBytes(row.prediction.stored_bytes)
        );
        text += &format!("limit        {}\n", limit(row.prediction.limit));
    }
    for reason in &report.reasons {
        text += &format!("reason       {}\n", plain(reason));
    }
    text += &format!("rule         the smallest of all that fit into memory and are within {} of the fastest\n", slack());
    for note in &report.notes {
        text += &format!("note         {}\n", plain(note));
    }
    text + &format!("took         {:.1} s\n", report.seconds)
}

fn limit(limit: Limit) -> &'static str {
    match limit {
        Limit::Source => "the source",
        Limit::Rate => "BACKUP_MAX_MBIT",
        Limit::Cpu => "compression",
        Limit::Disk => "the disk",
    }
}

/// Bytes per second as MB/s, with one decimal if they are few.
fn mb(bytes_per_second: f64) -> String {
    let mb = bytes_per_second / 1e6;
    if mb < 9.95 { format!("{mb:.1}") } else { format!("{mb:.0}") }
}

fn took(seconds: f64) -> String {
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        HumanDuration(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)).to_string()
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::tune::{Candidate, Prediction};

    use super::*;

    fn row(ratio: f64, seconds: f64, chosen: bool) -> Row {
        Row {
            candidate: Candidate {
                level: 1,
                long_distance: false,
                frame_bytes: frame::TARGET,
                ratio,
                compress_bytes_per_second: 1e8,
                decompress_bytes_per_second: 1e9,
                memory_bytes: 1 << 20,
            },
            prediction: Prediction {
                readers: 2,
                bytes_per_second: 1e8,
                seconds,
                stored_bytes: 1 << 30,
                limit: Limit::Cpu,
                fits: true,
            },
            chosen,
        }
    }

    #[test]
    fn what_another_row_costs_is_told_against_the_choice() {
        let chosen = row(3.0, 10.0, true);
        assert_eq!(against(Some(&chosen), &row(3.4, 140.0, false)), "12 % smaller, 14.0 times as long");
        assert_eq!(against(Some(&chosen), &row(2.5, 9.0, false)), "20 % larger, 10 % faster");
        assert_eq!(against(Some(&chosen), &row(3.0, 12.0, false)), "same size, 20 % slower");
        assert_eq!(against(Some(&chosen), &chosen), "");
        let mut large = row(3.4, 10.0, false);
        large.prediction.fits = false;
        assert_eq!(against(Some(&chosen), &large), "does not fit into memory");
    }

    #[test]
    fn speeds_and_times_are_short() {
        assert_eq!((mb(1.26e6), mb(9.96e6), mb(812.4e6)), ("1.3".to_owned(), "10".to_owned(), "812".to_owned()));
        assert_eq!((took(3.25), took(7200.0)), ("3.2 s".to_owned(), "2 hours".to_owned()));
    }
}
