//! What a `tokenizer.json` may do with texts, checked before it is loaded: how much they can grow, and what would make
//! the crate that executes it panic or run forever.

mod charsmap;

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// How many times longer a text may become. Bounds of real tokenizers, products of each stage's worst case, reach 924: NFKC
/// makes eleven bytes of one, a replaced space takes three, a marked beginning seven.
const MOST_GROWTH: f64 = 1024.0;
/// How many times longer tokens may become when they are decoded.
const MOST_DECODED_GROWTH: f64 = 16.0;
/// The most normalizers, pre-tokenizers or decoders one after the other.
const MOST_STAGES: usize = 64;
/// The longest token. Unigram models keep a node for each byte, and drop them recursively.
const MOST_TOKEN_BYTES: usize = 1024;
/// The longest regular expression.
const MOST_PATTERN_BYTES: usize = 1 << 16;
/// The most bytes of all tokens of a Unigram model, each of which becomes a node of some hundred bytes.
const MOST_UNIGRAM_BYTES: usize = 16 << 20;
/// The most bytes of all added tokens once they are normalized, which happens at load.
const MOST_ADDED_BYTES: f64 = (64 << 20) as f64;
/// Where a model cuts words longer than this itself, finding tokens takes time that grows with the square.
const MOST_WORD_LETTERS: u64 = 1000;

/// The parts of a `tokenizer.json` that matter here.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Option<Value>,
    #[serde(default)]
    pre_tokenizer: Option<Value>,
    #[serde(default)]
    decoder: Option<Value>,
    model: Model,
}

#[derive(Deserialize)]
struct AddedToken {
    content: String,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    vocab: Vocabulary,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    max_input_chars_per_word: Option<u64>,
}

/// Sizes of a vocabulary.
#[derive(Default)]
struct Vocabulary {
    longest: usize,
    bytes: usize,
    /// Whether it is a list, as Unigram models have it.
    list: bool,
}

impl Vocabulary {
    fn add(&mut self, token: &str) {
        self.longest = self.longest.max(token.len());
        self.bytes += token.len();
    }
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sizes;
        impl<'de> Visitor<'de> for Sizes {
            type Value = Vocabulary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vocabulary")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
                let mut sizes = Vocabulary::default();
                while let Some((token, _)) = map.next_entry::<String, IgnoredAny>()? {
                    sizes.add(&token);
                }
                Ok(sizes)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vocabulary, A::Error> {
                let mut sizes = Vocabulary { list: true, ..Vocabulary::default() };
                while let Some((token, _)) = seq.next_element::<(String, IgnoredAny)>()? {
                    sizes.add(&token);
                }
                Ok(sizes)
            }
        }
        deserializer.deserialize_any(Sizes)
    }
}

/// How many times longer the stages can make a text, in the worst case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Growth {
    pub(super) normalizers: f64,
    pub(super) pre_tokenizers: f64,
}

impl Growth {
    pub(super) fn total(self) -> f64 {
        self.normalizers * self.pre_tokenizers
    }
}

/// How many times longer its normalizers and pre-tokenizers can make a text.
///
/// # Errors
/// What is wrong with it.
pub(super) fn growth(json: &[u8]) -> Result<Growth, String> {
    let file: File = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    let mut stages = Stages { count: 0 };
    let normalized = part(&file.normalizer, |value| stages.normalizer(value))?;
    if normalized > MOST_GROWTH {
        return Err(too_much("its normalizers", normalized, MOST_GROWTH));
    }
    check_model(&file.model)?;
    let longest = file.added_tokens.iter().map(|token| token.content.len()).max().unwrap_or(0);
    if longest > MOST_TOKEN_BYTES {
        return Err(format!("an added token has {longest} bytes; at most {MOST_TOKEN_BYTES} are supported"));
    }
    let added: usize = file.added_tokens.iter().map(|token| token.content.len()).sum();
    if added as f64 * normalized > MOST_ADDED_BYTES {
        return Err(format!("its added tokens may become {:.0} bytes long", added as f64 * normalized));
    }
    let mut stages = Stages { count: 0 };
    let pre_tokenizers = part(&file.pre_tokenizer, |value| stages.pre_tokenizer(value))?;
    let growth = Growth { normalizers: normalized, pre_tokenizers };
    if growth.total() > MOST_GROWTH {
        return Err(too_much("its normalizers and pre-tokenizers", growth.total(), MOST_GROWTH));
    }
    let mut stages = Stages { count: 0 };
    let decoded = part(&file.decoder, |value| stages.decoder(value))?;
    if decoded > MOST_DECODED_GROWTH {
        return Err(too_much("its decoders", decoded, MOST_DECODED_GROWTH));
    }
    Ok(growth)
}

