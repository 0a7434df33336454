//! What a kernel computes, with every constant that is baked into its text: the border between lowering and emission.
//!
//! Lowering chooses a [`KernelSpec`] for a node; emission turns it into WGSL. Equal specs give the same kernel, so a plan
//! holds one kernel for all layers of the same shape. Each spec lists its storage bindings in order, from binding 1;
//! binding 0 is always the uniform `Call { rows, position, tile }`.
//!
//! Layout in device buffers: activations are f32, row-major, without padding between rows unless a [`View`] says
//! otherwise. Vectors (norms, biases) are f32. A stored matrix `[n, k]` is row-major:
//! - `Plain(F32)`: rows padded with zeros to a multiple of 4 values;
//! - `Plain(F16)`: two values a `u32`, the first in the low half; rows padded with zeros to a multiple of 8 values;
//! - `Grouped`: codes as in the model directory (a group is whole words), scales `[n, groups]` (`[n, groups, 2]`,
//!   each with its zero or minimum, where groups store one) as f32, or as f16 with two a `u32`, counted through the whole
//!   matrix (no padding between rows).
//!
//! States are f32 or f16 (two values a `u32`), as [`FloatType`] says; their columns are even.

use dwindle_schemes::{FloatType, Format};

use crate::graph::{Activation, Attention, Dim, Epilogue, NormKind, Rope};

/// A kernel to emit.
#[derive(Clone, Debug, PartialEq)]
pub enum KernelSpec {
    /// Matrix product, or vector times matrix where `rows` is `Fixed(1)`.
    MatMul(MatMulSpec),
    /// Rows of a table.
    Embed(EmbedSpec),
    /// Normalisation of rows.
    Norm(NormSpec),
    /// Rotation of q and k, writing k and v into the cache.
    RopeWriteKv(RopeWriteKvSpec),
    /// Attention.
    Attention(AttentionSpec),
    /// Second step of attention that was split over the sequence.
    AttentionMerge(AttentionMergeSpec),
    /// Image rows between embeddings.
    OverlayRows(OverlayRowsSpec),
    /// Rows into a state.
    WriteRows(WriteRowsSpec),
    /// Windows of a picture as rows.
    Patchify(PatchifySpec),
    /// Everything elementwise that no other kernel took.
    Elementwise(ElementwiseSpec),
    /// Rotation alone (where k and v are not cached).
    Rope(RopeSpec),
    /// A view copied into rows without padding: slices and the last row.
    CopyRows(CopyRowsSpec),
}

/// Columns of a wider matrix: row t begins at element `t * stride + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Elements from one row to the next.
    pub stride: usize,
    /// First element of row 0.
    pub offset: usize,
}

/// `y = epilogue(prologue(x) wᵀ)`: [`MatMul`](crate::graph::MatMul) for some rows of w.
///
/// Bindings: x `[rows, k]`, w (values or codes), scales if grouped, norm weight `[k]` if `rms_norm`, bias `[n]` if asked,
/// residual `[rows, out_columns]` if asked, y `[rows, out_columns]`. The kernel writes columns `out_offset ..` of y (and reads these columns of the residual):
/// n of them, or n / 2 where gated. Bias is bound for this part only. The residual may be bound to the same range as y: each element is read before it is written, by the same invocation.
#[derive(Clone, Debug, PartialEq)]
pub struct MatMulSpec {
    /// How w is stored.
    pub format: Format,
    /// Rows of x: `Fixed(1)` chooses the vector kernel.
    pub rows: Dim,
    /// Rows of this part of w.
    pub n: usize,
    /// Columns of w, without padding.
    pub k: usize,
    /// ε of the RMS norm in the prologue.
    pub rms_norm: Option<f32>,
    /// Whether there is a bias.
    pub bias: bool,
    /// What is done with the sums.
    pub activation: Option<Epilogue>,
    /// Soft cap of the result, before the residual.
    pub soft_cap: Option<f32>,
    /// Whether there is a residual.
    pub residual: bool,
    /// Columns of y in all.
    pub out_columns: usize,
    /// First column that this part writes.
    pub out_offset: usize,
}

/// `y[t] = scale * table[tokens[t]]` for the tokens in `first_row .. first_row + n`; other rows of y are left alone.
///
/// Bindings: tokens `[rows]` u32, table (values or codes), scales if grouped, y `[rows, columns]`.
/// Tokens beyond the whole table are the runtime's business: it refuses them.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbedSpec {
    /// How the table is stored.
    pub format: Format,
    /// Tokens of a call.
    pub rows: Dim,
    /// Row of the whole table that this part begins with.
    pub first_row: usize,
    /// Rows of this part.
    pub n: usize,
    /// Columns without padding.
    pub columns: usize,
    /// Multiplies the rows.
    pub scale: f32,
}

