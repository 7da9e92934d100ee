//! `repository.json`: identifies the repository and its layout. A repository without it is read as
//! before, and gets one with its next backup. FORMAT.md describes it.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Repository;
use super::layout::REPOSITORY;
use crate::clock;
use crate::error::{Error, ErrorKind, Result};

/// The newest layout of a repository that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// The hint for an unreadable file.
const MOVE_AWAY: &str = "move it away: backups can be read without it, and the next backup writes a new one";

/// The largest file that is read, in bytes.
const LIMIT: u64 = 1024 * 1024;

/// The content of `repository.json`. Unknown members come from a later version, and are no error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryConfig {
    /// The version of the layout: which keys there are, and what they mean.
    pub format_version: u32,
    /// Identifies this repository, even after it was moved or copied to another path.
    pub id: Uuid,
    /// When it got its id.
    pub created: DateTime<Utc>,
}

/// Only this is read if the version is unknown: the rest may have another meaning there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    format_version: u32,
}

impl RepositoryConfig {
    fn new() -> Self {
        Self { format_version: FORMAT_VERSION, id: Uuid::new_v4(), created: clock::now() }
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let unreadable = |e: serde_json::Error| Error::damaged(format!("{REPOSITORY} cannot be read: {e}")).hint(MOVE_AWAY);
        let Version { format_version } = serde_json::from_slice(bytes).map_err(unreadable)?;
        if format_version > FORMAT_VERSION {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "{REPOSITORY} has format version {format_version}; this program supports versions up to {FORMAT_VERSION}"
                ),
            )
            .hint("use the version of bsonvault that wrote it, or a later one"));
        }
        serde_json::from_slice(bytes).map_err(unreadable)
    }
}

impl Repository {
    /// The content of `repository.json`. Writers ask for it first. None if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a later layout than this program supports;
    /// [`ErrorKind::Damaged`]; [`ErrorKind::Storage`].
    pub async fn config(&self) -> Result<Option<RepositoryConfig>> {
        let read = async {
            match self.objects.size(REPOSITORY).await {
                Ok(size) if size > LIMIT => Err(Error::damaged(format!("{REPOSITORY} is too large to be one")).hint(MOVE_AWAY)),
                Ok(_) => RepositoryConfig::from_bytes(&self.objects.get(REPOSITORY).await?).map(Some),
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                Err(e) => Err(e),
            }
        };
        read.await.map_err(|e: Error| e.context(format!("repository {}", self.location())))
    }

    /// Refuses to read a repository of a later layout. An unreadable `repository.json` only causes
    /// a warning in the log: it is no reason not to restore an intact backup.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`].
    pub async fn refuse_later(&self) -> Result<()> {
        match self.config().await {
            Err(e) if e.kind() != ErrorKind::Refused => {
                tracing::warn!("{e}; the backups are read nonetheless");
                Ok(())
            }
            config => config.map(|_| ()),
        }
    }

    /// Like [`config`](Self::config), and writes `repository.json` if there is none. Of several
    /// concurrent callers, one writes it, and all get its content.
    ///
    /// # Errors
    /// As for [`config`](Self::config).
    pub async fn identify(&self) -> Result<RepositoryConfig> {
        if let Some(config) = self.config().await? {
            return Ok(config);
        }
        let config = RepositoryConfig::new();
        let mut bytes = serde_json::to_vec_pretty(&config)
            .map_err(|e| Error::new(ErrorKind::Internal, format!("{REPOSITORY} cannot be written")).cause(e))?;
        bytes.push(b'\n');
        match self.objects.put_if_absent(REPOSITORY, Bytes::from(bytes)).await? {
            true => Ok(config),
            false => self.config().await?.ok_or_else(|| {
                Error::damaged(format!("repository {}: {REPOSITORY} is not a file", self.location())).hint(MOVE_AWAY)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn holding(bytes: &'static [u8]) -> Repository {
        let repository = Repository::in_memory();
        repository.objects().put(REPOSITORY, vec![Bytes::from_static(bytes)]).await.unwrap();
        repository
    }

    #[tokio::test]
    async fn it_is_written_once_and_read_again() {
        let repository = Repository::in_memory();
        assert_eq!(repository.config().await.unwrap(), None);
        let (one, other) = tokio::join!(repository.identify(), repository.identify());
        let one = one.unwrap();
        assert_eq!(one, other.unwrap());
        assert_eq!(repository.config().await.unwrap(), Some(one.clone()));
        assert_eq!((one.format_version, repository.identify().await.unwrap().id), (1, one.id));
    }

    #[tokio::test]
    async fn what_a_later_version_adds_is_no_error() {
        let bytes =
            br#"{"formatVersion":1,"id":"7d444840-9dc0-11d1-b245-5ffdce74fad2","created":"2026-01-01T00:00:00Z","more":[]}"#;
        let config = holding(bytes).await.identify().await.unwrap();
        assert_eq!(config.id.to_string(), "7d444840-9dc0-11d1-b245-5ffdce74fad2");
    }

    #[tokio::test]
    async fn one_of_a_later_layout_is_refused_whatever_else_it_says() {
        let error = holding(br#"{"formatVersion":2,"id":7}"#).await.identify().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("repository memory:/: repository.json has format version 2"), "{error}");
    }

    #[tokio::test]
    async fn a_broken_one_is_told_and_stays() {
        for bytes in
            [&b""[..], b"{", b"[]", br#"{"formatVersion":-1}"#, br#"{"formatVersion":1}"#, br#"{"formatVersion":1,"id":"x"}"#]
        {
            let repository = holding(bytes).await;
            let error = repository.identify().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
            assert!(error.to_string().contains("repository.json cannot be read"), "{error}");
            assert!(error.hint_text().is_some_and(|hint| hint.contains("move it away")), "{error}");
            assert_eq!(repository.objects().get(REPOSITORY).await.unwrap(), bytes);
        }
        let large = vec![Bytes::from(vec![b' '; 1024 * 1024 + 1])];
        let repository = Repository::in_memory();
        repository.objects().put(REPOSITORY, large).await.unwrap();
        assert!(repository.config().await.unwrap_err().to_string().contains("too large"));
    }
}
