//! Phi 3 with a context of 4096 tokens (Abdin et al. 2024, arXiv 2404.14219; transformers' `modeling_phi3.py`): Llama whose
//! queries, keys and values are one matrix, and gate and up another.
//!
//! The longer contexts' `longrope` chooses frequencies by the length of the sequence, after which a cache would have to be
//! computed anew; it is refused by its key, as are rotations of a part of a head.

use serde_json::{Map, Value};

use super::decoder::{Decoder, ShapeDefaults};
use super::error::Error;
use super::keys::{Keys, Problems};
use super::text::TextModel;
use super::{Family, Shape};

const SHAPE: ShapeDefaults = ShapeDefaults { head_dim: None, kv_heads_as_heads: true, positions: 4096 };

/// Greatest window.
const MAX_WINDOW: usize = 1 << 24;

/// Understands a configuration.
pub fn parse(config: &Map<String, Value>, _: Option<&Value>) -> Result<Box<dyn Family>, Error> {
    let mut keys = Keys::new("", config);
    let shape = Shape::read(&mut keys, &SHAPE);
    // Dropout of training; the positions that longrope refers to.
    keys.harmless(&["embd_pdrop", "resid_pdrop", "original_max_position_embeddings"]);
    let windows = vec![keys.maybe_size("sliding_window", MAX_WINDOW); shape.n_layers];
    let decoder = Decoder { packed: true, windows, ..Decoder::read("", &mut keys, shape, 1e-5, false) };
    let mut problems = Problems::default();
    keys.finish(&mut problems);
    let unknown = problems.check("phi3")?;
    Ok(Box::new(TextModel { name: "phi3", decoder, unknown }))
}
