//! Native kernels of the `cpu` target: their names, constants, and how matrices lie in memory for them.
//!
//! The compiler writes a [`NativeKernel`] into a plan as [`Code::Native`]; the runtime reads it back. Bindings are those of the kernel of
//! the same name on GPUs, and so are the layouts of everything that is no stored matrix: f32 rows without gaps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::plan::Code;
pub use crate::rows16::{BLOCK_ROWS, CODES_3BIT, MAX_GROUP, ORDER_3BIT, Unit, arrange, code, is_arranged};

/// Rows of a call, where not fixed: `None`.
pub type Rows = Option<u32>;

/// How a stored matrix lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Blocks of 16 rows, side by side column by column; `rows16.rs` describes them to the bit.
    Rows16,
}

/// Type of stored floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Float {
    /// IEEE 754 binary16.
    F16,
    /// IEEE 754 binary32.
    F32,
}

impl Float {
    /// Bytes of one value.
    pub const fn bytes(self) -> usize {
        match self {
            Float::F16 => 2,
            Float::F32 => 4,
        }
    }
}

/// Where a group's values begin: which code stands for 0, or the value of code 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Zero {
    /// `2^(bits-1) - 1`.
    #[default]
    Centered,
    /// This one.
    Fixed(u32),
    /// Each group's own: a number of the scales' type, stored after the group's scale.
    Stored,
    /// The value of code 0, each group's own: a number of the scales' type, stored after the group's scale. Values are
    /// `code * scale + minimum`.
    Minimum,
}

impl Zero {
    /// Left out of constants.
    fn is_centered(&self) -> bool {
        *self == Zero::Centered
    }

    /// The code that stands for 0 in all groups of codes of `bits` bits, 3 to 8; `None` where each stores a number.
    pub const fn constant(self, bits: u32) -> Option<u32> {
        match self {
            Zero::Centered => Some((1 << (bits - 1)) - 1),
            Zero::Fixed(code) => Some(code),
            Zero::Stored | Zero::Minimum => None,
        }
    }

    /// Numbers that a group stores: its scale, and its zero or minimum.
    pub const fn numbers(self) -> usize {
        match self {
            Zero::Centered | Zero::Fixed(_) => 1,
            Zero::Stored | Zero::Minimum => 2,
        }
    }
}

/// How the values of a matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Storage {
    /// Floats as they are.
    Plain(Float),
    /// `value = (code - zero) * scale`, or `code * scale + minimum`.
    Grouped {
        /// Bits of a code: 3, 4, 5, 6 or 8.
        bits: u32,
        /// Values of a row that share a scale: whole [units](Unit), at most [`MAX_GROUP`].
        group: u32,
        /// Type of the scales, and of zeros and minima.
        scale: Float,
        /// Where a group's values begin.
        #[serde(default, skip_serializing_if = "Zero::is_centered")]
        zero: Zero,
    },
}

impl Storage {
    /// Bytes of each binding that `n` rows of `k` values take in [`Layout::Rows16`]: values, or code words and scales.
    /// `None` where the format cannot be or the size overflows.
    pub fn bytes(self, n: u32, k: u32) -> Option<Vec<u64>> {
        let rows = u64::from(n).checked_next_multiple_of(BLOCK_ROWS as u64)?;
        match self {
            Storage::Plain(float) => Some(vec![rows.checked_mul(u64::from(k))?.checked_mul(float.bytes() as u64)?]),
            Storage::Grouped { bits, group, scale, zero } => {
                let unit = Unit::of(bits)?;
                let possible = (1..=MAX_GROUP).contains(&group)
                    && group.is_multiple_of(unit.codes as u32)
                    && zero.constant(bits).is_none_or(|code| code >> bits == 0);
                if !possible {
                    return None;
                }
                let groups = u64::from(k.div_ceil(group));
                let words = groups.checked_mul(unit.words_of(group as usize) as u64)?;
                let scales = rows.checked_mul(groups)?.checked_mul((zero.numbers() * scale.bytes()) as u64)?;
                Some(vec![rows.checked_mul(words)?.checked_mul(4)?, scales])
            }
        }
    }
}

/// A stored matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// Where its elements are.
    pub layout: Layout,
    /// What they are.
    pub storage: Storage,
    /// Rows.
    pub n: u32,
    /// Columns, without padding.
    pub k: u32,
}

/// An elementwise function; what each means is told in the compiler's `graph/ops.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x Φ(x)`.
    Gelu,
    /// Its approximation by tanh.
    GeluTanh,
    /// `x σ(1.702 x)`.
    QuickGelu,
    /// `x σ(x)`.
    Silu,
}

/// A number of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scalar {
    /// Position of the first row.
    Position,
    /// Index of the image tile.
    Tile,
}

/// Columns of a wider matrix: row t begins at element `t * stride + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// Elements from one row to the next.
    pub stride: u32,
    /// First element of row 0.
    pub offset: u32,
}

