//! Why an answer ended, and what it cost.

use crate::clock::Stopwatch;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it.
    Stop,
    /// It has as many tokens as were allowed, or the context is full.
    Length,
    /// The user ended it.
    Cancelled,
}

impl std::fmt::Display for Finish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Cancelled => "cancelled",
        })
    }
}

/// The work of one phase.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Phase {
    /// Tokens or image rows.
    pub tokens: usize,
    /// How long they took.
    pub seconds: f64,
}

impl Phase {
    pub(crate) fn add(&mut self, tokens: usize, watch: Stopwatch) {
        self.tokens += tokens;
        self.seconds += watch.seconds();
    }
}
