//! An answer while it is written: tokens become text, stop texts end it, events tell of it.

use crate::Error;
use crate::chat::{Finish, Phase};
use crate::tokenizer::{TextStream, Tokenizer};

use super::request::{Event, TokenInfo};
use super::stop::StopTexts;
use super::talker::Generation;

/// What a model answered, and what it cost.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub text: String,
    pub tokens: Vec<u32>,
    /// The tokens, where they are those of the text and of nothing else.
    pub said: Option<Vec<u32>>,
    pub finish: Finish,
    pub stopped_by: Option<String>,
    pub prompt_tokens: usize,
    pub cached_tokens: usize,
    pub encode: Phase,
    pub prefill: Phase,
    pub decode: Phase,
    pub recomputed: usize,
    pub reshown: usize,
    pub forgotten: usize,
}

impl Answer {
    pub(super) fn new(prompt_tokens: usize, cached_tokens: usize) -> Answer {
        Answer {
            text: String::new(),
            tokens: Vec::new(),
            said: None,
            finish: Finish::Length,
            stopped_by: None,
            prompt_tokens,
            cached_tokens,
            encode: Phase::default(),
            prefill: Phase::default(),
            decode: Phase::default(),
            recomputed: 0,
            reshown: 0,
            forgotten: 0,
        }
    }
}

/// A token, and where the answer's text was when it was complete.
struct Written {
    token: u32,
    end: usize,
}

/// Tokens on their way to be text.
pub(super) struct Writing {
    stream: TextStream,
    stops: StopTexts,
    stopped_by: Option<String>,
    tokens: Vec<Written>,
    /// Bytes of the text of all tokens so far.
    end: usize,
    /// What was released.
    text: String,
    /// How much of it was told.
    told: usize,
    /// What is to be told of tokens, with the end of each.
    infos: Vec<(usize, TokenInfo)>,
}

impl Writing {
    pub(super) fn new(stop: &[String]) -> Writing {
        Writing {
            stream: TextStream::default(),
            stops: StopTexts::new(stop),
            stopped_by: None,
            tokens: Vec::new(),
            end: 0,
            text: String::new(),
            told: 0,
            infos: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, tokenizer: &Tokenizer, token: u32, info: Option<TokenInfo>) -> Result<(), Error> {
        let piece = self.stream.push(tokenizer, token)?;
        self.end += piece.len();
        self.tokens.push(Written { token, end: self.end });
        self.infos.extend(info.map(|info| (self.end, info)));
        self.release(&piece);
        Ok(())
    }

    /// No token follows.
    pub(super) fn finish(&mut self, tokenizer: &Tokenizer) -> Result<(), Error> {
        if self.is_stopped() {
            return Ok(());
        }
        let rest = self.stream.finish(tokenizer)?;
        self.end += rest.len();
        self.release(&rest);
        if !self.is_stopped() {
            self.text += &self.stops.finish();
        }
        Ok(())
    }

    fn release(&mut self, piece: &str) {
        let released = self.stops.push(piece);
        self.text += &released.text;
        self.stopped_by = released.stop;
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped_by.is_some()
    }

    /// Tells of what was released since the last time.
    pub(super) fn give(&mut self, generation: &mut Generation<'_>) {
        let ready = self.infos.iter().take_while(|(end, _)| *end <= self.text.len()).count();
        let tokens: Vec<TokenInfo> = self.infos.drain(..ready).map(|(_, info)| info).collect();
        let text = &self.text[self.told..];
        if !text.is_empty() || !tokens.is_empty() {
            generation.tell(Event::Text { text, tokens: &tokens });
            self.told = self.text.len();
        }
    }

    pub(super) fn into_answer(self, answer: &mut Answer) {
        let length = self.text.len();
        let is_whole = self.stopped_by.is_none();
        let kept = self.tokens.iter().filter(|written| is_whole || written.end <= length);
        answer.tokens = kept.map(|written| written.token).collect();
        // A stop text may begin within a token.
        let ends_with_token = is_whole || self.tokens.iter().any(|written| written.end == length) || length == 0;
        answer.said = ends_with_token.then(|| answer.tokens.clone());
        (answer.text, answer.stopped_by) = (self.text, self.stopped_by);
    }
}
