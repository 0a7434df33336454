//! Text to tokens and back, as the checkpoint's `tokenizer.json` says; answers become text token by token.

mod added;
mod bounds;
mod controls;
mod stream;
mod within;

use tokenizers::{DecoderWrapper, NormalizedString, Normalizer};

pub use controls::Controls;
pub use stream::TextStream;

/// The most bytes that a text may have after normalization, in the worst case; each takes some twenty bytes of memory.
const MOST_TEXT_BYTES: f64 = (16 << 20) as f64;
/// Bytes that are normalized at once to see how long they become; any growth that is accepted keeps them below the limit.
const PIECE_BYTES: usize = 8 << 10;

/// A tokenizer cannot be read, or fails on a text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `tokenizer.json` is not understood.
    #[error("the bundle's tokenizer cannot be read: {0}")]
    Read(String),
    /// A text cannot be encoded.
    #[error("the tokenizer cannot encode this text: {0}")]
    Encode(String),
    /// A text is too long.
    #[error(
        "a text of {bytes} bytes is too long for this tokenizer, which may make it {growth:.0} times as long; shorten it"
    )]
    TooLong {
        /// Bytes of the text.
        bytes: usize,
        /// How many times longer the tokenizer can make it.
        growth: f64,
    },
    /// Tokens cannot be decoded.
    #[error("the tokenizer cannot decode tokens: {0}")]
    Decode(String),
}

/// A checkpoint's tokenizer.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    added: added::Added,
    decoding: Decoding,
    growth: bounds::Growth,
}

/// How tokens become text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decoding {
    /// Each token is a string of bytes; together they are UTF-8.
    Bytes,
    /// Tokens are texts whose spaces depend on the token before; with `bytes`, tokens like `<0x0A>` are one byte.
    Texts { bytes: bool },
}

impl Tokenizer {
    /// Reads the contents of a `tokenizer.json`. Truncation and padding that it asks for are switched off. What could
    /// make texts grow without bound is refused.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn from_bytes(json: &[u8]) -> Result<Tokenizer, Error> {
        let growth = bounds::growth(json).map_err(Error::Read)?;
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|e| Error::Read(e.to_string()))?;
        inner.with_truncation(None).map_err(|e| Error::Read(e.to_string()))?;
        inner.with_padding(None);
        let added = added::Added::of(&inner)?;
        let decoding = match inner.get_decoder() {
            Some(decoder) if is_bytes(decoder) => Decoding::Bytes,
            Some(decoder) => Decoding::Texts { bytes: falls_back(decoder) },
            None => Decoding::Texts { bytes: false },
        };
        Ok(Tokenizer { inner, added, decoding, growth })
    }

    /// The tokens of `text`. Special tokens written in the text are recognised; `add_special_tokens` also adds
    /// those that the tokenizer puts around a text, such as the one for its beginning. Chat templates write them
    /// themselves.
    ///
    /// # Errors
    /// [`Error::Encode`], [`Error::TooLong`].
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, Error> {
        self.check_length(text)?;
        let encoding = self.inner.encode_fast(text, add_special_tokens).map_err(|e| Error::Encode(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Refuses a text that would take too much memory. Where the worst case would, the text is normalized in pieces, for which
    /// it would not, to see what it really becomes.
    fn check_length(&self, text: &str) -> Result<(), Error> {
        let growth = self.growth.total();
        let too_long = || Error::TooLong { bytes: text.len(), growth };
        if text.len() as f64 * growth <= MOST_TEXT_BYTES {
            return Ok(());
        }
        let (mut rest, mut bytes) = (text, 0.0);
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.floor_char_boundary(PIECE_BYTES));
            let mut piece = NormalizedString::from(piece);
            if let Some(normalizer) = self.inner.get_normalizer() {
                normalizer.normalize(&mut piece).map_err(|e| Error::Encode(e.to_string()))?;
            }
            bytes += piece.get().len() as f64 * self.growth.pre_tokenizers;
            if bytes > MOST_TEXT_BYTES {
                return Err(too_long());
            }
            rest = behind;
        }
        Ok(())
    }

    /// The tokens that the tokenizer puts before any text, such as the one for its beginning.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn opening(&self) -> Result<Vec<u32>, Error> {
        let (bare, mut full) = (self.encode("a", false)?, self.encode("a", true)?);
        let at = full.windows(bare.len().max(1)).position(|window| window == bare);
        full.truncate(at.unwrap_or(0));
        Ok(full)
    }

    /// The text of `tokens`, without special ones: what a [`TextStream`] gives for them. Bytes that are not UTF-8
    /// become U+FFFD.
    ///
    /// # Errors
    /// [`Error::Decode`].
    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        let mut stream = TextStream::default();
        let mut text = String::new();
        for &token in tokens {
            text += &stream.push(self, token)?;
        }
        Ok(text + &stream.finish(self)?)
    }

    /// The number of a token by its exact text.
    pub fn token(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    /// The bytes that a token adds to a text that is not empty; a character may be spread over several tokens. Of a special token, its
    /// text.
    pub fn token_bytes(&self, token: u32) -> Vec<u8> {
        let Some(text) = self.inner.id_to_token(token) else { return Vec::new() };
        if self.is_special(token) {
            return text.into_bytes();
        }
        stream::bytes_of_token(self, token, &text)
    }

    /// Whether a token is left out of the text of an answer.
    pub fn is_special(&self, token: u32) -> bool {
        self.added.tokens.binary_search_by_key(&token, |entry| entry.id).is_ok_and(|at| self.added.tokens[at].special)
    }

    /// The exact text of a token.
    pub fn token_text(&self, token: u32) -> Option<String> {
        self.inner.id_to_token(token)
    }
}

/// Whether a decoder only joins bytes, as that of GPT-2 does.
fn is_bytes(decoder: &DecoderWrapper) -> bool {
    match decoder {
        DecoderWrapper::ByteLevel(_) => true,
        DecoderWrapper::Sequence(parts) => {
            let parts = parts.get_decoders();
            let neutral = |part: &DecoderWrapper| matches!(part, DecoderWrapper::Fuse(_));
            parts.iter().any(is_bytes) && parts.iter().all(|part| is_bytes(part) || neutral(part))
        }
        _ => false,
    }
}

/// Whether a decoder reads tokens like `<0x0A>` as bytes.
fn falls_back(decoder: &DecoderWrapper) -> bool {
    match decoder {
        DecoderWrapper::ByteFallback(_) => true,
        DecoderWrapper::Sequence(parts) => parts.get_decoders().iter().any(falls_back),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
