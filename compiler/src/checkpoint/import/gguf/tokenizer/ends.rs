//! Tokens that end an answer, known by their texts: few files have a key for each of them.

use std::collections::BTreeSet;

use super::super::metadata::Metadata;
use super::TokenKind;

/// Texts of special tokens that end a turn or a text, as llama.cpp knows them (`llama-vocab.cpp`, `special_eog_ids`).
const TEXTS: [&str; 13] = [
    "<EOT>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<|call|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|im_end|>",
    "<|return|>",
    "_<EOT>",
    "<｜end▁of▁sentence｜>",
];

/// The tokens of the metadata that end an answer. What is wrong with the lists is said where the tokenizer is read.
pub fn of(metadata: Metadata<'_>) -> BTreeSet<u64> {
    let tokens = metadata.texts("tokenizer.ggml.tokens").ok().flatten().unwrap_or_default();
    let kinds = metadata.integers("tokenizer.ggml.token_type").ok().flatten().unwrap_or_default();
    let ends = |(text, kind): (&&str, &i64)| {
        let kind = TokenKind::of(*kind);
        matches!(kind, Some(TokenKind::Control | TokenKind::UserDefined)) && TEXTS.contains(text)
    };
    let all = tokens.iter().zip(&kinds).zip(0..);
    all.filter(|(token, _)| ends(*token)).map(|(_, id)| id).collect()
}
