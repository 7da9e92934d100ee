//! The places of settings, their precedence, and error messages.

use std::path::Path;
use std::time::Duration;

use bsonvault::config::{Config, DEFAULT_PATH, Flags, LogFormat, ServiceSettings};
use bsonvault::engine::Tuning;
use bsonvault::engine::import::ImportMode;
use bsonvault::error::{ErrorKind, Face, Result};
use bsonvault::format::frame::Codec;
use bsonvault::names::Namespace;
use bsonvault::repository::retention::Policy;
use bsonvault::schedule::Cadence;
use chrono_tz::Tz;

const ROCKET_TOML: &str = "rocket.toml";
const DOTENV: &str = ".env";

#[derive(Default)]
struct Given {
    toml: &'static str,
    dotenv: &'static str,
    environment: Vec<(&'static str, &'static str)>,
    flags: Flags,
}

impl Given {
    fn load(self) -> Result<Config> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(ROCKET_TOML), self.toml).unwrap();
        std::fs::write(directory.path().join(DOTENV), self.dotenv).unwrap();
        let environment = self.environment.iter().map(|(name, value)| (name.into(), value.into()));
        Config::load(directory.path(), environment, &self.flags)
    }

    fn refused(self) -> String {
        let error = self.load().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        error.told(Face::CommandLine).0
    }
}

#[test]
fn nothing_said_gives_the_defaults() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config::load(directory.path(), [], &Flags::default()).unwrap();
    assert_eq!(config.path, DEFAULT_PATH);
    assert_eq!(config.tuning, Tuning::default());
    assert_eq!(config.source().unwrap_err().to_string(), "Atlas MongoDB URI not configured");
    assert_eq!(config.target().unwrap_err().to_string(), "Local MongoDB URI not configured");
    assert!(config.configured_source().unwrap().is_none());
}

#[test]
fn each_place_beats_those_below_it() {
    let toml = "[default.backup]\npath = \"toml\"\nlevel = 1\nreaders = 1\nwriters = 1\nmemory_mb = 65\n[debug]\nport = 1\n";
    let dotenv = "BACKUP_LEVEL=2\nBACKUP_READERS=2\nBACKUP_WRITERS=2\nBACKUP_READERS=9\n";
    let config = Given {
        toml,
        dotenv,
        environment: vec![("BACKUP_READERS", "3"), ("BACKUP_WRITERS", "3"), ("BACKUP_LEVEL", "")],
        flags: Flags { writers: Some("4".into()), ..Flags::default() },
    }
    .load()
    .unwrap();
    assert_eq!(config.path, "toml");
    assert_eq!(config.tuning.memory_bytes, 65 * 1024 * 1024);
    assert_eq!((config.tuning.level, config.tuning.readers, config.tuning.writers), (Some(2), Some(3), Some(4)));
}

#[test]
fn what_kubernetes_sets_for_a_service_is_no_misspelled_setting() {
    let of_kubernetes = [
        ("BACKUP_SERVICE_HOST", "10.0.0.7"),
        ("BACKUP_SERVICE_PORT_HTTP", "80"),
        ("BACKUP_PORT", "tcp://10.0.0.7:80"),
        ("BACKUP_PORT_80_TCP_ADDR", "10.0.0.7"),
    ];
    let config = Given { environment: of_kubernetes.to_vec(), ..Given::default() }.load().unwrap();
    config.refuse_unknown().unwrap();
    for other in [("BACKUP_PORT", "8000"), ("BACKUP_PORTS", "tcp://h")] {
        let config = Given { environment: vec![other], ..Given::default() }.load().unwrap();
        assert!(config.refuse_unknown().is_err(), "{other:?}");
    }
}

