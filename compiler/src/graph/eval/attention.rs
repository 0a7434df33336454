//! Rotation, KV cache and attention.

use rayon::prelude::*;

use super::super::{Attention, Rope, RopeWriteKv};
use super::matmul::dot;
use super::tensor::{Data, Tensor, slice_columns};

/// Rotates each head of row t for position `position + t`: with the angle `p * inv_freq[i]`, elements i and
/// `i + head_dim / 2` become `(a cos - b sin, b cos + a sin)`.
pub fn rope(x: &Tensor, position: u32, rope: &Rope) -> Result<Tensor, String> {
    let (columns, half) = (x.columns(), rope.head_dim / 2);
    if half == 0 || rope.inv_freq.len() != half || !columns.is_multiple_of(rope.head_dim) {
        return Err(format!("{columns} columns in heads of {}", rope.head_dim));
    }
    let mut values = x.floats()?.to_vec();
    for (t, row) in values.chunks_exact_mut(columns).enumerate() {
        let position = (u64::from(position) + t as u64) as f32;
        for head in row.chunks_exact_mut(rope.head_dim) {
            let (low, high) = head.split_at_mut(half);
            for ((a, b), frequency) in low.iter_mut().zip(high).zip(&rope.inv_freq) {
                let (sin, cos) = (position * frequency).sin_cos();
                let (sin, cos) = (sin * rope.magnitude, cos * rope.magnitude);
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
    Tensor::new(x.shape().to_vec(), Data::F32(values))
}

/// The state with its rows from `start * stride + offset` on replaced by those of x.
pub fn write_rows(state: &Tensor, x: &Tensor, start: u32, stride: usize, offset: usize) -> Result<Tensor, String> {
    let columns = state.columns();
    let first = (start as usize).checked_mul(stride).and_then(|row| row.checked_add(offset));
    let rows = first.and_then(|first| Some(first..first.checked_add(x.rows())?));
    let rows = rows.filter(|rows| rows.end <= state.rows() && x.columns() == columns).ok_or_else(|| {
        let (x, state) = (x.shape(), state.shape());
        format!("{x:?} from row {start} * {stride} + {offset} on does not fit into {state:?}")
    })?;
    let mut values = state.floats()?.to_vec();
    values[rows.start * columns..rows.end * columns].copy_from_slice(x.floats()?);
    Tensor::new(state.shape().to_vec(), Data::F32(values))
}

/// Softmax attention as [`Attention`] describes it; rows that a query does not see are not read.
pub fn attention(a: &Attention, q: &Tensor, k: &Tensor, v: &Tensor, position: u32) -> Result<Tensor, String> {
    let (q_columns, kv_columns) = (a.n_heads * a.head_dim, a.n_kv_heads * a.head_dim);
    let position = position as usize;
    let fits = q.columns() == q_columns && k.columns() == kv_columns && k.shape() == v.shape();
    if !fits || a.n_kv_heads == 0 || !a.n_heads.is_multiple_of(a.n_kv_heads) {
        return Err(format!("queries {:?}, keys {:?}, values {:?}", q.shape(), k.shape(), v.shape()));
    }
    if a.causal && position + q.rows() > k.rows() {
        return Err(format!("positions {position}..{} of {} cached rows", position + q.rows(), k.rows()));
    }
    let (queries, keys, values) = (q.floats()?, k.floats()?, v.floats()?);
    let mut out = vec![0.0_f32; queries.len()];
    out.par_chunks_mut(a.head_dim.max(1)).enumerate().for_each(|(index, out)| {
        let (t, head) = (index / a.n_heads, index % a.n_heads);
        let offset = head / (a.n_heads / a.n_kv_heads) * a.head_dim;
        let end = if a.causal { position + t + 1 } else { k.rows() };
        let start = a.window.map_or(0, |window| end.saturating_sub(window));
        let query = &queries[index * a.head_dim..][..a.head_dim];
        let row = |of: usize| of * kv_columns + offset;
        let scores: Vec<f32> = (start..end)
            .map(|s| {
                let score = a.scale * dot(query, &keys[row(s)..][..a.head_dim]) as f32;
                a.soft_cap.map_or(score, |cap| cap * (score / cap).tanh())
            })
            .collect();
        let greatest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f64> = scores.iter().map(|score| f64::from(score - greatest).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut sums = vec![0.0_f64; a.head_dim];
        for (s, weight) in (start..end).zip(&weights) {
            for (sum, &value) in sums.iter_mut().zip(&values[row(s)..][..a.head_dim]) {
                *sum += weight / total * f64::from(value);
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = sum as f32;
        }
    });
    Tensor::new(q.shape().to_vec(), Data::F32(out))
}

/// Slices q, k and v, rotates q and k, writes k and v: `(q, k state, v state)`.
pub fn rope_write_kv(
    kv: &RopeWriteKv,
    qkv: &Tensor,
    k_state: &Tensor,
    v_state: &Tensor,
    position: u32,
) -> Result<Vec<Tensor>, String> {
    let (q_columns, kv_columns) = (kv.n_heads * kv.rope.head_dim, kv.n_kv_heads * kv.rope.head_dim);
    let q = slice_columns(qkv, 0, q_columns)?;
    let k = slice_columns(qkv, q_columns, kv_columns)?;
    let v = slice_columns(qkv, q_columns + kv_columns, kv_columns)?;
    let k = rope(&k, position, &kv.rope)?;
    Ok(vec![
        rope(&q, position, &kv.rope)?,
        write_rows(k_state, &k, position, 1, 0)?,
        write_rows(v_state, &v, position, 1, 0)?,
    ])
}
