//! The command line: one file a verb, which parses, calls the engine and renders.

pub mod adopt;
mod afterwards;
pub mod archive;
pub mod backup;
mod catalog;
pub mod check;
pub mod clean;
pub mod compare;
mod confirm;
pub mod dump;
pub mod export;
mod filter;
pub mod import;
pub mod list;
pub mod logs;
mod meant;
mod named;
pub mod oplog_search;
pub mod output;
pub mod progress;
pub mod reference;
pub mod render;
pub mod restore;
pub mod serve;
pub mod shell;
pub mod show;
pub mod sync;
pub mod timeline;
pub mod token;
pub mod tools;
pub mod tune;
pub mod verify;

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Flags, LogFormat};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use output::Outcome;
use tools::Deployment;

const AFTER_HELP: &str = "\
Settings come from flags, the environment, .env and rocket.toml, in this order of precedence:
  MONGO_URI_ATLAS   the source
  MONGO_URI_LOCAL   the target
  BACKUP_PATH       the directory that holds the backups (./backups)
  BACKUP_READERS, BACKUP_WRITERS, BACKUP_LEVEL, BACKUP_CODEC, BACKUP_LONG_DISTANCE,
  BACKUP_FRAME_MB, BACKUP_MEMORY_MB
                    how much of this machine is used; `tune` measures most of them
  BACKUP_MAX_MBIT, BACKUP_POLITE
                    how much of the source is used
  BACKUP_READ_PREFERENCE
                    the member of a replica set to read from
  BACKUP_KEEP_LAST, _DAILY, _WEEKLY, _MONTHLY, _YEARLY
                    the backups that are kept, after each backup and by `clean`
  LOG_FORMAT        human or json; RUST_LOG sets what is logged

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 something does not match,
or differs, 130 interrupted.";

/// What the program says if it is called with nothing.
const SHORT_HELP: &str = "\
bsonvault backs up MongoDB deployments and restores them, without MongoDB's own tools.

Usage: bsonvault <COMMAND> [OPTIONS]

  bsonvault check           Check configuration, connections, rights and free space
  bsonvault backup          Back up the source
  bsonvault list            List the backups
  bsonvault verify latest   Check that the newest backup is intact
  bsonvault import latest   Restore it into the target

The source is MONGO_URI_ATLAS or --source, the target MONGO_URI_LOCAL or --target.
`bsonvault --help` lists all commands, `bsonvault <COMMAND> --help` explains one.
";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "bsonvault", version, about, max_term_width = 100, after_help = AFTER_HELP)]
pub struct CommandLine {
    /// Print exactly one JSON object on standard output, also if the command fails
    #[arg(long, global = true)]
    pub json: bool,
    /// The directory that holds the backups [env: BACKUP_PATH] [default: ./backups]
    #[arg(long, global = true, value_name = "DIR")]
    pub path: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Back up the source
    Backup(backup::Args),
    /// Restore a backup or a dump into the target, atomically per collection
    Import(import::Args),
    /// Back up and export in one step, with mongodump's flags
    #[command(disable_help_flag = true, disable_version_flag = true, version, args_override_self = true)]
    Dump(dump::Args),
    /// Import a dump, with mongorestore's flags
    #[command(disable_help_flag = true, disable_version_flag = true, version, args_override_self = true)]
    Restore(restore::Args),
    /// Write a backup in mongodump's formats
    Export(export::Args),
    /// Turn a dump from mongodump into a backup
    Adopt(adopt::Args),
    /// List the backups and the archived oplogs
    List(list::Args),
    /// Show one backup and its collections
    Show(show::Args),
    /// Check that backups and archived oplogs are intact, or with --restore that one can be
    /// restored
    Verify(verify::Args),
    /// Remove what retention no longer keeps, and leftovers of crashed runs
    Clean(clean::Args),
    /// Archive the source's oplog until it is stopped, so that any second can be restored
    Archive(archive::Args),
    /// Show which times can be restored, from which backup, and what happened in them
    Timeline,
    /// Let the target follow the source until it is stopped, second by second
    Sync(sync::Args),
    /// Find operations in the archived oplog, with their exact times
    OplogSearch(oplog_search::Args),
    /// Prove that two deployments hold the same, or name what differs
    Compare(compare::Args),
    /// Check configuration, connections, rights and free space
    Check(check::Args),
    /// Measure source, machine and path, and recommend settings
    Tune(tune::Args),
    /// Run the service: REST interface and scheduled backups
    Serve(serve::Args),
    /// Make a token for the service
    Token(token::Args),
    /// Print a script that completes this program's command line in a shell
    Completions(shell::CompletionsArgs),
    /// Print a manual page, for `man -l -`
    Man(shell::ManArgs),
}

