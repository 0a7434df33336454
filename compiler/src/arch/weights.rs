//! Weights in graphs: vectors, and matrices in the form they are stored in.

use dwindle_schemes::Format;

use crate::graph::build::Matrix;
use crate::graph::{Builder, DType, Type, ValueId};

/// A graph under construction, and how its matrices are stored.
pub struct Weights<'f> {
    /// The graph.
    pub graph: Builder,
    formats: &'f dyn Fn(&str) -> Format,
}

impl<'f> Weights<'f> {
    /// An empty graph of this name.
    pub fn new(name: &str, formats: &'f dyn Fn(&str) -> Format) -> Self {
        Weights { graph: Builder::new(name), formats }
    }

    /// A vector of n numbers, which is always f32.
    pub fn vector(&mut self, name: &str, n: usize) -> ValueId {
        self.graph.weight(name, Type::fixed(DType::F32, &[n]))
    }

    /// Rows that are always f32: position embeddings, a single row.
    pub fn rows(&mut self, name: &str, rows: usize, columns: usize) -> ValueId {
        self.graph.weight(name, Type::fixed(DType::F32, &[rows, columns]))
    }

    /// The f32 matrix `[n, k]` of this name, however it is stored.
    pub fn matrix(&mut self, name: &str, n: usize, k: usize) -> ValueId {
        let format = (self.formats)(name);
        let parts = match format {
            Format::Plain(float) => vec![self.graph.weight(name, Type::fixed(float.into(), &[n, k]))],
            Format::Grouped(g) => vec![
                self.graph.weight(&format!("{name}.codes"), Type::fixed(DType::U32, &[n, g.words(k)])),
                self.graph.weight(&format!("{name}.scales"), Type::fixed(g.scale.into(), &[n, g.scales(k)])),
            ],
        };
        self.graph.dequantize(&Matrix { format, parts, columns: k })
    }

    /// `x wᵀ (+ b)` with w `{name}.weight` `[n, k]` and b `{name}.bias`.
    pub fn linear(&mut self, x: ValueId, name: &str, n: usize, k: usize, bias: bool) -> ValueId {
        let w = self.matrix(&format!("{name}.weight"), n, k);
        let y = self.graph.matmul(x, w);
        if !bias {
            return y;
        }
        let b = self.vector(&format!("{name}.bias"), n);
        self.graph.add(y, b)
    }

    /// Layer norm by `{name}.weight` and `{name}.bias`.
    pub fn layer_norm(&mut self, x: ValueId, name: &str, n: usize, eps: f32) -> ValueId {
        let weight = self.vector(&format!("{name}.weight"), n);
        let bias = self.vector(&format!("{name}.bias"), n);
        self.graph.layer_norm(x, weight, bias, eps)
    }
}
