//! Writing settings into `.env` or `rocket.toml`: nothing else of the file changes, and it is replaced whole or not at all.

mod dotenv;
mod table;

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{ErrorKind as IoKind, Write as _};
use std::path::{Path, PathBuf};

use super::places::{Origin, Places, find, place};
use super::settings::{FRAME, Flags, LEVEL, LONG_DISTANCE, READERS, Setting};
use super::{DOTENV, ROCKET_TOML};
use crate::error::{Error, ErrorKind, Result};
use crate::system;

/// What measuring finds out, to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuned {
    /// `BACKUP_READERS`
    pub readers: usize,
    /// `BACKUP_LEVEL`
    pub level: i32,
    /// `BACKUP_FRAME_MB`
    pub frame_mb: usize,
    /// `BACKUP_LONG_DISTANCE`
    pub long_distance: bool,
}

/// A file that settings are written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `.env`
    Dotenv,
    /// `rocket.toml`, its table `[default.backup]`
    RocketToml,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The file, where a link leads included.
    pub file: PathBuf,
    /// Whether the file changed: it may have said so already.
    pub changed: bool,
    /// Where something else is said that counts more: `BACKUP_LEVEL in the environment`.
    pub overridden: Vec<String>,
}

impl Tuned {
    fn values(self) -> [(&'static Setting, String); 4] {
        [
            (&LEVEL, self.level.to_string()),
            (&READERS, self.readers.to_string()),
            (&FRAME, self.frame_mb.to_string()),
            (&LONG_DISTANCE, self.long_distance.to_string()),
        ]
    }

    /// The lines as they stand in this file.
    #[must_use]
    pub fn lines(self, target: Target) -> Vec<String> {
        let line = |(setting, value): (&Setting, String)| match target {
            Target::Dotenv => format!("{}={value}", setting.variable),
            Target::RocketToml => format!("{} = {value}", setting.key),
        };
        self.values().into_iter().map(line).collect()
    }
}

impl Target {
    /// The file's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dotenv => DOTENV,
            Self::RocketToml => ROCKET_TOML,
        }
    }

    /// The file of this name.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for any other.
    pub fn of_name(name: &str) -> Result<Self> {
        [Self::Dotenv, Self::RocketToml].into_iter().find(|target| target.name() == name).ok_or_else(|| {
            Error::usage(format!("settings cannot be written to {name:?}: expected {DOTENV} or {ROCKET_TOML}"))
                .hint("both are looked for in the working directory")
        })
    }

    /// Where any of these settings stands already: in `.env`, else in `rocket.toml`; where in neither, `.env`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] where one of the files cannot be read.
    pub fn usual(directory: &Path) -> Result<Self> {
        let places = Places::read(directory, [], &Flags::default())?;
        let origins: Vec<Origin> =
            [&LEVEL, &READERS, &FRAME, &LONG_DISTANCE].iter().filter_map(|s| Some(find(&places.settings, s)?.1)).collect();
        let only_there = !origins.is_empty() && !origins.contains(&Origin::Dotenv);
        Ok(if only_there { Self::RocketToml } else { Self::Dotenv })
    }
}

/// Writes the settings into the file in `directory`, which is made where it is not there, and reads all places again to see whether they count.
///
/// # Errors
/// [`ErrorKind::Usage`] where the file cannot be read as what it is, or holds the settings in a way that cannot be edited: it is not touched then.
/// [`ErrorKind::Storage`] where it cannot be written.
pub fn write(
    directory: &Path,
    target: Target,
    tuned: Tuned,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    flags: &Flags,
) -> Result<Written> {
    // 1. What stands there.
    let (file, before) = read(&directory.join(target.name()))?;
    let text = before.as_ref().map_or("", |(text, _)| text);

    // 2. What is to stand there.
    let edited = match target {
        Target::Dotenv => dotenv::edit(text, &tuned.values())?,
        Target::RocketToml => table::edit(text, &tuned.values())?,
    };

    // 3. It takes the file's place.
    let changed = before.is_none() || edited != text;
    if changed {
        replace(&file, edited.as_bytes(), before.as_ref().map(|(_, found)| found))?;
    }

    // 4. Whether it counts.
    let places = Places::read(directory, environment, flags)?;
    let own = match target {
        Target::Dotenv => Origin::Dotenv,
        Target::RocketToml => Origin::Table,
    };
    let above = |(setting, _): &(&Setting, String)| {
        find(&places.settings, setting).map(|(_, origin)| origin).filter(|origin| *origin != own).map(|o| place(setting, o))
    };
    Ok(Written { file, changed, overridden: tuned.values().iter().filter_map(above).collect() })
}

