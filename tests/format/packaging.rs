//! The systemd unit and the container file, checked without running them: by their own tools if
//! available, and always by our rules.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const UNIT: &str = "contrib/systemd/bsonvault.service";
const ENVIRONMENT: &str = "contrib/systemd/bsonvault.env.example";
const CONTAINER: &str = "Containerfile";
const IGNORE: &str = ".containerignore";

/// The directives that the unit may use. systemd ignores an unknown word, and with it the
/// protection.
const DIRECTIVES: [(&str, &[&str]); 3] = [
    ("Unit", &["Description", "Wants", "After", "StartLimitIntervalSec", "StartLimitBurst"]),
    (
        "Service",
        &[
            "Type",
            "ExecStart",
            "User",
            "Group",
            "StateDirectory",
            "StateDirectoryMode",
            "ConfigurationDirectory",
            "WorkingDirectory",
            "Environment",
            "EnvironmentFile",
            "UMask",
            "Restart",
            "RestartSec",
            "RestartPreventExitStatus",
            "SuccessExitStatus",
            "TimeoutStopSec",
            "LimitNOFILE",
            "NoNewPrivileges",
            "CapabilityBoundingSet",
            "AmbientCapabilities",
            "ProtectSystem",
            "ProtectHome",
            "PrivateTmp",
            "PrivateDevices",
            "ProtectClock",
            "ProtectHostname",
            "ProtectKernelLogs",
            "ProtectKernelModules",
            "ProtectKernelTunables",
            "ProtectControlGroups",
            "ProtectProc",
            "ProcSubset",
            "LockPersonality",
            "MemoryDenyWriteExecute",
            "RemoveIPC",
            "RestrictNamespaces",
            "RestrictRealtime",
            "RestrictSUIDSGID",
            "RestrictAddressFamilies",
            "SystemCallArchitectures",
            "SystemCallFilter",
            "SystemCallErrorNumber",
        ],
    ),
    ("Install", &["WantedBy"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// `(section, directive, value)` of each meaningful line.
fn unit(text: &str) -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else {
            let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{line:?} is no directive"));
            lines.push((section.clone(), name.to_owned(), value.to_owned()));
        }
    }
    lines
}

/// Values of a directive of the service.
fn values<'a>(unit: &'a [(String, String, String)], name: &str) -> Vec<&'a str> {
    unit.iter().filter(|(section, found, _)| section == "Service" && found == name).map(|(_, _, value)| value.as_str()).collect()
}

/// The names in `NAME=VALUE` lines, including those behind a `#`.
fn variables(text: &str) -> BTreeSet<String> {
    let lines = text.lines().map(|line| line.strip_prefix('#').unwrap_or(line));
    lines.filter_map(|line| line.split_once('=')).map(|(name, _)| name.to_owned()).filter(|name| is_variable(name)).collect()
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// The names that the program does not read. Those of Rocket and the logger are not settings of
/// this program.
fn unknown(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let known = variables(&text(".env.example"));
    assert!(known.contains("MONGO_URI_ATLAS") && known.len() > 6, "{known:?}");
    let others = ["ROCKET_ADDRESS", "ROCKET_PORT", "RUST_LOG"];
    names.into_iter().filter(|name| !known.contains(name) && !others.contains(&name.as_str())).collect()
}

/// The faults of the unit.
fn unit_faults(text: &str) -> Vec<String> {
    let unit = unit(text);
    let mut faults = Vec::new();
    for (section, name, _) in &unit {
        if !DIRECTIVES.iter().any(|(s, names)| s == section && names.contains(&name.as_str())) {
            faults.push(format!("{name} in [{section}] is not known"));
        }
    }
    let one = |name: &str| match values(&unit, name).as_slice() {
        [value] => (*value).to_owned(),
        values => format!("{} of {name}", values.len()),
    };
    if one("ExecStart") != "/usr/local/bin/bsonvault serve" {
        faults.push(format!("it starts {}", one("ExecStart")));
    }
    let stop: u64 = one("TimeoutStopSec").parse().unwrap_or_default();
    if stop < 2 * grace() {
        faults.push(format!("it is killed after {stop} s, and jobs have {} s and then tidy up", grace()));
    }
    // A restart with wrong settings would fail like the first start.
    if one("RestartPreventExitStatus") != "2" || one("Restart") != "on-failure" {
        faults.push("it starts again with wrong settings".to_owned());
    }
    let set = values(&unit, "Environment").into_iter().filter_map(|value| value.split_once('=')).map(|(name, _)| name.to_owned());
    faults.extend(unknown(set).into_iter().map(|name| format!("{name} is no setting")));
    // It may write where it writes.
    let state = format!("/var/lib/{}", one("StateDirectory"));
    if !values(&unit, "Environment")
        .iter()
        .any(|value| value.strip_prefix("BACKUP_PATH=").is_some_and(|path| path.starts_with(&state)))
    {
        faults.push(format!("backups are not in {state}"));
    }
    if one("User") == "root" || one("ProtectSystem") != "strict" || one("NoNewPrivileges") != "yes" || one("UMask") != "0077" {
        faults.push("it may do more than it must".to_owned());
    }
    faults
}

/// The default grace period in seconds, as in `.env.example`.
fn grace() -> u64 {
    let example = text(".env.example");
    let said = example.lines().zip(example.lines().skip(1)).find(|(_, next)| next.starts_with("BACKUP_SHUTDOWN_GRACE_SECONDS"));
    let (comment, _) = said.unwrap_or_else(|| panic!("BACKUP_SHUTDOWN_GRACE_SECONDS is not in .env.example"));
    comment.rsplit_once("Empty: ").unwrap().1.trim_end_matches('.').parse().unwrap()
}

/// The instructions of a container file, with continued lines joined.
fn instructions(text: &str) -> Vec<(String, String)> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once(' ').unwrap_or_else(|| panic!("{line:?} is no instruction")))
        .map(|(name, arguments)| (name.to_owned(), arguments.trim().to_owned()))
        .collect()
}

