//! Builds graphs: one method an operation, types inferred at once.

use std::collections::BTreeMap;

use dwindle_schemes::Format;

use super::infer::infer;
use super::*;

/// Builds one graph.
///
/// The methods panic where types do not fit: a family that asks for such a node is wrong for every checkpoint, and
/// shapes that a checkpoint brings are checked before.
#[derive(Debug)]
pub struct Builder {
    graph: Graph,
    sources: BTreeMap<String, ValueId>,
}

/// A matrix as a graph refers to it: how it is stored, and the values that hold it.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The stored form.
    pub format: Format,
    /// The stored tensors: values, or codes and scales.
    pub parts: Vec<ValueId>,
    /// Columns without padding.
    pub columns: usize,
}

impl Builder {
    /// An empty graph of this name.
    pub fn new(name: &str) -> Self {
        Builder { graph: Graph { name: name.to_owned(), ..Graph::default() }, sources: BTreeMap::new() }
    }

    /// The graph, with these outputs besides the states that were written.
    pub fn finish(mut self, outputs: Vec<(String, ValueId)>) -> Graph {
        self.graph.outputs.splice(0..0, outputs);
        self.graph
    }

    /// Adds a node and returns its results.
    #[track_caller]
    pub fn node(&mut self, op: Op, operands: &[ValueId]) -> Vec<ValueId> {
        let types: Vec<&Type> = operands.iter().map(|&v| self.graph.ty(v)).collect();
        let types = infer(&op, &types).unwrap_or_else(|why| panic!("{op:?}: {why}"));
        let results: Vec<ValueId> = types.into_iter().map(|ty| self.graph.new_value(ty)).collect();
        self.graph.nodes.push(Node { op, operands: operands.to_vec(), results: results.clone() });
        results
    }

    #[track_caller]
    fn one(&mut self, op: Op, operands: &[ValueId]) -> ValueId {
        self.node(op, operands)[0]
    }

    /// A source is made once, however often it is asked for.
    fn source(&mut self, key: String, op: Op, ty: Option<Type>) -> ValueId {
        if let Some(&value) = self.sources.get(&key) {
            return value;
        }
        let value = match ty {
            Some(ty) => {
                let value = self.graph.new_value(ty);
                self.graph.nodes.push(Node { op, operands: Vec::new(), results: vec![value] });
                value
            }
            None => self.one(op, &[]),
        };
        self.sources.insert(key, value);
        value
    }

    /// Something the runtime writes before the call.
    pub fn input(&mut self, name: &str, ty: Type) -> ValueId {
        self.source(format!("input {name}"), Op::Input { name: name.to_owned() }, Some(ty))
    }

    /// A state's contents: as before the call, or as last written in this graph.
    pub fn state(&mut self, name: &str, rows: usize, columns: usize) -> ValueId {
        if let Some((_, value)) = self.graph.outputs.iter().find(|(output, _)| output == name) {
            return *value;
        }
        let ty = Type::fixed(DType::F32, &[rows, columns]);
        self.source(format!("state {name}"), Op::State { name: name.to_owned() }, Some(ty))
    }

    /// A tensor of the model directory, by its full name.
    pub fn weight(&mut self, name: &str, ty: Type) -> ValueId {
        self.source(format!("weight {name}"), Op::Weight(Recipe::Tensor(name.to_owned())), Some(ty))
    }

    /// Position of the call's first row, or the tile's index.
    pub fn call(&mut self, scalar: CallScalar) -> ValueId {
        self.source(format!("call {scalar:?}"), Op::Call(scalar), None)
    }

    /// Names a value, for people and for the outputs of tests.
    pub fn label(&mut self, value: ValueId, label: impl Into<String>) -> ValueId {
        self.graph.values[value.index()].label = Some(label.into());
        value
    }

    /// The f32 matrix `[n, k]` that stored tensors stand for.
    #[track_caller]
    pub fn dequantize(&mut self, matrix: &Matrix) -> ValueId {
        if matrix.format == Format::Plain(dwindle_schemes::FloatType::F32) {
            return matrix.parts[0];
        }
        self.one(Op::Dequantize { format: matrix.format, columns: matrix.columns }, &matrix.parts)
    }

    /// Rows of a table, times `scale`.
    #[track_caller]
    pub fn embed(&mut self, tokens: ValueId, table: ValueId, scale: f32) -> ValueId {
        let columns = self.graph.ty(table).columns();
        self.one(Op::Embed { scale, format: None, columns }, &[tokens, table])
    }

    /// `x wᵀ`.
    #[track_caller]
    pub fn matmul(&mut self, x: ValueId, w: ValueId) -> ValueId {
        self.one(Op::MatMul(MatMul::default()), &[x, w])
    }

