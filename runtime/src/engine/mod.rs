//! Answers requests with a bundle's models: many conversations, one set of weights.
//!
//! A request brings its whole conversation. The engine renders and tokenizes it, finds the saved conversation that begins with most of it
//! (by content: tokens, and hashes of pictures), computes the rest and writes an answer. Everything about an answer belongs to its request.
//!
//! In an ensemble each picture is described by the describing model, alone and greedily, once; the descriptions take the pictures' place in
//! their message through the bundle's handover template. A single model that sees gets the pictures themselves.

mod answer;
mod choice;
mod describe;
mod draw;
mod open;
mod request;
mod saved;
mod stop;
mod talker;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use request::{Event, Message, Outcome, Part, Prompt, Request, TokenInfo, TokenMask, ToolCall};
pub use saved::Error as SavedError;

pub use crate::template::Role;

use crate::chat::prompt::{Line, render, show};
use crate::chat::slots::{Shown, expand};
use crate::chat::{self, Decoder, Finish, Phase, Pool};
use crate::device;
use crate::image::Picture;
use crate::template;
use crate::tokenizer::Tokenizer;
use crate::{Error, Sampling, clock};

use answer::Answer;
use describe::{Described, Describer};
use draw::Drawing;
use talker::{Asked, Generation, Talker, number_answers};

/// How an engine is set up.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Where the models run.
    pub device: device::Options,
    /// How many conversations are saved at a time, at least one. Each takes [`Info::slot_bytes`].
    pub slots: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions { device: device::Options::default(), slots: 1 }
    }
}

/// What an engine is.
#[derive(Clone, Debug, Default)]
pub struct Info {
    /// Names of the bundle's models.
    pub models: Vec<String>,
    /// The model that answers.
    pub answering: String,
    /// The model that describes pictures for it.
    pub describer: Option<String>,
    /// Positions of a conversation.
    pub context: u32,
    /// Columns of the logits.
    pub vocab_size: u32,
    /// Whether pictures can be talked about.
    pub sees: bool,
    /// Whether there is a chat template; else texts can only be continued.
    pub has_template: bool,
    /// Whether the template tells of tools.
    pub knows_tools: bool,
    /// The device, for people.
    pub device: String,
    /// What the models' buffers take, all saved conversations included.
    pub device_bytes: u64,
    /// What the memory plan says of its worst moment, all saved conversations included.
    pub planned_peak_bytes: u64,
    /// What one saved conversation takes.
    pub slot_bytes: u64,
    /// How many are saved.
    pub slots: usize,
    /// What the checkpoint suggests.
    pub sampling: Sampling,
    /// What the user should know about the models, one line each.
    pub notes: Vec<String>,
}

/// A bundle's models on a device, and saved conversations with them.
#[derive(Debug)]
pub struct Engine<D = Pool> {
    talker: Talker<D>,
    describer: Option<Describer<D>>,
    info: Info,
}

