//! Products of one x with several weights of one format become one product and slices of it: q, k and v.
//!
//! Where each of them gets a bias, the biases are merged, too: `(x qᵀ + a), (x kᵀ + b)` becomes slices of
//! `x rows(q, k)ᵀ + rows(a, b)`. Weights that differ in format stay apart; those that agree are still merged.

use super::rewriter::{NodeId, Rewriter};
use super::stored_product::{StoredProduct, add_merged, is_bias};
use crate::graph::{Graph, Op, ValueId};

pub(super) fn run(graph: &mut Graph) {
    Rewriter::each_node(graph, merge);
}

fn merge(rewriter: &mut Rewriter<'_>, id: NodeId) -> Option<()> {
    let first = StoredProduct::at(rewriter, id)?;
    let products: Vec<StoredProduct> = rewriter
        .users(first.x)
        .filter_map(|user| StoredProduct::at(rewriter, user))
        .filter(|p| p.fits(&first))
        .collect();
    if products.len() < 2 {
        return None;
    }
    let biased: Option<Vec<(NodeId, ValueId)>> = products.iter().map(|p| bias_of(rewriter, p)).collect();
    let mut merged = add_merged(rewriter, &products, &Op::ConcatRows)?;
    let replaced: Vec<NodeId> = match biased {
        Some(biased) => {
            let bias = rewriter.add(Op::ConcatRows, biased.iter().map(|&(_, bias)| bias).collect())?;
            merged = rewriter.add(Op::Add, vec![merged, bias])?;
            biased.into_iter().map(|(sum, _)| sum).collect()
        }
        None => products.iter().filter_map(|p| rewriter.definition_id(p.result)).collect(),
    };
    let mut start = 0;
    for (product, node) in products.iter().zip(replaced) {
        rewriter.set(node, Op::Slice { start, len: product.n }, vec![merged])?;
        start += product.n;
    }
    Some(())
}

