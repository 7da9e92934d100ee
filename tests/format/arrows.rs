//! Enforces the dependency rules of ARCHITECTURE.md: which module may use which, and which modules
//! may use a library.

mod circles;
mod flags;

use std::path::{Path, PathBuf};

/// The layers, lowest first. A module may use those of lower layers, and itself.
const LAYERS: [&[&str]; 12] = [
    &["error", "few", "system"],
    &["names", "clock", "schedule"],
    &["format"],
    &["context"],
    &["repository"],
    &["mongo"],
    &["pipeline"],
    &["interop", "source", "sink"],
    &["oplog"],
    &["engine"],
    &["config"],
    &["service"],
];

/// The faces, which may use everything, and which nothing may use.
const FACES: [&str; 3] = ["api", "cli", "main"];

/// A library, and the only places that may use it.
const ONLY: [(&str, &[&str]); 25] = [
    ("mongodb", &["mongo/", "source/", "sink/", "oplog/tail.rs", "oplog/window.rs", "oplog/apply/"]),
    ("zstd", &["format/compression.rs", "format/frame.rs", "format/columns/sections.rs"]),
    ("sha2", &["format/digest.rs", "service/webhook.rs"]),
    ("object_store", &["repository/backend/local"]),
    ("rustix::fs", &["repository/backend/local"]),
    ("clap", &["cli/"]),
    ("indicatif", &["cli/"]),
    ("figment", &["config"]),
    ("rocket", &["api/"]),
    ("hyper", &["api/"]),
    ("hyper_util", &["api/"]),
    ("tokio_rustls", &["api/"]),
    ("utoipa_swagger_ui", &["api/"]),
    ("governor", &["api/"]),
    ("subtle", &["api/"]),
    ("redb", &["service/state/"]),
    ("reqwest", &["service/webhook.rs"]),
    ("prometheus_client", &["service/metrics.rs"]),
    ("tokio_cron_scheduler", &["service/scheduler.rs"]),
    ("croner", &["schedule.rs"]),
    ("dotenvy", &["config"]),
    ("tar", &["engine/download.rs", "interop/packed.rs"]),
    ("async_compression", &["interop/"]),
    ("crc64fast", &["format/mongodump"]),
    ("flate2", &["interop/input.rs"]),
];

/// What a part of the crate must not mention at all.
const NEVER: [(&str, &[&str]); 3] = [
    ("format/", &["tokio", "futures", "std::fs", "std::net", "mongodb", "object_store"]),
    ("repository/backend/", &["bson"]),
    ("", &["SystemTime::now", "Local::now"]),
];

/// The violations in one source file, given by its path below `src` and its text.
fn violations(path: &str, text: &str) -> Vec<String> {
    let own = path.split(['/', '.']).next().unwrap();
    let code = code_of(text);
    let mut found = Vec::new();
    for used in crate_modules(&code).into_iter().filter(|used| used != own) {
        let allowed = match (layer(own), layer(&used)) {
            _ if FACES.contains(&own) => {
                !FACES.contains(&used.as_str()) || [("cli", "api"), ("main", "cli")].contains(&(own, &*used))
            }
            (Some(own), Some(used)) => used < own,
            _ => own == "lib",
        };
        if !allowed {
            found.push(format!("{path} uses {used}, which is not below it"));
        }
    }
    for (library, places) in ONLY {
        if mentions(&code, library) && !places.iter().any(|place| path.starts_with(place)) {
            found.push(format!("{path} uses {library}, which only {places:?} may"));
        }
    }
    for (place, unknown) in NEVER {
        for library in unknown.iter().filter(|library| path.starts_with(place) && mentions(&code, library)) {
            found.push(format!("{path} knows {library}"));
        }
    }
    if path != "clock.rs" && code.contains("Utc::now") {
        found.push(format!("{path} reads the clock, which only clock.rs may"));
    }
    found
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The text without comments, quoted text and unit tests.
fn code_of(text: &str) -> String {
    let (mut code, _) = parts(text);
    while let Some(begin) = code.find("#[cfg(test)]") {
        let mut depth = 0;
        let end = code[begin..].find(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0 && (c == ';' || c == '}')
        });
        code.replace_range(begin..end.map_or(code.len(), |end| begin + end + 1), "");
    }
    code
}

