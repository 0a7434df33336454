//! Attention of many rows: lanes are queries, so that nothing is summed across lanes and keys are read as they lie.
//!
//! A share is 32 queries of one key head, turned into columns once. For every 32 positions, keys and values become f32 in this
//! thread's memory; then scores, the running maximum, weights and sums follow for all 32 queries at once.

use dwindle_bundle::native::Attention;

use super::super::{Run, borrow};
use super::{Cache, UNSEEN, query, seen};
use crate::lanes::{LANES, Lanes, math};

/// Queries of a share: two registers of 16 lanes.
const QUERIES: usize = 2 * LANES;

/// Positions of a tile.
const KEYS: usize = 32;

/// This thread's memory for a share; `padded` is the width of a head in whole lanes.
struct Tile<'a> {
    /// `[padded, 32]`, scaled.
    q: &'a mut [f32],
    /// `[padded, 32]`, weighted sums so far.
    sums: &'a mut [f32],
    /// `[32 positions, padded]`.
    keys: &'a mut [f32],
    /// `[32 positions, padded]`.
    values: &'a mut [f32],
    /// `[32 positions, 32]`: scores, then weights.
    weights: &'a mut [f32],
    /// `[32]`, the greatest score so far.
    greatest: [f32; QUERIES],
    /// `[32]`, sum of weights so far.
    totals: [f32; QUERIES],
}

/// The kernel for many rows.
///
/// # Safety
/// See the module above.
#[inline(always)]
pub unsafe fn run<L: Lanes>(spec: &Attention, run: &Run<'_>, rows: usize) {
    let width = spec.head_dim as usize;
    let padded = width.next_multiple_of(LANES);
    let (heads, kv_heads) = (spec.n_heads as usize, spec.n_kv_heads as usize);
    let per_head = heads / kv_heads;
    let queries = rows * per_head;
    let shares = queries.div_ceil(QUERIES);
    let mut local = borrow(padded * (2 * QUERIES + 2 * KEYS) + KEYS * QUERIES);
    let (q, rest) = local.split_at_mut(padded * QUERIES);
    let (sums, rest) = rest.split_at_mut(padded * QUERIES);
    let (keys, rest) = rest.split_at_mut(padded * KEYS);
    let (values, weights) = rest.split_at_mut(padded * KEYS);
    let mut tile = Tile { q, sums, keys, values, weights, greatest: [0.0; QUERIES], totals: [0.0; QUERIES] };
    loop {
        let share = run.member.take();
        if share >= shares * kv_heads {
            break;
        }
        // Keys and values of a head stay in the second cache for all of its shares. The last rows see most: beginning with them
        // leaves small shares for the end.
        let (head, first) = (share / shares, (shares - 1 - share % shares) * QUERIES);
        let count = QUERIES.min(queries - first);
        // Query i is row i / per_head, head i % per_head of those that share the key head; the last one fills the lanes.
        let place = |i: usize| {
            let query = first + i.min(count - 1);
            (query / per_head, head * per_head + query % per_head)
        };
        let queries: [&[f32]; QUERIES] = std::array::from_fn(|i| query(spec, run, place(i).0, place(i).1));
        // SAFETY: the caller has the instruction set.
        unsafe { into_columns::<L>(&queries, spec.scale, tile.q) };
        tile.sums.fill(0.0);
        tile.totals.fill(0.0);
        tile.greatest.fill(UNSEEN);
        let position = run.call.position as usize;
        let ranges = std::array::from_fn(|i| seen(spec, place(i).0, position));
        // SAFETY: the caller's promise.
        unsafe {
            let caches = (Cache::new(spec, run, 1, spec.k, head), Cache::new(spec, run, 2, spec.v, head));
            attend::<L>(spec, caches, &mut tile, &ranges);
        }
        let to: [*mut f32; QUERIES] = std::array::from_fn(|i| {
            let (row, head) = place(i);
            run.pointer::<f32>(3).wrapping_add((row * heads + head) * width)
        });
        // SAFETY: the queries' parts of y belong to this share.
        unsafe { into_rows::<L>(&tile, width, &to[..count]) };
    }
}

/// Where 16 columns begin that together are all of `width`: the last may be some that were there before.
fn sixteens(width: usize) -> impl Iterator<Item = usize> {
    (0..width).step_by(LANES).map(move |column| column.min(width - LANES))
}

