//! Probes both deployments regularly, so that status requests are answered at once even if a server
//! does not respond.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use utoipa::ToSchema;

use super::connections::{self, ConnectionState, DualState, connect_dual_db};
use crate::config::Config;
use crate::context::lock;
use crate::format::manifest::Source;

/// The pause between two probes.
const EVERY: Duration = Duration::from_secs(30);

/// Whether the service can do its work. It names no host and quotes no error, so anyone may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Ready)]
pub struct Readiness {
    /// Whether the service is ready. It must accept jobs, and the source must have answered at the
    /// last probe; without a source, the target. The last scheduled backup must be taken, or be at
    /// its first try.
    pub ready: bool,
    /// Whether the service accepts jobs. It does not while it shuts down.
    pub accepting: bool,
    /// Whether the source answered at the last probe. Null before the first probe.
    pub atlas: Option<bool>,
    /// Whether the target answered at the last probe. Null before the first probe.
    pub local: Option<bool>,
    /// A problem that needs attention although the service is ready, such as a damaged state file
    /// that was replaced.
    pub warning: Option<String>,
    /// Why the service is not ready.
    #[schema(example = "the source does not answer")]
    pub reason: Option<String>,
}

impl Readiness {
    /// The readiness that follows from the last states of the deployments.
    fn of(accepting: bool, known: Option<DualState>) -> Self {
        let reason = match &known {
            _ if !accepting => Some("the service is shutting down".to_owned()),
            None => Some("not known yet".to_owned()),
            Some(state) if state.atlas.configured => unfit("source", &state.atlas),
            Some(state) if state.local.configured => unfit("target", &state.local),
            Some(_) => Some("no source is configured".to_owned()),
        };
        let (atlas, local) = known.map(|state| (state.atlas.connected, state.local.connected)).unzip();
        Self { ready: reason.is_none(), accepting, atlas, local, warning: None, reason }
    }
}

/// Why a deployment is unusable now.
fn unfit(name: &str, state: &ConnectionState) -> Option<String> {
    if state.connected {
        return None;
    }
    Some(match kind_of(state) {
        Some("unreachable") | None => format!("the {name} does not answer"),
        Some("denied") => format!("the {name} refuses the login"),
        Some("usage") => format!("the URI of the {name} is invalid"),
        Some(_) => format!("the {name} fails the commands of the probe"),
    })
}

fn kind_of(state: &ConnectionState) -> Option<&str> {
    state.error.as_ref().map(|error| error.kind.as_str())
}

/// Probes the deployments, and remembers the results.
pub(super) struct Prober {
    config: Config,
    engine: Handle,
    known: Arc<Mutex<Known>>,
    /// The probe that runs on request. Callers that come meanwhile get the same answer.
    asking: Mutex<Option<Shared<BoxFuture<'static, DualState>>>>,
    task: Mutex<Option<JoinHandle<()>>>,
    stop: CancellationToken,
    /// Stops the task if the service is dropped without a shutdown.
    _stops: DropGuard,
}

#[derive(Default)]
struct Known {
    /// When the probe with this result began.
    asked: Option<Instant>,
    state: Option<DualState>,
    /// The source's identity. It stays when the source no longer answers.
    source: Option<Source>,
}

impl Prober {
    /// Probes nothing yet.
    pub(super) fn new(config: Config, engine: Handle) -> Self {
        let stop = CancellationToken::new();
        let stops = stop.clone().drop_guard();
        Self { config, engine, known: Arc::default(), asking: Mutex::default(), task: Mutex::default(), stop, _stops: stops }
    }

    /// Starts to probe: at once, and then every half minute. Returns before there is an answer. A
    /// second call does nothing.
    pub(super) fn start(&self) {
        let mut task = lock(&self.task);
        if task.is_some() || self.stop.is_cancelled() {
            return;
        }
        let (config, known, stop) = (self.config.clone(), self.known.clone(), self.stop.clone());
        *task = Some(self.engine.spawn(async move {
            loop {
                let turn = async {
                    let asked = Instant::now();
                    let state = ask(&config, &known).await;
                    remember(&known, asked, state);
                    tokio::time::sleep(EVERY).await;
                };
                if stop.run_until_cancelled(turn).await.is_none() {
                    return;
                }
            }
        }));
    }

