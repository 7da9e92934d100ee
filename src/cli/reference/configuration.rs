//! The page of the settings, from their table.

use super::markdown::row;
use crate::config::{Group, Setting, settings};

const HEAD: &str = "\
# Configuration

Flags come before the environment, which comes before `.env`, which comes before `[default.backup]`
in `rocket.toml`, which comes before the defaults. Both files are read from the working directory.
An empty value counts as not set, but a flag with an empty value is refused. [Notes on the
configuration](configuration-notes.md) explain connection strings, schedules, logging and the HTTP
server's own settings.

The first name is the variable in the environment and in `.env`. The second is the key in
`rocket.toml`, and the third is the flag, if there is one. Booleans: `true`, `yes`, `on`, `1`, and
`false`, `no`, `off`, `0`.
";

pub(super) fn page() -> String {
    let mut text = HEAD.to_owned();
    for (group, heading) in [
        (Group::Deployments, "Source and target"),
        (Group::Backups, "Backups"),
        (Group::Load, "Load and memory"),
        (Group::Retention, "Retention"),
        (Group::PointInTime, "Point in time"),
        (Group::Sync, "Sync"),
        (Group::Service, "Service"),
        (Group::Access, "Access to the service"),
        (Group::Messages, "Logs and messages"),
    ] {
        text += &format!("\n## {heading}\n\n| setting | values | meaning |\n| --- | --- | --- |\n");
        text += &settings().filter(|setting| setting.group == group).map(of_setting).collect::<String>();
    }
    text
}

/// Its names below each other, so that the table stays narrow.
fn of_setting(setting: &Setting) -> String {
    let mut names = format!("`{}`<br>`{}`", setting.variable, setting.key);
    names.extend(setting.option.map(|option| format!("<br>`--{option}`")));
    let default = match setting.default {
        "" => String::new(),
        default => format!("<br>Default: {default}"),
    };
    row(&[&names, &format!("{}{default}", setting.values), setting.about])
}
