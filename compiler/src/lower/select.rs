//! Kernel selection: what each operation becomes.

use super::LowerError;
use super::schedule::{Bound, Location, Scheduler, is_view};
use crate::graph::{CallScalar, Dim, Node, NormKind, Op, ValueId};
use crate::kernels::spec::{
    CopyRowsSpec, Elementwise, ElementwiseSpec, KernelSpec, NormSpec, OverlayRowsSpec, PatchifySpec, View,
    WriteRowsSpec,
};
use dwindle_schemes::FloatType;

const CONSTANTS_ONLY: &str = "such rows can be joined in constants only; run the passes that fold constants";

impl Scheduler<'_, '_> {
    /// Lowers one node.
    pub(super) fn select(&mut self, node: &Node) -> Result<(), LowerError> {
        let Some(&result) = node.results.first() else {
            return Err(self.unsupported("it has no result"));
        };
        match &node.op {
            Op::Input { .. } | Op::State { .. } | Op::Weight(_) | Op::Call(_) => self.source(&node.op, result),
            Op::ConcatRows => self.concat_rows(node),
            Op::InterleaveRows => Err(self.unsupported(CONSTANTS_ONLY)),
            Op::Dequantize { format, .. } => Err(self.unsupported(format!(
                "{format} data is read only by matrix products and embeddings; run the passes that fuse it into them"
            ))),
            Op::Embed { scale, format, columns } => self.embed(node, *scale, *format, *columns),
            Op::MatMul(matmul) => self.matmul(node, matmul),
            Op::Norm(norm) => {
                let input = self.operand(node, 0)?;
                let (rows, heads) = (self.graph.ty(input).rows(), norm.heads.max(1));
                let columns = self.graph.ty(input).columns() / heads;
                let mut bindings = vec![self.read(input)?, self.vector(self.operand(node, 1)?, "weight", 0..columns)?];
                if norm.kind == NormKind::Layer {
                    bindings.push(self.vector(self.operand(node, 2)?, "bias", 0..columns)?);
                }
                let mut reusable = vec![input];
                if norm.residual {
                    let residual = self.operand(node, node.operands.len() - 1)?;
                    bindings.push(self.read(residual)?);
                    reusable.insert(0, residual);
                }
                bindings.push(self.write(result, &reusable)?);
                let spec = NormSpec { kind: norm.kind, rows, heads, columns, eps: norm.eps, residual: norm.residual };
                self.push(KernelSpec::Norm(spec), bindings)
            }
            Op::Add => {
                let broadcast = self.broadcasts(node)?;
                self.elementwise(node, Elementwise::Add { broadcast })
            }
            Op::Mul => {
                let broadcast = self.broadcasts(node)?;
                self.elementwise(node, Elementwise::Mul { broadcast })
            }
            Op::AddScalar { value } => self.elementwise(node, Elementwise::AddScalar(*value)),
            Op::Scale { factor } => self.elementwise(node, Elementwise::Scale(*factor)),
            Op::Activate(activation) => self.elementwise(node, Elementwise::Activate(*activation)),
            Op::SoftCap { cap } => self.elementwise(node, Elementwise::SoftCap(*cap)),
            Op::Glu(activation) => self.elementwise(node, Elementwise::Glu(*activation)),
            Op::Slice { start, .. } => self.view(self.operand(node, 0)?, result, |_| *start),
            Op::SliceRows { start, .. } => self.view(self.operand(node, 0)?, result, |stride| start * stride),
            Op::LastRow if is_view(self.graph, node) => self.view(self.operand(node, 0)?, result, |_| 0),
            Op::LastRow => {
                let input = self.operand(node, 0)?;
                let ty = self.graph.ty(input).clone();
                let (x, view) = self.rows_with_gaps(input)?;
                let y = self.write(result, &[])?;
                let spec = CopyRowsSpec { rows: ty.rows(), x: view, columns: ty.columns(), last: true };
                self.push(KernelSpec::CopyRows(spec), vec![x, y])
            }
            Op::Rope(rope) => self.rope(node, rope),
            Op::WriteRows { stride, offset } => self.write_rows(node, *stride, *offset),
            Op::Attention(attention) => self.attention(node, attention),
            Op::RopeWriteKv(kv) => self.rope_write_kv(node, kv),
            Op::OverlayRows => {
                let input = self.operand(node, 0)?;
                let image_rows = self.operand(node, 1)?;
                let ty = self.graph.ty(input).clone();
                let Dim::Fixed(image_row_count) = self.graph.ty(image_rows).rows() else {
                    return Err(self.unsupported("its image rows must be of a fixed number"));
                };
                let mut bindings = Vec::new();
                for index in 0..4 {
                    bindings.push(self.read(self.operand(node, index)?)?);
                }
                bindings.push(self.write(result, &[input])?);
                let spec = OverlayRowsSpec { rows: ty.rows(), columns: ty.columns(), image_rows: image_row_count };
                self.push(KernelSpec::OverlayRows(spec), bindings)
            }
            Op::Patchify { height, width, patch } => {
                let pixels = self.operand(node, 0)?;
                let Dim::Fixed(channels) = self.graph.ty(pixels).rows() else {
                    return Err(self.unsupported("its pixels must have a fixed number of channels"));
                };
                let bindings = vec![self.read(pixels)?, self.write(result, &[])?];
                let spec = PatchifySpec { channels, height: *height, width: *width, patch: *patch };
                self.push(KernelSpec::Patchify(spec), bindings)
            }
        }
    }

