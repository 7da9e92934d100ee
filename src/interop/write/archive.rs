//! An archive: the prelude, then namespace after namespace, each document where the one before it ends.

use bytes::Bytes;

use super::place::{Unfinished, blocking};
use super::sink::Output;
use super::{Contents, Destination, WriteOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::Documents;
use crate::format::mongodump::write::{self, Crc, SEGMENT};
use crate::format::mongodump::{Member, OPLOG, Prelude, TERMINATOR};
use crate::pipeline::cpu::Cpu;

/// An archive being written.
#[derive(Debug)]
pub(super) struct Archive {
    /// None of standard output.
    file: Option<Unfinished>,
    output: Output,
    cpu: Cpu,
    /// The databases and collections of the blocks that are still to come, the next one last.
    coming: Vec<(String, String)>,
    now: (String, String),
    crc: Crc,
    has_segment: bool,
}

impl Archive {
    pub(super) async fn open(destination: &Destination, options: WriteOptions, contents: Contents, cpu: &Cpu) -> Result<Self> {
        let (file, mut output) = match destination {
            Destination::Stdout => (None, Output::stdout(options.gzip, cpu)?),
            Destination::Path(path) => {
                let (path, name) = (path.clone(), destination.to_string());
                let (unfinished, file) = blocking(move || Unfinished::file(&path, options.force)).await?;
                (Some(unfinished), Output::file(file, name, options.gzip, cpu))
            }
        };
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
        let prelude = Prelude {
            // One after the other.
            concurrent: 1,
            server_version: contents.server_version,
            tool_version: contents.tool_version,
            namespaces,
        };
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

    pub(super) async fn commit(self) -> Result<u64> {
        let written = self.output.end().await?.finish().await?;
        if let Some(file) = self.file {
            blocking(move || file.put()).await?;
        }
        Ok(written)
    }

    pub(super) async fn abandon(self) {
        // Whoever reads standard output may keep a write waiting for ever.
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

/// Where the segments end that these documents are divided into.
fn segments(documents: &[u8]) -> Result<Vec<usize>> {
    let (mut ends, mut from, mut at) = (Vec::new(), 0, 0);
    for document in Documents::of(documents) {
        let length = document?.len();
        if length > SEGMENT {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("a document of {length} bytes cannot be in an archive, whose readers take {SEGMENT} at most"),
            )
            .hint("use --format dir"));
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

    fn document(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        bytes[..4].copy_from_slice(&(length as i32).to_le_bytes());
        bytes
    }

    #[test]
    fn segments_end_between_documents_and_before_they_are_too_large() {
        assert_eq!(segments(&document(SEGMENT)).unwrap(), [SEGMENT]);
        let frame = [document(SEGMENT - 5), document(5), document(5)].concat();
        assert_eq!(segments(&frame).unwrap(), [SEGMENT, SEGMENT + 5]);
        let frame = [document(6), document(SEGMENT - 5), document(7)].concat();
        assert_eq!(segments(&frame).unwrap(), [6, SEGMENT + 1, SEGMENT + 8]);
        let error = segments(&document(SEGMENT + 1)).unwrap_err();
        assert_eq!((error.kind(), error.hint_text()), (ErrorKind::Refused, Some("use --format dir")));
    }
}
