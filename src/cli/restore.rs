//! `restore`: imports a dump, with mongorestore's flags. It replaces mongorestore in scripts.

mod args;
mod place;
mod promise;

use std::path::Path;

pub use self::args::Args;
use super::import::{self, Found, How};
use super::named;
use super::output::Outcome;
use super::progress::Faces;
use super::tools::{self, given};
use crate::config::Config;
use crate::context::Context;
use crate::engine::import::{CANNOT_BE_ADDED_TO, DumpSource, ImportMode, ImportOptions, IndexMode};
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::ClusterTime;
use crate::interop::Dump;
use crate::names::{Namespace, NamespaceFilter, NamespacePattern, NamespaceRename};
use crate::sink::Alterations;
use crate::sink::users::{self, WantedAccounts};

/// Its flags and wording, each with that of `import`, which it replaces in hints.
const FLAGS: [(&str, &str); 17] = [
    ("--oplogLimit", "--oplog-limit"),
    ("restore with --drop", "choose another --mode"),
    ("use `bsonvault import --allow-same`", "give --allow-same"),
    ("--noIndexRestore", "--indexes skip"),
    ("`bsonvault import --indexes only`", "--indexes only"),
    ("--nsFrom and --nsTo", "--as or --rename"),
    ("--nsFrom and --nsTo", "--as, --rename"),
    ("--nsFrom and --nsTo", "--rename or --as"),
    ("--nsFrom and --nsTo", "--rename"),
    ("--db", "--database"),
    ("--nsFrom and --nsTo", "--as"),
    ("--drop", "--mode replace or merge"),
    ("--drop", "--mode replace"),
    ("--nsExclude", "--exclude"),
    ("--nsInclude", "--include"),
    ("--uri", "--target"),
    ("--dryRun lists them", "`bsonvault show` lists them"),
];

pub(super) async fn run(args: Args, config: &Config, faces: Faces, cx: &Context) -> Result<Outcome> {
    restore(args, config, faces, cx)
        .await
        .map_err(|e| tools::in_flags_of(&FLAGS, e).reworded(CANNOT_BE_ADDED_TO, &format!("without --drop, {CANNOT_BE_ADDED_TO}")))
}

async fn restore(args: Args, config: &Config, faces: Faces, cx: &Context) -> Result<Outcome> {
    // 1. Find the dump and the target.
    let target = args.target(config)?;
    let limit = args.oplog_limit.as_deref().map(ClusterTime::parse).transpose()?;
    let database = tools::database(given(args.db.as_deref()), &target)?.map(str::to_owned);
    let database = database.as_deref();
    args.refuse(database)?;
    args.tell_without_effect();
    let place = place::find(&args).await?;
    named::refuse_for_a_dump(place.name(), "restore", config, cx).await?;
    let found = Found::dump(place.name(), (database.map(str::to_owned), limit), config, faces, cx).await?;
    let Found::Dump(dumped) = &found else {
        return Err(Error::new(ErrorKind::Internal, "what was found is not a dump"));
    };
    let dump = dumped.dump();
    if args.oplog_replay && !dump.has_oplog() {
        return Err(Error::usage(format!("--oplogReplay: {} has no oplog", dump.location()))
            .hint("it was made without --oplog; leave out --oplogReplay"));
    }

    // 2. Select what is restored, and under which names.
    let options = options(&args, database, dumped, config)?;

    // 3. Import it. `--drop` is consent enough to replace collections, and scripts cannot be asked.
    let how = How { target, options, dry_run: args.dry_run, yes: true, faces };
    let mut outcome = import::bring(&found, how, config, cx).await?;
    if args.stops_on_error() && outcome.failure.is_none() {
        outcome.failure = promise::not_added(&outcome);
    }
    Ok(if args.deployment.is_quiet() { Outcome { text: String::new(), ..outcome } } else { outcome })
}

/// Which part of this dump is restored, and how.
fn options(args: &Args, database: Option<&str>, dumped: &DumpSource, config: &Config) -> Result<ImportOptions> {
    let mut options = ImportOptions {
        mode: if args.drop { ImportMode::Replace } else { ImportMode::Add },
        indexes: if args.no_index_restore { IndexMode::Skip } else { IndexMode::Now },
        allow_duplicates: !args.stops_on_error(),
        filter: NamespaceFilter::parse(&[], &args.ns_include, &args.ns_exclude)?,
        renames: renames(&args.ns_from, &args.ns_to)?,
        alterations: Alterations {
            without_options: args.no_options_restore,
            in_order: args.maintain_insertion_order,
            no_dotted_hashes: args.fix_dotted_hash_index,
        },
        in_place: true,
        tuning: config.tuning,
        ..ImportOptions::default()
    };
    let databases: std::collections::BTreeSet<&str> = dumped.collections().iter().map(|c| c.database.as_str()).collect();
    for database in databases {
        let left_out = tools::patterns_of(database, &args.exclude_collection, &args.exclude_collections_with_prefix)?;
        options.filter.exclude.extend(left_out);
    }
    options.users = accounts(args, database, &options, dumped.dump())?;
    // Scripts exclude namespaces that may not exist, so an exclude that matches nothing is no
    // error.
    options.filter.exclude.retain(|pattern| dumped.collections().iter().any(|c| pattern.matches(&c.namespace())));
    // Neither is an include of users and roles, next to others that match.
    let is_of_accounts = |pattern: &NamespacePattern| {
        ["system.users", "system.roles"].iter().any(|name| pattern.matches(&Namespace::new(users::DATABASE, *name)))
    };
    let matches = |pattern: &NamespacePattern| dumped.collections().iter().any(|c| pattern.matches(&c.namespace()));
    if options.filter.include.iter().any(matches) {
        options.filter.include.retain(|pattern| matches(pattern) || !is_of_accounts(pattern));
    }
    if let Some(database) = database {
        choose(&mut options, dumped, database, args.collection())?;
    }
    Ok(options)
}

