//! Matrices: products and table look-ups, split into parts that fit a binding.

use std::ops::Range;

use dwindle_bundle::native::is_arranged;
use dwindle_schemes::{FloatType, Format, Grouped};

use super::LowerError;
use super::schedule::{Bound, Place, Scheduler};
use super::shared::binding_limit;
use super::weights::{Layout, Source, split_rows};
use crate::graph::{DType, Dim, Epilogue, MatMul, Node, ValueId};
use crate::kernels::spec::{EmbedSpec, KernelSpec, MatMulSpec};
use crate::target::TargetName;

/// Consecutive rows of a stored matrix, as a kernel binds them.
struct Part {
    rows: Range<usize>,
    /// Values, or codes and scales.
    bindings: Vec<Bound>,
}

/// How the tensors of a stored matrix `[n, k]` lie in device memory: type, columns, padded columns of each.
fn layout(format: Format, k: usize) -> Option<Vec<(DType, usize, usize)>> {
    match format {
        Format::Plain(FloatType::F32) => Some(vec![(DType::F32, k, k.checked_next_multiple_of(4)?)]),
        Format::Plain(FloatType::F16) => Some(vec![(DType::F16, k, k.checked_next_multiple_of(8)?)]),
        Format::Plain(FloatType::Bf16) => None,
        Format::Grouped(g) if g.scale == FloatType::Bf16 => None,
        Format::Grouped(g) => {
            let (words, scales) = (g.words(k), g.scales(k));
            Some(vec![(DType::U32, words, words), (g.scale.into(), scales, scales)])
        }
    }
}

impl Scheduler<'_, '_> {
    /// Packs the matrix that `stored` holds, in parts that fit a binding.
    fn parts(&mut self, format: Format, stored: &[ValueId], k: usize) -> Result<Vec<Part>, LowerError> {
        let layout = layout(format, k)
            .ok_or_else(|| self.unsupported(format!("no kernel reads {format}: quantize with a built-in scheme")))?;
        let Some(Dim::Fixed(n)) = stored.first().map(|&v| self.graph.ty(v).rows()) else {
            return Err(self.unsupported("its matrix has no fixed number of rows"));
        };
        let mut recipes = Vec::with_capacity(stored.len());
        for (&value, &(dtype, columns, _)) in stored.iter().zip(&layout) {
            let ty = self.graph.ty(value);
            if (ty.dtype, ty.columns(), ty.rows()) != (dtype, columns, Dim::Fixed(n)) {
                return Err(self.unsupported(format!("its matrix is {ty}, which is not {format} with {k} columns")));
            }
            recipes.push(self.constant(value, "matrix")?);
        }
        let row_bytes = layout.iter().map(|(dtype, _, padded)| dtype.bytes() as u64 * *padded as u64).max();
        let limit = binding_limit(self.shared.target);
        let ranges = split_rows(n, row_bytes.unwrap_or(0).max(1), limit).ok_or_else(|| LowerError::Limit {
            what: format!("two rows of `{}`", recipes[0]),
            limit: "max_storage_buffer_binding_size",
            needed: row_bytes.unwrap_or(0).saturating_mul(2),
            offered: limit,
            hint: ", and rows cannot be split",
        })?;
        let mut parts = Vec::with_capacity(ranges.len());
        for rows in ranges {
            let mut bindings = Vec::with_capacity(layout.len());
            for (recipe, &(dtype, columns, padded)) in recipes.iter().zip(&layout) {
                let source = Source::Recipe { recipe: recipe.clone(), rows: rows.clone() };
                let bound = match (self.shared.target.name, format, dtype) {
                    (TargetName::Cpu, Format::Grouped(Grouped { bits, .. }), DType::U32) if is_arranged(bits) => {
                        self.weight_in(source, dtype, columns, columns, Layout::Rows16Codes(bits))?
                    }
                    (TargetName::Cpu, ..) => self.weight_in(source, dtype, columns, columns, Layout::Rows16)?,
                    _ => self.weight(source, dtype, columns, padded)?,
                };
                if let Place::Weight(index) = bound.place {
                    self.shared.weights.mark_matrix(index);
                }
                bindings.push(bound);
            }
            parts.push(Part { rows, bindings });
        }
        Ok(parts)
    }

    /// `(tokens, table…) -> rows`.
    pub(super) fn embed(
        &mut self,
        node: &Node,
        scale: f32,
        format: Option<Format>,
        columns: usize,
    ) -> Result<(), LowerError> {
        let format = format.unwrap_or(Format::Plain(FloatType::F32));
        let tokens = self.operand(node, 0)?;
        let parts = self.parts(format, &node.operands[1..], columns)?;
        let rows = self.graph.ty(tokens).rows();
        let tokens = self.read(tokens)?;
        let y = self.write(node.results[0], &[])?;
        for Part { rows: part, bindings } in parts {
            let spec = EmbedSpec { format, rows, first_row: part.start, n: part.len(), columns, scale };
            let bindings = [vec![tokens], bindings, vec![y]].concat();
            self.push(KernelSpec::Embed(spec), bindings)?;
        }
        Ok(())
    }

    /// `(x, w…, norm weight?, bias?, residual?) -> y`.
    pub(super) fn matmul(&mut self, node: &Node, matmul: &MatMul) -> Result<(), LowerError> {
        let format = matmul.format.unwrap_or(Format::Plain(FloatType::F32));
        let stored = 1 + crate::graph::infer::stored_operands(matmul.format);
        let input = self.operand(node, 0)?;
        let (rows, k) = (self.graph.ty(input).rows(), self.graph.ty(input).columns());
        let mut rest = stored;
        let mut optional = |there: bool| -> Result<Option<ValueId>, LowerError> {
            if !there {
                return Ok(None);
            }
            rest += 1;
            self.operand(node, rest - 1).map(Some)
        };
        let norm_weight = optional(matmul.rms_norm.is_some())?;
        let bias = optional(matmul.bias)?;
        let residual = optional(matmul.residual)?;

        let parts = self.parts(format, node.operands.get(1..stored).unwrap_or_default(), k)?;
        let x = self.read(input)?;
        let norm_weight = norm_weight.map(|w| self.vector(w, "norm weight", 0..k)).transpose()?;
        let residual_bound = residual.map(|r| self.read(r)).transpose()?;
        let result = node.results[0];
        let out_columns = self.graph.ty(result).columns();
        let y = self.write(result, residual.as_slice())?;
        let gated = matches!(matmul.activation, Some(Epilogue::Gated(_)));
        for Part { rows: part, bindings: stored } in parts {
            let mut bindings = vec![x];
            bindings.extend(stored);
            bindings.extend(norm_weight);
            if let Some(bias) = bias {
                bindings.push(self.vector(bias, "bias", part.clone())?);
            }
            bindings.extend(residual_bound);
            bindings.push(y);
            let spec = MatMulSpec {
                format,
                rows,
                n: part.len(),
                k,
                rms_norm: matmul.rms_norm,
                bias: matmul.bias,
                activation: matmul.activation,
                soft_cap: matmul.soft_cap,
                residual: matmul.residual,
                out_columns,
                out_offset: if gated { part.start / 2 } else { part.start },
            };
            self.push(KernelSpec::MatMul(spec), bindings)?;
        }
        Ok(())
    }
}
