//! Measures processes by what Linux reports in `/proc`.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bson::doc;
use mongodb::Client;
use serde_json::Value;

/// How often a process is sampled.
const POLL: Duration = Duration::from_millis(2);
/// The unit of `/proc/PID/stat`: `USER_HZ`, a hundredth of a second on every relevant architecture.
const TICKS: f64 = 100.0;

/// A process that succeeded.
pub struct Measured {
    /// From its start to its end.
    pub seconds: f64,
    /// The processor time it took, in user and kernel mode.
    pub cpu_seconds: f64,
    /// Its peak resident memory.
    pub peak_mib: f64,
    /// Its JSON report, if it printed one.
    pub report: Value,
}

/// Runs the binary with these arguments and `--json`. It must succeed.
pub fn bsonvault(arguments: &[&str]) -> Measured {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    let (measured, output) = run(env!("CARGO_BIN_EXE_bsonvault"), &arguments);
    Measured { report: serde_json::from_slice(&output).unwrap(), ..measured }
}

/// Runs a program, which must succeed, in its own directory and without the environment. Also
/// returns its standard output.
pub fn run(program: impl AsRef<OsStr>, arguments: &[&str]) -> (Measured, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    // Files, since a full pipe without a reader would block it.
    let file = |name| std::fs::File::create(directory.path().join(name)).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory.path()).env_clear().env("HOME", directory.path());
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
    let begin = Instant::now();
    let mut child = command.spawn().unwrap();
    let process = format!("/proc/{}", child.id());
    let mut peak_mib = 0.0;
    // It stays as a zombie until it is waited for, so its usage can still be read.
    let (seconds, cpu_seconds) = loop {
        let stat = std::fs::read_to_string(format!("{process}/stat")).unwrap();
        if fields(&stat).next() == Some("Z") {
            break (begin.elapsed().as_secs_f64(), ticks(&stat) / TICKS);
        }
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap_or_default();
        let kib = status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().split(' ').next()?.parse::<f64>().ok());
        peak_mib = kib.map_or(peak_mib, |kib| kib / 1024.0);
        std::thread::sleep(POLL);
    };
    let ended = child.wait().unwrap();
    let said = |name| std::fs::read(directory.path().join(name)).unwrap();
    let output = said("stdout");
    assert!(
        ended.success(),
        "{command:?} ended with {ended}\n{}{}",
        String::from_utf8_lossy(&output),
        String::from_utf8_lossy(&said("stderr"))
    );
    (Measured { seconds, cpu_seconds, peak_mib, report: Value::Null }, output)
}

/// The processor time that a process has used so far, if it can be read.
pub fn cpu_seconds(process: &str) -> Option<f64> {
    Some(ticks(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?) / TICKS)
}

/// The process of the server that serves this client, if it runs on this machine.
pub async fn server_process(client: &Client) -> Option<String> {
    let status = client.database("admin").run_command(doc! { "serverStatus": 1 }).await.ok()?;
    let process = status.get_i64("pid").ok()?.to_string();
    let name = std::fs::read_to_string(format!("/proc/{process}/comm")).ok()?;
    name.starts_with("mongod").then_some(process)
}

/// Field 3, the state, and the fields after it.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit(") ").next().unwrap_or_default().split(' ')
}

/// Fields 14 and 15: ticks in user and in kernel mode.
fn ticks(stat: &str) -> f64 {
    fields(stat).skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum()
}