/// [`Norm`](crate::graph::Norm) of rows, or of each head of each row.
///
/// Bindings: x, weight, bias if layer norm, residual if asked, y. y may be bound to the same range as x or residual.
#[derive(Clone, Debug, PartialEq)]
pub struct NormSpec {
    /// RMS or layer norm.
    pub kind: NormKind,
    /// Rows.
    pub rows: Dim,
    /// Heads of a row, which are normalised by themselves; 1 for whole rows.
    pub heads: usize,
    /// Columns of a head, entries of weight and bias.
    pub columns: usize,
    /// ε.
    pub eps: f32,
    /// Whether there is a residual.
    pub residual: bool,
}

/// [`RopeWriteKv`](crate::graph::RopeWriteKv).
///
/// Bindings: qkv `[rows, (n_heads + 2 n_kv_heads) * head_dim]`, inverse frequencies f32 `[head_dim / 2]` (packed with the weights), q out, k state, v state.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeWriteKvSpec {
    /// Rows.
    pub rows: Dim,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// The rotation; `inv_freq` is bound, not baked.
    pub rope: Rope,
    /// Type of the states.
    pub state: FloatType,
}

/// Attention.
///
/// Bindings: q, k, v, then out, or where `split` is set: partial results f32 `[rows, n_heads, splits, head_dim + 2]`
/// (the weighted sum not yet divided, the sum of exponentials, the greatest score), for an [`AttentionMergeSpec`].
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Heads, scale, soft cap, window, mask.
    pub attention: Attention,
    /// Query rows. `Fixed(1)` with a cache is decode.
    pub rows: Dim,
    /// Rows of k and v that exist: the capacity of the cache, or all rows without one.
    pub kv_rows: usize,
    /// Where q lies.
    pub q: View,
    /// Where k and v lie, in elements of `kv_type`.
    pub k: View,
    /// Where v lies.
    pub v: View,
    /// Type of k and v.
    pub kv_type: FloatType,
    /// Positions that one workgroup goes through, where the sequence is split over workgroups.
    pub split: Option<usize>,
}

/// Merges split attention. Bindings: partial results, out `[rows, n_heads * head_dim]`.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionMergeSpec {
    /// Query rows.
    pub rows: Dim,
    /// Query heads.
    pub n_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Positions a workgroup went through.
    pub split: usize,
    /// Most splits: `ceil(kv_rows / split)`; the stride of the partial results. Of them `ceil((position + rows) / split)` are there.
    pub max_splits: usize,
}

/// [`Op::OverlayRows`](crate::graph::Op::OverlayRows). Bindings: x, image rows (f32), index, weight, y. y may be bound to the same range as x.
#[derive(Clone, Debug, PartialEq)]
pub struct OverlayRowsSpec {
    /// Rows.
    pub rows: Dim,
    /// Columns.
    pub columns: usize,
    /// Rows of the image state.
    pub image_rows: usize,
}

/// [`Op::WriteRows`](crate::graph::Op::WriteRows). Bindings: x, state.
#[derive(Clone, Debug, PartialEq)]
pub struct WriteRowsSpec {
    /// Rows of x.
    pub rows: Dim,
    /// Columns.
    pub columns: usize,
    /// Rows of the state: writes beyond are dropped.
    pub state_rows: usize,
    /// Which call scalar says where.
    pub start: crate::graph::CallScalar,
    /// Multiplies it.
    pub stride: usize,
    /// Added to it.
    pub offset: usize,
    /// Type of the state.
    pub state: FloatType,
}

/// [`Op::Patchify`](crate::graph::Op::Patchify). Bindings: pixels, y.
#[derive(Clone, Debug, PartialEq)]
pub struct PatchifySpec {
    /// Channels.
    pub channels: usize,
    /// Pixels.
    pub height: usize,
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub patch: usize,
}

/// One elementwise operation. Bindings: a, b if binary, y. y may be bound to the same range as a.
#[derive(Clone, Debug, PartialEq)]
pub struct ElementwiseSpec {
    /// Which one.
    pub function: Elementwise,
    /// Rows of the result.
    pub rows: Dim,
    /// Columns of the result.
    pub columns: usize,
}

/// An elementwise operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Elementwise {
    /// a + b; b may be one row.
    Add {
        /// Whether b is one row.
        broadcast: bool,
    },
    /// a * b; b may be one row.
    Mul {
        /// Whether b is one row.
        broadcast: bool,
    },
    /// a + value.
    AddScalar(f32),
    /// a * factor.
    Scale(f32),
    /// f(a).
    Activate(Activation),
    /// cap * tanh(a / cap).
    SoftCap(f32),
    /// `f(a[2i]) * a[2i + 1]`; a has twice the columns.
    Glu(Activation),
}

/// [`Rope`] of whole rows. Bindings: x, inverse frequencies f32 `[head_dim / 2]`, y (may be x's range).
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// Rows.
    pub rows: Dim,
    /// Heads in a row.
    pub n_heads: usize,
    /// The rotation.
    pub rope: Rope,
}

/// Rows of a view, or only its last row, copied. Bindings: x, y.
#[derive(Clone, Debug, PartialEq)]
pub struct CopyRowsSpec {
    /// Rows of x.
    pub rows: Dim,
    /// Where x lies.
    pub x: View,
    /// Columns copied.
    pub columns: usize,
    /// Copy the last row alone.
    pub last: bool,
}
