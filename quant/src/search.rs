//! Least squared error of a group, with a scale of either sign and all codes.
//!
//! For fixed codes q, with r = q - z, the error Σ (w - r s)² is least at s = Σwr / Σr², where it is
//! Σw² - (Σwr)² / Σr². For a fixed s the best r is the nearest in -z..=h - z, for codes 0..=h. So the search
//!
//! 1. tries s = ± max|w| / d for some d around max(z, h - z), on each side as far as a group may profit from clipping its
//!    greatest value, and keeps the r with the greatest (Σwr)² / Σr²;
//! 2. alternates best s and best r from there while that grows (Lloyd's iteration on a uniform grid);
//! 3. rounds s to its stored type, takes the nearest r for *that*, and keeps `rtn`'s codes and scale unless the error as
//!    decoded is now smaller.
//!
//! Steps 1 and 2 work on w / max|w|, where no square over- or underflows.

use dwindle_schemes::FloatType;

use crate::float::round;
use crate::rtn::{LANES, Levels, clip, nearest_codes, round_half_even};

/// Rounds of step 2 at most; nearly all groups are stationary before.
const ROUNDS: usize = 4;

/// Step 1 tries max|w| / s from max(z, h - z) + `FIRST` on, `STEPS` times, `STEP` further each.
const FIRST: f32 = -1.2;
const STEP: f32 = 0.2;
const STEPS: u32 = 14;

/// Memory for one group.
pub(crate) struct Scratch<'a> {
    /// Values divided by the greatest.
    pub normal: &'a mut [[f32; LANES]],
    /// Codes that may be worse.
    pub tried: &'a mut [[u8; LANES]],
}

/// Σwr and Σr² for the nearest r.
#[derive(Clone, Copy)]
struct Fit {
    wr: f32,
    rr: f32,
}

impl Fit {
    /// For the r nearest to w * `inverse`.
    #[inline(always)]
    fn of(w: &[[f32; LANES]], inverse: f32, levels: Levels) -> Fit {
        let (low, high) = (levels.low as f32, levels.high as f32);
        let (mut wr, mut rr) = ([0.0; LANES], [0.0; LANES]);
        for w in w {
            for lane in 0..LANES {
                let r = round_half_even(clip(w[lane] * inverse, low, high));
                wr[lane] += w[lane] * r;
                rr[lane] += r * r;
            }
        }
        Fit { wr: sum(wr), rr: sum(rr) }
    }

    /// By how much these r, with their best scale, lower the squared error.
    #[inline(always)]
    fn gain(self) -> f32 {
        self.wr * self.wr / self.rr
    }
}

#[inline(always)]
fn sum(lanes: [f32; LANES]) -> f32 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// Σ (w - w')² of codes as they will be decoded.
#[inline(always)]
pub(crate) fn squared_error(w: &[[f32; LANES]], codes: &[[u8; LANES]], scale: f32, zero: i32) -> f64 {
    let mut sums = [0.0_f64; LANES];
    for (w, codes) in w.iter().zip(codes) {
        for lane in 0..LANES {
            let decoded = (i32::from(codes[lane]) - zero) as f32 * scale;
            let error = f64::from(w[lane]) - f64::from(decoded);
            sums[lane] += error * error;
        }
    }
    sums.iter().sum()
}

/// Improves the `codes` and the stored scale that `rtn` chose for `w`, if it can, and returns the scale to store.
/// `levels` are all that codes can stand for.
///
/// `w` and `codes` are filled up with zeros and the codes of zero; `greatest` is max|w|, finite. `scratch` is
/// of the same length.
#[inline(always)]
pub(crate) fn improve_group(
    w: &[[f32; LANES]],
    greatest: f32,
    stored_by_rtn: f32,
    float: FloatType,
    levels: Levels,
    codes: &mut [[u8; LANES]],
    scratch: Scratch<'_>,
) -> f32 {
    let Scratch { normal, tried } = scratch;
    if greatest == 0.0 {
        return stored_by_rtn;
    }
    for (normal, w) in normal.iter_mut().zip(w) {
        *normal = w.map(|w| w / greatest);
    }
    let widest = levels.high.max(-levels.low);
    let mut best = Fit { wr: 0.0, rr: 1.0 };
    for step in 0..STEPS {
        let inverse = widest as f32 + FIRST + step as f32 * STEP;
        for inverse in [inverse, -inverse] {
            let fit = Fit::of(normal, inverse, levels);
            if fit.gain() > best.gain() {
                best = fit;
            }
        }
    }
    for _ in 0..ROUNDS {
        let fit = Fit::of(normal, best.rr / best.wr, levels);
        if fit.gain() <= best.gain() {
            break;
        }
        best = fit;
    }
    let stored = round(float, best.wr / best.rr * greatest);
    // Scales this small divide to beyond what rounding takes; `rtn`'s are as good there.
    if !stored.is_finite() || stored.abs() < f32::MIN_POSITIVE {
        return stored_by_rtn;
    }
    nearest_codes(w, stored, levels, tried);
    if squared_error(w, tried, stored, levels.zero) < squared_error(w, codes, stored_by_rtn, levels.zero) {
        codes.copy_from_slice(tried);
        stored
    } else {
        stored_by_rtn
    }
}
