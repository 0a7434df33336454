//! The language model of Gemma 3 (Gemma Team 2025, arXiv 2503.19786; transformers' `modeling_gemma3.py`): Gemma 2 with norms
//! of queries and keys in the place of soft caps. Every sixth layer sees everything, the others a window; each kind has
//! its own base of the rotations.

use serde_json::{Map, Value};

use super::decoder::{Decoder, Rotary, ShapeDefaults, plain};
use super::error::Error;
use super::gemma::HIDDEN_ACT;
use super::keys::{ACTIVATIONS, Keys, Problems};
use super::text::TextModel;
use super::{Family, Shape};
use crate::graph::Activation;

const SHAPE: ShapeDefaults = ShapeDefaults { head_dim: Some(256), kv_heads_as_heads: false, positions: 131_072 };

/// Greatest `sliding_window_pattern`.
const MAX_PATTERN: usize = 1 << 10;

/// Understands a configuration.
pub fn parse(config: &Map<String, Value>, _: Option<&Value>) -> Result<Box<dyn Family>, Error> {
    let mut keys = Keys::new("", config);
    let shape = Shape::read(&mut keys, &SHAPE);
    plain(&mut keys);
    // Only `hidden_activation` is used by transformers.
    keys.choice("hidden_act", Activation::GeluTanh, HIDDEN_ACT);
    let window = Shape::window(&mut keys, 4096);
    let pattern = keys.maybe_size("sliding_window_pattern", MAX_PATTERN).unwrap_or(6);
    let local_rope = Rotary::unscaled(keys.float("rope_local_base_freq", 10000.0));
    let sliding = Shape::sliding_layers(&mut keys, shape.n_layers, |layer| !(layer + 1).is_multiple_of(pattern));
    let decoder = Decoder {
        prefix: "",
        rms_norm_eps: keys.float("rms_norm_eps", 1e-6) as f32,
        rope: Rotary::read(&mut keys, 1e6),
        local_rope: Some(local_rope),
        activation: keys.choice("hidden_activation", Activation::GeluTanh, ACTIVATIONS),
        tied: keys.flag("tie_word_embeddings", true),
        packed: false,
        qkv_bias: false,
        qk_norms: true,
        norm_adds_one: true,
        post_norms: true,
        embedding_scale: Some((shape.hidden_size as f64).sqrt() as f32),
        attention_scale: keys.float("query_pre_attn_scalar", 256.0).powf(-0.5) as f32,
        attention_soft_cap: keys.maybe_float("attn_logit_softcapping", None).map(|cap| cap as f32),
        final_soft_cap: keys.maybe_float("final_logit_softcapping", None).map(|cap| cap as f32),
        windows: sliding.into_iter().map(|sliding| sliding.then_some(window)).collect(),
        shape,
    };
    let mut problems = Problems::default();
    keys.finish(&mut problems);
    let unknown = problems.check("gemma3_text")?;
    Ok(Box::new(TextModel { name: "gemma3_text", decoder, unknown }))
}
