//! Runs the commands of README, the tutorial and the guides on real servers.
//!
//! Blocks of `sh` are run; each page has its own shell and empty directory. Blocks of `bash` name
//! programs that a test does not have. Blocks of `env` are read as a `.env`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bson::doc;
use bsonvault::config::{Config, Flags};
use mongodb::Client;

use crate::support::cli::Cli;
use crate::support::data::insert;
use crate::support::server::Server;
use crate::support::service::{ADMIN, Service, configured};

/// The source in the documents.
const SOURCE: &str = "mongodb+srv://USER:PASSWORD@CLUSTER.mongodb.net/";
/// The target in the documents.
const TARGET: &str = "mongodb://localhost:27017/";
/// The address of a service in the documents.
const ADDRESS: &str = "http://127.0.0.1:8000";
/// Marks a page about a running service.
const SERVICE: &str = "<!-- test: service -->";

/// The commands that a block may use without being run. Each of its lines has one of them.
const NOT_RUN: &[&str] = &[
    "adduser",
    "apt-get",
    "brew",
    "caddy",
    "cargo",
    "crontab",
    "curl -fsSL",
    "docker",
    "git",
    "just",
    "journalctl",
    "kubectl",
    "mongodump",
    "mongorestore",
    "mongosh",
    "nginx",
    "podman",
    "promtool",
    "rsync",
    "scripts/",
    "ssh",
    "sudo",
    "systemctl",
    "useradd",
];

/// A block of a page, by its language.
struct Block {
    language: String,
    line: usize,
    text: String,
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md"), root.join("docs/tutorial.md")];
    pages.extend(std::fs::read_dir(root.join("docs/guides")).unwrap().map(|entry| entry.unwrap().path()));
    pages.sort();
    pages
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (number, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), open) {
            (Some(language), false) => {
                blocks.push(Block { language: language.trim().to_owned(), line: number + 1, text: String::new() });
                open = true;
            }
            (Some(_), true) => open = false,
            (None, true) => {
                if let Some(block) = blocks.last_mut() {
                    block.text += &format!("{line}\n");
                }
            }
            (None, false) => {}
        }
    }
    assert!(!open, "a block does not end");
    blocks
}

/// A script with everything that a page runs. It reports the line that fails.
fn script(blocks: &[Block], replace: &dyn Fn(&str) -> String) -> String {
    let mut script = "set -euo pipefail\n".to_owned();
    for block in blocks.iter().filter(|block| block.language == "sh") {
        write!(script, "block={}\ntrap 'echo \"failed in the block of line $block\" >&2' ERR\n", block.line).unwrap();
        script += &replace(&block.text);
    }
    script
}

/// Creates the data that the documents use.
async fn fill(client: &Client) {
    let shop = client.database("shop");
    insert(&shop, "customers", (0..20).map(|n| doc! { "_id": n, "name": format!("customer {n}") })).await;
    insert(&shop, "products", (0..10).map(|n| doc! { "_id": n, "price": n * 3 })).await;
    let order = |n: i32| doc! { "_id": n, "customer": n % 20, "total": n * 7, "placed": bson::DateTime::now() };
    insert(&shop, "orders", (0..200).map(order)).await;
    let index = doc! { "createIndexes": "orders", "indexes": [{ "key": { "customer": 1 }, "name": "customer" }] };
    shop.run_command(index).await.unwrap();
    let view = doc! { "create": "open_orders", "viewOn": "orders", "pipeline": [{ "$match": { "total": { "$gt": 10 } } }] };
    shop.run_command(view).await.unwrap();
    insert(&client.database("crm"), "contacts", (0..5).map(|n| doc! { "_id": n })).await;
}

async fn empty(client: &Client) {
    for name in client.list_database_names().await.unwrap() {
        if !["admin", "config", "local"].contains(&name.as_str()) {
            client.database(&name).drop().await.unwrap();
        }
    }
}

