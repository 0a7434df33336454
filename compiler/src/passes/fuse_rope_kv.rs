//! Rotating q and k and writing k and v into the cache becomes one `RopeWriteKv` where q, k and v are slices of one value.
//!
//! ```text
//! q = Rope(Slice(qkv, 0, nq))            k' = WriteRows(k, Rope(Slice(qkv, nq, nk)), position)
//! Attention(q, k', v', position)         v' = WriteRows(v, Slice(qkv, nq + nk, nk), position)
//! ```
//! becomes `(q, k', v') = RopeWriteKv(qkv, k, v, position)`. Where the three come from different products, or are
//! normalised before the rotation, they stay as they are.

use super::rewriter::{NodeId, Rewriter};
use crate::graph::{CallScalar, Graph, Op, Rope, RopeWriteKv, ValueId};

pub(super) fn run(graph: &mut Graph) {
    Rewriter::each_node(graph, fuse);
}

fn fuse(rewriter: &mut Rewriter<'_>, id: NodeId) -> Option<()> {
    let node = rewriter.node(id)?;
    let (Op::Attention(attention), &[q, k, v, position]) = (&node.op, &node.operands[..]) else { return None };
    if rewriter.definition(position)?.op != Op::Call(CallScalar::Position) {
        return None;
    }
    let q_rows = rotated(rewriter, q, position)?;
    let k_write = written(rewriter, k, position)?;
    let v_write = written(rewriter, v, position)?;
    // The rotated k would have to be computed again for another user.
    rewriter.only_user(k_write.rows)?;
    let k_rows = rotated(rewriter, k_write.rows, position)?;

    let (q_columns, k_columns) = (attention.n_heads * attention.head_dim, attention.n_kv_heads * attention.head_dim);
    let (qkv, q_start, q_len) = sliced(rewriter, q_rows.x)?;
    let expected = [(k_rows.x, q_columns, k_columns), (v_write.rows, q_columns + k_columns, k_columns)];
    let slices_fit = (q_start, q_len) == (0, q_columns)
        && expected.into_iter().all(|(slice, start, len)| sliced(rewriter, slice) == Some((qkv, start, len)));
    if !slices_fit || q_rows.rope != k_rows.rope || q_rows.rope.head_dim != attention.head_dim {
        return None;
    }
    let op = Op::RopeWriteKv(RopeWriteKv {
        n_heads: attention.n_heads,
        n_kv_heads: attention.n_kv_heads,
        rope: q_rows.rope.clone(),
    });
    rewriter.take_over(op, vec![qkv, k_write.state, v_write.state, position], vec![q, k, v])
}

struct Rotated<'a> {
    rope: &'a Rope,
    x: ValueId,
}

/// A value as rows rotated for this position.
fn rotated<'a>(rewriter: &'a Rewriter<'_>, value: ValueId, position: ValueId) -> Option<Rotated<'a>> {
    let node = rewriter.definition(value)?;
    match (&node.op, &node.operands[..]) {
        (Op::Rope(rope), &[x, at]) if at == position => Some(Rotated { rope, x }),
        _ => None,
    }
}

struct Written {
    state: ValueId,
    rows: ValueId,
}

/// A value as a state with rows written at this position. The state is as it was before the call, so that k and v
/// cannot depend on one another.
fn written(rewriter: &Rewriter<'_>, value: ValueId, position: ValueId) -> Option<Written> {
    let node = rewriter.definition(value)?;
    let (Op::WriteRows { stride: 1, offset: 0 }, &[state, rows, start]) = (&node.op, &node.operands[..]) else {
        return None;
    };
    let untouched = matches!(rewriter.definition(state)?.op, Op::State { .. });
    (untouched && start == position).then_some(Written { state, rows })
}