    /// Whether the second operand of an elementwise operation is one row for all.
    fn broadcasts(&self, node: &Node) -> Result<bool, LowerError> {
        let (a, b) = (self.operand(node, 0)?, self.operand(node, 1)?);
        Ok(self.graph.ty(a).shape.len() != self.graph.ty(b).shape.len())
    }

    fn elementwise(&mut self, node: &Node, function: Elementwise) -> Result<(), LowerError> {
        let result = node.results[0];
        let ty = self.graph.ty(result).clone();
        let mut bindings: Vec<Bound> = Vec::with_capacity(3);
        for &operand in &node.operands {
            bindings.push(self.read(operand)?);
        }
        // Gate and up shrink to half their columns: element i of the result would overwrite what element i / 2 reads.
        let reusable = match function {
            Elementwise::Glu(_) => &[],
            _ => &node.operands[..1],
        };
        bindings.push(self.write(result, reusable)?);
        // A vector is one row.
        let (rows, columns) = match ty.shape[..] {
            [Dim::Fixed(n)] => (Dim::Fixed(1), n),
            _ => (ty.rows(), ty.columns()),
        };
        self.push(KernelSpec::Elementwise(ElementwiseSpec { function, rows, columns }), bindings)
    }

    /// The rows of values that are computed, one after the other: each is written to its place.
    fn concat_rows(&mut self, node: &Node) -> Result<(), LowerError> {
        let result = node.results[0];
        let [Dim::Fixed(state_rows), Dim::Fixed(columns)] = self.graph.ty(result).shape[..] else {
            return Err(self.unsupported(CONSTANTS_ONLY));
        };
        let mut parts = Vec::with_capacity(node.operands.len());
        let mut computed = false;
        for &operand in &node.operands {
            computed |= !matches!(self.location(operand)?, Location::Constant(_));
            let Dim::Fixed(rows) = self.graph.ty(operand).rows() else {
                return Err(self.unsupported("rows can be joined only where their number is fixed"));
            };
            parts.push((operand, rows));
        }
        if !computed {
            return Err(self.unsupported(CONSTANTS_ONLY));
        }
        let sources: Vec<Bound> = parts.iter().map(|&(part, _)| self.read(part)).collect::<Result<_, _>>()?;
        let whole = self.write(result, &[])?;
        let mut offset = 0;
        for (source, (_, rows)) in sources.into_iter().zip(parts) {
            let (start, state) = (CallScalar::Tile, FloatType::F32);
            let spec = WriteRowsSpec { rows: Dim::Fixed(rows), columns, state_rows, start, stride: 0, offset, state };
            self.push(KernelSpec::WriteRows(spec), vec![source, whole])?;
            offset += rows;
        }
        Ok(())
    }

    /// `result` is what `value` holds from some element on, which depends on the elements from one row to the next.
    fn view(&mut self, value: ValueId, result: ValueId, start: impl Fn(usize) -> usize) -> Result<(), LowerError> {
        let (bound, View { stride, offset }) = self.rows_with_gaps(value)?;
        let float = match self.location(value)? {
            Location::Stored { float, .. } => float,
            _ => FloatType::F32,
        };
        self.locate(result, Location::Stored { bound, view: View { stride, offset: offset + start(stride) }, float });
        Ok(())
    }

    /// A value that may be a view.
    fn rows_with_gaps(&mut self, value: ValueId) -> Result<(Bound, View), LowerError> {
        match self.location(value)? {
            Location::Stored { bound, view, .. } => Ok((bound, view)),
            _ => Ok((self.read(value)?, View { stride: self.graph.ty(value).columns(), offset: 0 })),
        }
    }
}
