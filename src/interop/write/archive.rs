//! Writes an archive: the prelude, then one namespace after the other, each document right after
//! the one before.

use bytes::Bytes;

use super::contents::Contents;
use super::file::blocking;
use super::options::{Destination, WriteOptions};
use super::place::{Opened, Unfinished};
use super::sink::{Goal, Output, Room};
use crate::context::cpu::CpuPool;
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::Documents;
use crate::format::mongodump::write::{self, Crc, SEGMENT};
use crate::format::mongodump::{Member, OPLOG, Prelude, TERMINATOR};

/// An archive being written.
#[derive(Debug)]
pub(super) struct Archive {
    /// `None` for a destination without a place to move to: standard output, a device or a pipe.
    file: Option<Unfinished>,
    output: Output,
    cpu: CpuPool,
    /// The databases and collections of the remaining blocks, the next one last.
    coming: Vec<(String, String)>,
    now: (String, String),
    crc: Crc,
    has_segment: bool,
}

impl Archive {
    pub(super) async fn open(
        destination: &Destination,
        options: WriteOptions,
        contents: Contents,
        cpu: &CpuPool,
    ) -> Result<Self> {
        let mut coming: Vec<_> = contents.collections.iter().map(|c| (c.database.clone(), c.data.clone())).collect();
        let mut namespaces: Vec<Member> = (contents.collections.into_iter())
            .map(|c| Member { database: c.database, collection: c.name, metadata: c.metadata, kind: Some(c.kind.to_string()) })
            .collect();
        if contents.oplog {
            coming.push((String::new(), OPLOG.to_owned()));
            let (collection, kind) = (OPLOG.to_owned(), Some(String::new()));
            namespaces.push(Member { database: String::new(), collection, metadata: String::new(), kind });
        }
        coming.reverse();
        namespaces.iter().try_for_each(check)?;
        let prelude = Prelude {
            // One after the other.
            concurrent: 1,
            server_version: contents.server_version,
            tool_version: contents.tool_version,
            namespaces,
        };
        let (file, goal) = match destination {
            Destination::Stdout => (None, Goal::stdout()?),
            Destination::Path(path) => {
                let (path, name) = (path.clone(), destination.to_string());
                match blocking(move || Unfinished::file(&path, options.force)).await? {
                    Opened::Beside(unfinished, file) => (Some(unfinished), Goal { file, name, durable: true }),
                    Opened::Straight(file, durable) => (None, Goal { file, name, durable }),
                }
            }
        };
        let mut output = Output::new(goal, options.gzip, cpu, &Room::new());
        output.write(prelude.to_bytes().into()).await?;
        let now = (String::new(), String::new());
        Ok(Self { file, output, cpu: cpu.clone(), coming, now, crc: Crc::default(), has_segment: false })
    }

    pub(super) fn begin(&mut self) -> Result<()> {
        let next = self.coming.pop();
        self.now = next.ok_or_else(|| Error::new(ErrorKind::Internal, "an archive was given more than it holds"))?;
        (self.crc, self.has_segment) = (Crc::default(), false);
        Ok(())
    }

    pub(super) async fn documents(&mut self, frame: Vec<u8>) -> Result<()> {
        if frame.is_empty() {
            return Ok(());
        }
        let mut crc = self.crc.clone();
        let (frame, ends, crc) = self
            .cpu
            .run(move || {
                let ends = segments(&frame)?;
                crc.update(&frame);
                Ok((Bytes::from(frame), ends, crc))
            })
            .await
            .map_err(|e| e.context(self.name()))?;
        self.crc = crc;
        let mut from = 0;
        for end in ends {
            self.segment(frame.slice(from..end)).await?;
            from = end;
        }
        Ok(())
    }

    pub(super) async fn end(&mut self) -> Result<()> {
        if !self.has_segment {
            self.segment(Bytes::new()).await?;
        }
        let end = write::end(&self.now.0, &self.now.1, &self.crc);
        self.output.write(end.into()).await
    }

    pub(super) async fn finish(&mut self) -> Result<u64> {
        self.output.end().await?;
        self.output.finish().await
    }

    pub(super) async fn put(self) -> Result<()> {
        match self.file {
            Some(file) => blocking(move || file.put()).await,
            None => Ok(()),
        }
    }

    pub(super) async fn abandon(self) {
        // A reader of standard output or a pipe may block a write forever.
        if self.file.is_some() {
            self.output.abandon().await;
        }
    }