/// The addition of a bias that is a product's only use, and the bias.
fn bias_of(rewriter: &Rewriter<'_>, product: &StoredProduct) -> Option<(NodeId, ValueId)> {
    let id = rewriter.only_user(product.result)?;
    let sum = rewriter.node(id)?;
    let &[y, bias] = &sum.operands[..] else { return None };
    (sum.op == Op::Add && y == product.result && is_bias(rewriter, bias, product.n)).then_some((id, bias))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, check_refuses};
    use expect_test::expect;

    #[test]
    fn q_k_v() {
        check(
            "merge_siblings",
            "graph f
            %x = input x : f32[rows, 40]
            %qc = weight q.codes : u32[6, 8]
            %qs = weight q.scales : f16[6, 2]
            %qw = dequantize %qc, %qs {format=q4g32f16, columns=40} : f32[6, 40]
            %q = matmul %x, %qw : f32[rows, 6]
            %kc = weight k.codes : u32[2, 8]
            %ks = weight k.scales : f16[2, 2]
            %kw = dequantize %kc, %ks {format=q4g32f16, columns=40} : f32[2, 40]
            %k = matmul %x, %kw : f32[rows, 2]
            %vc = weight v.codes : u32[2, 8]
            %vs = weight v.scales : f16[2, 2]
            %vw = dequantize %vc, %vs {format=q4g32f16, columns=40} : f32[2, 40]
            %v = matmul %x, %vw : f32[rows, 2]
            return q=%q, k=%k, v=%v",
            expect![[r#"
                graph f
                %x = input x : f32[rows, 40]
                %qc = weight q.codes : u32[6, 8]
                %qs = weight q.scales : f16[6, 2]
                %kc = weight k.codes : u32[2, 8]
                %vc = weight v.codes : u32[2, 8]
                %0 = concat_rows %qc, %kc, %vc : u32[10, 8]
                %ks = weight k.scales : f16[2, 2]
                %vs = weight v.scales : f16[2, 2]
                %1 = concat_rows %qs, %ks, %vs : f16[10, 2]
                %2 = dequantize %0, %1 {format=q4g32f16, columns=40} : f32[10, 40]
                %3 = matmul %x, %2 : f32[rows, 10]
                %q = slice %3 {start=0, len=6} : f32[rows, 6]
                %k = slice %3 {start=6, len=2} : f32[rows, 2]
                %v = slice %3 {start=8, len=2} : f32[rows, 2]
                return q=%q, k=%k, v=%v
            "#]],
        );
    }

    /// q is used before k is there: the merged product goes before both.
    #[test]
    fn biases_move_along() {
        check(
            "merge_siblings",
            "graph f
            %x = input x : f32[rows, 4]
            %qw = weight q : f32[6, 4]
            %qb = weight q.bias : f32[6]
            %kw = weight k : f32[2, 4]
            %kb = weight k.bias : f32[2]
            %qx = matmul %x, %qw : f32[rows, 6]
            %q = add %qx, %qb : f32[rows, 6]
            %capped = soft_cap %q {cap=2.0} : f32[rows, 6]
            %kx = matmul %x, %kw : f32[rows, 2]
            %k = add %kx, %kb : f32[rows, 2]
            return q=%capped, k=%k",
            expect![[r#"
                graph f
                %x = input x : f32[rows, 4]
                %qw = weight q : f32[6, 4]
                %qb = weight q.bias : f32[6]
                %kw = weight k : f32[2, 4]
                %kb = weight k.bias : f32[2]
                %0 = concat_rows %qw, %kw : f32[8, 4]
                %1 = matmul %x, %0 : f32[rows, 8]
                %2 = concat_rows %qb, %kb : f32[8]
                %3 = add %1, %2 : f32[rows, 8]
                %q = slice %3 {start=0, len=6} : f32[rows, 6]
                %capped = soft_cap %q {cap=2.0} : f32[rows, 6]
                %k = slice %3 {start=6, len=2} : f32[rows, 2]
                return q=%capped, k=%k
            "#]],
        );
    }

    #[test]
    fn only_one_has_a_bias() {
        check(
            "merge_siblings",
            "graph f
            %x = input x : f32[rows, 4]
            %qw = weight q : f32[6, 4]
            %qb = weight q.bias : f32[6]
            %kw = weight k : f32[2, 4]
            %qx = matmul %x, %qw : f32[rows, 6]
            %q = add %qx, %qb : f32[rows, 6]
            %k = matmul %x, %kw : f32[rows, 2]
            return q=%q, k=%k",
            expect![[r#"
                graph f
                %x = input x : f32[rows, 4]
                %qw = weight q : f32[6, 4]
                %qb = weight q.bias : f32[6]
                %kw = weight k : f32[2, 4]
                %0 = concat_rows %qw, %kw : f32[8, 4]
                %1 = matmul %x, %0 : f32[rows, 8]
                %qx = slice %1 {start=0, len=6} : f32[rows, 6]
                %q = add %qx, %qb : f32[rows, 6]
                %k = slice %1 {start=6, len=2} : f32[rows, 2]
                return q=%q, k=%k
            "#]],
        );
    }

    #[test]
    fn those_of_one_format() {
        check(
            "merge_siblings",
            "graph f
            %x = input x : f32[rows, 4]
            %qw = weight q : f32[6, 4]
            %kh = weight k : f16[2, 4]
            %kw = dequantize %kh {format=f16, columns=4} : f32[2, 4]
            %vw = weight v : f32[2, 4]
            %q = matmul %x, %qw : f32[rows, 6]
            %k = matmul %x, %kw : f32[rows, 2]
            %v = matmul %x, %vw : f32[rows, 2]
            return q=%q, k=%k, v=%v",
            expect![[r#"
                graph f
                %x = input x : f32[rows, 4]
                %qw = weight q : f32[6, 4]
                %kh = weight k : f16[2, 4]
                %kw = dequantize %kh {format=f16, columns=4} : f32[2, 4]
                %vw = weight v : f32[2, 4]
                %0 = concat_rows %qw, %vw : f32[8, 4]
                %1 = matmul %x, %0 : f32[rows, 8]
                %q = slice %1 {start=0, len=6} : f32[rows, 6]
                %k = matmul %x, %kw : f32[rows, 2]
                %v = slice %1 {start=6, len=2} : f32[rows, 2]
                return q=%q, k=%k, v=%v
            "#]],
        );
    }

    #[test]
    fn one_weight_twice() {
        check_refuses(
            "merge_siblings",
            "graph f
            %x = input x : f32[rows, 4]
            %w = weight w : f32[6, 4]
            %a = matmul %x, %w : f32[rows, 6]
            %b = matmul %x, %w : f32[rows, 6]
            return a=%a, b=%b",
        );
    }

    #[test]
    fn a_product_with_a_computed_matrix() {
        check_refuses(
            "merge_siblings",
            "graph f
            %x = input x : f32[rows, 4]
            %w = weight w : f32[6, 4]
            %z = input z : f32[6, 4]
            %a = matmul %x, %w : f32[rows, 6]
            %b = matmul %x, %z : f32[rows, 6]
            return a=%a, b=%b",
        );
    }
}
