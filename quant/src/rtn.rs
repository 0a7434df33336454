//! Round to nearest: the greatest magnitude of a group sets the scale.
//!
//! In f32, for a group w, codes 0 to h of which z stands for 0, and m = min(z, h - z): s = max|w| / m,
//! q = clip(round(w / s) + z, z - m, z + m), halves to even. With z = m = 2^(b-1) - 1 this
//! is the rule of MLC LLM (`python/mlc_llm/quantization/group_quantization.py`) in f32 arithmetic. Codes come from the
//! unrounded s, as there; what is stored is s rounded.

/// Values handled together; groups are cut into these, filled up with zeros.
pub(crate) const LANES: usize = 8;

/// 1.5 * 2^23: floats of this size have no fraction bits, so adding it rounds to an integer, halves to even. Unlike
/// `round_ties_even` it needs no instruction that old machines lack.
const ROUNDING: f32 = 12_582_912.0;

/// `x` rounded to an integer, halves to even, for |x| < 2^22.
#[inline(always)]
pub(crate) fn round_half_even(x: f32) -> f32 {
    (x + ROUNDING) - ROUNDING
}

/// `x` between `low` and `high`; compiles to two instructions without the care for NaN that `f32::clamp` takes.
#[inline(always)]
pub(crate) fn clip(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// The greatest |w|. Not finite if any value is not: as bits, infinity and NaN are above all magnitudes.
#[inline(always)]
pub(crate) fn greatest_magnitude(w: &[[f32; LANES]]) -> f32 {
    let mut greatest = [0_i32; LANES];
    for w in w {
        for (greatest, w) in greatest.iter_mut().zip(w) {
            *greatest = (*greatest).max(w.abs().to_bits() as i32);
        }
    }
    f32::from_bits(greatest.into_iter().fold(0, i32::max) as u32)
}

/// Codes by what they stand for: those of `low..=high`, in units of the scale, of which `zero` is the code of 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Levels {
    /// The code of 0.
    pub zero: i32,
    /// At most 0.
    pub low: i32,
    /// At least 0.
    pub high: i32,
}

impl Levels {
    /// All codes of `bits` bits.
    pub fn all(bits: u32, zero: u32) -> Levels {
        Levels { zero: zero as i32, low: -(zero as i32), high: (1 << bits) - 1 - zero as i32 }
    }

    /// Those of which there are as many below 0 as above.
    pub fn symmetric(self) -> Levels {
        let most = self.high.min(-self.low);
        Levels { low: -most, high: most, ..self }
    }
}

/// The codes nearest to `w / scale`. `scale` is finite and not 0, and |w / scale| below 2^22.
#[inline(always)]
pub(crate) fn nearest_codes(w: &[[f32; LANES]], scale: f32, levels: Levels, codes: &mut [[u8; LANES]]) {
    let zero = levels.zero;
    let (low, high) = (levels.low as f32, levels.high as f32);
    for (codes, w) in codes.iter_mut().zip(w) {
        for (code, w) in codes.iter_mut().zip(w) {
            // Clipping before rounding gives the same, as the limits are integers, and then the low bits of the sum
            // are those of the integer.
            let rounded = clip(w / scale, low, high) + ROUNDING;
            *code = (rounded.to_bits() as u8).wrapping_add(zero as u8);
        }
    }
}

/// Chooses the codes of a group whose greatest magnitude is `greatest` (finite) and returns the unrounded scale.
/// `levels` are [symmetric](Levels::symmetric); where 0 is the only one, all codes stand for it.
#[inline(always)]
pub(crate) fn encode_group(w: &[[f32; LANES]], greatest: f32, levels: Levels, codes: &mut [[u8; LANES]]) -> f32 {
    let scale = if levels.high == 0 { 0.0 } else { greatest / levels.high as f32 };
    if scale == 0.0 {
        codes.fill([levels.zero as u8; LANES]);
    } else {
        nearest_codes(w, scale, levels, codes);
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_to_even() {
        for (x, expected) in [(0.5, 0.0), (1.5, 2.0), (2.5, 2.0), (-0.5, 0.0), (-3.5, -4.0), (126.5, 126.0), (2.6, 3.0)]
        {
            assert_eq!(round_half_even(x), expected);
            assert_eq!(round_half_even(x), f32::round_ties_even(x));
        }
    }

    #[test]
    fn magnitudes_show_what_is_not_finite() {
        let group = |x: f32| [[1.0, -3.0, 0.0, x, 2.0, 0.5, -0.0, 1e-40]];
        assert_eq!(greatest_magnitude(&group(-7.0)), 7.0);
        assert_eq!(greatest_magnitude(&group(f32::NEG_INFINITY)), f32::INFINITY);
        assert!(greatest_magnitude(&group(-f32::NAN)).is_nan());
    }

    /// Scales so small that they are rounded coarsely, where w / s exceeds m and the clip matters.
    #[test]
    fn subnormal_groups() {
        for units in [1_u32, 2, 3, 4, 10, 11, 190, 1000] {
            let w = f32::from_bits(units);
            let mut codes = [[9; LANES]];
            let scale =
                encode_group(&[[w, -w, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]], w, Levels::all(8, 127).symmetric(), &mut codes);
            let expected = |w: f32| match scale {
                0.0 => 127,
                _ => ((w / scale).round_ties_even() + 127.0).clamp(0.0, 254.0) as u8,
            };
            assert_eq!(codes[0][..3], [expected(w), expected(-w), 127], "{units}");
        }
    }
}