/// Turns queries into columns `[width, 32]`, scaled.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
unsafe fn into_columns<L: Lanes>(queries: &[&[f32]; QUERIES], scale: f32, columns: &mut [f32]) {
    let width = queries[0].len();
    if width < LANES {
        for (i, query) in queries.iter().enumerate() {
            for (column, x) in query.iter().enumerate() {
                columns[column * QUERIES + i] = x * scale;
            }
        }
        return;
    }
    for column in sixteens(width) {
        for half in [0, LANES] {
            // SAFETY: columns up to `width` are within the queries and the columns.
            unsafe {
                let mut square = [L::splat(0.0); LANES];
                for (i, row) in square.iter_mut().enumerate() {
                    *row = L::mul(L::load(queries[half + i].as_ptr().add(column)), L::splat(scale));
                }
                transpose::<L>(&mut square);
                for (j, &values) in square.iter().enumerate() {
                    L::store(columns.as_mut_ptr().add((column + j) * QUERIES + half), values);
                }
            }
        }
    }
}

/// Writes the first of a tile's queries to where they belong: their sums divided by their totals.
///
/// # Safety
/// The processor has the instruction set of `L`; every place has `width` values.
#[inline(always)]
unsafe fn into_rows<L: Lanes>(tile: &Tile<'_>, width: usize, to: &[*mut f32]) {
    if width < LANES {
        for (i, to) in to.iter().enumerate() {
            let factor = tile.totals[i].recip();
            for column in 0..width {
                // SAFETY: the caller's promise.
                unsafe { to.add(column).write(tile.sums[column * QUERIES + i] * factor) };
            }
        }
        return;
    }
    for column in sixteens(width) {
        for (half, to) in to.chunks(LANES).enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                let mut square = [L::splat(0.0); LANES];
                for (j, values) in square.iter_mut().enumerate() {
                    *values = L::load(tile.sums.as_ptr().add((column + j) * QUERIES + half * LANES));
                }
                transpose::<L>(&mut square);
                for ((to, &row), total) in to.iter().zip(&square).zip(&tile.totals[half * LANES..]) {
                    L::store(to.add(column), L::mul(row, L::splat(total.recip())));
                }
            }
        }
    }
}

/// Swaps rows and columns: each round moves the lowest bit of the columns to the top of the rows, and that of the rows to the
/// top of the columns.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
unsafe fn transpose<L: Lanes>(square: &mut [L::F; LANES]) {
    for _ in 0..LANES.ilog2() {
        let rows = *square;
        for j in 0..LANES / 2 {
            // SAFETY: the caller's promise.
            (square[j], square[j + LANES / 2]) = unsafe { L::deinterleave(rows[2 * j], rows[2 * j + 1]) };
        }
    }
}

/// Goes through all tiles that some query of the share sees.
#[inline(always)]
unsafe fn attend<L: Lanes>(
    spec: &Attention,
    (k, v): (Cache, Cache),
    tile: &mut Tile<'_>,
    ranges: &[std::ops::Range<usize>; QUERIES],
) {
    let width = spec.head_dim as usize;
    let padded = width.next_multiple_of(LANES);
    // Rows are in order: the first sees from the earliest position on, the last to the latest.
    let (first, last) = (&ranges[0], &ranges[QUERIES - 1]);
    for at in (first.start / KEYS * KEYS..last.end).step_by(KEYS) {
        let there = KEYS.min(last.end - at);
        // SAFETY: positions up to the end are within k and v; all other memory is this thread's.
        unsafe {
            for key in 0..KEYS {
                // Rows are far from each other, so that nothing but this asks for the next ones in time.
                k.prefetch::<L>(at + KEYS + key);
                v.prefetch::<L>(at + KEYS + key);
                for column in (0..width).step_by(LANES) {
                    // What is beyond the width was zero from the beginning.
                    let column = if width < LANES { column } else { column.min(width - LANES) };
                    let (k, v) = match key < there {
                        true => (k.load::<L>(at + key, column), v.load::<L>(at + key, column)),
                        false => (L::splat(0.0), L::splat(0.0)),
                    };
                    L::store(tile.keys.as_mut_ptr().add(key * padded + column), k);
                    L::store(tile.values.as_mut_ptr().add(key * padded + column), v);
                }
            }
            for key in (0..KEYS).step_by(8) {
                if L::ROWS == 8 {
                    scores::<L, 8>(spec, tile, padded, key);
                } else {
                    for two in (0..8).step_by(2) {
                        scores::<L, 2>(spec, tile, padded, key + two);
                    }
                }
            }
            let whole = last.start <= at && at + KEYS <= first.end;
            let mut mask = [[1.0_f32; QUERIES]; KEYS];
            if !whole {
                for (key, mask) in mask.iter_mut().enumerate() {
                    for ((mask, range), score) in mask.iter_mut().zip(ranges).zip(&mut tile.weights[key * QUERIES..]) {
                        if !range.contains(&(at + key)) {
                            (*mask, *score) = (0.0, UNSEEN);
                        }
                    }
                }
            }
            let mask = (!whole).then_some(&mask);
            // No closures around arithmetic of lanes: only what is inlined has the instruction set.
            let factors = [soften::<L>(tile, 0, mask), soften::<L>(tile, LANES, mask)];
            for column in (0..padded).step_by(8) {
                if L::ROWS == 8 {
                    sums::<L, 8>(tile, padded, column, there, factors);
                } else {
                    for two in (0..8).step_by(2) {
                        sums::<L, 2>(tile, padded, column + two, there, factors);
                    }
                }
            }
        }
    }
}

