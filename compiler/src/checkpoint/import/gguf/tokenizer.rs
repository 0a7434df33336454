//! The tokenizer in the metadata, written as the files that Hugging Face checkpoints have.
//!
//! Two kinds are understood: `gpt2`, byte-level BPE with its merges, whose way of splitting text is told by a name; and `llama`,
//! SentencePiece's BPE, whose merges follow from the scores. What cannot be written exactly is not written: a model without a
//! tokenizer can be mended by a file, one with a wrong tokenizer goes unnoticed.

mod byte_level;
pub mod ends;
mod json;
mod sentence_piece;

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value, json};

pub use self::byte_level::QWEN_2;
use self::byte_level::Splitting;
use super::super::super::carried;
use super::super::super::model_dir::CarriedFile;
use super::architecture::Architecture;
use super::metadata::Metadata;
use super::sidecar::Sidecar;
use crate::error::Result;

const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// What a token is, by llama.cpp's numbers from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl TokenKind {
    fn of(number: i64) -> Option<Self> {
        let all = [
            TokenKind::Normal,
            TokenKind::Unknown,
            TokenKind::Control,
            TokenKind::UserDefined,
            TokenKind::Unused,
            TokenKind::Byte,
        ];
        all.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
    }
}

/// How text becomes tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Algorithm {
    /// Bytes as characters, split by a rule, merged by a list.
    ByteLevel(&'static Splitting),
    /// Characters with `▁` for spaces, merged by scores.
    SentencePiece {
        /// A space is put before the text.
        space_before: bool,
    },
}

/// The tokenizer of a file, which can be written. Texts stay in the file.
#[derive(Debug)]
pub struct Vocabulary {
    algorithm: Algorithm,
    kinds: Vec<TokenKind>,
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    padding: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    /// Spaces after special tokens are theirs, but for [`NOT_STRIPPING`].
    strips: bool,
    /// What was assumed.
    note: Option<String>,
}

/// Special tokens of Phi 3 that leave the spaces after them.
const NOT_STRIPPING: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

impl Vocabulary {
    /// Reads the metadata of a model of this architecture, or says why no tokenizer can be made of them.
    pub fn read(metadata: Metadata<'_>, architecture: &Architecture) -> Result<Self, String> {
        let model = metadata.text("tokenizer.ggml.model")?.ok_or("its metadata have no tokenizer")?;
        let tokens = metadata.texts("tokenizer.ggml.tokens")?.ok_or("its metadata list no tokens")?;
        let kinds = metadata.integers("tokenizer.ggml.token_type")?.ok_or("its metadata tell no types of tokens")?;
        if kinds.len() != tokens.len() {
            return Err(format!("its metadata have {} tokens, but types of {}", tokens.len(), kinds.len()));
        }
        let kinds: Option<Vec<_>> = kinds.into_iter().map(TokenKind::of).collect();
        let kinds = kinds.ok_or("its metadata have types of tokens that are not known")?;
        let (algorithm, note) = match model {
            "gpt2" => {
                let (splitting, note) = byte_level::read(metadata, architecture, tokens.len())?;
                (Algorithm::ByteLevel(splitting), note)
            }
            "llama" => (sentence_piece::read(metadata, tokens.len())?, None),
            other => {
                let other: String = other.chars().take(40).collect();
                return Err(format!("its tokenizer is of the kind `{other}`, which is not understood"));
            }
        };
        let id = |name: &str, default: Option<u32>| -> Result<Option<u32>, String> {
            let id = metadata.size(&format!("tokenizer.ggml.{name}_token_id"))?;
            match id.map_or(Ok(default), |id| u32::try_from(id).map(Some)) {
                Ok(id) if id.is_none_or(|id| (id as usize) < tokens.len()) => Ok(id),
                _ => Err(format!("its {name} token is none of its {} tokens", tokens.len())),
            }
        };
        // llama.cpp's defaults (`llama-vocab.cpp`).
        let pieces = matches!(algorithm, Algorithm::SentencePiece { .. });
        let usual = |id: u32| pieces.then_some(id);
        let add_bos = match algorithm {
            Algorithm::ByteLevel(splitting) => splitting.begins,
            Algorithm::SentencePiece { .. } => true,
        };
        let vocabulary = Vocabulary {
            algorithm,
            kinds,
            bos: id("bos", usual(1))?,
            eos: id("eos", usual(2))?,
            unknown: id("unknown", usual(0))?,
            padding: id("padding", None)?,
            add_bos: metadata.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(add_bos),
            add_eos: metadata.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
            // Not told by the metadata; llama.cpp knows it of the model, too.
            strips: pieces && architecture.name == "phi3",
            note,
        };
        vocabulary.check(&tokens, metadata)?;
        Ok(vocabulary)
    }

