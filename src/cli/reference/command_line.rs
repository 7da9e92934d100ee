//! The page of the command line, from clap's definition of it.

use clap::{Arg, Command, CommandFactory as _};

use super::markdown::{cell, row};
use crate::cli::CommandLine;

const HEAD: &str = "\
# Command line

`bsonvault --help` shows the commands, and `bsonvault COMMAND --help` shows what this page says of
one. Flags come before the environment, which comes before `.env`, which comes before `rocket.toml`:
see [configuration](configuration.md). The page about [output](output.md) has what the commands
print, and their exit codes.

";

pub(super) fn page() -> String {
    let mut program = CommandLine::command();
    program.build();
    let verbs: Vec<&Command> = program.get_subcommands().filter(|verb| verb.get_name() != "help").collect();
    let mut text = HEAD.to_owned() + "| command | what it does |\n| --- | --- |\n";
    for verb in &verbs {
        text += &row(&[&format!("[`{0}`](#{0})", verb.get_name()), &about(verb)]);
    }
    text += "\nEvery command takes these flags:\n\n";
    text += &table(&program.get_arguments().filter(|arg| is_global(arg)).collect::<Vec<_>>());
    for verb in verbs {
        text += &of_verb(verb);
    }
    text
}

fn of_verb(verb: &Command) -> String {
    let name = verb.get_name();
    let mut usage = verb.clone();
    let usage = usage.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim().lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let mut text = format!("\n## `{name}`\n\n{}.\n\n```text\n{usage}\n```\n", about(verb));
    let own: Vec<&Arg> = verb.get_arguments().filter(|arg| !arg.is_hide_set() && !is_global(arg) && !is_help(arg)).collect();
    let mut headings: Vec<Option<&str>> = Vec::new();
    for arg in &own {
        let heading = arg.get_help_heading();
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    headings.sort_by_key(Option::is_some);
    for heading in headings {
        let args: Vec<&Arg> = own.iter().copied().filter(|arg| arg.get_help_heading() == heading).collect();
        text += &heading.map_or_else(|| "\n".to_owned(), |heading| format!("\n{heading}:\n\n"));
        text += &table(&args);
    }
    if let Some(after) = verb.get_after_help() {
        text += &format!("\n```text\n{}\n```\n", after.to_string().trim_end());
    }
    text
}

fn table(args: &[&Arg]) -> String {
    let rows: String = args.iter().map(|arg| row(&[&signature(arg), &help(arg)])).collect();
    format!("| flag | meaning |\n| --- | --- |\n{rows}")
}

/// `-y`, `--yes`, or the name of an argument without a flag; with its value.
fn signature(arg: &Arg) -> String {
    let values: Vec<&str> = arg.get_value_names().unwrap_or_default().iter().map(|name| name.as_str()).collect();
    let value = if arg.get_action().takes_values() { values.join(" ") } else { String::new() };
    let Some(long) = arg.get_long() else { return format!("`{value}`") };
    let short = arg.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    let optional = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
    let equals = arg.is_require_equals_set();
    let value = match (value.as_str(), optional, equals) {
        ("", ..) => String::new(),
        (value, true, true) => format!("[={value}]"),
        (value, true, false) => format!(" [{value}]"),
        (value, false, _) => format!(" {value}"),
    };
    format!("{short}`--{long}{value}`")
}

fn help(arg: &Arg) -> String {
    let mut text = cell(&arg.get_help().map(ToString::to_string).unwrap_or_default());
    if !text.ends_with([']', '.']) && !text.is_empty() {
        text.push('.');
    }
    let values: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set() && arg.get_action().takes_values())
        .map(|value| match value.get_help() {
            Some(help) => format!("`{}`: {}", value.get_name(), cell(&help.to_string())),
            None => format!("`{}`", value.get_name()),
        })
        .collect();
    if !values.is_empty() {
        text += &format!("<br>{}", values.join("<br>"));
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if !defaults.is_empty() && arg.get_action().takes_values() {
        text += &format!("<br>Default: `{}`", defaults.join(" "));
    }
    text
}

fn about(verb: &Command) -> String {
    verb.get_about().map(ToString::to_string).unwrap_or_default()
}

fn is_global(arg: &Arg) -> bool {
    ["json", "path"].contains(&arg.get_id().as_str())
}

fn is_help(arg: &Arg) -> bool {
    ["help", "version"].contains(&arg.get_id().as_str())
}
