//! A model that sees: a vision tower, a projector and a decoder.

use dwindle_bundle::ImageInput;
use dwindle_schemes::{Format, Role};
use serde_json::{Map, Value};

use super::decoder::Decoder;
use super::keys::Keys;
use super::projector::Projector;
use super::tower::Tower;
use super::weights::Weights;
use super::{Family, Function, GraphOptions, Shape, TensorSpec, is_buffer};
use crate::graph::{CallScalar, Graph};

/// A model of any family that sees.
pub struct ImageTextModel {
    /// `model_type`.
    pub name: &'static str,
    /// Of texts.
    pub decoder: Decoder,
    /// Of pictures.
    pub tower: Tower,
    /// Layers of the tower that are used.
    pub tower_layers: usize,
    /// From one to the other.
    pub projector: Projector,
    /// How pictures go in. Where it has a newline, the last row of the state holds the tensor `image_newline`.
    pub image: ImageInput,
    /// Keys of the configurations that nobody reads.
    pub unknown: Vec<String>,
}

/// The configurations within the configuration of a model that sees.
pub struct Parts<'c> {
    /// `text_config`.
    pub text: &'c Map<String, Value>,
    /// `vision_config`.
    pub vision: &'c Map<String, Value>,
    /// `preprocessor_config.json`, without which the pixels are not known.
    pub preprocessor: &'c Map<String, Value>,
}

impl<'c> Parts<'c> {
    /// All of them, or a note of those that are missing.
    pub fn read(keys: &mut Keys<'c>, preprocessor: Option<&'c Value>) -> Option<Parts<'c>> {
        let (text, vision) = (keys.object("text_config"), keys.object("vision_config"));
        let preprocessor = preprocessor.and_then(Value::as_object);
        if preprocessor.is_none() {
            keys.missing("preprocessor_config.json");
        }
        Some(Parts { text: text?, vision: vision?, preprocessor: preprocessor? })
    }
}

/// The token that stands for a row of a picture.
pub fn image_token(keys: &mut Keys<'_>, vocab_size: usize) -> u32 {
    const KEY: &str = "image_token_index";
    let Some(value) = keys.get(KEY) else {
        keys.missing(KEY);
        return 0;
    };
    let token = value.as_u64().filter(|token| *token < vocab_size as u64);
    if token.is_none() {
        keys.refuse(KEY, format!("a token below vocab_size, {vocab_size}"));
    }
    token.unwrap_or(0) as u32
}

impl Family for ImageTextModel {
    fn name(&self) -> &'static str {
        self.name
    }

    fn shape(&self) -> &Shape {
        &self.decoder.shape
    }

    fn image(&self) -> Option<&ImageInput> {
        Some(&self.image)
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let mut list = self.tower.tensors(self.tower_layers);
        list.extend(self.projector.tensors());
        if self.image.newline.is_some() {
            let shape = vec![self.decoder.shape.hidden_size];
            list.push(TensorSpec { name: "image_newline".to_owned(), shape, role: Role::Vector });
        }
        list.extend(self.decoder.tensors());
        list
    }

    fn ignored(&self, name: &str) -> bool {
        is_buffer(name) || self.decoder.ignored(name) || self.tower.ignored(name, self.tower_layers)
    }

    fn unknown_keys(&self) -> &[String] {
        &self.unknown
    }

    fn functions(&self) -> &'static [Function] {
        &[Function::Prefill, Function::Decode, Function::Score, Function::EncodeImage]
    }

    fn graph(&self, function: Function, formats: &dyn Fn(&str) -> Format, options: &GraphOptions) -> Graph {
        match function {
            Function::EncodeImage => self.encode_image(formats, options),
            _ => self.decoder.graph(function, formats, options, Some(self.image.max_image_rows as usize)),
        }
    }
}

impl ImageTextModel {
    /// Leaves the projected features of one tile in the state, and the newline, where there is one, in its row.
    fn encode_image(&self, formats: &dyn Fn(&str) -> Format, options: &GraphOptions) -> Graph {
        let (hidden, patches) = (self.decoder.shape.hidden_size, self.tower.patches());
        let mut weights = Weights::new(Function::EncodeImage.name(), formats);
        let all = self.tower.features(&mut weights, self.tower_layers);
        let mut selected = all[self.tower_layers];
        if self.tower.class_rows() > 0 {
            selected = weights.graph.slice_rows(selected, self.tower.class_rows(), patches);
            weights.graph.label(selected, "selected");
        }
        let x = self.projector.project(&mut weights, selected);
        weights.graph.label(x, "projected");
        let newline = self.image.newline.map(|row| (row as usize, weights.rows("image_newline", 1, hidden)));
        let graph = &mut weights.graph;
        let state = graph.state("image_rows", self.image.max_image_rows as usize, hidden);
        let state = graph.write_rows("image_rows", state, x, CallScalar::Tile, patches, 0);
        if let Some((row, newline)) = newline {
            graph.write_rows("image_rows", state, newline, CallScalar::Tile, 0, row);
        }
        let mut outputs = Vec::new();
        if options.taps {
            outputs.extend(all.into_iter().enumerate().map(|(index, x)| (format!("tower.{index}"), x)));
            outputs.push(("projected".to_owned(), x));
        }
        weights.graph.finish(outputs)
    }
}
