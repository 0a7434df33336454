//! A conversation as slots: the rendered text's tokens, with each answer's tokens as they were generated and rows in place of pictures.
//!
//! Each turn renders and tokenizes all of the conversation anew, whatever is cached. The text between two answers is tokenized as it stands
//! in the whole text, but as if it ended where the answer begins: that is how the model read it.

use std::ops::Range;
use std::sync::Arc;

use super::marks;
use super::slots::{Shown, Slot, expand};
use super::{Error, Parts};
use crate::template::{Message, Role};

/// How much of the text before is looked at to tokenize what follows; more than any word has.
const CONTEXT_BYTES: usize = 512;

/// A question, and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub question: String,
    /// Pictures that go with the question.
    pub pictures: Vec<Shown>,
    /// Whether the question tells of pictures, shown or described.
    pub pictured: bool,
    /// `None` for the last one, which is being answered.
    pub answer: Option<Said>,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub text: String,
    /// As they were generated, without the one that ended it.
    pub tokens: Vec<u32>,
    /// The rendered text between the answer before, or the beginning, and this one, when it was generated.
    pub before: String,
}

/// What the model reads, to answer the last question.
#[derive(Debug)]
pub(crate) struct Prompt {
    pub slots: Vec<Slot>,
    /// The text behind the last answer.
    pub tail: String,
}

/// The whole prompt for `exchanges`, the last of which has no answer yet.
pub(crate) fn build(parts: &Parts, exchanges: &[Exchange]) -> Result<Prompt, crate::Error> {
    let no_template = || Error::NoTemplate { model: parts.model.clone() };
    let (template, guard) = parts.template.as_ref().zip(parts.guard.as_ref()).ok_or_else(no_template)?;
    let (messages, answers) = messages(parts.system.as_deref(), exchanges);
    let rendered = marks::render(template, &parts.tokenizer, guard, &messages)?;
    let pictures: Vec<Shown> = exchanges.iter().flat_map(|exchange| exchange.pictures.iter().cloned()).collect();
    let mut builder =
        Builder { parts, pictures, literal: rendered.literal, context: String::new(), slots: Vec::new(), shown: 0 };
    let text = rendered.text.as_str();
    let mut from = 0;
    for (number, range) in rendered.answers {
        let Some(said) = answers.get(number).copied().flatten() else { continue };
        let piece = &text[from..range.start];
        let blank = said.text.len() - said.text.trim_start().len();
        let piece = match piece.trim_end() == said.before.trim_end() {
            // White space between the prompt and the answer is what the model read and wrote.
            true => said.before.as_str(),
            false => piece.strip_suffix(&said.text[..blank]).unwrap_or(piece),
        };
        builder.text(piece, from)?;
        builder.answer(said);
        let trail = &said.text[said.text.trim_end().len()..];
        from = range.end + if text[range.end..].starts_with(trail) { trail.len() } else { 0 };
    }
    let tail = text[from..].to_owned();
    builder.text(&tail, from)?;
    Ok(Prompt { slots: builder.finish()?, tail })
}

/// The conversation as a template takes it, and beside each message the answer that it is.
fn messages<'a>(system: Option<&str>, exchanges: &'a [Exchange]) -> (Vec<Message>, Vec<Option<&'a Said>>) {
    let (mut messages, mut answers) = (Vec::new(), Vec::new());
    if let Some(text) = system {
        messages.push(Message::new(Role::System, text));
        answers.push(None);
    }
    for Exchange { question, pictures, answer, .. } in exchanges {
        messages.push(Message { pictures: pictures.len(), ..Message::new(Role::User, question) });
        answers.push(None);
        if let Some(said) = answer {
            messages.push(Message::new(Role::Assistant, &said.text));
            answers.push(Some(said));
        }
    }
    (messages, answers)
}

struct Builder<'a> {
    parts: &'a Parts,
    pictures: Vec<Shown>,
    /// Ranges of the rendered text.
    literal: Vec<Range<usize>>,
    /// The end of the text so far.
    context: String,
    slots: Vec<Slot>,
    /// How many pictures have taken their places.
    shown: usize,
}

impl Builder<'_> {
    /// A piece of the rendered text, from the byte `from` on.
    fn text(&mut self, piece: &str, from: usize) -> Result<(), crate::Error> {
        let inside = |range: &&Range<usize>| from <= range.start && range.end <= from + piece.len();
        let literal: Vec<Range<usize>> =
            self.literal.iter().filter(inside).map(|range| range.start - from..range.end - from).collect();
        let tokens = self.parts.tokenizer.encode_within(&self.context, piece, &literal)?;
        // Only vision models come with a processor that does this; tokenizers of text models leave it to the template
        // (`apply_chat_template` in transformers' `processing_utils.py` and `tokenization_utils_base.py`).
        if self.context.is_empty() && self.parts.image.is_some() && !tokens.starts_with(&self.parts.opening) {
            self.slots.extend(self.parts.opening.iter().map(|&token| Slot::Token(token)));
        }
        let (slots, shown) =
            expand(&tokens, self.parts.image.as_ref(), &self.pictures[self.shown.min(self.pictures.len())..]);
        self.slots.extend(slots);
        self.shown += shown;
        self.remember(piece);
        Ok(())
    }

    fn answer(&mut self, said: &Said) {
        self.slots.extend(said.tokens.iter().map(|&token| Slot::Token(token)));
        self.remember(&said.text);
    }

    fn remember(&mut self, text: &str) {
        self.context += text;
        let mut from = self.context.len().saturating_sub(CONTEXT_BYTES);
        while !self.context.is_char_boundary(from) {
            from += 1;
        }
        self.context.drain(..from);
    }

    fn finish(self) -> Result<Vec<Slot>, Error> {
        if self.shown != self.pictures.len() {
            let placeholder = self.parts.image.as_ref().map_or("", |input| &input.placeholder).to_owned();
            return Err(Error::Placeholders { found: self.shown, pictures: self.pictures.len(), placeholder });
        }
        Ok(self.slots)
    }
}

/// Numbers new pictures.
pub(crate) fn numbered(prepared: Vec<Arc<crate::image::Prepared>>, next: &mut usize) -> Vec<Shown> {
    let shown = |prepared| {
        *next += 1;
        Shown { number: *next - 1, prepared }
    };
    prepared.into_iter().map(shown).collect()
}
