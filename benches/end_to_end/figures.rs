//! The measured figures.

use std::time::Instant;

use bson::doc;
use mongodb::Client;
use serde_json::Value;

use crate::Asked;
use crate::shop::median;
use crate::shop::process::{Measured, bsonvault, cpu_seconds, run, server_process};

/// The results of one run of this program.
pub struct Results {
    pub setting: Setting,
    pub steps: Steps,
    /// Single figures by name. A name with ` / ` is a ratio; lower is better.
    pub figures: Vec<(String, f64)>,
    /// Peak memory in MiB, by process.
    pub peaks: Vec<(String, f64)>,
    /// The memory of a process that does next to nothing, in MiB.
    pub resting: f64,
}

impl Results {
    pub fn new(setting: Setting) -> Self {
        Self { setting, steps: Steps::default(), figures: Vec::new(), peaks: Vec::new(), resting: 0.0 }
    }

    pub fn figure(&mut self, name: impl Into<String>, figure: f64) {
        self.figures.push((name.into(), figure));
    }

    /// Records the server that is measured.
    pub async fn keep_version(&mut self, client: &Client, name: &str) {
        let build = client.database("admin").run_command(doc! { "buildInfo": 1 }).await.unwrap();
        self.setting.versions.push((name.to_owned(), build.get_str("version").unwrap().to_owned()));
    }

    pub fn find(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|(known, _)| known == name).map(|(_, figure)| *figure)
    }

    /// Prints a scenario's step, and records its peak memory.
    pub fn tell(&mut self, name: &str, taken: &[Taken]) {
        let seconds: Vec<f64> = taken.iter().map(|taken| taken.seconds).collect();
        let peak = taken.iter().filter_map(|taken| taken.peak_mib).fold(0.0, f64::max);
        let memory = if peak > 0.0 { format!("   peak {peak:.0} MiB") } else { String::new() };
        println!("  {name:<44} {:8.2} s   of {seconds:.2?}{memory}", median(&seconds));
        self.figure(format!("{name}, s"), median(&seconds));
        if peak > 0.0 {
            self.peaks.push((name.to_owned(), peak));
        }
    }
}

/// The setting of the measurement.
pub struct Setting {
    pub documents: usize,
    pub runs: usize,
    /// Collections of `--many`.
    pub collections: usize,
    pub cores: usize,
    pub processor: String,
    pub memory_gib: f64,
    pub system: String,
    pub standalone: bool,
    /// Names and versions of the server and of MongoDB's tools.
    pub versions: Vec<(String, String)>,
}

