//! Shows progress while a verb works: bars if standard error is a terminal, else plain lines.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, HumanCount, HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::output;
use super::render::plain;
use crate::context::Context;
use crate::context::progress::{CollectionProgress, Progress, Rates, View};
use crate::error::Result;

/// The interval between redraws of the bars.
const DRAW: Duration = Duration::from_millis(200);
/// The shortest interval between plain lines.
const LINE: Duration = Duration::from_secs(5);
/// The time over which a rate is measured.
const WINDOW: Duration = Duration::from_secs(10);
/// Documents and bytes per second.
type Rate = (f64, f64);
/// The most collections that get a bar.
const BARS: usize = 8;
/// The longest name in front of a bar.
const NAME: usize = 40;

/// How this process shows progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Faces {
    /// Bars: standard error is a terminal.
    Bars,
    /// Plain lines.
    Lines,
    /// Nothing: a program reads the result.
    Silent,
}

impl Faces {
    /// What suits the streams of this process.
    #[must_use]
    pub fn of_this_process(json: bool) -> Self {
        match (std::io::stderr().is_terminal(), json) {
            (true, _) => Self::Bars,
            (false, false) => Self::Lines,
            (false, true) => Self::Silent,
        }
    }
}

/// Progress that is being shown.
#[derive(Debug)]
pub struct Shown {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Shown {
    /// Shows this progress until [`end`](Self::end).
    #[must_use]
    pub fn start(progress: Progress, faces: Faces) -> Self {
        let stop = CancellationToken::new();
        let ended = stop.clone();
        // Earlier phases were shown already: `dump` shows a backup and then an export.
        let told = progress.since(0).0.len();
        let task = tokio::spawn(async move {
            match faces {
                Faces::Bars => draw(&progress, &ended).await,
                Faces::Lines => write_lines(&progress, told, &ended).await,
                Faces::Silent => {}
            }
        });
        Self { stop, task }
    }

