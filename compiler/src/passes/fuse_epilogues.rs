//! What follows a matrix product moves into it: bias, activation or gated activation, soft cap, residual.
//!
//! A product applies its parts in that order ([`MatMul`]), so a part is taken only while no later one is there. The nodes
//! of a chain are visited in order, so each finds the product that the one before it has become.

use super::rewriter::{NodeId, Rewriter};
use super::stored_product::is_bias;
use crate::graph::{Epilogue, Graph, MatMul, Op, ValueId};

pub(super) fn run(graph: &mut Graph) {
    Rewriter::each_node(graph, fuse);
}

fn fuse(rewriter: &mut Rewriter<'_>, id: NodeId) -> Option<()> {
    let node = rewriter.node(id)?;
    match (&node.op, &node.operands[..]) {
        (&Op::Activate(f), &[y]) => fuse_activation(rewriter, id, y, Epilogue::Plain(f)),
        (&Op::Glu(f), &[y]) => fuse_activation(rewriter, id, y, Epilogue::Gated(f)),
        (&Op::SoftCap { cap }, &[y]) => {
            let (product, operands) = product_of(rewriter, y)?;
            let free = product.soft_cap.is_none() && !product.residual;
            free.then(|| rewriter.set(id, Op::MatMul(MatMul { soft_cap: Some(cap), ..product }), operands))?
        }
        (Op::Add, &[a, b]) => fuse_bias(rewriter, id, a, b).or_else(|| {
            // Of two products the later one is still to be computed when the earlier one is there to be added.
            let (early, late) = if rewriter.definition_id(a) > rewriter.definition_id(b) { (b, a) } else { (a, b) };
            fuse_residual(rewriter, id, late, early).or_else(|| fuse_residual(rewriter, id, early, late))
        }),
        _ => None,
    }
}

fn fuse_activation(rewriter: &mut Rewriter<'_>, id: NodeId, y: ValueId, activation: Epilogue) -> Option<()> {
    let (product, operands) = product_of(rewriter, y)?;
    let free = product.activation.is_none() && product.soft_cap.is_none() && !product.residual;
    free.then(|| rewriter.set(id, Op::MatMul(MatMul { activation: Some(activation), ..product }), operands))?
}

fn fuse_bias(rewriter: &mut Rewriter<'_>, id: NodeId, y: ValueId, bias: ValueId) -> Option<()> {
    let (product, mut operands) = product_of(rewriter, y)?;
    let MatMul { bias: biased, activation, soft_cap, residual, .. } = product;
    let free = !biased && activation.is_none() && soft_cap.is_none() && !residual;
    if !free || !is_bias(rewriter, bias, rewriter.ty(y).columns()) {
        return None;
    }
    operands.push(bias);
    rewriter.set(id, Op::MatMul(MatMul { bias: true, ..product }), operands)
}

fn fuse_residual(rewriter: &mut Rewriter<'_>, id: NodeId, y: ValueId, residual: ValueId) -> Option<()> {
    let (product, mut operands) = product_of(rewriter, y)?;
    if product.residual || rewriter.ty(residual) != rewriter.ty(y) {
        return None;
    }
    operands.push(residual);
    rewriter.set(id, Op::MatMul(MatMul { residual: true, ..product }), operands)
}

