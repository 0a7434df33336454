//! The reference evaluator: plain loops that define what each operation means.
//!
//! Values are f32; dot products, means and softmax sums are accumulated in f64, so that a result is that of the formula,
//! rounded, and not of an order of summation. An operation with fused parts calls the functions of the plain operations.
//! Each call returns the outputs by name and, for tests, every labelled value.

mod attention;
mod elementwise;
mod image;
mod matmul;
mod norm;
mod tensor;
mod weights;

use std::collections::BTreeMap;
use std::sync::Arc;

use dwindle_bundle::Call;
use dwindle_schemes::Format;

pub use self::tensor::{Data, Tensor};
use super::print::{Names, mnemonic};
use super::*;

/// Why a graph could not be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{graph}, {place}: {why}")]
pub struct EvalError {
    /// Name of the function.
    pub graph: String,
    /// The node, as `%q = matmul`.
    pub place: String,
    /// What does not fit.
    pub why: String,
}

/// What a call computed.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// The graph's outputs by name, states included.
    pub named: BTreeMap<String, Arc<Tensor>>,
    /// Every labelled value, by label; the last of those that share one.
    pub labelled: BTreeMap<String, Arc<Tensor>>,
}

impl Outputs {
    /// The f32 elements of an output, or else of a labelled value; `None` where there is no such name.
    pub fn floats(&self, name: &str) -> Option<&[f32]> {
        self.named.get(name).or_else(|| self.labelled.get(name))?.floats().ok()
    }
}

/// Evaluates verified graphs over one model directory and keeps its states between calls.
pub struct Evaluator<'m> {
    tensors: &'m dyn Tensors,
    states: BTreeMap<String, Arc<Tensor>>,
    /// Values that depend on weights alone, by the text of the expression.
    constants: BTreeMap<String, Arc<Tensor>>,
}

impl<'m> Evaluator<'m> {
    /// All states are zero.
    pub fn new(tensors: &'m dyn Tensors) -> Self {
        Evaluator { tensors, states: BTreeMap::new(), constants: BTreeMap::new() }
    }

    /// Forgets all states, which are zero then.
    pub fn reset(&mut self) {
        self.states.clear();
    }

    /// A state's contents, once a call has written it.
    pub fn state(&self, name: &str) -> Option<&Tensor> {
        self.states.get(name).map(Arc::as_ref)
    }

    /// Gives a state its contents, `[rows, columns]`.
    pub fn set_state(&mut self, name: &str, state: Tensor) {
        self.states.insert(name.to_owned(), Arc::new(state));
    }

    /// Calls a function: `call.rows` rows from `call.position` on, or the tile `call.tile`.
    ///
    /// # Errors
    /// The node that cannot be computed: an input or tensor that is missing or has another type, rows beyond a state's
    /// end, a token beyond its table.
    pub fn run(&mut self, graph: &Graph, call: Call, inputs: &BTreeMap<&str, Tensor>) -> Result<Outputs, EvalError> {
        let names = Names::of(graph);
        let mut frame = Frame { graph, call, inputs, values: vec![None; graph.values.len()], keys: BTreeMap::new() };
        for node in &graph.nodes {
            self.node(&mut frame, node).map_err(|why| {
                let results: Vec<String> = node.results.iter().map(|&id| names.get(id)).collect();
                let place = format!("{} = {}", results.join(", "), mnemonic(&node.op));
                EvalError { graph: graph.name.clone(), place, why }
            })?;
        }
        let mut outputs = Outputs::default();
        for (name, id) in &graph.outputs {
            let Ok(value) = frame.value(*id) else { continue };
            if self.states.contains_key(name) {
                self.states.insert(name.clone(), value.clone());
            }
            outputs.named.insert(name.clone(), value.clone());
        }
        for (value, computed) in graph.values.iter().zip(frame.values) {
            if let (Some(label), Some(computed)) = (&value.label, computed) {
                outputs.labelled.insert(label.clone(), computed);
            }
        }
        Ok(outputs)
    }

    fn node(&mut self, frame: &mut Frame<'_>, node: &Node) -> Result<(), String> {
        let key = frame.key(node);
        let cached = key.as_ref().and_then(|key| self.constants.get(key).cloned());
        let results = match cached {
            Some(value) => vec![value],
            None => self.compute(frame, node)?.into_iter().map(Arc::new).collect(),
        };
        if results.len() != node.results.len() {
            return Err(format!("{} results, not {}", results.len(), node.results.len()));
        }
        if let Some(key) = key {
            self.constants.insert(key.clone(), results[0].clone());
            frame.keys.insert(node.results[0], key);
        }
        for (&id, value) in node.results.iter().zip(results) {
            frame.check(frame.graph.ty(id), &value)?;
            frame.values[id.index()] = Some(value);
        }
        Ok(())
    }

