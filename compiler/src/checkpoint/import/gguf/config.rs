//! Metadata to the configuration that transformers 4 has for the same model.
//!
//! | metadata, after `ARCH.` | here |
//! |---|---|
//! | `block_count`, `context_length` | `num_hidden_layers`, `max_position_embeddings` |
//! | `embedding_length`, `feed_forward_length` | `hidden_size`, `intermediate_size` |
//! | `attention.head_count`, `attention.head_count_kv` | `num_attention_heads`, `num_key_value_heads` |
//! | `attention.key_length` | `head_dim` |
//! | `attention.layer_norm_rms_epsilon` | `rms_norm_eps` |
//! | `attention.sliding_window`, `attention.sliding_window_pattern` | `sliding_window`, `sliding_window_pattern` |
//! | `attention.scale` | `query_pre_attn_scalar`, of Gemma 2 and 3 |
//! | `attn_logit_softcapping`, `final_logit_softcapping` | the same |
//! | `rope.freq_base`, `rope.freq_base_swa` | `rope_theta`, `rope_local_base_freq` |
//! | `rope.scaling.type`, `rope.scaling.factor` | `rope_scaling`; of `llama3` see [`rope_factors`](super::rope_factors) |
//!
//! A key of the architecture that is not known here is refused if its name is one of those that change what is computed
//! ([`DECISIVE`]) and its value is not nothing; others are noted.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::architecture::Architecture;
use super::metadata::Metadata;
use super::tokenizer::ends;

/// Keys that say nothing about a forward pass, or repeat what others say.
const HARMLESS: [&str; 7] = [
    "pooling_type",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.yarn_log_multiplier",
    "tensor_data_layout",
    "use_parallel_residual",
    "vocab_size",
];

/// Keys that must have one value, where they are there at all.
const ONLY: [(&str, f64); 5] = [
    ("expert_count", 0.0),
    ("expert_used_count", 0.0),
    ("rope.scale_linear", 1.0),
    ("rope.scaling.attn_factor", 1.0),
    ("attention.max_alibi_bias", 0.0),
];

/// Parts of names whose keys change what is computed. What is written for other architectures has them (`logit_scale`,
/// `attention.clamp_kqv`, `expert_count`, `nextn_predict_layers`), and so will what is not known yet.
const DECISIVE: [&str; 22] = [
    "act",
    "alibi",
    "bias",
    "chunk",
    "clamp",
    "conv",
    "count",
    "dimension",
    "expert",
    "layers",
    "length",
    "moe",
    "norm",
    "num_",
    "rope",
    "scale",
    "shared",
    "size",
    "softcap",
    "ssm",
    "temperature",
    "window",
];

/// What the metadata tell.
#[derive(Debug, Default)]
pub struct Told {
    /// Keys that are told.
    pub config: Map<String, Value>,
    /// Keys that llama.cpp derives by rules of its own, where the file does not tell.
    pub derived: Map<String, Value>,
    /// Keys that are passed over, in one sentence.
    pub notes: Vec<String>,
}

/// Reads the metadata of a model of this architecture, whose embedding has `rows` rows.
///
/// # Errors
/// All keys that are missing, wrong or not understood, one sentence each.
pub fn read(
    metadata: Metadata<'_>,
    architecture: &'static Architecture,
    rows: Option<usize>,
) -> Result<Told, Vec<String>> {
    let mut keys = Keys { metadata, architecture, taken: BTreeSet::new(), problems: Vec::new(), config: Map::new() };
    keys.set("model_type", architecture.family);
    // The embedding has a row for each token; where tokens are not listed, it is the only one to tell.
    if let Some(tokens) = metadata.count("tokenizer.ggml.tokens").or(rows.map(|rows| rows as u64)) {
        keys.set("vocab_size", tokens);
    }
    keys.sizes();
    keys.attention();
    let derived = keys.windows_and_caps();
    keys.rope();
    keys.tokens();
    let notes = keys.others();
    match keys.problems.is_empty() {
        true => Ok(Told { config: keys.config, derived, notes }),
        false => Err(keys.problems),
    }
}

struct Keys<'f> {
    metadata: Metadata<'f>,
    architecture: &'static Architecture,
    /// Keys that are understood.
    taken: BTreeSet<String>,
    problems: Vec<String>,
    config: Map<String, Value>,
}

