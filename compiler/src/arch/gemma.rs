//! Gemma 1 (Gemma Team 2024, arXiv 2403.08295; transformers' `modeling_gemma.py`).

use serde_json::{Map, Value};

use super::decoder::{Decoder, Rotary, ShapeDefaults, plain};
use super::error::Error;
use super::keys::{Keys, Problems};
use super::text::TextModel;
use super::{Family, Shape};
use crate::graph::Activation;

/// Spellings of the gate's activation: the first configurations said `gelu` and meant its tanh form, which transformers uses
/// whatever `hidden_act` says.
pub const HIDDEN_ACT: &[(&str, Activation)] =
    &[("gelu", Activation::GeluTanh), ("gelu_pytorch_tanh", Activation::GeluTanh)];

/// Defaults of Gemma 1 and 2.
pub const SHAPE: ShapeDefaults = ShapeDefaults { head_dim: Some(256), kv_heads_as_heads: false, positions: 8192 };

/// Understands a configuration.
pub fn parse(config: &Map<String, Value>, _: Option<&Value>) -> Result<Box<dyn Family>, Error> {
    let mut keys = Keys::new("", config);
    let shape = Shape::read(&mut keys, &SHAPE);
    plain(&mut keys);
    keys.choice("hidden_act", Activation::GeluTanh, HIDDEN_ACT);
    let activation = keys.choice("hidden_activation", Activation::GeluTanh, &HIDDEN_ACT[1..]);
    let decoder = Decoder {
        prefix: "",
        rms_norm_eps: keys.float("rms_norm_eps", 1e-6) as f32,
        rope: Rotary::read(&mut keys, 10000.0),
        local_rope: None,
        activation,
        tied: keys.flag("tie_word_embeddings", true),
        packed: false,
        qkv_bias: false,
        qk_norms: false,
        norm_adds_one: true,
        post_norms: false,
        embedding_scale: Some((shape.hidden_size as f64).sqrt() as f32),
        attention_scale: (shape.head_dim as f64).powf(-0.5) as f32,
        attention_soft_cap: None,
        final_soft_cap: None,
        windows: vec![None; shape.n_layers],
        shape,
    };
    let mut problems = Problems::default();
    keys.finish(&mut problems);
    let unknown = problems.check("gemma")?;
    Ok(Box::new(TextModel { name: "gemma", decoder, unknown }))
}
