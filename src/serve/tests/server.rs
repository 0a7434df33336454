//! A running server for a test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use super::client::{Client, Reply};
use super::toy::{self, Seen, Toy};
use crate::serve::engine::{Engine, Info};
use crate::serve::gate::Gate;
use crate::serve::http::connection;
use crate::serve::http::guard::Key;
use crate::serve::http::origin::Allowed;
use crate::serve::lan::Lan;
use crate::serve::metrics::Metrics;
use crate::serve::pictures::Fetcher;
use crate::serve::state::Server;
use crate::serve::worker::Worker;

/// How a test wants its server.
pub struct Setup {
    pub info: Info,
    pub queue: usize,
    pub idle: Option<Duration>,
    pub key: Option<&'static str>,
    pub origins: Vec<String>,
    pub metrics: bool,
    pub fetches: bool,
    /// Whether devices are paired, in a folder of the test.
    pub lan: Option<std::path::PathBuf>,
    /// How long loading takes.
    pub loading: Duration,
    /// Whether loading fails.
    pub fails: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            info: toy::info(),
            queue: 16,
            idle: None,
            key: None,
            origins: Vec::new(),
            metrics: false,
            fetches: false,
            lan: None,
            loading: Duration::ZERO,
            fails: false,
        }
    }
}

/// A running server; it ends with the test.
pub struct Running {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
    pub server: Arc<Server>,
    end: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Setup {
    /// Starts it.
    pub fn start(self) -> Running {
        let seen = Arc::new(Seen::default());
        let (info, seen_by_toy) = (self.info, Arc::clone(&seen));
        let (loading, fails) = (self.loading, self.fails);
        let open = Box::new(move || {
            std::thread::sleep(loading);
            anyhow::ensure!(!fails, "no such model");
            Ok(Box::new(Toy::new(seen_by_toy, info)) as Box<dyn Engine>)
        });
        let metrics = Arc::new(Metrics::default());
        let (failed, _) = oneshot::channel();
        let worker = Worker::start(open, self.queue, self.idle, Arc::clone(&metrics), failed).unwrap();
        let (end, ended) = watch::channel(false);
        let (told, address) = std::sync::mpsc::channel();
        let (hand_over, handed) = std::sync::mpsc::channel::<Gate>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                told.send(listener.local_addr().unwrap()).unwrap();
                let gate = handed.recv().unwrap();
                connection::serve(listener, ended, move |peer, request| gate.clone().respond(peer, request)).await;
            });
            runtime.shutdown_background();
        });
        let address = address.recv().unwrap();
        let url = format!("http://{address}");
        let lan = match self.lan {
            Some(folder) => Lan::on(folder.join("devices.json"), Some(url.clone())).unwrap(),
            None => Lan::off(),
        };
        let server = Arc::new(Server {
            worker,
            model: "toy".to_owned(),
            metrics,
            tells_metrics: self.metrics,
            allowed: Allowed::new(&[], &self.origins, self.key.is_some()).unwrap(),
            key: self.key.map(Key::new),
            lan,
            fetcher: self.fetches.then(Fetcher::new),
            bodies: Default::default(),
            url,
            started: 1,
        });
        hand_over.send(Gate::new(Arc::clone(&server))).unwrap();
        Running { address, seen, server, end, thread: Some(thread) }
    }
}

/// A server with nothing special.
pub fn start() -> Running {
    Setup::default().start()
}

impl Running {
    /// A new connection.
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// A request on a connection of its own.
    pub fn get(&self, path: &str) -> Reply {
        self.connect().request("GET", path, &[], b"")
    }

    /// The same with a JSON body.
    pub fn post(&self, path: &str, body: &serde_json::Value) -> Reply {
        self.connect().request("POST", path, &[], body.to_string().as_bytes())
    }

    /// A chat with one message and further fields.
    pub fn chat(&self, message: &str, fields: serde_json::Value) -> Reply {
        self.post("/v1/chat/completions", &chat(message, fields))
    }

    /// Ends it as a signal would.
    pub fn close(&self) {
        self.server.worker.close();
        let _ = self.end.send(true);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The body of a chat with one message.
pub fn chat(message: &str, fields: serde_json::Value) -> serde_json::Value {
    let mut body = serde_json::json!({ "model": "toy", "messages": [{ "role": "user", "content": message }] });
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// Waits until a counter has a value.
#[track_caller]
pub fn wait_for(counter: &AtomicUsize, value: usize) {
    wait_until(|| counter.load(Ordering::SeqCst) == value);
}

/// Waits until something is so.
#[track_caller]
pub fn wait_until(mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(30), "it never was so");
        std::thread::sleep(Duration::from_millis(5));
    }
}
