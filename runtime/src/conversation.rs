//! A conversation with a bundle that one person holds: an engine with one saved conversation, and what was said.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dwindle_bundle::Bundle;

use crate::chat::{Decoder, Finish, Phase, Pool};
use crate::device;
use crate::engine::{Engine, EngineOptions, Event, Info, Message, Outcome, Part, Prompt, Request, Role, TokenMask};
use crate::image::Picture;
use crate::{Error, Sampler, Sampling};

/// How a conversation is held.
#[derive(Clone, Debug, Default)]
pub struct ConversationOptions {
    /// Instructions that stand before the conversation.
    pub system: Option<String>,
    /// How the chat model's tokens are drawn.
    pub sampling: SamplingChoice,
    /// The most tokens of an answer.
    pub max_tokens: u32,
    /// Where the models run.
    pub device: device::Options,
}

/// What the user chose for sampling; `None` leaves it to the checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SamplingChoice {
    /// See [`Sampling::temperature`].
    pub temperature: Option<f32>,
    /// See [`Sampling::top_p`].
    pub top_p: Option<f32>,
    /// See [`Sampling::top_k`].
    pub top_k: Option<u32>,
    /// See [`Sampling::min_p`].
    pub min_p: Option<f32>,
    /// See [`Sampling::repetition_penalty`].
    pub repetition_penalty: Option<f32>,
    /// See [`Sampling::seed`].
    pub seed: u64,
}

impl SamplingChoice {
    /// The choices, over what the checkpoint suggests.
    pub fn over(&self, suggested: Sampling) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(suggested.temperature),
            top_p: self.top_p.unwrap_or(suggested.top_p),
            top_k: self.top_k.unwrap_or(suggested.top_k),
            min_p: self.min_p.unwrap_or(suggested.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(suggested.repetition_penalty),
            seed: self.seed,
            ..suggested
        }
    }
}

/// One answer, and what it cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// The answer, as it was streamed.
    pub answer: String,
    /// What the describing model said, one text a picture; empty where the chat model sees for itself.
    pub descriptions: Vec<String>,
    /// Why the answer ended.
    pub finish: Finish,
    /// Encoding of pictures, by whichever model; the tokens are image rows.
    pub encode: Phase,
    /// The describing model's work without the encoding; the tokens are those of the descriptions.
    pub describe: Phase,
    /// The chat model's reading of the prompt.
    pub prefill: Phase,
    /// The chat model's writing of the answer.
    pub decode: Phase,
    /// Positions of the chat model's cache that had to be computed again; see [`Outcome::recomputed`].
    pub recomputed: usize,
    /// Pictures of earlier turns that had to be read again; see [`Outcome::reshown`].
    pub reshown: usize,
    /// The oldest turns, forgotten because the chat model's context is full.
    pub forgotten: usize,
}

/// A conversation with a bundle's models, which are loaded once.
#[derive(Debug)]
pub struct Conversation<D = Pool> {
    engine: Engine<D>,
    messages: Vec<Message>,
    /// How many of them are instructions.
    system: usize,
    sampling: Sampling,
    /// How many answers were drawn, each from random numbers of its own.
    answers: u64,
    max_tokens: usize,
    restriction: Option<Restriction>,
}

/// Makes the mask of an answer, each time a new one.
type MakeMask = dyn Fn() -> Result<Box<dyn TokenMask>, Error> + Send;

/// What all answers are restricted to.
struct Restriction(Box<MakeMask>);

impl std::fmt::Debug for Restriction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Restriction")
    }
}

impl Conversation {
    /// Loads the models of a bundle onto a device.
    ///
    /// # Errors
    /// Those of [`Engine::open`]; [`Error::Sampling`].
    pub fn open(bundle: &Bundle, options: ConversationOptions) -> Result<Conversation, Error> {
        let engine = Engine::open(bundle, &EngineOptions { device: options.device.clone(), slots: 1 })?;
        Conversation::new(engine, options)
    }
}

impl<D: Decoder> Conversation<D> {
    /// A conversation that has not begun.
    ///
    /// # Errors
    /// [`Error::Sampling`] with the option that is out of range.
    pub(crate) fn new(engine: Engine<D>, options: ConversationOptions) -> Result<Conversation<D>, Error> {
        let system = options.system.map(|text| message(Role::System, vec![Part::Text(text)]));
        let messages: Vec<Message> = system.into_iter().collect();
        let sampling = options.sampling.over(engine.info().sampling);
        // Wrong options are told before anything is asked.
        Sampler::new(sampling)?;
        let (system, max_tokens) = (messages.len(), options.max_tokens as usize);
        Ok(Conversation { engine, messages, system, sampling, answers: 0, max_tokens, restriction: None })
    }

