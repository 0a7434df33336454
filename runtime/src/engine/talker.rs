//! One model and its saved conversations: reads what of a prompt is not cached, and writes the answer.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Error;
use crate::chat::forget::{Fitted, Forgotten, fit};
use crate::chat::prompt::{Answers, Line, Prompt, Said, assemble, known, render, show};
use crate::chat::slots::{self, Shown, Slot, by_picture, row};
use crate::chat::{Decoder, Finish, Parts, Phase, encode_picture};
use crate::clock::Stopwatch;
use crate::sequence::Row;
use crate::template::Role;

use super::answer::{Answer, Writing};
use super::choice::{Candidate, choose};
use super::draw::{Drawing, Drawn};
use super::request::Event;

/// What is cached of one conversation.
#[derive(Debug, Default)]
pub(super) struct Cached {
    /// What stands at its positions.
    pub slots: Vec<Slot>,
    /// The answers among them.
    pub answers: Answers,
    pub forgotten: Forgotten,
    /// Positions of the last prompt; the rest is its answer.
    pub prompt: usize,
    /// See [`Candidate::went_on`].
    pub went_on: bool,
    /// When it was last used; 0: never.
    pub used: u64,
}

/// What a model is asked to go on from.
#[derive(Debug)]
pub(super) enum Asked<'a> {
    /// A conversation.
    Lines { lines: Vec<Line>, tools: &'a [serde_json::Value] },
    /// Positions, with the pictures that stand at some of them.
    Slots { slots: Vec<Slot>, pictures: Vec<Shown> },
}

/// How one answer is made.
pub(super) struct Generation<'a> {
    pub drawing: Drawing,
    pub max_tokens: usize,
    pub stop: &'a [String],
    pub may_forget: bool,
    pub events: &'a mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    pub cancel: &'a AtomicBool,
    /// Whether `events` ended it.
    pub ended: bool,
}

impl Generation<'_> {
    pub(super) fn tell(&mut self, event: Event<'_>) {
        self.ended |= (self.events)(event).is_break();
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.ended || self.cancel.load(Ordering::Relaxed)
    }
}

/// A prompt as it is for one of the saved conversations, whose answers it has.
#[derive(Clone, Debug)]
struct Draft {
    slots: Vec<Slot>,
    pictures: Vec<Shown>,
    /// The text behind the last answer, and the how manieth answer the next one is; of a conversation.
    next: Option<(String, usize)>,
    answers: Answers,
    forgotten: Forgotten,
    /// Turns that were forgotten for it.
    turns: usize,
}

/// A model that is talked to.
#[derive(Debug)]
pub(super) struct Talker<D> {
    pub decoder: D,
    pub parts: Parts,
    pub cached: Vec<Cached>,
    /// Counts requests.
    clock: u64,
}

impl<D: Decoder> Talker<D> {
    /// A model whose sequences hold nothing.
    pub(super) fn new(decoder: D, parts: Parts) -> Talker<D> {
        let cached = (0..decoder.slots().max(1)).map(|_| Cached::default()).collect();
        Talker { decoder, parts, cached, clock: 0 }
    }

    /// Forgets all conversations.
    pub(super) fn forget(&mut self) -> Result<(), Error> {
        for slot in 0..self.cached.len() {
            self.cached[slot] = Cached::default();
            self.decoder.truncate(slot, 0)?;
        }
        Ok(())
    }

    /// A conversation continues here as the last used one.
    pub(super) fn touch(&mut self, slot: usize) {
        self.clock += 1;
        self.cached[slot].used = self.clock;
    }

    /// Positions of a prompt that nobody has read.
    pub(super) fn count(&self, asked: &Asked<'_>) -> Result<usize, Error> {
        match asked {
            Asked::Slots { slots, .. } => Ok(slots.len()),
            Asked::Lines { lines, tools } => {
                let mut lines = lines.clone();
                show(&mut lines);
                let rendered = render(&self.parts, &lines, tools)?;
                Ok(assemble(&self.parts, &lines, &rendered, &Answers::new())?.slots.len())
            }
        }
    }