/// `y = epilogue(prologue(x) wᵀ)`: x, w (values, or codes and scales), norm weight?, bias?, residual?, y.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatMul {
    /// w.
    pub matrix: Matrix,
    /// Rows of x.
    pub rows: Rows,
    /// ε of the RMS norm of x.
    pub rms_norm: Option<f32>,
    /// Whether a bias is bound.
    pub bias: bool,
    /// Function of the sums.
    pub activation: Option<Activation>,
    /// Whether the activation's result, of even rows of w, is multiplied with the sums of odd ones.
    pub gated: bool,
    /// Soft cap of the result.
    pub soft_cap: Option<f32>,
    /// Whether a residual is bound.
    pub residual: bool,
    /// Columns of y.
    pub out_columns: u32,
    /// First column written.
    pub out_offset: u32,
}

/// `y[t] = scale * table[tokens[t] - first_row]` for tokens of this part: tokens, table, y.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embed {
    /// The table.
    pub matrix: Matrix,
    /// Tokens.
    pub rows: Rows,
    /// Token of its first row.
    pub first_row: u32,
    /// Multiplies the rows.
    pub scale: f32,
}

/// Norm of rows: x, weight, bias if layer norm, residual?, y.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Norm {
    /// Layer norm instead of RMS.
    pub layer: bool,
    /// Rows.
    pub rows: Rows,
    /// Heads of a row, which are normalised by themselves; 1 for whole rows.
    pub heads: u32,
    /// Columns of a head.
    pub columns: u32,
    /// ε.
    pub eps: f32,
    /// Whether a residual is bound.
    pub residual: bool,
}

/// Rotation and cache: qkv, inverse frequencies, q, k state, v state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RopeWriteKv {
    /// Rows.
    pub rows: Rows,
    /// Query heads.
    pub n_heads: u32,
    /// Key and value heads.
    pub n_kv_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Multiplies cos and sin.
    pub magnitude: f32,
    /// Type of the states.
    pub state: Float,
}

/// Attention: q, k, v, y.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    /// Query rows.
    pub rows: Rows,
    /// Query heads.
    pub n_heads: u32,
    /// Key and value heads.
    pub n_kv_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Multiplies the dot products.
    pub scale: f32,
    /// Soft cap of the scores.
    pub soft_cap: Option<f32>,
    /// Rows that a query sees, itself included.
    pub window: Option<u32>,
    /// Whether rows see only their past.
    pub causal: bool,
    /// Rows of k and v.
    pub kv_rows: u32,
    /// Where q lies.
    pub q: Columns,
    /// Where k lies.
    pub k: Columns,
    /// Where v lies.
    pub v: Columns,
    /// Type of k and v.
    pub kv: Float,
}

/// Image rows between embeddings: x, image rows, index, weight, y.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverlayRows {
    /// Rows.
    pub rows: Rows,
    /// Columns.
    pub columns: u32,
    /// Rows of the image state.
    pub image_rows: u32,
}

/// Rows into a state: x, state. Rows beyond the state are dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteRows {
    /// Rows of x.
    pub rows: Rows,
    /// Columns.
    pub columns: u32,
    /// Rows of the state.
    pub state_rows: u32,
    /// Which number of the call says where.
    pub start: Scalar,
    /// Multiplies it.
    pub stride: u32,
    /// Added to it.
    pub offset: u32,
    /// Type of the state.
    pub state: Float,
}

/// Windows of a picture as rows: pixels, y.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patchify {
    /// Channels.
    pub channels: u32,
    /// Pixels.
    pub height: u32,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub patch: u32,
}

/// One elementwise operation: a, b if binary, y.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elementwise {
    /// Which one.
    pub function: Function,
    /// Rows of the result.
    pub rows: Rows,
    /// Columns of the result.
    pub columns: u32,
}

/// An elementwise operation; `Add` and `Mul` say whether b is one row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// a + b.
    Add(bool),
    /// a * b.
    Mul(bool),
    /// a + value.
    AddScalar(f32),
    /// a * factor.
    Scale(f32),
    /// f(a).
    Activate(Activation),
    /// cap * tanh(a / cap).
    SoftCap(f32),
    /// f(a\[2i\]) * a\[2i + 1\].
    Glu(Activation),
}

/// Rotation of whole rows: x, inverse frequencies, y.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rope {
    /// Rows.
    pub rows: Rows,
    /// Heads in a row.
    pub n_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Multiplies cos and sin.
    pub magnitude: f32,
}

/// Rows of a view, or its last row: x, y.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyRows {
    /// Rows of x.
    pub rows: Rows,
    /// Where x lies.
    pub x: Columns,
    /// Columns copied.
    pub columns: u32,
    /// The last row alone.
    pub last: bool,
}

/// A native kernel with its constants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant is the struct of its name")]
pub enum NativeKernel {
    #[serde(rename = "matmul")]
    MatMul(MatMul),
    Embed(Embed),
    Norm(Norm),
    RopeWriteKv(RopeWriteKv),
    Attention(Attention),
    OverlayRows(OverlayRows),
    WriteRows(WriteRows),
    Patchify(Patchify),
    Elementwise(Elementwise),
    Rope(Rope),
    CopyRows(CopyRows),
}

