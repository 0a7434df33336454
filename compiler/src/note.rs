//! Notes on a checkpoint: what was accepted although its publisher, or its user, should hear of it.

use std::fmt;

use serde::{Serialize, Serializer};

/// Names that a note lists before the rest is only counted.
const MOST_NAMES: usize = 12;

/// Something that was accepted and is worth a line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// Keys of a configuration that no family reads and that match no pattern of keys which change results.
    UnknownKeys {
        /// All of them, with dots where they are nested.
        keys: Vec<String>,
    },
    /// Keys that were left out because the user said so.
    IgnoredKeys {
        /// All of them, each with the value it had.
        keys: Vec<String>,
    },
    /// Keys that the user wanted left out, and that no configuration has.
    NothingToIgnore {
        /// All of them.
        keys: Vec<String>,
    },
    /// `tie_word_embeddings` is true, but the checkpoint has a head of other values, which is used.
    OwnHead {
        /// Name of the head's tensor.
        tensor: String,
    },
    /// `architectures` names another family than `model_type`, which counts.
    OtherArchitecture {
        /// What `architectures` says.
        architecture: String,
        /// What `model_type` says.
        model_type: String,
    },
    /// The index lists tensors that no shard holds and the model does not need.
    SpareNames {
        /// All of them.
        names: Vec<String>,
    },
    /// `tokenizer.json` was made from other files.
    TokenizerMade {
        /// Which ones.
        from: String,
    },
    /// The vocabulary's own files cannot be made a `tokenizer.json`.
    NoTokenizer {
        /// Why not, and what makes one.
        reason: String,
    },
    /// Tokens that `tokenizer.json` lacks, or finds in another way, were taken from the files beside it.
    AddedTokens {
        /// Their texts.
        tokens: Vec<String>,
    },
    /// Tokens that files beside `tokenizer.json` tell, but that the embedding has no rows for.
    BeyondEmbedding {
        /// Their texts.
        tokens: Vec<String>,
    },
    /// A token has another number than a file beside `tokenizer.json` says.
    OtherNumber {
        /// The token's text.
        token: String,
        /// What the file says.
        said: u64,
        /// What it has.
        number: u64,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::UnknownKeys { keys } => {
                write!(f, "configuration keys without a known meaning, which are not used: {}", listed(keys))
            }
            Note::IgnoredKeys { keys } => write!(f, "ignored as --ignore-key says: {}", listed(keys)),
            Note::NothingToIgnore { keys } => {
                write!(f, "--ignore-key names keys that the configuration does not have: {}", listed(keys))
            }
            Note::OwnHead { tensor } => write!(
                f,
                "`tie_word_embeddings` is true, but `{tensor}` differs from the embedding; the checkpoint's own head is used"
            ),
            Note::OtherArchitecture { architecture, model_type } => {
                write!(f, "`architectures` is {architecture}, but `model_type` is {model_type}; `model_type` counts")
            }
            Note::SpareNames { names } => {
                write!(f, "the index lists tensors that no shard holds and the model does not need: {}", listed(names))
            }
            Note::TokenizerMade { from } => write!(f, "tokenizer.json was made from {from}"),
            Note::NoTokenizer { reason } => write!(f, "{reason}"),
            Note::AddedTokens { tokens } => {
                write!(f, "tokens taken from the files beside tokenizer.json: {}", listed(tokens))
            }
            Note::BeyondEmbedding { tokens } => {
                write!(
                    f,
                    "tokens that the embedding has no rows for were left out of tokenizer.json: {}",
                    listed(tokens)
                )
            }
            Note::OtherNumber { token, said, number } => {
                write!(f, "token `{token}` is number {number}, although a file beside tokenizer.json says {said}")
            }
        }
    }
}

impl Serialize for Note {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The names, separated by commas; of many only the first.
fn listed(names: &[String]) -> String {
    let shown = names.iter().take(MOST_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MOST_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn long_lists_are_counted() {
        let keys = (0..14).map(|index| format!("k{index}")).collect();
        expect![
            "configuration keys without a known meaning, which are not used: k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, k11 and 2 more"
        ]
        .assert_eq(&Note::UnknownKeys { keys }.to_string());
        let keys = vec!["a".to_owned(), "b.c".to_owned()];
        expect!["configuration keys without a known meaning, which are not used: a, b.c"]
            .assert_eq(&Note::UnknownKeys { keys }.to_string());
    }
}
