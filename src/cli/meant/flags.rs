//! Flags of mongodump, mongorestore, pbm, mongosh and restic on verbs that do not have them, and what does the same here.

use super::verbs::is_among;

/// The flags that are typed, the verbs it is about (all if empty), both as words, and what is meant. The first that fits counts.
type Meant = (&'static str, &'static str, &'static str);

const DEPLOYMENT: &str = "--uri --host --port --mongodb-uri --mongodburi --url --connection --connection-string";
const LOGIN: &str = "--username -u --user --password -p --authenticationdatabase --authenticationmechanism --authsource";
const TLS: &str = "--ssl --tls --sslcafile --tlscafile --sslpemkeyfile --tlscertificatekeyfile --tlsinsecure --sslallowinvalidcertificates \
     --tlsallowinvalidcertificates --sslallowinvalidhostnames --tlsallowinvalidhostnames";
const OF_A_DATABASE: &str = "--db -d --database --databases --dbs";
const PLACE: &str = "--repo -r --backup-dir --backup-path --directory --dest --destination --output --out -o --dir";
const ONLY: &str = "--nsinclude --ns --only --include-ns --namespace";
const WITHOUT: &str = "--nsexclude --excludecollection --excludecollectionswithprefix --skip --ignore";
const RENAMES: &str = "--nsfrom --nsto --ns-from --ns-to";
const PARALLEL: &str =
    "--numparallelcollections -j --numinsertionworkerspercollection --jobs --threads --num-parallel-collections --parallel";
const OF_RESTORE: &str = "--stoponerror --maintaininsertionorder --nooptionsrestore --fixdottedhashindex --convertlegacyindexes \
     --keepindexversion --bypassdocumentvalidation --objcheck --writeconcern --batchsize --preserveuuid";
const OF_DUMP: &str = "--viewsascollections --forcetablescan --repair";

/// Verbs that work on the backups of a path and talk to no deployment.
const OF_A_PATH: &str = "list show export adopt clean token";
/// Verbs with names of their own for everything.
const OWN: &str = "backup import export adopt list show verify clean check tune serve token";

const FLAGS: &[Meant] = &[
    // What is the same everywhere.
    (
        "-v --verbose -vv -vvv --debug --trace --log-level --loglevel",
        "",
        "RUST_LOG=bsonvault=debug in the environment shows more of what it does",
    ),
    ("--version -V", "", "`bsonvault --version` says it"),
    (
        "--config --conf -f --env-file --options-file",
        "backup import list show verify check tune serve token adopt",
        "settings come from flags, the environment, .env and rocket.toml in the working directory",
    ),
    (
        "--latest --last --newest",
        "show verify import export",
        "latest is a backup's name: it stands for the newest complete one, without a flag",
    ),
    ("--wait -w", OWN, "leave it out: a verb ends when its work is done"),
    (
        "--tag --label --description --comment",
        OWN,
        "backups have no tags; `bsonvault list` tells them by time, source and selection",
    ),
    // dump and restore have the flags of MongoDB's tools.
    ("--source --target", "dump restore", "here it is --uri, as with MongoDB's tools"),
    ("--include", "dump restore", "here it is --nsInclude, as with MongoDB's tools"),
    ("--exclude", "dump restore", "here it is --nsExclude, as with MongoDB's tools"),
    ("--database", "dump restore", "here it is --db, as with MongoDB's tools"),
    ("--rename --as", "restore", "here it is --nsFrom and --nsTo, as with mongorestore"),
    ("--readers", "dump", "here it is -j N, as with mongodump"),
    ("--writers", "restore", "here it is -j N and --numInsertionWorkersPerCollection N, as with mongorestore"),
    (
        "--mode --replace --overwrite",
        "restore",
        "--drop replaces what is there; without it, documents are added; `bsonvault import --mode` has more",
    ),
    ("--indexes", "restore", "--noIndexRestore builds no indexes"),
    (
        "--with-users --dumpdbusersandroles",
        "restore",
        "those of a whole dump are added in any case; with --db, --restoreDbUsersAndRoles adds them",
    ),
    ("--yes -y", "dump restore", "leave it out: nothing is asked"),
    (
        "--readpreference --read-preference",
        "restore",
        "it is for reading: `bsonvault dump --readPreference`; what is restored goes to the primary",
    ),
    (
        "--query -q --queryfile",
        "restore",
        "a restore takes whole collections: `bsonvault dump --query` dumps the documents that match",
    ),
    ("--out -o", "restore", "a restore reads: name the dump's directory without a flag"),
    ("--oplog", "restore", "--oplogReplay is for restoring; a dump's oplog is replayed in any case"),
    (
        "--drop --oplogreplay --oploglimit --restoredbusersandroles --noindexrestore",
        "dump",
        "it is for restoring: `bsonvault restore --drop`, and the like",
    ),
    ("--nsfrom --nsto", "dump", "a dump keeps the names: `bsonvault restore --nsFrom` and --nsTo rename"),
    ("--level --codec", "dump", "--gzip compresses a dump; `bsonvault backup --level` makes a backup"),
    ("--dir", "dump", "the directory is given with --out DIR"),
    // The deployment.
    (DEPLOYMENT, "backup tune", "--source URI, or MONGO_URI_ATLAS, names the deployment: mongodb://HOST:PORT/"),
    (DEPLOYMENT, "import verify", "--target URI, or MONGO_URI_LOCAL, names the deployment: mongodb://HOST:PORT/"),
    (
        DEPLOYMENT,
        "check serve",
        "--source URI names the deployment that is backed up, --target URI the one that is imported into",
    ),
    (DEPLOYMENT, OF_A_PATH, "this verb talks to no deployment: it works on the backups in --path DIR"),
    (LOGIN, OF_A_PATH, "this verb talks to no deployment: it works on the backups in --path DIR"),
    (LOGIN, OWN, "the login is part of the connection string: mongodb://USER:PASSWORD@HOST/?authSource=admin"),
    (TLS, OF_A_PATH, "this verb talks to no deployment: it works on the backups in --path DIR"),
    (TLS, OWN, "TLS is part of the connection string: tls=true, tlsCAFile=FILE, tlsCertificateKeyFile=FILE"),
    (
        "--readpreference",
        "import export adopt list show verify clean check tune serve token",
        "`bsonvault backup --read-preference` and BACKUP_READ_PREFERENCE choose the member that is read; imports go to the primary",
    ),
    (
        "--read-preference",
        "import export adopt list show verify clean check tune serve token",
        "`bsonvault backup --read-preference` and BACKUP_READ_PREFERENCE choose the member that is read; imports go to the primary",
    ),
    // What.
    (OF_A_DATABASE, "backup tune", "--database NAME chooses a database"),
    (OF_A_DATABASE, "import", "--database NAME imports that database only, and --as NAME gives it another name"),
    (OF_A_DATABASE, "export adopt", "--include 'DB.*' chooses a database"),
    ("--collection -c --collections", "backup import export adopt tune", "--include DB.COLLECTION chooses a collection"),
    (
        "--query -q --queryfile --filter",
        OWN,
        "a backup holds whole collections: `bsonvault dump --query` dumps the documents of one that match",
    ),
    (
        ONLY,
        "backup import export adopt tune",
        "--include NS chooses namespaces: DB.COLLECTION, where * stands for any characters",
    ),
    (
        WITHOUT,
        "backup import export adopt tune",
        "--exclude NS leaves out namespaces: DB.COLLECTION, where * stands for any characters",
    ),
    (RENAMES, "import", "--rename FROM=TO imports a namespace under another name, and --as NAME a database"),
    (RENAMES, "backup export adopt", "names change in an import: `bsonvault import --rename FROM=TO`"),
    ("--rename --as", "export adopt backup verify", "names change in an import: `bsonvault import --rename FROM=TO`"),
    ("--dumpdbusersandroles", "import", "--with-users adds the users and roles of a dump to those of the target"),
    (
        "--dumpdbusersandroles --with-users --with-users-and-roles --restoredbusersandroles",
        "backup export adopt",
        "users and roles are no part of a backup: create them in the target with createUser, or use mongodump for them",
    ),
    (
        "--restoredbusersandroles --with-users-and-roles",
        "import",
        "--with-users adds the users and roles of a dump to those of the target",
    ),
    // How.
    (
        "--drop --overwrite --replace",
        "import",
        "leave it out: --mode replace, the default, replaces each collection whole; --drop-extra drops those that are not in the backup",
    ),
    ("--force -f", "import", "--yes overwrites what holds documents without asking"),
    (
        "--force --yes -y",
        "backup clean adopt verify export",
        "leave it out: nothing is asked; --dry-run shows beforehand what would be done, if the verb has it",
    ),
    ("--gzip -z", "import adopt", "leave it out: whether something is compressed shows in what it holds"),
    (
        "--gzip -z --compress --compression --compression-level",
        "backup",
        "a backup is compressed in any case: --level N says how much; `bsonvault dump --gzip` writes what mongorestore reads",
    ),
    ("--archive", "import adopt verify show", "give the archive's file without a flag, and - for standard input"),
    ("--archive", "export", "--format archive --out FILE writes an archive, and --out - writes to standard output"),
    ("--archive", "backup", "`bsonvault dump --archive=FILE` writes an archive; a backup goes to --path DIR"),
    ("--dir --input", "import adopt", "give the dump's directory without a flag"),
    ("--output -o --dest --destination --directory", "export", "--out PATH says where to write"),
    (PLACE, OWN, "backups are in --path DIR, or BACKUP_PATH; `bsonvault dump --out DIR` writes a dump"),
    (
        "--oplog",
        "backup export",
        "leave it out: a backup of a replica set is of one moment in any case, with its oplog where it needs it",
    ),
    (
        "--oplog --oplogreplay",
        "import adopt",
        "leave it out: the oplog of a dump is replayed in any case; --oplog-limit ends it earlier in an import",
    ),
    ("--noindexrestore", "import", "--indexes skip builds no indexes"),
    (PARALLEL, "backup tune", "`bsonvault backup --readers N` says how many cursors read at a time"),
    (PARALLEL, "import verify", "--writers N says how many writers insert at a time"),
    (
        OF_RESTORE,
        "import",
        "`bsonvault restore` has mongorestore's flags; an import proves what it wrote, and waits for a majority",
    ),
    (OF_DUMP, "backup", "`bsonvault dump` has mongodump's flags"),
];

/// More, which would make that table too long.
const OTHERS: &[Meant] = &[
    (
        "--keep-last -l --keep-within --retention --older-than",
        "clean",
        "--keep N keeps the newest N of each source and selection; --keep-daily and others keep by the calendar",
    ),
    (
        "--keep --keep-last --retention --keep-daily --keep-weekly --keep-monthly",
        "backup serve",
        "BACKUP_KEEP_LAST, BACKUP_KEEP_DAILY and others say which backups stay; `bsonvault clean --keep N` deletes others",
    ),
    ("--all", "clean", "--keep N keeps the newest N; to delete all, remove the directories"),
    (
        "--time --pitr --base-snapshot --base",
        OWN,
        "a backup shows one moment, which `bsonvault list` tells: choose a backup by its name",
    ),
    ("--type --incremental --full", "backup", "leave it out: each backup is whole"),
    (
        "--rate-limit --limit-upload --limit-download --throttle --max-rate --bandwidth",
        "backup",
        "--max-mbit N limits what is read from the source, and --adaptive-throttle reads more slowly while it is busy",
    ),
    (
        "--cron --interval --schedule",
        "serve backup",
        "BACKUP_CRON or BACKUP_INTERVAL_HOURS say when `bsonvault serve` takes backups",
    ),
    ("--apply --write", "tune", "leave it out: tune writes nothing; paste the two lines that it prints into .env"),
    ("--token --admin-token", "serve", "ADMIN_TOKEN_SHA256 holds the hash of a token, which `bsonvault token` makes"),
    ("--bind --listen --bind-ip --bindip", "serve", "--address IP and --port PORT say where to listen"),
];

fn all() -> impl Iterator<Item = &'static Meant> {
    FLAGS.iter().chain(OTHERS)
}

