//! `Dequantize` moves into the products and look-ups that read it: they decode the stored matrix as they go.
//!
//! The f32 matrix is never written; it would be up to eight times the stored one.

use super::rewriter::{NodeId, Rewriter};
use crate::graph::{Graph, MatMul, Op};

pub(super) fn run(graph: &mut Graph) {
    Rewriter::each_node(graph, fuse);
}

fn fuse(rewriter: &mut Rewriter<'_>, id: NodeId) -> Option<()> {
    let node = rewriter.node(id)?;
    let matrix = rewriter.definition(*node.operands.get(1)?)?;
    let Op::Dequantize { format, .. } = matrix.op else { return None };
    let op = match &node.op {
        Op::MatMul(m) if m.format.is_none() => Op::MatMul(MatMul { format: Some(format), ..m.clone() }),
        &Op::Embed { scale, format: None, columns } => Op::Embed { scale, format: Some(format), columns },
        _ => return None,
    };
    let mut operands = node.operands.clone();
    operands.splice(1..2, matrix.operands.iter().copied());
    rewriter.set(id, op, operands)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, check_refuses};
    use expect_test::expect;

    #[test]
    fn product_and_tied_embedding() {
        check(
            "fuse_dequantize",
            "graph f
            %tokens = input tokens : u32[rows]
            %c = weight w.codes : u32[9, 4]
            %s = weight w.scales : f32[9, 1]
            %w = dequantize %c, %s {format=q4g32f32, columns=20} : f32[9, 20]
            %x = embed %tokens, %w {scale=2.0, columns=20} : f32[rows, 20]
            %y = matmul %x, %w : f32[rows, 9]
            return y=%y",
            expect![[r#"
                graph f
                %tokens = input tokens : u32[rows]
                %c = weight w.codes : u32[9, 4]
                %s = weight w.scales : f32[9, 1]
                %x = embed %tokens, %c, %s {scale=2.0, format=q4g32f32, columns=20} : f32[rows, 20]
                %y = matmul %x, %c, %s {format=q4g32f32} : f32[rows, 9]
                return y=%y
            "#]],
        );
    }

    #[test]
    fn floats() {
        check(
            "fuse_dequantize",
            "graph f
            %x = input x : f32[rows, 4]
            %h = weight w : bf16[6, 4]
            %w = dequantize %h {format=bf16, columns=4} : f32[6, 4]
            %b = weight b : f32[6]
            %r = input r : f32[rows, 6]
            %y = matmul %x, %w, %b, %r {bias, residual} : f32[rows, 6]
            return y=%y",
            expect![[r#"
                graph f
                %x = input x : f32[rows, 4]
                %h = weight w : bf16[6, 4]
                %b = weight b : f32[6]
                %r = input r : f32[rows, 6]
                %y = matmul %x, %h, %b, %r {format=bf16, bias, residual} : f32[rows, 6]
                return y=%y
            "#]],
        );
    }

    #[test]
    fn other_readers_need_the_values() {
        check_refuses(
            "fuse_dequantize",
            "graph f
            %x = input x : f32[6, 4]
            %h = weight w : f16[6, 4]
            %w = dequantize %h {format=f16, columns=4} : f32[6, 4]
            %y = add %x, %w : f32[6, 4]
            return y=%y",
        );
    }

    #[test]
    fn f32_has_nothing_to_decode() {
        check_refuses(
            "fuse_dequantize",
            "graph f
            %x = input x : f32[rows, 4]
            %w = weight w : f32[6, 4]
            %y = matmul %x, %w : f32[rows, 6]
            return y=%y",
        );
    }
}
