//! Added tokens: where they stand in a text, found as the `tokenizers` crate does it, but not where a text is to be read literally.

use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use tokenizers::normalizer::Range as In;
use tokenizers::{NormalizedString, Normalizer, Token};

use super::Error;

/// A part of a text, with its tokens where they are decided.
pub(super) type Part = (NormalizedString, Option<Vec<Token>>);

/// The added tokens of a tokenizer.
#[derive(Clone, Debug)]
pub(super) struct Added {
    /// All of them, by number.
    pub tokens: Vec<Entry>,
    /// Those that are looked for in the text as it is.
    pub exact: Matcher,
    /// Those that are looked for in the normalised text.
    pub normalized: Matcher,
}

/// An added token.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub id: u32,
    pub content: String,
    pub special: bool,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
}

/// Where tokens must not be found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits<'a> {
    /// Bytes of the original text that are read literally.
    pub literal: &'a [Range<usize>],
    /// No token stands on both sides of this byte of the original text.
    pub border: usize,
}

/// Finds some of the added tokens: the leftmost first, of those the longest.
#[derive(Clone, Debug)]
pub(super) struct Matcher {
    automaton: AhoCorasick,
    entries: Vec<Entry>,
}

impl Added {
    /// Those of a tokenizer.
    pub fn of(tokenizer: &tokenizers::Tokenizer) -> Result<Added, Error> {
        let (mut tokens, mut exact, mut normalized) = (Vec::new(), Vec::new(), Vec::new());
        let found = tokenizer.get_added_vocabulary().get_added_tokens_decoder();
        let mut numbers: Vec<u32> = found.keys().copied().collect();
        numbers.sort_unstable();
        for id in numbers {
            let token = &found[&id];
            let entry = Entry {
                id,
                content: token.content.clone(),
                special: token.special,
                single_word: token.single_word,
                lstrip: token.lstrip,
                rstrip: token.rstrip,
            };
            match token.normalized {
                false => exact.push((entry.content.clone(), entry.clone())),
                true => {
                    let mut pattern = NormalizedString::from(entry.content.as_str());
                    if let Some(normalizer) = tokenizer.get_normalizer() {
                        normalizer.normalize(&mut pattern).map_err(|e| Error::Read(e.to_string()))?;
                    }
                    normalized.push((pattern.get().to_owned(), entry.clone()));
                }
            }
            tokens.push(entry);
        }
        Ok(Added { tokens, exact: Matcher::new(exact)?, normalized: Matcher::new(normalized)? })
    }
}

impl Matcher {
    fn new(patterns: Vec<(String, Entry)>) -> Result<Matcher, Error> {
        let (patterns, entries): (Vec<String>, Vec<Entry>) =
            patterns.into_iter().filter(|(pattern, _)| !pattern.is_empty()).unzip();
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(patterns)
            .map_err(|e| Error::Read(format!("its added tokens: {e}")))?;
        Ok(Matcher { automaton, entries })
    }

    /// Cuts a part at the tokens found in it.
    pub fn cut(&self, part: &NormalizedString, limits: Limits<'_>) -> tokenizers::Result<Vec<Part>> {
        let text = part.get();
        let shift = part.offsets_original().0;
        let original = |range: Range<usize>| {
            let range = part.convert_offsets(In::Normalized(range.clone())).unwrap_or(range);
            range.start + shift..range.end + shift
        };
        let mut cuts: Vec<(Range<usize>, Option<u32>)> = Vec::new();
        let mut end = 0;
        for found in self.automaton.find_iter(text) {
            let entry = &self.entries[found.pattern().as_usize()];
            let (mut start, mut stop) = (found.start(), found.end());
            let place = original(start..stop);
            let literal = limits.literal.iter().any(|range| range.start < place.end && place.start < range.end);
            let across = place.start < limits.border && limits.border < place.end;
            let part_of_word =
                entry.single_word && (text[..start].ends_with(in_word) || text[stop..].starts_with(in_word));
            if literal || across || part_of_word {
                continue;
            }
            if entry.lstrip {
                let reachable =
                    |at: usize| at >= end && (limits.border == 0 || original(at..at + 1).start >= limits.border);
                while let Some(c) = text[..start].chars().next_back()
                    && c.is_whitespace()
                    && reachable(start - c.len_utf8())
                {
                    start -= c.len_utf8();
                }
            }
            if entry.rstrip {
                stop = text.len() - text[stop..].trim_start().len();
            }
            // A token that the one before ate as white space is found all the same.
            if end < start {
                cuts.push((end..start, None));
            }
            cuts.push((start..stop, Some(entry.id)));
            end = stop;
        }
        if end < text.len() {
            cuts.push((end..text.len(), None));
        }
        let cut = |(range, token): (Range<usize>, Option<u32>)| {
            let slice = part.slice(In::Normalized(range)).ok_or("an added token begins within a character")?;
            let tokens = token.map(|id| vec![Token::new(id, String::new(), (0, slice.get().len()))]);
            Ok((slice, tokens))
        };
        cuts.into_iter().map(cut).collect()
    }
}

/// What `\w` of regular expressions is, but for marks.
fn in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
