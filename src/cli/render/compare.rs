//! Renders a comparison.

use indicatif::HumanCount;
use serde_json::Value;

use super::{count, plain};
use crate::engine::compare::{CompareReport, ComparedSide, Difference, DocumentDifferences, HowDocument, What};

/// The longest value that is shown whole, in characters.
const LONGEST: usize = 300;

/// How many skipped collections of a side are shown.
const LEFT_OUT: usize = 10;

/// When each side was read, every difference, and the sum.
#[must_use]
pub fn text(report: &CompareReport) -> String {
    let mut text = side("source", &report.source) + &side("target", &report.target);
    text += &differences(&report.differences);
    let verdict = match report.differences.len() {
        0 => "the same".to_owned(),
        number => count(number as u64, "difference"),
    };
    let (namespaces, documents) = (count(report.namespaces, "namespace"), count(report.documents, "document"));
    text + &format!("{verdict}: {namespaces}, {documents}, {:.1} s\n", report.milliseconds as f64 / 1000.0)
}

/// A line for each difference, and for each document that is named.
pub(super) fn differences(all: &[Difference]) -> String {
    all.iter().map(difference).collect()
}

fn side(name: &str, side: &ComparedSide) -> String {
    let read = match (&side.at, &side.as_it_was) {
        (Some(time), _) => format!("as of {time}"),
        (None, Some(why)) => format!("as it was while it was read: {}", plain(why)),
        (None, None) => "with nothing to read".to_owned(),
    };
    let mut text = format!("{name}    {} (MongoDB {}, {}), {read}\n", plain(&side.uri), side.server_version, side.topology);
    for exception in &side.exceptions {
        let name = format!("{}.{}", exception.database, exception.collection);
        text += &format!("          not at that time: {}: {}\n", plain(&name), plain(&exception.reason));
    }
    for left_out in side.left_out.iter().take(LEFT_OUT) {
        let name = format!("{}.{}", left_out.database, left_out.collection);
        text += &format!("          not compared: {}: {}\n", plain(&name), plain(&left_out.reason));
    }
    match side.left_out.len().saturating_sub(LEFT_OUT) {
        0 => {}
        more => text += &format!("          not compared: {} more, which --json names\n", HumanCount(more as u64)),
    }
    text
}

fn difference(difference: &Difference) -> String {
    let name = match difference.namespace == difference.target_namespace {
        true => plain(&difference.namespace),
        false => format!("{} (in the target {})", plain(&difference.namespace), plain(&difference.target_namespace)),
    };
    match &difference.what {
        What::Missing => format!("missing   {name}\n"),
        What::Extra => format!("extra     {name}\n"),
        What::Type { source, target } => format!("differs   {name}: {source} in the source, {target} in the target\n"),
        What::Option { name: option, source, target } => {
            format!("differs   {name}: option {}: {}\n", plain(option), values(source.as_ref(), target.as_ref()))
        }
        What::Index { name: index, source, target } => {
            format!("differs   {name}: index {}: {}\n", plain(index), values(source.as_ref(), target.as_ref()))
        }
        What::Documents(found) => format!("differs   {name}: {}", documents(found)),
        What::Order => format!("differs   {name}: the natural order of its documents\n"),
    }
}

fn values(source: Option<&Value>, target: Option<&Value>) -> String {
    let shown = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), short);
    format!("{} in the source, {} in the target", shown(source), shown(target))
}

/// How many documents differ, and a line for each that is named.
fn documents(found: &DocumentDifferences) -> String {
    let differ = if found.differing == 1 { "differs" } else { "differ" };
    let counts = [(found.differing, differ), (found.missing, "missing"), (found.extra, "extra")];
    let counts: Vec<String> = counts
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, word)| format!("{} {word}", HumanCount(number)))
        .collect();
    let mut text = "documents".to_owned();
    if !counts.is_empty() {
        text += &format!(": {}{}", if found.complete { "" } else { "at least " }, counts.join(", "));
    }
    if let Some(reason) = &found.reason {
        text += &format!(" ({})", plain(reason));
    }
    text.push('\n');
    for document in &found.ids {
        let word = match document.what {
            HowDocument::Differs => "differs",
            HowDocument::Missing => "missing",
            HowDocument::Extra => "extra  ",
        };
        text += &format!("  {word} _id {}\n", short(&document.id));
    }
    let more = (found.differing + found.missing + found.extra).saturating_sub(found.ids.len() as u64);
    if more > 0 {
        text += &format!("  and {} more\n", HumanCount(more));
    }
    text
}

fn short(value: &Value) -> String {
    let text = plain(&value.to_string());
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::compare::NamedDocument;
    use crate::format::manifest::{ClusterTime, Topology};

    fn report(differences: Vec<Difference>) -> CompareReport {
        let side = |at| ComparedSide {
            uri: "mongodb://a:1/".to_owned(),
            server_version: "6.0.5".to_owned(),
            topology: Topology::ReplicaSet,
            at,
            as_it_was: at.is_none().then(|| "it keeps no history".to_owned()),
            exceptions: Vec::new(),
            left_out: Vec::new(),
        };
        CompareReport {
            source: side(Some(ClusterTime { t: 60, i: 1 })),
            target: side(None),
            same: differences.is_empty(),
            namespaces: 2,
            documents: 1000,
            bytes: 1,
            collections: Vec::new(),
            differences,
            milliseconds: 1234,
        }
    }

    #[test]
    fn a_comparison_says_when_each_side_was_read_and_what_differs() {
        let same = text(&report(Vec::new()));
        assert_eq!(
            same,
            "source    mongodb://a:1/ (MongoDB 6.0.5, replica set), as of 1970-01-01T00:01:00Z (60, 1)\n\
             target    mongodb://a:1/ (MongoDB 6.0.5, replica set), as it was while it was read: it keeps no history\n\
             the same: 2 namespaces, 1,000 documents, 1.2 s\n"
        );
        let of = |what| Difference { namespace: "a.b\n".to_owned(), target_namespace: "c.b\n".to_owned(), what };
        let found = DocumentDifferences {
            differing: 1,
            missing: 1200,
            extra: 0,
            complete: false,
            reason: Some("why".to_owned()),
            ids: vec![NamedDocument { id: json!({ "$oid": "00" }), what: HowDocument::Differs }],
        };
        let index = What::Index { name: "n".to_owned(), source: Some(json!({ "v": 2 })), target: None };
        let told = text(&report(vec![of(What::Missing), of(index), of(What::Documents(found))]));
        let lines: Vec<&str> = told.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "missing   a.b\\n (in the target c.b\\n)",
                "differs   a.b\\n (in the target c.b\\n): index n: {\"v\":2} in the source, nothing in the target",
                "differs   a.b\\n (in the target c.b\\n): documents: at least 1 differs, 1,200 missing (why)",
                "  differs _id {\"$oid\":\"00\"}",
                "  and 1,200 more",
                "3 differences: 2 namespaces, 1,000 documents, 1.2 s",
            ]
        );
    }
}
