//! What a model answered, why it ended there, and what it cost.

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

/// What a model answered, and what it cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The text, as it was streamed.
    pub text: String,
    /// Its tokens, without the one that ended it.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// Encoding of pictures; the tokens are their rows in the prompt.
    pub encode: Phase,
    /// Reading the prompt, its image rows included.
    pub prefill: Phase,
    /// Writing the answer.
    pub decode: Phase,
    /// Positions that were cached already and had to be computed again, because the template, forgotten turns or `reshown`
    /// pictures changed what stands before them. 0 as long as conversations only grow.
    pub recomputed: usize,
    /// Pictures of earlier turns that had to be read again: some models see a picture in less detail beside others.
    pub reshown: usize,
    /// The oldest turns, forgotten because the context is full.
    pub forgotten: usize,
}