    /// Shows what is still to be shown, and removes the bars.
    pub async fn end(self) {
        self.stop.cancel();
        // If the task panicked, there is nothing left to show.
        let _shown = self.task.await;
    }
}

async fn write_lines(progress: &Progress, told: usize, ended: &CancellationToken) {
    let mut rates = Rates::over(WINDOW);
    let (mut seen, mut written, mut last) = (told, Instant::now(), String::new());
    loop {
        let over = ended.is_cancelled();
        let ((phases, view), now) = (progress.since(seen), Instant::now());
        seen += phases.len();
        let rate = rates.observe(&view, now);
        // Phases that ended before their counts could be shown are at least named.
        let ended_early = phases.len().saturating_sub(usize::from(!over));
        for phase in &phases[..ended_early] {
            output::to_stderr(&format!("{phase}\n"));
        }
        for note in progress.take_notes() {
            output::to_stderr(&format!("{note}\n"));
        }
        if over {
            return;
        }
        if !phases.is_empty() || (now - written >= LINE && !view.phase.is_empty()) {
            let line = total_line(&view, rate);
            // A verb that runs for weeks does not say the same all the time.
            if !phases.is_empty() || line != last {
                output::to_stderr(&format!("{line}\n"));
            }
            (written, last) = (now, line);
        }
        tokio::select! {
            () = tokio::time::sleep(DRAW) => {}
            () = ended.cancelled() => {}
        }
    }
}

async fn draw(progress: &Progress, ended: &CancellationToken) {
    let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
    let total = bars.add(new_bar());
    let mut shown: HashMap<String, ProgressBar> = HashMap::new();
    let mut each: HashMap<String, Rates> = HashMap::new();
    let mut rates = Rates::over(WINDOW);
    loop {
        let over = ended.is_cancelled();
        for note in progress.take_notes() {
            bars.suspend(|| output::to_stderr(&format!("{note}\n")));
        }
        if over {
            // The result of the operation says the rest.
            for bar in shown.values().chain([&total]) {
                bar.finish_and_clear();
            }
            return;
        }
        let (view, now) = (progress.view(), Instant::now());
        let rate = rates.observe(&view, now);
        if !view.phase.is_empty() {
            total.set_position(permille(total_fraction(&view)));
            total.set_message(total_line(&view, rate));
        }
        let active = active(&view);
        shown.retain(|name, bar| {
            let stays = active.iter().any(|item| item.namespace == *name);
            if !stays {
                bar.finish_and_clear();
                bars.remove(bar);
                each.remove(name);
            }
            stays
        });
        for item in active {
            let one = View { phase: view.phase.clone(), items: vec![item.clone()] };
            let rate = each.entry(item.namespace.clone()).or_insert_with(|| Rates::over(WINDOW)).observe(&one, now);
            let bar = shown.entry(item.namespace.clone()).or_insert_with(|| bars.add(new_bar()));
            bar.set_position(permille(total_fraction(&one)));
            bar.set_message(item_line(item, rate));
        }
        tokio::select! {
            () = tokio::time::sleep(DRAW) => {}
            () = ended.cancelled() => {}
        }
    }
}

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::hidden();
    bar.set_length(1000);
    if let Ok(style) = ProgressStyle::with_template("[{bar:20}] {wide_msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn permille(fraction: Option<f64>) -> u64 {
    // The value is between 0 and 1000.
    (fraction.unwrap_or(0.0).clamp(0.0, 1.0) * 1000.0) as u64
}

/// The collections that get a bar: started and not finished, in their order.
fn active(view: &View) -> Vec<&CollectionProgress> {
    view.items.iter().filter(|item| !item.finished && item.documents > 0).take(BARS).collect()
}

/// The fraction that is done, by bytes if the sizes are known, else by documents. It reaches 1 only
/// when every collection is finished, because the expected numbers are estimates.
fn total_fraction(view: &View) -> Option<f64> {
    let (documents, bytes, expected_documents, expected_bytes) = view.sums();
    let all_finished = !view.items.is_empty() && view.items.iter().all(|item| item.finished);
    if all_finished {
        return Some(1.0);
    }
    // A collection of unknown size makes the sum wrong.
    if view.items.iter().any(|i| !i.finished && i.documents > 0 && i.expected_documents == 0 && i.expected_bytes == 0) {
        return None;
    }
    let fraction = match (expected_bytes, expected_documents) {
        (0, 0) => return None,
        (0, expected) => documents as f64 / expected as f64,
        (expected, _) => bytes as f64 / expected as f64,
    };
    Some(fraction.min(0.99))
}

/// The line for the total:
/// `reading: 1,200 of about 2,000 documents, 1.2 MiB (60%), 400 documents/s, 2 seconds left`.
fn total_line(view: &View, rate: Rate) -> String {
    if view.items.is_empty() {
        return view.phase.clone();
    }
    format!("{}: {}", view.phase, counts(view, rate))
}

/// The line for one collection.
fn item_line(item: &CollectionProgress, rate: Rate) -> String {
    let one = View { phase: String::new(), items: vec![item.clone()] };
    let mut name = plain(&item.namespace);
    if name.chars().count() > NAME {
        name = name.chars().take(NAME - 1).chain(['…']).collect();
    }
    format!("{name}: {}", counts(&one, rate))
}

fn counts(view: &View, rate: Rate) -> String {
    let (documents, bytes, expected, expected_bytes) = view.sums();
    let fraction = total_fraction(view);
    let mut text = HumanCount(documents).to_string();
    if bytes == 0 && expected_bytes == 0 && expected > 0 {
        // Items without bytes are indexes, not documents.
        return format!("{text} of {}", HumanCount(expected));
    }
    if expected > documents {
        text += &format!(" of about {}", HumanCount(expected));
    }
    text += &format!(" documents, {}", BinaryBytes(bytes));
    if let Some(fraction) = fraction {
        text += &format!(" ({:.0}%)", fraction * 100.0);
    }
    let (documents_a_second, bytes_a_second) = rate;
    if bytes_a_second > 0.0 {
        // Rates are shown as whole numbers.
        text += &format!(", {} documents/s, {}/s", HumanCount(documents_a_second as u64), BinaryBytes(bytes_a_second as u64));
        let left = Duration::try_from_secs_f64(expected_bytes.saturating_sub(bytes) as f64 / bytes_a_second).ok();
        if let Some(left) = left.filter(|_| expected_bytes > bytes && fraction.is_some_and(|f| f < 1.0)) {
            text += &format!(", {} left", HumanDuration(left));
        }
    }
    text
}

/// Runs this work and shows its progress meanwhile.
pub(super) async fn with_progress<T>(faces: Faces, cx: &Context, work: impl Future<Output = Result<T>>) -> Result<T> {
    let shown = Shown::start(cx.progress.clone(), faces);
    let done = work.await;
    shown.end().await;
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, documents: u64, bytes: u64, expected: (u64, u64), finished: bool) -> CollectionProgress {
        let (expected_documents, expected_bytes) = expected;
        CollectionProgress { namespace: name.into(), documents, bytes, expected_documents, expected_bytes, finished }
    }

