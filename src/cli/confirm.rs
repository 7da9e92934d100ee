//! Asks on a terminal before something is lost. Without a terminal, `--yes` is the answer.

use std::io::{self, BufRead as _, IsTerminal as _};

use tokio::sync::oneshot;

use super::output;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};

/// How many of the things that would be lost are shown.
const SHOWN: usize = 20;

/// What would be lost.
#[derive(Debug, Default)]
pub(super) struct Loss {
    /// What it is, before a colon: "2 collections would be replaced".
    pub(super) what: String,
    /// Each thing that would be lost.
    pub(super) each: Vec<String>,
    /// What to do if there is no terminal to ask on.
    pub(super) hint: String,
}

/// Returns once the user agrees: with `yes` on the command line, or as an answer now.
///
/// # Errors
/// [`ErrorKind::Usage`] if there is nobody to ask; [`ErrorKind::Refused`] if the answer is no;
/// [`ErrorKind::Interrupted`].
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
    output::to_stderr(&format!("{question}Continue? [y/N] "));
    match cx.cancel.run_until_cancelled(answer()).await {
        Some(answer) if is_yes(&answer) => Ok(()),
        Some(_) => Err(Error::new(ErrorKind::Refused, "not confirmed; nothing was written")),
        None => Err(Error::interrupted()),
    }
}

/// The next line of standard input. Empty at its end.
async fn answer() -> String {
    // A thread of its own: the program can stop while it still reads.
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
