//! `f(x gᵀ) * (x uᵀ)` becomes one product with the rows of g and u interleaved, and `Glu`.
//!
//! Columns 2i and 2i + 1 of the product then lie in one invocation, which can write the gated value at once. Where both are
//! halves of one product (Phi 3 stores the rows of g before those of u), its rows are put into the other order.

use super::rewriter::{NodeId, Rewriter};
use super::stored_product::{StoredProduct, add_merged, add_with_halves_interleaved};
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
    let gate = activate.operands[0];
    let product = merged_products(rewriter, gate, up).or_else(|| reordered_product(rewriter, gate, up))?;
    rewriter.set(id, Op::Glu(activation), vec![product])
}

/// One product for those that gate and up are.
fn merged_products(rewriter: &mut Rewriter<'_>, gate: ValueId, up: ValueId) -> Option<ValueId> {
    let (gate, up) = (product_of(rewriter, gate)?, product_of(rewriter, up)?);
    if !gate.fits(&up) || gate.n != up.n {
        return None;
    }
    add_merged(rewriter, &[gate, up], &Op::InterleaveRows)
}

/// The product whose halves gate and up are, with its rows reordered.
fn reordered_product(rewriter: &mut Rewriter<'_>, gate: ValueId, up: ValueId) -> Option<ValueId> {
    let (gate, up) = (sliced(rewriter, gate)?, sliced(rewriter, up)?);
    let product = StoredProduct::at(rewriter, rewriter.definition_id(gate.of)?)?;
    let half = product.n / 2;
    let halves = gate.of == up.of && (gate.start, gate.len) == (0, half) && (up.start, up.len) == (half, half);
    let others = rewriter.is_returned(gate.of) || rewriter.users(gate.of).count() != 2;
    if !halves || others || product.n != 2 * half {
        return None;
    }
    add_with_halves_interleaved(rewriter, &product)
}

/// Columns of another value.
struct Sliced {
    of: ValueId,
    start: usize,
    len: usize,
}

/// The columns that a value is, if one operand of one node is its only use.
fn sliced(rewriter: &Rewriter<'_>, value: ValueId) -> Option<Sliced> {
    let node = rewriter.single_use_definition(value)?;
    match (&node.op, &node.operands[..]) {
        (&Op::Slice { start, len }, &[of]) => Some(Sliced { of, start, len }),
        _ => None,
    }
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
    fn halves_of_one_product() {
        check(
            "merge_gate_up",
            "graph f
            %x = input x : f32[rows, 40]
            %c = weight w.codes : u32[12, 8]
            %s = weight w.scales : f16[12, 2]
            %w = dequantize %c, %s {format=q4g32f16, columns=40} : f32[12, 40]
            %both = matmul %x, %w : f32[rows, 12]
            %g = slice %both {start=0, len=6} : f32[rows, 6]
            %u = slice %both {start=6, len=6} : f32[rows, 6]
            %a = silu %g : f32[rows, 6]
            %y = mul %u, %a : f32[rows, 6]
            return y=%y",
            expect![[r#"
                graph f
                %x = input x : f32[rows, 40]
                %c = weight w.codes : u32[12, 8]
                %s = weight w.scales : f16[12, 2]
                %0 = slice_rows %c {start=0, len=6} : u32[6, 8]
                %1 = slice_rows %c {start=6, len=6} : u32[6, 8]
                %2 = interleave_rows %0, %1 : u32[12, 8]
                %3 = slice_rows %s {start=0, len=6} : f16[6, 2]
                %4 = slice_rows %s {start=6, len=6} : f16[6, 2]
                %5 = interleave_rows %3, %4 : f16[12, 2]
                %6 = dequantize %2, %5 {format=q4g32f16, columns=40} : f32[12, 40]
                %7 = matmul %x, %6 : f32[rows, 12]
                %y = glu %7 {activation=silu} : f32[rows, 6]
                return y=%y
            "#]],
        );
    }

    #[test]
    fn halves_in_the_other_order() {
        check_refuses(
            "merge_gate_up",
            "graph f
            %x = input x : f32[rows, 4]
            %w = weight w : f32[12, 4]
            %both = matmul %x, %w : f32[rows, 12]
            %g = slice %both {start=6, len=6} : f32[rows, 6]
            %u = slice %both {start=0, len=6} : f32[rows, 6]
            %a = silu %g : f32[rows, 6]
            %y = mul %u, %a : f32[rows, 6]
            return y=%y",
        );
    }

    #[test]
    fn halves_that_are_returned_together() {
        check_refuses(
            "merge_gate_up",
            "graph f
            %x = input x : f32[rows, 4]
            %w = weight w : f32[12, 4]
            %both = matmul %x, %w : f32[rows, 12]
            %g = slice %both {start=0, len=6} : f32[rows, 6]
            %u = slice %both {start=6, len=6} : f32[rows, 6]
            %a = silu %g : f32[rows, 6]
            %y = mul %u, %a : f32[rows, 6]
            return y=%y, both=%both",
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
