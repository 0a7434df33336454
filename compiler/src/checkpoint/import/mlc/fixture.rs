//! Writes a model directory as MLC would publish the model: the documented format, for tests.
//!
//! Uses nothing but what this crate makes public, so that the workspace's tests include this file, too.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dwindle_compiler::checkpoint::ModelDir;
use dwindle_schemes::{FloatType, Format};
use half::{bf16, f16};
use md5::{Digest, Md5};
use serde_json::{Map, Value, json};

/// A tensor as it is published.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    pub shape: Vec<usize>,
    pub dtype: &'static str,
    pub bytes: Vec<u8>,
}

/// Bytes of the largest shard of several tensors; one of half as many bytes that does not fit any more gets its own.
const SHARD: usize = 24 << 10;

/// Publishes `model`, which must be packed as `mode` says, in the directory `to`.
pub fn publish(model: &ModelDir, mode: &str, index: &str, to: &Path) {
    let chat = chat_config(&model.model.family, &model.model.config, mode);
    fs::write(to.join("mlc-chat-config.json"), format!("{chat:#}")).unwrap();
    for file in &model.model.files {
        // MLC knows the tokenizer's files alone.
        if file.name.starts_with("tokenizer") {
            fs::copy(model.path().join(&file.name), to.join(&file.name)).unwrap();
        }
    }
    write_entries(&entries(model, mode), index, to);
}

/// Writes shards and index.
pub fn write_entries(entries: &[Entry], index: &str, to: &Path) {
    let mut shards: Vec<(Vec<u8>, Vec<Value>)> = Vec::new();
    // Bytes before the first tensor make sure that nothing is aligned to anything.
    let empty = || (vec![0xaa_u8; 3], Vec::new());
    let mut pending = empty();
    let record = |entry: &Entry, offset: usize| {
        json!({"name": entry.name, "shape": entry.shape, "dtype": entry.dtype, "format": "f32-to-bf16",
            "nbytes": entry.bytes.len(), "byteOffset": offset})
    };
    for entry in entries {
        if pending.0.len() + entry.bytes.len() > SHARD {
            if entry.bytes.len() >= SHARD / 2 {
                shards.push((entry.bytes.clone(), vec![record(entry, 0)]));
                continue;
            }
            shards.push(std::mem::replace(&mut pending, empty()));
        }
        pending.1.push(record(entry, pending.0.len()));
        pending.0.extend(&entry.bytes);
    }
    shards.push(pending);
    let records = shards.iter().enumerate().map(|(at, (bytes, records))| {
        let name = format!("params_shard_{at}.bin");
        fs::write(to.join(&name), bytes).unwrap();
        let md5: String = Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"dataPath": name, "format": "raw-shard", "nbytes": bytes.len(), "records": records, "md5sum": md5})
    });
    let records: Vec<Value> = records.collect();
    let metadata = json!({"ParamSize": entries.len(), "ParamBytes": 0.0, "BitsPerParam": 4.5});
    fs::write(to.join(index), json!({"metadata": metadata, "records": records}).to_string()).unwrap();
}

/// All tensors of a model, under MLC's names and in its form.
pub fn entries(model: &ModelDir, mode: &str) -> Vec<Entry> {
    let family = model.model.family.as_str();
    wholes(model).iter().flat_map(|(name, parts)| published(model, family, mode, name, parts)).collect()
}

/// What MLC's loaders make of the checkpoint's tensors: its names, and the tensors that lie one below the other in each.
fn wholes(model: &ModelDir) -> BTreeMap<String, Vec<String>> {
    let family = model.model.family.as_str();
    let qkv = if family.starts_with("qwen") { "c_attn" } else { "qkv_proj" };
    let mut wholes = BTreeMap::new();
    for name in model.model.tensors.keys() {
        let decoder = name.contains("model.layers.");
        let with = |from: &str, to: &str| name.replacen(from, to, 1);
        let (whole, parts) = if decoder && family != "gemma3_text" && name.contains(".q_proj.") {
            (with(".q_proj.", &format!(".{qkv}.")), vec![name.clone(), with(".q_", ".k_"), with(".q_", ".v_")])
        } else if decoder && name.contains(".gate_proj.") {
            (with(".gate_proj.", ".gate_up_proj."), vec![name.clone(), with(".gate_", ".up_")])
        } else if decoder
            && (name.contains(".up_proj.")
                || family != "gemma3_text" && [".k_proj.", ".v_proj."].iter().any(|part| name.contains(part)))
        {
            continue;
        } else {
            (name.clone(), vec![name.clone()])
        };
        let whole = match family {
            "gemma3_text" => format!("language_model.{whole}"),
            "phi3" => whole
                .replace("model.embed_tokens.", "transformer.embd.")
                .replace("model.layers.", "transformer.h.")
                .replace("model.norm.", "transformer.norm.")
                .replace(".input_layernorm.", ".ln.")
                .replace(".self_attn.qkv_proj.", ".mixer.qkv_proj.")
                .replace(".self_attn.o_proj.", ".mixer.out_proj."),
            _ => whole,
        };
        wholes.insert(whole, parts);
    }
    wholes
}