impl<D: Decoder> Engine<D> {
    /// What it is.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The answering model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.talker.parts.tokenizer
    }

    /// The same for threads that do not own the engine.
    pub fn shared_tokenizer(&self) -> Arc<Tokenizer> {
        Arc::clone(&self.talker.parts.tokenizer)
    }

    /// Tokens that end an answer of the answering model.
    pub fn ends(&self) -> &[u32] {
        &self.talker.parts.stop
    }

    /// The answering model's chat template, as its checkpoint has it.
    pub fn template_source(&self) -> Option<&str> {
        self.talker.parts.source.as_deref()
    }

    /// Answers a request, and tells of it as it goes. `events` returning [`ControlFlow::Break`] or `cancel`, set from elsewhere, ends it;
    /// what was said until then is an answer.
    ///
    /// # Errors
    /// [`chat::Error::TooLong`] before anything is computed; those of template, tokenizer, pictures, sampling and device. Saved
    /// conversations stay usable.
    pub fn generate(
        &mut self,
        request: Request,
        events: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
        cancel: &AtomicBool,
    ) -> Result<Outcome, Error> {
        let Request { prompt, sampling, max_tokens, stop, top_logprobs, logit_bias, mask, may_forget } = request;
        let drawing = Drawing::new(sampling, logit_bias, mask, top_logprobs)?;
        if let Some(template) = &mut self.talker.parts.template {
            template.set_day(clock::now());
        }
        let pictures = pictures(&prompt);
        let mut work = Described::default();
        let descriptions = match self.describe(&pictures, events, cancel, &mut work)? {
            Some(descriptions) => descriptions,
            None => return Ok(outcome(None, Vec::new(), work)),
        };
        // Nothing to do where it is loaded.
        self.talker.decoder.load()?;
        let asked = self.asked(&prompt, &descriptions)?;
        let max_tokens = max_tokens.unwrap_or(usize::MAX);
        let mut generation = Generation { drawing, max_tokens, stop: &stop, may_forget, events, cancel, ended: false };
        let answer = self.talker.generate(asked, &mut generation)?;
        Ok(outcome(Some(answer), descriptions, work))
    }

    /// The text that the template makes of a conversation, with what is known of its pictures; or the text to be continued.
    ///
    /// # Errors
    /// Those of template and tokenizer.
    pub fn render(&self, prompt: &Prompt) -> Result<String, Error> {
        match prompt {
            Prompt::Messages { messages, tools } => {
                let mut lines = self.lines(messages, None)?;
                show(&mut lines);
                Ok(render(&self.talker.parts, &lines, tools)?.text)
            }
            Prompt::Text(text) | Prompt::Pictured { text, .. } => Ok(text.clone()),
            Prompt::Tokens(tokens) => Ok(self.tokenizer().decode(tokens)?),
        }
    }

    /// Positions that a prompt takes, where nothing of it is cached. Pictures that were not described yet are, as the count depends on what
    /// is said of them.
    ///
    /// # Errors
    /// As [`Engine::generate`].
    pub fn count(&mut self, prompt: &Prompt) -> Result<usize, Error> {
        let mut work = Described::default();
        let never = AtomicBool::new(false);
        let described = self.describe(&pictures(prompt), &mut talker::no_events, &never, &mut work)?;
        let asked = self.asked(prompt, &described.unwrap_or_default())?;
        self.talker.count(&asked)
    }

    /// Forgets all conversations, not what was said of pictures; the models stay loaded.
    ///
    /// # Errors
    /// Those of the device.
    pub fn forget(&mut self) -> Result<(), Error> {
        self.talker.forget()
    }

    /// Gives the models' memory back until [`Engine::load`] or the next request; that of conversations stays, if `keep`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn unload(&mut self, keep: bool) -> Result<(), Error> {
        if !keep {
            self.talker.forget()?;
        }
        self.talker.decoder.unload(!keep)?;
        match &mut self.describer {
            Some(describer) if !describer.swaps => {
                describer.talker.forget()?;
                describer.talker.decoder.unload(true)
            }
            _ => Ok(()),
        }
    }

    /// Brings the models into memory.
    ///
    /// # Errors
    /// Those of the device.
    pub fn load(&mut self) -> Result<(), Error> {
        if let Some(describer) = self.describer.as_mut().filter(|describer| !describer.swaps) {
            describer.talker.decoder.load()?;
        }
        self.talker.decoder.load()
    }

    /// Describes pictures where another model answers; `None` where the user cancelled.
    fn describe(
        &mut self,
        pictures: &[Arc<Picture>],
        events: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
        cancel: &AtomicBool,
        work: &mut Described,
    ) -> Result<Option<Vec<String>>, Error> {
        let Some(describer) = self.describer.as_mut().filter(|_| !pictures.is_empty()) else {
            return Ok(Some(Vec::new()));
        };
        let is_known = |picture: &Arc<Picture>| describer.known.get(picture.hash()).is_some();
        if pictures.iter().all(is_known) {
            return describer.describe_all(pictures, events, cancel, work);
        }
        if describer.swaps {
            self.talker.decoder.unload(false)?;
        }
        describer.talker.decoder.load()?;
        let described = describer.describe_all(pictures, events, cancel, work);
        if describer.swaps {
            describer.talker.forget()?;
            describer.talker.decoder.unload(true)?;
        }
        described
    }

    /// What the answering model reads.
    fn asked<'p>(&self, prompt: &'p Prompt, descriptions: &[String]) -> Result<Asked<'p>, Error> {
        let parts = &self.talker.parts;
        let tokens = match prompt {
            Prompt::Messages { messages, tools } => {
                return Ok(Asked::Lines { lines: self.lines(messages, Some(descriptions))?, tools });
            }
            Prompt::Tokens(tokens) => tokens.clone(),
            Prompt::Text(text) => parts.tokenizer.encode(text, true)?,
            Prompt::Pictured { text, pictures } => match &self.describer {
                Some(describer) if !pictures.is_empty() => {
                    parts.tokenizer.encode(&describer.handover.render(descriptions, text)?, true)?
                }
                _ => return self.asked_with(&parts.tokenizer.encode(text, true)?, pictures),
            },
        };
        self.asked_with(&tokens, &[])
    }

    /// Tokens, of which some stand for pictures.
    fn asked_with<'p>(&self, tokens: &[u32], pictures: &[Arc<Picture>]) -> Result<Asked<'p>, Error> {
        let input = self.talker.parts.image.as_ref();
        let mut pictures = self.shown(pictures)?;
        let is_among_others = pictures.len() > 1;
        pictures.iter_mut().for_each(|shown| shown.show(is_among_others));
        let (slots, found) = expand(tokens, input, &pictures);
        if found != pictures.len() {
            let placeholder = input.map_or("", |input| &input.placeholder).to_owned();
            return Err(chat::Error::Placeholders { found, pictures: pictures.len(), placeholder }.into());
        }
        if slots.is_empty() {
            return Err(Error::NoTokens);
        }
        Ok(Asked::Slots { slots, pictures })
    }

    /// Pictures for a model that sees.
    fn shown(&self, pictures: &[Arc<Picture>]) -> Result<Vec<Shown>, Error> {
        if pictures.is_empty() {
            return Ok(Vec::new());
        }
        let blind = || chat::Error::Blind { model: self.talker.parts.model.clone(), able: Vec::new() };
        let input = self.talker.parts.image.as_ref().ok_or_else(blind)?;
        pictures.iter().map(|picture| Ok(Shown::new(picture.clone(), input)?)).collect()
    }

    /// A conversation as the answering model reads it; without `descriptions`, those of pictures that nobody described are left out.
    fn lines(&self, messages: &[Message], descriptions: Option<&[String]>) -> Result<Vec<Line>, Error> {
        let mut lines = Vec::with_capacity(messages.len());
        let mut described = 0;
        for message in messages {
            let (text, pictures) = content(message);
            let mut line = Line {
                message: template::Message { fields: fields(message), ..template::Message::new(message.role, text) },
                pictured: !pictures.is_empty(),
                pictures: Vec::new(),
                answer: None,
            };
            match &self.describer {
                Some(describer) if !pictures.is_empty() => {
                    let range = described..described + pictures.len();
                    let said = descriptions.and_then(|all| all.get(range)).unwrap_or_default();
                    described += pictures.len();
                    line.message.text = describer.handover.render(said, &line.message.text)?;
                }
                _ => line.pictures = self.shown(&pictures)?,
            }
            lines.push(line);
        }
        number_answers(&mut lines);
        Ok(lines)
    }
}

