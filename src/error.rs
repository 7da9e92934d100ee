//! The error type of the crate. Its kind decides what a caller does, its message tells what
//! happened to which object and where, and its hint tells what to do about it.

mod said;

use std::fmt;

pub use said::Face;

/// The result of all fallible operations in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Kinds of errors that callers can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Wrong usage or configuration. Nothing was tried.
    Usage,
    /// A required setting is missing. Nothing was tried.
    NotConfigured,
    /// A requested backup, database or collection does not exist.
    NotFound,
    /// A server does not answer.
    Unreachable,
    /// A server answered, and refused the login or lacks a privilege.
    Denied,
    /// A server failed a command for another reason.
    Server,
    /// Stored data is not what was written: truncated, changed, or not a backup at all.
    Damaged,
    /// Two things that must be equal differ: a digest, a count.
    Mismatch,
    /// The storage refused: no space, no permission, not supported.
    Storage,
    /// The operation would do harm. It was refused before anything changed.
    Refused,
    /// Another operation holds what only one may hold. Waiting helps.
    Busy,
    /// Too many requests at the same time. Waiting helps.
    TooMany,
    /// The snapshot that all reads share is no longer readable.
    SnapshotLost,
    /// A part of the oplog that was never archived is in the way.
    Gap,
    /// Stopped on request.
    Interrupted,
    /// The service is shutting down and accepts no more work.
    Closing,
    /// A defect in this program, or a failure of the operating system.
    Internal,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [Self; 17] = [
        Self::Usage,
        Self::NotConfigured,
        Self::NotFound,
        Self::Unreachable,
        Self::Denied,
        Self::Server,
        Self::Damaged,
        Self::Mismatch,
        Self::Storage,
        Self::Refused,
        Self::Busy,
        Self::TooMany,
        Self::SnapshotLost,
        Self::Gap,
        Self::Interrupted,
        Self::Closing,
        Self::Internal,
    ];

    /// The kind with this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The name that programs read: `error.kind` in answers of the service, in jobs, and in
    /// `--json` output. It never changes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            // Programs have always seen both under one name.
            Self::Usage | Self::NotConfigured => "usage",
            Self::NotFound => "notFound",
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::Server => "server",
            Self::Damaged => "damaged",
            Self::Mismatch => "mismatch",
            Self::Storage => "storage",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::TooMany => "tooManyRequests",
            Self::SnapshotLost => "snapshotLost",
            Self::Gap => "gap",
            Self::Interrupted => "interrupted",
            Self::Closing => "closing",
            Self::Internal => "internal",
        }
    }
}

/// An error: kind, message, hint and cause.
///
/// `Display` gives the message with its context, outermost first, as the service words it. The hint
/// is separate, so that each face (terminal, JSON) can place it. Both name options by tokens, which
/// [`Face`] replaces by words.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    job: Option<String>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of this kind. The message is lower case, has no full stop, and names the object,
    /// the place, what was expected and what was found.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), hint: None, job: None, cause: None }))
    }

    /// Sets the hint: what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds to the hint.
    #[must_use]
    pub fn hint_too(self, more: impl fmt::Display) -> Self {
        let hint = self.hint_text().map_or_else(|| more.to_string(), |hint| format!("{hint}; {more}"));
        self.hint(hint)
    }

    /// Sets the job of the service that this is about: the one that is already running.
    #[must_use]
    pub fn job(mut self, id: impl Into<String>) -> Self {
        self.0.job = Some(id.into());
        self
    }

    /// Keeps the error that caused this one.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Puts the place or the activity in front of the message: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// Replaces a name in the message that its reader does not know.
    #[must_use]
    pub fn reworded(mut self, name: &str, by: &str) -> Self {
        self.0.message = self.0.message.replace(name, by);
        self
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The hint, if there is one. Its options are still tokens: it is not yet a text to show.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The message and the hint, as this face words them.
    #[must_use]
    pub fn told(&self, face: Face) -> (String, Option<String>) {
        (face.say(&self.0.message), self.hint_text().map(|hint| face.say(hint)))
    }

    /// The job of the service that this is about, if any.
    #[must_use]
    pub fn job_id(&self) -> Option<&str> {
        self.0.job.as_deref()
    }

    /// The exit code of a process that ends with this error: 2 for wrong usage or configuration, 3
    /// for a mismatch, 130 for an interruption, 1 for everything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.0.kind {
            ErrorKind::Usage | ErrorKind::NotConfigured => 2,
            ErrorKind::Mismatch => 3,
            ErrorKind::Interrupted => 130,
            _ => 1,
        }
    }

    /// Stopped on request.
    #[must_use]
    pub fn interrupted() -> Self {
        Self::new(ErrorKind::Interrupted, "interrupted")
    }

    /// Wrong usage or configuration.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// Stored bytes that are not what was written.
    pub fn damaged(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Damaged, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Face::Service.say(&self.0.message))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_deref().map(|e| e as &(dyn std::error::Error + 'static))
    }
}
