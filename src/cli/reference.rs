//! The reference pages of the documentation, made from the program: its flags, its settings, its
//! interface and its metrics. `cargo run --example reference` writes them; a test compares them.

mod command_line;
mod configuration;
mod markdown;
mod metrics;
mod rest;

/// A page of the documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Where it is in the repository.
    pub path: &'static str,
    /// It, in Markdown.
    pub text: String,
}

/// All pages.
#[must_use]
pub fn pages() -> Vec<Page> {
    let page = |path, text: String| Page { path, text: text.trim_end().to_owned() + "\n" };
    vec![
        page("docs/reference/command-line.md", command_line::page()),
        page("docs/reference/configuration.md", configuration::page()),
        page("docs/reference/rest.md", rest::page()),
        page("docs/reference/metrics.md", metrics::page()),
    ]
}
