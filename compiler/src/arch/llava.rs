//! LLaVA 1.5 (Liu et al. 2023, arXiv 2310.03744; transformers' `modeling_llava.py`): CLIP's features of the last layer but one,
//! without the class token, projected into the embeddings of a Llama decoder. One picture is one tile, its centre.

use dwindle_bundle::ImageInput;
use serde_json::{Map, Value};

use super::decoder::Decoder;
use super::error::Error;
use super::image_input;
use super::image_text::{ImageTextModel, Parts, image_token};
use super::keys::{Keys, Problems};
use super::projector::Projector;
use super::tower::{Kind, Tower};
use super::{Family, llama};

const NAME: &str = "llava";

/// Sizes of transformers' `LlamaConfig`, which published configurations of LLaVA 1.5 leave out of `text_config`.
const TEXT_DEFAULTS: [(&str, usize); 4] =
    [("hidden_size", 4096), ("intermediate_size", 11008), ("num_attention_heads", 32), ("num_hidden_layers", 32)];

/// Understands a configuration and that of the image processor, without which the pixels are not known.
pub fn parse(config: &Map<String, Value>, preprocessor: Option<&Value>) -> Result<Box<dyn Family>, Error> {
    let mut problems = Problems::default();
    let mut keys = Keys::new("", config);
    let Some(parts) = Parts::read(&mut keys, preprocessor) else {
        keys.harmless_all();
        keys.finish(&mut problems);
        return Err(problems.into_error(NAME));
    };
    keys.only("vision_feature_select_strategy", &Value::from("default"));
    // The number of image tokens, which follows from the tower; the vocabulary, which is the text model's.
    keys.harmless(&["ignore_index", "image_seq_length", "vocab_size"]);
    let mut text = parts.text.clone();
    for (key, default) in TEXT_DEFAULTS {
        text.entry(key).or_insert(default.into());
    }
    let mut text = Keys::new("text_config.", &text);
    text.only("model_type", &Value::from("llama"));
    // Either level ties, as in transformers 5: older versions wrote the flag into text_config only.
    let tied = keys.flag("tie_word_embeddings", false) | text.flag("tie_word_embeddings", false);
    let decoder = Decoder { tied, ..llama::decoder("language_model.", &mut text, tied) };
    text.finish(&mut problems);
    let tower = Tower::read(Kind::Clip, "vision_tower.vision_model.", parts.vision, &mut problems);
    let tower_layers = tower.layers(&mut keys, -2);
    let projector = Projector::read(&mut keys, tower.hidden_size, decoder.shape.hidden_size);
    let token = image_token(&mut keys, decoder.shape.vocab_size);
    let (tile, tiling) = image_input::center_crop(parts.preprocessor, tower.image_size, tower.grid(), &mut problems);
    keys.finish(&mut problems);
    let unknown = problems.check(NAME)?;
    let max_image_rows = tower.patches() as u32;
    let image = ImageInput { token, placeholder: String::new(), tile, tiling, max_image_rows, newline: None };
    Ok(Box::new(ImageTextModel { name: NAME, decoder, tower, tower_layers, projector, image, unknown }))
}
