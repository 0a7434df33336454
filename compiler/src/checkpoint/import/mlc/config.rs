//! `mlc-chat-config.json`: MLC's configuration in the spelling of transformers 4.
//!
//! Its `model_config` holds what MLC's own class of the family reads (`python/mlc_llm/model/*/*_model.py`); other keys of the
//! checkpoint's configuration are lost, but for nested ones, which are kept as `kwargs`. What is lost has the family's default.
//!
//! | MLC | here |
//! |---|---|
//! | `position_embedding_base` | `rope_theta` |
//! | `context_window_size`, unless it is -1 | `max_position_embeddings` |
//! | `sliding_window_size`, -1 for none | `sliding_window` |
//! | `gemma3` and `gemma3_text` with a `text_config` | `gemma3_text`, flat: MLC stores the language model only |
//! | `conv_template.stop_token_ids` | beside `eos_token_id` |

use std::path::Path;

use serde_json::{Map, Value, json};

use super::mode::Mode;
use super::template;
use crate::checkpoint::{config, json as json_file};
use crate::error::{Error, Result};

/// Name of the file.
pub const NAME: &str = "mlc-chat-config.json";

/// Keys of `model_config` that say how MLC runs a model, or where its class keeps the rest.
const RUNNING: [&str; 11] = [
    "active_vocab_size",
    "attention_sink_size",
    "disaggregation",
    "dtype",
    "is_text_model",
    "max_batch_size",
    "pipeline_parallel_stages",
    "prefill_chunk_size",
    "tensor_parallel_shards",
    "text_architecture",
    "weight_block_size",
];

/// What the file says.
#[derive(Debug)]
pub struct ChatConfig {
    /// `model_type` in transformers 4.
    pub family: String,
    /// The configuration in the spelling of transformers 4.
    pub config: Map<String, Value>,
    /// How weights are packed.
    pub mode: Mode,
    /// What MLC's runtime does to pictures, as `preprocessor_config.json` would say it.
    pub preprocessor: Option<Value>,
    /// How MLC's runtime samples, as `generation_config.json` would say it.
    pub generation: Value,
    /// How MLC's runtime makes prompts, in Jinja.
    pub template: Option<String>,
}

impl ChatConfig {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// A key is missing or not what it should be, or the quantization is none that can be imported.
    pub fn read(path: &Path) -> Result<Self> {
        let file = json_file::read_object(path)?;
        let text = |key: &str| match file.get(key) {
            Some(Value::String(text)) => Ok(text.as_str()),
            _ => Err(Error::json(path, format!("has no text `{key}`"))),
        };
        let (model_type, quantization) = (text("model_type")?, text("quantization")?);
        let Some(Value::Object(model)) = file.get("model_config") else {
            return Err(Error::json(path, "has no object `model_config`"));
        };
        let mode = Mode::find(quantization)?;
        let mut preprocessor = None;
        let mut model = model.clone();
        // MLC's runtime goes by the outer sizes, which users may change; they are the same at first.
        for key in ["context_window_size", "sliding_window_size", "vocab_size"] {
            if let Some(value) = file.get(key) {
                model.entry(key).or_insert_with(|| value.clone());
            }
        }
        let family = match model_type {
            "gemma3" | "gemma3_text" => {
                model = flat(path, model)?;
                "gemma3_text"
            }
            "llava" => {
                preprocessor = Some(llava(path, &mut model)?);
                "llava"
            }
            other => other,
        };
        translate(path, family, &mut model)?;
        for key in ["bos_token_id", "pad_token_id"] {
            if let Some(value) = file.get(key) {
                model.entry(key).or_insert_with(|| value.clone());
            }
        }
        model.insert("eos_token_id".to_owned(), stop_tokens(&file));
        let config = config::normalize(model)?;
        Ok(ChatConfig {
            family: family.to_owned(),
            config,
            mode,
            preprocessor,
            generation: generation(&file),
            template: file.get("conv_template").and_then(template::jinja),
        })
    }
}

/// Tokens that end an answer.
fn stop_tokens(file: &Map<String, Value>) -> Value {
    let template = file.get("conv_template").and_then(|template| template.get("stop_token_ids"));
    let mut stop = Vec::new();
    for value in [file.get("eos_token_id"), template].into_iter().flatten() {
        let ids = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        stop.extend(ids.iter().filter_map(Value::as_u64));
    }
    stop.sort_unstable();
    stop.dedup();
    json!(stop)
}

