//! Computes constants at compile time: `w + 1` and merged rows become recipes, scaling the embedding becomes its factor.
//!
//! | before | after |
//! |---|---|
//! | `AddScalar(Weight w)` | `Weight (w + value)` |
//! | `ConcatRows(Weight a, Weight b, …)` | `Weight rows(a, b, …)` |
//! | `InterleaveRows(Weight a, Weight b)` | `Weight interleave(a, b)` |
//! | `SliceRows(Weight a)` | `Weight slice(a, start, len)` |
//! | `Scale(Embed with scale 1)` | `Embed with scale factor` |
//! | `Scale` by 1 | its operand |
//!
//! A product of two factors is left alone unless one of them is 1: rounding twice is not rounding once.

use super::rewriter::{NodeId, Rewriter};
use crate::graph::{Graph, Op, Recipe, ValueId};

pub(super) fn run(graph: &mut Graph) {
    Rewriter::each_node(graph, |rewriter, id| fold_recipe(rewriter, id).or_else(|| fold_scale(rewriter, id)));
}

fn fold_recipe(rewriter: &mut Rewriter<'_>, id: NodeId) -> Option<()> {
    let node = rewriter.node(id)?;
    let parts = || node.operands.iter().map(|&operand| rewriter.constant(operand).cloned()).collect::<Option<Vec<_>>>();
    let recipe = match &node.op {
        Op::AddScalar { value } => Recipe::AddScalar(Box::new(parts()?.pop()?), *value),
        Op::ConcatRows => Recipe::ConcatRows(parts()?),
        Op::SliceRows { start, len } => Recipe::SliceRows { of: Box::new(parts()?.pop()?), start: *start, len: *len },
        Op::InterleaveRows => Recipe::InterleaveRows(Box::new(<[Recipe; 2]>::try_from(parts()?).ok()?)),
        _ => return None,
    };
    rewriter.set(id, Op::Weight(recipe), Vec::new())
}

fn fold_scale(rewriter: &mut Rewriter<'_>, id: NodeId) -> Option<()> {
    let node = rewriter.node(id)?;
    let Op::Scale { factor } = node.op else { return None };
    let (result, x): (ValueId, ValueId) = (node.results[0], node.operands[0]);
    if factor == 1.0 {
        return rewriter.replace_value(result, x);
    }
    let embed = rewriter.single_use_definition(x)?;
    match embed.op {
        Op::Embed { scale: 1.0, format, columns } => {
            let operands = embed.operands.clone();
            rewriter.set(id, Op::Embed { scale: factor, format, columns }, operands)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, check_refuses};
    use expect_test::expect;

    #[test]
    fn gemma_norm_weight() {
        check(
            "fold_constants",
            "graph f
            %x = input x : f32[1, 4]
            %w = weight norm.weight : f32[4]
            %one = add_scalar %w {value=1.0} : f32[4]
            %y = rms_norm %x, %one {eps=1e-6} : f32[1, 4]
            return y=%y",
            expect![[r#"
                graph f
                %x = input x : f32[1, 4]
                %one = weight (norm.weight + 1) : f32[4]
                %y = rms_norm %x, %one {eps=1e-6} : f32[1, 4]
                return y=%y
            "#]],
        );
    }

    #[test]
    fn merged_rows() {
        check(
            "fold_constants",
            "graph f
            %x = input x : f32[1, 4]
            %a = weight a : f32[3, 4]
            %b = weight b : f32[3, 4]
            %c = weight c : f32[6, 4]
            %ab = interleave_rows %a, %b : f32[6, 4]
            %abc = concat_rows %ab, %c : f32[12, 4]
            %y = matmul %x, %abc : f32[1, 12]
            return y=%y",
            expect![[r#"
                graph f
                %x = input x : f32[1, 4]
                %abc = weight rows(interleave(a, b), c) : f32[12, 4]
                %y = matmul %x, %abc : f32[1, 12]
                return y=%y
            "#]],
        );
    }

    #[test]
    fn merged_codes_keep_their_format() {
        check(
            "fold_constants",
            "graph f
            %x = input x : f32[1, 40]
            %ac = weight a.codes : u32[3, 8]
            %as = weight a.scales : f16[3, 2]
            %bc = weight b.codes : u32[2, 8]
            %bs = weight b.scales : f16[2, 2]
            %c = concat_rows %ac, %bc : u32[5, 8]
            %s = concat_rows %as, %bs : f16[5, 2]
            %w = dequantize %c, %s {format=q4g32f16, columns=40} : f32[5, 40]
            %y = matmul %x, %w : f32[1, 5]
            return y=%y",
            expect![[r#"
                graph f
                %x = input x : f32[1, 40]
                %c = weight rows(a.codes, b.codes) : u32[5, 8]
                %s = weight rows(a.scales, b.scales) : f16[5, 2]
                %w = dequantize %c, %s {format=q4g32f16, columns=40} : f32[5, 40]
                %y = matmul %x, %w : f32[1, 5]
                return y=%y
            "#]],
        );
    }

    #[test]
    fn embedding_scale() {
        check(
            "fold_constants",
            "graph f
            %tokens = input tokens : u32[rows]
            %table = weight table : f32[9, 4]
            %e = embed %tokens, %table {scale=1.0, columns=4} : f32[rows, 4]
            %y = scale %e {factor=5.65} : f32[rows, 4]
            return y=%y",
            expect![[r#"
                graph f
                %tokens = input tokens : u32[rows]
                %table = weight table : f32[9, 4]
                %y = embed %tokens, %table {scale=5.65, columns=4} : f32[rows, 4]
                return y=%y
            "#]],
        );
    }

    #[test]
    fn scaling_by_one() {
        check(
            "fold_constants",
            "graph f
            %x = input x : f32[1, 4]
            %a = soft_cap %x {cap=3.0} : f32[1, 4]
            %y = scale %a {factor=1.0} : f32[1, 4]
            return y=%y",
            expect![[r#"
                graph f
                %x = input x : f32[1, 4]
                %a = soft_cap %x {cap=3.0} : f32[1, 4]
                return y=%a
            "#]],
        );
    }

    #[test]
    fn two_factors_round_twice() {
        check_refuses(
            "fold_constants",
            "graph f
            %tokens = input tokens : u32[rows]
            %table = weight table : f32[9, 4]
            %e = embed %tokens, %table {scale=3.3, columns=4} : f32[rows, 4]
            %y = scale %e {factor=5.65} : f32[rows, 4]
            return y=%y",
        );
    }

    #[test]
    fn an_embedding_used_unscaled_keeps_its_scale() {
        check_refuses(
            "fold_constants",
            "graph f
            %tokens = input tokens : u32[rows]
            %table = weight table : f32[9, 4]
            %e = embed %tokens, %table {scale=1.0, columns=4} : f32[rows, 4]
            %y = scale %e {factor=5.65} : f32[rows, 4]
            return e=%e, y=%y",
        );
    }

    #[test]
    fn what_varies_is_not_constant() {
        check_refuses(
            "fold_constants",
            "graph f
            %x = input x : f32[1, 4]
            %y = add_scalar %x {value=1.0} : f32[1, 4]
            return y=%y",
        );
    }
}