/// All that the program does: reads the command line and the settings, starts logs and the runtime,
/// runs the verb, and gives the exit code.
///
/// It is here and not in the binary because the code of a future is made by the crate that drives
/// it: in the binary, all of this crate would be compiled once more.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    // How logs are written is a setting: until all of them are read there is nothing to log, and
    // errors are told by themselves.
    let ready = parse(args.into_iter().collect()).and_then(|command_line| match without_settings(&command_line) {
        Some(outcome) => Err(output::finish(outcome, command_line.json)),
        None => prepare(command_line),
    });
    match ready {
        Ok(ready) => drive(ready),
        Err(code) => code,
    }
}

/// What needs no settings, and so works in any directory: a shell runs it when it starts.
fn without_settings(command_line: &CommandLine) -> Option<Result<Outcome>> {
    match &command_line.verb {
        Verb::Completions(args) => Some(shell::completions(args, CommandLine::command())),
        Verb::Man(args) => Some(shell::man(args, CommandLine::command())),
        _ => None,
    }
}

fn drive(ready: Ready) -> ExitCode {
    ready.start_logs();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            let error = Error::new(ErrorKind::Internal, format!("cannot start the runtime: {e}")).cause(e);
            return output::finish(Err(error), ready.json());
        }
    };
    let code = runtime.block_on(run(ready));
    // What may still be under way after an interruption is a blocking call; it is not waited for.
    runtime.shutdown_background();
    code
}

/// Reads the command line. What it cannot be, and help and version, are answered here; the exit
/// code is given then.
///
/// # Errors
/// The exit code, once everything there is to say has been said.
fn parse(args: Vec<OsString>) -> std::result::Result<CommandLine, ExitCode> {
    if args.len() <= 1 {
        output::to_stderr(SHORT_HELP);
        return Err(ExitCode::from(2));
    }
    CommandLine::try_parse_from(&args).map_err(|error| {
        if !error.use_stderr() {
            // Help and version were asked for.
            let text =
                if std::io::stdout().is_terminal() { error.render().ansi().to_string() } else { error.render().to_string() };
            return output::finish(Ok(Outcome::done(text, serde_json::Map::new())), false);
        }
        let json = args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json");
        if let Some(unknown) = meant::unknown(&error, &args, &CommandLine::command()) {
            return output::finish(Err(unknown), json);
        }
        let text = without_uris(error.render().to_string(), &args);
        if json {
            let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            let usage = Error::usage(message).hint("`bsonvault --help` and `bsonvault VERB --help` show what there is");
            return output::finish(Err(usage), true);
        }
        let ansi = || without_uris(error.render().ansi().to_string(), &args);
        output::to_stderr(&if std::io::stderr().is_terminal() { ansi() } else { text });
        ExitCode::from(2)
    })
}

/// The text without what may hold a password: of arguments that look like URIs, only the scheme is
/// shown.
fn without_uris(text: String, args: &[OsString]) -> String {
    args.iter().filter_map(|arg| arg.to_str()).fold(text, |text, arg| match arg.split_once("://") {
        Some((scheme, rest)) if !rest.is_empty() => text.replace(arg, &format!("{scheme}://…")).replace(rest, "…"),
        _ => text,
    })
}

/// What was asked for, and the settings that it is done with.
struct Ready {
    command_line: CommandLine,
    config: Config,
}

/// Reads the settings. What is wrong with them is told here; the exit code is given then.
///
/// # Errors
/// The exit code, once the error has been told.
fn prepare(command_line: CommandLine) -> std::result::Result<Ready, ExitCode> {
    let flags = command_line.verb.flags().map(|flags| Flags { path: command_line.path.clone(), ..flags });
    match flags.and_then(|flags| load(&flags)) {
        Ok(config) => Ok(Ready { command_line, config }),
        Err(error) => Err(output::finish(Err(error), command_line.json)),
    }
}

impl Ready {
    /// Whether one JSON object is asked for.
    #[must_use]
    fn json(&self) -> bool {
        self.command_line.json
    }

    /// Starts logs as they are configured, once in a process.
    fn start_logs(&self) {
        logs::start(self.config.log_format, self.command_line.verb.logged());
    }
}

/// Runs the verb, writes what came of it, and gives the exit code.
async fn run(ready: Ready) -> ExitCode {
    let json = ready.json();
    let cx = Context::default().with_memory(ready.config.tuning.memory_bytes);
    let ended = match watch_signals(cx.cancel.clone(), ready.config.log_format) {
        Ok(()) => dispatch(ready, &cx).await,
        Err(error) => Err(error),
    };
    output::finish(ended, json)
}

