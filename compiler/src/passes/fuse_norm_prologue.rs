//! An RMS norm that only matrix products of one row read moves into them.
//!
//! Each workgroup then normalises the row again, which for one row costs less than a dispatch and the wait for it. With
//! many rows it would be computed again for each tile of columns, so there the norm stays a node of its own.

use super::rewriter::{NodeId, Rewriter};
use crate::graph::infer::stored_operands;
use crate::graph::{Dim, Graph, MatMul, Norm, NormKind, Op, ValueId};

pub(super) fn run(graph: &mut Graph) {
    Rewriter::each_node(graph, fuse);
}

fn fuse(rewriter: &mut Rewriter<'_>, id: NodeId) -> Option<()> {
    let node = rewriter.node(id)?;
    let (Op::Norm(Norm { kind: NormKind::Rms, heads: 1, eps, residual: false }), &[x, weight]) =
        (&node.op, &node.operands[..])
    else {
        return None;
    };
    let (eps, normed) = (*eps, node.results[0]);
    if rewriter.ty(x).rows() != Dim::Fixed(1) || rewriter.is_returned(normed) {
        return None;
    }
    // All or none: a norm that stays for one user is not computed again for the others.
    let products: Vec<(NodeId, MatMul, Vec<ValueId>)> = rewriter
        .users(normed)
        .map(|user| {
            let node = rewriter.node(user)?;
            let (Op::MatMul(product), [first, rest @ ..]) = (&node.op, &node.operands[..]) else { return None };
            let takes_it = product.rms_norm.is_none() && *first == normed && !rest.contains(&normed);
            takes_it.then(|| (user, product.clone(), node.operands.clone()))
        })
        .collect::<Option<_>>()?;
    for (user, product, mut operands) in products {
        operands[0] = x;
        operands.insert(1 + stored_operands(product.format), weight);
        rewriter.set(user, Op::MatMul(MatMul { rms_norm: Some(eps), ..product }), operands)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, check_refuses};
    use expect_test::expect;

    #[test]
    fn one_row() {
        check(
            "fuse_norm_prologue",
            "graph f
            %x = input x : f32[1, 4]
            %n = weight n : f32[4]
            %h = weight a : f16[6, 4]
            %b = weight b : f32[3, 4]
            %r = input r : f32[1, 6]
            %normed = rms_norm %x, %n {eps=1e-6} : f32[1, 4]
            %y = matmul %normed, %h, %r {format=f16, residual} : f32[1, 6]
            %z = matmul %normed, %b : f32[1, 3]
            return y=%y, z=%z",
            expect![[r#"
                graph f
                %x = input x : f32[1, 4]
                %n = weight n : f32[4]
                %h = weight a : f16[6, 4]
                %b = weight b : f32[3, 4]
                %r = input r : f32[1, 6]
                %y = matmul %x, %h, %n, %r {format=f16, rms_norm=1e-6, residual} : f32[1, 6]
                %z = matmul %x, %b, %n {rms_norm=1e-6} : f32[1, 3]
                return y=%y, z=%z
            "#]],
        );
    }

    #[test]
    fn codes_and_a_bias() {
        check(
            "fuse_norm_prologue",
            "graph f
            %x = input x : f32[1, 40]
            %n = weight n : f32[40]
            %c = weight w.codes : u32[6, 8]
            %s = weight w.scales : f16[6, 2]
            %b = weight b : f32[6]
            %normed = rms_norm %x, %n {eps=1e-6} : f32[1, 40]
            %y = matmul %normed, %c, %s, %b {format=q4g32f16, bias, gated=silu} : f32[1, 3]
            return y=%y",
            expect![[r#"
                graph f
                %x = input x : f32[1, 40]
                %n = weight n : f32[40]
                %c = weight w.codes : u32[6, 8]
                %s = weight w.scales : f16[6, 2]
                %b = weight b : f32[6]
                %y = matmul %x, %c, %s, %n, %b {format=q4g32f16, rms_norm=1e-6, bias, gated=silu} : f32[1, 3]
                return y=%y
            "#]],
        );
    }

    #[test]
    fn many_rows() {
        check_refuses(
            "fuse_norm_prologue",
            "graph f
            %x = input x : f32[rows, 4]
            %n = weight n : f32[4]
            %w = weight w : f32[6, 4]
            %normed = rms_norm %x, %n {eps=1e-6} : f32[rows, 4]
            %y = matmul %normed, %w : f32[rows, 6]
            return y=%y",
        );
    }

    #[test]
    fn all_users_or_none() {
        check_refuses(
            "fuse_norm_prologue",
            "graph f
            %x = input x : f32[1, 4]
            %n = weight n : f32[4]
            %w = weight w : f32[6, 4]
            %normed = rms_norm %x, %n {eps=1e-6} : f32[1, 4]
            %y = matmul %normed, %w : f32[1, 6]
            %z = silu %normed : f32[1, 4]
            return y=%y, z=%z",
        );
    }

    #[test]
    fn returned() {
        check_refuses(
            "fuse_norm_prologue",
            "graph f
            %x = input x : f32[1, 4]
            %n = weight n : f32[4]
            %w = weight w : f32[6, 4]
            %normed = rms_norm %x, %n {eps=1e-6} : f32[1, 4]
            %y = matmul %normed, %w : f32[1, 6]
            return final_norm=%normed, y=%y",
        );
    }

    #[test]
    fn also_the_residual() {
        check_refuses(
            "fuse_norm_prologue",
            "graph f
            %x = input x : f32[1, 4]
            %n = weight n : f32[4]
            %w = weight w : f32[4, 4]
            %normed = rms_norm %x, %n {eps=1e-6} : f32[1, 4]
            %y = matmul %normed, %w, %normed {residual} : f32[1, 4]
            return y=%y",
        );
    }

    #[test]
    fn layer_norms_stay() {
        check_refuses(
            "fuse_norm_prologue",
            "graph f
            %x = input x : f32[1, 4]
            %n = weight n : f32[4]
            %w = weight w : f32[6, 4]
            %normed = layer_norm %x, %n, %n {eps=1e-6} : f32[1, 4]
            %y = matmul %normed, %w : f32[1, 6]
            return y=%y",
        );
    }

    #[test]
    fn a_norm_with_a_residual_stays() {
        check_refuses(
            "fuse_norm_prologue",
            "graph f
            %x = input x : f32[1, 4]
            %n = weight n : f32[4]
            %w = weight w : f32[6, 4]
            %normed = rms_norm %x, %n, %x {eps=1e-6, residual} : f32[1, 4]
            %y = matmul %normed, %w : f32[1, 6]
            return y=%y",
        );
    }
}
