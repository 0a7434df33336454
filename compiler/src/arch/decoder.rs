//! What the decoders of all families have in common, and the few ways in which they differ.
//!
//! A layer of hidden size h computes, from x `[T, h]`,
//!
//! ```text
//! x = x + post(O attention(rope(Q n), rope(K n), V n))     n = rms_norm(x)
//! x = x + post(Down (f(Gate m) * Up m))                    m = rms_norm(x)
//! ```
//!
//! with `post` a norm where [`Decoder::post_norms`] says so, else nothing; with [`Decoder::qk_norms`], each head of
//! `Q n` and `K n` goes through a norm before the rotation.

mod config;
mod emit;
mod rotary;

use dwindle_schemes::Role;

pub use self::config::{ShapeDefaults, plain};
pub use self::rotary::Rotary;

use super::{Shape, TensorSpec};
use crate::graph::Activation;

/// Adds the tensor `{name}` to a list.
fn tensor(list: &mut Vec<TensorSpec>, name: String, shape: &[usize], role: Role) {
    list.push(TensorSpec { name, shape: shape.to_vec(), role });
}

/// A decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoder {
    /// Stands before all names: ``, `language_model.`.
    pub prefix: &'static str,
    /// Sizes.
    pub shape: Shape,
    /// ε of all norms.
    pub rms_norm_eps: f32,
    /// Rotation of queries and keys.
    pub rope: Rotary,
    /// That of layers with a window, where they have their own (Gemma 3).
    pub local_rope: Option<Rotary>,
    /// Of the feed-forward gate.
    pub activation: Activation,
    /// The head is the embedding.
    pub tied: bool,
    /// Queries, keys and values are rows of one matrix, and gate and up are (Phi 3).
    pub packed: bool,
    /// Queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Norms of each head of queries and keys (Gemma 3, Qwen 3).
    pub qk_norms: bool,
    /// Norms multiply by 1 + weight.
    pub norm_adds_one: bool,
    /// Norms after attention and after the feed-forward layer, besides those before (Gemma 2).
    pub post_norms: bool,
    /// Multiplies the embeddings.
    pub embedding_scale: Option<f32>,
    /// Multiplies the scores.
    pub attention_scale: f32,
    /// Soft cap of the scores.
    pub attention_soft_cap: Option<f32>,
    /// Soft cap of the logits.
    pub final_soft_cap: Option<f32>,
    /// Sliding window of each layer.
    pub windows: Vec<Option<usize>>,
}

impl Decoder {
    /// The norms of a layer, in the order of their use.
    fn norms(&self) -> impl Iterator<Item = &'static str> {
        let all: &[&str] = match self.post_norms {
            true => &[
                "input_layernorm",
                "post_attention_layernorm",
                "pre_feedforward_layernorm",
                "post_feedforward_layernorm",
            ],
            false => &["input_layernorm", "post_attention_layernorm"],
        };
        all.iter().copied()
    }

    /// Matrices that make queries, keys and values, with their rows.
    fn projections(&self, q: usize, kv: usize) -> Vec<(&'static str, usize)> {
        match self.packed {
            true => vec![("qkv_proj", q + 2 * kv)],
            false => vec![("q_proj", q), ("k_proj", kv), ("v_proj", kv)],
        }
    }

    /// Every tensor that the graphs use.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let Shape { hidden_size, vocab_size, intermediate_size, n_heads, n_kv_heads, head_dim, .. } = self.shape;
        let (q, kv) = (n_heads * head_dim, n_kv_heads * head_dim);
        let prefix = self.prefix;
        let mut list = Vec::new();
        let table = [vocab_size, hidden_size];
        tensor(&mut list, format!("{prefix}model.embed_tokens.weight"), &table, Role::Embedding);
        for layer in 0..self.shape.n_layers {
            let layer = format!("{prefix}model.layers.{layer}");
            for norm in self.norms() {
                tensor(&mut list, format!("{layer}.{norm}.weight"), &[hidden_size], Role::Vector);
            }
            for (name, rows) in self.projections(q, kv) {
                tensor(&mut list, format!("{layer}.self_attn.{name}.weight"), &[rows, hidden_size], Role::Linear);
                if self.qkv_bias {
                    tensor(&mut list, format!("{layer}.self_attn.{name}.bias"), &[rows], Role::Vector);
                }
            }
            if self.qk_norms {
                for name in ["q_norm", "k_norm"] {
                    tensor(&mut list, format!("{layer}.self_attn.{name}.weight"), &[head_dim], Role::Vector);
                }
            }
            let wide: &[(&str, usize)] = match self.packed {
                true => &[("gate_up_proj", 2 * intermediate_size)],
                false => &[("gate_proj", intermediate_size), ("up_proj", intermediate_size)],
            };
            for (name, rows) in wide {
                tensor(&mut list, format!("{layer}.mlp.{name}.weight"), &[*rows, hidden_size], Role::Linear);
            }
            tensor(&mut list, format!("{layer}.self_attn.o_proj.weight"), &[hidden_size, q], Role::Linear);
            tensor(&mut list, format!("{layer}.mlp.down_proj.weight"), &[hidden_size, intermediate_size], Role::Linear);
        }
        tensor(&mut list, format!("{prefix}model.norm.weight"), &[hidden_size], Role::Vector);
        if !self.tied {
            tensor(&mut list, format!("{prefix}lm_head.weight"), &table, Role::Head);
        }
        list
    }

    /// A tied head that was saved nevertheless.
    pub fn ignored(&self, name: &str) -> bool {
        self.tied && name.strip_prefix(self.prefix) == Some("lm_head.weight")
    }
}
