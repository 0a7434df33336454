//! Text to tokens and back, as the checkpoint's `tokenizer.json` says; answers become text token by token.

mod added;
mod controls;
mod stream;
mod within;

use tokenizers::DecoderWrapper;

pub use controls::Controls;
pub use stream::TextStream;

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
    /// Reads the contents of a `tokenizer.json`. Truncation and padding that it asks for are switched off.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn from_bytes(json: &[u8]) -> Result<Tokenizer, Error> {
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|e| Error::Read(e.to_string()))?;
        inner.with_truncation(None).map_err(|e| Error::Read(e.to_string()))?;
        inner.with_padding(None);
        let added = added::Added::of(&inner)?;
        let decoding = match inner.get_decoder() {
            Some(decoder) if is_bytes(decoder) => Decoding::Bytes,
            Some(decoder) => Decoding::Texts { bytes: falls_back(decoder) },
            None => Decoding::Texts { bytes: false },
        };
        Ok(Tokenizer { inner, added, decoding })
    }

    /// The tokens of `text`. Special tokens written in the text are recognised; `add_special_tokens` also adds
    /// those that the tokenizer puts around a text, such as the one for its beginning. Chat templates write them
    /// themselves.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, Error> {
        let encoding = self.inner.encode_fast(text, add_special_tokens).map_err(|e| Error::Encode(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
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