fn part(value: &Option<Value>, growth: impl FnOnce(&Value) -> Result<f64, String>) -> Result<f64, String> {
    value.as_ref().map_or(Ok(1.0), growth)
}

fn too_much(what: &str, growth: f64, most: f64) -> String {
    format!("{what} may make a text {growth:.3e} times as long; at most {most} times is supported")
}

fn check_model(model: &Model) -> Result<(), String> {
    let sizes = &model.vocab;
    if sizes.longest > MOST_TOKEN_BYTES {
        return Err(format!("a token has {} bytes; at most {MOST_TOKEN_BYTES} are supported", sizes.longest));
    }
    if sizes.list && sizes.bytes > MOST_UNIGRAM_BYTES {
        return Err(format!(
            "the tokens of its Unigram model have {} bytes; at most {MOST_UNIGRAM_BYTES} are supported",
            sizes.bytes
        ));
    }
    let prefix = model.continuing_subword_prefix.as_deref().unwrap_or("");
    if !prefix.is_empty() && model.kind.as_deref() != Some("WordPiece") {
        // Merges would be cut by the prefix's length, whether they have it or not.
        return Err(format!("`continuing_subword_prefix` {prefix:?} is supported for WordPiece only"));
    }
    if let Some(most) = model.max_input_chars_per_word.filter(|&most| most > MOST_WORD_LETTERS) {
        return Err(format!("`max_input_chars_per_word` is {most}; at most {MOST_WORD_LETTERS} is supported"));
    }
    Ok(())
}

/// Keys that belong to one type; elsewhere they would make the loader take the part for another type.
const KEYS: [(&str, &[&str]); 6] = [
    ("normalizers", &["Sequence"]),
    ("pretokenizers", &["Sequence"]),
    ("decoders", &["Sequence"]),
    ("precompiled_charsmap", &["Precompiled"]),
    ("pattern", &["Replace", "Split"]),
    ("prepend", &["Prepend"]),
];

/// Counts the stages of a part.
struct Stages {
    count: usize,
}

