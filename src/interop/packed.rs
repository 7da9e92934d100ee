//! Unpacks a backup in a tar file, as in a download from the service. The file may come from
//! anywhere, so nothing in it may lead elsewhere: only directories and regular files are allowed,
//! all of them below one directory.

use std::io;
use std::path::{Component, Path};

use tar::{Archive, EntryType};
use tokio_util::sync::CancellationToken;

use super::foreign;
use super::frame_reader::on_thread;
use super::input::Input;
use crate::error::{Error, ErrorKind, Result};
use crate::format::key;
use crate::names::BackupName;
use crate::repository::backend::{Created, Objects};

/// A tar file of a backup, at its beginning.
pub struct Packed {
    input: Input,
    place: String,
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed({})", self.place)
    }
}

impl Packed {
    /// The tar file, if the input begins like one of a backup; otherwise the input unchanged.
    pub(super) fn of(input: Input, place: &str) -> std::result::Result<Self, Input> {
        match foreign::is_backup(&input.head) {
            true => Ok(Self { input, place: place.to_owned() }),
            false => Err(input),
        }
    }

    /// The same for a file. Anything else is left alone. Not for standard input.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`], [`ErrorKind::Interrupted`], [`ErrorKind::Damaged`] for gzip that
    /// cannot be read.
    pub(super) fn in_file(path: &Path, stop: &CancellationToken) -> Result<Option<Self>> {
        if !path.is_file() {
            return Ok(None);
        }
        Ok(Self::of(Input::file(path, stop)?, &path.display().to_string()).ok())
    }

    /// Its location in a form for people.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.place
    }

    /// Unpacks it into this directory, and returns the name of the one directory in it. On failure,
    /// the written files stay.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if it is cut or not a backup; [`ErrorKind::Storage`];
    /// [`ErrorKind::Interrupted`].
    pub async fn unpack(self, into: &Objects, stop: &CancellationToken) -> Result<BackupName> {
        let into = into.clone();
        let unpacking = on_thread(move || {
            let Self { input: Input { reading, trouble, .. }, place } = self;
            unpack(reading, &place, &into).map_err(|e| trouble.explain(&place, e))
        });
        // A thread that waits for missing bytes is abandoned.
        stop.run_until_cancelled(unpacking).await.ok_or_else(Error::interrupted)?
    }
}

fn unpack(reading: impl io::Read, place: &str, into: &Objects) -> Result<BackupName> {
    let mut archive = Archive::new(reading);
    let (mut name, mut manifest): (Option<BackupName>, Option<Box<dyn Created>>) = (None, None);
    let entries = archive.entries().map_err(|e| broken(place, &e))?;
    for entry in entries {
        let mut entry = entry.map_err(|e| broken(place, &e))?;
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            continue;
        }
        let path = entry.path().map_err(|e| broken(place, &e))?.into_owned();
        let Some((top, below)) = inside(&path) else {
            return Err(no_backup(place, &format!("a name in it leads elsewhere: {}", path.display())));
        };
        let Some(top) = top else { continue };
        let top = BackupName::parse(&top).map_err(|_| no_backup(place, &format!("{top:?} is not a backup's name")))?;
        if *name.get_or_insert_with(|| top.clone()) != top {
            return Err(no_backup(place, "it holds more than one directory"));
        }
        match kind {
            // Keys need no directories.
            EntryType::Directory => {}
            EntryType::Regular | EntryType::Continuous if !below.is_empty() => {
                let (size, key) = (entry.size(), format!("{top}/{below}"));
                let is_manifest = below == key::MANIFEST;
                if is_manifest && manifest.is_some() {
                    return Err(twice(place));
                }
                let (object, written) = write(&mut entry, into, &key, place)?;
                if written != size {
                    return Err(cut(place));
                }
                // The manifest completes the backup: it is written after everything else.
                match is_manifest {
                    true => manifest = Some(object),
                    false => object.finish().map_err(no_room)?,
                }
            }
            _ => return Err(no_backup(place, &format!("{} is neither a directory nor a regular file", path.display()))),
        }
    }
    let name = name.ok_or_else(|| no_backup(place, "it holds nothing"))?;
    // A download ends with the manifest: without it, something is missing.
    manifest.ok_or_else(|| cut(place))?.finish().map_err(no_room)?;
    Ok(name)
}

/// The first part of a path and the rest, if all of it is inside. `./` has no first part.
fn inside(path: &Path) -> Option<(Option<String>, String)> {
    let mut parts = path.components().filter(|part| *part != Component::CurDir).map(|part| match part {
        Component::Normal(name) => name.to_str().map(str::to_owned),
        _ => None,
    });
    let first = match parts.next() {
        None => return Some((None, String::new())),
        Some(first) => first?,
    };
    let rest = parts.collect::<Option<Vec<String>>>()?;
    Some((Some(first), rest.join("/")))
}

