//! Control tokens: those by which a chat template tells messages apart, and which nobody may write into a message.
//!
//! They are the special tokens, and of the other added tokens those that the template writes itself, but for white space: what
//! transformers takes for them (`sanitize_control_tokens` in `tokenization_utils_base.py`).

use std::ops::Range;

use aho_corasick::AhoCorasick;
use tokenizers::normalizer::Range as In;
use tokenizers::{NormalizedString, Normalizer};

use super::{Error, Tokenizer};

/// The texts of control tokens, to be found in messages.
#[derive(Clone, Debug)]
pub struct Controls {
    automaton: AhoCorasick,
}

impl Tokenizer {
    /// The control tokens: special ones; with `written`, what a chat template holds and writes, also the other added tokens in that
    /// text; and those of the texts `more`.
    ///
    /// # Errors
    /// [`Error::Read`] where there are too many.
    pub fn controls(&self, written: Option<&str>, more: &[&str]) -> Result<Controls, Error> {
        let is_control = |content: &str, special: bool| {
            !content.trim().is_empty()
                && (special || more.contains(&content) || written.is_some_and(|text| text.contains(content)))
        };
        let found = self.added.tokens.iter().filter(|entry| is_control(&entry.content, entry.special));
        let automaton = AhoCorasick::new(found.map(|entry| entry.content.as_str()));
        Ok(Controls { automaton: automaton.map_err(|e| Error::Read(format!("its special tokens: {e}")))? })
    }

    /// Where control tokens stand in `text`, as it is or once it is normalised; ranges of bytes, in order, apart from each other.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn find_controls(&self, controls: &Controls, text: &str) -> Result<Vec<Range<usize>>, Error> {
        let mut found: Vec<Range<usize>> =
            controls.automaton.find_overlapping_iter(text).map(|found| found.range()).collect();
        if let Some(normalizer) = self.inner.get_normalizer()
            && !text.is_empty()
        {
            let mut normalized = NormalizedString::from(text);
            normalizer.normalize(&mut normalized).map_err(|e| Error::Encode(e.to_string()))?;
            let ranges = controls.automaton.find_overlapping_iter(normalized.get()).map(|found| found.range());
            let originals = ranges.filter_map(|range| normalized.convert_offsets(In::Normalized(range)));
            found.extend(originals.filter(|range| text.get(range.clone()).is_some_and(|text| !text.is_empty())));
        }
        found.sort_unstable_by_key(|range| (range.start, range.end));
        let mut apart: Vec<Range<usize>> = Vec::new();
        for range in found {
            match apart.last_mut() {
                Some(last) if range.start < last.end => last.end = last.end.max(range.end),
                _ => apart.push(range),
            }
        }
        Ok(apart)
    }

    /// The added token, other than white space, that a text begins with, the longest of several, with its text.
    pub fn added_at_start(&self, text: &str) -> Option<(u32, &str)> {
        let fits = self
            .added
            .tokens
            .iter()
            .filter(|entry| !entry.content.trim().is_empty() && text.starts_with(entry.content.as_str()));
        fits.max_by_key(|entry| entry.content.len()).map(|entry| (entry.id, entry.content.as_str()))
    }
}
