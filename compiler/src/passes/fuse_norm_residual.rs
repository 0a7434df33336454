//! `residual + Norm(x)` becomes a norm with a residual operand: Gemma 2's norms behind attention and MLP.

use super::rewriter::{NodeId, Rewriter};
use crate::graph::{Graph, Norm, Op, ValueId};

pub(super) fn run(graph: &mut Graph) {
    Rewriter::each_node(graph, |rewriter, id| {
        let node = rewriter.node(id)?;
        let (Op::Add, &[a, b]) = (&node.op, &node.operands[..]) else { return None };
        fuse(rewriter, id, b, a).or_else(|| fuse(rewriter, id, a, b))
    });
}

fn fuse(rewriter: &mut Rewriter<'_>, id: NodeId, normed: ValueId, residual: ValueId) -> Option<()> {
    let node = rewriter.single_use_definition(normed)?;
    let Op::Norm(norm) = &node.op else { return None };
    if norm.residual {
        return None;
    }
    let op = Op::Norm(Norm { residual: true, ..norm.clone() });
    let operands = node.operands.iter().copied().chain([residual]).collect();
    rewriter.set(id, op, operands)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, check_refuses};
    use expect_test::expect;

    #[test]
    fn gemma2_post_norm() {
        check(
            "fuse_norm_residual",
            "graph f
            %h = input h : f32[rows, 4]
            %x = input x : f32[rows, 4]
            %n = weight n : f32[4]
            %normed = rms_norm %x, %n {eps=1e-6} : f32[rows, 4]
            %y = add %h, %normed : f32[rows, 4]
            return y=%y",
            expect![[r#"
                graph f
                %h = input h : f32[rows, 4]
                %x = input x : f32[rows, 4]
                %n = weight n : f32[4]
                %y = rms_norm %x, %n, %h {eps=1e-6, residual} : f32[rows, 4]
                return y=%y
            "#]],
        );
    }

    #[test]
    fn layer_norm_on_the_left() {
        check(
            "fuse_norm_residual",
            "graph f
            %h = input h : f32[rows, 4]
            %x = input x : f32[rows, 4]
            %n = weight n : f32[4]
            %b = weight b : f32[4]
            %normed = layer_norm %x, %n, %b {eps=1e-6} : f32[rows, 4]
            %y = add %normed, %h : f32[rows, 4]
            return y=%y",
            expect![[r#"
                graph f
                %h = input h : f32[rows, 4]
                %x = input x : f32[rows, 4]
                %n = weight n : f32[4]
                %b = weight b : f32[4]
                %y = layer_norm %x, %n, %b, %h {eps=1e-6, residual} : f32[rows, 4]
                return y=%y
            "#]],
        );
    }

    #[test]
    fn one_residual_each() {
        check(
            "fuse_norm_residual",
            "graph f
            %h = input h : f32[rows, 4]
            %x = input x : f32[rows, 4]
            %n = weight n : f32[4]
            %normed = rms_norm %x, %n {eps=1e-6} : f32[rows, 4]
            %a = add %h, %normed : f32[rows, 4]
            %y = add %a, %h : f32[rows, 4]
            return y=%y",
            expect![[r#"
                graph f
                %h = input h : f32[rows, 4]
                %x = input x : f32[rows, 4]
                %n = weight n : f32[4]
                %a = rms_norm %x, %n, %h {eps=1e-6, residual} : f32[rows, 4]
                %y = add %a, %h : f32[rows, 4]
                return y=%y
            "#]],
        );
    }

    #[test]
    fn a_norm_with_another_use() {
        check_refuses(
            "fuse_norm_residual",
            "graph f
            %h = input h : f32[rows, 4]
            %x = input x : f32[rows, 4]
            %n = weight n : f32[4]
            %normed = rms_norm %x, %n {eps=1e-6} : f32[rows, 4]
            %y = add %h, %normed : f32[rows, 4]
            return normed=%normed, y=%y",
        );
    }

    #[test]
    fn a_vector_is_no_residual() {
        check_refuses(
            "fuse_norm_residual",
            "graph f
            %x = input x : f32[rows, 4]
            %n = weight n : f32[4]
            %normed = rms_norm %x, %n {eps=1e-6} : f32[rows, 4]
            %y = add %normed, %n : f32[rows, 4]
            return y=%y",
        );
    }
}
