//! Reports the figures: as a table beside a baseline, with the requirements, and as JSON.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::figures::{Results, Setting, Step};
use crate::whole::{LIMITS, is_foreign};

/// The ratio to the baseline above which a figure counts as worse.
const WORSE: f64 = 1.15;
/// The memory that buffers may take by default, in MiB.
const BUFFERS: f64 = 256.0;

/// The required figures: at least the first number and at most the second.
const REQUIRED: [(&str, f64, f64); 9] = [
    ("backup / read limit", 0.0, 2.2),
    ("import / insert limit", 0.0, 1.25),
    ("verify --deep, MB/s of BSON", 800.0, f64::INFINITY),
    ("scaling: time of the backup", 9.0, 11.0),
    ("scaling: time of the import", 9.0, 11.0),
    ("scaling: peak of the backup", 0.0, 1.1),
    ("scaling: peak of the import", 0.0, 1.1),
    ("many: backup, s", 0.0, 30.0),
    ("many: import / creating limit", 0.0, 2.0),
];

/// A requirement and its result.
struct Requirement {
    what: String,
    bounds: (f64, f64),
    /// `None` if it was not measured.
    found: Option<f64>,
}

impl Requirement {
    fn all(results: &Results) -> Vec<Self> {
        let named = REQUIRED.iter().map(|&(what, low, high)| Self {
            what: what.to_owned(),
            bounds: (low, high),
            found: results.find(what),
        });
        let peaks = results.peaks.iter().map(|(whose, peak)| {
            let what = format!("peak memory of {whose}, MiB");
            Self { what, bounds: (0.0, BUFFERS + results.resting), found: Some(*peak) }
        });
        named.chain(peaks).collect()
    }

    fn is_met(&self) -> Option<bool> {
        self.found.map(|found| (self.bounds.0..=self.bounds.1).contains(&found))
    }

    fn wanted(&self) -> String {
        match self.bounds {
            (low, f64::INFINITY) => format!("at least {low:.0}"),
            (0.0, high) if high < 10.0 => format!("at most {high}"),
            (0.0, high) => format!("at most {high:.0}"),
            (low, high) => format!("{low} to {high}"),
        }
    }
}

/// The ratios of an earlier run.
pub struct Baseline {
    setting: Value,
    ratios: BTreeMap<String, f64>,
}

impl Baseline {
    /// The baseline in this file, if there is one.
    pub fn read(file: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(file).ok()?;
        let value: Value = serde_json::from_str(&text).unwrap();
        Some(Self { setting: value["setting"].clone(), ratios: serde_json::from_value(value["ratios"].clone()).unwrap() })
    }

    /// The baseline of these results. Other programs' figures are not part of it.
    pub fn of(results: &Results) -> Self {
        let ratios = results.figures.iter().filter(|(name, _)| name.contains(" / ") && !is_foreign(name));
        let rounded = |figure: f64| (figure * 1000.0).round() / 1000.0;
        Self { setting: setting(&results.setting), ratios: ratios.map(|(name, ratio)| (name.clone(), rounded(*ratio))).collect() }
    }

    pub fn json(&self) -> Value {
        json!({ "setting": self.setting, "ratios": self.ratios })
    }
}

pub fn print(results: &Results, baseline: Option<&Baseline>) {
    let Setting { cores, processor, memory_gib, system, documents, runs, versions, .. } = &results.setting;
    println!("\n{documents} documents, {runs} runs, on {cores} cores of {processor}, {memory_gib} GiB, Linux {system}");
    println!("{}", versions.iter().map(|(name, version)| format!("{name} {version}")).collect::<Vec<_>>().join(", "));
    match baseline {
        None => println!("there is no benches/baseline.json to compare with: --baseline writes one"),
        Some(baseline) => {
            let now = setting(&results.setting);
            let shaped_by = ["documents", "collections", "standalone", "cores", "processor"];
            for what in shaped_by.into_iter().filter(|what| baseline.setting[*what] != now[*what]) {
                println!("the baseline was taken with other {what}: {} instead of {}", baseline.setting[what], now[what]);
            }
        }
    }
    if !results.steps.all().is_empty() {
        println!("\nseconds are medians; CPU is processor seconds; MB are 10^6 bytes of BSON; peak is resident memory\n");
        println!(
            "{:<27} {:>7} {:>7} {:>7} {:>6} {:>6} {:>7} {:>6}   ratio",
            "", "s", "least", "most", "MB/s", "CPU", "server", "MiB"
        );
        for step in results.steps.best() {
            println!("{}", row(step, results, baseline));
        }
        println!();
        for step in results.steps.best().into_iter().filter(|step| !step.way.is_empty()) {
            println!("{}: {}", step.name, step.way);
        }
    }
    let of_steps = |name: &str| LIMITS.iter().any(|(step, limit)| name == format!("{step} / {limit}"));
    for (name, ratio) in results.figures.iter().filter(|(name, _)| name.contains(" / ") && !of_steps(name)) {
        println!("{name:<60} {}", compared(name, *ratio, baseline));
    }
    println!("\nrequired");
    for requirement in Requirement::all(results) {
        let found = requirement.found.map_or_else(|| "not measured".to_owned(), |found| format!("{found:.2}"));
        let verdict = match requirement.is_met() {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "",
        };
        println!("  {:<58} {:<14} {found:>12}  {verdict}", requirement.what, requirement.wanted());
    }
}

