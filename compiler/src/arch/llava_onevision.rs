//! LLaVA-OneVision (Li et al. 2024, arXiv 2408.03326; transformers' `modeling_llava_onevision.py`): SigLIP's features,
//! projected into the embeddings of a Qwen 2 decoder. One picture is several tiles, chosen by its aspect ratio.

use dwindle_bundle::{ImageInput, Tiling};
use dwindle_schemes::{Format, Role};
use serde_json::{Map, Value};

use super::decoder::Decoder;
use super::error::Error;
use super::image_input::{self, AnyRes};
use super::keys::{ACTIVATIONS, Keys, Problems};
use super::siglip::Siglip;
use super::weights::Weights;
use super::{Family, Function, GraphOptions, Shape, TensorSpec, qwen2};
use crate::graph::{Activation, CallScalar, Graph};

const NAME: &str = "llava_onevision";

/// Rows of pictures that a model may keep: a multiple of what the largest published grids need.
const MAX_IMAGE_ROWS: usize = 1 << 18;

struct LlavaOneVision {
    decoder: Decoder,
    tower: Siglip,
    /// Layers of the tower that are used.
    tower_layers: usize,
    projector_activation: Activation,
    projector_bias: bool,
    image: ImageInput,
    image_rows: usize,
}

/// Understands a configuration and that of the image processor, without which the pixels are not known.
pub fn parse(config: &Map<String, Value>, preprocessor: Option<&Value>) -> Result<Box<dyn Family>, Error> {
    let mut problems = Problems::default();
    let mut keys = Keys::new("", config);
    let (text, vision) = (keys.object("text_config"), keys.object("vision_config"));
    let tied = keys.flag("tie_word_embeddings", false);
    let projector_activation = keys.choice("projector_hidden_act", Activation::Gelu, ACTIVATIONS);
    let projector_bias = keys.flag("multimodal_projector_bias", true);
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
    let feature_layer = keys.get("vision_feature_layer").map_or(Some(-1), Value::as_i64);
    let token = keys.get("image_token_index").map(Value::as_u64);
    let Some(((text, vision), Some(preprocessor))) = text.zip(vision).map(|both| (both, preprocessor)) else {
        if preprocessor.is_none() {
            keys.missing("preprocessor_config.json");
        }
        keys.finish(&mut problems);
        return Err(problems.into_error(NAME));
    };
    let mut text_keys = Keys::new("text_config.", text);
    text_keys.only("model_type", &Value::from("qwen2"));
    let decoder = qwen2::decoder("language_model.", &mut text_keys, tied);
    text_keys.finish(&mut problems);
    let tower = Siglip::read("vision_tower.vision_model.", vision, &mut problems);
    let tower_layers = feature_layer.and_then(|index| {
        let layers = if index < 0 { tower.n_layers as i64 + 1 + index } else { index };
        usize::try_from(layers).ok().filter(|layers| *layers <= tower.n_layers)
    });
    if tower_layers.is_none() {
        keys.refuse("vision_feature_layer", format!("the number of one of {} layers", tower.n_layers));
    }
    let token = match token {
        Some(token) => token.filter(|token| *token < decoder.shape.vocab_size as u64),
        None => {
            keys.missing("image_token_index");
            Some(0)
        }
    };
    if token.is_none() {
        keys.refuse("image_token_index", format!("a token below vocab_size, {}", decoder.shape.vocab_size));
    }
    let empty = Map::new();
    let AnyRes { tile, pinpoints: processor } =
        image_input::read(preprocessor.as_object().unwrap_or(&empty), tower.image_size, tower.grid(), &mut problems);
    if processor.is_some_and(|processor| processor != pinpoints) {
        keys.refuse("image_grid_pinpoints", "the same as in preprocessor_config.json");
    }
    let grid = |size: &[u32; 2]| size.iter().map(|&n| (n as usize).div_ceil(tower.image_size)).product::<usize>();
    let newline = (1 + pinpoints.iter().map(grid).max().unwrap_or(0)) * tower.patches();
    if newline >= MAX_IMAGE_ROWS {
        keys.refuse("image_grid_pinpoints", format!("grids of fewer than {MAX_IMAGE_ROWS} features, not {newline}"));
    }
    keys.finish(&mut problems);
    problems.check(NAME)?;
    let image = ImageInput {
        token: token.unwrap_or(0) as u32,
        placeholder: String::new(),
        tile,
        tiling: Tiling::AnyRes { pinpoints, max_tiles: tiles },
        max_image_rows: newline as u32 + 1,
        newline: Some(newline as u32),
    };
    let tower_layers = tower_layers.unwrap_or(0);
    Ok(Box::new(LlavaOneVision {
        decoder,
        tower,
        tower_layers,
        projector_activation,
        projector_bias,
        image,
        image_rows: newline + 1,
    }))
}