/// Where the path leads, and the text there with what the system says of it, where there is one.
fn read(path: &Path) -> Result<(PathBuf, Option<(String, Metadata)>)> {
    let file = match std::fs::canonicalize(path) {
        Ok(file) => file,
        Err(e) if e.kind() == IoKind::NotFound => {
            if std::fs::symlink_metadata(path).is_ok() {
                return Err(Error::usage(format!("{} is a link that leads nowhere", path.display()))
                    .hint("make the file it leads to, or remove the link"));
            }
            return Ok((path.to_owned(), None));
        }
        Err(e) => return Err(failed("look at", path, e)),
    };
    let found = std::fs::metadata(&file).map_err(|e| failed("look at", &file, e))?;
    if !found.is_file() {
        return Err(Error::usage(format!("{} is not a file", file.display())));
    }
    match system::small_file(&file).map(String::from_utf8) {
        Ok(Ok(text)) => Ok((file, Some((text, found)))),
        Ok(Err(_)) => Err(Error::usage(format!("{} is not text in UTF-8: it is left as it is", file.display()))),
        Err(e) => Err(failed("read", &file, e)),
    }
}

/// Puts a file of these bytes in the place of `file`, with its owner and its mode; a new one is its owner's alone.
fn replace(file: &Path, bytes: &[u8], before: Option<&Metadata>) -> Result<()> {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fails = |what: &'static str| move |e: std::io::Error| failed(what, file, e);
    let mut staged = tempfile::Builder::new().prefix(".bsonvault-edit-").tempfile_in(directory).map_err(fails("write"))?;
    staged.write_all(bytes).map_err(fails("write"))?;
    if let Some(before) = before {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            let own = staged.as_file().metadata().map_err(fails("write"))?;
            if (own.uid(), own.gid()) != (before.uid(), before.gid()) {
                std::os::unix::fs::fchown(staged.as_file(), Some(before.uid()), Some(before.gid()))
                    .map_err(fails("keep the owner of"))?;
            }
        }
        staged.as_file().set_permissions(before.permissions()).map_err(fails("keep the mode of"))?;
    }
    staged.as_file().sync_all().map_err(fails("write"))?;
    staged.persist(file).map_err(|e| failed("write", file, e.error))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(fails("sync the directory of"))
}

fn failed(what: &str, path: &Path, cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Storage, format!("cannot {what} {}: {cause}", path.display()))
        .hint("write the lines into the file by hand, or let this user write there")
        .cause(cause)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const TUNED: Tuned = Tuned { readers: 4, level: -3, frame_mb: 8, long_distance: true };

    fn apply(directory: &Path, target: Target) -> Result<Written> {
        write(directory, target, TUNED, [], &Flags::default())
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_new_file_is_its_owners_alone_and_another_keeps_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        for target in [Target::Dotenv, Target::RocketToml] {
            let path = directory.path().join(target.name());
            let written = apply(directory.path(), target).unwrap();
            assert_eq!((written.changed, mode(&path)), (true, 0o600));
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            assert!(apply(directory.path(), target).unwrap().changed);
            assert_eq!(mode(&path), 0o644);
            let once = std::fs::read_to_string(&path).unwrap();
            assert!(!apply(directory.path(), target).unwrap().changed);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), once);
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn a_link_is_written_through_and_one_that_leads_nowhere_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("real")).unwrap();
        std::fs::write(directory.path().join("real/env"), "A=1\n").unwrap();
        let link = directory.path().join(DOTENV);
        std::os::unix::fs::symlink("real/env", &link).unwrap();
        apply(directory.path(), Target::Dotenv).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        let text = std::fs::read_to_string(directory.path().join("real/env")).unwrap();
        assert!(text.starts_with("A=1\nBACKUP_LEVEL=-3\n"), "{text}");
        std::fs::remove_file(directory.path().join("real/env")).unwrap();
        let refused = apply(directory.path(), Target::Dotenv).unwrap_err();
        assert!(refused.to_string().contains("leads nowhere"), "{refused}");
    }

    #[test]
    fn what_counts_more_is_named() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(DOTENV), "BACKUP_READERS=9\n").unwrap();
        let environment = [(OsString::from("BACKUP_LEVEL"), OsString::from("5"))];
        let written = write(directory.path(), Target::RocketToml, TUNED, environment, &Flags::default()).unwrap();
        assert_eq!(written.overridden, ["BACKUP_LEVEL in the environment", "BACKUP_READERS in .env"]);
        assert_eq!(apply(directory.path(), Target::Dotenv).unwrap().overridden, [""; 0]);
    }

    #[test]
    fn the_usual_file_is_where_they_stand() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Target::usual(directory.path()).unwrap(), Target::Dotenv);
        std::fs::write(directory.path().join(ROCKET_TOML), "[default.backup]\nlevel = 3\n").unwrap();
        assert_eq!(Target::usual(directory.path()).unwrap(), Target::RocketToml);
        std::fs::write(directory.path().join(DOTENV), "BACKUP_FRAME_MB=2\n").unwrap();
        assert_eq!(Target::usual(directory.path()).unwrap(), Target::Dotenv);
        assert!(Target::of_name("Rocket.toml").is_err());
    }
}
