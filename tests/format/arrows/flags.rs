//! Only the command line mentions flags. All other texts name options by tokens, which each face
//! replaces by words.

use std::path::Path;

use bsonvault::error::Face;

use super::{parts, sources};

/// Flags of other programs, which have the same name in every face.
const OF_OTHERS: [&str; 2] = ["--replSet", "--dumpDbUsersAndRoles"];

/// The violations in the texts of one source file, without its unit tests.
fn wrong(text: &str) -> Vec<String> {
    let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let (_, texts) = parts(product);
    texts.into_iter().filter(|text| names_a_flag(text) || is_misspelt(text)).map(str::to_owned).collect()
}

fn names_a_flag(text: &str) -> bool {
    text.match_indices("--").any(|(at, _)| {
        let begins = !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '-');
        let flag = &text[at..];
        begins
            && flag[2..].starts_with(|c: char| c.is_ascii_lowercase() || c == '{')
            && !OF_OTHERS.iter().any(|of| flag.starts_with(of))
    })
}

/// Whether it has a token that no face knows.
fn is_misspelt(text: &str) -> bool {
    // Inserted parts are checked where the settings are.
    let begins = text.matches("[[").count() - text.matches("[[{").count();
    begins > 0 && (Face::Service.say(&text.replace(['{', '}'], "")).contains("[[") || begins != text.matches("]]").count())
}

#[test]
fn only_the_command_line_names_flags() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut tokens) = (Vec::new(), 0);
    for file in sources(&src) {
        let path = file.strip_prefix(&src).unwrap().to_str().unwrap();
        // The files that turn tokens into flags, and tests.
        if path.starts_with("cli/") || path == "error/said.rs" || path.ends_with("tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        tokens += text.matches("[[").count();
        found.extend(wrong(&text).into_iter().map(|text| format!("{path}: {text}")));
    }
    assert!(tokens > 50, "only {tokens} tokens were found");
    assert!(found.is_empty(), "an option is written as a token, such as [[include]]:\n{}", found.join("\n"));
}

#[test]
fn a_flag_and_a_token_that_nobody_knows_are_found() {
    for code in [
        r#"error.hint("leave it out with --exclude")"#,
        r#"format!("--rename {:?} matches nothing", rename)"#,
        "hint(\"first line \\\n  and --include\")",
        "let raw = r\"--path\";",
        r#"format!("--{option}")"#,
        r#"hint("leave it out with [[exclud]]")"#,
        r#"hint("leave it out with [[exclude]")"#,
    ] {
        assert_eq!(wrong(code).len(), 1, "{code}");
    }
    for code in [
        "/// `--path`\n// \"--path\"\nfn f() {}",
        r#"hint("leave it out with [[exclude]]; set [[path or BACKUP_PATH]]")"#,
        r#"hint("-----BEGIN, a--b, -- and --replSet")"#,
        "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    const X: &str = \"--path\";\n}",
    ] {
        assert_eq!(wrong(code), Vec::<String>::new(), "{code}");
    }
}
