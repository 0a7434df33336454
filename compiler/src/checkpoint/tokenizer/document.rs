//! `tokenizer.json` as a document: what of an existing one has to be known, what a made one consists of, and how tokens are added.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::added::{AddedToken, Beside};
use crate::note::Note;

/// What has to be known of an existing file.
#[derive(Debug, Deserialize)]
pub struct Known {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    model: KnownModel,
}

#[derive(Debug, Deserialize)]
struct KnownModel {
    vocab: Numbers,
}

/// The number of each text of a vocabulary, which is a map, or a list of pairs of text and score.
#[derive(Debug, Default)]
struct Numbers(HashMap<String, u64>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Numbers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vocabulary")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Numbers, A::Error> {
                let mut numbers = HashMap::new();
                while let Some((text, number)) = map.next_entry::<String, u64>()? {
                    numbers.insert(text, number);
                }
                Ok(Numbers(numbers))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Numbers, A::Error> {
                let mut numbers = HashMap::new();
                let mut number = 0;
                while let Some((text, _)) = list.next_element::<(String, IgnoredAny)>()? {
                    numbers.insert(text, number);
                    number += 1;
                }
                Ok(Numbers(numbers))
            }
        }
        deserializer.deserialize_any(Texts)
    }
}

impl Known {
    /// Whether the file has the token already, found and written alike.
    pub fn has(&self, token: &AddedToken) -> bool {
        let told = token.id.is_some();
        // What is only named is added where it is missing; its peculiarities are the file's to tell.
        self.added_tokens.iter().any(|known| if told { known.is_alike(token) } else { known.content == token.content })
    }
}

/// A tokenizer.
#[derive(Debug)]
pub struct Document {
    parts: Map<String, Value>,
    model: Model,
    added: Vec<AddedToken>,
    numbers: HashMap<String, u64>,
}

/// The part that cuts words into tokens.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Model {
    /// That of a file.
    File(Value),
    /// Merges of neighbours.
    Bpe(Bpe),
    /// The likeliest sequence of pieces.
    Unigram(Unigram),
}

/// Byte pair encoding, as `tokenizers` reads it.
#[derive(Debug, Default, Serialize)]
#[serde(tag = "type", rename = "BPE")]
pub struct Bpe {
    /// Stands for what is not in the vocabulary.
    pub unk_token: Option<String>,
    /// Unknown neighbours become one token.
    pub fuse_unk: bool,
    /// What is unknown becomes tokens of its bytes.
    pub byte_fallback: bool,
    /// Words that are tokens are not merged from their parts.
    pub ignore_merges: bool,
    /// All tokens with their numbers.
    #[serde(serialize_with = "as_map")]
    pub vocab: Vec<(String, u64)>,
    /// Those to be done first come first.
    pub merges: Vec<(String, String)>,
}

/// A unigram model, as `tokenizers` reads it.
#[derive(Debug, Serialize)]
#[serde(tag = "type")]
pub struct Unigram {
    /// Number of what is not in the vocabulary.
    pub unk_id: Option<u64>,
    /// Pieces and scores.
    pub vocab: Vec<(String, f64)>,
    /// What is unknown becomes tokens of its bytes.
    pub byte_fallback: bool,
}

fn as_map<S: Serializer>(pairs: &[(String, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(text, number)| (text, number)))
}

/// What is done to a text before and after [`Bpe`] or [`Unigram`].
#[derive(Debug, Default)]
pub struct Steps {
    /// Before special tokens are cut out.
    pub normalizer: Value,
    /// Cuts a text into words.
    pub pre_tokenizer: Value,
    /// What is put around a text.
    pub post_processor: Value,
    /// Tokens to text.
    pub decoder: Value,
}

impl Document {
    /// That of a file, of which `known` is known; `None` if it lacks a part that all have.
    pub fn of_file(value: Value, known: Known) -> Option<Self> {
        let Value::Object(mut parts) = value else { return None };
        let model = Model::File(parts.shift_remove("model")?);
        parts.shift_remove("added_tokens");
        Some(Document { parts, model, added: known.added_tokens, numbers: known.model.vocab.0 })
    }

    /// One that merges.
    pub fn bpe(model: Bpe, steps: Steps) -> Self {
        let numbers = model.vocab.iter().cloned().collect();
        Document { parts: steps.parts(), model: Model::Bpe(model), added: Vec::new(), numbers }
    }

    /// One that finds the likeliest pieces.
    pub fn unigram(model: Unigram, steps: Steps) -> Self {
        let numbers = (0..).zip(&model.vocab).map(|(number, (text, _))| (text.clone(), number)).collect();
        Document { parts: steps.parts(), model: Model::Unigram(model), added: Vec::new(), numbers }
    }

    /// The number of a token.
    pub fn number(&self, text: &str) -> Option<u64> {
        let added = self.added.iter().find(|token| token.content == text);
        added.and_then(|token| token.id).or_else(|| self.numbers.get(text).copied())
    }

    /// Sets what is put around a text.
    pub fn set_post_processor(&mut self, processor: Value) {
        self.parts.insert("post_processor".to_owned(), processor);
    }

