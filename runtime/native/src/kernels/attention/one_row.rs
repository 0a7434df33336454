//! Attention of one row: pieces of the cache are gone through by themselves, and what they give is added up.
//!
//! A share is a piece of the positions of one key head, for all queries that share it; lanes are columns. Where there are several
//! pieces, each leaves its greatest score, its sum of weights and its weighted sums in scratch memory, and a share of the
//! second phase adds those of a query, in the order of positions.

use dwindle_bundle::ATTENTION_PIECE as PIECE;
use dwindle_bundle::native::Attention;

use super::super::{Run, borrow};
use super::{Cache, UNSEEN, query, seen};
use crate::lanes::{LANES, Lanes, math};

/// What is known of a query after a piece: `greatest` score, `total` of weights, then weighted sums.
struct Query<'a> {
    greatest: f32,
    total: f32,
    sums: &'a mut [f32],
}

/// The kernel for one row.
///
/// # Safety
/// See the module above.
#[inline(always)]
pub unsafe fn run<L: Lanes>(spec: &Attention, run: &Run<'_>) {
    let (width, heads) = (spec.head_dim as usize, spec.n_heads as usize);
    let padded = width.next_multiple_of(LANES);
    let per_head = heads / spec.n_kv_heads as usize;
    let range = seen(spec, 0, run.call.position as usize);
    let first_piece = range.start / PIECE;
    let pieces = range.end.div_ceil(PIECE) - first_piece;
    let record = width + 2;
    let y = run.pointer::<f32>(3);
    let scratch = run.scratch.address().cast::<f32>().cast_mut();
    let mut local = borrow(2 * L::ROWS * padded);
    loop {
        let share = run.member.take();
        if share >= pieces * spec.n_kv_heads as usize {
            break;
        }
        let (kv_head, piece) = (share / pieces, share % pieces);
        let positions = (first_piece + piece) * PIECE..(first_piece + piece + 1) * PIECE;
        let positions = range.start.max(positions.start)..range.end.min(positions.end);
        let mut next = 0;
        while next < per_head {
            let head = kv_head * per_head + next;
            let left = per_head - next;
            // SAFETY: the caller's promise; records of this piece and these heads, or their part of y, belong to this share.
            let done = unsafe {
                let mut put = |head: usize, query: Query<'_>| {
                    if pieces == 1 {
                        let factor = query.total.recip();
                        query.sums.iter().enumerate().for_each(|(i, sum)| y.add(head * width + i).write(sum * factor));
                    } else {
                        let to = scratch.add((head * pieces + piece) * record);
                        to.write(query.greatest);
                        to.add(1).write(query.total);
                        to.add(2).copy_from_nonoverlapping(query.sums.as_ptr(), width);
                    }
                };
                match left {
                    1 => queries::<L, 1>(spec, run, kv_head, head, 1, positions.clone(), &mut local, &mut put),
                    _ if L::ROWS == 8 => {
                        queries::<L, 8>(spec, run, kv_head, head, left, positions.clone(), &mut local, &mut put)
                    }
                    _ => queries::<L, 2>(spec, run, kv_head, head, left, positions.clone(), &mut local, &mut put),
                }
            };
            next += done;
        }
    }
    if pieces > 1 {
        run.member.barrier();
        loop {
            let head = run.member.take();
            if head >= heads {
                break;
            }
            // SAFETY: records were written before the barrier; this head's part of y belongs to this share.
            unsafe {
                let all = std::slice::from_raw_parts(scratch.add(head * pieces * record), pieces * record);
                let greatest = all.chunks_exact(record).fold(f32::NEG_INFINITY, |most, piece| most.max(piece[0]));
                let sums = &mut local[..width];
                sums.fill(0.0);
                let mut total = 0.0;
                for piece in all.chunks_exact(record) {
                    let factor = (piece[0] - greatest).exp();
                    total += factor * piece[1];
                    sums.iter_mut().zip(&piece[2..]).for_each(|(sum, x)| *sum += factor * x);
                }
                let factor = total.recip();
                sums.iter().enumerate().for_each(|(i, sum)| y.add(head * width + i).write(sum * factor));
            }
        }
    }
}

