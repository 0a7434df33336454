//! Tokens that files beside `tokenizer.json` tell: `added_tokens_decoder` and the named special tokens of
//! `tokenizer_config.json`; without the former `added_tokens.json` and `special_tokens_map.json`, which older versions wrote.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::object;
use crate::error::Result;

/// Keys of tokens with a role.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Keys of lists of other special tokens.
const LISTS: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// A token that is found in a text before it is split; `id` is its number where that is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedToken {
    /// Its number.
    #[serde(default)]
    pub id: Option<u64>,
    /// Its text.
    pub content: String,
    /// Only where no letter or digit is beside it.
    #[serde(default)]
    pub single_word: bool,
    /// Takes the spaces before it.
    #[serde(default)]
    pub lstrip: bool,
    /// Takes the spaces after it.
    #[serde(default)]
    pub rstrip: bool,
    /// Is found in the normalised text.
    #[serde(default)]
    pub normalized: bool,
    /// Is left out of decoded text.
    #[serde(default)]
    pub special: bool,
}

impl AddedToken {
    /// A special token without peculiarities.
    pub fn special(content: &str) -> Self {
        AddedToken {
            id: None,
            content: content.to_owned(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special: true,
        }
    }

    /// That of an object as these files write it; its number is elsewhere.
    fn of(value: &Value) -> Option<Self> {
        let flag = |key: &str| value.get(key).and_then(Value::as_bool);
        let content = value.get("content")?.as_str().filter(|content| !content.is_empty())?;
        let special = flag("special").unwrap_or(false);
        Some(AddedToken {
            single_word: flag("single_word").unwrap_or(false),
            lstrip: flag("lstrip").unwrap_or(false),
            rstrip: flag("rstrip").unwrap_or(false),
            normalized: flag("normalized").unwrap_or(!special),
            special,
            ..AddedToken::special(content)
        })
    }

    /// Whether the other one is found and written alike.
    pub fn is_alike(&self, other: &AddedToken) -> bool {
        let flags = |t: &AddedToken| (t.single_word, t.lstrip, t.rstrip, t.normalized, t.special);
        self.content == other.content && flags(self) == flags(other)
    }
}

/// What the files beside `tokenizer.json` tell.
#[derive(Debug, Default)]
pub struct Beside {
    /// In the order in which they are added.
    pub tokens: Vec<AddedToken>,
    /// Rows of the embedding: no token can have this number or a larger one.
    pub embedded: u64,
}

impl Beside {
    /// Reads the files in `directory`, of which `tokenizer_config.json` is `config`, of a model that embeds `embedded` tokens.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(directory: &Path, config: &Map<String, Value>, embedded: u64) -> Result<Self> {
        let mut tokens = Vec::new();
        let mut named = config.clone();
        match config.get("added_tokens_decoder") {
            Some(Value::Object(decoder)) => {
                tokens.extend(decoder.iter().filter_map(|(id, token)| {
                    Some(AddedToken { id: Some(id.trim().parse().ok()?), ..AddedToken::of(token)? })
                }));
            }
            _ => {
                named.extend(object(directory, "special_tokens_map.json")?);
                let special: Vec<String> = special(&named).map(|token| token.content).collect();
                for (content, id) in object(directory, "added_tokens.json")? {
                    let Some(id) = id.as_u64().filter(|_| !content.is_empty()) else { continue };
                    let special = special.contains(&content);
                    let token = AddedToken::special(&content);
                    tokens.push(AddedToken { id: Some(id), special, normalized: !special, ..token });
                }
            }
        }
        tokens.sort_by_key(|token| token.id);
        let named: Vec<AddedToken> = special(&named).collect();
        for token in &mut tokens {
            // A token with a role is special, whatever else is said of it.
            token.special |= named.iter().any(|named| named.content == token.content);
        }
        for token in named {
            if !tokens.iter().any(|known| known.content == token.content) {
                tokens.push(token);
            }
        }
        Ok(Beside { tokens, embedded })
    }

    /// The token with this number.
    pub fn numbered(&self, id: u64) -> Option<&AddedToken> {
        self.tokens.iter().find(|token| token.id == Some(id))
    }
}

/// Special tokens by role, then those without one; a token is a text, or an object with `content`.
fn special(config: &Map<String, Value>) -> impl Iterator<Item = AddedToken> {
    let one = |value: &Value| match value {
        Value::String(text) if !text.is_empty() => Some(AddedToken::special(text)),
        Value::Object(_) => AddedToken::of(value).map(|token| AddedToken { special: true, ..token }),
        _ => None,
    };
    let named = NAMED.iter().filter_map(|key| config.get(*key)).filter_map(one).collect::<Vec<_>>();
    let lists = LISTS.iter().filter_map(|key| config.get(*key));
    let listed = lists.flat_map(|list| match list {
        Value::Array(list) => list.iter().filter_map(one).collect::<Vec<_>>(),
        Value::Object(named) => named.values().filter_map(one).collect(),
        _ => Vec::new(),
    });
    named.into_iter().chain(listed.collect::<Vec<_>>())
}