#[test]
fn a_flag_with_an_empty_value_is_refused_and_means_no_other_deployment() {
    for (flags, name) in [
        (Flags { source: Some(String::new()), ..Flags::default() }, "--source"),
        (Flags { path: Some("  ".to_owned()), ..Flags::default() }, "--path"),
    ] {
        let given = Given { dotenv: "MONGO_URI_ATLAS=mongodb://other/\n", flags, ..Given::default() };
        let error = given.load().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        let (message, hint) = error.told(Face::CommandLine);
        assert!(message == format!("{name} has an empty value") && hint.unwrap().contains("shell"), "{message}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_what_was_expected() {
    let dotenv = Given { dotenv: "BACKUP_LEVEL=20", ..Given::default() };
    assert_eq!(dotenv.refused(), "BACKUP_LEVEL in .env is \"20\": expected a whole number from -7 to 19");
    let environment = Given { environment: vec![("BACKUP_READERS", "many")], ..Given::default() };
    assert_eq!(environment.refused(), "BACKUP_READERS in the environment is \"many\": expected a whole number from 1 to 256");
    let flag = Given { flags: Flags { memory_mb: Some("63".into()), ..Flags::default() }, ..Given::default() };
    assert_eq!(flag.refused(), "--memory-mb is \"63\": expected a whole number from 64 to 1048576");
    let table = Given { toml: "[default.backup]\nwriters = 0", ..Given::default() };
    assert_eq!(table.refused(), "writers in rocket.toml, [default.backup] is 0: expected a whole number from 1 to 256");
    let fraction = Given { toml: "[default.backup]\nwriters = 1.5", ..Given::default() };
    assert!(fraction.refused().contains("is 1.5: expected a whole number"));
    let text = Given { toml: "[default.backup]\npath = 7", ..Given::default() };
    assert_eq!(text.refused(), "path in rocket.toml, [default.backup]: expected text in quotes");
}

#[test]
fn what_compresses_and_what_spares_the_source_can_be_said_everywhere() {
    let toml = "[default.backup]\ncodec = \"columns\"\nlong_distance = true\nframe_mb = 16\nmax_mbit = 100\npolite = \"on\"\n";
    let flags = Flags { max_mbit: Some("1000".into()), ..Flags::default() };
    let tuning = Given { toml, dotenv: "BACKUP_POLITE=no\n", flags, ..Given::default() }.load().unwrap().tuning;
    assert_eq!((tuning.long_distance, tuning.frame_bytes), (Some(true), Some(16 * 1024 * 1024)));
    assert_eq!((tuning.max_bits, tuning.adaptive_throttle), (Some(1_000_000_000), false));

    assert_eq!(tuning.codec, Some(Codec::Columns));
    let zstd = Given { toml, flags: Flags { codec: Some("zstd".into()), ..Flags::default() }, ..Given::default() };
    assert_eq!(zstd.load().unwrap().tuning.codec, Some(Codec::Zstd));
    let codec = Given { environment: vec![("BACKUP_CODEC", "lz4")], ..Given::default() };
    assert_eq!(codec.refused(), "BACKUP_CODEC in the environment: found \"lz4\": expected zstd or columns");

    let limit = Given { environment: vec![("BACKUP_MAX_MBIT", "0")], ..Given::default() };
    assert_eq!(limit.refused(), "BACKUP_MAX_MBIT in the environment is \"0\": expected a whole number from 1 to 1000000");
    let frame = Given { dotenv: "BACKUP_FRAME_MB=17", ..Given::default() };
    assert_eq!(frame.refused(), "BACKUP_FRAME_MB in .env is \"17\": expected a whole number from 1 to 16");
}

#[test]
fn a_value_that_is_overridden_is_not_judged() {
    let config =
        Given { dotenv: "BACKUP_LEVEL=99", flags: Flags { level: Some("-7".into()), ..Flags::default() }, ..Given::default() };
    assert_eq!(config.load().unwrap().tuning.level, Some(-7));
}

#[test]
fn keys_that_are_unknown_are_refused_by_name() {
    let unknown = Given { toml: "[default.backup]\nlevle = 3", ..Given::default() };
    assert_eq!(unknown.refused(), "\"levle\" in rocket.toml, [default.backup] is not a setting");
    assert!(Given { toml: "[default]\nport = 1\n[default.limits]\njson = 1", ..Given::default() }.load().is_ok());
    assert!(Given { toml: "[default]\nbackup = 1", ..Given::default() }.refused().contains("not a table"));
}

#[test]
fn files_that_cannot_be_read_are_refused_without_quoting_them() {
    let toml = Given { toml: "[default.backup]\nmongo_uri_atlas = \"mongodb://u:secret@h", ..Given::default() }.refused();
    assert!(toml.starts_with("rocket.toml cannot be read: TOML parse error at line 2"), "{toml}");
    assert!(!toml.contains("secret"), "{toml}");
    let dotenv = Given { dotenv: "A=1\nMONGO_URI_ATLAS='mongodb://u:secret@h", ..Given::default() }.refused();
    assert_eq!(dotenv, ".env, line 2 cannot be read: expected NAME=VALUE");
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join(ROCKET_TOML)).unwrap();
    let error = Config::load(directory.path(), [], &Flags::default()).unwrap_err();
    assert!(error.to_string().starts_with("rocket.toml in the working directory cannot be read"), "{error}");
}

#[test]
fn a_bad_uri_fails_where_it_is_needed_and_says_where_it_is() {
    let config = Given { dotenv: "MONGO_URI_ATLAS='mongodb://u:sec/ret@h'", ..Given::default() }.load().unwrap();
    let error = config.source().unwrap_err();
    assert!(error.to_string().starts_with("Invalid Atlas URI format"), "{error}");
    assert!(error.hint_text().unwrap().starts_with("it is MONGO_URI_ATLAS in .env"), "{error:?}");
    assert!(!format!("{config:?} {error:?}").contains("ret@"), "{config:?}");
}

#[test]
fn the_service_has_defaults_and_takes_what_is_said() {
    let settings = Given::default().load().unwrap().service().unwrap();
    assert!(settings.enabled && settings.auto_import);
    assert_eq!(settings.schedule, Cadence::every(6).unwrap());
    assert_eq!(settings.state, Path::new("./backups/bsonvault.redb"));
    assert_eq!((settings.retention, settings.grace), (Policy::default(), Duration::from_secs(30)));
    assert!(settings.admin_tokens.is_empty() && settings.read_tokens.is_empty() && settings.webhook.is_none());

    let toml = "[default.backup]\nenabled = false\nauto_import_to_local = \"off\"\ncron = \"30 2 * * *\"\ntimezone = \"Europe/Berlin\"\n\
                interval_hours = 4\nkeep_last = 1\nkeep_daily = 2\nkeep_weekly = 3\nshutdown_grace_seconds = 0\n";
    let environment = vec![
        ("BACKUP_KEEP_MONTHLY", "4"),
        ("BACKUP_KEEP_YEARLY", "1000000"),
        ("BACKUP_STATE", "/var/s.redb"),
        ("BACKUP_PATH", "b"),
        ("LOG_FORMAT", "JSON"),
    ];
    let config = Given { toml, environment, ..Given::default() }.load().unwrap();
    let settings = config.service().unwrap();
    assert!(!settings.enabled && !settings.auto_import);
    assert_eq!(settings.schedule, Cadence::cron("30 2 * * *", "Europe/Berlin").unwrap(), "an expression beats an interval");
    assert_eq!(settings.state, Path::new("/var/s.redb"));
    let policy = config.retention;
    let kept = [policy.last, policy.daily, policy.weekly, policy.monthly, policy.yearly].map(|n| n.map_or(0, |n| n.get()));
    assert_eq!((kept, settings.retention), ([1, 2, 3, 4, 1_000_000], policy));
    assert_eq!((config.timezone, config.log_format), (Tz::Europe__Berlin, LogFormat::Json));
    assert_eq!(settings.grace, Duration::ZERO);
    let hours = Given { environment: vec![("BACKUP_INTERVAL_HOURS", "87600")], ..Given::default() }.load().unwrap();
    assert_eq!(hours.service().unwrap().schedule, Cadence::every(87_600).unwrap());
}

#[test]
fn the_state_is_where_systemd_says_or_beside_the_backups() {
    let state = |environment: Vec<(&'static str, &'static str)>, dotenv: &'static str| {
        Given { environment, dotenv, ..Given::default() }.load().unwrap().service().unwrap().state
    };
    assert_eq!(state(vec![("BACKUP_PATH", "/b")], ""), Path::new("/b/bsonvault.redb"));
    let systemd = vec![("BACKUP_PATH", "/b"), ("STATE_DIRECTORY", "/var/lib/one:/var/lib/two")];
    assert_eq!(state(systemd, ""), Path::new("/var/lib/one/bsonvault.redb"));
    assert_eq!(state(vec![("STATE_DIRECTORY", "/var/lib/one")], "BACKUP_STATE=s"), Path::new("s"));
    assert_eq!(state(vec![("STATE_DIRECTORY", "")], "STATE_DIRECTORY=/x"), Path::new("./backups/bsonvault.redb"));
}

