//! Reads Markdown, as far as the checks of the documents need it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// A document and its path.
pub(super) struct Document {
    pub(super) path: PathBuf,
    text: String,
}

impl Document {
    pub(super) fn read(path: &Path) -> Self {
        Self { path: path.to_owned(), text: std::fs::read_to_string(path).unwrap() }
    }

    fn events(&self) -> impl Iterator<Item = Event<'_>> {
        Parser::new_ext(&self.text, Options::ENABLE_TABLES)
    }

    /// The sentences of its paragraphs and lists. Code counts as one word. Tables and blocks of
    /// code have none.
    pub(super) fn sentences(&self) -> Vec<String> {
        let (mut sentences, mut paragraph, mut skipped) = (Vec::new(), String::new(), 0);
        for event in self.events() {
            match event {
                Event::Start(Tag::CodeBlock(_) | Tag::Table(_) | Tag::Heading { .. } | Tag::HtmlBlock) => skipped += 1,
                Event::End(TagEnd::CodeBlock | TagEnd::Table | TagEnd::Heading(_) | TagEnd::HtmlBlock) => skipped -= 1,
                Event::Start(Tag::Paragraph | Tag::Item | Tag::List(_)) | Event::End(TagEnd::Paragraph | TagEnd::Item) => {
                    split(&std::mem::take(&mut paragraph), &mut sentences);
                }
                Event::Text(text) if skipped == 0 => paragraph += &text,
                Event::Code(_) if skipped == 0 => paragraph += "code",
                Event::SoftBreak | Event::HardBreak if skipped == 0 => paragraph.push(' '),
                _ => {}
            }
        }
        sentences
    }

    /// The wrapped lines, with their numbers: no code, tables, link definitions or HTML.
    pub(super) fn prose_lines(&self) -> Vec<(usize, &str)> {
        let mut in_code = false;
        let lines = self.text.lines().zip(1..).filter(|(line, _)| {
            let start = line.trim_start();
            let is_fence = start.starts_with("```");
            in_code ^= is_fence;
            let is_definition = start.starts_with('[') && start.contains("]: ");
            !in_code && !is_fence && !is_definition && !start.starts_with(['|', '<']) && !start.starts_with("![")
        });
        lines.map(|(line, number)| (number, line)).collect()
    }

    /// The targets of its links within the repository.
    pub(super) fn links(&self) -> Vec<String> {
        let targets = self.events().filter_map(|event| match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => Some(dest_url.into_string()),
            _ => None,
        });
        targets.filter(|url| !url.contains("://") && !url.starts_with("mailto:")).collect()
    }
}

/// The anchors of its headings, as GitHub and mdBook create them.
pub(super) fn anchors(path: &Path) -> BTreeSet<String> {
    let document = Document::read(path);
    let (mut anchors, mut heading) = (BTreeSet::new(), None);
    for event in document.events() {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::Text(text) | Event::Code(text) => heading.iter_mut().for_each(|heading| *heading += &text),
            Event::End(TagEnd::Heading(_)) => {
                let anchor = anchor(&heading.take().unwrap_or_default());
                let numbered = (1..).map(|n| format!("{anchor}-{n}"));
                let free = std::iter::once(anchor.clone()).chain(numbered).find(|a| !anchors.contains(a));
                anchors.extend(free);
            }
            _ => {}
        }
    }
    anchors
}

fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
    kept.flat_map(|c| if c == ' ' { '-' } else { c }.to_lowercase()).collect()
}

/// Sentences end with a full stop, an exclamation or a question mark before a space.
fn split(paragraph: &str, sentences: &mut Vec<String>) {
    let mut sentence = String::new();
    for word in paragraph.split_whitespace() {
        if !sentence.is_empty() {
            sentence.push(' ');
        }
        sentence += word;
        if word.trim_end_matches(['"', ')', '*', '”']).ends_with(['.', '!', '?']) {
            sentences.push(std::mem::take(&mut sentence));
        }
    }
    if !sentence.is_empty() {
        sentences.push(sentence);
    }
}