/// The product that a value is, if one operand of one node is its only use, and its operands.
fn product_of(rewriter: &Rewriter<'_>, value: ValueId) -> Option<(MatMul, Vec<ValueId>)> {
    let node = rewriter.single_use_definition(value)?;
    let Op::MatMul(product) = &node.op else { return None };
    Some((product.clone(), node.operands.clone()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, check_refuses};
    use expect_test::expect;

    #[test]
    fn all_of_them() {
        check(
            "fuse_epilogues",
            "graph f
            %x = input x : f32[rows, 4]
            %w = weight w : f32[6, 4]
            %p = matmul %x, %w : f32[rows, 6]
            %b = weight b : f32[6]
            %r = input r : f32[rows, 3]
            %biased = add %p, %b : f32[rows, 6]
            %gated = glu %biased {activation=gelu} : f32[rows, 3]
            %capped = soft_cap %gated {cap=5.0} : f32[rows, 3]
            %y = add %r, %capped : f32[rows, 3]
            return y=%y",
            expect![[r#"
                graph f
                %x = input x : f32[rows, 4]
                %w = weight w : f32[6, 4]
                %b = weight b : f32[6]
                %r = input r : f32[rows, 3]
                %y = matmul %x, %w, %b, %r {bias, gated=gelu, soft_cap=5.0, residual} : f32[rows, 3]
                return y=%y
            "#]],
        );
    }

    #[test]
    fn plain_activation() {
        check(
            "fuse_epilogues",
            "graph f
            %x = input x : f32[rows, 4]
            %w = weight w : f32[6, 4]
            %p = matmul %x, %w : f32[rows, 6]
            %y = quick_gelu %p : f32[rows, 6]
            return y=%y",
            expect![[r#"
                graph f
                %x = input x : f32[rows, 4]
                %w = weight w : f32[6, 4]
                %y = matmul %x, %w {activation=quick_gelu} : f32[rows, 6]
                return y=%y
            "#]],
        );
    }

    #[test]
    fn later_of_two_products() {
        check(
            "fuse_epilogues",
            "graph f
            %x = input x : f32[rows, 4]
            %w = weight w : f32[6, 4]
            %p = matmul %x, %w : f32[rows, 6]
            %w2 = weight w2 : f32[6, 4]
            %p2 = matmul %x, %w2 : f32[rows, 6]
            %y = add %p2, %p : f32[rows, 6]
            return y=%y",
            expect![[r#"
                graph f
                %x = input x : f32[rows, 4]
                %w = weight w : f32[6, 4]
                %p = matmul %x, %w : f32[rows, 6]
                %w2 = weight w2 : f32[6, 4]
                %y = matmul %x, %w2, %p {residual} : f32[rows, 6]
                return y=%y
            "#]],
        );
    }

    #[test]
    fn position_embeddings() {
        check(
            "fuse_epilogues",
            "graph f
            %x = input x : f32[5, 4]
            %w = weight w : f32[6, 4]
            %positions = weight positions : f32[5, 6]
            %p = matmul %x, %w : f32[5, 6]
            %y = add %p, %positions : f32[5, 6]
            return y=%y",
            expect![[r#"
                graph f
                %x = input x : f32[5, 4]
                %w = weight w : f32[6, 4]
                %positions = weight positions : f32[5, 6]
                %y = matmul %x, %w, %positions {residual} : f32[5, 6]
                return y=%y
            "#]],
        );
    }

    /// The activation moves in; the bias would come before it and stays.
    #[test]
    fn a_bias_after_the_activation() {
        check(
            "fuse_epilogues",
            "graph f
            %x = input x : f32[rows, 4]
            %w = weight w : f32[6, 4]
            %p = matmul %x, %w : f32[rows, 6]
            %b = weight b : f32[6]
            %a = silu %p : f32[rows, 6]
            %y = add %a, %b : f32[rows, 6]
            return y=%y",
            expect![[r#"
                graph f
                %x = input x : f32[rows, 4]
                %w = weight w : f32[6, 4]
                %b = weight b : f32[6]
                %a = matmul %x, %w {activation=silu} : f32[rows, 6]
                %y = add %a, %b : f32[rows, 6]
                return y=%y
            "#]],
        );
    }

    #[test]
    fn an_activation_after_the_residual() {
        check(
            "fuse_epilogues",
            "graph f
            %x = input x : f32[rows, 4]
            %w = weight w : f32[6, 4]
            %p = matmul %x, %w : f32[rows, 6]
            %r = input r : f32[rows, 6]
            %sum = add %p, %r : f32[rows, 6]
            %y = silu %sum : f32[rows, 6]
            return y=%y",
            expect![[r#"
                graph f
                %x = input x : f32[rows, 4]
                %w = weight w : f32[6, 4]
                %r = input r : f32[rows, 6]
                %sum = matmul %x, %w, %r {residual} : f32[rows, 6]
                %y = silu %sum : f32[rows, 6]
                return y=%y
            "#]],
        );
    }

    #[test]
    fn two_activations() {
        check(
            "fuse_epilogues",
            "graph f
            %x = input x : f32[rows, 4]
            %w = weight w : f32[6, 4]
            %p = matmul %x, %w : f32[rows, 6]
            %a = silu %p : f32[rows, 6]
            %y = gelu %a : f32[rows, 6]
            return y=%y",
            expect![[r#"
                graph f
                %x = input x : f32[rows, 4]
                %w = weight w : f32[6, 4]
                %a = matmul %x, %w {activation=silu} : f32[rows, 6]
                %y = gelu %a : f32[rows, 6]
                return y=%y
            "#]],
        );
    }

    #[test]
    fn a_product_with_another_use() {
        check_refuses(
            "fuse_epilogues",
            "graph f
            %x = input x : f32[rows, 4]
            %w = weight w : f32[6, 4]
            %p = matmul %x, %w : f32[rows, 6]
            %a = silu %p : f32[rows, 6]
            return p=%p, y=%a",
        );
    }

    #[test]
    fn a_product_added_to_itself() {
        check_refuses(
            "fuse_epilogues",
            "graph f
            %x = input x : f32[rows, 4]
            %w = weight w : f32[6, 4]
            %p = matmul %x, %w : f32[rows, 6]
            %y = add %p, %p : f32[rows, 6]
            return y=%y",
        );
    }

    #[test]
    fn a_vector_that_varies() {
        check_refuses(
            "fuse_epilogues",
            "graph f
            %x = input x : f32[rows, 4]
            %w = weight w : f32[6, 4]
            %b = input b : f32[6]
            %p = matmul %x, %w : f32[rows, 6]
            %y = add %p, %b : f32[rows, 6]
            return y=%y",
        );
    }
}