/// Scores of `K` keys from `key` on.
#[allow(clippy::needless_range_loop, reason = "an index for several arrays says more than zipped iterators")]
#[inline(always)]
unsafe fn scores<L: Lanes, const K: usize>(spec: &Attention, tile: &mut Tile<'_>, padded: usize, key: usize) {
    // SAFETY: everything is within the tile.
    unsafe {
        let (q, keys) = (tile.q.as_ptr(), tile.keys.as_ptr().add(key * padded));
        let mut scores = [[L::splat(0.0); 2]; K];
        for column in 0..spec.head_dim as usize {
            let q = [L::load(q.add(column * QUERIES)), L::load(q.add(column * QUERIES + LANES))];
            for j in 0..K {
                let key = L::splat(keys.add(j * padded + column).read());
                scores[j] = [L::fma(key, q[0], scores[j][0]), L::fma(key, q[1], scores[j][1])];
            }
        }
        for j in 0..K {
            for half in 0..2 {
                let score = match spec.soft_cap {
                    Some(cap) => math::soft_cap::<L>(scores[j][half], cap),
                    None => scores[j][half],
                };
                L::store(tile.weights.as_mut_ptr().add((key + j) * QUERIES + half * LANES), score);
            }
        }
    }
}

/// Weights `e^(score - greatest)` of 16 queries from `lane` on; gives what their earlier sums are to be multiplied with.
#[inline(always)]
unsafe fn soften<L: Lanes>(tile: &mut Tile<'_>, lane: usize, mask: Option<&[[f32; QUERIES]; KEYS]>) -> L::F {
    // SAFETY: everything is within the tile.
    unsafe {
        let weights = tile.weights.as_mut_ptr().add(lane);
        let before = L::load(tile.greatest.as_ptr().add(lane));
        let mut most = before;
        for key in 0..KEYS {
            most = L::max(most, L::load(weights.add(key * QUERIES)));
        }
        let factor = math::exp::<L>(L::sub(before, most));
        let mut total = L::mul(L::load(tile.totals.as_ptr().add(lane)), factor);
        for key in 0..KEYS {
            let mut weight = math::exp::<L>(L::sub(L::load(weights.add(key * QUERIES)), most));
            if let Some(mask) = mask {
                weight = L::mul(weight, L::load(mask[key].as_ptr().add(lane)));
            }
            L::store(weights.add(key * QUERIES), weight);
            total = L::add(total, weight);
        }
        L::store(tile.greatest.as_mut_ptr().add(lane), most);
        L::store(tile.totals.as_mut_ptr().add(lane), total);
        factor
    }
}

/// Adds weighted values to the sums of `C` columns from `column` on.
#[allow(clippy::needless_range_loop, reason = "an index for several arrays says more than zipped iterators")]
#[inline(always)]
unsafe fn sums<L: Lanes, const C: usize>(
    tile: &mut Tile<'_>,
    padded: usize,
    column: usize,
    there: usize,
    factors: [L::F; 2],
) {
    // SAFETY: everything is within the tile.
    unsafe {
        let (weights, values) = (tile.weights.as_ptr(), tile.values.as_ptr().add(column));
        let to = tile.sums.as_mut_ptr().add(column * QUERIES);
        let mut sums = [[L::splat(0.0); 2]; C];
        for j in 0..C {
            for half in 0..2 {
                sums[j][half] = L::mul(L::load(to.add(j * QUERIES + half * LANES)), factors[half]);
            }
        }
        for key in 0..there {
            let weight = [L::load(weights.add(key * QUERIES)), L::load(weights.add(key * QUERIES + LANES))];
            for j in 0..C {
                let value = L::splat(values.add(key * padded + j).read());
                sums[j] = [L::fma(value, weight[0], sums[j][0]), L::fma(value, weight[1], sums[j][1])];
            }
        }
        for j in 0..C {
            for half in 0..2 {
                L::store(to.add(j * QUERIES + half * LANES), sums[j][half]);
            }
        }
    }
}