#[test]
fn truths_are_written_in_many_ways() {
    for (text, truth) in
        [("true", true), ("1", true), ("Yes", true), ("ON", true), ("false", false), ("0", false), ("no", false), ("off", false)]
    {
        let config = Given { environment: vec![("BACKUP_ENABLED", text)], ..Given::default() }.load().unwrap();
        assert_eq!(config.service().unwrap().enabled, truth, "{text}");
    }
    for (toml, truth) in [("[default.backup]\nenabled = 0", false), ("[default.backup]\nenabled = true", true)] {
        assert_eq!(Given { toml, ..Given::default() }.load().unwrap().service().unwrap().enabled, truth, "{toml}");
    }
    let text = Given { environment: vec![("BACKUP_ENABLED", "maybe")], ..Given::default() };
    assert_eq!(text.refused(), "BACKUP_ENABLED in the environment is \"maybe\": expected true or false");
    let number = Given { toml: "[default.backup]\nauto_import_to_local = 2", ..Given::default() };
    assert_eq!(number.refused(), "auto_import_to_local in rocket.toml, [default.backup] is 2: expected true or false");
}

#[test]
fn what_the_service_cannot_do_is_refused_for_every_verb() {
    for (variable, value, message) in [
        ("BACKUP_INTERVAL_HOURS", "0", " is \"0\": expected a whole number from 1 to 87600"),
        ("BACKUP_INTERVAL_HOURS", "1.5", " is \"1.5\": expected a whole number from 1 to 87600"),
        ("BACKUP_CRON", "0 0 30 2 *", ": cron expression \"0 0 30 2 *\" never fires: none of these months has such a day"),
        ("BACKUP_CRON", "61 * * * *", ": cron expression \"61 * * * *\": found \"61\": expected 0 to 59 in the field minute"),
        ("BACKUP_TIMEZONE", "Berlin", ": \"Berlin\" is not a known time zone"),
        ("BACKUP_KEEP_DAILY", "0", " is \"0\": expected a whole number from 1 to 1000000"),
        ("BACKUP_KEEP_LAST", "1000001", " is \"1000001\": expected a whole number from 1 to 1000000"),
        ("BACKUP_SHUTDOWN_GRACE_SECONDS", "-1", " is \"-1\": expected a whole number from 0 to 86400"),
        ("LOG_FORMAT", "xml", ": found \"xml\": expected human or json"),
    ] {
        let given = Given { environment: vec![(variable, value)], ..Given::default() };
        assert_eq!(given.refused(), format!("{variable} in the environment{message}"));
    }
    let zone = Given { environment: vec![("BACKUP_TIMEZONE", "Berlin")], ..Given::default() }.load().unwrap_err();
    assert_eq!(zone.hint_text(), Some("did you mean Europe/Berlin?"));
}