/// A value as columns of another: `(of, start, len)`.
fn sliced(rewriter: &Rewriter<'_>, value: ValueId) -> Option<(ValueId, usize, usize)> {
    let node = rewriter.definition(value)?;
    match (&node.op, &node.operands[..]) {
        (&Op::Slice { start, len }, &[x]) => Some((x, start, len)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, check_refuses};
    use expect_test::expect;

    #[test]
    fn slices_of_one_value() {
        check(
            "fuse_rope_kv",
            "graph f
            @0 = rope {head_dim=2, magnitude=1.0, inv_freq=[0.5]}
            %qkv = input qkv : f32[rows, 8]
            %k.old = state kv.0.k : f32[12, 2]
            %v.old = state kv.0.v : f32[12, 2]
            %position = call position : u32[]
            %qs = slice %qkv {start=0, len=4} : f32[rows, 4]
            %ks = slice %qkv {start=4, len=2} : f32[rows, 2]
            %vs = slice %qkv {start=6, len=2} : f32[rows, 2]
            %q = rope %qs, %position {rope=@0} : f32[rows, 4]
            %kr = rope %ks, %position {rope=@0} : f32[rows, 2]
            %k = write_rows %k.old, %kr, %position {stride=1, offset=0} : f32[12, 2]
            %v = write_rows %v.old, %vs, %position {stride=1, offset=0} : f32[12, 2]
            %y = attention %q, %k, %v, %position {n_heads=2, n_kv_heads=1, head_dim=2, scale=0.7, causal} : f32[rows, 4]
            return y=%y, kv.0.k=%k, kv.0.v=%v",
            expect![[r#"
                graph f
                @0 = rope {head_dim=2, magnitude=1.0, inv_freq=[0.5]}
                %qkv = input qkv : f32[rows, 8]
                %k.old = state kv.0.k : f32[12, 2]
                %v.old = state kv.0.v : f32[12, 2]
                %position = call position : u32[]
                %q, %k, %v = rope_write_kv %qkv, %k.old, %v.old, %position {n_heads=2, n_kv_heads=1, rope=@0} : f32[rows, 4], f32[12, 2], f32[12, 2]
                %y = attention %q, %k, %v, %position {n_heads=2, n_kv_heads=1, head_dim=2, scale=0.7, causal} : f32[rows, 4]
                return y=%y, kv.0.k=%k, kv.0.v=%v
            "#]],
        );
    }

    #[test]
    fn another_rotation_for_k() {
        check_refuses(
            "fuse_rope_kv",
            "graph f
            @0 = rope {head_dim=2, magnitude=1.0, inv_freq=[0.5]}
            @1 = rope {head_dim=2, magnitude=1.0, inv_freq=[0.25]}
            %qkv = input qkv : f32[rows, 8]
            %k.old = state kv.0.k : f32[12, 2]
            %v.old = state kv.0.v : f32[12, 2]
            %position = call position : u32[]
            %qs = slice %qkv {start=0, len=4} : f32[rows, 4]
            %ks = slice %qkv {start=4, len=2} : f32[rows, 2]
            %vs = slice %qkv {start=6, len=2} : f32[rows, 2]
            %q = rope %qs, %position {rope=@0} : f32[rows, 4]
            %kr = rope %ks, %position {rope=@1} : f32[rows, 2]
            %k = write_rows %k.old, %kr, %position {stride=1, offset=0} : f32[12, 2]
            %v = write_rows %v.old, %vs, %position {stride=1, offset=0} : f32[12, 2]
            %y = attention %q, %k, %v, %position {n_heads=2, n_kv_heads=1, head_dim=2, scale=0.7, causal} : f32[rows, 4]
            return y=%y, kv.0.k=%k, kv.0.v=%v",
        );
    }

    #[test]
    fn written_with_a_stride() {
        check_refuses(
            "fuse_rope_kv",
            "graph f
            @0 = rope {head_dim=2, magnitude=1.0, inv_freq=[0.5]}
            %qkv = input qkv : f32[rows, 8]
            %k.old = state kv.0.k : f32[12, 2]
            %v.old = state kv.0.v : f32[12, 2]
            %position = call position : u32[]
            %qs = slice %qkv {start=0, len=4} : f32[rows, 4]
            %ks = slice %qkv {start=4, len=2} : f32[rows, 2]
            %vs = slice %qkv {start=6, len=2} : f32[rows, 2]
            %q = rope %qs, %position {rope=@0} : f32[rows, 4]
            %kr = rope %ks, %position {rope=@0} : f32[rows, 2]
            %k = write_rows %k.old, %kr, %position {stride=2, offset=0} : f32[12, 2]
            %v = write_rows %v.old, %vs, %position {stride=2, offset=0} : f32[12, 2]
            %y = attention %q, %k, %v, %position {n_heads=2, n_kv_heads=1, head_dim=2, scale=0.7, causal} : f32[rows, 4]
            return y=%y, kv.0.k=%k, kv.0.v=%v",
        );
    }

    #[test]
    fn slices_in_another_order() {
        check_refuses(
            "fuse_rope_kv",
            "graph f
            @0 = rope {head_dim=2, magnitude=1.0, inv_freq=[0.5]}
            %qkv = input qkv : f32[rows, 8]
            %k.old = state kv.0.k : f32[12, 2]
            %v.old = state kv.0.v : f32[12, 2]
            %position = call position : u32[]
            %qs = slice %qkv {start=0, len=4} : f32[rows, 4]
            %ks = slice %qkv {start=2, len=2} : f32[rows, 2]
            %vs = slice %qkv {start=6, len=2} : f32[rows, 2]
            %q = rope %qs, %position {rope=@0} : f32[rows, 4]
            %kr = rope %ks, %position {rope=@0} : f32[rows, 2]
            %k = write_rows %k.old, %kr, %position {stride=1, offset=0} : f32[12, 2]
            %v = write_rows %v.old, %vs, %position {stride=1, offset=0} : f32[12, 2]
            %y = attention %q, %k, %v, %position {n_heads=2, n_kv_heads=1, head_dim=2, scale=0.7, causal} : f32[rows, 4]
            return y=%y, kv.0.k=%k, kv.0.v=%v",
        );
    }

    #[test]
    fn rotated_k_used_elsewhere() {
        check_refuses(
            "fuse_rope_kv",
            "graph f
            @0 = rope {head_dim=2, magnitude=1.0, inv_freq=[0.5]}
            %qkv = input qkv : f32[rows, 8]
            %k.old = state kv.0.k : f32[12, 2]
            %v.old = state kv.0.v : f32[12, 2]
            %position = call position : u32[]
            %qs = slice %qkv {start=0, len=4} : f32[rows, 4]
            %ks = slice %qkv {start=4, len=2} : f32[rows, 2]
            %vs = slice %qkv {start=6, len=2} : f32[rows, 2]
            %q = rope %qs, %position {rope=@0} : f32[rows, 4]
            %kr = rope %ks, %position {rope=@0} : f32[rows, 2]
            %k = write_rows %k.old, %kr, %position {stride=1, offset=0} : f32[12, 2]
            %v = write_rows %v.old, %vs, %position {stride=1, offset=0} : f32[12, 2]
            %y = attention %q, %k, %v, %position {n_heads=2, n_kv_heads=1, head_dim=2, scale=0.7, causal} : f32[rows, 4]
            return y=%y, kv.0.k=%k, kv.0.v=%v, rotated=%kr",
        );
    }

    #[test]
    fn k_is_normalised_first() {
        check_refuses(
            "fuse_rope_kv",
            "graph f
            @0 = rope {head_dim=2, magnitude=1.0, inv_freq=[0.5]}
            %qkv = input qkv : f32[rows, 8]
            %k.old = state kv.0.k : f32[12, 2]
            %v.old = state kv.0.v : f32[12, 2]
            %position = call position : u32[]
            %qs = slice %qkv {start=0, len=4} : f32[rows, 4]
            %ks = slice %qkv {start=4, len=2} : f32[rows, 2]
            %vs = slice %qkv {start=6, len=2} : f32[rows, 2]
            %q = rope %qs, %position {rope=@0} : f32[rows, 4]
            %n = weight n : f32[2]
            %kn = rms_norm %ks, %n {eps=1e-6} : f32[rows, 2]
            %kr = rope %kn, %position {rope=@0} : f32[rows, 2]
            %k = write_rows %k.old, %kr, %position {stride=1, offset=0} : f32[12, 2]
            %v = write_rows %v.old, %vs, %position {stride=1, offset=0} : f32[12, 2]
            %y = attention %q, %k, %v, %position {n_heads=2, n_kv_heads=1, head_dim=2, scale=0.7, causal} : f32[rows, 4]
            return y=%y, kv.0.k=%k, kv.0.v=%v",
        );
    }
}
