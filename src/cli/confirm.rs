//! Asking before something is lost: on a terminal, and else by `--yes`.

use std::io::{self, BufRead as _, IsTerminal as _};

use tokio::sync::oneshot;

use super::output;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};

/// How many lines of what would be lost are shown.
const SHOWN: usize = 20;

/// What would be lost.
#[derive(Debug, Default)]
pub(super) struct Loss {
    /// What it is, before a colon: "2 collections would be replaced".
    pub(super) what: String,
    /// Each of it.
    pub(super) each: Vec<String>,
    /// What to do where there is no terminal to ask on.
    pub(super) hint: String,
}

/// Returns once it may be done: when `yes` was said on the command line, or is said now.
///
/// # Errors
/// [`ErrorKind::Usage`] where there is nobody to ask; [`ErrorKind::Refused`] where the answer is no; [`ErrorKind::Interrupted`].
pub(super) async fn confirm(loss: Loss, yes: bool, cx: &Context) -> Result<()> {
    if yes {
        return Ok(());
    }
    let shown: Vec<&str> = loss.each.iter().take(SHOWN).map(String::as_str).collect();
    let more = loss.each.len() - shown.len();
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        return Err(Error::usage(format!("{}: {}{more}; nothing was written", loss.what, shown.join(", "))).hint(loss.hint));
    }
    let mut question = format!("\n{}:\n", loss.what);
    shown.iter().for_each(|line| question += &format!("  {line}\n"));
    if more > 0 {
        question += &format!("  and {more} more\n");
    }
    output::to_stderr(&format!("{question}Go on? [y/N] "));
    match cx.cancel.run_until_cancelled(answer()).await {
        Some(answer) if is_yes(&answer) => Ok(()),
        Some(_) => Err(Error::new(ErrorKind::Refused, "it was not confirmed, and nothing was written")),
        None => Err(Error::interrupted()),
    }
}

/// The next line of standard input; nothing at its end.
async fn answer() -> String {
    // A thread of its own: nobody waits for one that still reads when the program is to stop.
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line);
        let _nobody_waits = tell.send(read.map(|_| line).unwrap_or_default());
    });
    told.await.unwrap_or_default()
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        for yes in ["y\n", "Yes\r\n", " YES "] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n\n", "yeah\n", "y y\n", "да\n"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