impl Family for LlavaOneVision {
    fn name(&self) -> &'static str {
        NAME
    }

    fn shape(&self) -> &Shape {
        &self.decoder.shape
    }

    fn image(&self) -> Option<&ImageInput> {
        Some(&self.image)
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let (hidden, features) = (self.decoder.shape.hidden_size, self.tower.hidden_size);
        let mut list = self.tower.tensors(self.tower_layers);
        let mut add = |name: &str, shape: &[usize], role| {
            list.push(TensorSpec { name: name.to_owned(), shape: shape.to_vec(), role });
        };
        add("multi_modal_projector.linear_1.weight", &[hidden, features], Role::Projector);
        add("multi_modal_projector.linear_2.weight", &[hidden, hidden], Role::Projector);
        if self.projector_bias {
            add("multi_modal_projector.linear_1.bias", &[hidden], Role::Vector);
            add("multi_modal_projector.linear_2.bias", &[hidden], Role::Vector);
        }
        add("image_newline", &[hidden], Role::Vector);
        list.extend(self.decoder.tensors());
        list
    }

    fn ignored(&self, name: &str) -> bool {
        self.decoder.ignored(name) || self.tower.ignored(name, self.tower_layers)
    }

    fn functions(&self) -> &'static [Function] {
        &[Function::Prefill, Function::Decode, Function::Score, Function::EncodeImage]
    }

    fn graph(&self, function: Function, formats: &dyn Fn(&str) -> Format, options: &GraphOptions) -> Graph {
        match function {
            Function::EncodeImage => self.encode_image(formats, options),
            _ => self.decoder.graph(function, formats, options, Some(self.image_rows)),
        }
    }
}

impl LlavaOneVision {
    /// Leaves the projected features of one tile in the state, and the newline in its last row.
    fn encode_image(&self, formats: &dyn Fn(&str) -> Format, options: &GraphOptions) -> Graph {
        let (hidden, features) = (self.decoder.shape.hidden_size, self.tower.hidden_size);
        let mut weights = Weights::new(Function::EncodeImage.name(), formats);
        let all = self.tower.features(&mut weights, self.tower_layers);
        let bias = self.projector_bias;
        let x = weights.linear(all[self.tower_layers], "multi_modal_projector.linear_1", hidden, features, bias);
        let x = weights.graph.activate(x, self.projector_activation);
        let x = weights.linear(x, "multi_modal_projector.linear_2", hidden, hidden, bias);
        weights.graph.label(x, "projected");
        let newline = weights.rows("image_newline", 1, hidden);
        let graph = &mut weights.graph;
        let state = graph.state("image_rows", self.image_rows, hidden);
        let state = graph.write_rows("image_rows", state, x, CallScalar::Tile, self.tower.patches(), 0);
        graph.write_rows("image_rows", state, newline, CallScalar::Tile, 0, self.image_rows - 1);
        let mut outputs = Vec::new();
        if options.taps {
            outputs.extend(all.into_iter().enumerate().map(|(index, x)| (format!("tower.{index}"), x)));
            outputs.push(("projected".to_owned(), x));
        }
        weights.graph.finish(outputs)
    }
}
