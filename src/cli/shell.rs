//! `completions` and `man`: what a shell and `man` show of the command line, made from its
//! definition.

use clap::Command;
use clap_complete::Shell;
use serde_json::Map;

use super::output::Outcome;
use crate::error::{Error, ErrorKind, Result};

/// Flags of `completions`.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Flags of `man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The command that the page is about; without it, the whole program
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
}

pub(super) fn completions(args: &CompletionsArgs, mut program: Command) -> Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, "bsonvault", &mut script);
    outcome("script", script)
}

pub(super) fn man(args: &ManArgs, mut program: Command) -> Result<Outcome> {
    // Global flags are shown on the page of each verb.
    program.build();
    let command = match &args.command {
        None => program,
        Some(name) => {
            let verb = program.get_subcommands().find(|verb| verb.get_name() == name);
            let unknown = || Error::usage(format!("there is no command {name:?}")).hint(known(&program));
            verb.ok_or_else(unknown)?.clone()
        }
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(|e| Error::new(ErrorKind::Internal, format!("the manual page cannot be written: {e}")).cause(e))?;
    outcome("page", page)
}

fn known(program: &Command) -> String {
    let names: Vec<&str> = program.get_subcommands().map(Command::get_name).collect();
    format!("the commands are {}", names.join(", "))
}

fn outcome(name: &str, text: Vec<u8>) -> Result<Outcome> {
    let text = String::from_utf8(text).map_err(|e| Error::new(ErrorKind::Internal, "the text is not UTF-8").cause(e))?;
    let fields = Map::from_iter([(name.to_owned(), text.clone().into())]);
    Ok(Outcome::done(text, fields))
}
