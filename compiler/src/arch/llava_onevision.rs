//! LLaVA-OneVision (Li et al. 2024, arXiv 2408.03326; transformers' `modeling_llava_onevision.py`): SigLIP's features,
//! projected into the embeddings of a Qwen 2 decoder. One picture is several tiles, chosen by its aspect ratio.

use dwindle_bundle::{ImageInput, MAX_IMAGE_ROWS, Tiling};
use serde_json::{Map, Value};

use super::decoder::Decoder;
use super::error::Error;
use super::image_input::{self, AnyRes};
use super::image_text::{ImageTextModel, Parts, image_token};
use super::keys::{Keys, Problems};
use super::projector::Projector;
use super::tower::{Kind, Tower};
use super::{Family, qwen2};

const NAME: &str = "llava_onevision";

/// Understands a configuration and that of the image processor, without which the pixels are not known.
pub fn parse(config: &Map<String, Value>, preprocessor: Option<&Value>) -> Result<Box<dyn Family>, Error> {
    let mut problems = Problems::default();
    let mut keys = Keys::new("", config);
    let Some(parts) = Parts::read(&mut keys, preprocessor) else {
        keys.harmless_all();
        keys.finish(&mut problems);
        return Err(problems.into_error(NAME));
    };
    let tiles = match keys.get("vision_aspect_ratio").map_or(Some("anyres_max_9"), Value::as_str) {
        Some(ratio) => ratio.strip_prefix("anyres_max_").and_then(|n| n.parse::<u32>().ok()),
        None => None,
    };
    if tiles.is_none_or(|n| n == 0) {
        keys.refuse("vision_aspect_ratio", "anyres_max_ and a number of tiles");
    }
    keys.only("vision_feature_select_strategy", &Value::from("full"));
    keys.only("use_image_newline_parameter", &Value::Bool(true));
    keys.harmless(&["video_token_index", "ignore_index", "image_seq_length"]);
    let pinpoints = image_input::pinpoints(&mut keys);
    let mut text = Keys::new("text_config.", parts.text);
    text.only("model_type", &Value::from("qwen2"));
    // Either level ties, as in transformers 5: older versions wrote the flag into text_config only.
    let tied = keys.flag("tie_word_embeddings", false) | text.flag("tie_word_embeddings", false);
    let decoder = Decoder { tied, ..qwen2::decoder("language_model.", &mut text, tied) };
    text.finish(&mut problems);
    let tower = Tower::read(Kind::Siglip, "vision_tower.vision_model.", parts.vision, &mut problems);
    let tower_layers = tower.layers(&mut keys, -1);
    let projector = Projector::read(&mut keys, tower.hidden_size, decoder.shape.hidden_size);
    let token = image_token(&mut keys, decoder.shape.vocab_size);
    let AnyRes { tile, pinpoints: processor, background } =
        image_input::any_resolution(parts.preprocessor, tower.image_size, tower.grid(), &mut problems);
    if processor.is_some_and(|processor| processor != pinpoints) {
        keys.refuse("image_grid_pinpoints", "the same as in preprocessor_config.json");
    }
    let grid = |size: &[u32; 2]| size.iter().map(|&n| (n as usize).div_ceil(tower.image_size)).product::<usize>();
    let newline = (1 + pinpoints.iter().map(grid).max().unwrap_or(0)) * tower.patches();
    if newline >= MAX_IMAGE_ROWS as usize {
        keys.refuse("image_grid_pinpoints", format!("grids of fewer than {MAX_IMAGE_ROWS} features, not {newline}"));
    }
    keys.finish(&mut problems);
    let unknown = problems.check(NAME)?;
    let image = ImageInput {
        token,
        placeholder: String::new(),
        tile,
        tiling: Tiling::AnyRes { pinpoints, max_tiles: tiles, among_others: Some(background) },
        max_image_rows: newline as u32 + 1,
        newline: Some(newline as u32),
    };
    Ok(Box::new(ImageTextModel { name: NAME, decoder, tower, tower_layers, projector, image, unknown }))
}