#[tokio::test]
async fn every_command_of_the_guides_works_as_it_stands_there() {
    let (source, target) = (Server::replica_set("guides").await, Server::standalone().await);
    let mut failed = String::new();
    let mut run = 0;
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        let blocks = blocks(&text);
        if !blocks.iter().any(|block| block.language == "sh") {
            continue;
        }
        empty(&target.client().await).await;
        empty(&source.client().await).await;
        fill(&source.client().await).await;
        run += 1;
        if let Err(problem) = follow(&text, &blocks, &source, &target).await {
            write!(failed, "\n== {}\n{problem}", page.display()).unwrap();
        }
    }
    assert!(failed.is_empty(), "{failed}");
    assert!(run >= 8, "only {run} pages have commands");
}

/// Runs the commands of a page.
async fn follow(text: &str, blocks: &[Block], source: &Server, target: &Server) -> Result<(), String> {
    let cli = configured().env("MONGO_URI_ATLAS", source.uri()).env("MONGO_URI_LOCAL", target.uri());
    let cli = cli.env("AUTO_IMPORT_TO_LOCAL", "false");
    let service = if text.contains(SERVICE) { Some(Service::start(&cli).await) } else { None };
    let address = service.as_ref().map_or(ADDRESS, |service| &service.address);
    let replace = |text: &str| text.replace(SOURCE, &source.uri()).replace(TARGET, &target.uri()).replace(ADDRESS, address);
    let program = Path::new(env!("CARGO_BIN_EXE_bsonvault")).parent().unwrap();
    // A service shares its path with the command line; without one, a page sets what it needs.
    let directory = if service.is_some() { Cli::new() } else { cli };
    let mut command = std::process::Command::new("bash");
    command.arg("-c").arg(script(blocks, &replace)).current_dir(directory.dir()).stdin(std::process::Stdio::null());
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    command.env_clear().env("PATH", path).env("HOME", directory.dir()).env("TOKEN", ADMIN);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    if output.status.success() {
        return Ok(());
    }
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let log = service.map(|service| service.log().join("\n")).unwrap_or_default();
    Err(format!("{}\n{stdout}\n{stderr}\n{log}", output.status))
}

#[test]
fn what_is_not_run_needs_what_a_test_does_not_have() {
    let mut wrong = String::new();
    for page in pages() {
        for block in blocks(&std::fs::read_to_string(&page).unwrap()) {
            if block.language != "bash" {
                assert_ne!(block.language, "", "{}: the block of line {} has no language", page.display(), block.line);
                continue;
            }
            let joined = block.text.replace("\\\n", " ");
            let commands = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            for line in commands.filter(|line| !NOT_RUN.iter().any(|name| line.contains(name))) {
                writeln!(wrong, "{}, block of line {}: {line}", page.display(), block.line).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "these could be run:\n{wrong}");
}

#[test]
fn every_env_file_of_the_guides_is_valid() {
    let mut read = 0;
    let contrib = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/env");
    let files =
        std::fs::read_dir(contrib).into_iter().flatten().map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    let of_pages = pages().into_iter().flat_map(|page| {
        let blocks = blocks(&std::fs::read_to_string(page).unwrap());
        blocks.into_iter().filter(|block| block.language == "env").map(|block| block.text).collect::<Vec<_>>()
    });
    for text in files.chain(of_pages) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(".env"), &text).unwrap();
        let config = Config::load(directory.path(), [], &Flags::default()).unwrap_or_else(|e| panic!("{e}\n{text}"));
        config.refuse_unknown().unwrap_or_else(|e| panic!("{e}\n{text}"));
        read += 1;
    }
    assert!(read >= 2, "only {read} are there");
}

#[test]
fn blocks_and_scripts_are_made_as_they_stand_there() {
    let blocks = blocks("a\n```sh\none URI\n```\n\n- b\n  ```text\n  no\n  ```\n```sh\ntwo\n```\n");
    let found: Vec<_> = blocks.iter().map(|block| (block.language.as_str(), block.line)).collect();
    assert_eq!(found, [("sh", 2), ("text", 7), ("sh", 10)]);
    let script = script(&blocks, &|text| text.replace("URI", "x"));
    assert!(script.contains("block=2\n") && script.contains("one x\n") && !script.contains("no"), "{script}");
}
