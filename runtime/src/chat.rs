//! A conversation with one model whose history stays in the KV cache: each turn only computes what is new.
//!
//! ```text
//! messages ─ template ─▶ text ─ tokenizer ─▶ tokens ─ answers and pictures in ─▶ slots ─ what is not cached ─▶ answer
//! ```
//!
//! Each turn makes the slots of the whole conversation. Answers keep the tokens that were generated: encoding their text
//! anew might give others. The longest common beginning with what is cached is kept; what differs is computed again, and counted.

mod answer;
mod decoder;
mod ending;
mod error;
mod marks;
mod prompt;
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
use crate::template::Template;
use crate::tokenizer::{TextStream, Tokenizer};

pub use answer::{Answer, Finish, Phase};
pub use decoder::Decoder;
pub(crate) use decoder::encode_picture;
pub use error::Error;
pub use marks::Guard;
use prompt::{Exchange, Prompt, Said, build, numbered};
use slots::Slot;
pub(crate) use slots::{Shown, by_picture, expand, row};

/// What a chat is made of besides its model.
#[derive(Debug)]
pub struct Parts {
    /// Name of the model, for errors.
    pub model: String,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its template; without it, texts can only be continued.
    pub template: Option<Template>,
    /// What nobody may write into a message; there where a template is.
    pub guard: Option<Guard>,
    /// How it sees.
    pub image: Option<ImageInput>,
    /// Tokens that the prompts of a model that sees begin with, where the template does not write them.
    pub opening: Vec<u32>,
    /// Tokens that end an answer.
    pub stop: Vec<u32>,
    /// What the user should know about the model, for people, one line each.
    pub notes: Vec<String>,
    /// Instructions before the conversation.
    pub system: Option<String>,
}

impl Parts {
    /// A model's parts, from its tokenizer and the source of its template.
    ///
    /// `stop` are the tokens that the checkpoint lists as ends of an answer; those that the template writes behind an answer
    /// end it, too, and where they are not listed, a note says so.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn new(
        model: &str,
        tokenizer: Tokenizer,
        template: Option<(Template, &str)>,
        image: Option<ImageInput>,
        mut stop: Vec<u32>,
    ) -> Result<Parts, crate::Error> {
        let mut notes = Vec::new();
        let placeholder = image.as_ref().map(|image| image.placeholder.as_str());
        let (template, guard) = match template {
            None => (None, None),
            Some((template, source)) => {
                let examples = ending::examples(&template);
                for (token, text) in ending::ends(&tokenizer, &examples) {
                    if !stop.contains(&token) {
                        stop.push(token);
                        notes.push(format!(
                            "model `{model}`: its chat template ends an answer with `{text}`, which its configuration does not list as \
                             an end (`eos_token_id`); answers end there, too"
                        ));
                    }
                }
                let written = [source, &examples.concat()].join("\0");
                let more: Vec<&str> = placeholder.into_iter().collect();
                let said = tokenizer.controls(Some(&written), &more)?;
                (Some(template), Some(Guard { said, answered: tokenizer.controls(None, &more)? }))
            }
        };
        let opening = tokenizer.opening()?;
        Ok(Parts { model: model.to_owned(), tokenizer, template, guard, image, opening, stop, notes, system: None })
    }
}

/// What is said to a model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Question<'a> {
    /// The text.
    pub text: &'a str,
    /// Pictures that stand before it.
    pub pictures: &'a [Picture],
    /// Whether the text tells of pictures by their descriptions: of several such questions the last one is not forgotten.
    pub described: bool,
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
    /// What was said so far; the last question has no answer while it is being answered.
    history: Vec<Exchange>,
    /// How many pictures were shown.
    shown: usize,
    /// What stands at the cached positions.
    cached: Vec<Slot>,
    /// How many of them were never cut off since the last question.
    intact: usize,
}

