//! Tokens of a text as it stands behind another one, and with parts that are read literally.
//!
//! The steps are those of the `tokenizers` crate: added tokens, normalizer, pre-tokenizer, model. Two things differ: where
//! a text is literal, no added token is found; and no token reaches across the place where the context ends.

use std::ops::Range;

use tokenizers::normalizer::Range as In;
use tokenizers::{
    Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use super::added::{Limits, Part};
use super::{Error, Tokenizer};

impl Tokenizer {
    /// The tokens of `text` as it stands behind `context`, which decides whether a prefix space belongs to it and how
    /// its first word is read. In the ranges `literal`, bytes of `text`, added tokens are ordinary text.
    ///
    /// Where no token of the whole reaches across the end of the context, these are the whole's tokens.
    ///
    /// # Errors
    /// [`Error::Encode`], [`Error::TooLong`].
    pub fn encode_within(&self, context: &str, text: &str, literal: &[Range<usize>]) -> Result<Vec<u32>, Error> {
        let whole = [context, text].concat();
        self.check_length(&whole)?;
        let border = context.len();
        let shifted: Vec<Range<usize>> = literal.iter().map(|range| range.start + border..range.end + border).collect();
        let limits = Limits { literal: &shifted, border };
        self.pipeline(&whole, limits).map_err(|e| Error::Encode(e.to_string()))
    }

    fn pipeline(&self, whole: &str, limits: Limits<'_>) -> tokenizers::Result<Vec<u32>> {
        let mut parts = PreTokenizedString::from(whole);
        parts.split(|_, part| self.added.exact.cut(&part, limits))?;
        parts.split(|_, mut part| {
            if let Some(normalizer) = self.inner.get_normalizer() {
                normalizer.normalize(&mut part)?;
            }
            self.added.normalized.cut(&part, limits)
        })?;
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut parts)?;
        }
        parts.split(|_, part| Ok(cut_at(part, limits.border)))?;
        parts.tokenize(|part| {
            let mut tokens = Vec::new();
            self.spell(part.get(), is_literal(part, limits.literal), &mut tokens)?;
            Ok(tokens)
        })?;
        let splits = parts.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let behind = splits.into_iter().filter(|(_, offsets, _)| offsets.0 >= limits.border);
        Ok(behind.flat_map(|(_, _, tokens)| tokens.iter().flatten().map(|token| token.id)).collect())
    }

    /// The model's tokens of a word. Some models have special tokens among their words; where the word is `literal`, such
    /// a token is spelled in two parts.
    fn spell(&self, mut word: &str, literal: bool, tokens: &mut Vec<tokenizers::Token>) -> tokenizers::Result<()> {
        let is_added = |id: u32, source: &str| {
            self.added.tokens.binary_search_by_key(&id, |entry| entry.id).is_ok_and(|i| {
                let content = &self.added.tokens[i].content;
                source == content || self.added.tokens[i].special && source.contains(content.as_str())
            })
        };
        loop {
            let found = self.inner.get_model().tokenize(word)?;
            let forbidden = |token: &&tokenizers::Token| {
                literal && word.get(token.offsets.0..token.offsets.1).is_some_and(|source| is_added(token.id, source))
            };
            let Some(start) = found.iter().find(forbidden).map(|token| token.offsets.0) else {
                tokens.extend(found);
                return Ok(());
            };
            let first = word[start..].chars().next().map_or(0, char::len_utf8);
            let (head, tail) = word.split_at(start + first);
            if tail.is_empty() {
                // A special token of one character cannot be spelled in any other way.
                word = &word[..start];
                continue;
            }
            self.spell(head, literal, tokens)?;
            word = tail;
        }
    }
}

/// Two parts where the byte `border` of the original text lies inside of one.
fn cut_at(part: NormalizedString, border: usize) -> Vec<Part> {
    let (start, end) = part.offsets_original();
    if border <= start || end <= border {
        return vec![(part, None)];
    }
    let at = part.convert_offsets(In::Original(0..border - start)).map_or(0, |range| range.end);
    let halves = (part.slice(In::Normalized(0..at)), part.slice(In::Normalized(at..part.get().len())));
    match halves {
        (Some(before), Some(behind)) => vec![(before, None), (behind, None)],
        _ => vec![(part, None)],
    }
}

fn is_literal(part: &NormalizedString, literal: &[Range<usize>]) -> bool {
    let (start, end) = part.offsets_original();
    literal.iter().any(|range| range.start < end && start < range.end)
}