/// Pictures of a prompt, in order.
fn pictures(prompt: &Prompt) -> Vec<Arc<Picture>> {
    match prompt {
        Prompt::Messages { messages, .. } => messages.iter().flat_map(|message| content(message).1).collect(),
        Prompt::Pictured { pictures, .. } => pictures.clone(),
        Prompt::Text(_) | Prompt::Tokens(_) => Vec::new(),
    }
}

/// A message's texts, one a line, and its pictures, which stand before them.
fn content(message: &Message) -> (String, Vec<Arc<Picture>>) {
    let (mut texts, mut pictures) = (Vec::new(), Vec::new());
    for part in &message.content {
        match part {
            Part::Text(text) => texts.push(text.as_str()),
            Part::Picture(picture) => pictures.push(picture.clone()),
        }
    }
    (texts.join("\n"), pictures)
}

/// What templates know of calls, by the names that transformers has for it.
fn fields(message: &Message) -> Vec<(&'static str, serde_json::Value)> {
    let mut fields = Vec::new();
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            let function = serde_json::json!({ "name": call.name, "arguments": call.arguments });
            serde_json::json!({ "id": call.id, "type": "function", "function": function })
        });
        fields.push(("tool_calls", calls.collect()));
    }
    let texts = [("tool_call_id", &message.tool_call_id), ("name", &message.name)];
    let texts = texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?.into())));
    fields.extend(texts);
    fields
}

/// What came of a request; without an answer it was cancelled before.
fn outcome(answer: Option<Answer>, descriptions: Vec<String>, work: Described) -> Outcome {
    let cancelled = || Answer { finish: Finish::Cancelled, ..Answer::new(0, 0) };
    let answer = answer.unwrap_or_else(cancelled);
    let mut encode: Phase = work.encode;
    talker::sum(&mut encode, answer.encode);
    Outcome {
        text: answer.text,
        tokens: answer.tokens,
        finish: answer.finish,
        stopped_by: answer.stopped_by,
        prompt_tokens: answer.prompt_tokens,
        cached_tokens: answer.cached_tokens,
        descriptions,
        forgotten: answer.forgotten,
        recomputed: answer.recomputed,
        reshown: answer.reshown,
        encode,
        describe: work.describe,
        prefill: answer.prefill,
        decode: answer.decode,
    }
}

#[cfg(test)]
mod tests;