impl Keys<'_> {
    fn key(&mut self, name: &str) -> String {
        let key = format!("{}.{name}", self.architecture.name);
        self.taken.insert(key.clone());
        key
    }

    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.config.insert(key.to_owned(), value.into());
    }

    fn note<T>(&mut self, read: Result<Option<T>, String>) -> Option<T> {
        read.unwrap_or_else(|problem| {
            self.problems.push(problem);
            None
        })
    }

    /// A whole number, or an array of the same one for each layer.
    fn size(&mut self, name: &str) -> Option<u64> {
        let key = self.key(name);
        let read = self.metadata.size_of_all(&key);
        self.note(read)
    }

    fn float(&mut self, name: &str) -> Option<f64> {
        let key = self.key(name);
        let read = self.metadata.float(&key);
        self.note(read)
    }

    fn required<T>(&mut self, name: &str, found: Option<T>) -> Option<T> {
        if found.is_none() && !self.metadata.has(&format!("{}.{name}", self.architecture.name)) {
            self.problems.push(format!("metadata key `{}.{name}` is missing", self.architecture.name));
        }
        found
    }

    /// Copies a required whole number.
    fn copy(&mut self, name: &str, to: &str) -> Option<u64> {
        let size = self.size(name);
        let size = self.required(name, size)?;
        self.set(to, size);
        Some(size)
    }

    fn sizes(&mut self) {
        self.copy("block_count", "num_hidden_layers");
        self.copy("context_length", "max_position_embeddings");
        self.copy("embedding_length", "hidden_size");
        self.copy("feed_forward_length", "intermediate_size");
    }

    fn attention(&mut self) {
        let heads = self.copy("attention.head_count", "num_attention_heads");
        if let Some(heads) = self.size("attention.head_count_kv").or(heads) {
            self.set("num_key_value_heads", heads);
        }
        let eps = self.float("attention.layer_norm_rms_epsilon");
        if let Some(eps) = self.required("attention.layer_norm_rms_epsilon", eps) {
            self.set("rms_norm_eps", eps);
        }
        let width = self.config.get("hidden_size").and_then(Value::as_u64);
        let evenly = |(width, heads): (u64, u64)| (heads > 0 && width % heads == 0).then(|| width / heads);
        let head_dim = self.size("attention.key_length").or_else(|| width.zip(heads).and_then(evenly));
        let Some(head_dim) = head_dim else { return };
        self.set("head_dim", head_dim);
        let widths = ["attention.value_length", "rope.dimension_count", "rope.dimension_count_swa"];
        for name in widths.into_iter().chain(["attention.key_length_swa", "attention.value_length_swa"]) {
            if let Some(other) = self.size(name).filter(|other| *other != head_dim) {
                let key = self.key(name);
                self.problems.push(format!("metadata key `{key}` is {other}: heads of width {head_dim} need the same"));
            }
        }
    }

    /// Windows, soft caps and the scores' scale; what is derived where they are not told.
    fn windows_and_caps(&mut self) -> Map<String, Value> {
        let mut derived = Map::new();
        let window = self.size("attention.sliding_window");
        let positions = self.config.get("max_position_embeddings").and_then(Value::as_u64).unwrap_or_default();
        match (self.architecture.name, window) {
            ("phi3", Some(0)) => self.set("sliding_window", Value::Null),
            (_, None | Some(0)) => {}
            ("gemma2" | "gemma3" | "phi3", Some(window)) => self.set("sliding_window", window),
            ("llama", Some(window)) => {
                self.set("model_type", "mistral");
                self.set("sliding_window", window);
            }
            (_, Some(window)) if window < positions => {
                let key = self.key("attention.sliding_window");
                self.problems.push(format!("metadata key `{key}` is {window}, but does not tell of which layers"));
            }
            _ => {}
        }
        if !matches!(self.architecture.name, "gemma2" | "gemma3") {
            return derived;
        }
        self.pattern();
        for cap in ["attn_logit_softcapping", "final_logit_softcapping"] {
            if let Some(value) = self.float(cap) {
                self.set(cap, if value == 0.0 { Value::Null } else { value.into() });
            }
        }
        if let Some(scale) = self.float("attention.scale").filter(|scale| *scale != 0.0) {
            let scalar = scale.powi(-2);
            // The scale is an f32 of what was a whole number.
            let whole = (scalar - scalar.round()).abs() < 1e-5 * scalar;
            self.set("query_pre_attn_scalar", if whole { Value::from(scalar.round() as u64) } else { scalar.into() });
        } else if let Some(scalar) = self.usual_scalar() {
            derived.insert("query_pre_attn_scalar".to_owned(), scalar.into());
        }
        derived
    }

    /// What llama.cpp divides scores by the root of: the width of a head, but for the 27B models (told by their layers), whose
    /// queries were trained for hidden size / heads (`llama-model.cpp`, `LLM_TYPE_27B`).
    fn usual_scalar(&self) -> Option<u64> {
        let number = |key: &str| self.config.get(key).and_then(Value::as_u64).filter(|number| *number > 0);
        match (self.architecture.name, number("num_hidden_layers")?) {
            ("gemma2", 46) | ("gemma3", 62) => Some(number("hidden_size")? / number("num_attention_heads")?),
            _ => number("head_dim"),
        }
    }

    /// Which layers have a window: every n-th has none, or a truth value for each layer.
    fn pattern(&mut self) {
        let key = self.key("attention.sliding_window_pattern");
        if let Some(sliding) = self.metadata.flags(&key) {
            let kind = |sliding: bool| if sliding { "sliding_attention" } else { "full_attention" };
            self.set("layer_types", sliding.into_iter().map(kind).collect::<Vec<_>>());
            return;
        }
        let read = self.metadata.size(&key);
        match (self.architecture.name, self.note(read)) {
            (_, None) | ("gemma2", Some(2)) => {}
            ("gemma3", Some(pattern)) => self.set("sliding_window_pattern", pattern),
            (_, Some(pattern)) => {
                self.problems
                    .push(format!("metadata key `{key}` is {pattern}: layers of Gemma 2 alternate, which is 2"));
            }
        }
    }

    fn rope(&mut self) {
        // The default of llama.cpp and of all families that do not write it.
        let theta = self.float("rope.freq_base").unwrap_or(10_000.0);
        self.set("rope_theta", theta);
        if self.architecture.name == "gemma3" {
            let local = self.float("rope.freq_base_swa").unwrap_or(10_000.0);
            self.set("rope_local_base_freq", local);
        }
        let key = self.key("rope.scaling.type");
        let read = self.metadata.text(&key);
        let factor = self.float("rope.scaling.factor");
        match self.note(read) {
            None | Some("none" | "") => {}
            Some("linear") => {
                if let Some(factor) = self.required("rope.scaling.factor", factor) {
                    self.set("rope_scaling", json!({"rope_type": "linear", "factor": factor}));
                }
            }
            Some(other) => {
                let other: String = other.chars().take(40).collect();
                self.problems
                    .push(format!("metadata key `{key}` is `{other}`: only `linear` and `none` are understood"));
            }
        }
    }

    /// Special tokens: `eos_token_id` also has those that end a turn, by their keys or by their texts.
    fn tokens(&mut self) {
        let mut id = |name: &str| {
            let read = self.metadata.size(&format!("tokenizer.ggml.{name}_token_id"));
            self.note(read)
        };
        let (bos, pad) = (id("bos"), id("padding"));
        let mut stops: BTreeSet<u64> = ["eos", "eot", "eom"].iter().filter_map(|name| id(name)).collect();
        stops.extend(ends::of(self.metadata));
        let stops: Vec<u64> = stops.into_iter().collect();
        for (key, value) in [("bos_token_id", bos.map(Value::from)), ("pad_token_id", pad.map(Value::from))] {
            self.config.extend(value.map(|value| (key.to_owned(), value)));
        }
        if !stops.is_empty() {
            self.set("eos_token_id", stops);
        }
    }

    /// Refuses values that change what is computed, and keys of the architecture that were not asked for and may; a sentence
    /// about the other keys.
    fn others(&mut self) -> Vec<String> {
        for name in HARMLESS {
            self.key(name);
        }
        for (name, only) in ONLY {
            let key = self.key(name);
            let number = match self.metadata.size(&key) {
                Ok(size) => Ok(size.map(|size| size as f64)),
                Err(_) => self.metadata.float(&key),
            };
            if let Some(number) = self.note(number).filter(|number| *number != only) {
                self.problems.push(format!("metadata key `{key}` is {number}: only {only} is understood"));
            }
        }
        let key = self.key("attention.causal");
        let read = self.metadata.flag(&key);
        if self.note(read) == Some(false) {
            self.problems.push(format!("metadata key `{key}` is false: only causal attention is understood"));
        }
        let prefix = format!("{}.", self.architecture.name);
        let others = self.metadata.values.keys().filter(|key| key.starts_with(&prefix) && !self.taken.contains(*key));
        let decides = |key: &&String| {
            let name = &key[prefix.len()..];
            DECISIVE.iter().any(|part| name.contains(part)) && !self.metadata.is_nothing(key)
        };
        let (decisive, others): (Vec<_>, Vec<_>) = others.partition(decides);
        let decisive = decisive
            .into_iter()
            .map(|key| format!("metadata key `{key}` is not understood, and may change what is computed"));
        self.problems.extend(decisive);
        let list = others.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        (!others.is_empty())
            .then(|| format!("metadata keys that are not known are passed over: {list}"))
            .into_iter()
            .collect()
    }
}
