//! Attention, its split form, and rotation, on the device against the evaluator.

use dwindle_compiler::graph::eval::Tensor;
use dwindle_compiler::graph::{Attention, CallScalar, Dim, Op, Rope, RopeWriteKv};
use dwindle_compiler::kernels::KernelSpec;
use dwindle_compiler::kernels::spec::{AttentionMergeSpec, AttentionSpec, RopeSpec, RopeWriteKvSpec, View};
use dwindle_schemes::FloatType;

use super::device::{Bench, Numbers, assert_close, evaluate, float_words, state_values, state_words};
use super::{HALF, SUMS, UNTOUCHED, rows_of};
use crate::workbench::has_adapter;

const STATES: [FloatType; 2] = [FloatType::F32, FloatType::F16];

/// Rows of the cache.
const CACHED: usize = 120;

/// Query heads, key heads, width of a head: Gemma's, Qwen2's, SigLIP's, and odd ones.
const HEADS: [[usize; 3]; 7] = [[8, 1, 256], [14, 2, 64], [4, 4, 72], [3, 3, 6], [2, 1, 18], [70, 1, 8], [5, 1, 100]];

/// Columns `view` of a wider matrix of `rows` rows, filled with the values of `inner` and with noise.
fn widened(inner: &[f32], columns: usize, view: View, numbers: &mut Numbers) -> Vec<f32> {
    let rows = inner.len() / columns;
    let mut wide = numbers.halves(view.offset + rows * view.stride);
    for (row, values) in inner.chunks(columns).enumerate() {
        wide[view.offset + row * view.stride..][..columns].copy_from_slice(values);
    }
    wide
}

fn attention([n_heads, n_kv_heads, head_dim]: [usize; 3]) -> Attention {
    let scale = 2.0 / (head_dim as f32).sqrt();
    Attention { n_heads, n_kv_heads, head_dim, scale, soft_cap: None, window: None, causal: true }
}

fn check(bench: &Bench, spec: &AttentionSpec, calls: &[(u32, u32)]) {
    let mut numbers = Numbers(5);
    let a = &spec.attention;
    let (q_columns, kv_columns) = (a.n_heads * a.head_dim, a.n_kv_heads * a.head_dim);
    let most = calls.iter().map(|call| call.0).max().unwrap() as usize;
    let q = numbers.floats(most * q_columns);
    let (k, v) = (numbers.halves(spec.kv_rows * kv_columns), numbers.halves(spec.kv_rows * kv_columns));
    let results = match spec.split {
        None => most * q_columns,
        Some(split) => a.n_heads * spec.kv_rows.div_ceil(split) * (a.head_dim + 2),
    };
    let bound = [
        float_words(&widened(&q, q_columns, spec.q, &mut numbers)),
        state_words(spec.kv_type, &widened(&k, kv_columns, spec.k, &mut numbers)),
        state_words(spec.kv_type, &widened(&v, kv_columns, spec.v, &mut numbers)),
        vec![UNTOUCHED.to_bits(); results],
    ];
    let mut kernel = bench.kernel(&KernelSpec::Attention(spec.clone()), &bound, most as u32);
    for &(rows, position) in calls {
        let call = rows_of(rows, position);
        let mut words = kernel.call(call, 4);
        if let Some(split) = spec.split {
            let max_splits = spec.kv_rows.div_ceil(split);
            let merge =
                AttentionMergeSpec { rows: spec.rows, n_heads: a.n_heads, head_dim: a.head_dim, split, max_splits };
            let bound = [words, vec![0; most * q_columns]];
            words = bench.kernel(&KernelSpec::AttentionMerge(merge), &bound, 1).call(call, 2);
        }
        let rows = rows as usize;
        let operands = [
            Tensor::f32(vec![rows, q_columns], q[..rows * q_columns].to_vec()),
            Tensor::f32(vec![spec.kv_rows, kv_columns], k.clone()),
            Tensor::f32(vec![spec.kv_rows, kv_columns], v.clone()),
        ];
        let expected = evaluate(Op::Attention(a.clone()), &operands, Some(CallScalar::Position), call).remove(0);
        let name = format!("{}, {rows} rows at {position}", kernel.name);
        assert_close(&name, &state_values(FloatType::F32, &words), &expected, SUMS);
    }
}

fn plain(heads: [usize; 3], rows: Dim, kv_type: FloatType) -> AttentionSpec {
    let attention = attention(heads);
    let kv = View { stride: attention.n_kv_heads * attention.head_dim, offset: 0 };
    // q lies beside k and v, as in the result of a fused projection.
    let q = View { stride: attention.n_heads * attention.head_dim + 2 * kv.stride, offset: 0 };
    AttentionSpec { attention, rows, kv_rows: CACHED, q, k: kv, v: kv, kv_type, split: None }
}

