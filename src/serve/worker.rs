//! The one thread that owns the engine: takes waiting requests in their order and answers them.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use dwindle_constrain::Constrainer;
use dwindle_runtime::Finish;
use tokio::sync::watch;

use super::draft::Draft;
use super::engine::{Engine, Info, Tokens};
use super::error::ApiError;
use super::metrics::Metrics;
use super::queue::Queue;
use super::updates::{Sink, Update, Updates, channel};

/// Opens the engine, on the thread that will own it.
pub type Open = Box<dyn FnOnce() -> Result<Box<dyn Engine>> + Send>;

/// An engine that is ready, as other threads see it.
pub struct Loaded {
    /// What it is.
    pub info: Info,
    /// Its tokenizer.
    pub tokens: Arc<dyn Tokens>,
    constrainer: OnceLock<Result<Constrainer, dwindle_constrain::Error>>,
}

impl Loaded {
    /// Makes masks; the tokens' trie is built when the first one is asked for.
    ///
    /// # Errors
    /// Why this model's answers cannot be restricted.
    pub fn constrainer(&self) -> Result<&Constrainer, ApiError> {
        let build = || Constrainer::new(&self.tokens.vocabulary());
        self.constrainer.get_or_init(build).as_ref().map_err(|error| error.clone().into())
    }
}

/// How the engine fares.
#[derive(Clone)]
pub enum Stage {
    /// It is being opened.
    Loading,
    /// It answers.
    Ready(Arc<Loaded>),
    /// It could not be opened, or broke.
    Failed,
}

struct Job {
    draft: Draft,
    sink: Sink,
    since: Instant,
}

struct State {
    queue: Queue<Job>,
    /// The flag that ends the running request.
    running: Option<Arc<AtomicBool>>,
    closing: bool,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    metrics: Arc<Metrics>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Its changes are single steps, so it is never half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread and the line before it.
pub struct Worker {
    shared: Arc<Shared>,
    stage: watch::Receiver<Stage>,
}

/// A place in the line, then the running request: dropping it leaves the line or ends the answer.
pub struct Ticket {
    /// What happens to the request.
    pub updates: Updates,
    number: u64,
    cancel: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

impl Worker {
    /// Starts the thread, which opens the engine first. `failed` gets the reason where that fails, or where it breaks later.
    ///
    /// # Errors
    /// The system has no thread to spare.
    pub fn start(
        open: Open,
        queue: usize,
        idle: Option<Duration>,
        metrics: Arc<Metrics>,
        failed: tokio::sync::oneshot::Sender<anyhow::Error>,
    ) -> Result<Worker> {
        let state = State { queue: Queue::new(queue), running: None, closing: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new(), metrics });
        let (stage, watching) = watch::channel(Stage::Loading);
        let inner = Arc::clone(&shared);
        let work = move || {
            let worked = catch_unwind(AssertUnwindSafe(|| work(&inner, open, idle, &stage)));
            let worked =
                worked.unwrap_or_else(|_| Err(anyhow!("the engine panicked; this is a bug, please report it")));
            let Err(error) = worked else { return };
            let _ = stage.send(Stage::Failed);
            inner.close(&ApiError::new(500, "the engine failed; the server's log says why"));
            let _ = failed.send(error);
        };
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(work)
            .context("cannot start the engine's thread")?;
        Ok(Worker { shared, stage: watching })
    }

    /// Lets a request wait for its turn.
    ///
    /// # Errors
    /// The line is full, or the server ends.
    pub fn submit(&self, draft: Draft) -> Result<Ticket, ApiError> {
        let (sink, updates) = channel();
        let cancel = Arc::clone(sink.cancel());
        let mut state = self.shared.state();
        if state.closing {
            return Err(ApiError::ending());
        }
        let waits = state.running.is_some() || state.queue.len() > 0;
        let job = Job { draft, sink, since: Instant::now() };
        let limit = state.queue.limit();
        let Ok(number) = state.queue.push(job) else {
            self.shared.metrics.refused();
            return Err(ApiError::busy(limit));
        };
        if waits && let Some((place, job)) = state.queue.places().last() {
            job.sink.send(Update::Queued(place));
        }
        self.shared.wake.notify_one();
        Ok(Ticket { updates, number, cancel, shared: Arc::clone(&self.shared) })
    }

    /// How the engine fares now.
    pub fn stage(&self) -> Stage {
        self.stage.borrow().clone()
    }

    /// Waits until it is loaded.
    ///
    /// # Errors
    /// It takes too long, or failed.
    pub async fn loaded(&self) -> Result<Arc<Loaded>, ApiError> {
        let mut stage = self.stage.clone();
        let wait = async {
            let settled = stage.wait_for(|stage| !matches!(stage, Stage::Loading)).await;
            settled.map(|stage| stage.clone()).unwrap_or(Stage::Failed)
        };
        match tokio::time::timeout(Duration::from_secs(30), wait).await {
            Ok(Stage::Ready(loaded)) => Ok(loaded),
            Ok(Stage::Loading) | Err(_) => Err(ApiError::loading()),
            Ok(Stage::Failed) => Err(ApiError::new(503, "the engine failed; the server's log says why")),
        }
    }

