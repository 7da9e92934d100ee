//! One error for the whole crate: a kind that decides what a caller does, a message that names what happened to which
//! object and where, and a hint that says what to do about it.

mod said;

use std::fmt;

pub use said::Face;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller may want to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Wrong usage or configuration: nothing was tried.
    Usage,
    /// What is needed for it is not configured: nothing was tried.
    NotConfigured,
    /// A backup, database or collection that was asked for does not exist.
    NotFound,
    /// A server does not answer.
    Unreachable,
    /// A server answered and refused the login or a right.
    Denied,
    /// A server failed a command for another reason.
    Server,
    /// What is stored is not what was written: truncated, changed, or not a backup at all.
    Damaged,
    /// Two things that must be equal are not: a digest, a count.
    Mismatch,
    /// The storage refused: no space, no permission, not supported.
    Storage,
    /// The operation would harm what it must not, and was refused before anything was changed.
    Refused,
    /// Another one is at work where only one may be: it passes by waiting.
    Busy,
    /// More is asked for than is taken at a time: it passes by waiting.
    TooMany,
    /// The snapshot that every read shares cannot be read any more.
    SnapshotLost,
    /// Stopped on request.
    Interrupted,
    /// The service ends and takes no more work.
    Closing,
    /// A defect of this program, or something the operating system did.
    Internal,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [Self; 16] = [
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
        Self::Interrupted,
        Self::Closing,
        Self::Internal,
    ];

    /// The kind of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The code that programs read: `error.kind` of an answer of the service, of a job, and of `--json`. It never changes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            // To programs they are one, as they always were.
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
            Self::Interrupted => "interrupted",
            Self::Closing => "closing",
            Self::Internal => "internal",
        }
    }
}

/// An error: kind, message, hint and cause.
///
/// `Display` gives the message with its context, outermost first, as the service says it; the hint stands apart so that each
/// face (terminal, JSON) can place it. Both name options by tokens, which [`Face`] puts into words.
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
    /// An error of this kind. The message is lower case, has no full stop, and names the object, the place, what was
    /// expected and what was found.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), hint: None, job: None, cause: None }))
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds to what the hint says already.
    #[must_use]
    pub fn hint_too(self, more: impl fmt::Display) -> Self {
        let hint = self.hint_text().map_or_else(|| more.to_string(), |hint| format!("{hint}; {more}"));
        self.hint(hint)
    }

    /// Names the job of the service that this is about: the one that is at work already.
    #[must_use]
    pub fn job(mut self, id: impl Into<String>) -> Self {
        self.0.job = Some(id.into());
        self
    }

    /// Keeps the error that led to this one.
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

    /// Replaces a name that means nothing to whoever reads the message.
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

    /// What to do about it, where something is known. Its options are tokens: no text to show.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The message, and the hint where there is one, as this face shows them.
    #[must_use]
    pub fn told(&self, face: Face) -> (String, Option<String>) {
        (face.say(&self.0.message), self.hint_text().map(|hint| face.say(hint)))
    }

    /// The job of the service that this is about, where it is about one.
    #[must_use]
    pub fn job_id(&self) -> Option<&str> {
        self.0.job.as_deref()
    }

    /// The exit code of a process that ends with this error: 2 wrong usage or configuration, 3 something does not match,
    /// 130 interrupted, 1 everything else.
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
