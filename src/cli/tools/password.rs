//! Asks for a password on a terminal without showing it, else reads a line of standard input, as
//! MongoDB's tools do.

use std::io::{IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;

use crate::cli::output;
use crate::error::{Error, ErrorKind, Result};

/// The longest line that is read, in bytes.
const LONGEST: usize = 4096;

/// Asks for the password of this user.
///
/// # Errors
/// [`ErrorKind::Usage`] if there is none.
pub(super) fn ask(user: &str) -> Result<String> {
    output::to_stderr(&format!("password of {user}: "));
    let read = if std::io::stdin().is_terminal() { console::Term::stderr().read_secure_line() } else { line() };
    let failed = |e: std::io::Error| Error::new(ErrorKind::Usage, format!("the password of {user} cannot be read: {e}")).cause(e);
    let password = read.map_err(failed)?;
    if !std::io::stdin().is_terminal() {
        output::to_stderr("\n");
    }
    if password.is_empty() {
        return Err(Error::usage(format!("the user {user} has no password"))
            .hint("pass --password, put it into a file for --config, or pipe it to standard input"));
    }
    Ok(password)
}

/// One line, and not a byte more: an archive may follow it.
fn line() -> std::io::Result<String> {
    let mut input = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.len() < LONGEST && input.read(&mut byte)? == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    let text = String::from_utf8(line).map_err(|_| std::io::Error::other("it is not UTF-8"))?;
    Ok(text.strip_suffix('\r').map(str::to_owned).unwrap_or(text))
}
