//! The second phase for floats: products of f32 rows with 16 rows of a plain matrix.

use dwindle_bundle::native::{BLOCK_ROWS, Float, MatMul};

use super::finish::finish;
use super::{Bound, Run, share_blocks};
use crate::lanes::isa::Work;
use crate::lanes::{LANES, Lanes};

/// The second phase for floats.
pub struct Plain<'a> {
    pub spec: &'a MatMul,
    pub bound: &'a Bound,
    pub run: &'a Run<'a>,
    pub rows: usize,
    pub x: *const f32,
}

impl Plain<'_> {
    /// Does the shares that this member gets; the first phase is done.
    pub fn run(self, float: Float) {
        let set = self.run.set;
        match float {
            Float::F16 => set.run(&PlainOf::<true>(self)),
            Float::F32 => set.run(&PlainOf::<false>(self)),
        }
    }
}

/// Of 16 bits, or of 32.
struct PlainOf<'a, const HALF: bool>(Plain<'a>);

impl<const HALF: bool> Work for PlainOf<'_, HALF> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(&self) {
        let Plain { spec, bound, run, rows, x } = self.0;
        // SAFETY: as in the first phase, which is done.
        unsafe { plain_blocks::<L, HALF>(spec, bound, run, rows, x) };
    }
}

#[inline(always)]
unsafe fn plain_blocks<L: Lanes, const HALF: bool>(
    spec: &MatMul,
    bound: &Bound,
    run: &Run<'_>,
    rows: usize,
    x: *const f32,
) {
    let k = spec.matrix.k as usize;
    let block_bytes = k * LANES * if HALF { 2 } else { 4 };
    let blocks = (spec.matrix.n as usize).div_ceil(BLOCK_ROWS);
    let share = share_blocks(blocks, run.member.members(), block_bytes);
    let values = run.pointer::<u8>(1).cast_const();
    loop {
        let first = run.member.take() * share;
        if first >= blocks {
            return;
        }
        let last = blocks.min(first + share);
        // SAFETY: blocks and rows are within their bindings.
        unsafe {
            if rows == 1 {
                for index in first..last {
                    let sums = tile::<L, HALF, 1>(values.add(index * block_bytes), k, [x]);
                    finish::<L, 1>(spec, bound, run, sums, index, 0, 1);
                }
                continue;
            }
            for t in (0..rows).step_by(8) {
                let mut from = [x; 8];
                for (r, from) in from.iter_mut().enumerate() {
                    *from = x.add((t + r).min(rows - 1) * k);
                }
                for index in first..last {
                    let block = values.add(index * block_bytes);
                    if L::ROWS == 8 {
                        let sums = tile::<L, HALF, 8>(block, k, from);
                        finish::<L, 8>(spec, bound, run, sums, index, t, 8.min(rows - t));
                        continue;
                    }
                    for half in (0..8.min(rows - t)).step_by(4) {
                        let from = [from[half], from[half + 1], from[half + 2], from[half + 3]];
                        let sums = tile::<L, HALF, 4>(block, k, from);
                        finish::<L, 4>(spec, bound, run, sums, index, t + half, 4.min(rows - t - half));
                    }
                }
            }
        }
    }
}

/// The sums of 16 rows, `[k, 16]` f16 or f32, with each of `R` rows of `k` values; columns are added in order.
///
/// # Safety
/// The processor has the instruction set of `L`; everything is as large as said.
#[inline(always)]
pub unsafe fn tile<L: Lanes, const HALF: bool, const R: usize>(
    values: *const u8,
    k: usize,
    x: [*const f32; R],
) -> [L::F; R] {
    // SAFETY: every access is within the matrix and the rows, by the caller's promise.
    unsafe {
        let mut out = [L::splat(0.0); R];
        for column in 0..k {
            let w = match HALF {
                true => L::load_f16(values.cast::<u16>().add(16 * column)),
                false => L::load(values.cast::<f32>().add(16 * column)),
            };
            for r in 0..R {
                out[r] = L::fma(w, L::splat(x[r].add(column).read()), out[r]);
            }
        }
        out
    }
}