#[test]
fn what_is_followed_is_a_list_and_a_wrong_entry_is_named() {
    let toml = "[default.backup]\nsync_enabled = true\nsync_delay = \"30m\"\nsync_mode = \"Replace\"\n\
                sync_include = \"shop.*, crm.a\\\\,b\"\nsync_exclude = \"*.log\"\nsync_rename = \"shop.*=copy.*\"\n";
    let config = Given { toml, ..Given::default() }.load().unwrap();
    let options = config.sync(config.sync.mode);
    assert_eq!((config.sync.enabled, options.delay, options.mode), (true, Some(Duration::from_secs(1800)), ImportMode::Replace));
    assert_eq!(options.selection(), "include shop.*, include crm.a\\,b, exclude *.log, rename shop.*=copy.*");
    assert!(options.wants(&Namespace::new("crm", "a,b")) && !options.wants(&Namespace::new("crm", "b")));
    let flag = Flags { delay: Some("5s".into()), ..Flags::default() };
    let config = Given { dotenv: "SYNC_DELAY=30m", flags: flag, ..Given::default() }.load().unwrap();
    assert_eq!((config.sync.enabled, config.sync.delay), (false, Some(Duration::from_secs(5))));
    assert_eq!((config.sync.mode, config.sync(ImportMode::Fail).selection()), (ImportMode::Fail, "everything".into()));

    for (variable, value, message) in [
        ("SYNC_ENABLED", "2", "SYNC_ENABLED in the environment is \"2\": expected true or false"),
        (
            "SYNC_DELAY",
            "30",
            "SYNC_DELAY in the environment: found \"30\": expected a number above 0 with s, m, h, d or w, as 90s or 7d",
        ),
        ("SYNC_MODE", "merge", "SYNC_MODE in the environment: found \"merge\": expected fail or replace"),
        (
            "SYNC_INCLUDE",
            "shop.*,crm",
            "entry 2 of SYNC_INCLUDE in the environment: namespace pattern \"crm\" has neither a dot nor a '*'",
        ),
        ("SYNC_EXCLUDE", "shop.*,", "entry 2 of SYNC_EXCLUDE in the environment: it is empty"),
        (
            "SYNC_RENAME",
            "shop.a",
            "entry 1 of SYNC_RENAME in the environment: \"shop.a\": expected one '=' between two namespaces",
        ),
    ] {
        assert_eq!(Given { environment: vec![(variable, value)], ..Given::default() }.refused(), message);
    }

    // Nothing else writes to what follows, unless that is said.
    let imports = |environment| service(environment).unwrap().auto_import;
    let follows = ("SYNC_ENABLED", "true");
    assert!(imports(vec![]) && !imports(vec![follows]) && imports(vec![follows, ("AUTO_IMPORT_TO_LOCAL", "true")]));
}