impl Setting {
    pub fn here(asked: &Asked) -> Self {
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        let value = |text: String, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
            line.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let kib: f64 = value(text("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0);
        Self {
            documents: asked.documents,
            runs: asked.runs,
            collections: asked.collections,
            standalone: asked.standalone,
            cores: bsonvault::context::cpu::cores(),
            processor: value(text("/proc/cpuinfo"), "model name"),
            memory_gib: (kib / 1024.0 / 1024.0).round(),
            system: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            versions: vec![("bsonvault".to_owned(), env!("CARGO_PKG_VERSION").to_owned())],
        }
    }
}

/// Steps in the order of their first measurement.
#[derive(Default)]
pub struct Steps(Vec<Step>);

/// One step that each run does in one way.
pub struct Step {
    pub name: String,
    /// The way, if there are several.
    pub way: String,
    /// The bytes of BSON that it processes.
    pub bytes: f64,
    pub taken: Vec<Taken>,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    pub seconds: f64,
    /// Processor time of the measured process.
    pub cpu: f64,
    /// Processor time of the server.
    pub server_cpu: Option<f64>,
    pub peak_mib: Option<f64>,
}

impl Steps {
    pub fn add(&mut self, name: &str, way: &str, bytes: f64, taken: Taken) {
        match self.0.iter_mut().find(|step| step.name == name && step.way == way) {
            Some(step) => step.taken.push(taken),
            None => self.0.push(Step { name: name.to_owned(), way: way.to_owned(), bytes, taken: vec![taken] }),
        }
    }

    pub fn all(&self) -> &[Step] {
        &self.0
    }

    /// For each name, the way with the shortest median.
    pub fn best(&self) -> Vec<&Step> {
        let mut best: Vec<&Step> = Vec::new();
        for step in &self.0 {
            match best.iter_mut().find(|known| known.name == step.name) {
                Some(known) if step.seconds() < known.seconds() => *known = step,
                Some(_) => {}
                None => best.push(step),
            }
        }
        best
    }

    pub fn of(&self, name: &str) -> Option<&Step> {
        self.best().into_iter().find(|step| step.name == name)
    }
}

impl Step {
    pub fn seconds(&self) -> f64 {
        median(&self.figures(|taken| Some(taken.seconds)))
    }

    pub fn megabytes_per_second(&self) -> f64 {
        self.bytes / 1e6 / self.seconds()
    }

    /// The median, if there is one.
    pub fn median(&self, figure: impl Fn(&Taken) -> Option<f64>) -> Option<f64> {
        let figures = self.figures(figure);
        (!figures.is_empty()).then(|| median(&figures))
    }

    pub fn peak(&self) -> Option<f64> {
        self.figures(|taken| taken.peak_mib).into_iter().reduce(f64::max)
    }

    pub fn least(&self) -> f64 {
        self.figures(|taken| Some(taken.seconds)).into_iter().fold(f64::INFINITY, f64::min)
    }

    pub fn most(&self) -> f64 {
        self.figures(|taken| Some(taken.seconds)).into_iter().fold(0.0, f64::max)
    }

    fn figures(&self, figure: impl Fn(&Taken) -> Option<f64>) -> Vec<f64> {
        self.taken.iter().filter_map(figure).collect()
    }
}

/// Measures steps against one server.
pub struct Meter {
    client: Client,
    process: Option<String>,
}

impl Meter {
    pub async fn of(client: &Client) -> Self {
        Self { client: client.clone(), process: server_process(client).await }
    }

    /// Runs the binary with these arguments, and returns its report.
    pub async fn bsonvault(&self, arguments: &[&str]) -> (Taken, Value) {
        let before = self.settle().await;
        let measured = bsonvault(arguments);
        (self.taken(&measured, before), measured.report)
    }

    /// Runs another program.
    pub async fn program(&self, program: &str, arguments: &[&str]) -> Taken {
        let before = self.settle().await;
        let (measured, _) = run(program, arguments);
        self.taken(&measured, before)
    }

    /// Measures work of this process.
    pub async fn own<T>(&self, work: impl Future<Output = T>) -> (Taken, T) {
        let before = self.settle().await;
        let (cpu, begin) = (cpu_seconds("self").unwrap_or(0.0), Instant::now());
        let done = work.await;
        let seconds = begin.elapsed().as_secs_f64();
        let cpu = cpu_seconds("self").unwrap_or(0.0) - cpu;
        (Taken { seconds, cpu, server_cpu: self.since(before), peak_mib: None }, done)
    }

    /// Lets the server write out what it still holds from the step before. Returns the processor
    /// time that it has used so far.
    async fn settle(&self) -> Option<f64> {
        self.client.database("admin").run_command(doc! { "fsync": 1 }).await.unwrap();
        self.process.as_deref().and_then(cpu_seconds)
    }

    fn since(&self, before: Option<f64>) -> Option<f64> {
        Some(self.process.as_deref().and_then(cpu_seconds)? - before?)
    }

    fn taken(&self, measured: &Measured, before: Option<f64>) -> Taken {
        let Measured { seconds, cpu_seconds: cpu, peak_mib, .. } = *measured;
        Taken { seconds, cpu, server_cpu: self.since(before), peak_mib: Some(peak_mib) }
    }
}