fn generation(file: &Map<String, Value>) -> Value {
    let mut generation = Map::from_iter([("do_sample".to_owned(), Value::Bool(true))]);
    for key in ["temperature", "top_p", "repetition_penalty"] {
        if let Some(value) = file.get(key).filter(|value| value.is_number()) {
            generation.insert(key.to_owned(), value.clone());
        }
    }
    Value::Object(generation)
}

/// An object within `model_config`, with what MLC's class did not know by name.
fn nested(path: &Path, model: &mut Map<String, Value>, key: &str) -> Result<Map<String, Value>> {
    let Some(Value::Object(mut map)) = model.remove(key) else {
        return Err(Error::json(path, format!("model_config has no object `{key}`")));
    };
    if let Some(Value::Object(kwargs)) = map.remove("kwargs") {
        for (key, value) in kwargs {
            map.entry(key).or_insert(value);
        }
    }
    Ok(map)
}

/// Gemma 3's configuration without the level that pictures would need.
fn flat(path: &Path, mut model: Map<String, Value>) -> Result<Map<String, Value>> {
    let mut text = nested(path, &mut model, "text_config")?;
    for key in ["context_window_size", "sliding_window_size", "vocab_size"] {
        if let Some(value) = model.remove(key) {
            text.entry(key).or_insert(value);
        }
    }
    Ok(text)
}

/// Translates the parts of LLaVA's configuration; what MLC's runtime does to pictures
/// (`python/mlc_llm/model/vision/image_processor.py`, with the filter of the checkpoint's own processor).
fn llava(path: &Path, model: &mut Map<String, Value>) -> Result<Value> {
    let mut text = nested(path, model, "text_config")?;
    let mut vision = nested(path, model, "vision_config")?;
    let architecture = model.get("text_architecture").and_then(Value::as_str).unwrap_or("LlamaForCausalLM");
    let family = architecture.trim_end_matches("ForCausalLM").to_ascii_lowercase();
    // The text model's own may be that of the model it was trained from, without the token for pictures.
    if let Some(size) = model.remove("vocab_size") {
        text.insert("vocab_size".to_owned(), size);
    }
    for key in ["context_window_size", "sliding_window_size"] {
        if let Some(value) = model.remove(key) {
            text.entry(key).or_insert(value);
        }
    }
    translate(path, &family, &mut text)?;
    vision.entry("model_type").or_insert("clip_vision_model".into());
    let Some(edge) = vision.get("image_size").and_then(Value::as_u64) else {
        return Err(Error::json(path, "model_config.vision_config has no number `image_size`"));
    };
    model.insert("text_config".to_owned(), Value::Object(text));
    model.insert("vision_config".to_owned(), Value::Object(vision));
    Ok(json!({
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": true,
        "size": {"shortest_edge": edge},
        "resample": 3,
        "do_center_crop": true,
        "crop_size": {"height": edge, "width": edge},
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }))
}

/// Gives the keys of one level their names in transformers 4, and drops those that say nothing about what is computed.
fn translate(path: &Path, family: &str, map: &mut Map<String, Value>) -> Result<()> {
    let positive = |value: Value| value.as_f64().is_none_or(|number| number > 0.0).then_some(value);
    if let Some(base) = map.remove("position_embedding_base").and_then(positive) {
        map.entry("rope_theta").or_insert(base);
    }
    if let Some(context) = map.remove("context_window_size").and_then(positive) {
        // MLC has no windows for Gemma 2 and ends its context where they would begin to matter; ours goes on.
        if family != "gemma2" || map.get("sliding_window") != Some(&context) {
            map.entry("max_position_embeddings").or_insert(context);
        }
    }
    let window = map.remove("sliding_window_size");
    match family {
        // An absent window would be the default of transformers' class.
        "mistral" if !map.contains_key("sliding_window") => {
            let window = window.ok_or_else(|| Error::json(path, "model_config has no `sliding_window_size`"))?;
            map.insert("sliding_window".to_owned(), positive(window).unwrap_or(Value::Null));
        }
        "gemma3_text" => {
            if let Some(window) = window.and_then(positive) {
                map.entry("sliding_window").or_insert(window);
            }
        }
        _ => {}
    }
    // 0 is what MLC's classes call absent.
    for key in ["head_dim", "num_key_value_heads", "original_max_position_embeddings"] {
        if map.get(key) == Some(&Value::from(0)) {
            map.remove(key);
        }
    }
    // MLC computes the tanh form for either, as the families do.
    if family.starts_with("gemma") && map.get("hidden_activation") == Some(&Value::from("gelu")) {
        map.insert("hidden_activation".to_owned(), "gelu_pytorch_tanh".into());
    }
    map.retain(|key, _| !RUNNING.contains(&key.as_str()));
    map.insert("model_type".to_owned(), family.into());
    Ok(())
}
