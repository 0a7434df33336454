//! Products of f32 rows with 16 rows of a plain matrix.

use super::super::lanes::Lanes;

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
