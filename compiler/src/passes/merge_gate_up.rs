//! `f(x gᵀ) * (x uᵀ)` becomes one product with the rows of g and u interleaved, and `Glu`.
//!
//! Columns 2i and 2i + 1 of the product then lie in one invocation, which can write the gated value at once.

use super::rewriter::{NodeId, Rewriter};
use super::stored_product::{StoredProduct, add_merged};
use crate::graph::{Graph, Op, ValueId};

pub(super) fn run(graph: &mut Graph) {
    Rewriter::each_node(graph, |rewriter, id| {
        let node = rewriter.node(id)?;
        let (Op::Mul, &[a, b]) = (&node.op, &node.operands[..]) else { return None };
        merge(rewriter, id, a, b).or_else(|| merge(rewriter, id, b, a))
    });
}

fn merge(rewriter: &mut Rewriter<'_>, id: NodeId, activated: ValueId, up: ValueId) -> Option<()> {
    let activate = rewriter.single_use_definition(activated)?;
    let Op::Activate(activation) = activate.op else { return None };
    let gate = product_of(rewriter, activate.operands[0])?;
    let up = product_of(rewriter, up)?;
    if !gate.fits(&up) || gate.n != up.n {
        return None;
    }
    let product = add_merged(rewriter, &[gate, up], &Op::InterleaveRows)?;
    rewriter.set(id, Op::Glu(activation), vec![product])
}

/// The product that a value is, if one operand of one node is its only use.
fn product_of(rewriter: &Rewriter<'_>, value: ValueId) -> Option<StoredProduct> {
    rewriter.only_user(value)?;
    StoredProduct::at(rewriter, rewriter.definition_id(value)?)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, check_refuses};
    use expect_test::expect;

    #[test]
    fn gated_mlp() {
        check(
            "merge_gate_up",
            "graph f
            %x = input x : f32[rows, 40]
            %gc = weight g.codes : u32[6, 8]
            %gs = weight g.scales : f16[6, 2]
            %uc = weight u.codes : u32[6, 8]
            %us = weight u.scales : f16[6, 2]
            %gw = dequantize %gc, %gs {format=q4g32f16, columns=40} : f32[6, 40]
            %g = matmul %x, %gw : f32[rows, 6]
            %a = gelu_tanh %g : f32[rows, 6]
            %uw = dequantize %uc, %us {format=q4g32f16, columns=40} : f32[6, 40]
            %u = matmul %x, %uw : f32[rows, 6]
            %y = mul %a, %u : f32[rows, 6]
            return y=%y",
            expect![[r#"
                graph f
                %x = input x : f32[rows, 40]
                %gc = weight g.codes : u32[6, 8]
                %gs = weight g.scales : f16[6, 2]
                %uc = weight u.codes : u32[6, 8]
                %us = weight u.scales : f16[6, 2]
                %0 = interleave_rows %gc, %uc : u32[12, 8]
                %1 = interleave_rows %gs, %us : f16[12, 2]
                %2 = dequantize %0, %1 {format=q4g32f16, columns=40} : f32[12, 40]
                %3 = matmul %x, %2 : f32[rows, 12]
                %y = glu %3 {activation=gelu_tanh} : f32[rows, 6]
                return y=%y
            "#]],
        );
    }

    #[test]
    fn either_order() {
        check(
            "merge_gate_up",
            "graph f
            %x = input x : f32[rows, 4]
            %gw = weight g : f32[6, 4]
            %uw = weight u : f32[6, 4]
            %u = matmul %x, %uw : f32[rows, 6]
            %g = matmul %x, %gw : f32[rows, 6]
            %a = silu %g : f32[rows, 6]
            %y = mul %u, %a : f32[rows, 6]
            return y=%y",
            expect![[r#"
                graph f
                %x = input x : f32[rows, 4]
                %gw = weight g : f32[6, 4]
                %uw = weight u : f32[6, 4]
                %0 = interleave_rows %gw, %uw : f32[12, 4]
                %1 = matmul %x, %0 : f32[rows, 12]
                %y = glu %1 {activation=silu} : f32[rows, 6]
                return y=%y
            "#]],
        );
    }

    #[test]
    fn formats_differ() {
        check_refuses(
            "merge_gate_up",
            "graph f
            %x = input x : f32[rows, 4]
            %gh = weight g : f16[6, 4]
            %gw = dequantize %gh {format=f16, columns=4} : f32[6, 4]
            %uw = weight u : f32[6, 4]
            %g = matmul %x, %gw : f32[rows, 6]
            %a = silu %g : f32[rows, 6]
            %u = matmul %x, %uw : f32[rows, 6]
            %y = mul %a, %u : f32[rows, 6]
            return y=%y",
        );
    }

    #[test]
    fn inputs_differ() {
        check_refuses(
            "merge_gate_up",
            "graph f
            %x = input x : f32[rows, 4]
            %z = input z : f32[rows, 4]
            %gw = weight g : f32[6, 4]
            %uw = weight u : f32[6, 4]
            %g = matmul %x, %gw : f32[rows, 6]
            %a = silu %g : f32[rows, 6]
            %u = matmul %z, %uw : f32[rows, 6]
            %y = mul %a, %u : f32[rows, 6]
            return y=%y",
        );
    }

    #[test]
    fn a_gate_that_is_returned() {
        check_refuses(
            "merge_gate_up",
            "graph f
            %x = input x : f32[rows, 4]
            %gw = weight g : f32[6, 4]
            %uw = weight u : f32[6, 4]
            %g = matmul %x, %gw : f32[rows, 6]
            %a = silu %g : f32[rows, 6]
            %u = matmul %x, %uw : f32[rows, 6]
            %y = mul %a, %u : f32[rows, 6]
            return g=%g, y=%y",
        );
    }

    /// Merged, it would be stored twice.
    #[test]
    fn a_weight_used_elsewhere() {
        check_refuses(
            "merge_gate_up",
            "graph f
            %x = input x : f32[rows, 4]
            %gw = weight g : f32[6, 4]
            %uw = weight u : f32[6, 4]
            %g = matmul %x, %gw : f32[rows, 6]
            %a = silu %g : f32[rows, 6]
            %u = matmul %x, %uw : f32[rows, 6]
            %m = mul %a, %u : f32[rows, 6]
            %again = matmul %x, %uw : f32[rows, 6]
            %y = add %m, %again : f32[rows, 6]
            return y=%y",
        );
    }
}