    /// Answers. What is cached afterwards is known, whatever happens.
    ///
    /// # Errors
    /// [`crate::chat::Error::TooLong`] before anything is computed; those of template, tokenizer, pictures and device.
    pub(super) fn generate(&mut self, asked: Asked<'_>, generation: &mut Generation<'_>) -> Result<Answer, Error> {
        let mut drafts = self.drafts(&asked, generation)?;
        let shared = |slot: usize, draft: &Draft| {
            // The last position is always computed, for its logits.
            slots::common(&self.cached[slot].slots, &draft.slots).min(draft.slots.len().saturating_sub(1))
        };
        let candidates: Vec<Candidate> = (self.cached.iter().zip(&drafts).enumerate())
            .map(|(slot, (cached, draft))| Candidate {
                cached: cached.slots.len(),
                shared: shared(slot, draft),
                answer: cached.slots.len().saturating_sub(cached.prompt),
                went_on: cached.went_on,
                used: cached.used,
            })
            .collect();
        let choice = choose(&candidates);
        let source = choice.from.unwrap_or(choice.slot);
        let (slot, keep, draft) = (choice.slot, candidates[source].shared, drafts.swap_remove(source));
        let mut answer = Answer::new(draft.slots.len(), keep);
        answer.forgotten = draft.turns;
        answer.recomputed = if choice.from.is_none() { candidates[slot].cached - keep } else { 0 };
        let before = &self.cached[source].slots;
        let reshown = draft.pictures.iter().filter(|shown| shown.was_otherwise(before));
        answer.reshown = reshown.map(Shown::hash).collect::<BTreeSet<_>>().len();
        self.cut(slot, choice.from, keep)?;
        self.touch(slot);
        let cached = &mut self.cached[slot];
        (cached.answers, cached.forgotten) = (draft.answers, draft.forgotten);
        cached.went_on = choice.from.is_none() && candidates[slot].goes_on();
        cached.prompt = draft.slots.len();
        let answered = self.answer(slot, &draft.slots, &draft.pictures, generation, &mut answer);
        let kept = self.cached[slot].slots.len() as u32;
        if self.decoder.position(slot) > kept {
            // What failed may have left something behind it.
            self.decoder.truncate(slot, kept)?;
        }
        answered?;
        if let (Some((before, number)), Some(tokens)) = (draft.next, answer.said.take()) {
            let said = Said { text: answer.text.clone(), tokens, before };
            self.cached[slot].answers.insert(number, said);
        }
        Ok(answer)
    }

    /// Keeps the first positions of a sequence, its own or another's.
    fn cut(&mut self, slot: usize, from: Option<usize>, keep: usize) -> Result<(), Error> {
        match from {
            None => {
                self.cached[slot].slots.truncate(keep);
                self.decoder.truncate(slot, keep as u32)
            }
            Some(from) => {
                self.cached[slot] = Cached::default();
                self.decoder.truncate(slot, 0)?;
                self.decoder.fork(from, slot, keep as u32)?;
                self.cached[slot].slots = self.cached[from].slots[..keep].to_vec();
                Ok(())
            }
        }
    }

    /// The prompt as it is for each saved conversation.
    fn drafts(&self, asked: &Asked<'_>, generation: &Generation<'_>) -> Result<Vec<Draft>, Error> {
        let context = self.decoder.context() as usize;
        let (lines, tools) = match asked {
            Asked::Lines { lines, tools } => (lines, *tools),
            Asked::Slots { slots, pictures } => {
                if slots.len() > context {
                    return Err(Error::ContextFull { have: 0, need: slots.len(), context: context as u32 });
                }
                let draft = Draft {
                    slots: slots.clone(),
                    pictures: pictures.clone(),
                    next: None,
                    answers: Answers::new(),
                    forgotten: Forgotten::default(),
                    turns: 0,
                };
                return Ok(vec![draft; self.cached.len()]);
            }
        };
        let room = match generation.may_forget {
            true => context.saturating_sub(generation.max_tokens.clamp(1, (context / 8).max(1))),
            false => context,
        };
        let number = lines.iter().filter(|line| line.answer.is_some()).count();
        let mut all = lines.clone();
        show(&mut all);
        let rendered = render(&self.parts, &all, tools)?;
        let draft = |cached: &Cached| -> Result<Draft, Error> {
            let answers = known(lines, &cached.answers);
            let build = |some: &[Line]| -> Result<Prompt, Error> {
                match some.len() == all.len() {
                    // Nothing was forgotten yet, and all render the same.
                    true => assemble(&self.parts, &all, &rendered, &answers),
                    false => assemble(&self.parts, some, &render(&self.parts, some, tools)?, &answers),
                }
            };
            let Fitted { lines, prompt, forgotten, turns } = match generation.may_forget {
                true => fit(lines, &cached.forgotten, (context, room), build)?,
                false => {
                    let prompt = build(&all)?;
                    let tokens = prompt.slots.len();
                    if tokens > context {
                        return Err(crate::chat::Error::TooLong { tokens, context: context as u32 }.into());
                    }
                    Fitted { lines: all.clone(), prompt, forgotten: Forgotten::default(), turns: 0 }
                }
            };
            let pictures = lines.iter().flat_map(|line| line.pictures.iter().cloned()).collect();
            let next = Some((prompt.tail, number));
            Ok(Draft { slots: prompt.slots, pictures, next, answers, forgotten, turns })
        };
        // Most conversations have nothing to do with the request: for them, the prompt is the same.
        let is_plain = |cached: &Cached| known(lines, &cached.answers).is_empty() && !cached.forgotten.is_of(lines);
        let mut plain: Option<Draft> = None;
        let mut drafts = Vec::with_capacity(self.cached.len());
        for cached in &self.cached {
            drafts.push(match (is_plain(cached), &plain) {
                (true, Some(plain)) => plain.clone(),
                (true, None) => plain.insert(draft(&Cached::default())?).clone(),
                (false, _) => draft(cached)?,
            });
        }
        Ok(drafts)
    }

