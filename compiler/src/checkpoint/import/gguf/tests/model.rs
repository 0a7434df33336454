//! Golden checkpoints as llama.cpp's converter would write them (`convert_hf_to_gguf.py`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::writer::{Gguf, Meta, Storage};
use crate::checkpoint::fixture::golden;
use crate::checkpoint::{ModelDir, Source, convert};
use crate::error::Result;
use crate::progress::Silent;

/// All families, with llama.cpp's name of their architecture.
pub const FAMILIES: [(&str, &str); 9] = [
    ("gemma", "gemma"),
    ("gemma2", "gemma2"),
    ("gemma3_text", "gemma3"),
    ("qwen2", "qwen2"),
    ("qwen2_untied_sharded", "qwen2"),
    ("qwen3", "qwen3"),
    ("llama", "llama"),
    ("mistral", "llama"),
    ("phi3", "phi3"),
];

/// A golden checkpoint's configuration and tensors.
pub struct Golden {
    pub architecture: &'static str,
    pub config: Map<String, Value>,
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Golden {
    pub fn load(name: &str) -> Self {
        let (_, architecture) = FAMILIES.into_iter().find(|(family, _)| *family == name).unwrap();
        let source = Source::open(&golden(name)).unwrap();
        let tensors =
            source.tensors().map(|(_, view)| (view.name.to_owned(), (view.shape.to_vec(), view.to_f32().unwrap())));
        Golden { architecture, config: source.outline().config().clone(), tensors: tensors.collect() }
    }

    /// A model of random weights, wide enough for blocks of 256 values, and so with everything that llama.cpp's converter
    /// changes in a Llama.
    pub fn wide() -> Self {
        let mut golden = Golden::load("llama");
        for (key, size) in [
            ("hidden_size", 256),
            ("intermediate_size", 512),
            ("num_attention_heads", 4),
            ("num_key_value_heads", 2),
            ("head_dim", 64),
            ("num_hidden_layers", 1),
        ] {
            golden.config.insert(key.to_owned(), size.into());
        }
        let vocabulary = golden.size("vocab_size");
        golden.tensors.retain(|name, _| !name.starts_with("model.layers.") || name.starts_with("model.layers.0."));
        let mut state = 1_u64;
        for (name, (shape, values)) in &mut golden.tensors {
            *shape = match name.as_str() {
                _ if shape.len() == 1 => vec![256],
                "model.embed_tokens.weight" | "lm_head.weight" => vec![vocabulary, 256],
                name if name.contains("k_proj") || name.contains("v_proj") => vec![128, 256],
                name if name.contains("gate_proj") || name.contains("up_proj") => vec![512, 256],
                name if name.contains("down_proj") => vec![256, 512],
                _ => vec![256, 256],
            };
            let is_vector = shape.len() == 1;
            values.clear();
            values.resize_with(shape.iter().product(), || {
                // A sum of four uniform numbers is normal enough.
                let mut uniform = || {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 40) as f32 / (1 << 24) as f32 - 0.5
                };
                let normal = uniform() + uniform() + uniform() + uniform();
                if is_vector { 1.0 + 0.1 * normal } else { 0.1 * normal }
            });
        }
        golden
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.config.get(key).and_then(Value::as_f64)
    }

    fn size(&self, key: &str) -> usize {
        self.config[key].as_u64().unwrap() as usize
    }

    pub fn head_dim(&self) -> usize {
        let even = || self.size("hidden_size") / self.size("num_attention_heads");
        self.number("head_dim").map_or_else(even, |n| n as usize)
    }

    /// The file, matrices stored as `storage` where their rows are whole blocks, and as F16 elsewhere; vectors in F32.
    pub fn gguf(&self, storage: Storage) -> Gguf {
        let mut gguf = Gguf::default();
        self.metadata(&mut gguf);
        for (name, (shape, values)) in &self.tensors {
            let fits = shape.last().unwrap() % storage.block().0 == 0;
            let storage = match shape.len() {
                1 => Storage::F32,
                _ if fits => storage,
                _ => Storage::F16,
            };
            gguf.push(&self.theirs(name), shape, storage, &self.converted(name, shape, values));
        }
        if self.config.get("rope_scaling").is_some_and(|scaling| scaling["rope_type"] == "llama3") {
            let divisors = self.rope_divisors();
            gguf.push("rope_freqs.weight", &[divisors.len()], Storage::F32, &divisors);
        }
        gguf
    }