const HASH: &str = "00112233445566778899aabbccddeeffFEDCBA98765432100123456789abcdef";

fn service(environment: Vec<(&'static str, &'static str)>) -> Result<ServiceSettings> {
    let config = Given { environment, ..Given::default() }.load().unwrap();
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
    let settings = config.service();
    assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
    settings
}

#[test]
fn tokens_are_hashes_and_nothing_of_them_is_told() {
    let two: &'static str = format!("{HASH}, {},{}", "ab".repeat(32), HASH.to_lowercase()).leak();
    let settings = service(vec![("ADMIN_TOKEN_SHA256", two), ("READ_TOKEN_SHA256", "cd".repeat(32).leak())]).unwrap();
    assert_eq!(settings.admin_tokens.len(), 2, "none of them twice");
    assert_eq!(settings.admin_tokens[0][..4], [0x00, 0x11, 0x22, 0x33]);
    assert_eq!(settings.admin_tokens[0][16..20], [0xfe, 0xdc, 0xba, 0x98]);
    assert_eq!((settings.admin_tokens[1], settings.read_tokens), ([0xab; 32], vec![[0xcd; 32]]));
    for (text, at, found) in [
        ("bv_hunter2", 1, "10 characters"),
        (format!("{HASH},").leak(), 2, "0 characters"),
        (format!("{HASH}, {}", &HASH[1..]).leak(), 2, "63 characters"),
        (format!("{}hunter2", &HASH[7..]).leak(), 1, "64 characters, not all of them hexadecimal digits"),
        ("fg".repeat(32).leak(), 1, "64 characters, not all of them hexadecimal digits"),
        ("é".repeat(32).leak(), 1, "32 characters"),
    ] {
        let error = service(vec![("ADMIN_TOKEN_SHA256", text)]).unwrap_err();
        let expected = "is not a SHA-256: expected 64 hexadecimal digits, found";
        assert_eq!(error.to_string(), format!("hash {at} in ADMIN_TOKEN_SHA256 in the environment {expected} {found}"));
        assert!(error.hint_text().unwrap().contains("`bsonvault token`"), "{error:?}");
    }
    let both = service(vec![("ADMIN_TOKEN_SHA256", two), ("READ_TOKEN_SHA256", format!("{},{HASH}", "cd".repeat(32)).leak())]);
    let both = both.unwrap_err();
    assert_eq!(
        (both.kind(), both.to_string().as_str()),
        (ErrorKind::Usage, "hash 2 of READ_TOKEN_SHA256 is one of ADMIN_TOKEN_SHA256, too")
    );
}

