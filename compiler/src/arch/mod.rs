//! Families: from a configuration to graphs. The only place that knows them; `README.md` says how to add one.
//!
//! Configurations and tensor names are those of transformers 4, which [`checkpoint`](crate::checkpoint) makes of the
//! others. Graphs are plain: one operation a step of the published definition; passes fuse.

mod decoder;
mod error;
mod gemma;
mod gemma2;
mod gemma3_text;
mod image_input;
mod image_text;
mod keys;
mod llama;
mod llava;
mod llava_onevision;
mod mistral;
mod phi3;
mod projector;
mod qwen2;
mod qwen3;
mod text;
mod tower;
mod unknown;
mod weights;

use dwindle_bundle::ImageInput;
use dwindle_schemes::{Format, Role};
use serde_json::{Map, Value};

pub use self::error::{Error, Unsupported};
use crate::graph::Graph;

/// Makes a model of its configuration and, where it sees, that of its image processor.
type Parse = fn(&Map<String, Value>, Option<&Value>) -> Result<Box<dyn Family>, Error>;

/// All families, by `model_type`.
const FAMILIES: &[(&str, Parse)] = &[
    ("gemma", gemma::parse),
    ("gemma2", gemma2::parse),
    ("gemma3_text", gemma3_text::parse),
    ("llama", llama::parse),
    ("llava", llava::parse),
    ("llava_onevision", llava_onevision::parse),
    ("mistral", mistral::parse),
    ("phi3", phi3::parse),
    ("qwen2", qwen2::parse),
    ("qwen3", qwen3::parse),
];

/// The `model_type`s that are supported.
pub fn families() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|(name, _)| *name)
}

/// Understands a configuration, as [`ModelJson`](crate::checkpoint::ModelJson) holds it, and the contents of
/// `preprocessor_config.json` where there is one.
///
/// # Errors
/// The family, keys that are missing, or keys and values whose meaning is not implemented.
pub fn parse(
    model_type: &str,
    config: &Map<String, Value>,
    preprocessor: Option<&Value>,
) -> Result<Box<dyn Family>, Error> {
    let unknown = || Error::UnknownFamily {
        model_type: model_type.chars().take(60).collect(),
        known: families().collect::<Vec<_>>().join(", "),
    };
    let (_, parse) = FAMILIES.iter().find(|(name, _)| *name == model_type).ok_or_else(unknown)?;
    parse(config, preprocessor)
}

/// Whether a tensor of this name is a buffer that versions of transformers or trainers saved although it follows from the
/// configuration, or belongs to no language model: frequencies, masks, numbers of positions, states of quantizers, value heads.
fn is_buffer(name: &str) -> bool {
    const LAST: [&str; 6] = ["inv_freq", "cos_cached", "sin_cached", "masked_bias", "position_ids", "_extra_state"];
    let last = name.rsplit('.').next().unwrap_or(name);
    LAST.contains(&last)
        || name.ends_with(".attn.bias")
        || name.ends_with(".attention.bias")
        || name.starts_with("v_head.")
}

/// A model of a family, as its configuration describes it.
pub trait Family: Send + Sync {
    /// `model_type`.
    fn name(&self) -> &'static str;

    /// Sizes of the language model.
    fn shape(&self) -> &Shape;

    /// How pictures go in; `None` for text models. The placeholder is empty: it is the tokenizer's to know.
    fn image(&self) -> Option<&ImageInput>;

    /// Every tensor that the graphs use, with the shape it has in the checkpoint.
    fn tensors(&self) -> Vec<TensorSpec>;

    /// Whether a tensor may be in the checkpoint though no graph uses it.
    fn ignored(&self, name: &str) -> bool;

    /// Keys of the configuration that nobody reads, with dots where they are nested; they are taken to change nothing.
    fn unknown_keys(&self) -> &[String];

    /// The functions it has.
    fn functions(&self) -> &'static [Function];

    /// The graph of one of its [`functions`](Self::functions); `formats` tells how a matrix of
    /// [`tensors`](Self::tensors) is stored, by its name.
    ///
    /// # Panics
    /// The function is not one of the family's.
    fn graph(&self, function: Function, formats: &dyn Fn(&str) -> Format, options: &GraphOptions) -> Graph;
}

/// Sizes of a language model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Length of an embedding.
    pub hidden_size: usize,
    /// Rows of the embedding, columns of the logits.
    pub vocab_size: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Positions that the model was made for.
    pub max_position_embeddings: usize,
    /// Decoder layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// A tensor that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in the checkpoint.
    pub name: String,
    /// Shape in the checkpoint. A matrix `[out, …]` of more dimensions is quantized as `[out, product of the others]`.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: Role,
}

/// A function of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Function {
    /// Any number of tokens; logits of the last.
    Prefill,
    /// One token; its logits.
    Decode,
    /// Any number of tokens; logits of all.
    Score,
    /// One tile of a picture, into the state `image_rows`.
    EncodeImage,
}

impl Function {
    /// The graph's name.
    pub const fn name(self) -> &'static str {
        match self {
            Function::Prefill => "prefill",
            Function::Decode => "decode",
            Function::Score => "score",
            Function::EncodeImage => "encode_image",
        }
    }
}

/// What graphs are made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphOptions {
    /// Positions that the KV cache holds.
    pub context: usize,
    /// Return what is between the layers, too: `hidden.i`, `final_norm`, `tower.i`, `projected`.
    pub taps: bool,
}

#[cfg(test)]
pub(crate) mod golden;
#[cfg(test)]
mod tests;
