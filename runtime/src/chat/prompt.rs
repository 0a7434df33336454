//! A conversation as slots: the rendered text's tokens, with each answer's tokens as they were generated and rows in place of pictures.
//!
//! Each request renders and tokenizes all of the conversation anew, whatever is cached. The text between two answers is tokenized as it
//! stands in the whole text, but as if it ended where the answer begins: that is how the model read it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::marks::{self, Rendered};
use super::slots::{Shown, Slot, expand};
use super::{Error, Parts};
use crate::template::Message;

/// How much of the text before is looked at to tokenize what follows; more than any word has.
const CONTEXT_BYTES: usize = 512;

/// One message of a conversation.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// As a template takes it, but for the number of pictures.
    pub message: Message,
    /// Pictures that go with it.
    pub pictures: Vec<Shown>,
    /// Whether it tells of pictures, shown or described.
    pub pictured: bool,
    /// Of an answer, the how manieth of the conversation it is, from 0.
    pub answer: Option<usize>,
}

/// An answer that the model gave.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Said {
    pub text: String,
    /// As they were generated, without the one that ended it.
    pub tokens: Vec<u32>,
    /// The rendered text between the answer before, or the beginning, and this one, when it was generated.
    pub before: String,
}

/// Answers by their places in the conversation.
pub(crate) type Answers = BTreeMap<usize, Said>;

/// What the model reads, to give the next answer.
#[derive(Clone, Debug)]
pub(crate) struct Prompt {
    pub slots: Vec<Slot>,
    /// The text behind the last answer.
    pub tail: String,
}

/// The answers among `lines` that are among `answers`, too: those whose tokens are known.
pub(crate) fn known(lines: &[Line], answers: &Answers) -> Answers {
    let said = |line: &Line| {
        let said = answers.get(&line.answer?)?;
        (said.text.trim() == line.message.text.trim()).then(|| Some((line.answer?, said.clone()))).flatten()
    };
    lines.iter().filter_map(said).collect()
}

/// Shows the pictures of a conversation alone or together, as many as there are.
pub(crate) fn show(lines: &mut [Line]) {
    let is_among_others = lines.iter().map(|line| line.pictures.len()).sum::<usize>() > 1;
    for line in lines {
        line.pictures.iter_mut().for_each(|shown| shown.show(is_among_others));
        line.message.pictures = line.pictures.len();
    }
}

/// The conversation as text.
pub(crate) fn render(parts: &Parts, lines: &[Line], tools: &[serde_json::Value]) -> Result<Rendered, crate::Error> {
    let no_template = || Error::NoTemplate { model: parts.model.clone() };
    let (template, guard) = parts.template.as_ref().zip(parts.guard.as_ref()).ok_or_else(no_template)?;
    let messages: Vec<Message> = lines.iter().map(|line| line.message.clone()).collect();
    marks::render(template, &parts.tokenizer, guard, &messages, tools)
}

/// The whole prompt for `lines`, of which `rendered` is the text, with the tokens of `answers`.
pub(crate) fn assemble(
    parts: &Parts,
    lines: &[Line],
    rendered: &Rendered,
    answers: &Answers,
) -> Result<Prompt, crate::Error> {
    let pictures: Vec<Shown> = lines.iter().flat_map(|line| line.pictures.iter().cloned()).collect();
    let literal = rendered.literal.clone();
    let mut builder = Builder { parts, pictures, literal, context: String::new(), slots: Vec::new(), shown: 0 };
    let text = rendered.text.as_str();
    let mut from = 0;
    for (number, range) in &rendered.answers {
        let said = lines.get(*number).and_then(|line| answers.get(&line.answer?));
        let Some(said) = said else { continue };
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