#[test]
fn a_webhook_is_shown_as_scheme_and_host() {
    for (url, host) in [
        ("https://hooks.example/hunter2?token=hunter2#hunter2", "https://hooks.example"),
        ("HTTP://u:hunter2@127.0.0.1:8080/x", "http://127.0.0.1:8080"),
        (" http://[::1]:9 ", "http://[::1]:9"),
        ("https://[::1]?hunter2", "https://[::1]"),
    ] {
        let webhook = service(vec![("WEBHOOK_URL", url), ("WEBHOOK_SECRET", "hunter2")]).unwrap().webhook.unwrap();
        assert_eq!((webhook.shown().as_str(), webhook.url.as_str()), (host, url.trim()));
        assert_eq!(webhook.secret.as_deref(), Some("hunter2"));
        assert_eq!(format!("{webhook:?}"), format!("WebhookSettings {{ url: {host:?}, signed: true }}"));
    }
    for url in [
        "hooks.example/hunter2",
        "ftp://hooks.example/hunter2",
        "https:///hunter2",
        "https://u:hunter2/@hooks.example",
        "https://hooks.example/hunter2 b",
        "https://hooks.example:99999/hunter2",
        "https://hooks\u{e9}.example/hunter2",
    ] {
        let error = service(vec![("WEBHOOK_URL", url)]).unwrap_err();
        assert_eq!(error.to_string(), "WEBHOOK_URL in the environment is not a URL that can be called", "{url}");
    }
    assert_eq!(service(vec![("WEBHOOK_SECRET", "hunter2")]).unwrap().webhook, None);
}

#[test]
fn a_slip_in_a_name_is_refused_with_what_was_meant() {
    for (dotenv, toml, name, meant) in [
        ("BACKUP_KEEP_DAYLY=7", "", "BACKUP_KEEP_DAYLY in .env", "BACKUP_KEEP_DAILY"),
        ("backup_keep_daily=7", "", "backup_keep_daily in .env", "BACKUP_KEEP_DAILY"),
        ("BAKCUP_PATH=x", "", "BAKCUP_PATH in .env", "BACKUP_PATH"),
        ("ADMIN_TOKENS_SHA256=x", "", "ADMIN_TOKENS_SHA256 in .env", "ADMIN_TOKEN_SHA256"),
        ("READ_TOKEN_SHA265=x", "", "READ_TOKEN_SHA265 in .env", "READ_TOKEN_SHA256"),
        ("WEBHOOK_URI=x", "", "WEBHOOK_URI in .env", "WEBHOOK_URL"),
        ("MONGO_URL_ATLAS=x", "", "MONGO_URL_ATLAS in .env", "MONGO_URI_ATLAS"),
        ("MONGODB_URI_LOCAL=x", "", "MONGODB_URI_LOCAL in .env", "MONGO_URI_LOCAL"),
        ("AUTO_IMPORT_TO_LOKAL=false", "", "AUTO_IMPORT_TO_LOKAL in .env", "AUTO_IMPORT_TO_LOCAL"),
        ("ROCKET_PROT=1", "", "ROCKET_PROT in .env", "ROCKET_PORT"),
        ("", "[release.backup]\nkeep_daily = 7", "[release.backup] in rocket.toml", "[default.backup]"),
        ("", "[backup]\nkeep_daily = 7", "[backup] in rocket.toml", "[default.backup]"),
        ("", "[default]\nkeep_daily = 7", "keep_daily in [default] in rocket.toml", "keep_daily in [default.backup]"),
        ("", "[default.backups]\nkeep_daily = 7", "[default.backups] in rocket.toml", "[default.backup]"),
    ] {
        let config = Given { dotenv, toml, ..Given::default() }.load().unwrap();
        for error in [config.refuse_slips(), config.refuse_unknown(), config.service().map(drop)].map(Result::unwrap_err) {
            assert_eq!(error.kind(), ErrorKind::Usage, "{name}");
            assert!(error.to_string().contains(name), "{name}: {error}");
            assert!(error.hint_text().unwrap().contains(&format!("{meant} instead of")), "{name}: {:?}", error.hint_text());
        }
        if !dotenv.is_empty() {
            let (name, value) = dotenv.split_once('=').unwrap();
            let config = Given { environment: vec![(name, value)], ..Given::default() }.load().unwrap();
            assert!(config.refuse_slips().unwrap_err().to_string().contains("in the environment"), "{name}");
        }
    }
    let table = Given { toml: "[default.backup]\nkeep_dayly = 7", ..Given::default() }.load().unwrap_err();
    assert!(table.hint_text().unwrap().starts_with("probably meant: keep_daily; "), "{table:?}");
}

