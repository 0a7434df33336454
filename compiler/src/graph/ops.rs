//! The operations: a closed set, so that every stage that forgets one fails to compile.
//!
//! Operands and results are listed at each operation as `(operands) -> results` with their shapes; `T` stands for
//! the rows of the call, `C` for the rows of a state. The reference evaluator (`graph/eval`) defines what each one means; an
//! operation with fused parts means exactly the composition of the operations it replaced.

use dwindle_schemes::Format;

use super::recipe::Recipe;

/// An operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    // ---- sources -------------------------------------------------------------------------------------------
    /// `() -> x`: written by the runtime before the call.
    Input {
        /// Port name: `tokens`, `pixels`, `image_index`, `image_weight`.
        name: String,
    },
    /// `() -> x [C, n]`: a buffer that persists between calls, as it was before this call. Its new contents are
    /// the function's output of the same name.
    State {
        /// `kv.3.k`, `image_rows`.
        name: String,
    },
    /// `() -> x`: constant data, computed from the model directory when the bundle is packed.
    Weight(Recipe),
    /// `() -> u32 []`: a number that varies from call to call.
    Call(CallScalar),

    // ---- mostly constants, which passes fold into recipes ----------------------------------------------------
    /// `(w) -> w + value`.
    AddScalar {
        /// Added to each element.
        value: f32,
    },
    /// `(a [n, k], b [m, k], …) -> [n + m + …, k]`, any element type; vectors count as one column.
    ConcatRows,
    /// `(a [n, k], b [n, k]) -> [2n, k]`: row 0 of a, row 0 of b, row 1 of a, …
    InterleaveRows,
    /// `(x [n, k]) -> [len, k]`, any element type: rows `start .. start + len`; vectors count as one column.
    SliceRows {
        /// First row.
        start: usize,
        /// Number of rows.
        len: usize,
    },
    /// `(values [n, k])` or `(codes [n, words] u32, scales [n, groups]) -> f32 [n, k]`.
    Dequantize {
        /// How the operands store the matrix.
        format: Format,
        /// Columns of the matrix, without the padding of the last group.
        columns: usize,
    },

    // ---- plain operations --------------------------------------------------------------------------------------
    /// `(tokens u32 [T], table…) -> [T, hidden]`: rows of the table times `scale`.
    Embed {
        /// Multiplies the rows; Gemma's √hidden.
        scale: f32,
        /// `None`: the table is one f32 value; else its stored operands, as for [`Op::Dequantize`].
        format: Option<Format>,
        /// Columns of the table, without the padding of the last group.
        columns: usize,
    },
    /// `(x [T, k], w…, norm weight?, bias?, residual?) -> [T, n']`: see [`MatMul`].
    MatMul(MatMul),
    /// `(x [T, n], weight [n / heads], bias [n / heads]?, residual [T, n]?) -> [T, n]`: see [`Norm`].
    Norm(Norm),
    /// `(a [T, n], b [T, n] or [n]) -> [T, n]`: b without rows is added to each row.
    Add,
    /// `(a [T, n], b [T, n] or [n]) -> [T, n]`.
    Mul,
    /// `(x) -> x * factor`.
    Scale {
        /// The factor.
        factor: f32,
    },
    /// `(x) -> f(x)`, elementwise.
    Activate(Activation),
    /// `(x) -> cap * tanh(x / cap)`, elementwise.
    SoftCap {
        /// Greatest magnitude of the result.
        cap: f32,
    },
    /// `(x [T, n]) -> [T, len]`: columns `start .. start + len`.
    Slice {
        /// First column.
        start: usize,
        /// Number of columns.
        len: usize,
    },
    /// `(x [T, n]) -> [1, n]`: the last row.
    LastRow,
    /// `(x [T, heads * head_dim], position) -> [T, heads * head_dim]`: row t is rotated for position `position + t`.
    Rope(Rope),
    /// `(state [C, n], x [T, n], start) -> [C, n]`: the state with rows `start * stride + offset ..` replaced by x.
    WriteRows {
        /// Multiplies `start`, a call scalar.
        stride: usize,
        /// Added to it.
        offset: usize,
    },
    /// `(q [T, n_heads * head_dim], k [C, n_kv_heads * head_dim], v [C, n_kv_heads * head_dim], position) -> [T,
    /// n_heads * head_dim]`: see [`Attention`].
    Attention(Attention),
    /// `(x [T, hidden], rows [C, hidden], index i32 [T, 4], weight f32 [T, 4]) -> [T, hidden]`: row t is that of x
    /// where `index[t, 0] < 0`, else `Σ_j weight[t, j] * rows[index[t, j]]`.
    OverlayRows,
    /// `(pixels f32 [channels, height * width]) -> [(height / patch) * (width / patch), channels * patch * patch]`:
    /// a convolution's windows as rows, in the order (channel, y, x). Pixels beyond the last whole patch are not seen
    /// (SigLIP so400m has 27 × 27 patches of 14 in 384 × 384 pixels).
    Patchify {
        /// Height of the picture in pixels.
        height: usize,
        /// Width of the picture in pixels.
        width: usize,
        /// Edge of a patch in pixels.
        patch: usize,
    },

    // ---- made by passes ----------------------------------------------------------------------------------------
    /// `(qkv [T, (n_heads + 2 n_kv_heads) * head_dim], k state, v state, position) -> (q [T, n_heads * head_dim], k state, v state)`:
    /// slices q, k and v, rotates q and k, writes k and v at `position`.
    RopeWriteKv(RopeWriteKv),
    /// `(a [T, 2n]) -> [T, n]`: `f(a[2i]) * a[2i + 1]`, for interleaved gate and up.
    Glu(Activation),
}

