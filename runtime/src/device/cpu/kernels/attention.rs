//! Softmax attention in one pass over the keys (online softmax, Milakov and Gimelshein 2018; tiles as Dao et al. 2022).
//!
//! A share is some queries of one key head. For every 16 positions, keys are turned into columns and values into rows of f32 in
//! this thread's memory, once for all queries of the share; then for each query: 16 scores, the running maximum, weights, sums.
//! Tiles begin at multiples of 16, and a query leaves out tiles of which it sees nothing, so its result does not
//! depend on the queries beside it.

use dwindle_bundle::native::{Attention, Columns, Float};

use super::super::lanes::{LANES, Lanes, math};
use super::{Run, borrow, give_back};

/// Queries at once in the innermost loops.
const TOGETHER: usize = 4;

/// The most queries of a share.
const MAX_QUERIES: usize = 64;

/// This thread's memory for a share; `padded` is the width of a head in whole lanes.
struct Tile<'a> {
    /// `[queries, padded]`, scaled.
    q: &'a mut [f32],
    /// `[queries, padded]`, weighted sums so far.
    sums: &'a mut [f32],
    /// `[queries]`, the greatest score so far.
    greatest: &'a mut [f32],
    /// `[queries]`, sum of weights so far.
    totals: &'a mut [f32],
    /// `[padded, 16]`.
    keys: &'a mut [f32],
    /// `[16, padded]`.
    values: &'a mut [f32],
}

/// The kernel.
///
/// # Safety
/// See the module above.
#[inline(always)]
pub unsafe fn run<L: Lanes>(spec: &Attention, run: &Run<'_>) {
    let rows = run.rows(spec.rows);
    let width = spec.head_dim as usize;
    let padded = width.next_multiple_of(LANES);
    let (heads, kv_heads) = (spec.n_heads as usize, spec.n_kv_heads as usize);
    let per_head = heads / kv_heads;
    let queries = rows * per_head;
    // Enough shares for all members; whole groups of queries where there are many.
    let size = (queries * kv_heads).div_ceil(2 * run.member.members()).clamp(1, MAX_QUERIES);
    let size = if size > TOGETHER { size.next_multiple_of(TOGETHER) } else { size };
    let shares = queries.div_ceil(size);
    let mut local = borrow(2 * size * (padded + 1) + 2 * LANES * padded);
    let (q, rest) = local.split_at_mut(size * padded);
    let (sums, rest) = rest.split_at_mut(size * padded);
    let (greatest, rest) = rest.split_at_mut(size);
    let (totals, rest) = rest.split_at_mut(size);
    let (keys, values) = rest.split_at_mut(LANES * padded);
    let mut tile = Tile { q, sums, greatest, totals, keys, values };
    loop {
        let share = run.member.take();
        if share >= shares * kv_heads {
            break;
        }
        let (head, first) = (share / shares, share % shares * size);
        let count = size.min(queries - first);
        // Query i is row i / per_head, head i % per_head of those that share the key head.
        for i in 0..count {
            let query = first + i;
            let at = query / per_head * spec.q.stride as usize + spec.q.offset as usize;
            let from = &run.read::<f32>(0)[at + (head * per_head + query % per_head) * width..][..width];
            for (to, &from) in tile.q[i * padded..].iter_mut().zip(from) {
                *to = from * spec.scale;
            }
        }
        tile.sums.fill(0.0);
        tile.totals.fill(0.0);
        tile.greatest.fill(f32::NEG_INFINITY);
        // SAFETY: the caller's promise.
        unsafe { attend::<L>(spec, run, &mut tile, head, first / per_head, first, count) };
        for i in 0..count {
            let query = first + i;
            let at = (query / per_head * heads + head * per_head + query % per_head) * width;
            let total = tile.totals[i].recip();
            for (column, &sum) in tile.sums[i * padded..][..width].iter().enumerate() {
                // SAFETY: this query's part of y belongs to this share.
                unsafe { run.pointer::<f32>(3).add(at + column).write(sum * total) };
            }
        }
    }
    give_back(local);
}

/// Positions that a row sees.
fn seen(spec: &Attention, row: usize, position: usize) -> (usize, usize) {
    let end = if spec.causal { position + row + 1 } else { spec.kv_rows as usize };
    (spec.window.map_or(0, |window| end.saturating_sub(window as usize)), end)
}

