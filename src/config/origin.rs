//! The origin of a value, and the name of a setting there.

use super::settings::{DOTENV, Setting};

/// The origin of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Flag,
    Environment,
    Dotenv,
    Table,
}

impl Origin {
    pub(super) const ALL: [Self; 4] = [Self::Flag, Self::Environment, Self::Dotenv, Self::Table];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Flag => "the command line",
            Self::Environment => "the environment",
            Self::Dotenv => DOTENV,
            Self::Table => "rocket.toml, [default.backup]",
        }
    }
}

/// The setting by its name in the origin of the value: `BACKUP_LEVEL in .env`.
pub(super) fn place(setting: &Setting, origin: Origin) -> String {
    match origin {
        Origin::Flag => setting.option.map_or_else(|| setting.variable.to_owned(), |option| format!("[[{option}]]")),
        Origin::Environment | Origin::Dotenv => format!("{} in {}", setting.variable, origin.name()),
        Origin::Table => format!("{} in {}", setting.key, origin.name()),
    }
}