    /// How many wait, how many may, and whether one is being answered.
    pub fn load(&self) -> (usize, usize, bool) {
        let state = self.shared.state();
        (state.queue.len(), state.queue.limit(), state.running.is_some())
    }

    /// Ends the running answer and refuses whoever waits.
    pub fn close(&self) {
        self.shared.close(&ApiError::ending());
    }
}

impl Shared {
    fn close(&self, reason: &ApiError) {
        let mut state = self.state();
        state.closing = true;
        if let Some(cancel) = &state.running {
            cancel.store(true, Ordering::Relaxed);
        }
        while let Some(job) = state.queue.pop() {
            job.sink.send(Update::Failed(reason.clone()));
        }
        self.wake.notify_all();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancel.store(true, Ordering::Relaxed);
        let mut state = self.shared.state();
        if state.queue.remove(self.number).is_some() {
            self.shared.metrics.cancelled();
            tell_places(&state);
        }
    }
}

fn tell_places(state: &State) {
    for (place, job) in state.queue.places() {
        job.sink.send(Update::Queued(place));
    }
}

/// The thread's life.
fn work(shared: &Shared, open: Open, idle: Option<Duration>, stage: &watch::Sender<Stage>) -> Result<()> {
    let mut engine = open()?;
    let loaded = Loaded { info: engine.info(), tokens: engine.tokens(), constrainer: OnceLock::new() };
    let _ = stage.send(Stage::Ready(Arc::new(loaded)));
    let mut unloaded = false;
    while let Some(next) = next(shared, idle.filter(|_| !unloaded)) {
        match next {
            Next::Idle => {
                tracing::info!("nobody asked for a while: the weights are released");
                engine.unload()?;
                unloaded = true;
            }
            Next::Job(job) => {
                unloaded = false;
                answer(shared, engine.as_mut(), *job);
                shared.state().running = None;
            }
        }
    }
    Ok(())
}

enum Next {
    Job(Box<Job>),
    Idle,
}

/// Waits for a request; `None` where the server ends.
fn next(shared: &Shared, idle: Option<Duration>) -> Option<Next> {
    let since = Instant::now();
    let mut state = shared.state();
    loop {
        if state.closing {
            return None;
        }
        if let Some(job) = state.queue.pop() {
            state.running = Some(Arc::clone(job.sink.cancel()));
            tell_places(&state);
            return Some(Next::Job(Box::new(job)));
        }
        state = match idle {
            None => shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(idle) => match idle.checked_sub(since.elapsed()) {
                None | Some(Duration::ZERO) => return Some(Next::Idle),
                Some(left) => shared.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            },
        };
    }
}

/// Answers one request, and tells its client how it ends.
fn answer(shared: &Shared, engine: &mut dyn Engine, job: Job) {
    let Job { draft, sink, since } = job;
    let metrics = &shared.metrics;
    metrics.waited(since.elapsed());
    if sink.cancel().load(Ordering::Relaxed) {
        metrics.cancelled();
        return;
    }
    let request = match draft.into_request() {
        Ok(request) => request,
        Err(error) => {
            metrics.failed();
            sink.send(Update::Failed(error));
            return;
        }
    };
    let mut too_slow = false;
    let mut events = |event: dwindle_runtime::engine::Event<'_>| match sink.send(event.into()) {
        true => ControlFlow::Continue(()),
        false => {
            too_slow = true;
            ControlFlow::Break(())
        }
    };
    let cancel = Arc::clone(sink.cancel());
    let outcome = catch_unwind(AssertUnwindSafe(|| engine.generate(request, &mut events, &cancel)));
    let last = match outcome {
        Ok(Ok(outcome)) => {
            metrics.answered(&outcome);
            let closing = shared.state().closing;
            match outcome.finish {
                Finish::Cancelled if closing => Update::Failed(ApiError::ending()),
                Finish::Cancelled if too_slow => {
                    Update::Failed(ApiError::new(503, "the answer was ended: the client reads too slowly"))
                }
                _ => Update::Done(Box::new(outcome)),
            }
        }
        Ok(Err(error)) => {
            metrics.failed();
            // Others speak of the device; that of a tokenizer may speak of the text.
            let is_of_text = matches!(error, dwindle_runtime::Error::Tokenizer(_));
            let error = ApiError::from(error);
            if error.status >= 500 && !is_of_text {
                tracing::warn!("a request failed: {}", error.message);
            }
            Update::Failed(error)
        }
        Err(panic) => {
            metrics.failed();
            sink.send(Update::Failed(ApiError::new(500, "the engine failed; the server's log says why")));
            // What it left behind cannot be trusted.
            std::panic::resume_unwind(panic);
        }
    };
    sink.send(last);
}
