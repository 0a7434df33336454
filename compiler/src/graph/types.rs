//! Types of values: an element type and a shape whose first dimension may be symbolic.

use std::fmt;

/// Element type of a value. The meaning of all floating-point arithmetic is f32; `F16` and `Bf16` are storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 16-bit float, storage only.
    F16,
    /// bfloat16, storage only.
    Bf16,
    /// Unsigned 32-bit integer: token ids, packed codes.
    U32,
    /// Signed 32-bit integer: row indices, -1 for none.
    I32,
}

impl DType {
    /// The name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::U32 => "u32",
            DType::I32 => "i32",
        }
    }

    /// Bytes of an element.
    pub const fn bytes(self) -> usize {
        match self {
            DType::F16 | DType::Bf16 => 2,
            DType::F32 | DType::U32 | DType::I32 => 4,
        }
    }
}

impl From<dwindle_schemes::FloatType> for DType {
    fn from(float: dwindle_schemes::FloatType) -> Self {
        match float {
            dwindle_schemes::FloatType::F16 => DType::F16,
            dwindle_schemes::FloatType::Bf16 => DType::Bf16,
            dwindle_schemes::FloatType::F32 => DType::F32,
        }
    }
}

/// One dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dim {
    /// Known at compile time.
    Fixed(usize),
    /// The rows (tokens) of a call, known when the function is called.
    Rows,
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(n) => n.fmt(f),
            Dim::Rows => f.write_str("rows"),
        }
    }
}

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Type {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first; row-major. Only the first may be [`Dim::Rows`].
    pub shape: Vec<Dim>,
}

impl Type {
    /// A type of fixed dimensions.
    pub fn fixed(dtype: DType, shape: &[usize]) -> Self {
        Type { dtype, shape: shape.iter().map(|&n| Dim::Fixed(n)).collect() }
    }

    /// `f32 [rows, columns]`.
    pub fn matrix(rows: Dim, columns: usize) -> Self {
        Type { dtype: DType::F32, shape: vec![rows, Dim::Fixed(columns)] }
    }

    /// The last dimension, where it is fixed; 1 for a scalar.
    pub fn columns(&self) -> usize {
        match self.shape.last() {
            Some(Dim::Fixed(n)) => *n,
            _ => 1,
        }
    }

    /// The first dimension.
    pub fn rows(&self) -> Dim {
        self.shape.first().copied().unwrap_or(Dim::Fixed(1))
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype.name())?;
        for (i, dim) in self.shape.iter().enumerate() {
            write!(f, "{}{dim}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("]")
    }
}