fn published(model: &ModelDir, family: &str, mode: &str, name: &str, parts: &[String]) -> Vec<Entry> {
    let bytes = |suffix: &str| -> Vec<u8> {
        parts.iter().flat_map(|part| model.tensor(&format!("{part}{suffix}")).unwrap().bytes).copied().collect()
    };
    let infos: Vec<_> = parts.iter().map(|part| &model.model.tensors[part]).collect();
    let rows: usize = infos.iter().map(|info| info.shape[0]).sum();
    let base = name.strip_suffix(".weight");
    match infos[0].format {
        Format::Grouped(grouped) => {
            let columns = infos[0].shape[1..].iter().product();
            let embedding = ["embed_tokens.weight", "embd.weight"].iter().any(|end| name.ends_with(end));
            let transposed = mode.ends_with("_0") && !embedding;
            let form = |name: &str, width: usize, dtype, bytes: Vec<u8>| {
                let size = bytes.len() / (rows * width);
                let (shape, bytes) = match transposed {
                    true => (vec![width, rows], transpose(&bytes, rows, width, size)),
                    false => (vec![rows, width], bytes),
                };
                Entry { name: format!("{}.{name}", base.unwrap()), shape, dtype, bytes }
            };
            let scales = match (grouped.scale, mode.contains("bf16")) {
                (FloatType::F16, _) => ("float16", bytes(".scales")),
                (_, bfloat) => {
                    let bytes = bytes(".scales");
                    let values: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                    (if bfloat { "bfloat16" } else { "float32" }, halved(&values))
                }
            };
            vec![
                form("q_weight", grouped.words(columns), "uint32", bytes(".codes")),
                form("q_scale", grouped.groups(columns), scales.0, scales.1),
            ]
        }
        Format::Plain(_) => {
            let mut values: Vec<f32> =
                parts.iter().flat_map(|part| model.tensor(part).unwrap().to_f32().unwrap()).collect();
            if family.starts_with("gemma") && name.ends_with("norm.weight") {
                values.iter_mut().for_each(|value| *value += 1.0);
            }
            let shape = [&[rows], &infos[0].shape[1..]].concat();
            let (dtype, bytes) = match mode {
                _ if mode.contains("bf16") => ("bfloat16", halved(&values)),
                _ if mode.contains("f32") => ("float32", halved(&values)),
                _ => ("float16", values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()),
            };
            vec![Entry { name: name.to_owned(), shape, dtype, bytes }]
        }
    }
}

/// Upper halves of floats, rounded to nearest.
fn halved(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect()
}

fn transpose(bytes: &[u8], rows: usize, width: usize, size: usize) -> Vec<u8> {
    let element = |column: usize, row: usize| &bytes[(row * width + column) * size..][..size];
    (0..width).flat_map(|column| (0..rows).flat_map(move |row| element(column, row))).copied().collect()
}