/// The text without comments and quoted text, and the texts in double quotes.
fn parts(text: &str) -> (String, Vec<&str>) {
    let (mut code, mut quoted, mut rest) = (String::new(), Vec::new(), text);
    while let Some(c) = rest.chars().next() {
        let hashes = rest.strip_prefix('r').map(|raw| raw.chars().take_while(|c| *c == '#').count());
        let raw = hashes.filter(|n| rest[1 + n..].starts_with('"') && !code.ends_with(|c: char| c.is_alphanumeric() || c == '_'));
        let literal = rest.strip_prefix('\'').and_then(|quoted| {
            let after = if quoted.starts_with('\\') { 2 } else { quoted.chars().next()?.len_utf8() };
            quoted.get(after..)?.find('\'').filter(|end| *end == 0 || quoted.starts_with('\\')).map(|end| after + end + 2)
        });
        let skipped = if rest.starts_with("//") {
            rest.find('\n')
        } else if rest.starts_with("/*") {
            rest.find("*/").map(|end| end + 2)
        } else if let Some(n) = raw {
            let end = format!("\"{}", "#".repeat(n));
            rest[n + 2..].find(&end).map(|at| n + 2 + at + end.len())
        } else if c == '"' {
            let mut escaped = true;
            rest.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            })
            .map(|end| end + 1)
        } else if let Some(length) = literal {
            Some(length)
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        let (skipped, after) = rest.split_at(skipped.unwrap_or(rest.len()));
        if raw.is_some() || c == '"' {
            quoted.push(skipped);
        }
        rest = after;
    }
    (code, quoted)
}

/// Modules of this crate that `crate::NAME` or `crate::{NAME, ..}` names, or `bsonvault::NAME` in
/// the binary.
fn crate_modules(code: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for root in ["crate::", "bsonvault::"] {
        for (at, _) in code.match_indices(root) {
            let rest = &code[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(group) => {
                    let (mut depth, mut name) = (1, String::new());
                    let mut names = Vec::new();
                    for c in group.chars() {
                        match c {
                            '{' => depth += 1,
                            '}' => depth -= 1,
                            ',' if depth == 1 => names.push(std::mem::take(&mut name)),
                            c if depth == 1 && !c.is_whitespace() => name.push(c),
                            _ => {}
                        }
                        if depth == 0 {
                            break;
                        }
                    }
                    names.push(name);
                    modules
                        .extend(names.iter().filter_map(|n| n.split("::").next()).filter(|n| !n.is_empty()).map(str::to_owned));
                }
                None => modules.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()),
            }
        }
    }
    modules
}

/// Whether a path begins with this library: its name, not inside a longer one, before `::` or in
/// `use NAME;`.
fn mentions(code: &str, library: &str) -> bool {
    code.match_indices(library).any(|(at, _)| {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        let rest = &code[at + library.len()..];
        let whole = library.contains("::") && !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        !(before.is_alphanumeric() || before == '_' || before == ':' || before == '"')
            && (whole || rest.starts_with("::") || rest.starts_with(';'))
    })
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn no_arrow_points_back() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&src);
    assert!(files.len() > 30, "only {} files were found", files.len());
    let mut found = Vec::new();
    for file in files {
        let path = file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let own = path.split(['/', '.']).next().unwrap().to_owned();
        assert!(
            own == "lib" || FACES.contains(&own.as_str()) || layer(&own).is_some(),
            "{path} is in no layer: add it to the map"
        );
        found.extend(violations(&path, &text));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn an_arrow_that_points_back_is_found() {
    for (path, text) in [
        ("format/frame.rs", "use crate::repository::backend::Objects;"),
        ("source/scan.rs", "use crate::{error::Error, sink::Sink};"),
        ("sink/mod.rs", "fn f() { crate::source::list(); }"),
        ("engine/backup.rs", "use mongodb::Client;"),
        ("engine/verify.rs", "let d = sha2::Sha256::digest(b);"),
        ("format/segment.rs", "use tokio::sync::mpsc;"),
        ("repository/backend/local.rs", "use bson::doc;"),
        ("repository/catalog.rs", "let now = chrono::Utc::now();"),
        ("pipeline/read.rs", "use crate::engine::Tuning;"),
        ("error.rs", "use crate::names::Namespace;"),
        ("engine/check.rs", "use crate::cli::render;"),
    ] {
        assert_eq!(violations(path, text).len(), 1, "{path}: {text}: {:?}", violations(path, text));
    }
    for (path, text) in [
        ("engine/backup.rs", "use crate::source::{discover, scan};\n// never mongodb::Client"),
        ("mongo/failure.rs", "use mongodb::error::Error;"),
        ("cli/mod.rs", "use crate::engine::backup; use clap::Parser;"),
        ("format/segment.rs", "use super::frame;\nuse crate::error::Error;"),
    ] {
        assert_eq!(violations(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}