    fn compute(&mut self, frame: &Frame<'_>, node: &Node) -> Result<Vec<Tensor>, String> {
        let operand = |i: usize| -> Result<&Tensor, String> {
            let id = node.operands.get(i).ok_or_else(|| format!("operand {i} is missing"))?;
            frame.value(*id).map(Arc::as_ref)
        };
        let scalar = |i: usize| operand(i)?.scalar();
        let result = match &node.op {
            Op::Input { name } => {
                let input = frame.inputs.get(name.as_str()).ok_or_else(|| format!("no input `{name}` is given"))?;
                input.clone()
            }
            Op::State { name } => {
                let state = self.states.entry(name.clone()).or_insert_with(|| {
                    let shape = frame.shape(frame.graph.ty(node.results[0]));
                    Arc::new(Tensor::f32(shape.clone(), vec![0.0; shape.iter().product()]))
                });
                state.as_ref().clone()
            }
            Op::Weight(recipe) => weights::weight(self.tensors, recipe, frame.graph.ty(node.results[0]))?,
            Op::Call(CallScalar::Position) => Tensor::u32(Vec::new(), vec![frame.call.position]),
            Op::Call(CallScalar::Tile) => Tensor::u32(Vec::new(), vec![frame.call.tile]),
            Op::AddScalar { value } => elementwise::map(operand(0)?, |x| x + value)?,
            Op::ConcatRows => {
                let parts: Vec<&Tensor> = (0..node.operands.len()).map(operand).collect::<Result<_, _>>()?;
                tensor::concat_rows(&parts)?
            }
            Op::InterleaveRows => tensor::interleave_rows(operand(0)?, operand(1)?)?,
            Op::Dequantize { format, columns } => weights::dequantize(*format, *columns, operand(0)?, operand(1).ok())?,
            Op::Embed { scale, format, columns } => {
                let table = self.matrix(frame, *format, *columns, &node.operands[1..])?;
                matmul::embed(operand(0)?, &table, *scale)?
            }
            Op::MatMul(m) => self.matmul(frame, m, &node.operands)?,
            Op::Norm(n) => {
                let bias = if n.kind == NormKind::Layer { Some(operand(2)?) } else { None };
                let normed = norm::norm(n.kind, n.heads, n.eps, operand(0)?, operand(1)?, bias)?;
                match n.residual {
                    true => elementwise::add(&normed, operand(node.operands.len() - 1)?)?,
                    false => normed,
                }
            }
            Op::Add => elementwise::add(operand(0)?, operand(1)?)?,
            Op::Mul => elementwise::mul(operand(0)?, operand(1)?)?,
            Op::Scale { factor } => elementwise::map(operand(0)?, |x| x * factor)?,
            Op::Activate(activation) => elementwise::activate(operand(0)?, *activation)?,
            Op::SoftCap { cap } => elementwise::soft_cap(operand(0)?, *cap)?,
            Op::Slice { start, len } => tensor::slice_columns(operand(0)?, *start, *len)?,
            Op::SliceRows { start, len } => tensor::slice_rows(operand(0)?, *start, *len)?,
            Op::LastRow => tensor::last_row(operand(0)?)?,
            Op::Rope(rope) => attention::rope(operand(0)?, scalar(1)?, rope)?,
            Op::WriteRows { stride, offset } => {
                attention::write_rows(operand(0)?, operand(1)?, scalar(2)?, *stride, *offset)?
            }
            Op::Attention(a) => attention::attention(a, operand(0)?, operand(1)?, operand(2)?, scalar(3)?)?,
            Op::OverlayRows => image::overlay_rows(operand(0)?, operand(1)?, operand(2)?, operand(3)?)?,
            Op::Patchify { height, width, patch } => image::patchify(operand(0)?, *height, *width, *patch)?,
            Op::RopeWriteKv(kv) => {
                return attention::rope_write_kv(kv, operand(0)?, operand(1)?, operand(2)?, scalar(3)?);
            }
            Op::Glu(activation) => elementwise::glu(operand(0)?, *activation)?,
        };
        Ok(vec![result])
    }

