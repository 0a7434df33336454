//! Tokenizer, chat template, special tokens and stop tokens of a model directory.
//!
//! Read are the files that Hugging Face checkpoints have: `tokenizer.json`, `tokenizer_config.json`,
//! `special_tokens_map.json`, `chat_template.jinja` or `.json`, `generation_config.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use dwindle_bundle::{ImageInput, Text, Writer};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Blueprint, Prepared};
use crate::error::{Error, Result};

/// What is needed of `tokenizer.json`; the vocabulary is skipped.
#[derive(Deserialize)]
struct Tokenizer {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    post_processor: Option<Value>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

impl Tokenizer {
    fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        serde_json::from_reader(BufReader::new(file)).map_err(|e| Error::json(path, e))
    }

    fn id(&self, content: &str) -> Option<u32> {
        self.added_tokens.iter().find(|token| token.content == content).map(|token| token.id)
    }
}

/// Copies tokenizer and template into the bundle and says where they are; `None` without a tokenizer.
pub fn read(model: &Prepared, writer: &mut Writer) -> Result<Option<Text>> {
    let directory = &model.blueprint;
    let Some(path) = directory.file("tokenizer.json") else { return Ok(None) };
    let tokenizer = Tokenizer::read(&path)?;
    let config = object(directory, "tokenizer_config.json")?;
    let special_tokens = special_tokens(&config, &object(directory, "special_tokens_map.json")?);
    let generation = object(directory, "generation_config.json")?;
    let bos_token = special_tokens.get("bos_token").and_then(|bos| tokenizer.id(bos));
    let eos_token = special_tokens.get("eos_token").and_then(|eos| tokenizer.id(eos));
    let bos = match config.get("add_bos_token").and_then(Value::as_bool) {
        Some(false) => None,
        Some(true) => bos_token,
        None => tokenizer.post_processor.as_ref().and_then(first_token),
    };
    let mut stop: BTreeSet<u32> = eos_token.into_iter().collect();
    let text_config = directory.model.config.get("text_config").and_then(Value::as_object);
    for source in [Some(&generation), Some(&directory.model.config), text_config].into_iter().flatten() {
        stop.extend(token_ids(source.get("eos_token_id")));
    }
    let template = chat_template(directory, &config)?;

    let entry = |name: &str| format!("{}/{name}", model.entries());
    writer.entry(&entry("tokenizer.json"), |sink| copy(&path, |bytes| Ok(sink.write(bytes)?)))?;
    if let Some(template) = &template {
        writer.entry(&entry("chat_template.jinja"), |sink| sink.write(template.as_bytes()))?;
    }
    Ok(Some(Text {
        tokenizer: entry("tokenizer.json"),
        chat_template: template.map(|_| entry("chat_template.jinja")),
        special_tokens,
        bos,
        stop: stop.into_iter().collect(),
    }))
}

/// How pictures go in, with the placeholder's text, which the tokenizer knows.
pub fn image(model: &Prepared) -> Result<Option<ImageInput>> {
    let Some(mut image) = model.family.image().cloned() else { return Ok(None) };
    if let Some(path) = model.blueprint.file("tokenizer.json") {
        let tokenizer = Tokenizer::read(&path)?;
        let token = tokenizer.added_tokens.into_iter().find(|token| token.id == image.token);
        let missing =
            || Error::json(&path, format!("token {} stands for pictures, but is no added token", image.token));
        image.placeholder = token.ok_or_else(missing)?.content;
    }
    Ok(Some(image))
}

/// The object in a carried JSON file; empty where there is none.
pub(super) fn object(directory: &Blueprint, name: &str) -> Result<Map<String, Value>> {
    match directory.json(name)? {
        None => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map),
        Some(_) => Err(Error::json(&directory.path().join(name), "expected an object")),
    }
}

