//! Keys that the configurations of all decoders have.

use serde_json::Value;

use super::super::Shape;
use super::super::keys::{ACTIVATIONS, Keys};
use super::{Decoder, Rotary};
use crate::graph::Activation;

/// Greatest sizes that are accepted: beyond all published models, and no product of three overflows.
const MAX_WIDTH: usize = 1 << 17;
const MAX_VOCAB: usize = 1 << 22;
const MAX_POSITIONS: usize = 1 << 24;
const MAX_LAYERS: usize = 1 << 10;
const MAX_HEADS: usize = 1 << 10;
const MAX_HEAD_DIM: usize = 1 << 10;

/// What the class of a family's configuration says where a key is absent.
#[derive(Clone, Debug)]
pub struct ShapeDefaults {
    /// `head_dim`; without one it is hidden / heads.
    pub head_dim: Option<usize>,
    /// There are as many key and value heads as query heads; else the number is required.
    pub kv_heads_as_heads: bool,
    /// `max_position_embeddings`.
    pub positions: usize,
}

impl Shape {
    /// Reads the sizes.
    pub fn read(keys: &mut Keys<'_>, defaults: &ShapeDefaults) -> Shape {
        let hidden_size = keys.size("hidden_size", MAX_WIDTH);
        let n_heads = keys.size("num_attention_heads", MAX_HEADS);
        let n_kv_heads = match defaults.kv_heads_as_heads {
            true => keys.maybe_size("num_key_value_heads", MAX_HEADS).unwrap_or(n_heads),
            false => keys.size("num_key_value_heads", MAX_HEADS),
        };
        if !n_heads.is_multiple_of(n_kv_heads) {
            keys.refuse("num_key_value_heads", format!("a divisor of num_attention_heads, {n_heads}"));
        }
        let given = keys.maybe_size("head_dim", MAX_HEAD_DIM).or(defaults.head_dim);
        if given.is_none() && keys.is_fine() && !hidden_size.is_multiple_of(n_heads) {
            keys.refuse("hidden_size", format!("a multiple of num_attention_heads, {n_heads}"));
        }
        let head_dim = given.unwrap_or(hidden_size / n_heads);
        // Where a size is missing or wrong, what was computed from it says nothing.
        if !head_dim.is_multiple_of(2) && keys.is_fine() {
            keys.refuse("head_dim", format!("an even number, not {head_dim}"));
        }
        Shape {
            hidden_size,
            vocab_size: keys.size("vocab_size", MAX_VOCAB),
            intermediate_size: keys.size("intermediate_size", MAX_WIDTH),
            max_position_embeddings: keys
                .maybe_size("max_position_embeddings", MAX_POSITIONS)
                .unwrap_or(defaults.positions),
            n_layers: keys.size("num_hidden_layers", MAX_LAYERS),
            n_heads,
            n_kv_heads,
            head_dim,
        }
    }

    /// The window of a sliding layer, in tokens; `default` where the key is absent.
    pub fn window(keys: &mut Keys<'_>, default: usize) -> usize {
        keys.maybe_size("sliding_window", MAX_POSITIONS).unwrap_or(default)
    }

    /// Which layers have a window: what `layer_types` lists, or `rule` where there is no list.
    pub fn sliding_layers(keys: &mut Keys<'_>, n_layers: usize, rule: impl Fn(usize) -> bool) -> Vec<bool> {
        const KEY: &str = "layer_types";
        let Some(value) = keys.get(KEY) else { return (0..n_layers).map(rule).collect() };
        let is_sliding = |kind: &Value| match kind.as_str() {
            Some("full_attention") => Some(false),
            Some("sliding_attention") => Some(true),
            _ => None,
        };
        let layers = value.as_array().and_then(|list| list.iter().map(is_sliding).collect::<Option<Vec<_>>>());
        let layers = layers.filter(|layers| layers.len() == n_layers);
        if layers.is_none() {
            keys.refuse(KEY, format!("full_attention or sliding_attention for each of {n_layers} layers"));
        }
        layers.unwrap_or_default()
    }
}

impl Decoder {
    /// A decoder of the plain kind, as Llama's (Touvron et al. 2023, arXiv 2302.13971): what most families vary.
    /// `tied` is what holds where the keys do not say.
    pub fn read(prefix: &'static str, keys: &mut Keys<'_>, shape: Shape, eps: f64, tied: bool) -> Decoder {
        plain(keys);
        Decoder {
            prefix,
            rms_norm_eps: keys.float("rms_norm_eps", eps) as f32,
            rope: Rotary::read(keys, 10000.0),
            local_rope: None,
            activation: keys.choice("hidden_act", Activation::Silu, ACTIVATIONS),
            tied: keys.flag("tie_word_embeddings", tied),
            packed: false,
            qkv_bias: false,
            qk_norms: false,
            norm_adds_one: false,
            post_norms: false,
            embedding_scale: None,
            attention_scale: (shape.head_dim as f64).powf(-0.5) as f32,
            attention_soft_cap: None,
            final_soft_cap: None,
            windows: vec![None; shape.n_layers],
            shape,
        }
    }
}

/// Keys that may change the maths of any decoder, with the only values that do not.
pub fn plain(keys: &mut Keys<'_>) {
    keys.only("attention_bias", &Value::Bool(false));
    keys.only("mlp_bias", &Value::Bool(false));
    keys.only("use_bidirectional_attention", &Value::Bool(false));
    if keys.get("partial_rotary_factor").is_some_and(|factor| factor.as_f64() != Some(1.0)) {
        keys.refuse("partial_rotary_factor", "1: heads are rotated whole");
    }
    // The first layer with a window, where windows are used at all; of Qwen, whose configurations others were made from.
    if !keys.flag("use_sliding_window", false) {
        keys.harmless(&["max_window_layers"]);
    }
}
