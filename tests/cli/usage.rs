//! The command line as a process: usage, configuration, exit codes, and output.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use bsonvault::format::digest::Sha256Hex;
use mongodb::bson::doc;

use crate::support::cli::{Cli, Output, finish};
use crate::support::server::{Server, free_port};

const PASSWORD: &str = "hunter2-secret";

fn unreachable(user: &str) -> String {
    format!("mongodb://{user}127.0.0.1:{}/?directConnection=true&serverSelectionTimeoutMS=500", free_port())
}

/// Checks that it failed with this message on standard error, and nothing on standard output.
fn refused(output: &Output, code: i32, message: &str) {
    assert_eq!(output.code, Some(code), "{output:?}");
    assert!(output.stderr.contains(message), "{message:?} is not in {output:?}");
    assert_eq!(output.stdout, "");
}

#[tokio::test]
async fn help_names_what_exists_and_nothing_else() {
    let cli = Cli::new();
    let mut all = cli.run(&["--help"]).await.stdout;
    for verb in [
        "backup", "import", "export", "list", "show", "verify", "clean", "compare", "check", "tune", "serve", "token", "archive",
        "sync",
    ] {
        assert!(all.contains(&format!("\n  {verb} ")), "--help does not name {verb}");
        let help = cli.run(&[verb, "--help"]).await;
        assert_eq!(help.code, Some(0));
        assert!(help.stdout.contains("--json") && help.stdout.contains("--path"), "{verb}");
        all += &help.stdout;
    }
    assert!(!all.contains("s3://"), "help names what is not built");
    let version = cli.run(&["--version"]).await;
    assert_eq!(version.stdout, format!("bsonvault {}\n", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn a_verb_that_is_not_there_is_refused_by_name() {
    let cli = Cli::new();
    refused(&cli.run(&["lits"]).await, 2, "unrecognized subcommand 'lits'");
    let json = cli.run(&["--json", "frobnicate"]).await;
    assert_eq!((json.code, json.json()["message"].as_str()), (Some(2), Some("unrecognized subcommand 'frobnicate'")));
}

#[tokio::test]
async fn flags_are_taken_by_their_old_names() {
    let cli = Cli::new();
    for (old, name) in [("--polite=perhaps", "--adaptive-throttle"), ("--long-distance=perhaps", "--long")] {
        refused(&cli.run(&["backup", old]).await, 2, name);
    }
    refused(&cli.run(&["import", "--cleanup", "--prune"]).await, 2, "--drop-extra");
}

#[tokio::test]
async fn wrong_usage_is_one_json_object_too() {
    let cli = Cli::new();
    refused(&cli.run::<&str>(&[]).await, 2, "Usage:");
    refused(&cli.run(&["show"]).await, 2, "<BACKUP>");
    let output = cli.run(&["backup", "--nonsense", "--json"]).await;
    assert_eq!(output.code, Some(2));
    let json = output.json();
    assert_eq!((&json["success"], &json["error"]["kind"]), (&false.into(), &"usage".into()));
    assert!(json["message"].as_str().unwrap().contains("--nonsense"), "{json}");
    refused(&cli.run(&["backup", "--include", "shop"]).await, 2, "has neither a dot nor a '*'");
}

#[tokio::test]
async fn missing_and_bad_uris_are_told_in_the_known_words() {
    let cli = Cli::new();
    refused(&cli.run(&["backup"]).await, 2, "error: Atlas MongoDB URI not configured\nhint: set MONGO_URI_ATLAS");
    refused(&cli.run(&["import", "x"]).await, 2, "error: Local MongoDB URI not configured\nhint: set MONGO_URI_LOCAL");
    refused(&cli.run(&["backup", "--source", "localhost"]).await, 2, "error: Invalid Atlas URI format");
    refused(&cli.run(&["import", "x", "--target", "mongodb://"]).await, 2, "error: Invalid Local URI format");
    let output = cli.run(&["backup", "--json"]).await;
    assert_eq!(output.code, Some(2));
    let json = output.json();
    assert_eq!(json["success"], false);
    assert_eq!(json["message"], "Atlas MongoDB URI not configured");
    assert_eq!(json["error"]["kind"], "usage");
    assert!(json["error"]["hint"].is_string());
    // Verbs that need no URI work without them.
    std::fs::create_dir(cli.dir().join("backups")).unwrap();
    assert_eq!(cli.env("MONGO_URI_ATLAS", "nonsense").run(&["list"]).await.code, Some(0));
}

#[tokio::test]
async fn a_source_that_does_not_answer_fails_soon_and_leaves_nothing() {
    let cli = Cli::new().env("MONGO_URI_ATLAS", unreachable(""));
    let begin = std::time::Instant::now();
    let output = cli.run(&["backup"]).await;
    assert!(begin.elapsed().as_secs() < 10, "{:?}", begin.elapsed());
    refused(&output, 1, "the source does not answer");
    assert!(output.stderr.contains("\nhint: nothing listens there: check that it runs"), "{}", output.stderr);
    let json = cli.run(&["backup", "--json"]).await;
    assert_eq!(json.code, Some(1));
    assert_eq!(json.json()["error"]["kind"], "unreachable");
    assert_eq!(json.stderr, "");
    assert_eq!(cli.json(&["list"]).await["backups"].as_array().map(Vec::len), Some(0));
}

#[tokio::test]
async fn paths_and_backups_that_cannot_be_are_refused() {
    let cli = Cli::new().env("MONGO_URI_LOCAL", unreachable(""));
    refused(&cli.run(&["list", "--path", "s3://bucket/x"]).await, 2, "s3:// is not yet supported");
    std::fs::write(cli.dir().join("file"), "").unwrap();
    refused(&cli.run(&["list", "--path", "file"]).await, 1, "is not a directory");
    // A mistyped path is not the same as a path without backups.
    refused(&cli.run(&["list", "--path", "bakcups"]).await, 1, "bakcups does not exist\nhint: set BACKUP_PATH or --path");
    assert_eq!(cli.run(&["list", "--path", "bakcups", "--json"]).await.json()["error"]["kind"], "notFound");
    for dry in [&[][..], &["--dry-run"]] {
        let clean = [&["clean", "--keep", "1", "--path", "bakcups"][..], dry].concat();
        refused(&cli.run(&clean).await, 1, "bakcups does not exist\nhint: set BACKUP_PATH or --path");
    }
    std::fs::create_dir(cli.dir().join("empty")).unwrap();
    assert_eq!(cli.json(&["clean", "--keep", "1", "--path", "empty"]).await["deleted"], serde_json::json!([]));
    assert_eq!(cli.json(&["list", "--path", "empty"]).await["backups"].as_array().map(Vec::len), Some(0));
    for verb in ["show", "verify", "import"] {
        refused(&cli.run(&[verb, "atlas-backup-none"]).await, 1, "error: Database backup not found");
        let json = cli.run(&[verb, "atlas-backup-none", "--json"]).await.json();
        assert_eq!(json["error"]["kind"], "notFound", "{json}");
    }
}

#[tokio::test]
async fn flags_beat_the_environment_which_beats_dotenv_which_beats_rocket_toml() {
    let path =
        async |cli: &Cli, args: &[&str]| cli.json(args).await["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let cli = Cli::new();
    for name in ["backups", "from-toml", "from-dotenv", "from-environment", "from-flag"] {
        std::fs::create_dir(cli.dir().join(name)).unwrap();
    }
    assert_eq!(path(&cli, &["list"]).await, "backups");
    std::fs::write(cli.dir().join("rocket.toml"), "[default.backup]\npath = \"from-toml\"\n").unwrap();
    assert_eq!(path(&cli, &["list"]).await, "from-toml");
    std::fs::write(cli.dir().join(".env"), "BACKUP_PATH=from-dotenv\n").unwrap();
    assert_eq!(path(&cli, &["list"]).await, "from-dotenv");
    let cli = cli.env("BACKUP_PATH", "from-environment");
    assert_eq!(path(&cli, &["list"]).await, "from-environment");
    assert_eq!(path(&cli, &["list", "--path", "from-flag"]).await, "from-flag");
    assert_eq!(path(&cli, &["--path", "from-flag", "list"]).await, "from-flag");
    // An error about a wrong value names its place.
    std::fs::write(cli.dir().join(".env"), "BACKUP_LEVEL=99\n").unwrap();
    refused(&cli.run(&["list"]).await, 2, "error: BACKUP_LEVEL in .env is \"99\": expected a whole number from -7 to 19");
    refused(&cli.run(&["backup", "--level", "-8"]).await, 2, "error: --level is \"-8\": expected");
    std::fs::write(cli.dir().join("rocket.toml"), "[default.backup]\nlevle = 1\n").unwrap();
    refused(&cli.run(&["list"]).await, 2, "\"levle\" in rocket.toml, [default.backup] is not a setting");
}

#[tokio::test]
async fn a_password_is_never_printed() {
    let uri = unreachable(&format!("user:{PASSWORD}@"));
    let bad = format!("mongodb://user:{PASSWORD}@/x@y:1");
    let cli = Cli::new().env("MONGO_URI_ATLAS", &uri).env("MONGO_URI_LOCAL", &uri).env("RUST_LOG", "trace");
    let mut outputs = Vec::new();
    for args in [
        vec!["backup"],
        vec!["backup", "--dry-run", "--json"],
        vec!["backup", "--source", &bad],
        vec!["import", "none"],
        vec!["check"],
        vec!["check", "--json"],
        vec!["check", "--source", &bad, "--json"],
    ] {
        outputs.push(cli.run(&args).await);
    }
    std::fs::write(cli.dir().join(".env"), format!("MONGO_URI_ATLAS='mongodb://user:{PASSWORD}@h")).unwrap();
    outputs.push(cli.run(&["list"]).await);
    std::fs::remove_file(cli.dir().join(".env")).unwrap();
    std::fs::write(cli.dir().join("rocket.toml"), format!("[default.backup]\nmongo_uri_atlas = \"mongodb://user:{PASSWORD}@h"))
        .unwrap();
    outputs.push(cli.run(&["list"]).await);
    for output in outputs {
        assert_ne!(output.code, Some(0), "{output:?}");
        assert!(!output.stdout.contains(PASSWORD) && !output.stderr.contains(PASSWORD), "{output:?}");
    }
}

#[tokio::test]
async fn a_token_is_made_and_shown_with_its_hash() {
    let cli = Cli::new();
    let mut tokens = Vec::new();
    for args in [vec!["token"], vec!["token", "--read"]] {
        let json = cli.json(&args).await;
        let fields: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, ["sha256", "success", "token"], "and nothing else");
        assert_eq!(json["success"], true);
        let token = json["token"].as_str().unwrap().to_owned();
        assert_eq!(json["sha256"], Sha256Hex::of(token.as_bytes()).as_str(), "of the text");
        let digits = token.strip_prefix("bv_").unwrap();
        assert!(digits.len() == 43 && digits.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'), "{token}");
        tokens.push(token);
    }
    for (args, variable) in [
        (vec!["token"], "ADMIN_TOKEN_SHA256"),
        (vec!["token", "--read"], "READ_TOKEN_SHA256"),
        (vec!["token", "--download"], "DOWNLOAD_TOKEN_SHA256"),
    ] {
        let output = cli.run(&args).await;
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""));
        let token = output.stdout.lines().next().unwrap().strip_prefix("token:   ").unwrap().to_owned();
        let line = format!("\n{variable}={}\n", Sha256Hex::of(token.as_bytes()));
        assert!(output.stdout.ends_with(&line), "{}", output.stdout);
        assert_eq!(output.stdout.matches(&token).count(), 1, "it is shown once");
        tokens.push(token);
    }
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 5, "each is another");
}

#[tokio::test]
async fn logs_are_written_as_each_place_says() {
    // The log lines among the progress lines.
    let logged = async |cli: &Cli| -> (usize, usize) {
        let output = cli.run(&["backup", "--dry-run"]).await;
        assert_eq!(output.code, Some(0), "{output:?}");
        let lines = output.stderr.lines().filter(|line| line.contains("settings chosen"));
        let (json, human): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with('{'));
        for line in &json {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!((&line["level"], &line["fields"]["message"]), (&"DEBUG".into(), &"settings chosen".into()), "{line}");
            assert!(line["timestamp"].is_string() && line["fields"]["readers"].is_number(), "{line}");
        }
        (json.len(), human.len())
    };
    let server = Server::standalone().await;
    let shop = server.client().await.database("shop");
    shop.run_command(doc! { "insert": "orders", "documents": [{ "_id": 1 }] }).await.unwrap();
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri());
    assert_eq!(logged(&cli).await, (0, 0), "a verb logs warnings only");
    let cli = cli.env("RUST_LOG", "bsonvault=debug");
    assert_eq!(logged(&cli).await, (0, 1));
    std::fs::write(cli.dir().join("rocket.toml"), "[default.backup]\nlog_format = \"json\"\n").unwrap();
    assert_eq!(logged(&cli).await, (1, 0));
    std::fs::write(cli.dir().join(".env"), "LOG_FORMAT=human\n").unwrap();
    assert_eq!(logged(&cli).await, (0, 1));
    let cli = cli.env("LOG_FORMAT", "json");
    assert_eq!(logged(&cli).await, (1, 0));
    refused(
        &cli.env("LOG_FORMAT", "xml").run(&["list"]).await,
        2,
        "LOG_FORMAT in the environment: found \"xml\": expected human or json",
    );
}

