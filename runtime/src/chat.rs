//! A conversation with one model whose history stays in the KV cache: each turn only computes what is new.
//!
//! ```text
//! messages ─ template ─▶ text ─ what follows the cached text ─ tokenizer ─▶ tokens ─ pictures in ─▶ rows ─▶ answer
//! ```
//!
//! Generated tokens stay as they were generated: encoding the answer's text anew might give others. Where the
//! rendered text does not go on after the cached one, the longest common beginning of the tokens is kept and the rest is
//! computed again, and counted.

mod decoder;
mod slots;
#[cfg(test)]
pub(crate) mod toy;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dwindle_bundle::ImageInput;

use crate::clock::Stopwatch;
use crate::image::{Picture, Prepared};
use crate::sampler::Sampler;
use crate::session::Row;
use crate::template::{Message, Role, Template};
use crate::tokenizer::{TextStream, Tokenizer};

pub use decoder::Decoder;
pub(crate) use decoder::encode_picture;
use slots::Slot;
pub(crate) use slots::{by_picture, expand, row, show_together};

/// A chat asks for what its model or bundle cannot do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint came without a tokenizer.
    #[error("model `{model}` has no tokenizer: its checkpoint came without tokenizer.json; add it and compile again")]
    NoTokenizer {
        /// Name of the model.
        model: String,
    },
    /// The checkpoint came without a chat template.
    #[error("model `{model}` has no chat template, so it cannot chat; `--raw` continues a text")]
    NoTemplate {
        /// Name of the model.
        model: String,
    },
    /// Pictures for a model that sees none.
    #[error("model `{model}` cannot see pictures{}", seeing(able))]
    Blind {
        /// Name of the model.
        model: String,
        /// Models of the bundle that could.
        able: Vec<String>,
    },
    /// A prompt with more or fewer places for pictures than pictures.
    #[error("the prompt has {found} places for pictures (`{placeholder}`), but {pictures} new pictures were given")]
    Placeholders {
        /// Placeholders in the prompt's text.
        found: usize,
        /// Pictures.
        pictures: usize,
        /// The placeholder's text.
        placeholder: String,
    },
    /// A bundle of several models that does not say how they work together.
    #[error("the bundle has several models ({}) but does not say how they work together; compile it anew", models.join(", "))]
    Models {
        /// Their names.
        models: Vec<String>,
    },
    /// A name that the bundle does not have.
    #[error("the bundle has no model `{wanted}`; it has {}", found.join(", "))]
    NoModel {
        /// The name.
        wanted: String,
        /// Names of its models.
        found: Vec<String>,
    },
}

fn seeing(able: &[String]) -> String {
    match able {
        [] => "; bundle it with a model that describes them: `dwindle compile CHAT_MODEL VISION_MODEL`".to_owned(),
        able => format!("; in this bundle, {} can", able.join(", ")),
    }
}

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
    fn add(&mut self, tokens: usize, watch: Stopwatch) {
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
    /// Positions that were cached already and had to be computed again, because the template changed what stands before
    /// them, or because of `reshown`. 0 as long as conversations only grow.
    pub recomputed: usize,
    /// Pictures of earlier turns that had to be read again: some models see a picture in less detail beside others.
    pub reshown: usize,
}

/// What a chat is made of besides its model.
#[derive(Debug)]
pub struct Parts {
    /// Name of the model, for errors.
    pub model: String,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its template; without it, texts can only be continued.
    pub template: Option<Template>,
    /// How it sees.
    pub image: Option<ImageInput>,
    /// Tokens that end an answer.
    pub stop: Vec<u32>,
    /// Instructions before the conversation.
    pub system: Option<String>,
}

/// How one answer is made.
pub struct Generation<'a> {
    /// Draws the tokens.
    pub sampler: &'a mut Sampler,
    /// The most tokens.
    pub max_tokens: usize,
    /// Gets each piece of text as soon as it is complete.
    pub on_text: &'a mut dyn FnMut(&str),
    /// Set from elsewhere, it ends the answer.
    pub cancel: &'a AtomicBool,
}

impl Generation<'_> {
    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}

/// A conversation.
#[derive(Debug)]
pub struct Chat<D> {
    decoder: D,
    parts: Parts,
    history: History,
    /// What stands at the cached positions.
    cached: Vec<Slot>,
    /// How many of them were never cut off since the last question.
    intact: usize,
}

/// What was said so far.
#[derive(Clone, Debug, Default)]
struct History {
    messages: Vec<Message>,
    /// The pictures of all messages, in order.
    pictures: Vec<Arc<Prepared>>,
    /// The last token of an answer that was cut short: it is said, but not cached yet.
    pending: Option<u32>,
    /// The text that stands for what is cached and pending: the last rendered prompt and its answer.
    said: Option<String>,
}

/// A prompt: the slots after the first `keep` cached ones.
struct Prompt {
    keep: usize,
    new: Vec<Slot>,
}

impl<D: Decoder> Chat<D> {
    /// A conversation that has not begun, on a `decoder` that holds nothing.
    pub fn new(decoder: D, parts: Parts) -> Chat<D> {
        Chat { decoder, parts, history: History::default(), cached: Vec::new(), intact: 0 }
    }