/// A number that varies from call to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallScalar {
    /// Position of the call's first row in the sequence.
    Position,
    /// Index of the image tile.
    Tile,
}

/// `y = epilogue(prologue(x) wᵀ)` with w `[n, k]`.
///
/// In this order: the prologue normalises x (operand: norm weight `[k]`), the product, `+ bias [n]`, the activation or the
/// gated activation (which halves n), the soft cap, `+ residual [T, n']` (or `[n']`-rowed weight of as many rows).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MatMul {
    /// `None`: w is one f32 value `[n, k]`; else its stored operands, as for [`Op::Dequantize`].
    pub format: Option<Format>,
    /// RMS-normalise x first, with this ε.
    pub rms_norm: Option<f32>,
    /// A bias operand is there.
    pub bias: bool,
    /// What is done with the sums.
    pub activation: Option<Epilogue>,
    /// Soft cap of the result.
    pub soft_cap: Option<f32>,
    /// A residual operand is there.
    pub residual: bool,
}

/// What a matrix product does with its sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Epilogue {
    /// `f(y)`.
    Plain(Activation),
    /// `f(y[2i]) * y[2i + 1]`: w interleaves gate and up.
    Gated(Activation),
}

/// Normalisation of each row, or of each head of a row by itself, then `* weight (+ bias) (+ residual)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Norm {
    /// RMS or layer norm.
    pub kind: NormKind,
    /// Equal parts of a row that are normalised by themselves, all with the same weight and bias; mostly 1.
    pub heads: usize,
    /// Added to the mean square or the variance.
    pub eps: f32,
    /// A residual operand is added to the result.
    pub residual: bool,
}

/// Which normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// `x / sqrt(mean(x²) + ε) * weight`; no bias operand.
    Rms,
    /// `(x - mean) / sqrt(var + ε) * weight + bias`.
    Layer,
}

/// An elementwise function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x * Φ(x)`, by the error function.
    Gelu,
    /// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
    GeluTanh,
    /// `x * σ(1.702 x)`.
    QuickGelu,
    /// `x * σ(x)`.
    Silu,
}

/// Rotary position embedding (Su et al. 2021), halves paired: element i with i + head_dim / 2.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Width of a head; the row holds whole heads.
    pub head_dim: usize,
    /// Inverse frequencies `[head_dim / 2]`, scaling included, computed by the family in f32. The angle of pair i
    /// at position p is `p * inv_freq[i]`.
    pub inv_freq: Vec<f32>,
    /// Multiplies cos and sin (long-context scalings); mostly 1.
    pub magnitude: f32,
}

/// Softmax attention of each query row over cached rows.
///
/// Scores are `scale * q·k`, soft-capped if asked; row t sees state rows `0 ..= position + t`, of them the last
/// `window` ones if asked, or, with `causal: false`, all C rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; each serves `n_heads / n_kv_heads` query heads in a row.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Multiplies the dot products.
    pub scale: f32,
    /// Soft cap of the scores.
    pub soft_cap: Option<f32>,
    /// Sliding window: a token sees itself and the `window - 1` tokens before it.
    pub window: Option<usize>,
    /// Whether rows see only their past.
    pub causal: bool,
}

/// What [`Op::RopeWriteKv`] fuses.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeWriteKv {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// The rotation, which knows `head_dim`.
    pub rope: Rope,
}