/// What is meant by this flag of this verb, if other tools have it.
pub(super) fn meant(asked: &str, verb: &str) -> Option<&'static str> {
    let name = asked.split('=').next().unwrap_or_default();
    // Short flags differ by case.
    let name = if name.starts_with("--") { name.to_ascii_lowercase() } else { name.to_owned() };
    let of_verb = |verbs: &str| verbs.is_empty() || is_among(verbs, verb);
    all().find(|(typed, verbs, _)| is_among(typed, &name) && of_verb(verbs)).map(|(_, _, meant)| *meant)
}

/// What is meant by this flag before any verb, where that is something else than that it comes too early.
pub(super) fn before_a_verb(asked: &str) -> Option<&'static str> {
    all().find(|(typed, verbs, _)| verbs.is_empty() && is_among(typed, asked)).map(|(_, _, meant)| *meant)
}

/// All that is said.
#[cfg(test)]
pub(super) fn hints() -> impl Iterator<Item = &'static str> {
    all().map(|(_, _, meant)| *meant)
}

/// All verbs that are named, with flags.
#[cfg(test)]
pub(super) fn verbs() -> impl Iterator<Item = (&'static str, &'static str)> {
    all().flat_map(|(typed, verbs, _)| verbs.split_whitespace().map(|verb| (verb, *typed)))
}