/// The files that are copied into the image from the build context.
fn copied(container: &[(String, String)]) -> Vec<String> {
    let copies = container.iter().filter(|(name, arguments)| name == "COPY" && !arguments.contains("--from="));
    copies
        .flat_map(|(_, arguments)| {
            let words: Vec<_> = arguments.split_whitespace().filter(|word| !word.starts_with("--")).map(str::to_owned).collect();
            words[..words.len() - 1].to_vec()
        })
        .collect()
}

/// The faults of the container file.
fn container_faults(text: &str) -> Vec<String> {
    let container = instructions(text);
    let mut faults = Vec::new();
    let all = |name: &str| container.iter().filter(|(found, _)| found == name).map(|(_, a)| a.clone()).collect::<Vec<_>>();
    let last = |name: &str| all(name).pop().unwrap_or_default();
    for image in all("FROM") {
        let image = image.split_whitespace().next().unwrap().to_owned();
        let (name, tag) = image.rsplit_once(':').unwrap_or((&image, "latest"));
        // cc-debian12:nonroot has its version in its name.
        let pinned = tag != "latest" && (tag.starts_with(|c: char| c.is_ascii_digit()) || name.ends_with("-debian12"));
        if !pinned || !name.contains('.') {
            faults.push(format!("{image} may be another one tomorrow"));
        }
    }
    if !all("FROM").first().is_some_and(|first| first.contains("bookworm")) || !last("FROM").contains("debian12") {
        faults.push("it is built against another C library than it runs with".to_owned());
    }
    let user: u32 = last("USER").split(':').next().unwrap().parse().unwrap_or_default();
    if user == 0 {
        faults.push("it runs as root, or as a name that an orchestrator cannot tell from it".to_owned());
    }
    let secrets = ["PASSWORD", "SECRET", "TOKEN", "URI", "KEY"];
    for arguments in all("ENV").into_iter().chain(all("ARG")) {
        let name = arguments.split(['=', ' ']).next().unwrap().to_owned();
        if secrets.iter().any(|secret| name.contains(secret)) {
            faults.push(format!("{name} is part of the image"));
        }
        faults.extend(unknown([name]).into_iter().map(|name| format!("{name} is no setting")));
    }
    let copied = copied(&container);
    for source in &copied {
        if !root().join(source).exists() || source == "." {
            faults.push(format!("{source} is not there to be copied, or everything is"));
        }
    }
    let ignore = self::text(IGNORE);
    let rules: Vec<_> = ignore.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let allowed: BTreeSet<_> = rules.iter().filter_map(|rule| rule.strip_prefix('!')).collect();
    if rules.first() != Some(&"*") || allowed != copied.iter().map(String::as_str).collect() {
        faults.push(format!("{IGNORE} lets {allowed:?} through, and {copied:?} are copied"));
    }
    let port = rocket::Config::default().port.to_string();
    if last("EXPOSE") != port || all("ENV").iter().any(|env| env.starts_with("ROCKET_PORT")) {
        faults.push(format!("it exposes {}, and listens on {port}", last("EXPOSE")));
    }
    if last("VOLUME") != "[\"/backups\"]" || !all("ENV").contains(&"BACKUP_PATH=/backups".to_owned()) {
        faults.push("backups are not in the volume".to_owned());
    }
    if !all("ENV").contains(&"ROCKET_ADDRESS=0.0.0.0".to_owned()) {
        faults.push("nobody can reach it".to_owned());
    }
    if (last("ENTRYPOINT").as_str(), last("CMD").as_str()) != ("[\"bsonvault\"]", "[\"serve\"]") {
        faults.push("it runs something else, or by a shell that keeps signals to itself".to_owned());
    }
    if last("STOPSIGNAL") != "SIGTERM" || !all("RUN").iter().any(|run| run.contains("--locked")) {
        faults.push("it stops by another signal, or is built with other dependencies".to_owned());
    }
    faults
}