impl NativeKernel {
    /// What a plan holds.
    pub fn to_code(&self) -> Code {
        let value = serde_json::to_value(self).expect("a struct of numbers is JSON");
        let serde_json::Value::Object(variant) = value else { unreachable!("an enum's variant is an object") };
        let (name, constants) = variant.into_iter().next().expect("with the variant's name as its only key");
        let serde_json::Value::Object(constants) = constants else { unreachable!("a struct is an object") };
        Code::Native { name, constants: constants.into_iter().collect() }
    }

    /// Reads what a plan holds.
    ///
    /// # Errors
    /// A name or constant that this version does not know, one that is missing or of another type, as text.
    pub fn from_code(name: &str, constants: &BTreeMap<String, serde_json::Value>) -> Result<Self, String> {
        let constants: serde_json::Map<_, _> = constants.clone().into_iter().collect();
        let variant: serde_json::Map<_, _> = [(name.to_owned(), constants.into())].into_iter().collect();
        serde_json::from_value(variant.into()).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matmul() -> NativeKernel {
        let storage = Storage::Grouped { bits: 4, group: 32, scale: Float::F16, zero: Zero::Centered };
        NativeKernel::MatMul(MatMul {
            matrix: Matrix { layout: Layout::Rows16, storage, n: 33, k: 100 },
            rows: None,
            rms_norm: Some(1e-6),
            bias: false,
            activation: Some(Activation::Silu),
            gated: true,
            soft_cap: None,
            residual: false,
            out_columns: 16,
            out_offset: 0,
        })
    }

    #[test]
    fn constants_survive_the_plan() {
        let Code::Native { name, mut constants } = matmul().to_code() else { panic!() };
        let text = serde_json::to_string(&constants).unwrap();
        assert_eq!(NativeKernel::from_code(&name, &serde_json::from_str(&text).unwrap()), Ok(matmul()));
        assert!(NativeKernel::from_code("abacus", &constants).unwrap_err().contains("unknown variant `abacus`"));
        constants.get_mut("matrix").unwrap()["layout"] = "rows32".into();
        let error = NativeKernel::from_code(&name, &constants).unwrap_err();
        assert!(error.contains("unknown variant `rows32`, expected `rows16`"), "{error}");
    }

    #[test]
    fn sizes_are_padded_and_checked() {
        let with_zero = |bits, group, zero| Storage::Grouped { bits, group, scale: Float::F16, zero };
        let grouped = |bits, group| with_zero(bits, group, Zero::Centered);
        assert_eq!(grouped(4, 32).bytes(33, 100), Some(vec![48 * 16 * 4, 48 * 4 * 2]));
        assert_eq!(grouped(3, 40).bytes(16, 41), Some(vec![16 * 8 * 4, 16 * 2 * 2]));
        assert_eq!(Storage::Plain(Float::F16).bytes(1, 3), Some(vec![96]));
        assert_eq!(grouped(5, 32).bytes(33, 100), Some(vec![48 * 20 * 4, 48 * 4 * 2]));
        assert_eq!(grouped(6, 16).bytes(16, 33), Some(vec![16 * 9 * 4, 16 * 3 * 2]));
        for (bits, group) in [(4, 30), (4, 0), (3, 30), (5, 16), (6, 8), (2, 32), (7, 32), (0, 32), (32, 32), (4, 8192)]
        {
            assert_eq!(grouped(bits, group).bytes(16, 64), None);
        }
        assert_eq!(with_zero(4, 128, Zero::Stored).bytes(33, 200), Some(vec![48 * 32 * 4, 48 * 2 * 2 * 2]));
        assert_eq!(with_zero(5, 64, Zero::Minimum).bytes(16, 64), Some(vec![16 * 10 * 4, 16 * 2 * 2]));
        assert_eq!(with_zero(8, 32, Zero::Fixed(128)).bytes(16, 32), Some(vec![16 * 8 * 4, 16 * 2]));
        for (bits, group, zero) in
            [(4, 40, 16), (8, 40, 256), (3, 40, 8), (4, 40, u32::MAX), (5, 32, 32), (6, 32, 64), (6, 32, u32::MAX)]
        {
            assert_eq!(with_zero(bits, group, Zero::Fixed(zero)).bytes(16, 64), None);
        }
    }

    /// Plans written before zeros could be chosen say nothing of them, and still do.
    #[test]
    fn a_centred_zero_is_not_written() {
        let text = |zero| {
            let storage = Storage::Grouped { bits: 4, group: 32, scale: Float::F16, zero };
            let text = serde_json::to_string(&storage).unwrap();
            assert_eq!(serde_json::from_str::<Storage>(&text).unwrap(), storage);
            text
        };
        assert_eq!(text(Zero::Centered), r#"{"grouped":{"bits":4,"group":32,"scale":"f16"}}"#);
        assert_eq!(text(Zero::Fixed(8)), r#"{"grouped":{"bits":4,"group":32,"scale":"f16","zero":{"fixed":8}}}"#);
        assert_eq!(text(Zero::Stored), r#"{"grouped":{"bits":4,"group":32,"scale":"f16","zero":"stored"}}"#);
        assert_eq!(text(Zero::Minimum), r#"{"grouped":{"bits":4,"group":32,"scale":"f16","zero":"minimum"}}"#);
    }
}