async fn dispatch(ready: Ready, cx: &Context) -> Result<Outcome> {
    let Ready { command_line: CommandLine { json, verb, .. }, config } = ready;
    let faces = progress::Faces::of_this_process(json || verb.is_quiet());
    match &verb {
        // These refuse more, and `check` among all that it finds.
        Verb::Check(_) | Verb::Serve(_) => {}
        _ => config.refuse_slips()?,
    }
    match verb {
        Verb::Backup(args) => backup::run(args, &config, faces, cx).await,
        Verb::Import(args) => import::run(args, &config, faces, cx).await,
        Verb::Archive(args) => archive::run(args, &config, faces, cx).await,
        Verb::Sync(args) => sync::run(args, &config, faces, cx).await,
        Verb::Timeline => cx.unless_cancelled(timeline::run(&config, cx)).await,
        Verb::OplogSearch(args) => oplog_search::run(args, &config, cx).await,
        Verb::Dump(args) => dump::run(args, &config, json, faces, cx).await,
        Verb::Restore(args) => restore::run(args, &config, faces, cx).await,
        Verb::Export(args) => export::run(args, &config, json, faces, cx).await,
        Verb::Adopt(args) => adopt::run(args, &config, faces, cx).await,
        Verb::List(args) => cx.unless_cancelled(list::run(&args, &config, cx)).await,
        Verb::Show(args) => cx.unless_cancelled(show::run(args, &config, json, cx)).await,
        Verb::Verify(args) => verify::run(args, &config, faces, cx).await,
        Verb::Clean(args) => clean::run(args, &config, cx).await,
        Verb::Compare(args) => compare::run(args, &config, faces, cx).await,
        Verb::Check(_) => cx.unless_cancelled(check::run(&config, cx)).await,
        Verb::Tune(args) => tune::run(args, &config, faces, cx).await,
        Verb::Serve(_) => serve::run(config, cx).await,
        Verb::Token(args) => token::run(&args),
        Verb::Completions(args) => shell::completions(&args, CommandLine::command()),
        Verb::Man(args) => shell::man(&args, CommandLine::command()),
    }
}

impl Verb {
    /// The settings among its flags.
    fn flags(&self) -> Result<Flags> {
        Ok(match self {
            Self::Backup(args) => args.flags(),
            Self::Import(args) => args.flags(),
            Self::Archive(args) => args.flags(),
            Self::Sync(args) => args.flags(),
            Self::Dump(args) => args.flags()?,
            Self::Restore(args) => args.flags()?,
            Self::Export(args) => args.flags(),
            Self::Adopt(args) => args.flags(),
            Self::Check(args) => args.flags(),
            Self::Compare(args) => args.flags(),
            Self::Verify(args) => args.flags(),
            Self::Tune(args) => args.flags(),
            Self::Serve(args) => args.flags(),
            Self::Timeline
            | Self::OplogSearch(_)
            | Self::List(_)
            | Self::Show(_)
            | Self::Clean(_)
            | Self::Token(_)
            | Self::Completions(_)
            | Self::Man(_) => Flags::default(),
        })
    }

    /// What MongoDB's own tools would be told of the deployment, and of how much to say.
    fn deployment(&self) -> Option<&Deployment> {
        match self {
            Self::Dump(args) => Some(&args.deployment),
            Self::Restore(args) => Some(&args.deployment),
            _ => None,
        }
    }

    /// Whether it is to say nothing but errors.
    fn is_quiet(&self) -> bool {
        self.deployment().is_some_and(Deployment::is_quiet)
    }

    /// What is logged of it where `RUST_LOG` says nothing.
    fn logged(&self) -> &'static str {
        match (self, self.deployment()) {
            (Self::Serve(_) | Self::Archive(_), _) => logs::OF_A_SERVICE,
            (Self::Sync(args), _) if args.is_endless() => logs::OF_A_SERVICE,
            (_, Some(deployment)) => logs::of_verbosity(deployment.verbosity()),
            (_, None) => logs::OF_A_VERB,
        }
    }
}

fn load(flags: &Flags) -> Result<Config> {
    Config::load(&working_directory()?, std::env::vars_os(), flags)
}

/// Where `.env` and `rocket.toml` are.
fn working_directory() -> Result<PathBuf> {
    std::env::current_dir()
        .map_err(|e| Error::new(ErrorKind::Internal, format!("the working directory cannot be told: {e}")).cause(e))
}

/// The first Ctrl-C, SIGTERM or SIGHUP stops the work in order, the second Ctrl-C or SIGTERM at
/// once. A terminal that goes may send SIGHUP twice, so a further one changes nothing.
fn watch_signals(stop: CancellationToken, logs: LogFormat) -> Result<()> {
    let failed = |e: std::io::Error| Error::new(ErrorKind::Internal, format!("cannot listen for signals: {e}")).cause(e);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hangup = if ignores_hangup() { None } else { Some(signal(SignalKind::hangup()).map_err(failed)?) };
    tokio::spawn(async move {
        let mut asked = false;
        loop {
            let hung_up = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            let at_once = tokio::select! {
                _ = interrupt.recv() => asked,
                _ = terminate.recv() => asked,
                _ = hung_up => false,
            };
            if at_once {
                std::process::exit(130);
            }
            if !asked {
                asked = true;
                stop.cancel();
                match logs {
                    LogFormat::Human => output::to_stderr("stopping; once more stops at once\n"),
                    // Whoever collects them reads each line as JSON.
                    LogFormat::Json => tracing::warn!("stopping; once more stops at once"),
                }
            }
        }
    });
    Ok(())
}

/// Whether SIGHUP was ignored when this process began, as `nohup` has it: then it goes on being
/// ignored.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Signal 1 is the lowest bit.
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