/// Goes through `positions` for at most `Q` of the `left` query heads from `head` on; gives how many they were.
#[expect(clippy::too_many_arguments, reason = "the body of one loop, once for each number of queries")]
#[allow(clippy::needless_range_loop, reason = "an index for several arrays says more than zipped iterators")]
#[inline(always)]
unsafe fn queries<L: Lanes, const Q: usize>(
    spec: &Attention,
    run: &Run<'_>,
    kv_head: usize,
    head: usize,
    left: usize,
    positions: std::ops::Range<usize>,
    local: &mut [f32],
    put: &mut impl FnMut(usize, Query<'_>),
) -> usize {
    let width = spec.head_dim as usize;
    let padded = width.next_multiple_of(LANES);
    let count = left.min(Q);
    let (k, v) = (Cache::new(spec, run, 1, spec.k, kv_head), Cache::new(spec, run, 2, spec.v, kv_head));
    let (q, sums) = local.split_at_mut(Q * padded);
    let sums = &mut sums[..Q * padded];
    q.fill(0.0);
    sums.fill(0.0);
    for j in 0..count {
        for (to, x) in q[j * padded..].iter_mut().zip(query(spec, run, 0, head + j)) {
            *to = x * spec.scale;
        }
    }
    let (mut greatest, mut totals) = ([UNSEEN; Q], [0.0_f32; Q]);
    for at in (positions.start / LANES * LANES..positions.end).step_by(LANES) {
        let keys = positions.start.max(at) - at..positions.end.min(at + LANES) - at;
        let mut weights = [[UNSEEN; LANES]; Q];
        // SAFETY: positions are within k and v; all other memory is this thread's.
        unsafe {
            for key in keys.clone() {
                let mut scores = [L::splat(0.0); Q];
                for column in (0..padded).step_by(LANES) {
                    let k = k.load::<L>(at + key, column);
                    for j in 0..Q {
                        scores[j] = L::fma(k, L::load(q.as_ptr().add(j * padded + column)), scores[j]);
                    }
                }
                for j in 0..count {
                    weights[j][key] = L::sum(scores[j]);
                }
            }
            let mut factors = [1.0_f32; Q];
            for j in 0..count {
                let mut scores = L::load(weights[j].as_ptr());
                if let Some(cap) = spec.soft_cap {
                    scores = math::soft_cap::<L>(scores, cap);
                    L::store(weights[j].as_mut_ptr(), scores);
                }
                let most = weights[j][keys.clone()].iter().copied().fold(greatest[j], f32::max);
                factors[j] = (greatest[j] - most).exp();
                greatest[j] = most;
                L::store(weights[j].as_mut_ptr(), math::exp::<L>(L::sub(scores, L::splat(most))));
                let mut seen = [0.0; LANES];
                seen[keys.clone()].copy_from_slice(&weights[j][keys.clone()]);
                weights[j] = seen;
                totals[j] = totals[j] * factors[j] + L::sum(L::load(seen.as_ptr()));
            }
            for column in (0..padded).step_by(LANES) {
                let mut out = [L::splat(0.0); Q];
                for j in 0..Q {
                    out[j] = L::mul(L::load(sums.as_ptr().add(j * padded + column)), L::splat(factors[j]));
                }
                for key in keys.clone() {
                    let v = v.load::<L>(at + key, column);
                    for j in 0..Q {
                        out[j] = L::fma(v, L::splat(weights[j][key]), out[j]);
                    }
                }
                for j in 0..Q {
                    L::store(sums.as_mut_ptr().add(j * padded + column), out[j]);
                }
            }
        }
    }
    for j in 0..count {
        let sums = &mut sums[j * padded..][..width];
        put(head + j, Query { greatest: greatest[j], total: totals[j], sums });
    }
    count
}
