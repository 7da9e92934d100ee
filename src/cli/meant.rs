//! Finds what an unknown verb or flag probably means: first the names of other tools, then the
//! nearest spelling.

mod flags;
mod verbs;

use std::ffi::OsString;

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind as ClapKind};

use crate::error::Error;
use crate::names::nearest;

/// How a connection string begins.
const SCHEMES: [&str; 2] = ["mongodb://", "mongodb+srv://"];

/// Whether this is a connection string, given where something else is expected.
pub(super) fn is_uri(text: &str) -> bool {
    SCHEMES.iter().any(|scheme| text.trim_start().to_ascii_lowercase().starts_with(scheme))
}

/// The error of an unknown verb or flag of this command, with what was probably meant. `None` if
/// something else is wrong.
pub(super) fn unknown(error: &clap::Error, args: &[OsString], command: &Command) -> Option<Error> {
    match error.kind() {
        ClapKind::InvalidSubcommand => Some(verb(text(error, ContextKind::InvalidSubcommand)?, args, command)),
        ClapKind::UnknownArgument => Some(argument(text(error, ContextKind::InvalidArg)?, args, command)),
        _ => None,
    }
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text),
        _ => None,
    }
}

fn verb(asked: &str, args: &[OsString], command: &Command) -> Error {
    if let Some(outer) = verb_of(&given(args), command).filter(|verb| verb.has_subcommands()) {
        return verb_within(asked, outer);
    }
    if is_uri(asked) {
        return Error::usage("expected a verb, found a connection string")
            .hint("begin with a verb, for example `bsonvault backup --source URI`; `bsonvault --help` lists the verbs");
    }
    let known: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
    let hint = match (verbs::meant(asked), nearest(asked, known.iter().copied())) {
        (Some(meant), _) => meant.to_owned(),
        (None, Some(near)) => format!("probably meant: `bsonvault {near}`; `bsonvault --help` lists the verbs"),
        (None, None) => format!("the verbs are {}", known.join(", ")),
    };
    Error::usage(format!("unrecognized subcommand '{asked}'")).hint(hint)
}

/// The error of an unknown word after a verb that has verbs of its own.
fn verb_within(asked: &str, outer: &Command) -> Error {
    let name = outer.get_name();
    let known: Vec<&str> = outer.get_subcommands().map(Command::get_name).collect();
    let hint = match asked {
        "stop" | "end" | "kill" | "cancel" => {
            format!("Ctrl-C or SIGTERM ends `bsonvault {name}` in order; `bsonvault {name} pause` pauses it")
        }
        "start" | "run" | "begin" | "now" => format!("`bsonvault {name}` without another word starts it"),
        _ => match nearest(asked, known.iter().copied()) {
            Some(near) => format!("probably meant: `bsonvault {name} {near}`"),
            None => format!("`bsonvault {name}` has {}", known.join(", ")),
        },
    };
    Error::usage(format!("unrecognized subcommand '{asked}' of {name}")).hint(hint)
}

fn given(args: &[OsString]) -> Vec<&str> {
    args.iter().skip(1).filter_map(|arg| arg.to_str()).collect()
}

fn argument(asked: &str, args: &[OsString], command: &Command) -> Error {
    let given = given(args);
    let Some(verb) = verb_of(&given, command) else {
        let hint = match flags::before_a_verb(asked) {
            Some(hint) => hint.to_owned(),
            None => "flags other than --json and --path come after the verb; `bsonvault --help` lists the verbs".to_owned(),
        };
        return Error::usage(format!("unexpected argument '{asked}' found")).hint(hint);
    };
    let inner = given.iter().skip_while(|word| **word != verb.get_name()).nth(1);
    if let Some(inner) = inner.and_then(|inner| verb.find_subcommand(inner)) {
        let (outer, inner) = (verb.get_name(), inner.get_name());
        return Error::usage(format!("unexpected argument '{asked}' found"))
            .hint(format!("`bsonvault {outer} {inner} --help` lists its flags; other flags belong to `bsonvault {outer}`"));
    }
    let name = verb.get_name();
    if !asked.starts_with('-') {
        return positional(name, &given, asked);
    }
    let known: Vec<String> =
        verb.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect();
    // A spelling that differs only in case and hyphens means the flag, even if other tools mean
    // something else by it.
    let same = known.iter().find(|flag| plain(flag) == plain(asked));
    let near = || nearest(asked, known.iter().map(String::as_str));
    let hint = match (same, flags::meant(asked, name)) {
        (Some(flag), _) => format!("here it is {flag}"),
        (None, Some(meant)) => meant.to_owned(),
        (None, None) => match near() {
            Some(near) => format!("probably meant: {near}; `bsonvault {name} --help` lists the flags"),
            None => format!("`bsonvault {name} --help` lists its flags"),
        },
    };
    Error::usage(format!("unexpected argument '{asked}' found")).hint(hint)
}

