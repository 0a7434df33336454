//! Turns tokens into text as they come, without losing any of it.
//!
//! What was given out cannot be taken back. So a run of bytes is read as UTF-8 character by character: complete ones
//! are text, bytes that belong to none become U+FFFD, and only the beginning of a character waits for its rest.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::{Decoding, Error, Tokenizer};

/// Turns tokens into text as they come: each piece of text is given out once, as soon as its characters are complete.
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    /// The beginning of a character, and the tokens it comes from.
    waiting: Vec<u8>,
    held: Vec<u32>,
    /// The tokens before, which decide whether a word begins with a space.
    context: Vec<u32>,
}

impl TextStream {
    /// Takes one more token; returns the text that is complete now, possibly none.
    ///
    /// # Errors
    /// [`Error::Decode`].
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> Result<String, Error> {
        let Some(text) = tokenizer.inner.id_to_token(token) else { return Ok(String::new()) };
        if tokenizer.inner.get_added_vocabulary().is_special_token(&text) {
            return Ok(String::new());
        }
        match tokenizer.decoding {
            Decoding::Bytes => {
                self.waiting.extend(bytes_of(&text));
                Ok(self.complete())
            }
            Decoding::Texts { bytes } => match byte_of(&text).filter(|_| bytes) {
                Some(byte) => self.byte(tokenizer, token, byte),
                None => {
                    let broken = self.give_up(1);
                    Ok(broken + &self.word(tokenizer, token)?)
                }
            },
        }
    }

    /// The rest, after the last token: characters that stayed incomplete, as U+FFFD.
    ///
    /// # Errors
    /// [`Error::Decode`].
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String, Error> {
        let width = match tokenizer.decoding {
            // As `String::from_utf8_lossy`: one for the whole beginning of a character.
            Decoding::Bytes => self.waiting.len(),
            Decoding::Texts { .. } => 1,
        };
        let rest = self.give_up(width);
        *self = TextStream::default();
        Ok(rest)
    }

    /// What is complete of the waiting bytes; the beginning of a character stays.
    fn complete(&mut self) -> String {
        let mut text = String::new();
        let mut rest = 0;
        for chunk in self.waiting.utf8_chunks() {
            text += chunk.valid();
            rest += chunk.valid().len();
            if !chunk.invalid().is_empty() {
                if rest + chunk.invalid().len() == self.waiting.len() && may_continue(chunk.invalid()) {
                    break;
                }
                text.push(char::REPLACEMENT_CHARACTER);
                rest += chunk.invalid().len();
            }
        }
        self.waiting.drain(..rest);
        text
    }

    /// Takes a token that stands for one byte. Each byte of a broken character becomes a U+FFFD of its own.
    fn byte(&mut self, tokenizer: &Tokenizer, token: u32, byte: u8) -> Result<String, Error> {
        let mut text = String::new();
        self.waiting.push(byte);
        self.held.push(token);
        if !may_continue(&self.waiting) && std::str::from_utf8(&self.waiting).is_err() {
            // This byte does not continue what waits; it may begin something new.
            self.waiting.pop();
            self.held.pop();
            text += &self.give_up(1);
            self.waiting.push(byte);
            self.held.push(token);
        }
        match std::str::from_utf8(&self.waiting) {
            Ok(character) => {
                // Some decoders strip a space at the beginning of the text.
                text += &match self.context.is_empty() {
                    true => decode(tokenizer, &self.held)?,
                    false => character.to_owned(),
                };
                self.waiting.clear();
                self.context = std::mem::take(&mut self.held);
            }
            Err(_) if may_continue(&self.waiting) => {}
            Err(_) => text += &self.give_up(1),
        }
        Ok(text)
    }

    /// Gives what waits as U+FFFD, one for each `width` bytes.
    fn give_up(&mut self, width: usize) -> String {
        let count = self.waiting.len().div_ceil(width.max(1));
        self.waiting.clear();
        if !self.held.is_empty() {
            self.context = std::mem::take(&mut self.held);
        }
        std::iter::repeat_n(char::REPLACEMENT_CHARACTER, count).collect()
    }

    /// Takes a token whose text depends on what stands before it.
    fn word(&mut self, tokenizer: &Tokenizer, token: u32) -> Result<String, Error> {
        let before = decode(tokenizer, &self.context)?;
        self.context.push(token);
        let after = decode(tokenizer, &self.context)?;
        self.context.drain(..self.context.len() - 1);
        // Decoders that change what stood before exist; new text is given out all the same.
        let same = before.char_indices().zip(after.chars()).take_while(|((_, a), b)| a == b);
        let end = same.last().map_or(0, |((at, character), _)| at + character.len_utf8());
        Ok(after[end..].to_owned())
    }
}

/// The bytes of a token behind another one.
pub(super) fn bytes_of_token(tokenizer: &Tokenizer, token: u32, text: &str) -> Vec<u8> {
    match tokenizer.decoding {
        Decoding::Bytes => bytes_of(text),
        Decoding::Texts { bytes } => match byte_of(text).filter(|_| bytes) {
            Some(byte) => vec![byte],
            // As a second token: decoders take a space from the first one of a text.
            None => {
                let mut stream = TextStream { context: vec![token], ..TextStream::default() };
                stream.word(tokenizer, token).unwrap_or_default().into_bytes()
            }
        },
    }
}

fn decode(tokenizer: &Tokenizer, tokens: &[u32]) -> Result<String, Error> {
    tokenizer.inner.decode(tokens, true).map_err(|e| Error::Decode(e.to_string()))
}

/// Whether bytes are the beginning of a character, to be continued.
fn may_continue(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
}

/// The byte that a token like `<0x0A>` stands for.
fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// The bytes of a token whose characters each stand for one; the token's own text where a character stands for none, as in added
/// tokens.
pub(super) fn bytes_of(token: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(|character| BYTES.get(&character).copied()).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

/// Which byte a character stands for: printable ones of Latin-1 for themselves, the others, in order, for the characters from U+0100 on
/// (`bytes_to_unicode` of OpenAI's GPT-2).
static BYTES: LazyLock<HashMap<char, u8>> = LazyLock::new(|| {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let (shown, hidden): (Vec<u8>, Vec<u8>) = (0..=255).partition(printable);
    let shown = shown.into_iter().map(|byte| (char::from(byte), byte));
    shown.chain(('\u{100}'..).zip(hidden)).collect()
});
