//! Qwen 2 and 2.5 (Yang et al. 2024, arXiv 2407.10671; transformers' `modeling_qwen2.py`): biases of queries, keys and
//! values; windows, where they are used, in the layers from `max_window_layers` on.

use serde_json::{Map, Value};

use super::decoder::{Decoder, plain};
use super::error::Error;
use super::keys::{ACTIVATIONS, Keys, Problems};
use super::text::TextModel;
use super::{Family, Shape};
use crate::graph::Activation;

/// Understands a configuration.
pub fn parse(config: &Map<String, Value>, _: Option<&Value>) -> Result<Box<dyn Family>, Error> {
    let mut keys = Keys::new("", config);
    let decoder = decoder("", &mut keys, false);
    let mut problems = Problems::default();
    keys.finish(&mut problems);
    problems.check("qwen2")?;
    Ok(Box::new(TextModel { name: "qwen2", decoder }))
}

/// The decoder that `keys` describe; `tied` is what holds where they do not say.
pub fn decoder(prefix: &'static str, keys: &mut Keys<'_>, tied: bool) -> Decoder {
    let shape = Shape::read(keys, None, 32768);
    plain(keys);
    keys.only("use_mrope", &Value::Bool(false));
    let window = Shape::window(keys, 4096);
    let windowed = keys.flag("use_sliding_window", false);
    let full_layers = keys.get("max_window_layers").map_or(Some(28), Value::as_u64);
    if full_layers.is_none() {
        keys.refuse("max_window_layers", "a whole number");
    }
    let full_layers = full_layers.unwrap_or_default();
    Decoder {
        prefix,
        rms_norm_eps: keys.float("rms_norm_eps", 1e-6) as f32,
        rope_theta: keys.float("rope_theta", 10000.0),
        activation: keys.choice("hidden_act", Activation::Silu, ACTIVATIONS),
        tied: keys.flag("tie_word_embeddings", tied),
        qkv_bias: true,
        norm_adds_one: false,
        post_norms: false,
        embedding_scale: None,
        attention_scale: (shape.head_dim as f64).powf(-0.5) as f32,
        attention_soft_cap: None,
        final_soft_cap: None,
        windows: (0..shape.n_layers).map(|i| (windowed && i as u64 >= full_layers).then_some(window)).collect(),
        shape,
    }
}