    /// RMS norm.
    #[track_caller]
    pub fn rms_norm(&mut self, x: ValueId, weight: ValueId, eps: f32) -> ValueId {
        self.one(Op::Norm(Norm { kind: NormKind::Rms, heads: 1, eps, residual: false }), &[x, weight])
    }

    /// RMS norm of each of `heads` equal parts of a row.
    #[track_caller]
    pub fn rms_norm_heads(&mut self, x: ValueId, weight: ValueId, heads: usize, eps: f32) -> ValueId {
        self.one(Op::Norm(Norm { kind: NormKind::Rms, heads, eps, residual: false }), &[x, weight])
    }

    /// Layer norm.
    #[track_caller]
    pub fn layer_norm(&mut self, x: ValueId, weight: ValueId, bias: ValueId, eps: f32) -> ValueId {
        self.one(Op::Norm(Norm { kind: NormKind::Layer, heads: 1, eps, residual: false }), &[x, weight, bias])
    }

    /// Each element plus a constant.
    #[track_caller]
    pub fn add_scalar(&mut self, x: ValueId, value: f32) -> ValueId {
        self.one(Op::AddScalar { value }, &[x])
    }

    /// Sum; b may be one row.
    #[track_caller]
    pub fn add(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.one(Op::Add, &[a, b])
    }

    /// Product by elements; b may be one row.
    #[track_caller]
    pub fn mul(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.one(Op::Mul, &[a, b])
    }

    /// Each element times a constant.
    #[track_caller]
    pub fn scale(&mut self, x: ValueId, factor: f32) -> ValueId {
        self.one(Op::Scale { factor }, &[x])
    }

    /// An elementwise function.
    #[track_caller]
    pub fn activate(&mut self, x: ValueId, activation: Activation) -> ValueId {
        self.one(Op::Activate(activation), &[x])
    }

    /// `cap * tanh(x / cap)`.
    #[track_caller]
    pub fn soft_cap(&mut self, x: ValueId, cap: f32) -> ValueId {
        self.one(Op::SoftCap { cap }, &[x])
    }

    /// Columns `start .. start + len`.
    #[track_caller]
    pub fn slice(&mut self, x: ValueId, start: usize, len: usize) -> ValueId {
        self.one(Op::Slice { start, len }, &[x])
    }

    /// Rows `start .. start + len`.
    #[track_caller]
    pub fn slice_rows(&mut self, x: ValueId, start: usize, len: usize) -> ValueId {
        self.one(Op::SliceRows { start, len }, &[x])
    }

    /// The rows of all, one after the other.
    #[track_caller]
    pub fn concat_rows(&mut self, parts: &[ValueId]) -> ValueId {
        self.one(Op::ConcatRows, parts)
    }

    /// The last row.
    #[track_caller]
    pub fn last_row(&mut self, x: ValueId) -> ValueId {
        self.one(Op::LastRow, &[x])
    }

    /// Rotation of whole heads at the call's positions.
    #[track_caller]
    pub fn rope(&mut self, x: ValueId, rope: Rope) -> ValueId {
        let position = self.call(CallScalar::Position);
        self.one(Op::Rope(rope), &[x, position])
    }

    /// Writes rows into a state at `scalar * stride + offset`; the result is also the function's output of that name.
    #[track_caller]
    pub fn write_rows(
        &mut self,
        name: &str,
        state: ValueId,
        x: ValueId,
        scalar: CallScalar,
        stride: usize,
        offset: usize,
    ) -> ValueId {
        let start = self.call(scalar);
        let written = self.one(Op::WriteRows { stride, offset }, &[state, x, start]);
        match self.graph.outputs.iter_mut().find(|(output, _)| output == name) {
            Some((_, value)) => *value = written,
            None => self.graph.outputs.push((name.to_owned(), written)),
        }
        written
    }

    /// Attention over keys and values of the whole sequence.
    #[track_caller]
    pub fn attention(&mut self, q: ValueId, k: ValueId, v: ValueId, attention: Attention) -> ValueId {
        let position = self.call(CallScalar::Position);
        self.one(Op::Attention(attention), &[q, k, v, position])
    }

    /// Image rows in the place of embeddings.
    #[track_caller]
    pub fn overlay_rows(&mut self, x: ValueId, rows: ValueId, index: ValueId, weight: ValueId) -> ValueId {
        self.one(Op::OverlayRows, &[x, rows, index, weight])
    }

    /// Patches of a picture as rows.
    #[track_caller]
    pub fn patchify(&mut self, pixels: ValueId, height: usize, width: usize, patch: usize) -> ValueId {
        self.one(Op::Patchify { height, width, patch }, &[pixels])
    }
}
