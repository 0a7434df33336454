//! Byte-level BPE of `vocab.json` and `merges.txt` (transformers' `tokenization_gpt2.py` and `tokenization_qwen2.py`).

use std::path::Path;

use serde_json::{Map, Value, json};

use super::added::{AddedToken, Beside};
use super::document::{Bpe, Document, Steps, around};
use super::{Attempt, MAX_BYTES, Whole, class};
use crate::checkpoint::import::QWEN_2;
use crate::checkpoint::json;
use crate::error::{Error, Result};

pub const VOCABULARY: &str = "vocab.json";
pub const MERGES: &str = "merges.txt";

/// How text is split, which neither file tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Splitting {
    Gpt2,
    Qwen2,
}

/// Makes a tokenizer of the files in `directory`, or says why it cannot be.
pub fn read(directory: &Path, config: &Map<String, Value>, model_type: &str, beside: &Beside) -> Attempt {
    let splitting = match (class(config), model_type) {
        (Some("GPT2Tokenizer"), _) => Splitting::Gpt2,
        (Some("Qwen2Tokenizer"), _) | (None, "qwen2" | "qwen3" | "llava_onevision") => Splitting::Qwen2,
        (class, _) => {
            let class: String = class.unwrap_or("no class").chars().take(40).collect();
            return Ok(Err(format!(
                "vocab.json and merges.txt do not tell how text is split, and {class} is not known"
            )));
        }
    };
    let vocab = vocabulary(&directory.join(VOCABULARY))?;
    let merges = match merges(&directory.join(MERGES), &vocab)? {
        Ok(merges) => merges,
        Err(reason) => return Ok(Err(reason)),
    };
    let spaced = config.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(false);
    let bytes = |spaced: bool, regex: bool| json!({"type": "ByteLevel", "add_prefix_space": spaced, "trim_offsets": true, "use_regex": regex});
    let steps = match splitting {
        Splitting::Gpt2 => Steps { pre_tokenizer: bytes(spaced, true), ..Steps::default() },
        Splitting::Qwen2 => Steps {
            normalizer: json!({"type": "NFC"}),
            pre_tokenizer: json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": QWEN_2}, "behavior": "Isolated", "invert": false},
                bytes(spaced, false),
            ]}),
            ..Steps::default()
        },
    };
    let steps = Steps { decoder: bytes(true, true), ..steps };
    let vocab = vocab.into_iter().collect();
    let mut document = Document::bpe(Bpe { vocab, merges, ..Bpe::default() }, steps);
    // What the classes take for granted where nothing is said.
    let default = AddedToken::special("<|endoftext|>");
    let mut extra = Map::new();
    if document.number(&default.content).is_some() || beside.tokens.iter().any(|token| token.content == default.content)
    {
        let keys: &[&str] = if splitting == Splitting::Gpt2 { &["bos_token", "eos_token"] } else { &["eos_token"] };
        extra.extend(keys.iter().map(|key| ((*key).to_owned(), Value::from(default.content.as_str()))));
        if !beside.tokens.iter().any(|token| token.content == default.content) {
            document.add_own(vec![default]);
        }
    }
    let (_, notes) = document.add(beside);
    let bos = config.get("bos_token").or(extra.get("bos_token")).and_then(text);
    let begins = config.get("add_bos_token").and_then(Value::as_bool).unwrap_or(false);
    let bos = bos.filter(|_| begins).and_then(|bos| Some((bos, document.number(bos)?)));
    if bos.is_some() {
        document.set_post_processor(around(bos, None));
    }
    Ok(Ok(Whole { document, config: extra, notes }))
}

/// The text of a token that is a text, or an object with `content`.
pub fn text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

fn vocabulary(path: &Path) -> Result<Vec<(String, u64)>> {
    let Value::Object(map) = json::read(path, MAX_BYTES)? else { return Err(Error::json(path, "expected an object")) };
    let mut vocab = Vec::with_capacity(map.len());
    for (text, number) in map {
        let number = number.as_u64().filter(|number| *number < u64::from(u32::MAX));
        let number = number.ok_or_else(|| Error::json(path, format!("the number of `{text}` is not a token's")))?;
        vocab.push((text, number));
    }
    if vocab.is_empty() { Err(Error::json(path, "has no tokens")) } else { Ok(vocab) }
}

/// The merges of a file, one a line after a comment on the version.
fn merges(path: &Path, vocab: &[(String, u64)]) -> Result<Result<Vec<(String, String)>, String>> {
    let bytes = json::read_bytes(path, MAX_BYTES)?;
    let Ok(text) = String::from_utf8(bytes) else { return Ok(Err("merges.txt is not UTF-8".to_owned())) };
    let known: std::collections::HashSet<&str> = vocab.iter().map(|(text, _)| text.as_str()).collect();
    let mut merges = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.is_empty() || (number == 1 && line.starts_with("#version")) {
            continue;
        }
        let pair = line.split_once(' ').filter(|(left, right)| {
            known.contains(left) && known.contains(right) && known.contains(format!("{left}{right}").as_str())
        });
        let Some((left, right)) = pair else {
            return Ok(Err(format!("line {number} of merges.txt is not two tokens of vocab.json that make a third")));
        };
        merges.push((left.to_owned(), right.to_owned()));
    }
    Ok(Ok(merges))
}