    /// Forgets the conversation, not the instructions before it.
    ///
    /// # Errors
    /// Those of the decoder.
    pub fn reset(&mut self) -> Result<(), crate::Error> {
        self.history = History::default();
        self.cached.clear();
        self.decoder.truncate(0)
    }

    /// Gives back what memory the model can do without until [`Chat::load`]; the conversation stays.
    ///
    /// # Errors
    /// Those of the decoder.
    pub fn unload(&mut self) -> Result<(), crate::Error> {
        self.decoder.unload(false)
    }

    /// Gives back all of the model's memory until [`Chat::load`], and forgets the conversation.
    ///
    /// # Errors
    /// Those of the decoder.
    pub fn unload_and_forget(&mut self) -> Result<(), crate::Error> {
        self.reset()?;
        self.decoder.unload(true)
    }

    /// Makes the model usable again.
    ///
    /// # Errors
    /// Those of the decoder.
    pub fn load(&mut self) -> Result<(), crate::Error> {
        self.decoder.load()
    }

    /// Whether pictures can be shown to the model.
    pub fn sees(&self) -> bool {
        self.parts.image.is_some()
    }

    /// Says something to the model, with pictures before it, and lets it answer.
    ///
    /// Question and answer become part of the conversation; an answer that is cancelled, as far as it came. If it is
    /// cancelled before its first token, or fails, the conversation is as before.
    ///
    /// # Errors
    /// [`Error`]; [`crate::Error::ContextFull`] with the numbers, before anything is computed; those of template,
    /// tokenizer, pictures and device.
    pub fn ask(
        &mut self,
        text: &str,
        pictures: &[Picture],
        mut generation: Generation<'_>,
    ) -> Result<Answer, crate::Error> {
        let prepared = self.prepare(pictures)?;
        let before = self.history.clone();
        let cached = self.cached.len();
        self.intact = cached;
        let result = self.ask_prepared(text, prepared, &mut generation);
        let unsaid = match &result {
            Ok(answer) => answer.finish == Finish::Cancelled && answer.tokens.is_empty(),
            Err(_) => true,
        };
        if unsaid {
            self.restore(before, cached)?;
        }
        result
    }

    /// Lets the model continue a text as it is, without template; the conversation is forgotten before and after.
    ///
    /// # Errors
    /// As [`Chat::ask`].
    pub fn complete(
        &mut self,
        text: &str,
        pictures: &[Picture],
        mut generation: Generation<'_>,
    ) -> Result<Answer, crate::Error> {
        let prepared = self.prepare(pictures)?;
        self.reset()?;
        let tokens = self.parts.tokenizer.encode(text, true)?;
        self.history.pictures = prepared;
        slots::show_together(&mut self.history.pictures, 0);
        let result = expand(&tokens, self.parts.image.as_ref(), &self.history.pictures, 0)
            .map_err(crate::Error::from)
            .and_then(|new| self.answer(Prompt { keep: 0, new }, &mut generation));
        self.reset()?;
        result
    }

    fn prepare(&self, pictures: &[Picture]) -> Result<Vec<Arc<Prepared>>, crate::Error> {
        if pictures.is_empty() {
            return Ok(Vec::new());
        }
        let input = self.parts.image.as_ref();
        let input = input.ok_or_else(|| Error::Blind { model: self.parts.model.clone(), able: Vec::new() })?;
        pictures.iter().map(|picture| Ok(Arc::new(Prepared::new(picture, input)?))).collect()
    }

    fn ask_prepared(
        &mut self,
        text: &str,
        pictures: Vec<Arc<Prepared>>,
        generation: &mut Generation<'_>,
    ) -> Result<Answer, crate::Error> {
        let no_template = || Error::NoTemplate { model: self.parts.model.clone() };
        let template = self.parts.template.as_ref().ok_or_else(no_template)?;
        let history = &mut self.history;
        if history.messages.is_empty() {
            history.messages.extend(self.parts.system.as_ref().map(|text| Message::new(Role::System, text)));
        }
        history.messages.push(Message { pictures: pictures.len(), ..Message::new(Role::User, text) });
        let first = history.pictures.len();
        history.pictures.extend(pictures);
        let reshown = slots::show_together(&mut history.pictures, first);
        let rendered = template.render(&history.messages, true)?;
        let prompt = self.prompt(&rendered, first, reshown > 0)?;
        let recomputed = self.cached.len() - prompt.keep;
        let answer = self.answer(prompt, generation)?;
        self.history.said = Some(rendered + &answer.text);
        self.history.messages.push(Message::new(Role::Assistant, answer.text.clone()));
        Ok(Answer { recomputed, reshown, ..answer })
    }

