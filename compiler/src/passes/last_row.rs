//! Computes only the last row of what is only needed there: the head, and the last layer's MLP.
//!
//! A value is needed *in its last row* when each of its uses is a `LastRow`, or a row-wise operation whose result is
//! itself needed in its last row. Such values get one row; where they meet values that are needed whole, a `LastRow`
//! takes the row. So `LastRow(SoftCap(MatMul(Norm(x), w)))` becomes `SoftCap(MatMul(Norm(LastRow(x)), w))`: the logits
//! of 512 positions over 256 000 tokens would be 524 MB and 511 rows of them are never looked at.
//!
//! Row-wise: row t of the result depends on row t of the operands with rows, and on constants. Attention is not
//! (its rows know their position), nor is what writes a state.

use crate::graph::{Dim, Graph, Node, Op, Type, ValueId};

pub(super) fn run(graph: &mut Graph) {
    let last = needed_in_last_row(graph);
    let mut rows = Rows { last, taken: vec![None; graph.values.len()], nodes: Vec::new() };
    let mut replaced: Vec<Option<ValueId>> = vec![None; graph.values.len()];
    for mut node in std::mem::take(&mut graph.nodes) {
        for operand in &mut node.operands {
            *operand = replaced[operand.index()].unwrap_or(*operand);
        }
        if matches!(node.op, Op::LastRow) {
            let (x, result) = (node.operands[0], node.results[0]);
            let one = if graph.ty(x).rows() == Dim::Fixed(1) { Some(x) } else { rows.taken[x.index()] };
            if let Some(one) = one {
                if graph.values[one.index()].label.is_none() {
                    graph.values[one.index()].label = graph.values[result.index()].label.take();
                }
                replaced[result.index()] = Some(one);
                continue;
            }
            rows.taken[x.index()] = Some(result);
        } else if is_row_wise(&node.op) && rows.last[node.results[0].index()] {
            for operand in &mut node.operands {
                *operand = rows.last_row_of(graph, *operand);
            }
            graph.values[node.results[0].index()].ty.shape[0] = Dim::Fixed(1);
        }
        rows.nodes.push(node);
    }
    graph.nodes = rows.nodes;
    for (_, value) in &mut graph.outputs {
        *value = replaced[value.index()].unwrap_or(*value);
    }
}

/// By value of symbolic rows that a row-wise node defines: whether its last row is all that is needed of it.
fn needed_in_last_row(graph: &Graph) -> Vec<bool> {
    let mut needed_whole = vec![false; graph.values.len()];
    let mut used = vec![false; graph.values.len()];
    let mut last = vec![false; graph.values.len()];
    for (_, value) in &graph.outputs {
        needed_whole[value.index()] = true;
    }
    for node in graph.nodes.iter().rev() {
        if is_row_wise(&node.op) {
            let result = node.results[0].index();
            last[result] = used[result] && !needed_whole[result] && graph.values[result].ty.rows() == Dim::Rows;
        }
        let takes_last_row = matches!(node.op, Op::LastRow) || node.results.iter().any(|value| last[value.index()]);
        for operand in &node.operands {
            used[operand.index()] = true;
            needed_whole[operand.index()] |= !takes_last_row;
        }
    }
    last
}

const fn is_row_wise(op: &Op) -> bool {
    match op {
        Op::MatMul(_)
        | Op::Norm(_)
        | Op::Add
        | Op::Mul
        | Op::AddScalar { .. }
        | Op::Scale { .. }
        | Op::Activate(_)
        | Op::SoftCap { .. }
        | Op::Slice { .. }
        | Op::Glu(_) => true,
        Op::Input { .. }
        | Op::State { .. }
        | Op::Weight(_)
        | Op::Call(_)
        | Op::ConcatRows
        | Op::InterleaveRows
        | Op::Dequantize { .. }
        | Op::Embed { .. }
        | Op::SliceRows { .. }
        | Op::LastRow
        | Op::Rope(_)
        | Op::WriteRows { .. }
        | Op::Attention(_)
        | Op::OverlayRows
        | Op::Patchify { .. }
        | Op::RopeWriteKv(_) => false,
    }
}

struct Rows {
    /// By value: whether it is computed in its last row only.
    last: Vec<bool>,
    /// By value that is needed whole: its last row, once something took it.
    taken: Vec<Option<ValueId>>,
    nodes: Vec<Node>,
}

