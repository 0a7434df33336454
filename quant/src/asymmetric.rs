//! A zero for each group: scale and zero from the least and the greatest value of the group, 0 included.
//!
//! For codes 0..=h, s = (max w - min w) / h rounded to its stored type, z = round(-min w / s), q = clip(round(w / s) + z,
//! 0, h). Zeros are whole codes, so 0 stays exactly 0. `search` also tries ranges from which the extremes are cut off,
//! then the scale of least squared error for the codes found, and keeps what decodes with the least error.

use dwindle_schemes::FloatType;

use crate::Method;
use crate::float::round;
use crate::rtn::{LANES, Levels, nearest_codes, round_half_even};
use crate::search::squared_error;

/// Ranges that `search` tries: 1, 1 - `STEP`, ….
const STEPS: u32 = 12;
const STEP: f32 = 0.04;

/// What a group stores besides its codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    /// As stored; not finite where the type of scales cannot hold `unrounded`.
    pub scale: f32,
    /// The code of 0.
    pub zero: i32,
    /// The scale before it was rounded.
    pub unrounded: f32,
}

/// Chooses scale, zero and codes of a group of finite values; `tried` is scratch of the same length.
#[inline(always)]
pub(crate) fn encode_group(
    w: &[[f32; LANES]],
    bits: u32,
    float: FloatType,
    method: Method,
    codes: &mut [[u8; LANES]],
    tried: &mut [[u8; LANES]],
) -> Choice {
    let highest = (1 << bits) - 1;
    let (mut low, mut high) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    for w in w {
        for lane in 0..LANES {
            low[lane] = if w[lane] < low[lane] { w[lane] } else { low[lane] };
            high[lane] = if w[lane] > high[lane] { w[lane] } else { high[lane] };
        }
    }
    let (low, high) = (low.into_iter().fold(0.0, f32::min), high.into_iter().fold(0.0, f32::max));
    // Each by itself, because their difference may be infinite.
    let unrounded = high / highest as f32 - low / highest as f32;
    let of = |share: f32| {
        let scale = round(float, unrounded * share);
        let zero = if scale == 0.0 { 0.0 } else { round_half_even((-low * share / scale).min(highest as f32)) };
        Choice { scale, zero: zero as i32, unrounded }
    };
    let mut best = of(1.0);
    if best.scale == 0.0 || !best.scale.is_finite() {
        codes.fill([best.zero as u8; LANES]);
        return best;
    }
    nearest_codes(w, best.scale, Levels::all(bits, best.zero as u32), codes);
    if method == Method::Rtn {
        return best;
    }
    let mut least = squared_error(w, codes, best.scale, best.zero);
    let mut offer = |choice: Choice, best: &mut Choice, codes: &mut [[u8; LANES]]| {
        if choice.scale.is_finite() && choice.scale >= f32::MIN_POSITIVE {
            nearest_codes(w, choice.scale, Levels::all(bits, choice.zero as u32), tried);
            let error = squared_error(w, tried, choice.scale, choice.zero);
            if error < least {
                (*best, least) = (choice, error);
                codes.copy_from_slice(tried);
            }
        }
    };
    for step in 1..STEPS {
        offer(of(1.0 - step as f32 * STEP), &mut best, codes);
    }
    let (mut wr, mut rr) = (0.0_f64, 0.0_f64);
    for (w, codes) in w.as_flattened().iter().zip(codes.as_flattened()) {
        let r = f64::from(i32::from(*codes) - best.zero);
        wr += f64::from(*w) * r;
        rr += r * r;
    }
    if rr > 0.0 {
        offer(Choice { scale: round(float, (wr / rr) as f32), ..best }, &mut best, codes);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(w: [f32; LANES], method: Method) -> (Choice, [u8; LANES]) {
        let (mut codes, mut tried) = ([[9; LANES]], [[9; LANES]]);
        let choice = encode_group(&[w], 4, FloatType::F16, method, &mut codes, &mut tried);
        (choice, codes[0])
    }

    /// Scale and zero by hand; ranges that lie on one side of 0 begin or end there.
    #[test]
    fn ranges_become_scales_and_zeros() {
        let table = [
            ([-0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 7.0], 0.5, 1, [0, 1, 2, 3, 4, 5, 6, 15]),
            ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 15.0], 1.0, 0, [0, 1, 2, 3, 4, 5, 6, 15]),
            ([-15.0, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0, 0.0], 1.0, 15, [0, 14, 13, 12, 11, 10, 9, 15]),
            ([0.0; LANES], 0.0, 0, [0; LANES]),
        ];
        for (w, scale, zero, codes) in table {
            for method in Method::ALL {
                let (choice, found) = encode(w, method);
                assert_eq!((choice.scale, choice.zero, found), (scale, zero, codes), "{method}: {w:?}");
            }
        }
    }

    #[test]
    fn scales_beyond_their_type_are_shown() {
        let (choice, _) = encode([f32::MAX, f32::MIN, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], Method::Search);
        assert!(choice.scale.is_infinite() && choice.unrounded.is_finite());
    }
}
