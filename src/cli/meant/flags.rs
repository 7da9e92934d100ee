//! Flags of mongodump, mongorestore, pbm, mongosh and restic on verbs that do not have them, and
//! what to use instead.

use super::verbs::is_among;

/// The typed flags, the verbs (all if empty), both as words, and what is meant. The first match
/// counts.
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

/// Verbs that work on the backups of a path and connect to no deployment.
const OF_A_PATH: &str = "list show export adopt clean token";
/// Verbs whose flags are this program's own.
const OWN: &str = "backup import export adopt list show verify clean check tune serve token";

const FLAGS: &[Meant] = &[
    // The same for every verb.
    ("-v --verbose -vv -vvv --debug --trace --log-level --loglevel", "", "RUST_LOG=bsonvault=debug in the environment logs more"),
    ("--version -V", "", "`bsonvault --version` shows the version"),
    (
        "--config --conf -f --env-file --options-file",
        "backup import list show verify compare check tune serve token adopt",
        "settings come from flags, the environment, .env and rocket.toml in the working directory",
    ),
    (
        "--latest --last --newest",
        "show verify import export",
        "give the name `latest`, without a flag: it stands for the newest complete backup",
    ),
    ("--wait -w", OWN, "leave it out: a verb ends when its work is done"),
    (
        "--tag --label --description --comment",
        OWN,
        "backups have no tags; `bsonvault list` shows their time, source and selection",
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
        "--drop replaces existing collections; without it, documents are added; `bsonvault import --mode` has more modes",
    ),
    ("--indexes", "restore", "--noIndexRestore builds no indexes"),
    (
        "--with-users --dumpdbusersandroles",
        "restore",
        "the users and roles of a whole dump are always added; with --db, --restoreDbUsersAndRoles adds them",
    ),
    ("--yes -y", "dump restore", "leave it out: nothing is asked"),
    (
        "--readpreference --read-preference",
        "restore",
        "it is for reading: `bsonvault dump --readPreference`; a restore writes to the primary",
    ),
    (
        "--query -q --queryfile",
        "restore",
        "a restore takes whole collections; `bsonvault dump --query` dumps only documents that match",
    ),
    ("--out -o", "restore", "a restore reads: name the dump's directory without a flag"),
    ("--oplog", "restore", "the flag of a restore is --oplogReplay; a dump's oplog is always replayed"),
    (
        "--drop --oplogreplay --oploglimit --restoredbusersandroles --noindexrestore",
        "dump",
        "it is for restoring: use it with `bsonvault restore`, for example `bsonvault restore --drop`",
    ),
    ("--nsfrom --nsto", "dump", "a dump keeps names; `bsonvault restore --nsFrom` and --nsTo rename"),
    ("--level --codec", "dump", "--gzip compresses a dump; `bsonvault backup --level` makes a backup"),
    ("--dir", "dump", "--out DIR names the directory"),
    // The deployment.
    (DEPLOYMENT, "backup tune", "--source URI or MONGO_URI_ATLAS names the deployment: mongodb://HOST:PORT/"),
    (DEPLOYMENT, "import verify", "--target URI or MONGO_URI_LOCAL names the deployment: mongodb://HOST:PORT/"),
    (DEPLOYMENT, "check serve", "--source URI names the deployment to back up, --target URI the one to import into"),
    (DEPLOYMENT, "compare", "--source URI and --target URI name the two deployments: mongodb://HOST:PORT/"),
    (DEPLOYMENT, OF_A_PATH, "this verb connects to no deployment: it works on the backups in --path DIR"),
    (LOGIN, OF_A_PATH, "this verb connects to no deployment: it works on the backups in --path DIR"),
    (LOGIN, OWN, "the login is part of the connection string: mongodb://USER:PASSWORD@HOST/?authSource=admin"),
    (TLS, OF_A_PATH, "this verb connects to no deployment: it works on the backups in --path DIR"),
    (TLS, OWN, "TLS is part of the connection string: tls=true, tlsCAFile=FILE, tlsCertificateKeyFile=FILE"),
    (
        "--readpreference",
        "import export adopt list show verify clean check tune serve token",
        "`bsonvault backup --read-preference` and BACKUP_READ_PREFERENCE choose the member to read; imports write to the primary",
    ),
    (
        "--read-preference",
        "import export adopt list show verify clean check tune serve token",
        "`bsonvault backup --read-preference` and BACKUP_READ_PREFERENCE choose the member to read; imports write to the primary",
    ),
    // The selection.
    (OF_A_DATABASE, "backup tune compare", "--database NAME selects a database"),
    (OF_A_DATABASE, "import", "--database NAME imports only that database, and --as NAME gives it another name"),
    (OF_A_DATABASE, "export adopt", "--include 'DB.*' selects a database"),
    ("--collection -c --collections", "backup import export adopt tune compare", "--include DB.COLLECTION selects a collection"),
    (
        "--query -q --queryfile --filter",
        OWN,
        "a backup holds whole collections; `bsonvault dump --query` dumps only documents that match",
    ),
    (
        ONLY,
        "backup import export adopt tune compare",
        "--include NS selects namespaces: DB.COLLECTION, in which * matches any characters",
    ),
    (
        WITHOUT,
        "backup import export adopt tune compare",
        "--exclude NS skips namespaces: DB.COLLECTION, in which * matches any characters",
    ),
    (RENAMES, "import", "--rename FROM=TO imports a namespace under another name, --as NAME a database"),
    (RENAMES, "compare", "--rename FROM=TO compares a namespace with one of another name"),
    (RENAMES, "backup export adopt", "only an import can rename: `bsonvault import --rename FROM=TO`"),
    ("--rename --as", "export adopt backup verify", "only an import can rename: `bsonvault import --rename FROM=TO`"),
    ("--dumpdbusersandroles", "import", "--with-users adds the users and roles of a dump to the target"),
    (
        "--dumpdbusersandroles --with-users --with-users-and-roles --restoredbusersandroles",
        "backup export adopt",
        "a backup holds no users and roles: create them in the target with createUser, or use mongodump for them",
    ),
    (
        "--restoredbusersandroles --with-users-and-roles",
        "import",
        "--with-users adds the users and roles of a dump to the target",
    ),
    // The work itself.
    (
        "--drop --overwrite --replace",
        "import",
        "leave it out: by default, --mode replace replaces whole collections; --drop-extra drops those that are not in the backup",
    ),
    ("--force -f", "import", "--yes overwrites documents without asking"),
    (
        "--force --yes -y",
        "backup clean adopt verify export",
        "leave it out: nothing is asked; if the verb has --dry-run, it shows what would be done",
    ),
    ("--gzip -z", "import adopt", "leave it out: compression is recognized by content"),
    (
        "--gzip -z --compress --compression --compression-level",
        "backup",
        "a backup is always compressed: --level N sets how much; `bsonvault dump --gzip` writes what mongorestore reads",
    ),
    ("--archive", "import adopt verify show", "give the archive's file without a flag, or - for standard input"),
    ("--archive", "export", "--format archive --out FILE writes an archive, --out - writes it to standard output"),
    ("--archive", "backup", "`bsonvault dump --archive=FILE` writes an archive; a backup goes to --path DIR"),
    ("--dir --input", "import adopt", "give the dump's directory without a flag"),
    ("--output -o --dest --destination --directory", "export", "--out PATH names the directory or file to write"),
    (PLACE, OWN, "backups are in --path DIR or BACKUP_PATH; `bsonvault dump --out DIR` writes a dump"),
    (
        "--oplog",
        "backup export",
        "leave it out: a backup of a replica set always has one consistency point, and an oplog slice if it needs one",
    ),
    (
        "--oplog --oplogreplay",
        "import adopt",
        "leave it out: the oplog of a dump is always replayed; in an import, --oplog-limit ends the replay earlier",
    ),
    ("--noindexrestore", "import", "--indexes skip builds no indexes"),
    (PARALLEL, "backup tune", "`bsonvault backup --readers N` sets how many cursors read at the same time"),
    (PARALLEL, "import verify", "--writers N sets how many writers insert at the same time"),
    (
        OF_RESTORE,
        "import",
        "`bsonvault restore` has mongorestore's flags; an import verifies what it wrote, and waits for a majority",
    ),
    (OF_DUMP, "backup", "`bsonvault dump` has mongodump's flags"),
];

