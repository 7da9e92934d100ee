//! Verbs of mongodump, pbm, restic, the shell and others, and what to use instead.

/// The typed words, and what is meant.
type Meant = (&'static str, &'static str);

const VERBS: &[Meant] = &[
    ("backups ls dir snapshots list-backups archives history catalog ll repos", "`bsonvault list` lists the backups"),
    (
        "status state ps overview",
        "`bsonvault list` lists the backups, and `bsonvault check` checks settings and connections; a service answers GET \
         /api/backups/status",
    ),
    (
        "delete rm remove del forget prune purge expire retention delete-backup delete-backups cleanup rotate",
        "`bsonvault clean --keep N` deletes old backups, and --dry-run shows which; to delete one, remove its directory. \
         `bsonvault import --cleanup` removes leftovers of imports in a target",
    ),
    (
        "describe describe-backup info inspect cat stat stats files find contents view",
        "`bsonvault show NAME` shows what a backup holds; NAME may be latest",
    ),
    (
        "restore-backup import-backup recover load rollback apply pull put-back",
        "`bsonvault import NAME` restores a backup into the target; `bsonvault restore` restores dumps, with mongorestore's flags",
    ),
    ("create snapshot take save full backup-now manual-backup create-backup start-backup", "`bsonvault backup` takes a backup"),
    ("diff cmp dbhash mongo-diff migration-verifier same equal", "`bsonvault compare` compares two deployments"),
    ("mongodump", "`bsonvault dump` takes mongodump's flags, and `bsonvault backup` makes a backup"),
    ("mongorestore", "`bsonvault restore` takes mongorestore's flags, and `bsonvault import NAME` imports a backup"),
    ("mongoimport mongoexport", "JSON and CSV are not supported; `bsonvault export` writes what mongorestore reads"),
    (
        "init config configure setup settings set env",
        "there is nothing to set up: settings come from flags, the environment, .env and rocket.toml, and `bsonvault check` \
         checks them",
    ),
    (
        "test test-connection test-connections ping doctor health diagnose diagnostic connect preflight",
        "`bsonvault check` checks settings, connections, rights and space",
    ),
    ("validate fsck check-backup test-backup", "`bsonvault verify NAME` checks that a backup is intact"),
    (
        "drill test-restore verify-restore rehearse",
        "`bsonvault verify NAME --restore` imports a backup into scratch databases and compares",
    ),
    (
        "download fetch get mount unpack extract untar",
        "`bsonvault export NAME --out DIR --format dir` writes a dump; a service sends a backup as the answer to GET \
         /api/backups/NAME/download, and `bsonvault import FILE.tar` imports that file",
    ),
    ("upload copy cp push mv rename", "a backup is a directory: copy it with cp or rsync, and verify the copy by its path"),
    (
        "schedule cron daemon server service agent api start run web pbm-agent listen",
        "`bsonvault serve` takes backups on the schedule of BACKUP_CRON or BACKUP_INTERVAL_HOURS; `bsonvault backup` takes one now",
    ),
    ("jobs cancel logs log wait events stop", "only a service has jobs: GET /api/jobs; Ctrl-C ends a verb"),
    (
        "follow mirror replicate replication mongosync live pcsm clustersync",
        "`bsonvault sync` lets the target follow the source until it is stopped",
    ),
    ("undo revert unimport", "`bsonvault import --undo-last` undoes an import with --keep-replaced"),
    (
        "unlock repair gc rebuild-index",
        "`bsonvault clean` removes leftovers of crashed backups, and `bsonvault import --cleanup` those of crashed imports",
    ),
    ("bench benchmark measure optimize autotune", "`bsonvault tune` measures, and recommends settings"),
    ("login key keys passwd tokens auth", "`bsonvault token` makes a token for the service"),
    ("version ver", "`bsonvault --version` shows the version"),
];

/// What is meant by this verb, if other tools have it.
pub(super) fn meant(asked: &str) -> Option<&'static str> {
    let asked = asked.to_ascii_lowercase().replace('_', "-");
    VERBS.iter().find(|(typed, _)| is_among(typed, &asked)).map(|(_, meant)| *meant)
}

/// Whether this is one of these words.
pub(super) fn is_among(words: &str, word: &str) -> bool {
    words.split(' ').any(|one| one == word)
}

/// All hints.
#[cfg(test)]
pub(super) fn hints() -> impl Iterator<Item = &'static str> {
    VERBS.iter().map(|(_, meant)| *meant)
}
