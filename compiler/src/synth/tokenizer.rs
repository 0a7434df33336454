//! A tokenizer and a chat template for synthetic checkpoints: as large as the model's own, and meaning nothing.
//!
//! Byte-level pair encoding: the 256 bytes, then all pairs of bytes, then pairs of a pair and a byte, until every token of the
//! vocabulary that has no special meaning in the configuration has a text. Any text can be encoded and any tokens decoded,
//! so a whole turn can be run, pictures included.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::write_json;
use crate::error::{Error, Result};

/// Turns between marks; a list of contents has its pictures first.
const TEMPLATE: &str = "{% for message in messages %}<|turn|>{{ message['role'] }}\n\
    {% if message['content'] is string %}{{ message['content'] }}{% else %}\
    {% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% endif %}{% endfor %}\
    {% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}\
    <|end|>{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}";

/// Writes `tokenizer.json` and what belongs to it for the vocabulary of `config` into `directory`.
///
/// # Errors
/// A configuration without a vocabulary, or with one too small for bytes; writing.
pub fn write_tokenizer(config: &Map<String, Value>, directory: &Path) -> Result<()> {
    let text = config.get("text_config").and_then(Value::as_object);
    let find = |key: &str| text.and_then(|text| text.get(key)).or(config.get(key));
    let size = find("vocab_size").and_then(Value::as_u64).unwrap_or(0);
    let special = special_tokens(&find);
    let Some(plain) = size.checked_sub(special.len() as u64).filter(|&plain| plain >= 256) else {
        let reason = format!("a vocabulary of {size} tokens is too small for a synthetic tokenizer");
        return Err(Error::Config { key: "vocab_size".to_owned(), reason });
    };
    let (texts, merges) = pairs(plain as usize);
    let free = (0..size).filter(|id| !special.contains_key(id));
    let plain = texts.into_iter().zip(free);
    // Special tokens stand in the vocabulary, too: one that does not would get the next free id, whatever is said beside it.
    let named = special.iter().map(|(&id, text)| (text.clone(), id));
    let vocabulary: Map<String, Value> = plain.chain(named).map(|(text, id)| (text, Value::from(id))).collect();
    let added = special.iter().map(|(id, content)| {
        json!({ "id": id, "content": content, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false })
    });
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": added.collect::<Vec<_>>(),
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": { "type": "BPE", "vocab": vocabulary, "merges": merges },
    });
    write_json(&directory.join("tokenizer.json"), &tokenizer)?;
    let end: Vec<u64> = special.iter().filter(|(_, text)| text.starts_with("<|end")).map(|(&id, _)| id).collect();
    write_json(&directory.join("tokenizer_config.json"), &json!({ "eos_token": "<|end|>" }))?;
    write_json(&directory.join("generation_config.json"), &json!({ "eos_token_id": end }))?;
    let path = directory.join("chat_template.jinja");
    std::fs::write(&path, TEMPLATE).map_err(Error::io("write", &path))
}

/// Texts of the tokens that the configuration names, by id.
fn special_tokens<'a>(find: &impl Fn(&str) -> Option<&'a Value>) -> BTreeMap<u64, String> {
    let ids = |key: &str| match find(key) {
        Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_u64).collect(),
        Some(id) => id.as_u64().into_iter().collect(),
        None => Vec::new(),
    };
    let mut special = BTreeMap::new();
    for (key, name) in [
        ("image_token_index", "image"),
        ("video_token_index", "video"),
        ("bos_token_id", "|begin|"),
        ("pad_token_id", "|pad|"),
    ] {
        special.extend(ids(key).first().map(|&id| (id, format!("<{name}>"))));
    }
    for (index, id) in ids("eos_token_id").into_iter().enumerate() {
        let text = if index == 0 { "<|end|>".to_owned() } else { format!("<|end{index}|>") };
        special.insert(id, text);
    }
    special
}

/// The first `count` texts in the alphabet of byte-level encoding, and the pairs that all but the first 256 are made of.
fn pairs(count: usize) -> (Vec<String>, Vec<[String; 2]>) {
    let mut texts: Vec<String> = (0..=255).map(|byte| letter(byte).to_string()).collect();
    let mut merges = Vec::new();
    let mut first = 0;
    while texts.len() < count {
        for byte in 0..256.min(count - texts.len()) {
            let pair = [texts[first].clone(), texts[byte].clone()];
            texts.push(pair.concat());
            merges.push(pair);
        }
        first += 1;
    }
    (texts, merges)
}

/// GPT-2's letter for a byte: itself where that is visible, else one from 256 on, in order (`bytes_to_unicode` in its `encoder.py`).
fn letter(byte: u8) -> char {
    let visible = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if visible(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&other| !visible(other)).count() as u32;
    char::from_u32(256 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_has_one_text() {
        let (texts, merges) = pairs(70_000);
        assert_eq!((texts.len(), merges.len()), (70_000, 70_000 - 256));
        let different: std::collections::BTreeSet<_> = texts.iter().collect();
        assert_eq!(different.len(), texts.len());
        assert_eq!((letter(b' '), letter(b'\n'), letter(b'a'), letter(0xff)), ('Ġ', 'Ċ', 'a', 'ÿ'));
    }

    #[test]
    fn named_tokens_keep_their_ids() {
        let config = super::super::preset("llava-onevision-0.5b").unwrap();
        let folder = tempfile::tempdir().unwrap();
        write_tokenizer(&config, folder.path()).unwrap();
        let text = std::fs::read(folder.path().join("tokenizer.json")).unwrap();
        let tokenizer: Value = serde_json::from_slice(&text).unwrap();
        let added = tokenizer["added_tokens"].as_array().unwrap();
        let id = |name: &str| added.iter().find(|token| token["content"] == name).map(|token| token["id"].clone());
        assert_eq!((id("<image>"), id("<|end|>")), (Some(151646.into()), Some(151645.into())));
        let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
        assert_eq!((vocabulary.len(), &vocabulary["<image>"]), (152_000, &151646.into()));
        let small = serde_json::from_str(r#"{"vocab_size": 100}"#).unwrap();
        assert!(write_tokenizer(&small, folder.path()).unwrap_err().to_string().contains("too small"));
    }
}