    fn metadata(&self, gguf: &mut Gguf) {
        let architecture = self.architecture;
        gguf.set("general.architecture", Meta::Text(architecture.to_owned()));
        let sizes = [
            ("block_count", "num_hidden_layers"),
            ("context_length", "max_position_embeddings"),
            ("embedding_length", "hidden_size"),
            ("feed_forward_length", "intermediate_size"),
            ("attention.head_count", "num_attention_heads"),
            ("attention.head_count_kv", "num_key_value_heads"),
            ("attention.sliding_window", "sliding_window"),
            ("attention.sliding_window_pattern", "sliding_window_pattern"),
            ("vocab_size", "vocab_size"),
        ];
        for (theirs, ours) in sizes {
            if let Some(size) = self.number(ours) {
                gguf.set(&format!("{architecture}.{theirs}"), Meta::U32(size as u32));
            }
        }
        let floats = [
            ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
            ("rope.freq_base", "rope_theta"),
            ("rope.freq_base_swa", "rope_local_base_freq"),
            ("attn_logit_softcapping", "attn_logit_softcapping"),
            ("final_logit_softcapping", "final_logit_softcapping"),
        ];
        for (theirs, ours) in floats {
            if let Some(number) = self.number(ours) {
                gguf.set(&format!("{architecture}.{theirs}"), Meta::F32(number as f32));
            }
        }
        if let Some(scalar) = self.number("query_pre_attn_scalar") {
            gguf.set(&format!("{architecture}.attention.scale"), Meta::F32(scalar.powf(-0.5) as f32));
        }
        if self.config.contains_key("head_dim") {
            for width in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
                gguf.set(&format!("{architecture}.{width}"), Meta::U32(self.head_dim() as u32));
            }
        }
    }

    /// The name that llama.cpp gives a tensor.
    fn theirs(&self, name: &str) -> String {
        let four_norms = matches!(self.architecture, "gemma2" | "gemma3");
        let table = [
            ("model.embed_tokens", "token_embd"),
            ("model.norm", "output_norm"),
            ("lm_head", "output"),
            ("model.layers.", "blk."),
            ("input_layernorm", "attn_norm"),
            ("post_attention_layernorm", if four_norms { "post_attention_norm" } else { "ffn_norm" }),
            ("pre_feedforward_layernorm", "ffn_norm"),
            ("post_feedforward_layernorm", "post_ffw_norm"),
            ("self_attn.qkv_proj", "attn_qkv"),
            ("self_attn.q_proj", "attn_q"),
            ("self_attn.k_proj", "attn_k"),
            ("self_attn.v_proj", "attn_v"),
            ("self_attn.o_proj", "attn_output"),
            ("self_attn.q_norm", "attn_q_norm"),
            ("self_attn.k_norm", "attn_k_norm"),
            ("mlp.gate_up_proj", "ffn_up"),
            ("mlp.gate_proj", "ffn_gate"),
            ("mlp.up_proj", "ffn_up"),
            ("mlp.down_proj", "ffn_down"),
        ];
        table.iter().fold(name.to_owned(), |name, (ours, theirs)| name.replace(ours, theirs))
    }

    /// The values that llama.cpp's converter writes.
    fn converted(&self, name: &str, shape: &[usize], values: &[f32]) -> Vec<f32> {
        if self.architecture.starts_with("gemma") && name.ends_with("norm.weight") {
            return values.iter().map(|value| value + 1.0).collect();
        }
        let rotated = name.contains("q_proj") || name.contains("k_proj");
        if self.architecture != "llama" || !rotated {
            return values.to_vec();
        }
        // [heads, 2, half, columns] to [heads, half, 2, columns].
        let columns = if shape.len() == 1 { 1 } else { shape[1] };
        let (heads, half) = (shape[0] / self.head_dim(), self.head_dim() / 2);
        let mut converted = Vec::new();
        for head in 0..heads {
            for at in 0..half {
                for part in 0..2 {
                    let row = (head * 2 + part) * half + at;
                    converted.extend_from_slice(&values[row * columns..(row + 1) * columns]);
                }
            }
        }
        converted
    }

    /// What Llama 3's scaling divides frequencies by.
    fn rope_divisors(&self) -> Vec<f32> {
        let scaling = |key: &str| self.config["rope_scaling"][key].as_f64().unwrap();
        let (factor, low, high) = (scaling("factor"), scaling("low_freq_factor"), scaling("high_freq_factor"));
        let positions = scaling("original_max_position_embeddings");
        let (theta, pairs) = (self.number("rope_theta").unwrap(), self.head_dim() / 2);
        let divisor = |pair: usize| {
            let wavelength = std::f64::consts::TAU * theta.powf(pair as f64 / pairs as f64);
            if wavelength < positions / high {
                1.0
            } else if wavelength > positions / low {
                factor
            } else {
                let smooth = (positions / wavelength - low) / (high - low);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        };
        (0..pairs).map(|pair| divisor(pair) as f32).collect()
    }
}

/// Writes the file into a directory of its own.
pub fn write(directory: &Path, gguf: &Gguf) -> PathBuf {
    let path = directory.join("model.gguf");
    std::fs::write(&path, gguf.bytes()).unwrap();
    path
}

/// What becomes of the file; its directory holds nothing else.
pub fn import(gguf: &Gguf) -> (tempfile::TempDir, Result<(ModelDir, Vec<String>)>) {
    let root = tempfile::tempdir().unwrap();
    let path = write(root.path(), gguf);
    let converted = convert(&path, &root.path().join("out"), &Silent);
    (root, converted.map(|(model, report)| (model, report.warnings)))
}
