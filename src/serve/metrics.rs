//! Counters of the server's work, in Prometheus' text format.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use dwindle_runtime::Finish;
use dwindle_runtime::engine::Outcome;

use crate::memory;

/// Counters since the start. They hold numbers only, nothing of any request.
#[derive(Debug, Default)]
pub struct Metrics {
    answered: AtomicU64,
    cancelled: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    predicted_tokens: AtomicU64,
    prompt_micros: AtomicU64,
    predicted_micros: AtomicU64,
    waited_micros: AtomicU64,
    /// Responses by the hundreds of their status.
    responses: [AtomicU64; 6],
}

fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

impl Metrics {
    /// A request came to its end in the engine.
    pub fn answered(&self, outcome: &Outcome) {
        match outcome.finish {
            Finish::Cancelled => &self.cancelled,
            _ => &self.answered,
        }
        .fetch_add(1, Relaxed);
        self.prompt_tokens.fetch_add(outcome.prompt_tokens as u64, Relaxed);
        self.cached_tokens.fetch_add(outcome.cached_tokens as u64, Relaxed);
        self.predicted_tokens.fetch_add(outcome.tokens.len() as u64, Relaxed);
        self.prompt_micros.fetch_add(micros(outcome.prefill.seconds), Relaxed);
        self.predicted_micros.fetch_add(micros(outcome.decode.seconds), Relaxed);
    }

    /// A client left before its turn.
    pub fn cancelled(&self) {
        self.cancelled.fetch_add(1, Relaxed);
    }

    /// The engine failed on a request.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// The line was full.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// A request waited so long for its turn.
    pub fn waited(&self, time: Duration) {
        self.waited_micros.fetch_add(micros(time.as_secs_f64()), Relaxed);
    }

    /// A response was sent.
    pub fn responded(&self, status: u16) {
        self.responses[usize::from(status / 100).min(5)].fetch_add(1, Relaxed);
    }

    /// All of them as text.
    pub fn text(&self, (waiting, _, busy): (usize, usize, bool)) -> String {
        let mut text = String::new();
        let mut add = |name: &str, kind: &str, help: &str, values: &[(&str, f64)]| {
            let _ = write!(text, "# HELP dwindle_{name} {help}\n# TYPE dwindle_{name} {kind}\n");
            for (labels, value) in values {
                let _ = writeln!(text, "dwindle_{name}{labels} {value}");
            }
        };
        let count = |counter: &AtomicU64| counter.load(Relaxed) as f64;
        let seconds = |counter: &AtomicU64| counter.load(Relaxed) as f64 / 1e6;
        add(
            "requests_total",
            "counter",
            "Generations by how they ended.",
            &[
                ("{end=\"answered\"}", count(&self.answered)),
                ("{end=\"cancelled\"}", count(&self.cancelled)),
                ("{end=\"failed\"}", count(&self.failed)),
                ("{end=\"queue_full\"}", count(&self.refused)),
            ],
        );
        add(
            "responses_total",
            "counter",
            "HTTP responses by class of status.",
            &[
                ("{status=\"2xx\"}", count(&self.responses[2])),
                ("{status=\"3xx\"}", count(&self.responses[3])),
                ("{status=\"4xx\"}", count(&self.responses[4])),
                ("{status=\"5xx\"}", count(&self.responses[5])),
            ],
        );
        for (name, help, counter) in [
            ("prompt_tokens_total", "Positions of prompts.", &self.prompt_tokens),
            ("prompt_cached_tokens_total", "Positions of prompts that were cached.", &self.cached_tokens),
            ("predicted_tokens_total", "Tokens of answers.", &self.predicted_tokens),
        ] {
            add(name, "counter", help, &[("", count(counter))]);
        }
        for (name, help, counter) in [
            ("prompt_seconds_total", "Time spent reading prompts.", &self.prompt_micros),
            ("predicted_seconds_total", "Time spent writing answers.", &self.predicted_micros),
            ("queue_seconds_total", "Time that requests waited for their turn.", &self.waited_micros),
        ] {
            add(name, "counter", help, &[("", seconds(counter))]);
        }
        add("queue_length", "gauge", "Requests that wait.", &[("", waiting as f64)]);
        add("busy", "gauge", "1 while a request is being answered.", &[("", f64::from(u8::from(busy)))]);
        if let Some(bytes) = memory::anonymous_bytes() {
            add("anonymous_bytes", "gauge", "Memory that is no mapping of a file.", &[("", bytes as f64)]);
        }
        if let Some(bytes) = memory::resident_bytes() {
            add("resident_bytes", "gauge", "Memory that is resident.", &[("", bytes as f64)]);
        }
        text
    }
}