    fn view(items: Vec<CollectionProgress>) -> View {
        View { phase: "reading".into(), items }
    }

    #[test]
    fn a_line_says_how_much_of_how_much_how_fast_and_how_long() {
        let (mut rates, start) = (Rates::over(WINDOW), Instant::now());
        let begin = view(vec![item("a.b", 0, 0, (2000, 2048 * 1024), false)]);
        assert_eq!(total_line(&begin, rates.observe(&begin, start)), "reading: 0 of about 2,000 documents, 0 B (0%)");
        let half = view(vec![item("a.b", 1000, 1024 * 1024, (2000, 2048 * 1024), false)]);
        assert_eq!(
            total_line(&half, rates.observe(&half, start + Duration::from_secs(4))),
            "reading: 1,000 of about 2,000 documents, 1.00 MiB (50%), 250 documents/s, 256.00 KiB/s, 4 seconds left"
        );
        assert_eq!(total_line(&View { phase: "planning".into(), items: vec![] }, Rate::default()), "planning");
    }

    #[test]
    fn it_is_never_all_before_it_is_finished() {
        let more_than_expected = view(vec![item("a.b", 30, 300, (20, 200), false)]);
        assert_eq!(total_fraction(&more_than_expected), Some(0.99));
        let finished = view(vec![item("a.b", 10, 100, (20, 200), true)]);
        assert_eq!(total_fraction(&finished), Some(1.0));
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let unknown = view(vec![item("a.b", 30, 300, (0, 0), false), item("a.c", 1, 1, (10, 10), false)]);
        assert_eq!(total_fraction(&unknown), None);
        assert_eq!(item_line(&unknown.items[0], Rate::default()), "a.b: 30 documents, 300 B");
    }

    #[test]
    fn what_has_no_bytes_is_counted_alone() {
        let indexes = View { phase: "building indexes".into(), items: vec![item("a.b", 3, 0, (38, 0), false)] };
        assert_eq!(total_line(&indexes, Rate::default()), "building indexes: 3 of 38");
    }

    #[test]
    fn bars_are_for_those_begun_and_not_finished() {
        let mut items: Vec<_> = (0..12).map(|n| item(&n.to_string(), 1, 1, (2, 2), false)).collect();
        items[0].finished = true;
        items[1].documents = 0;
        let all = view(items);
        let names: Vec<_> = active(&all).into_iter().map(|i| i.namespace.as_str()).collect();
        assert_eq!(names, ["2", "3", "4", "5", "6", "7", "8", "9"]);
        let long = item_line(&item(&"x".repeat(300), 1, 1, (2, 2), false), Rate::default());
        assert!(long.starts_with(&format!("{}…: ", "x".repeat(39))), "{long}");
    }
}