#[tokio::test]
async fn sigterm_ends_it_as_interrupted() {
    // A server that accepts connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("mongodb://{}/?directConnection=true&serverSelectionTimeoutMS=60000", silent.local_addr().unwrap());
    let cli = Cli::new().env("MONGO_URI_ATLAS", uri);
    let mut child = cli.spawn(&["backup"]);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "looking at the source");
    let kill = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(finish(child).await.code, Some(130), "{rest:?}");
    assert!(rest.iter().any(|l| l == "error: interrupted; nothing of the backup is left"), "{rest:?}");
    assert_eq!(cli.json(&["list"]).await["backups"].as_array().map(Vec::len), Some(0));

    // An import that has not begun to write, and a dump that has not begun to read, say so, too.
    let backup = format!("{}/fixtures/v2/atlas-backup-2026-11-22T21-45-00-000Z", env!("CARGO_MANIFEST_DIR"));
    for (args, told) in [
        (&["import", &*backup, "--yes", "--target"][..], "nothing was changed"),
        (&["dump", "--uri"], "nothing is left of the dump"),
    ] {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("mongodb://{}/?directConnection=true&serverSelectionTimeoutMS=60000", silent.local_addr().unwrap());
        let child = cli.spawn(&[args, &[&uri]].concat());
        let (_connection, _) = silent.accept().unwrap();
        let kill = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let output = finish(child).await;
        assert!(output.code == Some(130) && output.stderr.contains(&format!("error: interrupted; {told}")), "{output:?}");
    }
    assert!(!cli.dir().join("dump").exists());
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_panic() {
    let cli = Cli::new();
    std::fs::create_dir(cli.dir().join("backups")).unwrap();
    for args in [vec!["--help"], vec!["list"], vec!["list", "--json"]] {
        let mut command = cli.command(&args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = finish(child).await;
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[tokio::test]
async fn a_backup_is_taken_listed_shown_and_verified() {
    let server = Server::standalone().await;
    let shop = server.client().await.database("shop");
    let documents: Vec<_> = (0..500).map(|i| doc! { "_id": i, "text": "x".repeat(100) }).collect();
    shop.run_command(doc! { "insert": "orders", "documents": documents }).await.unwrap();
    shop.run_command(doc! { "create": "empty" }).await.unwrap();
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri());

    let plan = cli.json(&["backup", "--dry-run", "--include", "shop.*"]).await;
    assert_eq!((&plan["success"], &plan["dryRun"]), (&true.into(), &true.into()));
    assert_eq!(plan["collections"].as_array().map(Vec::len), Some(2), "{plan}");
    refused(&cli.run(&["list"]).await, 1, "does not exist");
    let text = cli.run(&["backup", "--dry-run"]).await;
    assert!(text.stdout.contains("shop.orders") && text.stdout.contains("nothing was written"), "{}", text.stdout);

    let made = cli.json(&["backup", "--level", "-3"]).await;
    let name = made["name"].as_str().unwrap();
    assert_eq!((&made["success"], &made["documents"], &made["collections"]), (&true.into(), &500.into(), &2.into()));
    assert_eq!(made["consistency"]["kind"], "none");
    assert!(made["storedBytes"].as_u64().unwrap() < made["rawBytes"].as_u64().unwrap(), "{made}");
    assert!(
        made["path"].as_str().unwrap().ends_with(name) && made["seconds"].is_number() && made["leftOut"].is_array(),
        "{made}"
    );

    let second = cli.run(&["backup", "--exclude", "shop.empty"]).await;
    assert_eq!(second.code, Some(0), "{second:?}");
    assert!(second.stdout.contains("500 documents in 1 collection,"), "{}", second.stdout);
    assert!(second.stdout.contains("warning: writes during the backup may be in one part"), "{}", second.stdout);

    let listed = cli.json(&["list"]).await;
    let entry = listed["backups"].as_array().unwrap().iter().find(|b| b["name"] == name).unwrap();
    assert_eq!((&entry["state"], &entry["documents"]), (&"complete".into(), &500.into()));
    assert_eq!(
        (&entry["path"], &entry["rawBytes"], &entry["storedBytes"]),
        (&made["path"], &made["rawBytes"], &made["storedBytes"])
    );
    assert!(cli.run(&["list"]).await.stdout.contains(name));

    let shown = cli.json(&["show", name]).await;
    assert_eq!((&shown["success"], &shown["name"], &shown["formatVersion"]), (&true.into(), &name.into(), &2.into()));
    assert!(shown["collections"].as_array().unwrap().iter().all(|c| c.get("segments").is_none()));
    let with = cli.json(&["show", name, "--segments"]).await;
    assert!(with["collections"].as_array().unwrap().iter().all(|c| c["segments"].is_array()));
    assert!(cli.run(&["show", name]).await.stdout.contains("shop.orders"));

    let verified = cli.json(&["verify", name, "--deep"]).await;
    assert_eq!((&verified["success"], &verified["deep"], &verified["documents"]), (&true.into(), &true.into(), &500.into()));
    assert!(cli.run(&["verify", name]).await.stdout.contains("intact: "));

    // Damage is a mismatch, reported per file.
    let segment = std::path::Path::new(made["path"].as_str().unwrap()).join("shop/orders.00000.bson.zst");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let output = cli.run(&["verify", name]).await;
    assert_eq!(output.code, Some(3), "{output:?}");
    assert!(output.stdout.contains("problem: shop/orders.00000.bson.zst"), "{}", output.stdout);
    assert!(output.stderr.starts_with(&format!("error: backup {name} has ")), "{}", output.stderr);
    let json = cli.run(&["verify", name, "--json"]).await;
    assert_eq!(json.code, Some(3));
    assert_eq!((&json.json()["success"], &json.json()["error"]["kind"]), (&false.into(), &"mismatch".into()));
    assert_eq!(json.json()["problems"][0]["key"], "shop/orders.00000.bson.zst");

    // So is a changed manifest.
    let manifest = std::path::Path::new(made["path"].as_str().unwrap()).join("manifest.json");
    let changed = std::fs::read_to_string(&manifest).unwrap().replacen("500", "501", 1);
    std::fs::write(&manifest, changed).unwrap();
    let json = cli.run(&["verify", name, "--json"]).await;
    assert_eq!((json.code, &json.json()["problems"][0]["key"]), (Some(3), &"manifest.json".into()));
    let listed = cli.json(&["list"]).await;
    let entry = listed["backups"].as_array().unwrap().iter().find(|b| b["name"] == name).unwrap().clone();
    assert_eq!(entry["state"], "damaged");
    assert!(entry["reason"].is_string());
}

/// Runs a verb. Returns its output and its peak resident memory in MiB.
async fn measured(cli: &Cli, args: &[&str]) -> (Output, u64) {
    let child = cli.spawn(args);
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let looking = async {
        loop {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let kib = text.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().split(' ').next()?.parse::<u64>().ok());
            peak = peak.max(kib.unwrap_or(0) / 1024);
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    let output = tokio::select! {
        output = finish(child) => output,
        () = looking => unreachable!(),
    };
    (output, peak)
}

/// A document of strings.
fn strings(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut document = vec![0; 4];
    for (name, value) in fields {
        document.extend([&[2], name.as_bytes(), &[0]].concat());
        document.extend((value.len() as u32 + 1).to_le_bytes());
        document.extend([value.as_bytes(), &[0]].concat());
    }
    document.push(0);
    let length = document.len() as u32;
    document[..4].copy_from_slice(&length.to_le_bytes());
    document
}

#[tokio::test]
async fn an_archive_that_names_too_much_is_refused_within_the_memory() {
    let cli = Cli::new();
    let begin = [&[0x6D, 0xE2, 0x99, 0x81][..], &strings(&[("version", "0.1")])].concat();
    let names = |n: usize| strings(&[("db", "d"), ("collection", &n.to_string()), ("metadata", "")]);
    let large = format!("{{\"options\":{{}}{}}}", " ".repeat(16_000_000));
    let metadata = |n: usize| strings(&[("db", "d"), ("collection", &n.to_string()), ("metadata", &large)]);
    for (name, archive) in [
        ("names", (0..300_000).fold(begin.clone(), |archive, n| joined(archive, names(n)))),
        ("metadata", (0..16).fold(begin.clone(), |archive, n| joined(archive, metadata(n)))),
    ] {
        let path = cli.dir().join(name);
        std::fs::write(&path, archive).unwrap();
        let (output, peak) = measured(&cli, &["adopt", path.to_str().unwrap(), "--memory-mb", "64"]).await;
        refused(&output, 1, "of memory: ");
        assert!(output.stderr.contains("set --memory-mb or BACKUP_MEMORY_MB to 128 or more"), "{output:?}");
        assert!(peak < 200, "{name}: {peak} MiB");
    }
}

#[tokio::test]
async fn a_plan_of_very_many_collections_keeps_one_copy_of_each() {
    let server = Server::standalone().await;
    let cli = Cli::new();
    let begin = [&[0x6D, 0xE2, 0x99, 0x81][..], &strings(&[("version", "0.1")])].concat();
    let names = |n: usize| strings(&[("db", "d"), ("collection", &n.to_string()), ("metadata", "")]);
    let archive = (0..40_000).fold(begin, |archive, n| joined(archive, names(n)));
    let path = cli.dir().join("many");
    std::fs::write(&path, joined(archive, vec![0xFF; 4])).unwrap();
    let uri = server.uri();
    for json in [false, true] {
        let mut args = vec!["import", path.to_str().unwrap(), "--dry-run", "--target", uri.as_str()];
        args.extend(json.then_some("--json"));
        let (output, peak) = measured(&cli, &args).await;
        assert_eq!(output.code, Some(0), "{output:?}");
        assert!(output.stdout.contains("d.39999"), "the last one is told, too");
        assert!(peak < 130, "{peak} MiB");
    }
}

#[tokio::test]
async fn a_file_of_settings_that_has_no_end_is_refused() {
    let cli = Cli::new();
    std::os::unix::fs::symlink("/dev/zero", cli.dir().join(".env")).unwrap();
    let (output, peak) = measured(&cli, &["list"]).await;
    refused(&output, 2, ".env in the working directory cannot be read: it has more than 16 MiB");
    assert!(peak < 150, "{peak} MiB");
}

fn joined(mut all: Vec<u8>, more: Vec<u8>) -> Vec<u8> {
    all.extend(more);
    all
}

#[tokio::test]
async fn a_long_manifest_is_listed_without_its_lists_and_refused_where_it_is_too_long() {
    let cli = Cli::new();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/v1/atlas-backup-2026-11-22T21-45-00-000Z/manifest.json");
    let text = std::fs::read_to_string(file).unwrap();
    let held: serde_json::Value = serde_json::from_str(&text).unwrap();
    let zeros = "0".repeat(64);
    let left_out = "{\"database\":\"\",\"collection\":\"\",\"reason\":\"\"}";
    let at = text.find("\"leftOut\": [").unwrap();
    let (before, after) = text.split_at(at);
    let after = after.split_once(']').unwrap().1;
    let long = format!("{before}\"leftOut\": [{}{left_out}]{after}", format!("{left_out},\n").repeat(1_600_000));
    let zeroed = long.replace(held["sha256"].as_str().unwrap(), &zeros);
    let place = cli.dir().join("backups/long");
    std::fs::create_dir_all(&place).unwrap();
    let sealed = zeroed.replace(&zeros, Sha256Hex::of(zeroed.as_bytes()).as_str());
    assert!(sealed.len() > 64 << 20);
    std::fs::write(place.join("manifest.json"), sealed).unwrap();
    let path = cli.dir().join("backups");
    let (output, peak) = measured(&cli, &["list", "--path", path.to_str().unwrap()]).await;
    assert!(output.stdout.contains("complete"), "{output:?}");
    assert!(peak < 120, "{peak} MiB");
    let cli = cli.env("BACKUP_MEMORY_MB", "64");
    let (output, peak) = measured(&cli, &["show", "long", "--path", path.to_str().unwrap()]).await;
    refused(&output, 1, "more than the 64 MiB of memory that are allowed");
    assert!(peak < 120, "{peak} MiB");
}

#[tokio::test]
async fn lists_and_backups_fit_a_terminal_of_eighty_columns() {
    let server = Server::standalone().await;
    let long = format!("a_collection_with_a_{}_name", "very_".repeat(20));
    let database = server.client().await.database("shop");
    database.run_command(doc! { "insert": &long, "documents": [{ "_id": 1 }] }).await.unwrap();
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri());
    let name = cli.json(&["backup"]).await["name"].as_str().unwrap().to_owned();
    let narrow = Cli::new().env("BACKUP_PATH", cli.dir().join("backups").to_str().unwrap()).env("COLUMNS", "80");
    let table = |output: &Output| {
        output
            .stdout
            .lines()
            .filter(|line| !line.starts_with("path") && !line.starts_with("warning"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for args in [vec!["list"], vec!["show", &name]] {
        let output = narrow.run(&args).await;
        assert_eq!(output.code, Some(0), "{output:?}");
        let wide: Vec<String> = table(&output).into_iter().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty() && output.stdout.contains(&name), "{output:?}");
        let all = narrow.run(&[&args[..], &["--wide"]].concat()).await.stdout;
        assert!(table(&Output { stdout: all, ..output.clone() }).iter().any(|line| line.chars().count() > 80), "{args:?}");
    }
    let shown = narrow.run(&["show", &name]).await.stdout;
    assert!(!shown.contains(&long) && shown.contains("shop.a_collection…"), "{shown}");
    // A pipe has room for everything.
    assert!(cli.run(&["show", &name]).await.stdout.contains(&long));
    assert!(cli.run(&["list"]).await.stdout.contains("consistency  verified"));
}

#[tokio::test]
async fn a_shell_and_man_are_told_of_every_verb() {
    let cli = Cli::new();
    // It runs wherever a shell starts, so settings do not matter.
    std::fs::write(cli.dir().join(".env"), "BACKUP_LEVEL=99\n").unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = cli.run(&["completions", shell]).await;
        assert_eq!((script.code, script.stderr.as_str()), (Some(0), ""));
        assert!(script.stdout.contains("keep-replaced") && script.stdout.contains("verify"), "{shell}");
    }
    let page = cli.run(&["man"]).await;
    assert!(page.code == Some(0) && page.stdout.starts_with(".ie") && page.stdout.contains("bsonvault"), "{page:?}");
    let page = cli.run(&["man", "backup"]).await.stdout;
    assert!(page.contains("bsonvault\\-backup") && page.contains("adaptive\\-throttle"), "{page}");
    refused(&cli.run(&["man", "frobnicate"]).await, 2, "there is no command \"frobnicate\"");
}
