//! Gemma 2 (Gemma Team 2024, arXiv 2408.00118; transformers' `modeling_gemma2.py`): sliding windows in every other layer,
//! beginning with the first; norms before and after each block; soft caps of scores and logits.

use serde_json::{Map, Value};

use super::decoder::{Decoder, Rotary, plain};
use super::error::Error;
use super::gemma::{HIDDEN_ACT, SHAPE};
use super::keys::{ACTIVATIONS, Keys, Problems};
use super::text::TextModel;
use super::{Family, Shape};
use crate::graph::Activation;

/// Understands a configuration.
pub fn parse(config: &Map<String, Value>, _: Option<&Value>) -> Result<Box<dyn Family>, Error> {
    let mut keys = Keys::new("", config);
    let shape = Shape::read(&mut keys, &SHAPE);
    plain(&mut keys);
    // Only `hidden_activation` is used by transformers.
    keys.choice("hidden_act", Activation::GeluTanh, HIDDEN_ACT);
    keys.harmless(&["sliding_window_size"]);
    let window = Shape::window(&mut keys, 4096);
    let sliding = Shape::sliding_layers(&mut keys, shape.n_layers, |layer| layer.is_multiple_of(2));
    let decoder = Decoder {
        prefix: "",
        rms_norm_eps: keys.float("rms_norm_eps", 1e-6) as f32,
        rope: Rotary::read(&mut keys, 10000.0),
        local_rope: None,
        activation: keys.choice("hidden_activation", Activation::GeluTanh, ACTIVATIONS),
        tied: keys.flag("tie_word_embeddings", true),
        packed: false,
        qkv_bias: false,
        qk_norms: false,
        norm_adds_one: true,
        post_norms: true,
        embedding_scale: Some((shape.hidden_size as f64).sqrt() as f32),
        attention_scale: keys.float("query_pre_attn_scalar", 256.0).powf(-0.5) as f32,
        attention_soft_cap: keys.maybe_float("attn_logit_softcapping", Some(50.0)).map(|cap| cap as f32),
        final_soft_cap: keys.maybe_float("final_logit_softcapping", Some(30.0)).map(|cap| cap as f32),
        windows: sliding.into_iter().map(|sliding| sliding.then_some(window)).collect(),
        shape,
    };
    let mut problems = Problems::default();
    keys.finish(&mut problems);
    let unknown = problems.check("gemma2")?;
    Ok(Box::new(TextModel { name: "gemma2", decoder, unknown }))
}
