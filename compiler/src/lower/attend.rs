//! Attention, and what writes into the states it reads.

use dwindle_schemes::FloatType;

use super::LowerError;
use super::schedule::{Bound, Location, Scheduler};
use super::weights::Source;
use crate::graph::{Attention, DType, Dim, Node, RopeWriteKv, ValueId};
use crate::kernels::spec::{
    AttentionMergeSpec, AttentionSpec, KernelSpec, RopeSpec, RopeWriteKvSpec, View, WriteRowsSpec,
};
use crate::target::TargetName;

/// Positions that one workgroup goes through when a single row attends to a long cache.
pub const SPLIT: usize = 256;

impl Scheduler<'_, '_> {
    /// `(q, k, v, position) -> out`: in one step, or split over the sequence and merged.
    pub(super) fn attention(&mut self, node: &Node, attention: &Attention) -> Result<(), LowerError> {
        let [q, k, v] = [self.operand(node, 0)?, self.operand(node, 1)?, self.operand(node, 2)?];
        if attention.causal {
            self.expect_position(self.operand(node, 3)?)?;
        }
        let (rows, kv_rows) = (self.graph.ty(q).rows(), self.graph.ty(k).rows());
        let Dim::Fixed(kv_rows) = kv_rows else {
            return Err(self.unsupported("its keys must lie in a state, or be of a fixed number of rows"));
        };
        if self.graph.ty(v).rows() != Dim::Fixed(kv_rows) {
            return Err(self.unsupported("its keys and values are of different numbers of rows"));
        }
        let (q_bound, q_view, q_type) = self.viewed(q)?;
        let (k_bound, k_view, k_type) = self.viewed(k)?;
        let (v_bound, v_view, v_type) = self.viewed(v)?;
        if q_type != FloatType::F32 || k_type != v_type {
            return Err(self.unsupported(format!("q is {q_type}, k {k_type}, v {v_type}")));
        }
        let (n_heads, head_dim) = (attention.n_heads, attention.head_dim);
        // A processor has few workers, and heads enough for them.
        let wants_split = self.shared.target.name != TargetName::Cpu && rows == Dim::Fixed(1) && attention.causal;
        let split = (wants_split && kv_rows > SPLIT).then_some(SPLIT);
        let spec = AttentionSpec {
            attention: attention.clone(),
            rows,
            kv_rows,
            q: q_view,
            k: k_view,
            v: v_view,
            kv_type: k_type,
            split,
        };
        let Some(split) = split else {
            let out = self.write(node.results[0], &[])?;
            return self.push(KernelSpec::Attention(spec), vec![q_bound, k_bound, v_bound, out]);
        };
        let max_splits = kv_rows.div_ceil(split);
        let partial = n_heads.checked_mul(max_splits).and_then(|n| n.checked_mul(head_dim.checked_add(2)?));
        let partial = partial.ok_or_else(|| self.unsupported("its partial results overflow"))?;
        let partials = self.temporary(rows, partial)?;
        self.push(KernelSpec::Attention(spec), vec![q_bound, k_bound, v_bound, partials])?;
        let out = self.write(node.results[0], &[])?;
        let merge = AttentionMergeSpec { rows, n_heads, head_dim, split, max_splits };
        self.push(KernelSpec::AttentionMerge(merge), vec![partials, out])
    }

    /// A value that a kernel can read with gaps between rows.
    fn viewed(&mut self, value: ValueId) -> Result<(Bound, View, FloatType), LowerError> {
        match self.location(value)? {
            Location::Stored { bound, view, float } => Ok((bound, view, float)),
            _ => {
                let view = View { stride: self.graph.ty(value).columns(), offset: 0 };
                Ok((self.read(value)?, view, FloatType::F32))
            }
        }
    }

    /// Inverse frequencies, packed once for all nodes that use the same ones.
    fn inverse_frequencies(&mut self, values: &[f32]) -> Result<Bound, LowerError> {
        self.weight(Source::Values(values.to_vec()), DType::F32, values.len(), values.len())
    }

    /// `(x, position) -> rotated`, in place where x dies.
    pub(super) fn rope(&mut self, node: &Node, rope: &crate::graph::Rope) -> Result<(), LowerError> {
        let input = self.operand(node, 0)?;
        self.expect_position(self.operand(node, 1)?)?;
        let ty = self.graph.ty(input).clone();
        let x = self.read(input)?;
        let frequencies = self.inverse_frequencies(&rope.inv_freq)?;
        let y = self.write(node.results[0], &[input])?;
        let spec = RopeSpec { rows: ty.rows(), n_heads: ty.columns() / rope.head_dim.max(1), rope: rope.clone() };
        self.push(KernelSpec::Rope(spec), vec![x, frequencies, y])
    }

    /// `(qkv, k state, v state, position) -> (q, k state, v state)`.
    pub(super) fn rope_write_kv(&mut self, node: &Node, kv: &RopeWriteKv) -> Result<(), LowerError> {
        let qkv = self.operand(node, 0)?;
        let (old_k, old_v) = (self.operand(node, 1)?, self.operand(node, 2)?);
        self.expect_position(self.operand(node, 3)?)?;
        let [q, new_k, new_v] = node.results[..] else {
            return Err(self.unsupported("it has three results"));
        };
        let (k_state, k, k_type) = self.state(old_k)?;
        let (v_state, v, v_type) = self.state(old_v)?;
        if k_type != v_type || k_state == v_state {
            return Err(self.unsupported("its keys and values must be two states of one type"));
        }
        let rows = self.graph.ty(qkv).rows();
        let x = self.read(qkv)?;
        let frequencies = self.inverse_frequencies(&kv.rope.inv_freq)?;
        let out = self.write(q, &[])?;
        let spec = RopeWriteKvSpec {
            rows,
            n_heads: kv.n_heads,
            n_kv_heads: kv.n_kv_heads,
            rope: kv.rope.clone(),
            state: k_type,
        };
        self.push(KernelSpec::RopeWriteKv(spec), vec![x, frequencies, out, k, v])?;
        self.update_state(k_state, old_k, new_k)?;
        self.update_state(v_state, old_v, new_v)
    }

    /// `(state, x, start) -> state`.
    pub(super) fn write_rows(&mut self, node: &Node, stride: usize, offset: usize) -> Result<(), LowerError> {
        let (old, input, start) = (self.operand(node, 0)?, self.operand(node, 1)?, self.operand(node, 2)?);
        let Location::Scalar(start) = self.location(start)? else {
            return Err(self.unsupported("its start must be a call scalar"));
        };
        let (state, bound, float) = self.state(old)?;
        let (ty, state_ty) = (self.graph.ty(input).clone(), self.graph.ty(old).clone());
        let Dim::Fixed(state_rows) = state_ty.rows() else {
            return Err(self.unsupported("its state has no fixed number of rows"));
        };
        let x = self.read(input)?;
        let spec =
            WriteRowsSpec { rows: ty.rows(), columns: ty.columns(), state_rows, start, stride, offset, state: float };
        self.push(KernelSpec::WriteRows(spec), vec![x, bound])?;
        self.update_state(state, old, node.results[0])
    }
}
