//! Tokenizers as checkpoints have them, as the one `tokenizer.json` that a model directory carries.
//!
//! Where a checkpoint has no `tokenizer.json`, it is made of `vocab.json` and `merges.txt`, or of SentencePiece's
//! `tokenizer.model`. Tokens that only files beside it know are added to it, as transformers does when it loads it
//! (`tokenization_utils_base.py`, `tokenization_utils_tokenizers.py`). What cannot be made exactly is not made.

mod added;
mod byte_level;
mod document;
mod model_proto;
mod sentence_piece;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use self::added::Beside;
use self::document::{Document, Known};
use super::json;
use crate::error::{Error, Result};
use crate::note::Note;

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";

/// Largest `tokenizer.json`, vocabulary or list of merges that is read; those of the largest published vocabularies take 35 MB.
const MAX_BYTES: u64 = 256 << 20;

/// Files that were made, by name, and what is worth a line about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Made {
    /// Contents by name.
    pub files: BTreeMap<String, String>,
    /// What is worth a line.
    pub notes: Vec<Note>,
}

/// Makes what the tokenizer of the checkpoint in `directory`, whose configuration is `model`, lacks; nothing, where its files say
/// everything.
///
/// # Errors
/// A file cannot be read, or is not what its name says.
pub(super) fn made(directory: &Path, model: &Map<String, Value>) -> Result<Made> {
    let config = object(directory, CONFIG)?;
    let text = model.get("text_config").and_then(Value::as_object).unwrap_or(model);
    let embedded = text.get("vocab_size").and_then(Value::as_u64).unwrap_or(u64::MAX);
    let beside = Beside::read(directory, &config, embedded)?;
    let model_type = model.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let has = |name: &str| directory.join(name).is_file();
    if has(TOKENIZER) {
        return completed(directory, &beside);
    }
    let (made, from) = if has(byte_level::VOCABULARY) && has(byte_level::MERGES) {
        (byte_level::read(directory, &config, model_type, &beside), "vocab.json and merges.txt")
    } else if has(sentence_piece::FILE) {
        (sentence_piece::read(directory, &config, &beside), sentence_piece::FILE)
    } else {
        return Ok(Made::default());
    };
    let Whole { document, config: extra, notes: others } = match made? {
        Ok(whole) => whole,
        Err(reason) => {
            let reason = format!("{reason}; {}", command(directory));
            return Ok(Made { files: BTreeMap::new(), notes: vec![Note::NoTokenizer { reason }] });
        }
    };
    let mut notes = vec![Note::TokenizerMade { from: from.to_owned() }];
    notes.extend(others);
    let mut files = BTreeMap::from([(TOKENIZER.to_owned(), document.text())]);
    if extra.keys().any(|key| !config.contains_key(key)) {
        let mut config = config;
        extra.into_iter().for_each(|(key, value)| {
            config.entry(key).or_insert(value);
        });
        files.insert(CONFIG.to_owned(), format!("{:#}\n", Value::Object(config)));
    }
    Ok(Made { files, notes })
}

/// A tokenizer that was made, and what `tokenizer_config.json` should say where it does not.
struct Whole {
    document: Document,
    config: Map<String, Value>,
    notes: Vec<Note>,
}

/// A tokenizer, or why it cannot be made.
type Attempt = Result<Result<Whole, String>>;

/// `tokenizer.json` with the tokens that only files beside it know, if there are any.
fn completed(directory: &Path, beside: &Beside) -> Result<Made> {
    let path = directory.join(TOKENIZER);
    if beside.tokens.is_empty() {
        return Ok(Made::default());
    }
    let bytes = json::read_bytes(&path, MAX_BYTES)?;
    let known: Known = serde_json::from_slice(&bytes).map_err(|error| Error::json(&path, error))?;
    if beside.tokens.iter().all(|token| known.has(token)) {
        return Ok(Made::default());
    }
    let value = serde_json::from_slice(&bytes).map_err(|error| Error::json(&path, error))?;
    drop(bytes);
    let Some(mut document) = Document::of_file(value, known) else {
        return Err(Error::json(&path, "has no `added_tokens` and `model`"));
    };
    let (added, mut notes) = document.add(beside);
    if added.is_empty() {
        return Ok(Made { files: BTreeMap::new(), notes });
    }
    notes.insert(0, Note::AddedTokens { tokens: added });
    Ok(Made { files: BTreeMap::from([(TOKENIZER.to_owned(), document.text())]), notes })
}

/// The object in a JSON file of the checkpoint; empty where there is none.
fn object(directory: &Path, name: &str) -> Result<Map<String, Value>> {
    let path = directory.join(name);
    if path.is_file() { json::read_object(&path) } else { Ok(Map::new()) }
}

/// What makes a `tokenizer.json`.
fn command(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "make tokenizer.json with `python -c \"from transformers import AutoTokenizer; \
         AutoTokenizer.from_pretrained('{directory}').save_pretrained('{directory}')\"` and convert again"
    )
}

/// The class that loads the tokenizer, without the `Fast` that version 4 gave names.
fn class(config: &Map<String, Value>) -> Option<&str> {
    let class = config.get("tokenizer_class").and_then(Value::as_str)?;
    Some(class.strip_suffix("Fast").unwrap_or(class))
}

#[cfg(test)]
mod tests;
