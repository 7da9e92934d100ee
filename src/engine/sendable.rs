//! Compiles only if the future of every operation is `Send`, as the task of a job requires. What
//! breaks it is mostly a stream of closures, or an `async` block that borrows, held over an await.
//! The compiler cannot prove that its lifetimes hold for all, unless it is `boxed`.

use super::{
    adopt, backup, check, clean, cleanup, compare, download, export, import, sync, test_restore, tune, undo, verify,
    verify_archive,
};
use crate::clock;
use crate::context::Context;
use crate::interop::Dump;
use crate::mongo::MongoUri;
use crate::names::BackupName;
use crate::repository::Repository;
use crate::repository::catalog::{Backup, Catalog};
use crate::repository::chain::ChainPlace;

fn is_send<F: Send>(_: F) {}

#[test]
fn futures_of_operations_are_send() {
    // This is only compiled, never run.
    let _backups = |uri: &MongoUri, to: &Repository, options: &backup::BackupOptions, cx: &Context| {
        is_send(backup::plan(uri, options, cx));
        is_send(backup::plan_resume(uri, to, None, options, cx));
        is_send(backup::run(uri, to, options, cx));
        is_send(backup::resume(uri, to, None, options, cx));
    };
    let _checks = |backup: &Backup, options: &verify::VerifyOptions, setup: check::Setup, cx: &Context| {
        is_send(verify::run(backup, options, cx));
        is_send(verify::prove(backup, options, cx));
        is_send(check::run(setup, cx));
    };
    let _archives = |place: &ChainPlace, options: &verify::VerifyOptions, cx: &Context| {
        is_send(verify_archive::run(place, options, cx));
    };
    let _syncs = |uri: &MongoUri, to: &Repository, options: &sync::SyncOptions, status: &sync::StatusSender, cx: &Context| {
        is_send(sync::run(uri, uri, to, options, status, cx));
        is_send(sync::finalize(uri, cx));
    };
    let _imports = |backup: &Backup, plan: import::Plan<'_>, uri: &MongoUri, options: &import::ImportOptions, cx: &Context| {
        is_send(import::plan(backup, uri, Some(uri), options, cx));
        is_send(import::run(backup, uri, Some(uri), options, cx));
        is_send(import::execute(plan, options, cx));
    };
    let _test_restores = |backup: &Backup, uri: &MongoUri, options: &test_restore::TestRestoreOptions, cx: &Context| {
        is_send(test_restore::run(backup, uri, Some(uri), options, cx));
    };
    let _files = |backup: &Backup, options: &export::ExportOptions, to: &export::Destination, cx: &Context| {
        is_send(export::run(backup, options, to, cx));
        is_send(async { download::Download::open(backup.clone(), backup.read_lock("download").await?).await });
    };
    let _dumps = |dump: &Dump, to: &Repository, options: &adopt::AdoptOptions, cx: &Context| {
        is_send(adopt::run(dump, to, options, cx));
    };
    let _compared = |uri: &MongoUri, options: &compare::CompareOptions, cx: &Context| {
        is_send(compare::run(uri, uri, options, cx));
    };
    let _targets = |uri: &MongoUri, undone: undo::UndoOptions, cleaned: cleanup::CleanupOptions, cx: &Context| {
        is_send(undo::undo_last(uri, undone, async |_| Ok(()), cx));
        is_send(undo::drop_replaced(uri, undone, cx));
        is_send(cleanup::run(uri, cleaned, cx));
    };
    let _measured = |uri: &MongoUri, to: &Repository, options: &tune::TuneOptions, cx: &Context| {
        is_send(tune::run(uri, to, options, cx));
    };
    let _removed = |catalog: &Catalog, plan: clean::CleanPlan, options: &clean::CleanOptions, cx: &Context| {
        is_send(clean::plan(catalog, options, clock::now()));
        is_send(clean::execute(catalog, plan, &cx.cancel));
    };
    let _retained = |catalog: &Catalog, made: &BackupName, keeping: clean::Keeping, cx: &Context| {
        is_send(clean::after_backup(catalog, made, keeping, chrono_tz::UTC, None, cx));
    };
}
