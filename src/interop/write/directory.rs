//! Writes a directory of files: for each collection its documents and its metadata, with the oplog
//! and `prelude.json` beside them.

use std::collections::HashSet;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::vec::IntoIter;

use tokio::task::JoinSet;

use super::contents::{Contents, Described, stem};
use super::file::{self, blocking, failed};
use super::options::{Destination, WriteOptions, not_to_stdout};
use super::place::{Holds, Unfinished};
use super::sink::{Goal, Output, Room, small};
use crate::context::cpu::CpuPool;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::CollectionKind;
use crate::format::mongodump::write::prelude_json;

/// How many files to make durable at a time.
const ENDING: usize = 8;

/// A directory being filled.
#[derive(Debug)]
pub(super) struct Directory {
    root: Unfinished,
    gzip: Option<u32>,
    cpu: CpuPool,
    /// Shared by all files.
    room: Room,
    coming: IntoIter<Described>,
    oplog: bool,
    prelude: Vec<u8>,
    databases: HashSet<String>,
    output: Option<Output>,
    ending: JoinSet<Result<u64>>,
    written: u64,
}

impl Directory {
    pub(super) async fn open(
        destination: &Destination,
        options: WriteOptions,
        contents: Contents,
        cpu: &CpuPool,
    ) -> Result<Self> {
        let Destination::Path(path) = destination else {
            return Err(not_to_stdout());
        };
        for collection in &contents.collections {
            check_database(&collection.database)?;
        }
        let (path, holds) = (path.clone(), Holds::of(&contents.collections, options.whole));
        Ok(Self {
            root: blocking(move || Unfinished::directory(&path, options.force, holds)).await?,
            gzip: options.gzip,
            cpu: cpu.clone(),
            room: Room::new(),
            prelude: prelude_json(&contents.server_version, &contents.tool_version),
            coming: contents.collections.into_iter(),
            oplog: contents.oplog,
            databases: HashSet::new(),
            output: None,
            ending: JoinSet::new(),
            written: 0,
        })
    }

    pub(super) async fn begin(&mut self) -> Result<()> {
        let Some(collection) = self.coming.next() else {
            if !std::mem::take(&mut self.oplog) {
                return Err(Error::new(ErrorKind::Internal, "a directory was given more than it holds"));
            }
            // Never with `.gz`, whatever its content.
            return self.open_data("oplog.bson".to_owned(), "the oplog slice").await;
        };
        let Described { database, name, data, kind, metadata } = collection;
        if self.databases.insert(database.clone()) {
            self.make_directory(&database).await?;
        }
        let namespace = format!("{database}.{name}");
        let suffix = self.suffix();
        if !metadata.is_empty() {
            let file = format!("{database}/{}.metadata.json{suffix}", stem(&name));
            let goal = self.create(file, &namespace).await?;
            self.write_small(goal, metadata.into_bytes()).await?;
        }
        if kind == CollectionKind::View {
            return Ok(());
        }
        self.open_data(format!("{database}/{}.bson{suffix}", stem(&data)), &namespace).await
    }

    pub(super) async fn documents(&mut self, frame: Vec<u8>) -> Result<()> {
        match &mut self.output {
            Some(output) => output.write(frame.into()).await,
            None if frame.is_empty() => Ok(()),
            None => Err(Error::new(ErrorKind::Internal, "documents without a file to go to")),
        }
    }

    pub(super) async fn end(&mut self) -> Result<()> {
        if let Some(output) = &mut self.output {
            output.end().await?;
        }
        self.turn().await?;
        if let Some(mut output) = self.output.take() {
            self.ending.spawn(async move { output.finish().await });
        }
        Ok(())
    }