fn row(step: &Step, results: &Results, baseline: Option<&Baseline>) -> String {
    let or_dash = |figure: Option<f64>, digits: usize| figure.map_or_else(|| "-".to_owned(), |f| format!("{f:.digits$}"));
    let mut row = format!(
        "{:<27} {:>7.2} {:>7.2} {:>7.2} {:>6.0} {:>6} {:>7} {:>6}",
        step.name,
        step.seconds(),
        step.least(),
        step.most(),
        step.megabytes_per_second(),
        or_dash(step.median(|taken| Some(taken.cpu)), 2),
        or_dash(step.median(|taken| taken.server_cpu), 2),
        or_dash(step.peak(), 0)
    );
    if let Some((_, limit)) = LIMITS.iter().find(|(name, _)| *name == step.name) {
        let name = format!("{} / {limit}", step.name);
        if let Some(ratio) = results.find(&name) {
            row += &format!("   {} of the {limit}", compared(&name, ratio, baseline));
        }
    }
    row
}

/// A ratio, and how it compares with the baseline.
fn compared(name: &str, ratio: f64, baseline: Option<&Baseline>) -> String {
    let Some(before) = baseline.and_then(|baseline| baseline.ratios.get(name)) else { return format!("{ratio:.2}") };
    let change = ratio / before;
    let mark = if change > WORSE { " WORSE" } else { "" };
    format!("{ratio:.2} (baseline {before:.2}, {:+.0} %{mark})", (change - 1.0) * 100.0)
}

/// All results.
pub fn json(results: &Results) -> Value {
    let steps: Vec<Value> = results.steps.all().iter().map(of_step).collect();
    let requirements: Vec<Value> = Requirement::all(results)
        .iter()
        .map(|r| json!({ "what": r.what, "required": r.wanted(), "found": r.found, "met": r.is_met() }))
        .collect();
    json!({
        "setting": setting(&results.setting),
        "steps": steps,
        "figures": results.figures.iter().cloned().collect::<BTreeMap<_, _>>(),
        "peakMib": results.peaks.iter().cloned().collect::<BTreeMap<_, _>>(),
        "restingMib": results.resting,
        "requirements": requirements,
    })
}

fn of_step(step: &Step) -> Value {
    json!({
        "name": step.name,
        "way": step.way,
        "seconds": { "median": step.seconds(), "least": step.least(), "most": step.most(),
            "all": step.taken.iter().map(|taken| taken.seconds).collect::<Vec<_>>() },
        "megabytesPerSecond": step.megabytes_per_second(),
        "cpuSeconds": step.median(|taken| Some(taken.cpu)),
        "serverCpuSeconds": step.median(|taken| taken.server_cpu),
        "peakMib": step.peak(),
    })
}

fn setting(setting: &Setting) -> Value {
    json!({
        "documents": setting.documents,
        "runs": setting.runs,
        "collections": setting.collections,
        "standalone": setting.standalone,
        "cores": setting.cores,
        "processor": setting.processor,
        "memoryGib": setting.memory_gib,
        "system": setting.system,
        "versions": setting.versions.iter().cloned().collect::<BTreeMap<_, _>>(),
    })
}

/// Writes a file, relative to the directory where the program was started.
pub fn write(file: &Path, value: &Value) {
    std::fs::write(file, serde_json::to_string_pretty(value).unwrap() + "\n").unwrap();
    println!("written to {}", file.display());
}