    /// Adds tokens, or changes how they are found; returns the texts of those that were new or changed, and notes on those that
    /// cannot have the number that they should.
    pub fn add(&mut self, beside: &Beside) -> (Vec<String>, Vec<Note>) {
        let (mut added, mut notes, mut beyond) = (Vec::new(), Vec::new(), Vec::new());
        let mut taken: HashSet<u64> = self.numbers.values().copied().collect();
        taken.extend(self.added.iter().filter_map(|token| token.id));
        for token in &beside.tokens {
            let told = token.id.is_some();
            if let Some(known) = self.added.iter_mut().find(|known| known.content == token.content) {
                if told && !known.is_alike(token) {
                    *known = AddedToken { id: known.id, ..token.clone() };
                    added.push(token.content.clone());
                }
            } else {
                let number = match self.numbers.get(&token.content) {
                    Some(number) => *number,
                    None => self.new_number(token, &taken),
                };
                if number >= beside.embedded {
                    beyond.push(token.content.clone());
                    continue;
                }
                taken.insert(number);
                if number != self.next_number() && !self.numbers.contains_key(&token.content) {
                    // The library counts added tokens on from the vocabulary, so any other number has to be in it.
                    self.insert(&token.content, number);
                }
                self.added.push(AddedToken { id: Some(number), ..token.clone() });
                added.push(token.content.clone());
            }
            if let (Some(said), Some(number)) = (token.id, self.number(&token.content))
                && said != number
            {
                notes.push(Note::OtherNumber { token: token.content.clone(), said, number });
            }
        }
        self.added.sort_by_key(|token| token.id);
        if !beyond.is_empty() {
            notes.push(Note::BeyondEmbedding { tokens: beyond });
        }
        (added, notes)
    }

    /// Adds special tokens that have numbers already.
    pub fn add_own(&mut self, tokens: Vec<AddedToken>) {
        self.add(&Beside { tokens, embedded: u64::MAX });
    }

    /// The number of a token that the vocabulary lacks: the one it should have, if that is free and can be given, else the next.
    fn new_number(&self, token: &AddedToken, taken: &HashSet<u64>) -> u64 {
        let is_map = match &self.model {
            Model::File(model) => model.get("vocab").is_some_and(Value::is_object),
            Model::Bpe(_) => true,
            Model::Unigram(_) => false,
        };
        let next = self.next_number();
        token.id.filter(|id| (is_map || *id == next) && !taken.contains(id)).unwrap_or(next)
    }

    /// The number that the library gives the next added token (`AddedVocabulary::add_tokens`).
    fn next_number(&self) -> u64 {
        let size = self.numbers.len() as u64;
        let most = self.added.iter().filter_map(|token| token.id).max();
        most.filter(|most| *most >= size).map_or(size, |most| most + 1)
    }

    /// Puts a token into a vocabulary that is a map.
    fn insert(&mut self, text: &str, number: u64) {
        match &mut self.model {
            Model::File(model) => {
                if let Some(Value::Object(vocab)) = model.get_mut("vocab") {
                    vocab.insert(text.to_owned(), number.into());
                }
            }
            Model::Bpe(model) => model.vocab.push((text.to_owned(), number)),
            Model::Unigram(_) => {}
        }
        self.numbers.insert(text.to_owned(), number);
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let whole = Whole { parts: &self.parts, added_tokens: &self.added, model: &self.model };
        let mut text = serde_json::to_string(&whole).expect("strings, numbers, lists and maps of strings");
        text.push('\n');
        text
    }
}

#[derive(Serialize)]
struct Whole<'d> {
    #[serde(flatten)]
    parts: &'d Map<String, Value>,
    added_tokens: &'d [AddedToken],
    model: &'d Model,
}

impl Steps {
    fn parts(self) -> Map<String, Value> {
        let parts = [
            ("version", json!("1.0")),
            ("truncation", Value::Null),
            ("padding", Value::Null),
            ("normalizer", self.normalizer),
            ("pre_tokenizer", self.pre_tokenizer),
            ("post_processor", self.post_processor),
            ("decoder", self.decoder),
        ];
        parts.map(|(key, value)| (key.to_owned(), value)).into_iter().collect()
    }
}

/// A post-processor that puts tokens, each with its number, before and after a text.
pub fn around(before: Option<(&str, u64)>, after: Option<(&str, u64)>) -> Value {
    let side = |sequence: &str, kind: u32| {
        let token = |(text, _): (&str, u64)| json!({"SpecialToken": {"id": text, "type_id": kind}});
        let text = json!({"Sequence": {"id": sequence, "type_id": kind}});
        before.map(token).into_iter().chain([text]).chain(after.map(token)).collect::<Vec<_>>()
    };
    let token = |(text, id): (&str, u64)| (text.to_owned(), json!({"id": text, "ids": [id], "tokens": [text]}));
    let special: Map<String, Value> = before.into_iter().chain(after).map(token).collect();
    let pair = [side("A", 0), side("B", 1)].concat();
    json!({"type": "TemplateProcessing", "single": side("A", 0), "pair": pair, "special_tokens": special})
}