#[test]
fn the_unit_is_in_order() {
    assert_eq!(unit_faults(&text(UNIT)), Vec::<String>::new());
}

#[test]
fn what_is_wrong_with_a_unit_is_found() {
    let unit = text(UNIT);
    for (right, wrong) in [
        ("ProtectHome=yes", "ProtectHomes=yes"),
        ("bsonvault serve", "bsonvault server"),
        ("TimeoutStopSec=120", "TimeoutStopSec=30"),
        ("TimeoutStopSec=120", ""),
        ("RestartPreventExitStatus=2", "RestartPreventExitStatus=1"),
        ("BACKUP_PATH=/var", "BACKUPS_PATH=/var"),
        ("BACKUP_PATH=/var/lib/bsonvault", "BACKUP_PATH=/srv"),
        ("User=bsonvault", "User=root"),
        ("ProtectSystem=strict", "ProtectSystem=full"),
        ("[Install]", "[Installation]"),
    ] {
        assert!(unit.contains(right), "{right}");
        assert!(!unit_faults(&unit.replace(right, wrong)).is_empty(), "{wrong} was not found");
    }
}

#[test]
fn systemd_takes_the_unit_as_it_is() {
    let analyze = |arguments: &[&str]| Command::new("systemd-analyze").args(arguments).output();
    if analyze(&["--version"]).is_err() {
        eprintln!("SKIPPED: systemd-analyze is not on this machine, so the unit was judged by our own rules alone");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bsonvault.service");
    // It checks that the program exists.
    let at_hand = text(UNIT).replace("/usr/local/bin/bsonvault", env!("CARGO_BIN_EXE_bsonvault"));
    let verify = |unit: &str| {
        std::fs::write(&path, unit).unwrap();
        let output = analyze(&["verify", path.to_str().unwrap()]).unwrap();
        // It reports ignored directives, but succeeds.
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success() && !said.contains("bsonvault.service"), said)
    };
    let (good, said) = verify(&at_hand);
    assert!(good, "{said}");
    for (right, wrong) in [("ProtectHome=yes", "ProtectHomes=yes"), ("Type=exec", "Type=exce"), ("@resources", "@resource")] {
        let (good, _) = verify(&at_hand.replace(right, wrong));
        assert!(!good, "{wrong} was taken");
    }
    // The exposure from 0 to 100, computed without starting anything. Older versions cannot do
    // this.
    std::fs::write(&path, at_hand).unwrap();
    let output = analyze(&["security", "--offline=true", "--threshold=20", path.to_str().unwrap()]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("unrecognized option") {
        eprintln!("SKIPPED: this systemd-analyze cannot rate a unit that is not installed");
    } else {
        assert!(output.status.success(), "{}{said}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn the_settings_for_the_unit_are_settings_and_hold_no_secret() {
    let environment = text(ENVIRONMENT);
    let named = variables(&environment);
    assert!(named.contains("ADMIN_TOKEN_SHA256") && named.contains("MONGO_URI_ATLAS"), "{named:?}");
    assert_eq!(unknown(named), Vec::<String>::new());
    assert_eq!(unknown(["BACKUP_PATHS".to_owned()]), ["BACKUP_PATHS"], "an unknown one is found");
    for line in environment.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{line:?} is no setting"));
        assert!(is_variable(name), "{line}");
        assert!(value.is_empty() || name == "RUST_LOG", "{line}");
    }
}

#[test]
fn the_container_file_is_in_order() {
    assert_eq!(container_faults(&text(CONTAINER)), Vec::<String>::new());
    match Command::new("hadolint").args(["--failure-threshold", "warning"]).arg(root().join(CONTAINER)).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(_) => eprintln!("SKIPPED: hadolint is not on this machine, so the container file was judged by our own rules alone"),
    }
}

#[test]
fn what_is_wrong_with_a_container_file_is_found() {
    let container = text(CONTAINER);
    for (right, wrong) in [
        ("rust:1.95-slim-bookworm", "rust:latest"),
        ("rust:1.95-slim-bookworm", "rust"),
        ("rust:1.95-slim-bookworm", "rust:1.95-slim-trixie"),
        ("cc-debian12:nonroot", "cc:nonroot"),
        ("USER 65532:65532", "USER root"),
        ("USER 65532:65532", "USER 0"),
        ("USER 65532:65532", "ENV MONGO_URI_ATLAS=mongodb://u:p@h\nUSER 65532:65532"),
        ("USER 65532:65532", "ENV BACKUP_PATHS=/backups\nUSER 65532:65532"),
        ("COPY benches benches", "COPY bench benches"),
        ("COPY benches benches", "COPY . ."),
        ("COPY benches benches", ""),
        ("EXPOSE 8000", "EXPOSE 8080"),
        ("USER 65532:65532", "ENV ROCKET_PORT=80\nUSER 65532:65532"),
        ("BACKUP_PATH=/backups", "BACKUP_PATH=/backup"),
        ("ROCKET_ADDRESS=0.0.0.0", "ROCKET_ADDRESS=127.0.0.1"),
        ("ENTRYPOINT [\"bsonvault\"]", "ENTRYPOINT bsonvault"),
        ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL"),
        (" --locked", ""),
    ] {
        assert!(container.contains(right), "{right}");
        assert!(!container_faults(&container.replace(right, wrong)).is_empty(), "{wrong:?} was not found");
    }
}

/// Everything that is compiled must be copied into the image. Otherwise the build fails there, and
/// only there.
#[test]
fn what_is_copied_into_the_image_can_be_built() {
    let directory = tempfile::tempdir().unwrap();
    for source in copied(&instructions(&text(CONTAINER))) {
        let copy = Command::new("cp").arg("-r").arg(root().join(&source)).arg(directory.path()).status().unwrap();
        assert!(copy.success(), "{source}");
    }
    // 1. The manifest finds all that it names, and the lock file matches it. Dependencies of other
    // systems are not checked, since they were not fetched for this build.
    let compiler = Command::new("rustc").arg("-vV").output().unwrap();
    let compiler = String::from_utf8(compiler.stdout).unwrap();
    let host = compiler.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host])
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));

    // 2. Files that are compiled in exist.
    let mut left = vec![directory.path().join("src")];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let code = std::fs::read_to_string(&path).unwrap();
            for included in ["include_str!(\"", "include_bytes!(\""].iter().flat_map(|by| code.split(by).skip(1)) {
                let included = path.parent().unwrap().join(included.split('"').next().unwrap());
                assert!(included.exists(), "{} includes {}", path.display(), included.display());
            }
        }
    }

    // 3. The image's compiler is new enough for every dependency.
    let image = text(CONTAINER).split("/rust:").nth(1).unwrap().split('-').next().unwrap().to_owned();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    for package in metadata["packages"].as_array().unwrap() {
        if let Some(needed) = package["rust_version"].as_str() {
            assert!(version(needed) <= version(&image), "{} needs {needed}, the image has {image}", package["name"]);
        }
    }
}

/// `MAJOR.MINOR`.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap_or_default())
}
