//! Recipes: constant data as a small expression over the tensors of a model directory.
//!
//! A recipe is evaluated row by row when the bundle is packed, so nothing holds a matrix in memory to fold it. Its
//! text is canonical: equal texts mean equal data, which is how functions share weights.

use std::fmt;

use super::types::DType;

/// Constant data.
#[derive(Clone, Debug, PartialEq)]
pub enum Recipe {
    /// A tensor as stored, by its full name in the model directory (`….weight`, `….weight.codes`).
    Tensor(String),
    /// Each element plus a number.
    AddScalar(Box<Recipe>, f32),
    /// The rows of one after the other.
    ConcatRows(Vec<Recipe>),
    /// Row 0 of the first, row 0 of the second, row 1 of the first, …
    InterleaveRows(Box<[Recipe; 2]>),
    /// Some rows of it.
    SliceRows {
        /// What they are of.
        of: Box<Recipe>,
        /// First row.
        start: usize,
        /// Number of rows.
        len: usize,
    },
}

/// `model.norm.weight`, `(model.norm.weight + 1)`, `rows(a, b)`, `interleave(a, b)`, `slice(a, 4, 2)`.
impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Recipe::Tensor(name) => f.write_str(name),
            Recipe::AddScalar(inner, value) => write!(f, "({inner} + {value})"),
            Recipe::ConcatRows(parts) => {
                f.write_str("rows(")?;
                for (i, part) in parts.iter().enumerate() {
                    write!(f, "{}{part}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str(")")
            }
            Recipe::InterleaveRows(pair) => write!(f, "interleave({}, {})", pair[0], pair[1]),
            Recipe::SliceRows { of, start, len } => write!(f, "slice({of}, {start}, {len})"),
        }
    }
}

impl Recipe {
    /// Calls `visit` with each tensor name, in order, repeated where it is used repeatedly.
    pub fn for_each_tensor(&self, visit: &mut impl FnMut(&str)) {
        match self {
            Recipe::Tensor(name) => visit(name),
            Recipe::AddScalar(inner, _) => inner.for_each_tensor(visit),
            Recipe::ConcatRows(parts) => parts.iter().for_each(|p| p.for_each_tensor(visit)),
            Recipe::InterleaveRows(pair) => pair.iter().for_each(|p| p.for_each_tensor(visit)),
            Recipe::SliceRows { of, .. } => of.for_each_tensor(visit),
        }
    }
}

/// A tensor of a model directory, as it lies in the file: row-major, little endian.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Type of the elements.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: &'a [usize],
    /// All elements.
    pub bytes: &'a [u8],
}

/// Finds tensors by their full name in a model directory.
pub trait Tensors: Sync {
    /// The tensor of this name.
    fn stored(&self, name: &str) -> Option<Stored<'_>>;
}
