//! Qwen 2 and 2.5 (Yang et al. 2024, arXiv 2407.10671; transformers' `modeling_qwen2.py`): biases of queries, keys and
//! values; windows, where they are used, in the layers from `max_window_layers` on.

use serde_json::{Map, Value};

use super::decoder::{Decoder, ShapeDefaults};
use super::error::Error;
use super::keys::{Keys, Problems};
use super::text::TextModel;
use super::{Family, Shape};

/// Understands a configuration.
pub fn parse(config: &Map<String, Value>, _: Option<&Value>) -> Result<Box<dyn Family>, Error> {
    let mut keys = Keys::new("", config);
    let decoder = decoder("", &mut keys, false);
    let mut problems = Problems::default();
    keys.finish(&mut problems);
    let unknown = problems.check("qwen2")?;
    Ok(Box::new(TextModel { name: "qwen2", decoder, unknown }))
}

const SHAPE: ShapeDefaults = ShapeDefaults { head_dim: None, kv_heads_as_heads: false, positions: 32768 };

/// The decoder that `keys` describe; `tied` is what holds where they do not say.
pub fn decoder(prefix: &'static str, keys: &mut Keys<'_>, tied: bool) -> Decoder {
    let shape = Shape::read(keys, &SHAPE);
    keys.only("use_mrope", &Value::Bool(false));
    let windows = windows(keys, shape.n_layers);
    Decoder { qkv_bias: true, windows, ..Decoder::read(prefix, keys, shape, 1e-6, tied) }
}

/// Windows of the layers: where they are used, those from `max_window_layers` on have one.
pub fn windows(keys: &mut Keys<'_>, n_layers: usize) -> Vec<Option<usize>> {
    // Null says that there is none; an absent key is the class's 4096.
    let is_null = keys.is_null("sliding_window");
    let window = Shape::window(keys, 4096);
    let windowed = keys.flag("use_sliding_window", false) && !is_null;
    let full_layers = keys.get("max_window_layers").map_or(Some(28), Value::as_u64);
    if full_layers.is_none() {
        keys.refuse("max_window_layers", "a whole number");
    }
    let full_layers = full_layers.unwrap_or_default();
    let sliding = Shape::sliding_layers(keys, n_layers, |layer| windowed && layer as u64 >= full_layers);
    sliding.into_iter().map(|sliding| (windowed && sliding).then_some(window)).collect()
}
