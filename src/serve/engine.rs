//! What the server needs of an engine, and what it tells of itself.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dwindle_constrain::Vocabulary;
use dwindle_runtime::engine::{Event, Outcome, Request};
use dwindle_runtime::{Error, Sampling};

/// Answers requests, one at a time. It lives on one thread from beginning to end.
pub trait Engine {
    /// What it is.
    fn info(&self) -> Info;

    /// The answering model's tokenizer, for threads that do not own the engine.
    fn tokens(&self) -> Arc<dyn Tokens>;

    /// Answers one request. `events` that returns `Break`, or `cancel`, ends it.
    ///
    /// # Errors
    /// The engine's.
    fn generate(
        &mut self,
        request: Request,
        events: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
        cancel: &AtomicBool,
    ) -> Result<Outcome, Error>;

    /// Releases the weights until the next request.
    ///
    /// # Errors
    /// The device's.
    fn unload(&mut self) -> Result<(), Error>;
}

/// Text to tokens.
pub trait Tokens: Send + Sync {
    /// The tokens of a text.
    ///
    /// # Errors
    /// The tokenizer's.
    fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, Error>;

    /// The bytes that a token adds to a text; none for control tokens.
    fn bytes(&self, token: u32) -> Vec<u8>;

    /// All tokens, for restricted answers.
    fn vocabulary(&self) -> Vocabulary;
}

/// What an engine is.
#[derive(Clone, Debug, Default)]
pub struct Info {
    /// Names of the models, the answering one included.
    pub models: Vec<String>,
    /// The model that describes pictures for the answering one.
    pub describer: Option<String>,
    /// Positions of the context.
    pub context: u32,
    /// Tokens of the vocabulary.
    pub vocab_size: u32,
    /// Whether pictures can be shown to it.
    pub sees: bool,
    /// The answering model's chat template.
    pub template: Option<String>,
    /// Whether that tells of functions.
    pub knows_tools: bool,
    /// The device.
    pub device: String,
    /// Memory at the worst moment, saved conversations included.
    pub planned_peak_bytes: u64,
    /// Bytes of one saved conversation.
    pub slot_bytes: u64,
    /// Saved conversations.
    pub slots: usize,
    /// How tokens are drawn where a request does not say.
    pub sampling: Sampling,
    /// What its user should know.
    pub notes: Vec<String>,
}