    /// A product with everything fused into it, in the order that [`MatMul`] documents.
    fn matmul(&mut self, frame: &Frame<'_>, m: &MatMul, operands: &[ValueId]) -> Result<Tensor, String> {
        let stored = infer::stored_operands(m.format);
        let mut rest = operands.iter().skip(1 + stored);
        let mut next = || -> Result<&Tensor, String> {
            frame.value(*rest.next().ok_or("an operand is missing")?).map(Arc::as_ref)
        };
        let x = frame.value(*operands.first().ok_or("an operand is missing")?)?;
        let parts = operands.get(1..1 + stored).ok_or("an operand is missing")?;
        let w = self.matrix(frame, m.format, x.columns(), parts)?;
        let mut y = match m.rms_norm {
            Some(eps) => matmul::matmul(&norm::norm(NormKind::Rms, 1, eps, x, next()?, None)?, &w)?,
            None => matmul::matmul(x, &w)?,
        };
        if m.bias {
            y = elementwise::add(&y, next()?)?;
        }
        y = match m.activation {
            None => y,
            Some(Epilogue::Plain(activation)) => elementwise::activate(&y, activation)?,
            Some(Epilogue::Gated(activation)) => elementwise::glu(&y, activation)?,
        };
        if let Some(cap) = m.soft_cap {
            y = elementwise::soft_cap(&y, cap)?;
        }
        if m.residual {
            y = elementwise::add(&y, next()?)?;
        }
        Ok(y)
    }

    /// The f32 matrix that operands store, kept where they are constants.
    fn matrix(
        &mut self,
        frame: &Frame<'_>,
        format: Option<Format>,
        columns: usize,
        parts: &[ValueId],
    ) -> Result<Arc<Tensor>, String> {
        let values: Vec<&Arc<Tensor>> = parts.iter().map(|&id| frame.value(id)).collect::<Result<_, _>>()?;
        let first = values.first().ok_or("the matrix is missing")?;
        let Some(format) = format else { return Ok(Arc::clone(first)) };
        let op = Op::Dequantize { format, columns };
        let key = frame.key(&Node { op, operands: parts.to_vec(), results: Vec::new() });
        if let Some(value) = key.as_ref().and_then(|key| self.constants.get(key)) {
            return Ok(value.clone());
        }
        let value = Arc::new(weights::dequantize(format, columns, first, values.get(1).map(|v| v.as_ref()))?);
        if let Some(key) = key {
            self.constants.insert(key, value.clone());
        }
        Ok(value)
    }
}

/// The values of one call.
struct Frame<'c> {
    graph: &'c Graph,
    call: Call,
    inputs: &'c BTreeMap<&'c str, Tensor>,
    values: Vec<Option<Arc<Tensor>>>,
    /// Expressions of those values that depend on weights alone.
    keys: BTreeMap<ValueId, String>,
}

impl Frame<'_> {
    fn value(&self, id: ValueId) -> Result<&Arc<Tensor>, String> {
        self.values.get(id.index()).and_then(Option::as_ref).ok_or_else(|| format!("value {} is not computed", id.0))
    }

    fn shape(&self, ty: &Type) -> Vec<usize> {
        let size = |dim: &Dim| match dim {
            Dim::Fixed(n) => *n,
            Dim::Rows => self.call.rows as usize,
        };
        ty.shape.iter().map(size).collect()
    }

    fn check(&self, ty: &Type, value: &Tensor) -> Result<(), String> {
        let shape = self.shape(ty);
        match value.dtype() == ty.dtype && value.shape() == shape {
            true => Ok(()),
            false => Err(format!(
                "{}{:?} where {}{shape:?} is declared",
                value.dtype().name(),
                value.shape(),
                ty.dtype.name()
            )),
        }
    }

    /// The expression over weights that a node computes, if it is one.
    fn key(&self, node: &Node) -> Option<String> {
        let operands = || {
            let keys: Option<Vec<&str>> =
                node.operands.iter().map(|id| self.keys.get(id).map(String::as_str)).collect();
            keys.map(|keys| keys.join(", "))
        };
        match &node.op {
            Op::Weight(recipe) => Some(format!("{recipe} : {}", self.graph.ty(node.results[0]))),
            Op::AddScalar { value } => Some(format!("add_scalar {value:?} ({})", operands()?)),
            Op::SliceRows { start, len } => Some(format!("slice_rows {start} {len} ({})", operands()?)),
            Op::ConcatRows | Op::InterleaveRows => Some(format!("{} ({})", mnemonic(&node.op), operands()?)),
            Op::Dequantize { format, columns } => Some(format!("dequantize {format} {columns} ({})", operands()?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