    pub(super) async fn finish(&mut self) -> Result<u64> {
        while let Some(ended) = self.ending.join_next().await {
            self.written += joined(ended)?;
        }
        let goal = self.create(format!("prelude.json{}", self.suffix()), "prelude.json").await?;
        self.write_small(goal, self.prelude.clone()).await?;
        while let Some(ended) = self.ending.join_next().await {
            self.written += joined(ended)?;
        }
        let root = self.root.path().to_owned();
        let databases: Vec<_> = self.databases.iter().map(|database| root.join(database)).collect();
        blocking(move || {
            databases.iter().try_for_each(|database| file::sync(database))?;
            file::sync(&root)
        })
        .await?;
        Ok(self.written)
    }

    pub(super) async fn put(self) -> Result<()> {
        let root = self.root;
        blocking(move || root.put()).await
    }

    pub(super) async fn abandon(mut self) {
        if let Some(output) = self.output.take() {
            output.abandon().await;
        }
        while self.ending.join_next().await.is_some() {}
        let root = self.root;
        // It may hold much data.
        let _removed = blocking(move || {
            drop(root);
            Ok(())
        })
        .await;
    }

    async fn make_directory(&self, database: &str) -> Result<()> {
        let (path, database) = (self.root.path().join(database), database.to_owned());
        blocking(move || {
            DirBuilder::new().mode(0o700).create(&path).map_err(|e| match e.kind() {
                io::ErrorKind::AlreadyExists => meets(&format!("the directory of the database {database}")).cause(e),
                _ => failed("create", &path.display(), e),
            })
        })
        .await
    }

    async fn open_data(&mut self, file: String, namespace: &str) -> Result<()> {
        let goal = self.create(file, namespace).await?;
        self.output = Some(Output::new(goal, self.gzip, &self.cpu, &self.room));
        Ok(())
    }

    async fn create(&self, name: String, namespace: &str) -> Result<Goal> {
        let (path, namespace) = (self.root.path().join(&name), namespace.to_owned());
        blocking(move || {
            let file = file::try_create(&path).map_err(|e| match e.kind() {
                io::ErrorKind::AlreadyExists => meets(&format!("{name} of {namespace}")).cause(e),
                _ => failed("create", &path.display(), e),
            })?;
            Ok(Goal { file, name: path.display().to_string(), durable: true })
        })
        .await
    }

    async fn write_small(&mut self, goal: Goal, content: Vec<u8>) -> Result<()> {
        self.turn().await?;
        let (gzip, cpu, room) = (self.gzip, self.cpu.clone(), self.room.clone());
        self.ending.spawn(async move { small(goal, content, gzip, &cpu, &room).await });
        Ok(())
    }

    /// Waits until one more file can be made durable.
    async fn turn(&mut self) -> Result<()> {
        while self.ending.len() >= ENDING {
            match self.ending.join_next().await {
                Some(ended) => self.written += joined(ended)?,
                None => break,
            }
        }
        Ok(())
    }

    fn suffix(&self) -> &'static str {
        if self.gzip.is_some() { ".gz" } else { "" }
    }
}

fn joined(ended: Result<Result<u64>, tokio::task::JoinError>) -> Result<u64> {
    ended.map_err(|e| Error::new(ErrorKind::Internal, "a writer crashed").cause(e))?
}

fn meets(what: &str) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!("{what} would have the name of another one: this file system does not distinguish them"),
    )
    .hint("use [[format]] archive, in which names do not collide")
}

/// mongodump uses a database's name unchanged, so it must be possible as a directory name. Servers
/// allow no other names.
fn check_database(name: &str) -> Result<()> {
    let one_part = Path::new(name).components().eq([std::path::Component::Normal(name.as_ref())]);
    if !one_part || name.contains(['/', '\0']) {
        return Err(Error::new(ErrorKind::Refused, format!("the name of the database {name:?} cannot be that of a directory"))
            .hint("use [[format]] archive"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_one_part_of_a_path_is_a_databases_directory() {
        for name in ["shop", "zoo_ünï", "-", "a b"] {
            assert!(check_database(name).is_ok(), "{name}");
        }
        for name in ["", ".", "..", "a/b", "/", "a/", "../a", "a\0b"] {
            assert_eq!(check_database(name).unwrap_err().kind(), ErrorKind::Refused, "{name}");
        }
    }
}