    /// Computes what of the prompt is not cached and lets the model answer it. Afterwards `cached` says what is cached,
    /// whatever happened.
    fn answer(
        &mut self,
        slot: usize,
        prompt: &[Slot],
        pictures: &[Shown],
        generation: &mut Generation<'_>,
        answer: &mut Answer,
    ) -> Result<(), Error> {
        let context = self.decoder.context() as usize;
        // What the repetition penalty looks at.
        let mut seen: Vec<u32> = prompt.iter().filter_map(|slot| slot.token()).collect();
        let read = self.read(slot, prompt, pictures, &seen, generation, answer);
        // The decoder may have read a part of what failed or was ended.
        let done = self.decoder.position(slot) as usize;
        self.cached[slot].slots = prompt[..done.min(prompt.len())].to_vec();
        let Some(mut next) = read? else {
            answer.finish = Finish::Cancelled;
            return Ok(());
        };
        let watch = Stopwatch::start();
        let mut writing = Writing::new(generation.stop);
        let before = seen.len();
        while seen.len() - before < generation.max_tokens {
            let Drawn { token, info } = next;
            if self.parts.stop.contains(&token) {
                answer.finish = Finish::Stop;
                break;
            }
            seen.push(token);
            writing.push(&self.parts.tokenizer, token, info)?;
            writing.give(generation);
            let is_complete = generation.drawing.accept(token)?;
            if is_complete || writing.is_stopped() {
                answer.finish = Finish::Stop;
                break;
            }
            let cancelled = generation.is_cancelled();
            let full = self.cached[slot].slots.len() >= context;
            if cancelled || full || seen.len() - before == generation.max_tokens {
                // The last token is said, but not cached; the next prompt has it.
                answer.finish = if cancelled { Finish::Cancelled } else { Finish::Length };
                break;
            }
            let logits = self.decoder.decode(slot, token)?;
            self.cached[slot].slots.push(Slot::Token(token));
            next = generation.drawing.draw(logits, &seen, seen.len() - before, &self.parts.tokenizer)?;
        }
        writing.finish(&self.parts.tokenizer)?;
        writing.give(generation);
        if writing.is_stopped() {
            answer.finish = Finish::Stop;
        }
        answer.decode.add(seen.len() - before, watch);
        writing.into_answer(answer);
        Ok(())
    }

    /// Computes slots, at most one picture at a time, because the next one's rows take the place of the last one's. Gives the
    /// first token of the answer, or `None` where the user cancelled before.
    fn read(
        &mut self,
        slot: usize,
        prompt: &[Slot],
        pictures: &[Shown],
        seen: &[u32],
        generation: &mut Generation<'_>,
        answer: &mut Answer,
    ) -> Result<Option<Drawn>, Error> {
        let (total, cached) = (prompt.len(), answer.cached_tokens);
        let mut done = cached;
        let mut next = None;
        for (shown, part) in by_picture(&prompt[cached..]) {
            if generation.is_cancelled() {
                return Ok(None);
            }
            if let Some(shown) = shown.and_then(|hash| slots::picture(hash, pictures))
                && let Some(input) = &self.parts.image
            {
                let picture = pictures.iter().position(|other| other.hash() == shown.hash()).unwrap_or(0);
                generation.tell(Event::Encoding { picture, pictures: pictures.len() });
                let watch = Stopwatch::start();
                let prepared = shown.prepare(input)?;
                let encode = |tile, pixels: &[f32]| self.decoder.encode_tile(slot, tile, pixels);
                if !encode_picture(encode, &prepared, || generation.is_cancelled())? {
                    return Ok(None);
                }
                answer.encode.add(part.iter().filter(|slot| slot.picture().is_some()).count(), watch);
            }
            let watch = Stopwatch::start();
            let input = self.parts.image.as_ref();
            let rows: Vec<Row> = part.iter().map(|&slot| row(slot, input, pictures)).collect();
            let mut goes_on = |position: u32| {
                generation.tell(Event::Prefill { done: position as usize, total, cached });
                !generation.is_cancelled()
            };
            let Some(logits) = self.decoder.prefill(slot, &rows, &mut goes_on)? else { return Ok(None) };
            done += part.len();
            answer.prefill.add(part.len(), watch);
            if done == total {
                next = Some(generation.drawing.draw(logits, seen, 0, &self.parts.tokenizer)?);
            }
            generation.tell(Event::Prefill { done, total, cached });
        }
        next.map(Some).ok_or(Error::NoTokens)
    }
}

/// Descriptions and such need no events.
pub(super) fn no_events(_: Event<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Work of several phases.
pub(super) fn sum(phase: &mut Phase, more: Phase) {
    phase.tokens += more.tokens;
    phase.seconds += more.seconds;
}

/// Counts the answers of a whole conversation.
pub(super) fn number_answers(lines: &mut [Line]) {
    let answers = lines.iter_mut().filter(|line| line.message.role == Role::Assistant);
    answers.enumerate().for_each(|(number, line)| line.answer = Some(number));
}
