//! A model that is a decoder and nothing else.

use dwindle_bundle::ImageInput;
use dwindle_schemes::Format;

use super::decoder::Decoder;
use super::{Family, Function, GraphOptions, Shape, TensorSpec, is_buffer};
use crate::graph::Graph;

/// A text model of any family.
pub struct TextModel {
    /// `model_type`.
    pub name: &'static str,
    /// All of it.
    pub decoder: Decoder,
    /// Keys of the configuration that nobody reads.
    pub unknown: Vec<String>,
}

impl Family for TextModel {
    fn name(&self) -> &'static str {
        self.name
    }

    fn shape(&self) -> &Shape {
        &self.decoder.shape
    }

    fn image(&self) -> Option<&ImageInput> {
        None
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        self.decoder.tensors()
    }

    fn ignored(&self, name: &str) -> bool {
        is_buffer(name) || self.decoder.ignored(name)
    }

    fn unknown_keys(&self) -> &[String] {
        &self.unknown
    }

    fn functions(&self) -> &'static [Function] {
        &[Function::Prefill, Function::Decode, Function::Score]
    }

    fn graph(&self, function: Function, formats: &dyn Fn(&str) -> Format, options: &GraphOptions) -> Graph {
        assert!(self.functions().contains(&function), "{} has no {}", self.name, function.name());
        self.decoder.graph(function, formats, options, None)
    }
}
