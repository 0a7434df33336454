//! Plain matrix products over stored weights, and merging several of them into one by merging their weights' rows.

use dwindle_schemes::Format;

use super::rewriter::{NodeId, Rewriter};
use crate::graph::{DType, MatMul, Op, Type, ValueId};

/// `x wᵀ` without fused parts, where w is constant and nothing else uses it.
#[derive(Debug)]
pub struct StoredProduct {
    /// `[T, k]`.
    pub x: ValueId,
    /// `[T, n]`.
    pub result: ValueId,
    /// Rows of w.
    pub n: usize,
    /// How w is stored; `None`: one f32 value.
    pub format: Option<Format>,
    /// The stored tensors: values, or codes and scales.
    parts: Vec<ValueId>,
}

impl StoredProduct {
    /// The product that a node computes, if it is one.
    pub fn at(rewriter: &Rewriter<'_>, id: NodeId) -> Option<Self> {
        let node = rewriter.node(id)?;
        let (&[x, w], &[result]) = (&node.operands[..], &node.results[..]) else { return None };
        if node.op != Op::MatMul(MatMul::default()) {
            return None;
        }
        let matrix = rewriter.single_use_definition(w)?;
        let (format, parts) = match matrix.op {
            Op::Weight(_) => (None, vec![w]),
            Op::Dequantize { format, .. } => (Some(format), matrix.operands.clone()),
            _ => return None,
        };
        // A weight with another use stays as it is: merged, it would be stored twice.
        let exclusive = |&part: &ValueId| rewriter.constant(part).is_some() && rewriter.only_user(part).is_some();
        let product = StoredProduct { x, result, n: rewriter.ty(result).columns(), format, parts };
        product.parts.iter().all(exclusive).then_some(product)
    }

    /// Whether the rows of both weights can be rows of one matrix, multiplied with one x.
    pub fn fits(&self, other: &Self) -> bool {
        self.x == other.x && self.format == other.format
    }
}

/// Adds the product whose weight has the rows of the first half and of the second half of another's alternate.
pub fn add_with_halves_interleaved(rewriter: &mut Rewriter<'_>, product: &StoredProduct) -> Option<ValueId> {
    let len = product.n / 2;
    let mut parts = Vec::new();
    for &part in &product.parts {
        let first = rewriter.add(Op::SliceRows { start: 0, len }, vec![part])?;
        let second = rewriter.add(Op::SliceRows { start: len, len }, vec![part])?;
        parts.push(rewriter.add(Op::InterleaveRows, vec![first, second])?);
    }
    add_product(rewriter, product, parts)
}

/// Adds one product for several that fit each other; `merge` ([`Op::ConcatRows`] or [`Op::InterleaveRows`]) is applied to
/// codes, scales or values alike, because a row of each belongs to one row of w.
pub fn add_merged(rewriter: &mut Rewriter<'_>, products: &[StoredProduct], merge: &Op) -> Option<ValueId> {
    let first = products.first()?;
    let mut parts = Vec::new();
    for part in 0..first.parts.len() {
        parts.push(rewriter.add(merge.clone(), products.iter().map(|product| product.parts[part]).collect())?);
    }
    add_product(rewriter, first, parts)
}

/// Adds the product of what another multiplies with a weight that is stored alike.
fn add_product(rewriter: &mut Rewriter<'_>, like: &StoredProduct, parts: Vec<ValueId>) -> Option<ValueId> {
    let w = match like.format {
        None => parts[0],
        Some(format) => {
            let columns = rewriter.ty(like.x).columns();
            rewriter.add(Op::Dequantize { format, columns }, parts)?
        }
    };
    rewriter.add(Op::MatMul(MatMul::default()), vec![like.x, w])
}

/// Whether a value is a constant vector of `n` floats: what a bias is.
pub fn is_bias(rewriter: &Rewriter<'_>, value: ValueId, n: usize) -> bool {
    rewriter.constant(value).is_some() && *rewriter.ty(value) == Type::fixed(DType::F32, &[n])
}