    /// Probes now, and remembers the result, too. Only one such probe runs at a time, for all
    /// callers.
    pub(super) async fn ask(&self) -> DualState {
        let question = {
            let mut asking = lock(&self.asking);
            match asking.as_ref().filter(|question| question.peek().is_none()) {
                Some(question) => question.clone(),
                None => {
                    let question = self.question();
                    // It continues if its caller goes away. The driver's tasks belong to the
                    // engine's runtime.
                    self.engine.spawn(question.clone());
                    asking.insert(question).clone()
                }
            }
        };
        question.await
    }

    fn question(&self) -> Shared<BoxFuture<'static, DualState>> {
        let (config, known) = (self.config.clone(), self.known.clone());
        let engine = self.engine.clone();
        let question = async move {
            let (asked, of, before) = (Instant::now(), config.clone(), known.clone());
            match engine.spawn(async move { ask(&of, &before).await }).await {
                Ok(state) => {
                    remember(&known, asked, state.clone());
                    state
                }
                Err(_) => connections::unknown(&config),
            }
        };
        question.boxed().shared()
    }

    /// The last states of both; `None` before the first answer.
    pub(super) fn known(&self) -> Option<DualState> {
        lock(&self.known).state.clone()
    }

    /// The source's identity from its last answer; `None` before the first.
    pub(super) fn source(&self) -> Option<Source> {
        lock(&self.known).source.clone()
    }

    /// Whether the service is ready, given whether it accepts jobs.
    pub(super) fn readiness(&self, accepting: bool) -> Readiness {
        Readiness::of(accepting, self.known())
    }

    /// Stops probing.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        let task = lock(&self.task).take();
        if let Some(task) = task
            && let Err(e) = task.await
        {
            tracing::error!("the prober of the deployments died: {e}");
        }
    }
}

async fn ask(config: &Config, known: &Arc<Mutex<Known>>) -> DualState {
    let both = connect_dual_db(config).await;
    let state = both.state.clone();
    let known = known.clone();
    // The answer waits neither for the source's identity nor for a server that is slow to close.
    tokio::spawn(async move {
        if let Some(source) = &both.atlas
            && let Ok(source) = tokio::time::timeout(EVERY, source.describe()).await
        {
            lock(&known).source = Some(source);
        }
        both.close().await;
    });
    state
}

/// Stores a result. Of two overlapping probes, the one that began later counts.
fn remember(known: &Mutex<Known>, asked: Instant, state: DualState) {
    let mut known = lock(known);
    if known.asked.is_some_and(|then| then > asked) {
        return;
    }
    let before = known.state.as_ref();
    tell("source", before.map(|b| &b.atlas), &state.atlas);
    tell("target", before.map(|b| &b.local), &state.local);
    (known.asked, known.state) = (Some(asked), Some(state));
}

/// Logs changes: it answers, it does not, or the reason has changed.
fn tell(name: &str, before: Option<&ConnectionState>, now: &ConnectionState) {
    if !has_changed(before, now) {
        return;
    }
    match (&now.error, before) {
        (Some(error), _) => tracing::warn!(kind = error.kind, "the {name} is unusable: {}", error.message),
        (None, None) => tracing::info!("the {name} answers"),
        (None, Some(_)) => tracing::warn!("the {name} answers again"),
    }
}

