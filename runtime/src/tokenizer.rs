//! Text to tokens and back, as the checkpoint's `tokenizer.json` says; answers become text token by token.

mod bounds;

/// The most bytes that a text may have after normalization, in the worst case; each takes some twenty bytes of memory.
const MOST_TEXT_BYTES: f64 = (16 << 20) as f64;

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
    /// How many times longer it can make a text.
    growth: f64,
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
        Ok(Tokenizer { inner, growth })
    }

    /// The tokens of `text`. Special tokens written in the text are recognised; `add_special_tokens` also adds
    /// those that the tokenizer puts around a text, such as the one for its beginning. Chat templates write them
    /// themselves.
    ///
    /// # Errors
    /// [`Error::Encode`], [`Error::TooLong`].
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, Error> {
        if text.len() as f64 * self.growth > MOST_TEXT_BYTES {
            return Err(Error::TooLong { bytes: text.len(), growth: self.growth });
        }
        let encoding = self.inner.encode_fast(text, add_special_tokens).map_err(|e| Error::Encode(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `tokens`, without special ones. Bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`Error::Decode`].
    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        self.inner.decode(tokens, true).map_err(|e| Error::Decode(e.to_string()))
    }

    /// The number of a token by its exact text.
    pub fn token(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }
}

/// The most tokens that are held back for a character to become complete. Four bytes of UTF-8 take at most four.
const MOST_HELD_BACK: usize = 16;

/// Turns tokens into text as they come: each piece of text is given out once, as soon as its characters are
/// complete. Only a window of a few tokens is decoded for each new one: those that gave the last piece, because a
/// token's text may depend on what stands before it (a leading space), and those that wait to be complete.
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    window: Vec<u32>,
    /// How many tokens at the front of the window are only there for what stands behind them.
    context: usize,
    /// How many bytes of the window's text were given out.
    shown: usize,
}

impl TextStream {
    /// Takes one more token; returns the text that is complete now, possibly none.
    ///
    /// # Errors
    /// [`Error::Decode`].
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> Result<String, Error> {
        self.window.push(token);
        let text = tokenizer.decode(&self.window)?;
        let waiting = self.window.len() - self.context;
        let complete =
            if waiting > MOST_HELD_BACK { text.as_str() } else { text.trim_end_matches(char::REPLACEMENT_CHARACTER) };
        let piece = complete.get(self.shown..).unwrap_or("").to_owned();
        if piece.is_empty() {
            return Ok(piece);
        }
        self.shown = complete.len();
        if complete.len() == text.len() {
            self.window.drain(..self.context);
            self.context = self.window.len();
            self.shown = tokenizer.decode(&self.window)?.len();
        }
        Ok(piece)
    }

    /// The rest, after the last token: characters that stayed incomplete, as U+FFFD.
    ///
    /// # Errors
    /// [`Error::Decode`].
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String, Error> {
        let text = tokenizer.decode(&self.window)?;
        let rest = text.get(self.shown..).unwrap_or("").to_owned();
        *self = TextStream::default();
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer(model: &str) -> Tokenizer {
        let path = format!("{}/../demo/{model}/tokenizer.json", env!("CARGO_MANIFEST_DIR"));
        Tokenizer::from_bytes(&std::fs::read(path).unwrap()).unwrap()
    }

    /// Words with metaspaces, and bytes, as older tokenizers have them.
    fn metaspace() -> Tokenizer {
        let mut vocabulary: Vec<String> = vec!["<unk>".into(), "▁Hi".into(), "▁you".into(), "!".into()];
        vocabulary.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
        let vocabulary: serde_json::Map<_, _> =
            vocabulary.into_iter().enumerate().map(|(i, text)| (text, i.into())).collect();
        let json = serde_json::json!({
            "version": "1.0", "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
            "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
            "post_processor": null,
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocabulary, "merges": []},
        });
        Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap()
    }

    #[track_caller]
    fn check_stream(tokenizer: &Tokenizer, tokens: &[u32]) -> Vec<String> {
        let mut stream = TextStream::default();
        let mut pieces: Vec<String> = tokens.iter().map(|&token| stream.push(tokenizer, token).unwrap()).collect();
        let most = 2 * MOST_HELD_BACK + 2;
        assert!(stream.window.len() <= most, "a window of {} tokens", stream.window.len());
        pieces.push(stream.finish(tokenizer).unwrap());
        assert_eq!(pieces.concat(), tokenizer.decode(tokens).unwrap());
        pieces
    }

    const TEXTS: [&str; 7] = [
        "Hello! My name is Ana.",
        "Grüße, naïve café",
        "👩‍👩‍👧‍👦 and 🏴‍☠️ and 漢字",
        " leading and trailing \n\n",
        "line\n\tline",
        "carré vert \"rot\"",
        "",
    ];

    #[test]
    fn streams_give_the_text_of_the_whole() {
        for tokenizer in [tokenizer("pocket-gemma"), tokenizer("pocket-llava"), metaspace()] {
            for text in TEXTS {
                let tokens = tokenizer.encode(text, false).unwrap();
                for piece in check_stream(&tokenizer, &tokens) {
                    assert!(!piece.contains(char::REPLACEMENT_CHARACTER), "{text:?}: {piece:?}");
                }
            }
        }
    }

    #[test]
    fn words_come_at_once_and_characters_when_complete() {
        let tokenizer = metaspace();
        let byte = |b: u32| 4 + b;
        let pieces = check_stream(&tokenizer, &[1, 2, byte(0xe2), byte(0x82), byte(0xac), 3]);
        assert_eq!(pieces, ["Hi", " you", "", "", "€", "!", ""]);
    }

    #[test]
    fn broken_characters_end_the_waiting() {
        let tokenizer = metaspace();
        let byte = |b: u32| 4 + b;
        assert_eq!(check_stream(&tokenizer, &[1, byte(0xe2), byte(0x82)]), ["Hi", "", "", "\u{fffd}\u{fffd}"]);
        let pieces = check_stream(&tokenizer, &[byte(0xff); 100]);
        assert!(pieces[..40].iter().any(|piece| !piece.is_empty()), "{pieces:?}");
    }

    #[test]
    fn special_tokens_are_read_and_not_shown() {
        let tokenizer = tokenizer("pocket-gemma");
        assert_eq!(tokenizer.encode("<start_of_turn>", false).unwrap(), [5]);
        assert_eq!(tokenizer.encode("<start_of_turn>", true).unwrap(), [2, 5]);
        assert_eq!(tokenizer.token("<end_of_turn>"), Some(6));
        let mut tokens = tokenizer.encode("Hello!", false).unwrap();
        tokens.insert(1, 6);
        assert_eq!(check_stream(&tokenizer, &tokens).concat(), "Hello!");
    }

    #[test]
    fn truncation_is_switched_off() {
        assert!(metaspace().encode("Hi you Hi you", false).unwrap().len() > 2);
    }

    #[test]
    fn broken_files_are_errors() {
        for bytes in [&b""[..], b"{}", b"{\"version\":\"1.0\"}", b"\xff\xfe"] {
            assert!(matches!(Tokenizer::from_bytes(bytes), Err(Error::Read(_))));
        }
    }
}