    /// What has to be computed for the rendered conversation, whose new pictures are those from `first` on; `reshown` where
    /// older ones have changed.
    fn prompt(&self, rendered: &str, first: usize, reshown: bool) -> Result<Prompt, crate::Error> {
        let Parts { tokenizer, image, .. } = &self.parts;
        let History { pictures, pending, said, .. } = &self.history;
        let said = said.as_deref().filter(|_| !reshown);
        if let Some(rest) = said.and_then(|said| slots::continuation(rendered, said)) {
            let mut new: Vec<Slot> = pending.iter().map(|&token| Slot::Token(token)).collect();
            new.extend(expand(&tokenizer.encode(rest, false)?, image.as_ref(), pictures, first)?);
            if !new.is_empty() {
                return Ok(Prompt { keep: self.cached.len(), new });
            }
        }
        let all = expand(&tokenizer.encode(rendered, false)?, image.as_ref(), pictures, 0)?;
        // The last one is always computed, for its logits.
        let keep = slots::common(&self.cached, &all).min(all.len().saturating_sub(1));
        Ok(Prompt { keep, new: all[keep..].to_vec() })
    }

    /// Computes the prompt and lets the model answer it. Afterwards `cached` says what is cached, whatever happened.
    fn answer(&mut self, prompt: Prompt, generation: &mut Generation<'_>) -> Result<Answer, crate::Error> {
        let context = self.decoder.context();
        if prompt.keep + prompt.new.len() > context as usize {
            return Err(crate::Error::ContextFull { have: prompt.keep as u32, need: prompt.new.len(), context });
        }
        self.cut(prompt.keep)?;
        self.history.pending = None;
        let mut answer = Answer {
            text: String::new(),
            tokens: Vec::new(),
            finish: Finish::Length,
            encode: Phase::default(),
            prefill: Phase::default(),
            decode: Phase::default(),
            recomputed: 0,
            reshown: 0,
        };
        // What the repetition penalty looks at.
        let mut seen: Vec<u32> = self.cached.iter().chain(&prompt.new).filter_map(|slot| slot.token()).collect();
        let Some(mut next) = self.read(&prompt.new, &seen, generation, &mut answer)? else {
            answer.finish = Finish::Cancelled;
            return Ok(answer);
        };
        let watch = Stopwatch::start();
        let mut stream = TextStream::default();
        let mut give = |piece: String, text: &mut String| {
            if !piece.is_empty() {
                (generation.on_text)(&piece);
                *text += &piece;
            }
        };
        while answer.tokens.len() < generation.max_tokens {
            if self.parts.stop.contains(&next) {
                answer.finish = Finish::Stop;
                break;
            }
            answer.tokens.push(next);
            seen.push(next);
            give(stream.push(&self.parts.tokenizer, next)?, &mut answer.text);
            let cancelled = generation.cancel.load(Ordering::Relaxed);
            let full = self.cached.len() >= context as usize;
            if cancelled || full || answer.tokens.len() == generation.max_tokens {
                answer.finish = if cancelled { Finish::Cancelled } else { Finish::Length };
                self.history.pending = Some(next);
                break;
            }
            let logits = self.decoder.decode(next)?;
            self.cached.push(Slot::Token(next));
            next = generation.sampler.sample(logits, &seen)?;
        }
        give(stream.finish(&self.parts.tokenizer)?, &mut answer.text);
        answer.decode.add(answer.tokens.len(), watch);
        Ok(answer)
    }

    /// Computes slots, at most one picture at a time, because the next one's rows take the place of the last one's. Gives the
    /// first token of the answer, or `None` where the user cancelled before.
    fn read(
        &mut self,
        new: &[Slot],
        seen: &[u32],
        generation: &mut Generation<'_>,
        answer: &mut Answer,
    ) -> Result<Option<u32>, crate::Error> {
        let end = self.cached.len() + new.len();
        let mut next = None;
        for (shown, part) in by_picture(new) {
            if generation.cancelled() {
                return Ok(None);
            }
            if let Some(number) = shown {
                let watch = Stopwatch::start();
                if !encode_picture(&mut self.decoder, &self.history.pictures[number], || generation.cancelled())? {
                    return Ok(None);
                }
                answer.encode.add(part.iter().filter(|slot| slot.picture().is_some()).count(), watch);
            }
            let watch = Stopwatch::start();
            let rows: Vec<Row> =
                part.iter().map(|&slot| row(slot, self.parts.image.as_ref(), &self.history.pictures)).collect();
            let logits = self.decoder.prefill(&rows)?;
            self.cached.extend_from_slice(part);
            answer.prefill.add(part.len(), watch);
            if self.cached.len() == end {
                next = Some(generation.sampler.sample(logits, seen)?);
            }
        }
        next.map(Some).ok_or(crate::Error::NoTokens)
    }

    /// Forgets the cached positions from `keep` on.
    fn cut(&mut self, keep: usize) -> Result<(), crate::Error> {
        self.cached.truncate(keep);
        self.intact = self.intact.min(keep);
        self.decoder.truncate(keep as u32)
    }

    /// Makes the conversation what it was when `cached` positions were in use.
    fn restore(&mut self, before: History, cached: usize) -> Result<(), crate::Error> {
        let intact = self.intact.min(cached);
        self.history = before;
        if intact < cached {
            // What stood there is gone: the next prompt is compared token by token.
            self.history.said = None;
            self.history.pending = None;
        }
        self.cut(intact)
    }
}

#[cfg(test)]
mod tests;
