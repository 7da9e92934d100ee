//! The words of the command line: every page of help, and an error of each kind that a user meets.
//! `INSTA_UPDATE=always cargo test --test cli words` accepts changes; read them in the diff.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bson::doc;
use clap::CommandFactory as _;

use crate::support::cli::{Cli, Output, finish};
use crate::support::data::{insert, numbered};
use crate::support::files::{directories, files};
use crate::support::server::{Server, free_port};

/// The most columns of a line of help.
const COLUMNS: usize = 100;

#[tokio::test]
async fn every_page_of_help_reads_as_it_was_read_once() {
    let cli = Cli::new().env("COLUMNS", COLUMNS.to_string());
    let program = bsonvault::cli::CommandLine::command();
    let verbs: Vec<&str> = program.get_subcommands().map(clap::Command::get_name).collect();
    assert!(verbs.len() >= 16, "{verbs:?}");
    for verb in [None].into_iter().chain(verbs.into_iter().map(Some)) {
        let args: Vec<&str> = verb.into_iter().chain(["--help"]).collect();
        let help = cli.run(&args).await;
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{args:?}");
        for line in help.stdout.lines() {
            assert!(line.chars().count() <= COLUMNS, "{args:?}: {line}");
        }
        insta::assert_snapshot!(format!("help_{}", verb.unwrap_or("all")), help.stdout);
    }
    let nothing = cli.run::<&str>(&[]).await;
    assert_eq!((nothing.code, nothing.stdout.as_str()), (Some(2), ""));
    insta::assert_snapshot!("help_of_nothing", nothing.stderr);
}

#[tokio::test]
async fn each_kind_of_error_says_what_where_and_what_to_do() {
    let server = Server::replica_set("words").await;
    let shop = server.client().await.database("shop");
    insert(&shop, "orders", numbered(500)).await;
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri()).env("MONGO_URI_LOCAL", server.uri());
    let mut told = String::new();
    let mut kinds = Vec::new();
    let mut tell = |kind: &str, output: Output| {
        assert!(output.code.is_some_and(|code| code != 0), "{kind}: {output:?}");
        let errors = output.stderr.lines().filter(|line| line.starts_with("error: ") || line.starts_with("hint: "));
        let shown = errors.map(|line| format!("{}\n", same_everywhere(line, &server, &cli))).collect::<String>();
        assert!(!shown.is_empty(), "{kind}: {output:?}");
        write!(told, "{kind}, exit code {}\n{shown}\n", output.code.unwrap()).unwrap();
        kinds.push(kind.to_owned());
    };

    // Errors that need no server.
    tell("usage", cli.run(&["backup", "--include", "shop"]).await);
    tell("notConfigured", Cli::new().run(&["backup"]).await);
    let gone = format!("mongodb://127.0.0.1:{}/?directConnection=true&serverSelectionTimeoutMS=500", free_port());
    tell("unreachable", cli.run(&["backup", "--source", &gone]).await);
    std::fs::write(cli.dir().join("file"), "").unwrap();
    tell("storage", cli.run(&["list", "--path", "file"]).await);

    // A server that refuses, fails, or is slow.
    for (kind, code) in [("denied", 13), ("server", 2)] {
        let data = doc! { "failCommands": ["listDatabases"], "errorCode": code, "appName": "bsonvault" };
        server.fail_command("alwaysOn", data).await;
        tell(kind, cli.run(&["backup"]).await);
    }
    server.slow_down(&["find", "getMore"], 3000).await;
    let first = cli.spawn(&["backup"]);
    reading(&cli).await;
    tell("busy", cli.run(&["backup"]).await);
    rustix::process::kill_process(rustix::process::Pid::from_child(&first), rustix::process::Signal::INT).unwrap();
    tell("interrupted", finish(first).await);
    server.fail_no_more().await;

    // A backup, and the verbs on it.
    let name = cli.json(&["backup"]).await["name"].as_str().unwrap().to_owned();
    tell("notFound", cli.run(&["show", "atlas-backup-none"]).await);
    tell("refused", cli.run(&["import", &name, "--yes"]).await);
    let place = cli.dir().join("backups").join(&name);
    let (segment, mut bytes) = files(&place).into_iter().find(|(file, _)| file.ends_with(".bson.zst")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(place.join(segment), bytes).unwrap();
    tell("mismatch", cli.run(&["verify", &name]).await);
    // From then on, every verb warns of it.
    let shown = cli.run(&["show", "latest"]).await;
    assert!(shown.code == Some(0) && shown.stderr.contains(&format!("warning: the last check of {name} FAILED: ")), "{shown:?}");
    std::fs::write(place.join("manifest.json"), "{").unwrap();
    tell("damaged", cli.run(&["show", &name]).await);
    insta::assert_snapshot!("errors", told);
    assert_eq!(kinds.len(), 12, "{kinds:?}");
}

/// The line with everything that varies replaced.
fn same_everywhere(line: &str, server: &Server, cli: &Cli) -> String {
    let line = line.replace(cli.dir().to_str().unwrap(), "DIR").replace(&server.host(), "HOST:PORT");
    let mut words: Vec<String> = Vec::new();
    for word in line.split(' ') {
        let port = word.find("127.0.0.1:");
        let shown = match (port, word.contains("atlas-backup-2")) {
            (Some(at), _) => {
                let rest = word[at + "127.0.0.1:".len()..].trim_start_matches(|c: char| c.is_ascii_digit());
                format!("{}HOST:PORT{rest}", &word[..at])
            }
            (_, true) => "NAME".to_owned(),
            _ => word.to_owned(),
        };
        let number = words.last().is_some_and(|last| last == "process");
        words.push(if number { "PID".to_owned() } else { shown });
    }
    words.join(" ").replace(&bsonvault::system::host(), "MACHINE")
}

/// Waits until a backup of this command line has begun to read.
async fn reading(cli: &Cli) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let reads = |directory: &Path| {
        let progress = std::fs::read_to_string(directory.join("progress.json")).unwrap_or_default();
        progress.contains("\"process\"") && !progress.contains("\"undecided\"")
    };
    while !directories(&cli.dir().join("backups")).iter().any(|directory| reads(directory)) {
        assert!(Instant::now() < deadline, "no backup runs");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