/// The error of an argument too many.
fn positional(verb: &str, given: &[&str], asked: &str) -> Error {
    if given.iter().any(|arg| is_uri(arg)) {
        return uri_in_place(verb);
    }
    let hint = match verb {
        "backup" | "tune" => {
            "--database and --include select data, --source URI names the source, --path DIR the place of the backups".to_owned()
        }
        "list" | "clean" | "check" | "serve" | "token" => {
            format!("{verb} takes only flags; --path DIR names the directory of the backups")
        }
        _ => format!("{verb} takes one name; quote values with spaces; `bsonvault {verb} --help` lists its flags"),
    };
    Error::usage(format!("unexpected argument '{asked}' found")).hint(hint)
}

/// The error of a positional connection string on a verb that takes none. The message does not
/// quote it, because it may hold a password.
pub(super) fn uri_in_place(verb: &str) -> Error {
    let hint = match verb {
        "backup" | "tune" => "name the source with --source URI or MONGO_URI_ATLAS",
        "import" | "verify" => "name the target with --target URI or MONGO_URI_LOCAL",
        "check" | "serve" => "name the source with --source URI, the target with --target URI",
        _ => "leave it out: this verb connects to no deployment",
    };
    Error::usage(format!("{verb} takes no connection string without a flag")).hint(hint)
}

/// The verb on a command line.
fn verb_of<'c>(given: &[&str], command: &'c Command) -> Option<&'c Command> {
    let mut given = given.iter();
    while let Some(arg) = given.next() {
        match *arg {
            "--path" => drop(given.next()),
            flag if flag.starts_with('-') => {}
            word => return command.get_subcommands().find(|verb| verb.get_name() == word),
        }
    }
    None
}

