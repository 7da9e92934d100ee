//! The only writer to standard output and standard error, except for progress bars.

use std::io::{self, Write as _};
use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::render::plain;
use crate::error::{Error, ErrorKind, Face};
use crate::format::manifest::Manifest;

/// A JSON object that is written piece by piece. As one tree it would take many times the memory.
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

/// A value's fields, and some more.
#[derive(Debug, Serialize)]
struct With<T> {
    #[serde(flatten)]
    value: T,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// A long successful result, with these fields in addition to its own.
pub fn long(value: impl Serialize + std::fmt::Debug + 'static, mut more: Map<String, Value>) -> Option<Box<dyn Long>> {
    more.insert("success".to_owned(), true.into());
    Some(Box::new(With { value, more }))
}

/// The outcome of a verb.
#[derive(Debug, Default)]
pub struct Outcome {
    /// For people: whole lines.
    pub text: String,
    /// For programs: the fields of an object.
    pub json: Map<String, Value>,
    /// For programs, instead of `json` if nothing failed: a result too long to build before it is
    /// written.
    pub long: Option<Box<dyn Long>>,
    /// Why it counts as failed although there is a result, for example a verification with
    /// findings.
    pub failure: Option<Error>,
    /// It did its work, and found that two things differ.
    pub differs: bool,
}

/// The exit code of a verb that found a difference, which is a result and no failure.
const DIFFERENT: u8 = 3;

impl Outcome {
    /// The outcome of a verb that succeeded.
    #[must_use]
    pub fn done(text: String, json: Map<String, Value>) -> Self {
        Self { text, json, ..Self::default() }
    }
}

/// What the output says of a new backup at this place.
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

/// The fields of a value that is written as a JSON object.
///
/// # Errors
/// [`ErrorKind::Internal`] if it is not written as an object.
pub fn fields(value: &impl Serialize) -> Result<Map<String, Value>, Error> {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Error::new(ErrorKind::Internal, "the result is not an object")),
        Err(e) => Err(Error::new(ErrorKind::Internal, "the result cannot be written as JSON").cause(e)),
    }
}

/// Writes the outcome of a verb as text or as one JSON object, and returns the exit code.
#[must_use]
pub fn finish(ended: Result<Outcome, Error>, json: bool) -> ExitCode {
    let Outcome { text, json: mut fields, long, failure, differs } =
        ended.unwrap_or_else(|error| Outcome { failure: Some(error), ..Outcome::default() });
    let code = failure.as_ref().map_or(if differs { DIFFERENT } else { 0 }, Error::exit_code);
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
        // A broken pipe is no error: the reader of the output stopped reading.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            to_stderr(&format!("error: cannot write to standard output: {e}\n"));
            ExitCode::from(code.max(1))
        }
        _ => ExitCode::from(code),
    }
}

/// An error for people. Text from a server or a file may hold control characters; they are escaped
/// so that they cannot control the terminal.
fn error_text(error: &Error) -> String {
    let (message, hint) = error.told(Face::CommandLine);
    let hint = hint.map(|hint| format!("hint: {}\n", plain(&hint))).unwrap_or_default();
    format!("error: {}\n{hint}", plain(&message))
}

/// Writes to standard output.
///
/// # Errors
/// Those of the operating system. If the reader has gone, it is `BrokenPipe`.
pub fn to_stdout(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes a long successful result piece by piece.
fn long_to_stdout(long: &dyn Long) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    long.write(&mut out)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Writes to standard error. If that fails, nothing is left to report it to.
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
