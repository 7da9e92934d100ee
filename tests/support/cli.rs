//! Runs the built binary as a user would, without the environment of the tests.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A working directory of its own, so that no `.env` or `rocket.toml` is found, and a clean
/// environment.
pub struct Cli {
    dir: TempDir,
    environment: Vec<(String, String)>,
    files: Option<u32>,
}

#[derive(Clone, Debug)]
pub struct Output {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Cli {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), environment: Vec::new(), files: None }
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// The most files that it may have open.
    pub fn files(mut self, most: u32) -> Self {
        self.files = Some(most);
        self
    }

    /// Its working directory and `HOME`, which are deleted when this is dropped.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn command<S: AsRef<str>>(&self, args: &[S]) -> Command {
        let program = env!("CARGO_BIN_EXE_bsonvault");
        let mut command = match self.files {
            None => Command::new(program),
            Some(most) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {most} && exec \"$0\" \"$@\""), program]);
                shell
            }
        };
        command.args(args.iter().map(AsRef::as_ref)).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env_clear().env("HOME", self.dir.path());
        command.envs(["PATH", "LLVM_PROFILE_FILE"].iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Waits for it on a separate thread, so that other tasks of the test continue.
    pub async fn run<S: AsRef<str>>(&self, args: &[S]) -> Output {
        let mut command = self.command(args);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        Output::from(output)
    }

    /// The JSON object of a run that must succeed; adds `--json`.
    pub async fn json<S: AsRef<str>>(&self, args: &[S]) -> serde_json::Value {
        let args: Vec<&str> = args.iter().map(AsRef::as_ref).chain(["--json"]).collect();
        let output = self.run(&args).await;
        assert_eq!(output.code, Some(0), "bsonvault {args:?} failed:\n{}\n{}", output.stdout, output.stderr);
        output.json()
    }

    /// Starts it with its output piped, to interrupt or kill it on the way.
    pub fn spawn<S: AsRef<str>>(&self, args: &[S]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

impl Output {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not one JSON value: {e}\n{}\n{}", self.stdout, self.stderr))
    }
}

impl From<std::process::Output> for Output {
    fn from(output: std::process::Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Waits for a spawned process on a separate thread.
pub async fn finish(child: Child) -> Output {
    Output::from(tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap())
}