/// The users and roles that are restored: of a whole dump those that pass the patterns, of one
/// database only on request.
fn accounts(args: &Args, database: Option<&str>, options: &ImportOptions, dump: &Dump) -> Result<Option<WantedAccounts>> {
    if args.restore_db_users_and_roles {
        if !dump.has_users() {
            return Err(Error::usage(format!("--restoreDbUsersAndRoles: {} has no users or roles", dump.location()))
                .hint("it was made without --dumpDbUsersAndRoles; leave out --restoreDbUsersAndRoles"));
        }
        return Ok(Some(WantedAccounts { database: database.map(str::to_owned), ..WantedAccounts::all() }));
    }
    let passes = |collection: &str| options.filter.takes(&Namespace::new(users::DATABASE, collection));
    let wanted = WantedAccounts { users: passes("system.users"), roles: passes("system.roles"), database: None };
    Ok(Some(wanted).filter(|wanted| database.is_none() && dump.has_users() && (wanted.users || wanted.roles)))
}

/// `--db` and `--collection`: they select from an archive or a whole dump. The directory of one
/// database and the file of one collection already have the name of `--db`.
fn choose(options: &mut ImportOptions, dumped: &DumpSource, database: &str, collection: Option<&str>) -> Result<()> {
    let dump = dumped.dump();
    match (collection, dumped.collections()) {
        (Some(name), [only]) if dump.is_of_one_database() && !Path::new(&dump.location()).is_dir() => {
            options.renames.push(NamespaceRename::exactly(&only.namespace(), &Namespace::new(database, name))?);
        }
        (Some(name), _) => options.filter.include.push(NamespacePattern::exactly(&Namespace::new(database, name))?),
        (None, _) if dump.is_of_one_database() => {}
        (None, _) => options.filter.include.push(NamespacePattern::of_database(database)?),
    }
    Ok(())
}

/// The rules of `--nsFrom` and `--nsTo`. In them, each `$name$` is a variable for what it matches.
fn renames(from: &[String], to: &[String]) -> Result<Vec<NamespaceRename>> {
    if from.len() != to.len() {
        return Err(Error::usage(format!("{} --nsFrom and {} --nsTo: each needs the other", from.len(), to.len())));
    }
    from.iter()
        .zip(to)
        .map(|(from, to)| {
            let ((from_pattern, from_names), (to_pattern, to_names)) = (stars(from), stars(to));
            if from_names != to_names {
                return Err(Error::usage(format!(
                    "--nsFrom {from:?} and --nsTo {to:?} do not name the same variables in the same order, which is not supported"
                ))
                .hint("rename in several restores, or use `bsonvault import --rename`"));
            }
            NamespaceRename::between(&from_pattern, &to_pattern)
        })
        .collect()
}

/// The pattern with each `$name$` replaced by `*`, and those names.
fn stars(pattern: &str) -> (String, Vec<String>) {
    let (mut stars, mut names, mut rest) = (String::new(), Vec::new(), pattern);
    while let Some((before, after)) = rest.split_once('$') {
        let Some((name, after)) = after.split_once('$') else { break };
        stars.push_str(before);
        stars.push('*');
        names.push(name.to_owned());
        rest = after;
    }
    stars.push_str(rest);
    (stars, names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(from: &str, to: &str, namespace: &str) -> Option<String> {
        let rules = renames(&[from.to_owned()], &[to.to_owned()]).unwrap();
        let (database, collection) = namespace.split_once('.').unwrap();
        rules[0].apply(&Namespace::new(database, collection)).unwrap().map(|new| new.to_string())
    }

    #[test]
    fn variables_carry_over_what_they_stand_for() {
        assert_eq!(renamed("prod.*", "test.*", "prod.orders").as_deref(), Some("test.orders"));
        assert_eq!(renamed("$db$.user$n$", "$db$_old.u$n$", "shop.user7").as_deref(), Some("shop_old.u7"));
        assert_eq!(renamed("a.b=c", "a.d=e", "a.b=c").as_deref(), Some("a.d=e"));
        assert_eq!(renamed("prod.*", "test.*", "other.orders"), None);
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let error = renames(&["$a$.$b$".to_owned()], &["$b$.$a$".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("in the same order"), "{error}");
        assert!(renames(&["a.b".to_owned()], &[]).unwrap_err().to_string().contains("1 --nsFrom and 0 --nsTo"));
    }
}
