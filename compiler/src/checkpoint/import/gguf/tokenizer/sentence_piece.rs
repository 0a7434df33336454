//! SentencePiece's BPE (Kudo and Richardson 2018, arXiv 1808.06226): pieces with scores, as a list of merges.
//!
//! SentencePiece joins the two neighbours whose union is the piece of the highest score, again and again. `tokenizers` joins the
//! neighbours that come first in a list of merges. So the list has each way of cutting a piece in two that are pieces,
//! those of the highest score first; this is also how transformers converts such tokenizers
//! (`convert_slow_tokenizer.py`, `generate_merges`).

use std::cmp::Reverse;
use std::collections::HashMap;

use serde_json::{Value, json};

use super::super::metadata::Metadata;
use super::{Algorithm, TokenKind};

/// Stands for a space in pieces.
pub const SPACE: char = '▁';

/// Reads what is this kind's own.
pub fn read(metadata: Metadata<'_>, tokens: usize) -> Result<Algorithm, String> {
    let scores = metadata.floats("tokenizer.ggml.scores")?.ok_or("its metadata tell no scores of tokens")?;
    if scores.len() != tokens {
        return Err(format!("its metadata have {tokens} tokens, but scores of {}", scores.len()));
    }
    if metadata.flag("tokenizer.ggml.remove_extra_whitespaces")? == Some(true) {
        return Err("its tokenizer removes spaces, which is not understood".to_owned());
    }
    if metadata.count("tokenizer.ggml.precompiled_charsmap").is_some_and(|bytes| bytes > 0) {
        return Err("its tokenizer replaces characters by a table, which is not understood".to_owned());
    }
    Ok(Algorithm::SentencePiece { space_before: metadata.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true) })
}

/// All merges, the first to be done first.
pub fn merges<'t>(tokens: &[&'t str], kinds: &[TokenKind], scores: &[f32]) -> Vec<(&'t str, &'t str)> {
    let is_part = |kind| matches!(kind, TokenKind::Normal | TokenKind::Unused | TokenKind::Byte);
    let parts = tokens.iter().enumerate().filter(|(id, _)| is_part(kinds[*id]));
    let ids: HashMap<&str, u32> = parts.map(|(id, text)| (*text, id as u32)).collect();
    let mut merges = Vec::new();
    for (id, text) in tokens.iter().enumerate().filter(|(id, _)| kinds[*id] == TokenKind::Normal) {
        for (cut, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(cut);
            if let (Some(left), Some(right)) = (ids.get(left), ids.get(right)) {
                merges.push((id as u32, *left, *right));
            }
        }
    }
    // Scores in the order of their bits, which is that of numbers once signs are accounted for.
    let descending = |score: f32| Reverse(ordered(score));
    merges.sort_by_key(|&(id, left, right)| (descending(scores[id as usize]), id, left, right));
    merges.into_iter().map(|(_, left, right)| (tokens[left as usize], tokens[right as usize])).collect()
}

/// A number whose order is that of `f32::total_cmp`.
fn ordered(score: f32) -> i32 {
    let bits = score.to_bits() as i32;
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

/// Spaces become `▁`; where one is put before the text, that is done before.
pub fn normalizer(space_before: bool) -> Value {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE.to_string()});
    match space_before {
        true => {
            json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE.to_string()}, replace]})
        }
        false => replace,
    }
}

/// The other way round.
pub fn decoder(space_before: bool) -> Value {
    let mut steps = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE.to_string()}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if space_before {
        steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": steps})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_high_scores_come_first() {
        let tokens = ["<unk>", "a", "b", "c", "ab", "bc", "abc", "<s>", "cab"];
        let mut kinds = [TokenKind::Normal; 9];
        kinds[0] = TokenKind::Unknown;
        kinds[7] = TokenKind::Control;
        kinds[8] = TokenKind::UserDefined;
        let scores = [0.0, -4.0, -5.0, -6.0, -1.0, 0.5, -2.0, 0.0, 0.0];
        let found = merges(&tokens, &kinds, &scores);
        assert_eq!(found, [("b", "c"), ("a", "b"), ("a", "bc"), ("ab", "c")]);
    }

    #[test]
    fn order_of_scores() {
        let scores = [f32::NEG_INFINITY, -3.5, -1.0, -0.0, 0.0, 1e-3, 2.0, f32::INFINITY];
        assert!(scores.windows(2).all(|pair| ordered(pair[0]) < ordered(pair[1])));
    }
}