#[test]
fn prefill() {
    if !has_adapter() {
        return;
    }
    let bench = Bench::open();
    for kv_type in STATES {
        for heads in HEADS {
            let spec = plain(heads, Dim::Rows, kv_type);
            let narrow = Attention { window: Some(9), soft_cap: Some(2.0), ..spec.attention.clone() };
            check(&bench, &spec, &[(1, 0), (1, 99), (2, 3), (63, 37), (65, 0)]);
            check(&bench, &AttentionSpec { attention: narrow, ..spec }, &[(1, 0), (2, 99), (65, 50)]);
        }
    }
}

#[test]
fn vision() {
    if !has_adapter() {
        return;
    }
    let bench = Bench::open();
    for heads in HEADS {
        let [n_heads, n_kv_heads, head_dim] = heads;
        let stride = (n_heads + 2 * n_kv_heads) * head_dim;
        let attention = Attention { causal: false, ..attention(heads) };
        let spec = AttentionSpec {
            attention,
            rows: Dim::Fixed(75),
            kv_rows: 75,
            k: View { stride, offset: n_heads * head_dim },
            v: View { stride, offset: (n_heads + n_kv_heads) * head_dim },
            ..plain(heads, Dim::Fixed(75), FloatType::F32)
        };
        check(&bench, &spec, &[(75, 0)]);
    }
}

#[test]
fn decode() {
    if !has_adapter() {
        return;
    }
    let bench = Bench::open();
    for kv_type in STATES {
        for heads in HEADS {
            for split in [7, 64] {
                let spec = AttentionSpec { split: Some(split), ..plain(heads, Dim::Fixed(1), kv_type) };
                let narrow = Attention { window: Some(9), soft_cap: Some(2.0), ..spec.attention.clone() };
                let narrow = AttentionSpec { attention: narrow, ..spec.clone() };
                for spec in [spec, narrow] {
                    check(&bench, &spec, &[(1, 0), (1, 63), (1, 99), (1, 119)]);
                }
            }
        }
    }
}

#[test]
fn rotation() {
    if !has_adapter() {
        return;
    }
    let bench = Bench::open();
    let mut numbers = Numbers(6);
    for [n_heads, n_kv_heads, head_dim] in HEADS {
        let half = head_dim / 2;
        let inv_freq: Vec<f32> = (0..half).map(|i| 1e4_f32.powf(-(i as f32) / half as f32)).collect();
        let rope = Rope { head_dim, inv_freq: inv_freq.clone(), magnitude: 1.25 };
        let (columns, kv_columns) = ((n_heads + 2 * n_kv_heads) * head_dim, n_kv_heads * head_dim);
        for (rows, position) in [(1, 0), (65, 5), (3, 8000)] {
            let call = rows_of(rows as u32, position as u32);
            let cached = position + rows + 1;
            let (qkv, before) = (numbers.floats(rows * columns), numbers.halves(cached * kv_columns));
            let operands = [
                Tensor::f32(vec![rows, columns], qkv.clone()),
                Tensor::f32(vec![cached, kv_columns], before.clone()),
                Tensor::f32(vec![cached, kv_columns], before.clone()),
            ];
            let op = Op::RopeWriteKv(RopeWriteKv { n_heads, n_kv_heads, rope: rope.clone() });
            let expected = evaluate(op, &operands, Some(CallScalar::Position), call);
            for state in STATES {
                let words = state_words(state, &before);
                let queries = vec![0; rows * n_heads * head_dim];
                let bound = [float_words(&qkv), float_words(&inv_freq), queries, words.clone(), words];
                let spec = RopeWriteKvSpec { rows: Dim::Rows, n_heads, n_kv_heads, rope: rope.clone(), state };
                let mut kernel = bench.kernel(&KernelSpec::RopeWriteKv(spec), &bound, rows as u32);
                let tolerance = if state == FloatType::F16 { HALF } else { SUMS };
                let q = state_values(FloatType::F32, &kernel.call(call, 3));
                assert_close(&format!("{} q", kernel.name), &q, &expected[0], SUMS);
                let k = state_values(state, &kernel.call(call, 4));
                assert_close(&format!("{} k", kernel.name), &k, &expected[1], tolerance);
                let v = state_values(state, &kernel.call(call, 5));
                assert_close(&format!("{} v", kernel.name), &v, &expected[2], tolerance);
            }
            let x = numbers.floats(rows * n_heads * head_dim);
            let operand = [Tensor::f32(vec![rows, n_heads * head_dim], x.clone())];
            let expected = evaluate(Op::Rope(rope.clone()), &operand, Some(CallScalar::Position), call).remove(0);
            let bound = [float_words(&x), float_words(&inv_freq), vec![0; x.len()]];
            let spec = KernelSpec::Rope(RopeSpec { rows: Dim::Rows, n_heads, rope: rope.clone() });
            let mut kernel = bench.kernel(&spec, &bound, rows as u32);
            let got = state_values(FloatType::F32, &kernel.call(call, 3));
            assert_close(&kernel.name, &got, &expected, SUMS);
        }
    }
}