fn plain(flag: &str) -> String {
    flag.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::super::CommandLine;
    use super::*;

    fn told(line: &str) -> (String, String) {
        let args: Vec<OsString> = std::iter::once("bsonvault").chain(line.split(' ')).map(OsString::from).collect();
        let error = CommandLine::try_parse_from(&args).unwrap_err();
        let told = unknown(&error, &args, &CommandLine::command()).unwrap_or_else(|| panic!("{line}: {error}"));
        (told.to_string(), told.hint_text().unwrap_or_default().to_owned())
    }

    #[test]
    fn a_verb_of_another_tool_leads_to_the_one_here() {
        for (typed, meant) in [
            ("backups", "`bsonvault list`"),
            ("ls", "`bsonvault list`"),
            ("snapshots", "`bsonvault list`"),
            ("Snapshots", "`bsonvault list`"),
            ("status", "`bsonvault check`"),
            ("delete NAME", "`bsonvault clean"),
            ("forget", "`bsonvault clean"),
            ("prune", "`bsonvault clean"),
            ("describe-backup x", "`bsonvault show NAME`"),
            ("restore-backup x", "`bsonvault import NAME`"),
            ("create", "`bsonvault backup`"),
            ("remove", "`bsonvault clean"),
            ("version", "`bsonvault --version`"),
            ("mongorestore", "`bsonvault restore`"),
            ("mongodump", "`bsonvault dump`"),
            ("mount", "`bsonvault export"),
            ("download", "`bsonvault export"),
            ("init", "nothing"),
        ] {
            let (message, hint) = told(typed);
            assert!(hint.contains(meant), "{typed}: {message} / {hint}");
        }
        for (typed, meant) in [
            ("sync stop", "SIGTERM"),
            ("sync start", "`bsonvault sync` without"),
            ("sync verfy", "`bsonvault sync verify`"),
            ("sync frobnicate", "status, pause, resume, verify, finalize"),
            ("sync status --source x", "`bsonvault sync status --help`"),
        ] {
            let (message, hint) = told(typed);
            assert!(hint.contains(meant), "{typed}: {message} / {hint}");
        }
        assert!(told("lits").1.contains("`bsonvault list`"));
        assert!(told("restroe").1.contains("`bsonvault restore`"));
        assert!(told("frobnicate").1.contains("import, dump, restore"));
        let (message, hint) = told("mongodb://u:secret@h/ backup");
        assert!(!format!("{message}{hint}").contains("secret") && hint.contains("--source"), "{message} / {hint}");
    }

    #[test]
    fn a_flag_of_another_tool_leads_to_what_does_it_here() {
        for (typed, meant) in [
            ("backup --query {}", "`bsonvault dump --query`"),
            ("backup -q {}", "`bsonvault dump --query`"),
            ("backup --dumpDbUsersAndRoles", "users and roles"),
            ("backup -v", "RUST_LOG"),
            ("list --verbose", "RUST_LOG"),
            ("backup --uri mongodb://h", "--source URI"),
            ("import --uri mongodb://h x", "--target URI"),
            ("list --uri mongodb://h", "no deployment"),
            ("backup --host h", "--source URI"),
            ("import -u me x", "mongodb://USER:PASSWORD@HOST"),
            ("backup --readPreference secondary", "--read-preference"),
            ("import --readPreference secondary x", "`bsonvault backup --read-preference`"),
            ("import --drop x", "--mode replace"),
            ("import --nsInclude a.* x", "--include"),
            ("import --nsFrom a.* x", "--rename FROM=TO"),
            ("import --gzip x", "leave it out"),
            ("import --archive=x", "without a flag"),
            ("export --archive=x y", "--format archive"),
            ("backup --out dir", "--path DIR"),
            ("backup -o dir", "--path DIR"),
            ("backup --gzip", "--level"),
            ("backup --oplog", "one consistency point"),
            ("backup --collection c", "--include DB.COLLECTION"),
            ("backup --db d", "--database"),
            ("import --db d x", "--as NAME"),
            ("export --database d x", "--include 'DB.*'"),
            ("import --oplogReplay x", "leave it out"),
            ("import --oplogLimit 5 x", "--oplog-limit"),
            ("import --dryRun x", "--dry-run"),
            ("import --restoreDbUsersAndRoles x", "--with-users"),
            ("restore --target mongodb://h d", "--uri"),
            ("restore --include a.* d", "--nsInclude"),
            ("restore --query {} d", "`bsonvault dump --query`"),
            ("restore --readPreference secondary d", "is for reading"),
            ("restore --dumpDbUsersAndRoles d", "--restoreDbUsersAndRoles"),
            ("dump --source mongodb://h", "--uri"),
            ("dump --drop", "`bsonvault restore --drop`"),
            ("clean --keep-last 3", "--keep N"),
            ("clean --keep-dayly 3", "--keep-daily"),
            ("clean --force", "leave it out"),
            ("backup --time 2026-01-01T00:00:00", "consistency point"),
            ("serve --cron x", "BACKUP_CRON"),
            ("--uri mongodb://h backup", "after the verb"),
            ("-v backup", "RUST_LOG"),
        ] {
            let (message, hint) = told(typed);
            assert!(hint.contains(meant), "{typed}: {message} / {hint}");
        }
        for typed in ["backup mongodb://u:secret@h/", "import mongodb://u:secret@h/ x", "list mongodb+srv://u:secret@h"] {
            let (message, hint) = told(typed);
            assert!(!format!("{message}{hint}").contains("secret"), "{message} / {hint}");
            assert!(message.contains("connection string"), "{message}");
        }
    }

    #[test]
    fn what_a_table_names_is_there() {
        let command = CommandLine::command();
        let verb = |name: &str| command.get_subcommands().find(|verb| verb.get_name() == name);
        for hint in flags::hints().chain(verbs::hints()) {
            for quoted in hint.split('`').skip(1).step_by(2) {
                let mut words = quoted.split(' ');
                if words.next() != Some("bsonvault") {
                    continue;
                }
                let Some(name) = words.next().filter(|word| !word.starts_with('-')) else { continue };
                let verb = verb(name).unwrap_or_else(|| panic!("{name} in {hint:?}"));
                for flag in words.filter_map(|word| word.strip_prefix("--")) {
                    let flag = flag.split('=').next().unwrap_or_default();
                    assert!(verb.get_arguments().any(|arg| arg.get_long() == Some(flag)), "{name} --{flag} in {hint:?}");
                }
            }
        }
        assert!(verb("backup").is_some());
        for (verb_name, known) in flags::verbs() {
            assert!(verb(verb_name).is_some(), "{verb_name} of {known:?}");
        }
    }
}
