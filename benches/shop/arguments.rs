//! The arguments of a benchmark: `--name value` and `--name`.

use std::fmt::Debug;
use std::str::FromStr;

/// Arguments that have not been read yet.
pub struct Arguments {
    usage: &'static str,
    given: Vec<String>,
}

impl Arguments {
    /// The arguments of this process. `--help` prints `usage`.
    pub fn read(usage: &'static str) -> Self {
        // cargo adds `--bench`.
        let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
        if given.iter().any(|argument| argument == "--help") {
            println!("{usage}");
            std::process::exit(0);
        }
        Self { usage, given }
    }

    /// Whether this flag is given.
    pub fn flag(&mut self, name: &str) -> bool {
        let place = self.given.iter().position(|argument| argument == name);
        place.map(|place| self.given.remove(place)).is_some()
    }

    /// The value of this argument, if given.
    pub fn text(&mut self, name: &str) -> Option<String> {
        let place = self.given.iter().position(|argument| argument == name)?;
        if place + 1 == self.given.len() {
            self.refuse(&format!("{name} needs a value"));
        }
        self.given.remove(place);
        Some(self.given.remove(place))
    }

    /// The number of this argument, or `default`.
    pub fn number<T: FromStr<Err: Debug>>(&mut self, name: &str, default: T) -> T {
        match self.text(name) {
            None => default,
            Some(text) => text.parse().unwrap_or_else(|_| self.refuse(&format!("{name} takes a number, not {text:?}"))),
        }
    }

    /// Ends the process if an argument is unknown.
    pub fn finish(self) {
        if let Some(unknown) = self.given.first() {
            self.refuse(&format!("{unknown:?} is not known"));
        }
    }

    fn refuse(&self, what: &str) -> ! {
        eprintln!("{what}\n{}", self.usage);
        std::process::exit(2);
    }
}