impl Stages {
    /// The type of a stage and its options.
    fn next<'a>(&mut self, value: &'a Value) -> Result<(&'a str, &'a Map<String, Value>), String> {
        self.count += 1;
        if self.count > MOST_STAGES {
            return Err(format!("it has more than {MOST_STAGES} stages one after the other"));
        }
        let options = value.as_object().ok_or("a stage is not an object")?;
        let kind = options.get("type").and_then(Value::as_str).ok_or("a stage has no type")?;
        for (key, kinds) in KEYS {
            if options.contains_key(key) && !kinds.contains(&kind) {
                return Err(format!("a stage of type {kind} has the key `{key}`"));
            }
        }
        Ok((kind, options))
    }

    fn all(
        &mut self,
        options: &Map<String, Value>,
        key: &str,
        growth: fn(&mut Stages, &Value) -> Result<f64, String>,
    ) -> Result<f64, String> {
        let stages = options.get(key).and_then(Value::as_array).ok_or_else(|| format!("a Sequence has no `{key}`"))?;
        stages.iter().map(|stage| growth(self, stage)).product()
    }

    /// How much longer a normalizer can make a text.
    fn normalizer(&mut self, value: &Value) -> Result<f64, String> {
        let (kind, options) = self.next(value)?;
        Ok(match kind {
            "Sequence" => return self.all(options, "normalizers", Stages::normalizer),
            "Replace" => return replacement(options),
            "Precompiled" => {
                let table = options.get("precompiled_charsmap").and_then(Value::as_str);
                return charsmap::growth(table.ok_or("a Precompiled normalizer has no table")?);
            }
            // The Unicode Standard, annex 15: most bytes of UTF-8 that a byte becomes.
            "NFC" | "NFD" => 3.0,
            "NFKC" | "NFKD" => 11.0,
            "Lowercase" => 1.5,
            // Decomposed, without accents, with spaces around ideographs.
            "BertNormalizer" | "Bert" => 8.0,
            "ByteLevel" => 2.0,
            // Added once, and short.
            "Prepend" => match options.get("prepend").and_then(Value::as_str).map_or(0, str::len) {
                0..=16 => 1.0,
                long => 1.0 + long as f64,
            },
            "Strip" | "StripAccents" | "Nmt" => 1.0,
            other => return Err(format!("normalizer {other:?} is not supported")),
        })
    }

    /// How much longer a pre-tokenizer can make a text.
    fn pre_tokenizer(&mut self, value: &Value) -> Result<f64, String> {
        let (kind, options) = self.next(value)?;
        Ok(match kind {
            "Sequence" => return self.all(options, "pretokenizers", Stages::pre_tokenizer),
            "Split" => {
                pattern(options)?;
                1.0
            }
            "FixedLength" if options.get("length").is_some_and(|length| length.as_u64() == Some(0)) => {
                return Err("a FixedLength pre-tokenizer has the length 0".to_owned());
            }
            // A letter of up to four bytes for each space, and before each piece.
            "Metaspace" => 4.0,
            "ByteLevel" => 2.0,
            "BertPreTokenizer" | "CharDelimiterSplit" | "Whitespace" | "WhitespaceSplit" | "Punctuation" | "Digits"
            | "UnicodeScripts" | "FixedLength" => 1.0,
            other => return Err(format!("pre-tokenizer {other:?} is not supported")),
        })
    }

    /// How much longer a decoder can make tokens.
    fn decoder(&mut self, value: &Value) -> Result<f64, String> {
        let (kind, options) = self.next(value)?;
        let is_empty = |key: &str| options.get(key).and_then(Value::as_str).is_some_and(str::is_empty);
        Ok(match kind {
            "Sequence" => return self.all(options, "decoders", Stages::decoder),
            "Replace" => return replacement(options),
            "Strip" if options.get("stop").is_some_and(|stop| stop.as_u64() != Some(0)) => {
                return Err("a Strip decoder cuts at the end of tokens, which is not supported".to_owned());
            }
            // A space before each letter, where what is replaced is empty.
            "CTC" if is_empty("word_delimiter_token") => 2.0,
            "BPEDecoder" if is_empty("suffix") => 2.0,
            "BPEDecoder" | "ByteLevel" | "WordPiece" | "Metaspace" | "CTC" | "Fuse" | "Strip" | "ByteFallback" => 1.0,
            other => return Err(format!("decoder {other:?} is not supported")),
        })
    }
}

/// What is replaced: a text, or a regular expression.
fn pattern(options: &Map<String, Value>) -> Result<(&str, bool), String> {
    let pattern = options.get("pattern").and_then(Value::as_object).filter(|pattern| pattern.len() == 1);
    let (kind, text) = pattern.and_then(|pattern| pattern.iter().next()).ok_or("a stage has no `pattern`")?;
    let text = text.as_str().ok_or("a pattern is not a text")?;
    if text.len() > MOST_PATTERN_BYTES {
        return Err(format!("a pattern has {} bytes; at most {MOST_PATTERN_BYTES} are supported", text.len()));
    }
    match kind.as_str() {
        "String" => Ok((text, false)),
        "Regex" => Ok((text, true)),
        other => Err(format!("a pattern of kind {other:?} is not supported")),
    }
}

/// How much longer a text becomes when a pattern is replaced.
fn replacement(options: &Map<String, Value>) -> Result<f64, String> {
    let (pattern, is_regex) = pattern(options)?;
    let content = options.get("content").and_then(Value::as_str).ok_or("a Replace has no `content`")?.len() as f64;
    let least = match is_regex {
        false => pattern.len(),
        true => usize::from(!may_match_nothing(pattern)?),
    };
    Ok(if least == 0 { 1.0 + content } else { (content / least as f64).max(1.0) })
}

/// Whether a regular expression could match an empty text: as it does in one, or by looking around.
fn may_match_nothing(pattern: &str) -> Result<bool, String> {
    let looks_around = ["(?", "\\b", "\\B", "\\A", "\\z", "\\Z", "\\G", "\\K", "^", "$"];
    let regex = tokenizers::utils::SysRegex::new(pattern).map_err(|e| format!("a pattern is not understood: {e}"))?;
    Ok(regex.find_iter("").next().is_some() || looks_around.iter().any(|part| pattern.contains(part)))
}

#[cfg(test)]
mod tests;
