//! `tokenizer.json`, written as it goes: vocabularies have hundreds of thousands of entries.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};
use serde_json::{Value, json};

use super::super::metadata::Metadata;
use super::{Algorithm, NOT_STRIPPING, Vocabulary, byte_level, sentence_piece};

/// A tokenizer with its texts, for writing.
pub struct TokenizerJson<'t> {
    vocabulary: &'t Vocabulary,
    tokens: &'t [&'t str],
    merges: Vec<(&'t str, &'t str)>,
}

impl Vocabulary {
    /// The content of `tokenizer.json`.
    pub fn json<'t>(&'t self, metadata: Metadata<'t>, tokens: &'t [&'t str]) -> TokenizerJson<'t> {
        let merges = match self.algorithm {
            Algorithm::ByteLevel(_) => {
                let merges = metadata.texts("tokenizer.ggml.merges").ok().flatten().unwrap_or_default();
                merges.into_iter().filter_map(byte_level::pair).collect()
            }
            Algorithm::SentencePiece { .. } => {
                let scores = metadata.floats("tokenizer.ggml.scores").ok().flatten().unwrap_or_default();
                sentence_piece::merges(tokens, &self.kinds, &scores)
            }
        };
        TokenizerJson { vocabulary: self, tokens, merges }
    }
}

impl TokenizerJson<'_> {
    fn text(&self, id: usize) -> Cow<'_, str> {
        self.vocabulary.text(id, self.tokens)
    }

    fn added(&self) -> Vec<Value> {
        let token = |(id, special): (usize, bool)| {
            let strips = special && self.vocabulary.strips && !NOT_STRIPPING.contains(&self.tokens[id]);
            json!({"id": id, "content": self.text(id), "single_word": false, "lstrip": false, "rstrip": strips,
                "normalized": false, "special": special})
        };
        self.vocabulary.added().map(token).collect()
    }

    /// What is put around a text.
    fn post_processor(&self) -> Value {
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true});
        let ends = |adds: bool, id: Option<u32>| id.filter(|_| adds).map(|id| (id, self.tokens[id as usize]));
        let bos = ends(self.vocabulary.add_bos, self.vocabulary.bos);
        let eos = ends(self.vocabulary.add_eos, self.vocabulary.eos);
        let template = (bos.is_some() || eos.is_some()).then(|| {
            let around = |sequence: &str, kind: u32| {
                let token = |(_, text): (u32, &str)| json!({"SpecialToken": {"id": text, "type_id": kind}});
                let text = json!({"Sequence": {"id": sequence, "type_id": kind}});
                bos.map(token).into_iter().chain([text]).chain(eos.map(token)).collect::<Vec<_>>()
            };
            let pair = [around("A", 0), around("B", 1)].concat();
            let special = bos.into_iter().chain(eos);
            let special =
                special.map(|(id, text)| (text.to_owned(), json!({"id": text, "ids": [id], "tokens": [text]})));
            json!({"type": "TemplateProcessing", "single": around("A", 0),
                "pair": pair,
                "special_tokens": special.collect::<serde_json::Map<_, _>>()})
        });
        match (self.vocabulary.algorithm, template) {
            (Algorithm::ByteLevel(_), None) => bytes,
            (Algorithm::ByteLevel(_), Some(template)) => json!({"type": "Sequence", "processors": [bytes, template]}),
            (Algorithm::SentencePiece { .. }, template) => template.unwrap_or_default(),
        }
    }
}

impl Serialize for TokenizerJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (normalizer, pre_tokenizer, decoder) = match self.vocabulary.algorithm {
            Algorithm::ByteLevel(splitting) => (
                splitting.normalizer(),
                splitting.pre_tokenizer(),
                json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
            ),
            Algorithm::SentencePiece { space_before } => {
                (sentence_piece::normalizer(space_before), Value::Null, sentence_piece::decoder(space_before))
            }
        };
        let mut json = serializer.serialize_struct("tokenizer", 9)?;
        json.serialize_field("version", "1.0")?;
        json.serialize_field("truncation", &())?;
        json.serialize_field("padding", &())?;
        json.serialize_field("added_tokens", &self.added())?;
        json.serialize_field("normalizer", &normalizer)?;
        json.serialize_field("pre_tokenizer", &pre_tokenizer)?;
        json.serialize_field("post_processor", &self.post_processor())?;
        json.serialize_field("decoder", &decoder)?;
        json.serialize_field("model", &Model(self))?;
        json.end()
    }
}

/// The part that merges.
struct Model<'t>(&'t TokenizerJson<'t>);

impl Serialize for Model<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let TokenizerJson { vocabulary, tokens, merges } = self.0;
        let (pieces, ignore_merges) = match vocabulary.algorithm {
            Algorithm::ByteLevel(splitting) => (false, splitting.ignore_merges),
            Algorithm::SentencePiece { .. } => (true, false),
        };
        let unknown = vocabulary.unknown.filter(|_| pieces).map(|id| tokens[id as usize]);
        let mut model = serializer.serialize_struct("model", 10)?;
        model.serialize_field("type", "BPE")?;
        model.serialize_field("dropout", &())?;
        model.serialize_field("unk_token", &unknown)?;
        model.serialize_field("continuing_subword_prefix", &())?;
        model.serialize_field("end_of_word_suffix", &())?;
        model.serialize_field("fuse_unk", &pieces)?;
        model.serialize_field("byte_fallback", &pieces)?;
        model.serialize_field("ignore_merges", &ignore_merges)?;
        model.serialize_field("vocab", &Texts(self.0))?;
        model.serialize_field("merges", merges)?;
        model.end()
    }
}

/// All tokens, added ones too, so that each has its own number.
struct Texts<'t>(&'t TokenizerJson<'t>);

impl Serialize for Texts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.tokens.len()))?;
        for id in 0..self.0.tokens.len() {
            map.serialize_entry(&self.0.text(id), &id)?;
        }
        map.end()
    }
}
