//! Llama 1 to 3 and what is built like them: Vicuna, TinyLlama, SmolLM (Touvron et al. 2023, arXiv 2302.13971; Llama Team
//! 2024, arXiv 2407.21783; transformers' `modeling_llama.py`).

use serde_json::{Map, Value};

use super::decoder::{Decoder, ShapeDefaults};
use super::error::Error;
use super::keys::{Keys, Problems};
use super::text::TextModel;
use super::{Family, Shape};

const SHAPE: ShapeDefaults = ShapeDefaults { head_dim: None, kv_heads_as_heads: true, positions: 2048 };

/// Understands a configuration.
pub fn parse(config: &Map<String, Value>, _: Option<&Value>) -> Result<Box<dyn Family>, Error> {
    let mut keys = Keys::new("", config);
    let decoder = decoder("", &mut keys, false);
    let mut problems = Problems::default();
    keys.finish(&mut problems);
    let unknown = problems.check("llama")?;
    Ok(Box::new(TextModel { name: "llama", decoder, unknown }))
}

/// The decoder that `keys` describe; `tied` is what holds where they do not say.
pub fn decoder(prefix: &'static str, keys: &mut Keys<'_>, tied: bool) -> Decoder {
    let shape = Shape::read(keys, &SHAPE);
    // Of SmolLM, whose training code pairs neighbours where this is true.
    keys.only("rope_interleaved", &Value::Bool(false));
    // Another spelling of max_position_embeddings in the first checkpoints; a mark of SmolLM's.
    keys.harmless(&["max_sequence_length", "is_llama_config"]);
    Decoder::read(prefix, keys, shape, 1e-6, tied)
}
