//! What is done with the sums of a product before they are written: bias, activation, gate, soft cap, residual.

use dwindle_bundle::native::{BLOCK_ROWS, MatMul};

use super::{Bound, Run};
use crate::lanes::{LANES, Lanes, math};

/// Bias, activation, soft cap, residual: what is done with the sums of 16 rows for rows `t .. t + rows` of x.
///
/// # Safety
/// See the module above.
#[inline(always)]
pub unsafe fn finish<L: Lanes, const R: usize>(
    spec: &MatMul,
    bound: &Bound,
    run: &Run<'_>,
    mut sums: [L::F; R],
    block: usize,
    t: usize,
    rows: usize,
) {
    let n = spec.matrix.n as usize;
    let there = (n - block * BLOCK_ROWS).min(BLOCK_ROWS);
    // SAFETY: elements of y and of the residual that are touched belong to this block and these rows alone.
    unsafe {
        if spec.bias {
            let mut bias = [0.0; LANES];
            bias[..there].copy_from_slice(&run.read::<f32>(bound.bias)[block * BLOCK_ROWS..][..there]);
            for sums in &mut sums {
                *sums = L::add(*sums, L::load(bias.as_ptr()));
            }
        }
        match (spec.activation, spec.gated) {
            (Some(activation), true) => {
                // Gates and ups of one row fill half of the lanes: two rows are done at once.
                for r in (0..rows).step_by(2) {
                    let (gate, up) = L::deinterleave(sums[r], sums[if r + 1 < R { r + 1 } else { r }]);
                    let value = capped::<L>(spec, L::mul(math::activate::<L>(activation, gate), up));
                    let mut out = [0.0; LANES];
                    L::store(out.as_mut_ptr(), value);
                    let column = block * (BLOCK_ROWS / 2);
                    for (r, out) in (r..rows).zip(out.as_chunks::<{ BLOCK_ROWS / 2 }>().0) {
                        match there {
                            // A known length needs no call.
                            BLOCK_ROWS => put(spec, bound, run, t + r, column, out),
                            _ => put(spec, bound, run, t + r, column, &out[..there / 2]),
                        }
                    }
                }
            }
            (activation, _) => {
                for (r, &sums) in sums.iter().enumerate().take(rows) {
                    let value = match activation {
                        Some(activation) => math::activate::<L>(activation, sums),
                        None => sums,
                    };
                    let mut out = [0.0; LANES];
                    L::store(out.as_mut_ptr(), capped::<L>(spec, value));
                    match there {
                        BLOCK_ROWS => put(spec, bound, run, t + r, block * BLOCK_ROWS, &out),
                        _ => put(spec, bound, run, t + r, block * BLOCK_ROWS, &out[..there]),
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn capped<L: Lanes>(spec: &MatMul, value: L::F) -> L::F {
    match spec.soft_cap {
        // SAFETY: the caller's promise.
        Some(cap) => unsafe { math::soft_cap::<L>(value, cap) },
        None => value,
    }
}

/// Adds the residual and writes columns `column ..` of this part into row `t` of y.
#[inline(always)]
unsafe fn put(spec: &MatMul, bound: &Bound, run: &Run<'_>, t: usize, column: usize, values: &[f32]) {
    let at = t * spec.out_columns as usize + spec.out_offset as usize + column;
    // SAFETY: within y and the residual, which have `out_columns` columns.
    unsafe {
        let y = run.pointer::<f32>(bound.y).add(at);
        if spec.residual {
            // All is read before anything is written, as both may be the same.
            let mut sums = [0.0; LANES];
            let residual = run.pointer::<f32>(bound.residual).add(at);
            sums.as_mut_ptr().copy_from_nonoverlapping(residual, values.len());
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            y.copy_from_nonoverlapping(sums.as_ptr(), values.len());
        } else {
            y.copy_from_nonoverlapping(values.as_ptr(), values.len());
        }
    }
}
