//! Byte-level BPE: how text is split before merging, by the name that llama.cpp gives it.
//!
//! The expressions are those of the tokenizers' own `tokenizer.json`, which llama.cpp's follow (`llama-vocab.cpp`).

use serde_json::{Value, json};

use super::super::metadata::Metadata;
use super::Algorithm;

/// A way of splitting text, and what goes with it.
#[derive(Debug, PartialEq)]
pub struct Splitting {
    /// llama.cpp's names, `tokenizer.ggml.pre`.
    names: &'static [&'static str],
    /// What splits the text; where there is none, it is GPT-2's expression, which `tokenizers` knows as its own.
    pattern: Option<&'static str>,
    /// Digits stand alone.
    digits: bool,
    /// Characters are composed first (NFC).
    composed: bool,
    /// Words that are tokens are not merged from their parts.
    pub ignore_merges: bool,
    /// A text begins with its token, unless the file says otherwise.
    pub begins: bool,
}

const LLAMA_3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Qwen 2's expression.
pub const QWEN_2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const GPT_2: Splitting =
    Splitting { names: &["gpt-2"], pattern: None, digits: false, composed: false, ignore_merges: false, begins: false };

const ALL: &[Splitting] = &[
    GPT_2,
    Splitting { names: &["smollm"], digits: true, ..GPT_2 },
    Splitting { names: &["qwen2"], pattern: Some(QWEN_2), composed: true, ..GPT_2 },
    Splitting {
        names: &["llama-bpe", "llama3", "llama-v3"],
        pattern: Some(LLAMA_3),
        ignore_merges: true,
        begins: true,
        ..GPT_2
    },
];

/// Reads what is this kind's own.
pub fn read(metadata: Metadata<'_>) -> Result<Algorithm, String> {
    let name = metadata.text("tokenizer.ggml.pre")?.ok_or("its metadata do not tell how text is split")?;
    let found = ALL.iter().find(|splitting| splitting.names.contains(&name));
    found.map(Algorithm::ByteLevel).ok_or_else(|| {
        let name: String = name.chars().take(40).collect();
        format!("its way of splitting text, `{name}`, is not known")
    })
}

/// Refuses merges that are no two tokens which make a third.
pub fn check_merges(metadata: Metadata<'_>, is_token: impl Fn(&str) -> bool) -> Result<(), String> {
    let merges = metadata.texts("tokenizer.ggml.merges")?.ok_or("its metadata list no merges")?;
    let is_merge =
        |(left, right): (&str, &str)| is_token(left) && is_token(right) && is_token(&format!("{left}{right}"));
    match merges.iter().find(|merge| !pair(merge).is_some_and(is_merge)) {
        Some(merge) => Err(format!("its merge {merge:?} is not of two tokens that make a third")),
        None => Ok(()),
    }
}

/// The two tokens of a merge; neither has a space, which is `Ġ` in all of them.
pub fn pair(merge: &str) -> Option<(&str, &str)> {
    merge.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '))
}

impl Splitting {
    pub fn normalizer(&self) -> Value {
        if self.composed { json!({"type": "NFC"}) } else { Value::Null }
    }

    pub fn pre_tokenizer(&self) -> Value {
        let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
        let mut steps = Vec::new();
        if self.digits {
            steps.push(json!({"type": "Digits", "individual_digits": true}));
        }
        steps.extend(self.pattern.map(
            |pattern| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false}),
        ));
        steps.push(bytes(self.pattern.is_none()));
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}
