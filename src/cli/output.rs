//! The only writer to standard output and standard error, progress bars aside.

use std::io::{self, Write as _};
use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::render::plain;
use crate::error::{Error, ErrorKind, Face};
use crate::format::manifest::Manifest;

/// A JSON object that is written piece by piece: as one tree it would take many times its text.
pub trait Long: std::fmt::Debug {
    /// Writes it.
    ///
    /// # Errors
    /// The writer's.
    fn write(&self, to: &mut dyn io::Write) -> io::Result<()>;
}

impl<T: Serialize + std::fmt::Debug> Long for T {
    fn write(&self, to: &mut dyn io::Write) -> io::Result<()> {
        Ok(serde_json::to_writer(to, self)?)
    }
}

/// A value's fields, and some beside them.
#[derive(Debug, Serialize)]
struct With<T> {
    #[serde(flatten)]
    value: T,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// What succeeded and is long, with these fields beside its own.
pub fn long(value: impl Serialize + std::fmt::Debug + 'static, mut more: Map<String, Value>) -> Option<Box<dyn Long>> {
    more.insert("success".to_owned(), true.into());
    Some(Box::new(With { value, more }))
}

/// What a verb has to say at its end.
#[derive(Debug, Default)]
pub struct Outcome {
    /// For people, whole lines.
    pub text: String,
    /// For programs: an object's fields.
    pub json: Map<String, Value>,
    /// For programs, in place of these fields where nothing failed: what is too long to be made before it is written.
    pub long: Option<Box<dyn Long>>,
    /// Why it counts as failed all the same: a verification that found something.
    pub failure: Option<Error>,
}

impl Outcome {
    /// The outcome of a verb that did what it was asked to.
    #[must_use]
    pub fn done(text: String, json: Map<String, Value>) -> Self {
        Self { text, json, ..Self::default() }
    }
}

/// The fields of a value that is written as a JSON object.
///
/// What is told of a backup that was made, at this place.
pub(super) fn made(location: &str, manifest: &Manifest) -> Value {
    json!({
        "name": manifest.name,
        "path": location,
        "created": manifest.created,
        "documents": manifest.totals.documents,
        "buckets": manifest.buckets(),
        "rawBytes": manifest.totals.raw_bytes,
        "storedBytes": manifest.totals.stored_bytes,
        "collections": manifest.totals.collections,
        "consistency": manifest.consistency,
        "leftOut": manifest.left_out,
    })
}

/// # Errors
/// [`ErrorKind::Internal`] where it is not.
pub fn fields(value: &impl Serialize) -> Result<Map<String, Value>, Error> {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Error::new(ErrorKind::Internal, "the result is not an object")),
        Err(e) => Err(Error::new(ErrorKind::Internal, "the result cannot be written as JSON").cause(e)),
    }
}

/// Writes what a verb ended with, as text or as one JSON object, and gives the exit code.
#[must_use]
pub fn finish(ended: Result<Outcome, Error>, json: bool) -> ExitCode {
    let Outcome { text, json: mut fields, long, failure } =
        ended.unwrap_or_else(|error| Outcome { failure: Some(error), ..Outcome::default() });
    let code = failure.as_ref().map_or(0, Error::exit_code);
    let written = if let (true, Some(long), None) = (json, &long, &failure) {
        long_to_stdout(&**long)
    } else if json {
        fields.insert("success".to_owned(), failure.is_none().into());
        if let Some(error) = &failure {
            let (message, hint) = error.told(Face::CommandLine);
            fields.insert("message".to_owned(), message.into());
            let mut described = json!({ "kind": error.kind().name() });
            if let Some(hint) = hint {
                described["hint"] = hint.into();
            }
            fields.insert("error".to_owned(), described);
        }
        to_stdout(&format!("{}\n", Value::Object(fields)))
    } else {
        let written = to_stdout(&text);
        if let Some(error) = &failure {
            to_stderr(&error_text(error));
        }
        written
    };
    match written {
        // Whoever read the output had enough of it.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            to_stderr(&format!("error: cannot write to standard output: {e}\n"));
            ExitCode::from(code.max(1))
        }
        _ => ExitCode::from(code),
    }
}

/// An error as people read it. What comes from a server or a file may hold anything: it does not get to control the terminal.
fn error_text(error: &Error) -> String {
    let (message, hint) = error.told(Face::CommandLine);
    let hint = hint.map(|hint| format!("hint: {}\n", plain(&hint))).unwrap_or_default();
    format!("error: {}\n{hint}", plain(&message))
}

/// Writes to standard output.
///
/// # Errors
/// The operating system's; a reader that went away is `BrokenPipe`.
pub fn to_stdout(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes what succeeded and is long, piece by piece.
fn long_to_stdout(long: &dyn Long) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    long.write(&mut out)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Writes to standard error. Where that fails there is no place left to say so.
pub fn to_stderr(text: &str) {
    let _nobody_reads = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_line_and_a_hint_is_one_whatever_they_quote() {
        let error = Error::usage("no \u{1b}[2J\u{7} here\nerror: forged").hint("look\r\nhint: forged");
        let text = error_text(&error);
        assert_eq!(text, "error: no \\u{1b}[2J\\u{7} here\\nerror: forged\nhint: look\\r\\nhint: forged\n");
    }
}
