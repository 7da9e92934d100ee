//! Reads the files of a directory, several at a time.

use std::collections::VecDeque;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::{Directory, Member};
use crate::context::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::MAX_DOCUMENT;
use crate::format::frame;
use crate::interop::foreign;
use crate::interop::frame_reader::{FrameReader, Waiting, on_thread};
use crate::interop::input::{self, Input};
use crate::interop::part::{Of, Wanted, named};
use crate::names::Namespace;

/// How many files to read at a time: decompressing each takes most of a core.
const AT_A_TIME: usize = 3;

/// The work of one thread at a time: the files of one collection, or of all users.
type Work = (Of, Vec<(Namespace, PathBuf)>);

impl Directory {
    /// Passes on what is wanted, largest first, and the oplog last. Nothing else is read.
    pub(in crate::interop) async fn read(&self, wanted: &Wanted, frames: FrameReader) -> Result<()> {
        let queue = Arc::new(Mutex::new(self.work(wanted)));
        let readers = (0..AT_A_TIME).map(|_| {
            let (queue, frames) = (queue.clone(), frames.clone());
            on_thread(move || {
                let next = || lock(&queue).pop_front();
                while let Some((of, files)) = next() {
                    if let Err(e) = read(of, &files, &frames) {
                        frames.stop.cancel();
                        return Err(e);
                    }
                }
                Ok(())
            })
        });
        let ended = futures::future::join_all(readers).await;
        // The first one to fail stopped the others.
        let (stopped, failed): (Vec<Error>, Vec<Error>) =
            ended.into_iter().filter_map(Result::err).partition(|e| e.kind() == ErrorKind::Interrupted);
        failed.into_iter().chain(stopped).next().map_or(Ok(()), Err)
    }

    fn work(&self, wanted: &Wanted) -> VecDeque<Work> {
        let mut work: Vec<(u64, Work)> = Vec::new();
        for (member, place) in self.members.iter().zip(&self.contents.places) {
            let Some(of) = place.filter(|of| wanted.has(*of)) else { continue };
            let Member { namespace, file, stored } = member;
            let file = file.clone().map(|path| (namespace.clone(), path));
            // Only users and roles are in several files, one per database, so nothing else is
            // searched.
            let same = |(_, (other, _)): &&mut (u64, Work)| *other == of;
            match matches!(of, Of::Users | Of::Roles).then(|| work.iter_mut().find(same)).flatten() {
                Some((bytes, (_, files))) => {
                    *bytes += stored;
                    files.extend(file);
                }
                None => work.push((*stored, (of, file.into_iter().collect()))),
            }
        }
        work.sort_by_key(|(bytes, (of, _))| (*of == Of::Oplog, std::cmp::Reverse(*bytes)));
        work.into_iter().map(|(_, work)| work).collect()
    }
}

fn read(of: Of, files: &[(Namespace, PathBuf)], frames: &FrameReader) -> Result<()> {
    let mut waiting = Waiting::default();
    for (namespace, path) in files {
        let mut file = Documents { input: Input::file(path, &frames.stop)?, at: 0 };
        let explained = |file: &Documents, e: Error| {
            let place = format!("{}: at byte {} of {}", named(namespace), file.at, path.display());
            let foreign = if file.at == 0 { foreign::recognize(&file.input.head) } else { None };
            let e = match foreign.filter(|_| e.kind() == ErrorKind::Damaged) {
                Some(foreign) => Error::damaged(format!("it is {}, and holds no documents", foreign.what)).hint(foreign.hint),
                None => e,
            };
            file.input.trouble.explain(&place, e.context(&place))
        };
        while let Some(length) = file.length().map_err(|e| explained(&file, e))? {
            if frames.stop.is_cancelled() {
                return Err(Error::interrupted());
            }
            if waiting.is_full_for(length) {
                frames.documents(of, std::mem::take(&mut waiting))?;
            }
            // A document that is a frame by itself gets its share of the budget before it is read.
            // Besides the shares, each thread holds one frame at most.
            let share = if length > frame::TARGET { Some(frames.share(length)?) } else { None };
            file.document(length, &mut waiting).map_err(|e| explained(&file, e))?;
            if let Some(share) = share {
                frames.send(of, std::mem::take(&mut waiting), share)?;
            }
        }
    }
    frames.documents(of, waiting)?;
    frames.end(of)
}

/// The documents of a file, in order.
struct Documents {
    input: Input,
    /// The offset of the next one, uncompressed.
    at: u64,
}

impl Documents {
    /// The length that the next one claims; `None` at the end.
    fn length(&mut self) -> Result<Option<usize>> {
        let mut length = Vec::with_capacity(4);
        self.input.reading.by_ref().take(4).read_to_end(&mut length).map_err(|e| input::damaged_gzip(&e))?;
        let Ok(bytes) = <[u8; 4]>::try_from(length.as_slice()) else {
            return if length.is_empty() { Ok(None) } else { Err(Error::damaged("it ends inside a document")) };
        };
        let length = i32::from_le_bytes(bytes);
        match usize::try_from(length) {
            Ok(length) if (5..=MAX_DOCUMENT).contains(&length) => Ok(Some(length)),
            _ => Err(Error::damaged(format!("a document of {length} bytes, but 5 to {MAX_DOCUMENT} are possible"))),
        }
    }

    /// Reads the rest of a document of this length.
    fn document(&mut self, length: usize, to: &mut Waiting) -> Result<()> {
        let from = to.len();
        let frame = to.room_for(length);
        frame.extend_from_slice(&(length as u32).to_le_bytes());
        let rest = self.input.reading.by_ref().take(length as u64 - 4).read_to_end(frame).map_err(|e| input::damaged_gzip(&e))?;
        if rest < length - 4 {
            return Err(Error::damaged(format!("it ends inside a document of {length} bytes")));
        }
        to.added(from)?;
        self.at += length as u64;
        Ok(())
    }
}
