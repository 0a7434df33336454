//! Qwen 3 (Yang et al. 2025, arXiv 2505.09388; transformers' `modeling_qwen3.py`): Qwen 2 with norms of queries and keys in the
//! place of biases.

use serde_json::{Map, Value};

use super::decoder::{Decoder, ShapeDefaults};
use super::error::Error;
use super::keys::{Keys, Problems};
use super::text::TextModel;
use super::{Family, Shape, qwen2};

const SHAPE: ShapeDefaults = ShapeDefaults { head_dim: Some(128), kv_heads_as_heads: false, positions: 32768 };

/// Understands a configuration.
pub fn parse(config: &Map<String, Value>, _: Option<&Value>) -> Result<Box<dyn Family>, Error> {
    let mut keys = Keys::new("", config);
    let shape = Shape::read(&mut keys, &SHAPE);
    let windows = qwen2::windows(&mut keys, shape.n_layers);
    let decoder = Decoder { qk_norms: true, windows, ..Decoder::read("", &mut keys, shape, 1e-6, false) };
    let mut problems = Problems::default();
    keys.finish(&mut problems);
    let unknown = problems.check("qwen3")?;
    Ok(Box::new(TextModel { name: "qwen3", decoder, unknown }))
}