/// `mlc-chat-config.json` of a model whose configuration is that of transformers 4: the keys that MLC's classes have.
pub fn chat_config(family: &str, config: &Map<String, Value>, mode: &str) -> Value {
    const SIZES: &[&str] = &[
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "head_dim",
        "rms_norm_eps",
        "vocab_size",
    ];
    let take = |config: &Map<String, Value>, keys: &[&str]| -> Map<String, Value> {
        let keys = SIZES.iter().chain(keys);
        keys.filter_map(|key| Some(((*key).to_owned(), config.get(*key)?.clone()))).collect()
    };
    let rope = |model: &mut Map<String, Value>, config: &Map<String, Value>| {
        let base = config.get("rope_theta").cloned().unwrap_or(json!(10000.0));
        model.insert("position_embedding_base".to_owned(), base);
    };
    let context = config.get("max_position_embeddings").cloned().unwrap_or(json!(-1));
    let mut model = match family {
        "gemma" => take(config, &["attention_bias", "hidden_activation"]),
        "gemma2" => take(
            config,
            &[
                "attention_bias",
                "hidden_activation",
                "attn_logit_softcapping",
                "final_logit_softcapping",
                "query_pre_attn_scalar",
                "sliding_window",
            ],
        ),
        "qwen2" => take(config, &["hidden_act", "rope_theta", "tie_word_embeddings"]),
        "qwen3" => take(config, &["hidden_act", "rope_theta", "tie_word_embeddings", "attention_bias"]),
        "llama" => take(config, &["tie_word_embeddings", "rope_scaling"]),
        "mistral" => take(config, &[]),
        "phi3" => take(config, &["model_type", "max_position_embeddings", "rope_scaling", "tie_word_embeddings"]),
        "gemma3_text" => {
            let mut text = take(config, &["attention_bias", "hidden_activation", "query_pre_attn_scalar"]);
            rope(&mut text, config);
            text.remove("vocab_size");
            text.insert("sliding_window_size".to_owned(), config["sliding_window"].clone());
            text.insert("rope_scaling".to_owned(), json!(null));
            text.insert("context_window_size".to_owned(), json!(8192));
            // What the class does not know by name.
            let keys = ["rope_local_base_freq", "sliding_window_pattern", "max_position_embeddings", "torch_dtype"];
            let kwargs: Map<_, _> = keys.iter().map(|key| ((*key).to_owned(), config[*key].clone())).collect();
            text.insert("kwargs".to_owned(), Value::Object(kwargs));
            let mut outer = Map::from_iter([("text_config".to_owned(), Value::Object(text))]);
            outer.insert("vocab_size".to_owned(), config["vocab_size"].clone());
            outer.insert("is_text_model".to_owned(), json!(true));
            outer
        }
        "llava" => {
            let part = |key: &str| config[key].as_object().unwrap();
            let mut text = take(part("text_config"), &["tie_word_embeddings", "rope_scaling"]);
            rope(&mut text, part("text_config"));
            text.insert("kwargs".to_owned(), json!({"model_type": "llama", "hidden_act": "silu"}));
            // That of the text model alone, which had no token for pictures.
            text.insert("vocab_size".to_owned(), json!(1));
            text.insert("context_window_size".to_owned(), part("text_config")["max_position_embeddings"].clone());
            let keys = ["image_size", "patch_size", "projection_dim", "num_channels", "layer_norm_eps"];
            let mut vision = take(part("vision_config"), &keys);
            vision.insert("vocab_size".to_owned(), json!(32000));
            vision.insert("kwargs".to_owned(), json!({"model_type": "clip_vision_model"}));
            let vocab = part("text_config")["vocab_size"].clone();
            Map::from_iter([
                ("image_token_index".to_owned(), config["image_token_index"].clone()),
                ("text_config".to_owned(), Value::Object(text)),
                ("vision_config".to_owned(), Value::Object(vision)),
                ("vocab_size".to_owned(), vocab),
                ("text_architecture".to_owned(), json!("LlamaForCausalLM")),
            ])
        }
        other => panic!("MLC has no {other} here"),
    };
    if matches!(family, "gemma" | "gemma2" | "llama" | "mistral" | "phi3") {
        rope(&mut model, config);
    }
    let context = if family == "gemma2" { config["sliding_window"].clone() } else { context };
    let window = if family == "mistral" { config["sliding_window"].clone() } else { json!(-1) };
    let running = json!({"context_window_size": context, "sliding_window_size": window, "prefill_chunk_size": 64,
        "tensor_parallel_shards": 1, "max_batch_size": 128});
    for (key, value) in running.as_object().unwrap() {
        if key != "sliding_window_size" || matches!(family, "mistral" | "llava" | "gemma3_text") {
            model.insert(key.clone(), value.clone());
        }
    }
    json!({
        "version": "0.1.0",
        "model_type": family,
        "quantization": mode,
        "vocab_size": model["vocab_size"],
        "context_window_size": model["context_window_size"],
        "sliding_window_size": window,
        "prefill_chunk_size": 64,
        "attention_sink_size": -1,
        "tensor_parallel_shards": 1,
        "model_config": model,
        "temperature": 0.7,
        "top_p": 0.95,
        "repetition_penalty": 1.0,
        "tokenizer_files": ["tokenizer.json", "tokenizer_config.json"],
        "conv_template": {"name": "LM", "stop_token_ids": [1, 2], "stop_str": []},
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": config.get("eos_token_id").cloned().unwrap_or(json!(2)),
    })
}
