//! The model that sees for another: pictures become descriptions, which are remembered.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::Error;
use crate::chat::prompt::Line;
use crate::chat::slots::Shown;
use crate::chat::{self, Decoder, Finish, Phase};
use crate::clock::Stopwatch;
use crate::image::{Picture, PictureHash};
use crate::template::{Handover, Message, Role};

use super::draw::Drawing;
use super::request::Event;
use super::talker::{Asked, Generation, Talker, no_events};

/// The most tokens of a picture's description.
const DESCRIPTION_TOKENS: usize = 512;

/// The most bytes of descriptions that are remembered: thousands of pictures.
const MOST_BYTES: usize = 1 << 20;

/// The model that sees for another.
#[derive(Debug)]
pub(super) struct Describer<D> {
    pub talker: Talker<D>,
    pub prompt: String,
    pub handover: Handover,
    /// Only one of the two models has its weights in memory.
    pub swaps: bool,
    pub known: Descriptions,
}

/// What was said about pictures; the least recently used is forgotten first.
#[derive(Debug, Default)]
pub(super) struct Descriptions {
    texts: BTreeMap<PictureHash, (u64, String)>,
    bytes: usize,
    clock: u64,
}

impl Descriptions {
    pub(super) fn get(&mut self, picture: PictureHash) -> Option<&str> {
        self.clock += 1;
        let (used, text) = self.texts.get_mut(&picture)?;
        *used = self.clock;
        Some(text)
    }

    fn insert(&mut self, picture: PictureHash, text: String) {
        self.clock += 1;
        self.bytes += text.len();
        if let Some((_, old)) = self.texts.insert(picture, (self.clock, text)) {
            self.bytes -= old.len();
        }
        while self.bytes > MOST_BYTES && self.texts.len() > 1 {
            let oldest = self.texts.iter().min_by_key(|(_, (used, _))| *used).map(|(picture, _)| *picture);
            if let Some((_, text)) = oldest.and_then(|oldest| self.texts.remove(&oldest)) {
                self.bytes -= text.len();
            }
        }
    }
}

/// What describing took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Described {
    pub encode: Phase,
    pub describe: Phase,
}

impl<D: Decoder> Describer<D> {
    /// Describes a picture in a conversation of its own, greedily; `None` where the user cancelled.
    pub(super) fn describe(
        &mut self,
        picture: &Arc<Picture>,
        cancel: &AtomicBool,
        work: &mut Described,
    ) -> Result<Option<String>, Error> {
        let watch = Stopwatch::start();
        let input = self.talker.parts.image.as_ref();
        let blind = || chat::Error::Blind { model: self.talker.parts.model.clone(), able: Vec::new() };
        let shown = Shown::new(picture.clone(), input.ok_or_else(blind)?)?;
        let message = Message::new(Role::User, &self.prompt);
        let lines = vec![Line { message, pictures: vec![shown], pictured: true, answer: None }];
        let mut generation = Generation {
            drawing: Drawing::greedy()?,
            max_tokens: DESCRIPTION_TOKENS,
            stop: &[],
            may_forget: true,
            events: &mut no_events,
            cancel,
            ended: false,
        };
        let answer = self.talker.generate(Asked::Lines { lines, tools: &[] }, &mut generation)?;
        work.encode.tokens += answer.encode.tokens;
        work.encode.seconds += answer.encode.seconds;
        work.describe.tokens += answer.tokens.len();
        work.describe.seconds += watch.seconds() - answer.encode.seconds;
        if answer.finish == Finish::Cancelled || generation.is_cancelled() {
            return Ok(None);
        }
        let text = answer.text.trim().to_owned();
        self.known.insert(picture.hash(), text.clone());
        Ok(Some(text))
    }

    /// Describes what of `pictures` is not known yet, and tells of all; `None` where the user cancelled.
    pub(super) fn describe_all(
        &mut self,
        pictures: &[Arc<Picture>],
        events: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
        cancel: &AtomicBool,
        work: &mut Described,
    ) -> Result<Option<Vec<String>>, Error> {
        let mut descriptions = Vec::with_capacity(pictures.len());
        for (number, picture) in pictures.iter().enumerate() {
            let (text, cached) = match self.known.get(picture.hash()) {
                Some(text) => (text.to_owned(), true),
                None => {
                    if events(Event::Describing { picture: number, pictures: pictures.len() }).is_break() {
                        return Ok(None);
                    }
                    let Some(text) = self.describe(picture, cancel, work)? else { return Ok(None) };
                    (text, false)
                }
            };
            let event = Event::Described { picture: number, pictures: pictures.len(), text: &text, cached };
            if events(event).is_break() {
                return Ok(None);
            }
            descriptions.push(text);
        }
        Ok(Some(descriptions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_bounded_and_the_oldest_goes_first() {
        let mut known = Descriptions::default();
        let text = "x".repeat(MOST_BYTES / 4);
        (0..4).for_each(|picture| known.insert(PictureHash(picture), text.clone()));
        assert!(known.get(PictureHash(0)).is_some());
        known.insert(PictureHash(4), "y".to_owned());
        assert_eq!(known.get(PictureHash(1)), None);
        assert_eq!(known.get(PictureHash(4)), Some("y"));
        assert!(known.get(PictureHash(0)).is_some() && known.bytes <= MOST_BYTES);
        // The same picture once more takes no more room.
        let before = known.bytes;
        known.insert(PictureHash(4), "z".to_owned());
        assert_eq!(known.get(PictureHash(4)), Some("z"));
        assert_eq!(known.bytes, before);
        // One that is too long alone stays until the next.
        known.insert(PictureHash(9), "x".repeat(2 * MOST_BYTES));
        assert_eq!(known.texts.len(), 1);
    }
}
