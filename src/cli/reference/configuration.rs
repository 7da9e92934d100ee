//! The page of the settings, from their table.

use super::markdown::row;
use crate::config::{Group, Setting, settings};

const HEAD: &str = "\
# Configuration

Flags come before the environment, which comes before `.env`, which comes before `[default.backup]`
in `rocket.toml`, which comes before the defaults. Both files are read from the working directory.
An empty value counts as not set. [Notes on the configuration](configuration-notes.md) explain
connection strings, schedules, logging and the HTTP server's own settings.

Booleans: `true`, `yes`, `on`, `1`, and `false`, `no`, `off`, `0`.
";

pub(super) fn page() -> String {
    let mut text = HEAD.to_owned();
    for (group, heading) in [
        (Group::Deployments, "Source and target"),
        (Group::Backups, "Backups"),
        (Group::Load, "Load and memory"),
        (Group::Retention, "Retention"),
        (Group::Service, "Service"),
        (Group::Access, "Access to the service"),
        (Group::Messages, "Logs and messages"),
    ] {
        text += &format!("\n## {heading}\n\n| variable | in `rocket.toml` | flag | values | default | meaning |\n");
        text += "| --- | --- | --- | --- | --- | --- |\n";
        text += &settings().filter(|setting| setting.group == group).map(of_setting).collect::<String>();
    }
    text
}

fn of_setting(setting: &Setting) -> String {
    let flag = setting.option.map(|option| format!("`--{option}`")).unwrap_or_default();
    row(&[
        &format!("`{}`", setting.variable),
        &format!("`{}`", setting.key),
        &flag,
        setting.values,
        setting.default,
        setting.about,
    ])
}