    /// Says something, with pictures, and gives the answer to `on_text` as it comes. `cancel`, set from elsewhere,
    /// ends it; the part that came stays in the conversation. If it is cancelled before its first token, or fails, the conversation is as
    /// before. Where the context cannot hold the conversation and an answer, the oldest turns are forgotten, but not the last pictures.
    ///
    /// # Errors
    /// Those of [`Engine::generate`].
    pub fn ask(
        &mut self,
        text: &str,
        pictures: &[Picture],
        on_text: &mut dyn FnMut(&str),
        cancel: &AtomicBool,
    ) -> Result<Turn, Error> {
        let shown = pictures.iter().map(|picture| Part::Picture(Arc::new(picture.clone())));
        let parts = shown.chain([Part::Text(text.to_owned())]).collect();
        let before = self.messages.len();
        self.messages.push(message(Role::User, parts));
        let prompt = Prompt::Messages { messages: self.messages.clone(), tools: Vec::new() };
        let result = self.generate(prompt, on_text, cancel);
        match &result {
            Ok(outcome) if outcome.finish != Finish::Cancelled || !outcome.tokens.is_empty() => {
                self.messages.push(message(Role::Assistant, vec![Part::Text(outcome.text.clone())]));
            }
            _ => self.messages.truncate(before),
        }
        result.map(|outcome| turn(outcome, pictures.len()))
    }

    /// Lets the chat model continue a text, without its template and without the conversation, which is forgotten.
    /// With pictures, an ensemble hands over their descriptions as for [`Conversation::ask`]; a single model that
    /// sees takes them at the placeholders in the text.
    ///
    /// # Errors
    /// Those of [`Engine::generate`]; [`Error::ContextFull`] for a text that is too long.
    pub fn complete(
        &mut self,
        text: &str,
        pictures: &[Picture],
        on_text: &mut dyn FnMut(&str),
        cancel: &AtomicBool,
    ) -> Result<Turn, Error> {
        self.messages.truncate(self.system);
        let shown = pictures.iter().map(|picture| Arc::new(picture.clone())).collect();
        let outcome = self.generate(Prompt::Pictured { text: text.to_owned(), pictures: shown }, on_text, cancel)?;
        Ok(turn(outcome, pictures.len()))
    }

    fn generate(
        &mut self,
        prompt: Prompt,
        on_text: &mut dyn FnMut(&str),
        cancel: &AtomicBool,
    ) -> Result<Outcome, Error> {
        let sampling = Sampling { seed: self.sampling.seed.wrapping_add(self.answers), ..self.sampling };
        self.answers += 1;
        let mask = self.restriction.as_ref().map(|restriction| restriction.0()).transpose()?;
        let request = Request {
            prompt,
            sampling,
            max_tokens: Some(self.max_tokens),
            stop: Vec::new(),
            top_logprobs: None,
            logit_bias: Vec::new(),
            mask,
            may_forget: true,
        };
        let mut events = |event: Event<'_>| {
            if let Event::Text { text, .. } = event {
                on_text(text);
            }
            ControlFlow::Continue(())
        };
        self.engine.generate(request, &mut events, cancel)
    }

    /// Forgets the conversation; the models stay loaded.
    ///
    /// # Errors
    /// Those of the device.
    pub fn reset(&mut self) -> Result<(), Error> {
        self.messages.truncate(self.system);
        self.answers = 0;
        self.engine.forget()
    }

    /// Restricts all answers from now on; `make` gives the mask of one.
    pub fn restrict(&mut self, make: impl Fn() -> Result<Box<dyn TokenMask>, Error> + Send + 'static) {
        self.restriction = Some(Restriction(Box::new(make)));
    }

    /// The engine that answers.
    pub fn engine(&self) -> &Engine<D> {
        &self.engine
    }

    /// What the engine is.
    pub fn info(&self) -> &Info {
        self.engine.info()
    }
}

fn message(role: Role, content: Vec<Part>) -> Message {
    Message { role, content, tool_calls: Vec::new(), tool_call_id: None, name: None }
}

/// An outcome, with the descriptions of the pictures that are new.
fn turn(mut outcome: Outcome, pictures: usize) -> Turn {
    let old = outcome.descriptions.len().saturating_sub(pictures);
    let Outcome { text, finish, encode, describe, prefill, decode, recomputed, reshown, forgotten, .. } = outcome;
    let descriptions = outcome.descriptions.split_off(old);
    Turn { answer: text, descriptions, finish, encode, describe, prefill, decode, recomputed, reshown, forgotten }
}

#[cfg(test)]
mod tests;