/// Texts of the tokens that templates refer to; a token is a string, or an object with `content`.
fn special_tokens(config: &Map<String, Value>, map: &Map<String, Value>) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(token) => token.get("content").and_then(Value::as_str).map(str::to_owned),
        _ => None,
    };
    let find = |key: &str| [config, map].into_iter().find_map(|source| source.get(key).and_then(text));
    let keys = ["bos_token", "eos_token", "pad_token", "unk_token"];
    keys.iter().filter_map(|&key| Some((key.to_owned(), find(key)?))).collect()
}

/// One id, or a list of them.
fn token_ids(value: Option<&Value>) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(ids)) => ids.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}

/// The token that a post-processor puts before a text.
fn first_token(processor: &Value) -> Option<u32> {
    match processor.get("type")?.as_str()? {
        "TemplateProcessing" => {
            let name = processor.get("single")?.get(0)?.get("SpecialToken")?.get("id")?.as_str()?;
            let ids = processor.get("special_tokens")?.get(name)?.get("ids")?;
            token_ids(Some(ids)).first().copied()
        }
        "BertProcessing" | "RobertaProcessing" => token_ids(processor.get("cls")?.get(1)).first().copied(),
        "Sequence" => processor.get("processors")?.as_array()?.iter().find_map(first_token),
        _ => None,
    }
}

/// The Jinja template: `chat_template.jinja`, `chat_template.json`, or the key of `tokenizer_config.json`, which holds
/// one or several named ones.
fn chat_template(directory: &Blueprint, config: &Map<String, Value>) -> Result<Option<String>> {
    if let Some(path) = directory.file("chat_template.jinja") {
        return std::fs::read_to_string(&path).map(Some).map_err(Error::io("read", &path));
    }
    let separate = object(directory, "chat_template.json")?;
    let sources = [separate.get("chat_template"), config.get("chat_template")];
    Ok(sources.into_iter().flatten().find_map(template_text))
}

fn template_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(named) => {
            let is_default = |template: &&Value| template.get("name").and_then(Value::as_str) == Some("default");
            let chosen = named.iter().find(is_default).or(named.first())?;
            chosen.get("template").and_then(Value::as_str).map(str::to_owned)
        }
        _ => None,
    }
}

/// Copies a file in pieces.
fn copy(path: &Path, mut write: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece).map_err(Error::io("read", path))? {
            0 => return Ok(()),
            length => write(&piece[..length])?,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn special_tokens_are_strings_or_objects() {
        let config = map(json!({"bos_token": null, "eos_token": {"content": "</s>"}, "pad_token": "<pad>"}));
        let fallback = map(json!({"bos_token": "<s>", "pad_token": "other"}));
        let tokens = special_tokens(&config, &fallback);
        let expected = [("bos_token", "<s>"), ("eos_token", "</s>"), ("pad_token", "<pad>")];
        assert_eq!(tokens, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    }

    #[test]
    fn first_tokens_of_post_processors() {
        let template = json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
        });
        let no_bos = json!({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}]});
        for (processor, expected) in [
            (template.clone(), Some(2)),
            (no_bos, None),
            (json!({"type": "Sequence", "processors": [{"type": "ByteLevel"}, template]}), Some(2)),
            (json!({"type": "RobertaProcessing", "cls": ["<s>", 7], "sep": ["</s>", 8]}), Some(7)),
            (json!({"type": "ByteLevel"}), None),
        ] {
            assert_eq!(first_token(&processor), expected, "{processor}");
        }
    }

    #[test]
    fn templates_are_texts_or_named() {
        let named = json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]);
        for (value, expected) in [(json!("x"), Some("x")), (named, Some("d")), (json!([]), None), (json!(null), None)] {
            assert_eq!(template_text(&value).as_deref(), expected);
        }
    }

    #[test]
    fn ids_are_one_or_many() {
        for (value, expected) in [(json!(5), vec![5]), (json!([1, 107]), vec![1, 107]), (json!(null), vec![])] {
            assert_eq!(token_ids(Some(&value)), expected);
        }
    }
}