    /// What was assumed where the metadata do not tell.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Refuses what a `tokenizer.json` cannot say.
    fn check(&self, tokens: &[&str], metadata: Metadata<'_>) -> Result<(), String> {
        let mut seen = HashSet::new();
        for id in 0..tokens.len() {
            if !seen.insert(self.text(id, tokens)) {
                return Err(format!("two of its tokens are {:?}", tokens[id]));
            }
        }
        if matches!(self.algorithm, Algorithm::ByteLevel(_)) {
            byte_level::check_merges(metadata, |text| seen.contains(text))?;
        }
        for (adds, id, name) in [(self.add_bos, self.bos, "begins"), (self.add_eos, self.eos, "ends")] {
            if adds && id.is_none() {
                return Err(format!("its metadata do not tell the token that {name} a text"));
            }
        }
        Ok(())
    }

    /// The text of a token as it is told to `tokenizers`. User-defined pieces are found in the text before its spaces are replaced.
    fn text<'t>(&self, id: usize, tokens: &[&'t str]) -> std::borrow::Cow<'t, str> {
        let pieces = matches!(self.algorithm, Algorithm::SentencePiece { .. });
        match self.kinds[id] {
            TokenKind::UserDefined if pieces => tokens[id].replace(sentence_piece::SPACE, " ").into(),
            _ => tokens[id].into(),
        }
    }

    /// Tokens that are found in the text before it is split: their number, and whether they are special.
    fn added(&self) -> impl Iterator<Item = (usize, bool)> {
        let ends = [self.bos, self.eos, self.padding].map(|id| id.map(|id| id as usize));
        self.kinds.iter().enumerate().filter_map(move |(id, kind)| match kind {
            TokenKind::Control | TokenKind::Unknown => Some((id, true)),
            TokenKind::UserDefined => Some((id, ends.contains(&Some(id)))),
            _ => ends.contains(&Some(id)).then_some((id, true)),
        })
    }

    /// `tokenizer_config.json`.
    fn config(&self, metadata: Metadata<'_>, tokens: &[&str]) -> Value {
        let mut config = Map::new();
        for (name, id) in
            [("bos_token", self.bos), ("eos_token", self.eos), ("unk_token", self.unknown), ("pad_token", self.padding)]
        {
            config.extend(id.map(|id| (name.to_owned(), Value::from(tokens[id as usize]))));
        }
        config.insert("add_bos_token".to_owned(), self.add_bos.into());
        config.insert("add_eos_token".to_owned(), self.add_eos.into());
        if let Ok(Some(template)) = metadata.text("tokenizer.chat_template") {
            config.insert("chat_template".to_owned(), template.into());
        }
        json!(config)
    }
}

/// Writes the files that belong to the tokenizer to `to`: those beside the GGUF file, and what is missing of them from its metadata.
pub fn carry(
    sidecar: &Sidecar,
    metadata: Metadata<'_>,
    vocabulary: Option<&Vocabulary>,
    to: &Path,
) -> Result<Vec<CarriedFile>> {
    let mut files = carried::copy(sidecar.directory(), to)?;
    let has = |files: &[CarriedFile], name: &str| files.iter().any(|file| file.name == name);
    if let Some(vocabulary) = vocabulary {
        let tokens = metadata.texts("tokenizer.ggml.tokens").ok().flatten().unwrap_or_default();
        if !has(&files, TOKENIZER) {
            files.push(carried::write_json(to, TOKENIZER, &vocabulary.json(metadata, &tokens))?);
        }
        if !has(&files, TOKENIZER_CONFIG) {
            files.push(carried::write_json(to, TOKENIZER_CONFIG, &vocabulary.config(metadata, &tokens))?);
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}