/// Goes through all tiles that some query of the share sees.
#[allow(clippy::needless_range_loop, reason = "an index for several arrays says more than zipped iterators")]
#[inline(always)]
unsafe fn attend<L: Lanes>(
    spec: &Attention,
    run: &Run<'_>,
    tile: &mut Tile<'_>,
    head: usize,
    first_row: usize,
    first: usize,
    count: usize,
) {
    let per_head = (spec.n_heads / spec.n_kv_heads) as usize;
    let width = spec.head_dim as usize;
    let padded = width.next_multiple_of(LANES);
    let position = run.call.position as usize;
    let last_row = (first + count - 1) / per_head;
    let (start, end) = (seen(spec, first_row, position).0, seen(spec, last_row, position).1);
    for at in (start / LANES * LANES..end).step_by(LANES) {
        let there = LANES.min(end - at);
        // SAFETY: rows up to `end` are within k and v; all other memory is this thread's.
        unsafe {
            for key in 0..LANES {
                let row = (key < there).then_some(at + key);
                load_row::<L>(spec.kv, run, 1, spec.k, row, head * width, width, |column, value| {
                    tile.keys[column * LANES + key] = value;
                });
                load_row::<L>(spec.kv, run, 2, spec.v, row, head * width, width, |column, value| {
                    tile.values[key * padded + column] = value;
                });
            }
            for i in (0..count).step_by(TOGETHER) {
                let queries = TOGETHER.min(count - i);
                let mut weights = [[0.0_f32; LANES]; TOGETHER];
                let mut scores = [L::splat(0.0); TOGETHER];
                for column in 0..width {
                    let keys = L::load(tile.keys.as_ptr().add(column * LANES));
                    for (j, score) in scores.iter_mut().enumerate() {
                        let q = *tile.q.as_ptr().add((i + j.min(queries - 1)) * padded + column);
                        *score = L::fma(keys, L::splat(q), *score);
                    }
                }
                for j in 0..queries {
                    let (from, to) = seen(spec, (first + i + j) / per_head, position);
                    if from >= at + LANES || to <= at {
                        continue;
                    }
                    let score = match spec.soft_cap {
                        Some(cap) => math::soft_cap::<L>(scores[j], cap),
                        None => scores[j],
                    };
                    soften::<L>(
                        tile,
                        i + j,
                        padded,
                        score,
                        from.saturating_sub(at)..LANES.min(to - at),
                        &mut weights[j],
                    );
                }
                for column in (0..padded).step_by(LANES) {
                    let mut sums = [L::splat(0.0); TOGETHER];
                    for j in 0..queries {
                        sums[j] = L::load(tile.sums.as_ptr().add((i + j) * padded + column));
                    }
                    for key in 0..there {
                        let value = L::load(tile.values.as_ptr().add(key * padded + column));
                        for j in 0..TOGETHER {
                            sums[j] = L::fma(value, L::splat(weights[j][key]), sums[j]);
                        }
                    }
                    for j in 0..queries {
                        L::store(tile.sums.as_mut_ptr().add((i + j) * padded + column), sums[j]);
                    }
                }
            }
        }
    }
}

/// Weights of 16 scores of a query, of which it sees `range`: `e^(score - greatest)`. What was summed with a lesser maximum is
/// scaled down.
#[inline(always)]
unsafe fn soften<L: Lanes>(
    tile: &mut Tile<'_>,
    query: usize,
    padded: usize,
    scores: L::F,
    range: std::ops::Range<usize>,
    weights: &mut [f32; LANES],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut lanes = [0.0; LANES];
        L::store(lanes.as_mut_ptr(), scores);
        let most = lanes[range.clone()].iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let before = tile.greatest[query];
        if most > before {
            let factor = (before - most).exp();
            tile.greatest[query] = most;
            tile.totals[query] *= factor;
            tile.sums[query * padded..][..padded].iter_mut().for_each(|sum| *sum *= factor);
        }
        let exps = math::exp::<L>(L::sub(scores, L::splat(tile.greatest[query])));
        L::store(weights.as_mut_ptr(), exps);
        for (i, weight) in weights.iter_mut().enumerate() {
            if !range.contains(&i) {
                *weight = 0.0;
            }
        }
        tile.totals[query] += L::sum(L::load(weights.as_ptr()));
    }
}

/// Gives `put` the values of a head of row `row` of k or v, or zeros.
#[expect(clippy::too_many_arguments, reason = "where a row of k or v lies takes as many numbers")]
#[inline(always)]
unsafe fn load_row<L: Lanes>(
    float: Float,
    run: &Run<'_>,
    binding: usize,
    view: Columns,
    row: Option<usize>,
    offset: usize,
    width: usize,
    mut put: impl FnMut(usize, f32),
) {
    let Some(row) = row else {
        (0..width).for_each(|column| put(column, 0.0));
        return;
    };
    let at = row * view.stride as usize + view.offset as usize + offset;
    match float {
        Float::F32 => {
            let from = &run.read::<f32>(binding)[at..][..width];
            from.iter().enumerate().for_each(|(column, &value)| put(column, value));
        }
        Float::F16 => {
            let from = &run.read::<u16>(binding)[at..][..width];
            let mut lanes = [0.0; LANES];
            for (chunk, bits) in from.chunks(LANES).enumerate() {
                let mut padded = [0; LANES];
                padded[..bits.len()].copy_from_slice(bits);
                // SAFETY: both arrays have 16 elements.
                unsafe { L::store(lanes.as_mut_ptr(), L::load_f16(padded.as_ptr())) };
                lanes[..bits.len()].iter().enumerate().for_each(|(i, &value)| put(chunk * LANES + i, value));
            }
        }
    }
}