/// The rest, which would make that table too long.
const OTHERS: &[Meant] = &[
    (
        "--keep-last -l --keep-within --retention --older-than",
        "clean",
        "--keep N keeps the newest N of each source and selection; --keep-daily and others keep by calendar",
    ),
    (
        "--keep --keep-last --retention --keep-daily --keep-weekly --keep-monthly",
        "backup serve",
        "BACKUP_KEEP_LAST, BACKUP_KEEP_DAILY and others set which backups stay; `bsonvault clean --keep N` deletes the others",
    ),
    ("--all", "clean", "--keep N keeps the newest N; to delete all, remove the directories"),
    (
        "--time --pitr --base-snapshot --base",
        OWN,
        "choose a backup by its name: each has one consistency point, and `bsonvault list` shows when it was taken",
    ),
    ("--type --incremental --full", "backup", "leave it out: each backup is a full one"),
    (
        "--rate-limit --limit-upload --limit-download --throttle --max-rate --bandwidth",
        "backup",
        "--max-mbit N limits the rate of reading, and --adaptive-throttle reads more slowly while the source is busy",
    ),
    (
        "--cron --interval --schedule",
        "serve backup",
        "BACKUP_CRON or BACKUP_INTERVAL_HOURS sets when `bsonvault serve` takes backups",
    ),
    ("--apply --write", "tune", "leave it out: tune writes nothing; paste the two lines that it prints into .env"),
    ("--token --admin-token", "serve", "ADMIN_TOKEN_SHA256 holds the hash of a token; `bsonvault token` makes both"),
    ("--bind --listen --bind-ip --bindip", "serve", "--address IP and --port PORT set where to listen"),
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

/// What is meant by this flag before any verb. `None` if it only comes too early.
pub(super) fn before_a_verb(asked: &str) -> Option<&'static str> {
    all().find(|(typed, verbs, _)| verbs.is_empty() && is_among(typed, asked)).map(|(_, _, meant)| *meant)
}

/// All hints.
#[cfg(test)]
pub(super) fn hints() -> impl Iterator<Item = &'static str> {
    all().map(|(_, _, meant)| *meant)
}

/// All verbs that the tables name, with the flags.
#[cfg(test)]
pub(super) fn verbs() -> impl Iterator<Item = (&'static str, &'static str)> {
    all().flat_map(|(typed, verbs, _)| verbs.split_whitespace().map(|verb| (verb, *typed)))
}