impl Rows {
    /// An operand's last row: itself where it has no other, or no rows at all.
    fn last_row_of(&mut self, graph: &mut Graph, value: ValueId) -> ValueId {
        if graph.ty(value).rows() != Dim::Rows {
            return value;
        }
        *self.taken[value.index()].get_or_insert_with(|| {
            let row = graph.new_value(Type::matrix(Dim::Fixed(1), graph.ty(value).columns()));
            self.nodes.push(Node { op: Op::LastRow, operands: vec![value], results: vec![row] });
            row
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, check_refuses};
    use expect_test::expect;

    #[test]
    fn head() {
        check(
            "last_row",
            "graph f
            %x = input x : f32[rows, 4]
            %n = weight n : f32[4]
            %w = weight w : f32[9, 4]
            %normed = rms_norm %x, %n {eps=1e-6} : f32[rows, 4]
            %product = matmul %normed, %w : f32[rows, 9]
            %capped = soft_cap %product {cap=30.0} : f32[rows, 9]
            %logits = last_row %capped : f32[1, 9]
            return logits=%logits",
            expect![[r#"
                graph f
                %x = input x : f32[rows, 4]
                %n = weight n : f32[4]
                %w = weight w : f32[9, 4]
                %0 = last_row %x : f32[1, 4]
                %normed = rms_norm %0, %n {eps=1e-6} : f32[1, 4]
                %product = matmul %normed, %w : f32[1, 9]
                %capped = soft_cap %product {cap=30.0} : f32[1, 9]
                return logits=%capped
            "#]],
        );
    }

    /// Both paths of the residual stream: x is needed whole by nothing.
    #[test]
    fn mlp_of_the_last_layer() {
        check(
            "last_row",
            "graph f
            %x = input x : f32[rows, 4]
            %n = weight n : f32[4]
            %w = weight w : f32[4, 4]
            %h = soft_cap %x {cap=9.0} : f32[rows, 4]
            %normed = rms_norm %h, %n {eps=1e-6} : f32[rows, 4]
            %up = matmul %normed, %w : f32[rows, 4]
            %sum = add %h, %up : f32[rows, 4]
            %y = last_row %sum : f32[1, 4]
            return y=%y",
            expect![[r#"
                graph f
                %x = input x : f32[rows, 4]
                %n = weight n : f32[4]
                %w = weight w : f32[4, 4]
                %0 = last_row %x : f32[1, 4]
                %h = soft_cap %0 {cap=9.0} : f32[1, 4]
                %normed = rms_norm %h, %n {eps=1e-6} : f32[1, 4]
                %up = matmul %normed, %w : f32[1, 4]
                %sum = add %h, %up : f32[1, 4]
                return y=%sum
            "#]],
        );
    }

    /// The row of h that was taken anyway is taken once.
    #[test]
    fn returned_rows_stay_whole() {
        check(
            "last_row",
            "graph f
            %x = input x : f32[rows, 4]
            %n = weight n : f32[4]
            %h = scale %x {factor=3.0} : f32[rows, 4]
            %normed = rms_norm %h, %n {eps=1e-6} : f32[rows, 4]
            %y = last_row %normed : f32[1, 4]
            %hidden = last_row %h : f32[1, 4]
            return y=%y, hidden=%hidden, h=%h",
            expect![[r#"
                graph f
                %x = input x : f32[rows, 4]
                %n = weight n : f32[4]
                %h = scale %x {factor=3.0} : f32[rows, 4]
                %hidden = last_row %h : f32[1, 4]
                %normed = rms_norm %hidden, %n {eps=1e-6} : f32[1, 4]
                return y=%normed, hidden=%hidden, h=%h
            "#]],
        );
    }

    #[test]
    fn attention_knows_positions() {
        check_refuses(
            "last_row",
            "graph f
            @0 = rope {head_dim=2, magnitude=1.0, inv_freq=[1.0]}
            %x = input x : f32[rows, 2]
            %k = state k : f32[8, 2]
            %v = state v : f32[8, 2]
            %position = call position : u32[]
            %q = rope %x, %position {rope=@0} : f32[rows, 2]
            %a = attention %q, %k, %v, %position {n_heads=1, n_kv_heads=1, head_dim=2, scale=1.0, causal} : f32[rows, 2]
            %y = last_row %a : f32[1, 2]
            return y=%y",
        );
    }

    #[test]
    fn one_row_is_its_own_last() {
        check(
            "last_row",
            "graph f
            %x = input x : f32[1, 4]
            %a = scale %x {factor=3.0} : f32[1, 4]
            %y = last_row %a : f32[1, 4]
            return y=%y",
            expect![[r#"
                graph f
                %x = input x : f32[1, 4]
                %a = scale %x {factor=3.0} : f32[1, 4]
                return y=%a
            "#]],
        );
    }

    #[test]
    fn returned_values_stay() {
        check_refuses(
            "last_row",
            "graph f
            %x = input x : f32[rows, 4]
            %a = scale %x {factor=3.0} : f32[rows, 4]
            %y = last_row %a : f32[1, 4]
            return a=%a, y=%y",
        );
    }
}