    async fn segment(&mut self, documents: Bytes) -> Result<()> {
        self.has_segment = true;
        self.output.write(write::segment(&self.now.0, &self.now.1).into()).await?;
        if !documents.is_empty() {
            self.output.write(documents).await?;
        }
        self.output.write(Bytes::from_static(&TERMINATOR)).await
    }

    fn name(&self) -> String {
        let (database, collection) = &self.now;
        if database.is_empty() { "the oplog slice".to_owned() } else { format!("{database}.{collection}") }
    }
}

/// Refuses a namespace that the prelude cannot describe: its document there has the same size limit
/// for readers.
fn check(member: &Member) -> Result<()> {
    let string = |name: &str, value: &str| 1 + name.len() + 1 + 4 + value.len() + 1;
    let size = 1 + "size".len() + 1 + 4;
    let names = string("db", &member.database) + string("collection", &member.collection);
    let kind = member.kind.as_ref().map_or(0, |kind| string("type", kind));
    let length = 4 + names + string("metadata", &member.metadata) + size + kind + 1;
    if length > SEGMENT {
        let Member { database, collection, .. } = member;
        return Err(Error::new(
            ErrorKind::Refused,
            format!("the metadata of {database}.{collection} cannot be in an archive: it would take {length} bytes of the prelude, and readers accept {SEGMENT} at most"),
        )
        .hint("use [[format]] dir"));
    }
    Ok(())
}

/// The ends of the segments that these documents are divided into.
fn segments(documents: &[u8]) -> Result<Vec<usize>> {
    let (mut ends, mut from, mut at) = (Vec::new(), 0, 0);
    for document in Documents::of(documents) {
        let length = document?.len();
        if length > SEGMENT {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("a document of {length} bytes cannot be in an archive, because readers accept {SEGMENT} at most"),
            )
            .hint("use [[format]] dir"));
        }
        if at + length - from > SEGMENT {
            ends.push(at);
            from = at;
        }
        at += length;
    }
    ends.push(at);
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::CollectionKind;
    use crate::interop::write::{Described, Format};

    fn document(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        bytes[..4].copy_from_slice(&(length as i32).to_le_bytes());
        bytes
    }

    #[tokio::test]
    async fn metadata_that_readers_do_not_take_are_refused_before_anything_is_written() {
        let member = |length| Member {
            database: "d".to_owned(),
            collection: "wide".to_owned(),
            metadata: "x".repeat(length),
            kind: Some("view".to_owned()),
        };
        let length = |member: &Member| {
            let prelude =
                |namespaces| Prelude { concurrent: 1, server_version: String::new(), tool_version: String::new(), namespaces };
            prelude(vec![member.clone()]).to_bytes().len() - prelude(Vec::new()).to_bytes().len()
        };
        let most = SEGMENT - length(&member(0));
        assert_eq!(length(&member(most)), SEGMENT);
        assert!(check(&member(most)).is_ok());
        let Member { database, collection, metadata, .. } = member(most + 1);
        let (name, data, kind) = (collection.clone(), collection, CollectionKind::View);
        let contents = Contents {
            server_version: "6.0.5".to_owned(),
            tool_version: "t".to_owned(),
            collections: vec![Described { database, name, data, kind, metadata }],
            oplog: false,
        };
        let directory = tempfile::tempdir().unwrap();
        let destination = Destination::Path(directory.path().join("x"));
        let options = WriteOptions { format: Format::Archive, gzip: None, force: false, whole: false };
        let error = Archive::open(&destination, options, contents, &CpuPool::of_this_machine()).await.unwrap_err();
        assert_eq!((error.kind(), error.hint_text()), (ErrorKind::Refused, Some("use [[format]] dir")));
        assert!(error.to_string().contains("the metadata of d.wide cannot be in an archive"), "{error}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn segments_end_between_documents_and_before_they_are_too_large() {
        assert_eq!(segments(&document(SEGMENT)).unwrap(), [SEGMENT]);
        let frame = [document(SEGMENT - 5), document(5), document(5)].concat();
        assert_eq!(segments(&frame).unwrap(), [SEGMENT, SEGMENT + 5]);
        let frame = [document(6), document(SEGMENT - 5), document(7)].concat();
        assert_eq!(segments(&frame).unwrap(), [6, SEGMENT + 1, SEGMENT + 8]);
        let error = segments(&document(SEGMENT + 1)).unwrap_err();
        assert_eq!((error.kind(), error.hint_text()), (ErrorKind::Refused, Some("use [[format]] dir")));
    }
}
