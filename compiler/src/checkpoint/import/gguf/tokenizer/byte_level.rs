//! Byte-level BPE: how text is split before merging, by the name that llama.cpp gives it.
//!
//! The expressions are those of the tokenizers' own `tokenizer.json`, which llama.cpp's follow (`llama-vocab.cpp`).

use serde_json::{Value, json};

use super::super::architecture::Architecture;
use super::super::metadata::Metadata;

/// A way of splitting text, and what goes with it.
#[derive(Debug, PartialEq)]
pub struct Splitting {
    /// llama.cpp's names, `tokenizer.ggml.pre`.
    names: &'static [&'static str],
    /// What the text is cut by, one after the other.
    cuts: &'static [Cut],
    /// Characters are composed first (NFC).
    composed: bool,
    /// Words that are tokens are not merged from their parts.
    pub ignore_merges: bool,
    /// A text begins with its token, unless the file says otherwise.
    pub begins: bool,
}

/// One cut. What matches stands alone, and so does what is between.
#[derive(Debug, PartialEq)]
enum Cut {
    /// Matches of an expression.
    Matches(&'static str),
    /// Each digit of any script.
    Digits,
    /// GPT-2's expression, which `tokenizers` knows as its own; the last one.
    Gpt2,
}

use Cut::{Digits, Gpt2, Matches};

const LLAMA_3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Qwen 2's expression.
pub const QWEN_2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const SEED_CODER: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Mistral's, from Nemo on: words break before capitals.
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// o200k's, which Phi-4-mini has.
const GPT_4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const DEEPSEEK_V3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";

const PLAIN: Splitting =
    Splitting { names: &["gpt-2"], cuts: &[Gpt2], composed: false, ignore_merges: false, begins: false };

const ALL: &[Splitting] = &[
    Splitting { names: &["gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4"], ..PLAIN },
    Splitting {
        names: &["smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b"],
        cuts: &[Digits, Gpt2],
        ..PLAIN
    },
    Splitting { names: &["qwen2"], cuts: &[Matches(QWEN_2)], composed: true, ..PLAIN },
    // DeepSeek's distillations into Qwen kept its words, not its normalizer.
    Splitting { names: &["deepseek-r1-qwen", "megrez"], cuts: &[Matches(QWEN_2)], ..PLAIN },
    Splitting {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"],
        cuts: &[Matches(LLAMA_3)],
        ignore_merges: true,
        begins: true,
        ..PLAIN
    },
    // Phi-4's among them.
    Splitting { names: &["dbrx", "smaug-bpe"], cuts: &[Matches(LLAMA_3)], ..PLAIN },
    Splitting { names: &["tekken"], cuts: &[Matches(TEKKEN)], ignore_merges: true, begins: true, ..PLAIN },
    Splitting { names: &["gpt-4o"], cuts: &[Matches(GPT_4O)], ..PLAIN },
    Splitting { names: &["seed-coder"], cuts: &[Matches(SEED_CODER)], ..PLAIN },
    Splitting {
        names: &["deepseek-coder"],
        cuts: &[Matches(r"[\r\n]"), Matches(r"\s?\p{L}+"), Matches(r"\s?\p{P}+"), Matches("[一-龥ࠀ-一가-퟿]+"), Digits],
        ..PLAIN
    },
    Splitting {
        names: &["deepseek-v3"],
        cuts: &[Matches(r"\p{N}{1,3}"), Matches("[一-龥぀-ゟ゠-ヿ]+"), Matches(DEEPSEEK_V3)],
        ..PLAIN
    },
];

/// What llama.cpp does where a file does not tell.
const DEFAULT: Splitting = Splitting {
    names: &["default"],
    cuts: &[Matches(r"[\p{P}\$\+<=>\^~\|]+"), Matches(GPT_2), Matches(r"\p{N}+"), Matches("[0-9][0-9][0-9]")],
    ..PLAIN
};

/// Least vocabulary of Llama 3.
const LLAMA_3_TOKENS: usize = 128_256;

/// Reads what is this kind's own, of a model with so many `tokens`; also what was assumed, if anything was.
///
/// Files from before April 2024 do not tell the way of splitting. Qwen's architectures have one; Llama 3 is known by the
/// size of its vocabulary.
pub fn read(
    metadata: Metadata<'_>,
    architecture: &Architecture,
    tokens: usize,
) -> Result<(&'static Splitting, Option<String>), String> {
    let of = |name: &str| ALL.iter().find(|splitting| splitting.names.contains(&name));
    let name = metadata.text("tokenizer.ggml.pre")?;
    if let Some(name) = name.filter(|name| !DEFAULT.names.contains(name)) {
        return of(name).map(|splitting| (splitting, None)).ok_or_else(|| {
            let name: String = name.chars().take(40).collect();
            format!("its way of splitting text, `{name}`, is not known")
        });
    }
    let likely = match architecture.name {
        "qwen2" | "qwen3" => "qwen2",
        "llama" if tokens >= LLAMA_3_TOKENS => "llama-bpe",
        _ => "default",
    };
    let note = format!(
        "its metadata do not tell how text is split; `{likely}` is assumed: if answers are poor, put the Hugging Face \
         checkpoint's tokenizer.json beside the file and convert again"
    );
    Ok((of(likely).unwrap_or(&DEFAULT), Some(note)))
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
        let step = |cut: &Cut| match cut {
            Matches(pattern) => {
                json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
            }
            Digits => json!({"type": "Digits", "individual_digits": true}),
            Gpt2 => bytes(true),
        };
        let mut steps: Vec<_> = self.cuts.iter().map(step).collect();
        if !self.cuts.contains(&Gpt2) {
            steps.push(bytes(false));
        }
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}