/// Compares only the kinds of errors, since messages hold varying times and addresses.
fn has_changed(before: Option<&ConnectionState>, now: &ConnectionState) -> bool {
    let shown = |state: &ConnectionState| (state.connected, kind_of(state).map(str::to_owned));
    now.configured && before.map(shown) != Some(shown(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;
    use crate::service::connections::ConnectionError;

    fn config(source: &str, target: &str) -> Config {
        let directory = tempfile::tempdir().unwrap();
        let given = |uri: &str| Some(uri.to_owned()).filter(|uri| !uri.is_empty());
        let flags = Flags { source: given(source), target: given(target), ..Flags::default() };
        Config::load(directory.path(), [], &flags).unwrap()
    }

    /// As if it had been probed, with this result.
    fn asked(configured: bool, error: Option<&str>) -> ConnectionState {
        let mut state = connections::unknown(&config("", "")).atlas;
        state.configured = configured;
        state.connected = configured && error.is_none();
        state.error =
            error.map(|kind| ConnectionError { kind: kind.into(), message: "10.0.0.1 of mongodb://u@h".into(), hint: None });
        state
    }

    #[test]
    fn ready_is_what_takes_jobs_and_has_a_source_that_answers() {
        let of = |accepting, atlas: &ConnectionState, local: &ConnectionState| {
            Readiness::of(accepting, Some(DualState { atlas: atlas.clone(), local: local.clone() }))
        };
        let (up, down, none) = (asked(true, None), asked(true, Some("unreachable")), asked(false, Some("usage")));
        let reason = |readiness: Readiness| {
            assert_eq!(readiness.ready, readiness.reason.is_none());
            readiness.reason
        };
        assert_eq!(reason(Readiness::of(true, None)).as_deref(), Some("not known yet"));
        assert_eq!(reason(of(true, &up, &down)), None);
        assert_eq!(reason(of(true, &up, &none)), None);
        assert_eq!(reason(of(true, &none, &up)), None);
        assert_eq!(reason(of(true, &down, &up)).as_deref(), Some("the source does not answer"));
        assert_eq!(reason(of(true, &none, &down)).as_deref(), Some("the target does not answer"));
        assert_eq!(reason(of(true, &none, &none)).as_deref(), Some("no source is configured"));
        assert_eq!(reason(of(false, &up, &up)).as_deref(), Some("the service is shutting down"));
        for kind in ["unreachable", "denied", "usage", "server", "internal"] {
            let text = reason(of(true, &asked(true, Some(kind)), &up)).unwrap();
            assert!(!text.contains("10.0.0.1") && !text.contains("mongodb"), "{text}");
        }
    }

    #[test]
    fn only_what_changed_is_told() {
        let (up, down, denied) = (asked(true, None), asked(true, Some("unreachable")), asked(true, Some("denied")));
        assert!(has_changed(None, &up) && has_changed(None, &down));
        assert!(has_changed(Some(&up), &down) && has_changed(Some(&down), &up) && has_changed(Some(&down), &denied));
        let mut later = down.clone();
        later.error.as_mut().unwrap().message = "10.0.0.2, after 3501 ms".into();
        assert!(!has_changed(Some(&down), &later) && !has_changed(Some(&up), &up));
        assert!(!has_changed(None, &asked(false, Some("usage"))));
    }

    #[test]
    fn an_answer_that_comes_late_does_not_take_the_place_of_a_newer_one() {
        let known = Mutex::default();
        let (first, second) = (Instant::now(), Instant::now() + Duration::from_millis(1));
        let state = |error| DualState { atlas: asked(true, error), local: asked(false, Some("usage")) };
        remember(&known, second, state(None));
        remember(&known, first, state(Some("unreachable")));
        assert!(lock(&known).state.as_ref().unwrap().atlas.connected);
        remember(&known, second + Duration::from_millis(1), state(Some("unreachable")));
        assert!(!lock(&known).state.as_ref().unwrap().atlas.connected);
    }

    #[tokio::test]
    async fn it_asks_at_once_and_ends_in_the_middle_of_asking() {
        // A listener that never responds.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = format!("mongodb://{}/", listener.local_addr().unwrap());
        let prober = Prober::new(config(&silent, ""), Handle::current());
        assert_eq!(prober.readiness(true).reason.as_deref(), Some("not known yet"));
        let began = Instant::now();
        prober.start();
        prober.start();
        assert!(began.elapsed() < Duration::from_millis(200), "the start waits");
        let _asking = listener.accept().await.unwrap();
        prober.stop().await;
        assert!(began.elapsed() < Duration::from_secs(2), "the end waits");
        prober.start();
        assert!(lock(&prober.task).is_none(), "begins again after its end");
    }

    #[tokio::test]
    async fn however_many_ask_one_question_is_under_way() {
        // A listener that never responds.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = format!("mongodb://{}/", listener.local_addr().unwrap());
        let prober = Prober::new(config(&silent, ""), Handle::current());
        let mut open = Vec::new();
        let asking = futures::future::join_all((0..50).map(|_| prober.ask()));
        let counting = async {
            while let Ok((stream, _)) = listener.accept().await {
                open.push(stream);
            }
        };
        tokio::select! {
            states = asking => assert!(states.iter().all(|state| !state.atlas.connected)),
            () = counting => {}
        }
        assert!((1..=4).contains(&open.len()), "{} connections", open.len());
    }
}
