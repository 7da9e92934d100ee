//! Objects in memory: for tests, and for data that need no place. Like an object store, it holds
//! only whole objects.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};

use super::{Backend, Created, Entry, Found, Opened, Top, inside};
use crate::clock;
use crate::context::lock;
use crate::error::{Error, ErrorKind, Result};

/// A place in memory. Cloning shares the objects.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Empty, or ends with a slash. An object with exactly this key marks the place as claimed.
    prefix: String,
    objects: Arc<Mutex<BTreeMap<String, Object>>>,
}

#[derive(Debug, Clone)]
struct Object {
    bytes: Bytes,
    modified: SystemTime,
}

impl Memory {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Object>> {
        lock(&self.objects)
    }

    fn key(&self, key: &str) -> Result<String> {
        Ok(format!("{}{}", self.prefix, inside(key)?))
    }

    fn write(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.objects().insert(self.key(key)?, Object { bytes, modified: clock::now().into() });
        Ok(())
    }

    fn find(&self, key: &str) -> Result<Object> {
        self.objects().get(&self.key(key)?).cloned().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("{} does not exist", self.below(key).location().trim_end_matches('/')))
        })
    }

    /// The keys below this place, without those that mark claims.
    fn entries(&self) -> Vec<Entry> {
        let objects = self.objects();
        let below = objects.range(self.prefix.clone()..).take_while(|(key, _)| key.starts_with(&self.prefix));
        let entry = |(key, object): (&String, &Object)| Entry {
            key: key[self.prefix.len()..].to_owned(),
            size: object.bytes.len() as u64,
        };
        below.filter(|(key, _)| !key.ends_with('/')).map(entry).collect()
    }

    fn remove(&self) {
        self.objects().retain(|key, _| !key.starts_with(&self.prefix));
    }

    fn is_there(&self) -> bool {
        self.objects().range(self.prefix.clone()..).next().is_some_and(|(key, _)| key.starts_with(&self.prefix))
    }
}

fn ready<'a, T: Send + 'a>(done: T) -> BoxFuture<'a, T> {
    std::future::ready(done).boxed()
}

impl Backend for Memory {
    fn location(&self) -> String {
        format!("memory:/{}", self.prefix.trim_end_matches('/'))
    }

    fn below(&self, prefix: &str) -> Arc<dyn Backend> {
        Arc::new(Self { prefix: format!("{}{prefix}/", self.prefix), objects: self.objects.clone() })
    }

    fn put<'a>(&'a self, key: &'a str, chunks: Vec<Bytes>) -> BoxFuture<'a, Result<()>> {
        ready(self.write(key, chunks.concat().into()))
    }

    fn put_if_absent<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<bool>> {
        async move {
            let object = Object { bytes, modified: clock::now().into() };
            let (mut objects, key) = (self.objects(), self.key(key)?);
            let is_absent = !objects.contains_key(&key);
            objects.entry(key).or_insert(object);
            Ok(is_absent)
        }
        .boxed()
    }

    fn create(&self, key: &str) -> Result<Box<dyn Created>> {
        match self.objects().contains_key(&self.key(key)?) {
            true => Err(Error::new(ErrorKind::Refused, format!("{key} exists already"))),
            false => Ok(Box::new(Growing { of: self.clone(), key: key.to_owned(), bytes: Vec::new() })),
        }
    }

    fn open<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn Opened>>> {
        ready(self.find(key).map(|object| Box::new(object.bytes) as Box<dyn Opened>))
    }

    fn look<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Found>> {
        ready(self.find(key).map(|object| Found { size: object.bytes.len() as u64, modified: Some(object.modified) }))
    }

    fn list(&self) -> BoxStream<'_, Result<Entry>> {
        futures::stream::iter(self.entries().into_iter().map(Ok)).boxed()
    }

    fn top(&self) -> BoxFuture<'_, Result<Top>> {
        let mut top = Top::default();
        for entry in self.entries() {
            match entry.key.split_once('/') {
                Some((prefix, _)) => top.prefixes.push(prefix.to_owned()),
                None => top.objects.push(entry.key),
            }
        }
        top.prefixes.dedup();
        top.prefixes.sort();
        ready(Ok(top))
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        ready(self.key(key).map(|key| drop(self.objects().remove(&key))))
    }

    fn claim(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            let mut objects = self.objects();
            let is_taken = objects.range(self.prefix.clone()..).next().is_some_and(|(key, _)| key.starts_with(&self.prefix));
            if is_taken {
                return Err(Error::new(ErrorKind::Refused, format!("{} exists already", self.location())));
            }
            objects.insert(self.prefix.clone(), Object { bytes: Bytes::new(), modified: clock::now().into() });
            Ok(())
        }
        .boxed()
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let (from, to) = (self.key(from)? + "/", self.key(to)? + "/");
            let mut objects = self.objects();
            if objects.keys().any(|key| key.starts_with(&to)) {
                return Err(Error::new(ErrorKind::Refused, format!("memory:/{to} exists already")));
            }
            let keys: Vec<String> = objects.keys().filter(|key| key.starts_with(&from)).cloned().collect();
            for key in keys {
                if let Some(object) = objects.remove(&key) {
                    objects.insert(key.replacen(&from, &to, 1), object);
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn leave_note(&self, key: &str, bytes: &[u8]) -> Result<()> {
        self.write(key, Bytes::copy_from_slice(bytes))
    }

    fn take_note_away(&self, key: &str) -> Result<()> {
        self.key(key).map(|key| drop(self.objects().remove(&key)))
    }

    fn exists(&self) -> BoxFuture<'_, Result<bool>> {
        ready(Ok(self.is_there()))
    }

    fn delete_all(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            self.remove();
            Ok(())
        }
        .boxed()
    }

    fn until_dropped(&self) -> Box<dyn Debug + Send + Sync> {
        Box::new(Passing(self.clone()))
    }
}

/// A place that is removed when this is dropped.
#[derive(Debug)]
struct Passing(Memory);

impl Drop for Passing {
    fn drop(&mut self) {
        self.0.remove();
    }
}

impl Opened for Bytes {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(self.len());
        ready(Ok(self.slice(at(range.start)..at(range.end))))
    }
}

struct Growing {
    of: Memory,
    key: String,
    bytes: Vec<u8>,
}

impl Write for Growing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Created for Growing {
    fn finish(self: Box<Self>) -> Result<()> {
        self.of.write(&self.key, self.bytes.into())
    }
}