impl<D: Decoder> Chat<D> {
    /// A conversation that has not begun, on a `decoder` that holds nothing.
    pub fn new(decoder: D, parts: Parts) -> Chat<D> {
        Chat { decoder, parts, history: Vec::new(), shown: 0, cached: Vec::new(), intact: 0 }
    }

    /// Forgets the conversation, not the instructions before it.
    ///
    /// # Errors
    /// Those of the decoder.
    pub fn reset(&mut self) -> Result<(), crate::Error> {
        self.history.clear();
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

    /// Positions of the model's cache.
    pub fn context(&self) -> u32 {
        self.decoder.context()
    }

    /// What the user should know about the model, one line each.
    pub fn notes(&self) -> &[String] {
        &self.parts.notes
    }

    /// Says something to the model, with pictures before it, and lets it answer.
    ///
    /// Question and answer become part of the conversation; an answer that is cancelled, as far as it came. If it is
    /// cancelled before its first token, or fails, the conversation is as before. Where the context cannot hold the conversation and an
    /// answer, the oldest turns are forgotten, but not the last pictures.
    ///
    /// # Errors
    /// [`Error`]; [`Error::TooLong`] with the numbers, before anything is computed; those of template, tokenizer, pictures
    /// and device.
    pub fn ask(&mut self, question: Question<'_>, mut generation: Generation<'_>) -> Result<Answer, crate::Error> {
        let prepared = self.prepare(question.pictures)?;
        let before = self.history.clone();
        let cached = self.cached.len();
        self.intact = cached;
        let result = self.ask_prepared(question, prepared, &mut generation);
        let unsaid = match &result {
            Ok(answer) => answer.finish == Finish::Cancelled && answer.tokens.is_empty(),
            Err(_) => true,
        };
        if unsaid {
            self.history = before;
            self.cut(self.intact.min(cached))?;
        }
        result
    }

    /// Lets the model continue a text as it is, without template; the conversation is forgotten before and after.
    ///
    /// # Errors
    /// As [`Chat::ask`]; [`crate::Error::ContextFull`] for a text that is too long.
    pub fn complete(&mut self, question: Question<'_>, mut generation: Generation<'_>) -> Result<Answer, crate::Error> {
        let prepared = self.prepare(question.pictures)?;
        self.reset()?;
        let tokens = self.parts.tokenizer.encode(question.text, true)?;
        let mut pictures = numbered(prepared, &mut self.shown);
        let is_among_others = pictures.len() > 1;
        pictures.iter_mut().for_each(|shown| shown.show(is_among_others));
        let (slots, found) = expand(&tokens, self.parts.image.as_ref(), &pictures);
        if found != pictures.len() {
            let placeholder = self.parts.image.as_ref().map_or("", |input| &input.placeholder).to_owned();
            return Err(Error::Placeholders { found, pictures: pictures.len(), placeholder }.into());
        }
        let context = self.decoder.context();
        if slots.len() > context as usize {
            return Err(crate::Error::ContextFull { have: 0, need: slots.len(), context });
        }
        let result = self.answer(slots, &pictures, &mut generation);
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
        question: Question<'_>,
        pictures: Vec<Arc<Prepared>>,
        generation: &mut Generation<'_>,
    ) -> Result<Answer, crate::Error> {
        let pictured = question.described || !pictures.is_empty();
        let pictures = numbered(pictures, &mut self.shown);
        self.history.push(Exchange { question: question.text.to_owned(), pictures, pictured, answer: None });
        let (prompt, forgotten) = self.fit(generation.max_tokens)?;
        let pictures: Vec<Shown> = self.history.iter().flat_map(|exchange| exchange.pictures.iter().cloned()).collect();
        let answer = self.answer(prompt.slots, &pictures, generation)?;
        let said = Said { text: answer.text.clone(), tokens: answer.tokens.clone(), before: prompt.tail };
        if let Some(exchange) = self.history.last_mut() {
            exchange.answer = Some(said);
        }
        Ok(Answer { forgotten, ..answer })
    }

    /// The prompt for the conversation, with as many of the oldest turns forgotten as it takes, and their number.
    ///
    /// Once an answer might not fit any more, enough is forgotten to fill half of the context, so that the next questions need not
    /// compute it all again. The last pictures stay; if need be, without what was said about them, as a part of the question.
    fn fit(&mut self, max_tokens: usize) -> Result<(Prompt, usize), crate::Error> {
        let context = self.decoder.context() as usize;
        let room = context.saturating_sub(max_tokens.clamp(1, (context / 8).max(1)));
        let mut prompt = self.build()?;
        // Pictures of earlier turns that go with this question.
        let mut moved = 0;
        let mut forgotten = 0;
        let mut limit = room;
        while prompt.slots.len() > limit {
            let last = self.history.len() - 1;
            let pictured = self.history.iter().rposition(|exchange| exchange.pictured);
            let oldest = (0..last).find(|&turn| Some(turn) != pictured);
            match oldest {
                Some(turn) => {
                    self.history.remove(turn);
                    forgotten += 1;
                    limit = context / 2;
                }
                None if prompt.slots.len() <= context => break,
                None if last > 0 => {
                    let pictures = self.history.remove(0).pictures;
                    forgotten += 1;
                    moved = pictures.len();
                    self.history[0].pictures = pictures;
                }
                None if moved > 0 => {
                    self.history[0].pictures.clear();
                    moved = 0;
                }
                None => return Err(Error::TooLong { tokens: prompt.slots.len(), context: context as u32 }.into()),
            }
            prompt = self.build()?;
        }
        Ok((prompt, forgotten))
    }

    /// The prompt for the conversation, whose pictures are shown alone or together.
    fn build(&mut self) -> Result<Prompt, crate::Error> {
        let is_among_others = self.history.iter().map(|exchange| exchange.pictures.len()).sum::<usize>() > 1;
        let pictures = self.history.iter_mut().flat_map(|exchange| &mut exchange.pictures);
        pictures.for_each(|shown| shown.show(is_among_others));
        build(&self.parts, &self.history)
    }

    /// Computes what of the prompt is not cached and lets the model answer it. Afterwards `cached` says what is cached,
    /// whatever happened.
    fn answer(
        &mut self,
        prompt: Vec<Slot>,
        pictures: &[Shown],
        generation: &mut Generation<'_>,
    ) -> Result<Answer, crate::Error> {
        let context = self.decoder.context();
        // The last one is always computed, for its logits.
        let keep = slots::common(&self.cached, &prompt).min(prompt.len().saturating_sub(1));
        let mut answer = Answer {
            text: String::new(),
            tokens: Vec::new(),
            finish: Finish::Length,
            encode: Phase::default(),
            prefill: Phase::default(),
            decode: Phase::default(),
            recomputed: self.cached.len() - keep,
            reshown: pictures.iter().filter(|shown| shown.was_otherwise(&self.cached)).count(),
            forgotten: 0,
        };
        self.cut(keep)?;
        // What the repetition penalty looks at.
        let mut seen: Vec<u32> = prompt.iter().filter_map(|slot| slot.token()).collect();
        let Some(mut next) = self.read(&prompt[keep..], pictures, &seen, generation, &mut answer)? else {
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
                // The last token is said, but not cached; the next prompt has it.
                answer.finish = if cancelled { Finish::Cancelled } else { Finish::Length };
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
        pictures: &[Shown],
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
                if let Some(picture) = slots::picture(number, pictures)
                    && !encode_picture(&mut self.decoder, picture, || generation.cancelled())?
                {
                    return Ok(None);
                }
                answer.encode.add(part.iter().filter(|slot| slot.picture().is_some()).count(), watch);
            }
            let watch = Stopwatch::start();
            let rows: Vec<Row> = part.iter().map(|&slot| row(slot, self.parts.image.as_ref(), pictures)).collect();
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
}

#[cfg(test)]
mod tests;
