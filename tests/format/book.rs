//! Checks the documents: links work, sentences are short, and generated pages match the program.

mod markdown;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bsonvault::cli::reference;

use self::markdown::{Document, anchors};

/// The most words in a sentence, not counting code.
const WORDS: usize = 40;
/// The most characters in a line of prose.
const LINE: usize = 100;

/// All documents of the repository.
fn documents() -> Vec<Document> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone(), root.join("docs"), root.join("benches"), root.join("fixtures")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let is_in_docs = path.starts_with(root.join("docs"));
            match path.is_dir() {
                true if is_in_docs && folder != root => folders.push(path),
                false if path.extension().is_some_and(|extension| extension == "md") => found.push(Document::read(&path)),
                _ => {}
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 40, "{} documents are not all", found.len());
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Fails if anything was found, and lists it.
fn none(found: &[String], what: &str) {
    assert!(found.is_empty(), "{} {what}:\n{}", found.len(), found.join("\n"));
}

#[test]
fn no_sentence_is_longer_than_one_can_hold() {
    let long: Vec<String> = documents()
        .iter()
        .flat_map(|document| {
            let long = document.sentences().into_iter().filter(|sentence| sentence.split_whitespace().count() > WORDS);
            long.map(|sentence| format!("{}: {sentence}", document.path.display())).collect::<Vec<_>>()
        })
        .collect();
    none(&long, "sentences have more than 40 words");
}

#[test]
fn no_line_of_prose_is_wider_than_a_hundred_characters() {
    let wide: Vec<String> = documents()
        .iter()
        // A line of it is a link, which cannot be wrapped.
        .filter(|document| !document.path.ends_with("SUMMARY.md"))
        .flat_map(|document| {
            let lines = document.prose_lines().into_iter().filter(|(_, line)| line.chars().count() > LINE);
            lines.map(|(number, line)| format!("{}:{number}: {line}", document.path.display())).collect::<Vec<_>>()
        })
        .collect();
    none(&wide, "lines are wider than 100 characters");
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        let folder = document.path.parent().unwrap();
        for link in document.links() {
            let (path, anchor) = link.split_once('#').map_or((&*link, None), |(path, anchor)| (path, Some(anchor)));
            let target = if path.is_empty() { document.path.clone() } else { folder.join(path) };
            let there = match anchor {
                None => target.exists(),
                Some(anchor) => target.is_file() && anchors(&target).contains(anchor),
            };
            if !there {
                broken.push(format!("{}: {link}", document.path.display()));
            }
        }
    }
    none(&broken, "links lead nowhere");
}

#[test]
fn every_page_is_in_the_book() {
    let docs = root().join("docs");
    let summary = Document::read(&docs.join("SUMMARY.md"));
    let listed: BTreeSet<PathBuf> = summary.links().iter().map(|link| docs.join(link)).collect();
    let pages = documents().into_iter().map(|document| document.path).filter(|path| path.starts_with(&docs));
    let missing: Vec<String> =
        pages.filter(|path| *path != summary.path && !listed.contains(path)).map(|path| path.display().to_string()).collect();
    none(&missing, "pages are not in docs/SUMMARY.md");
}

#[test]
fn landing_pages_stay_short() {
    for (name, sizes) in [("README.md", 6_000..=8_192), ("ARCHITECTURE.md", 6_000..=10_240)] {
        let size = std::fs::read(root().join(name)).unwrap().len();
        assert!(sizes.contains(&size), "{name} has {size} bytes, not {sizes:?}");
    }
}

#[test]
fn reference_pages_are_what_the_program_makes() {
    let stale: Vec<String> = reference::pages()
        .into_iter()
        .filter(|page| std::fs::read_to_string(root().join(page.path)).ok().as_ref() != Some(&page.text))
        .map(|page| page.path.to_owned())
        .collect();
    none(&stale, "pages are stale, run `cargo run --example reference`");
}

#[test]
fn the_checks_see_what_they_are_to_find() {
    let long = ["word"; 41].join(" ");
    let text = format!(
        "# A `code` heading\n\n{long}.\n\nShort. [here](#a-code-heading) and [there](gone.md#x).\n\n\
         | {long} |\n| --- |\n| x |\n\n```sh\n{long} {long}\n```\n\n- {long} {long} {long}\n- b\n"
    );
    let file = tempfile::Builder::new().suffix(".md").tempfile().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let document = Document::read(file.path());
    let counts: Vec<usize> = document.sentences().iter().map(|sentence| sentence.split_whitespace().count()).collect();
    assert_eq!(counts, [41, 1, 3, 123, 1]);
    assert_eq!(document.links(), ["#a-code-heading", "gone.md#x"]);
    let wide: Vec<usize> =
        document.prose_lines().iter().filter(|(_, line)| line.len() > LINE).map(|(number, _)| *number).collect();
    assert_eq!(wide, [3, 15]);
    assert!(anchors(file.path()).contains("a-code-heading"));
    assert!(Path::new("docs").is_relative());
}
