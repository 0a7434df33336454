//! Mistral (Jiang et al. 2023, arXiv 2310.06825; transformers' `modeling_mistral.py`): Llama with a window in all layers, or in
//! none.

use serde_json::{Map, Value};

use super::decoder::{Decoder, ShapeDefaults};
use super::error::Error;
use super::keys::{Keys, Problems};
use super::text::TextModel;
use super::{Family, Shape};

const SHAPE: ShapeDefaults = ShapeDefaults { head_dim: None, kv_heads_as_heads: false, positions: 131_072 };

/// Understands a configuration.
pub fn parse(config: &Map<String, Value>, _: Option<&Value>) -> Result<Box<dyn Family>, Error> {
    let mut keys = Keys::new("", config);
    let shape = Shape::read(&mut keys, &SHAPE);
    // Null says that there is none; an absent key is the class's 4096.
    let window = (!keys.is_null("sliding_window")).then(|| Shape::window(&mut keys, 4096));
    let windows = vec![window; shape.n_layers];
    let decoder = Decoder { windows, ..Decoder::read("", &mut keys, shape, 1e-6, false) };
    let mut problems = Problems::default();
    keys.finish(&mut problems);
    let unknown = problems.check("mistral")?;
    Ok(Box::new(TextModel { name: "mistral", decoder, unknown }))
}