#[test]
fn a_setting_of_two_values_in_one_file_is_refused() {
    let twice = "BACKUP_KEEP_DAILY=7\nA=1\nA=2\nROCKET_PORT=1\nMONGO_URI_ATLAS='mongodb://u:secret@a/'\nBACKUP_KEEP_DAILY=30\n\
                 ROCKET_PORT=2\nMONGO_URI_ATLAS='mongodb://u:secret@b/'\n";
    let config = Given { dotenv: twice, ..Given::default() }.load().unwrap();
    for error in [config.refuse_slips(), config.refuse_unknown(), config.service().map(drop)].map(Result::unwrap_err) {
        let told = format!("{error} {:?}", error.hint_text());
        assert!(told.starts_with("BACKUP_KEEP_DAILY, ROCKET_PORT, MONGO_URI_ATLAS have more than one value in .env"), "{told}");
        assert!(!told.contains("secret") && !told.contains("30"), "{told}");
    }
    // The same value twice is no contradiction, nor is an empty one. A contradiction does not
    // matter if another place takes precedence.
    let same = Given { dotenv: "BACKUP_KEEP_DAILY=7\nBACKUP_KEEP_DAILY='7'\nBACKUP_KEEP_DAILY=\n", ..Given::default() };
    same.load().unwrap().refuse_unknown().unwrap();
    let dotenv = "BACKUP_KEEP_DAILY=7\nBACKUP_KEEP_DAILY=30\n";
    let overridden = Given { dotenv, environment: vec![("BACKUP_KEEP_DAILY", "9")], ..Given::default() };
    overridden.load().unwrap().refuse_unknown().unwrap();
}

#[test]
fn names_that_only_this_program_has_are_refused_by_those_that_look_closely() {
    for name in ["BACKUP_RETENTION_DAYS", "BACKUP_", "backup_dir", "AUTO_IMPORT", "AUTO_IMPORT_MODE"] {
        let config = Given { environment: vec![(name, "1")], ..Given::default() }.load().unwrap();
        let refused = config.refuse_unknown().unwrap_err();
        assert!(refused.to_string().contains(name) && refused.hint_text().is_some(), "{name}: {refused}");
        config.refuse_slips().unwrap();
        config.service().unwrap_err();
    }
}

#[test]
fn names_of_other_programs_are_none_of_ours() {
    let others = [
        "BSONVAULT_MONGOD",
        "MONGO_URI",
        "MONGO_URI_PRODUCTION",
        "TOKEN",
        "ADMIN_TOKEN",
        "READ_TOKEN",
        "WEBHOOK_PORT",
        "WEBHOOK_TOKEN",
        "LOG_LEVEL",
        "ROCKET_SECRET_KEY",
        "ROCKET_TLS",
        "ROCKET_LIMITS",
        "ROCKET_PROFILE",
        "ROCKET_EXTRA",
        "RUST_LOG",
        "PATH",
        "STATE_DIRECTORY",
        "AUTO",
        "BACKUP",
    ];
    let given = Given { environment: others.map(|name| (name, "x")).to_vec(), ..Given::default() };
    given.load().unwrap().refuse_unknown().unwrap();
    // So is one that looks like a slip if the probable setting is also given.
    let environment = vec![("MONGO_URI_ATLAS", "mongodb://h"), ("MONGO_URI_ATLAS2", "mongodb://i")];
    Given { environment, ..Given::default() }.load().unwrap().refuse_unknown().unwrap();
    let environment = vec![("BACKUP_KEEP_DAILY", "7"), ("BACKUP_KEEP_DAYLY", "70")];
    Given { environment, ..Given::default() }.load().unwrap().refuse_slips().unwrap_err();
}