fn write(content: &mut impl io::Read, into: &Objects, key: &str, place: &str) -> Result<(Box<dyn Created>, u64)> {
    let mut object = into.create(key).map_err(|e| match e.kind() {
        ErrorKind::Refused => twice(place),
        _ => no_room(e),
    })?;
    // Either side may fail: writing in pieces distinguishes the object's own errors.
    let mut buffer = vec![0; 256 * 1024];
    let mut written = 0;
    loop {
        let count = match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(broken(place, &e)),
        };
        object.write_all(&buffer[..count]).map_err(|e| {
            no_room(Error::new(ErrorKind::Storage, format!("{key} cannot be written in {}: {e}", into.location())).cause(e))
        })?;
        written += count as u64;
    }
    Ok((object, written))
}

fn broken(place: &str, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => cut(place),
        _ => Error::damaged(format!("{place} cannot be read as a tar file: {error}")).hint("download it again"),
    }
}

fn cut(place: &str) -> Error {
    Error::damaged(format!("{place} is cut: part of the backup is missing")).hint("the download broke off: download it again")
}

fn no_backup(place: &str, why: &str) -> Error {
    Error::damaged(format!("{place} is not a tar file of one backup: {why}"))
        .hint("a download of the service holds one backup; unpack other files yourself, and name the directory of the backup")
}

fn twice(place: &str) -> Error {
    no_backup(place, "it holds a file twice, or a file and a directory of the same name")
}

fn no_room(error: Error) -> Error {
    error.hint("set TMPDIR, or [[path]], to a directory with room")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "atlas-backup-2026-11-28T18-14-53-439Z";

    fn tar(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_ustar();
            // `set_path` refuses the names of a hostile file.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            if *kind == EntryType::Symlink {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> (Result<BackupName>, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        (unpack(bytes, "x.tar", &Objects::open(directory.path().to_str().unwrap()).unwrap()), directory)
    }

    #[test]
    fn a_backup_comes_out_whole_whatever_the_order() {
        use EntryType::{Directory, Regular};
        let (manifest, file) = (format!("{NAME}/manifest.json"), format!("./{NAME}/shop/a.bson.zst"));
        for entries in [
            vec![("./", Directory, &b""[..]), (&file, Regular, b"data"), (&manifest, Regular, b"{}")],
            vec![(&*manifest, Regular, &b"{}"[..]), (&file, Regular, b"data")],
        ] {
            let (name, directory) = unpacked(&tar(&entries));
            let place = directory.path().join(name.unwrap().as_str());
            assert_eq!(std::fs::read(place.join("shop/a.bson.zst")).unwrap(), b"data");
            assert_eq!(std::fs::read(place.join("manifest.json")).unwrap(), b"{}");
        }
    }

    #[test]
    fn what_is_cut_or_leads_elsewhere_is_refused() {
        use EntryType::{Fifo, Regular, Symlink};
        let (manifest, file) = (format!("{NAME}/manifest.json"), format!("{NAME}/a.bson.zst"));
        let whole = tar(&[(&*file, Regular, &[7; 3000]), (&manifest, Regular, b"{}")]);
        for cut in [100, 512, 700, 2048, 3584, 4096, 4097] {
            let (name, directory) = unpacked(&whole[..cut]);
            assert!(name.is_err(), "{cut}");
            assert!(!directory.path().join(&manifest).exists(), "{cut}");
        }
        let outside = format!("{NAME}/../../x");
        for (entries, told) in [
            (vec![(&*outside, Regular, &b"x"[..])], "leads elsewhere"),
            (vec![("/etc/x", Regular, b"x")], "leads elsewhere"),
            (vec![(&*file, Symlink, b"")], "neither"),
            (vec![(&*file, Fifo, b"")], "neither"),
            (vec![(&*file, Regular, b"x"), (&file, Regular, b"y")], "twice"),
            (vec![(&*file, Regular, b"x"), ("other/manifest.json", Regular, b"{}")], "more than one"),
            (vec![(NAME, Regular, b"x")], "neither"),
            (vec![("latest/manifest.json", Regular, b"{}")], "not a backup's name"),
            (vec![], "nothing"),
        ] {
            let (name, directory) = unpacked(&tar(&entries));
            let error = name.unwrap_err();
            assert!(error.to_string().contains(told) && error.kind() == ErrorKind::Damaged, "{told}: {error}");
            assert!(!directory.path().join("../x").exists());
        }
    }
}
