//! A minimum for each group: `value = code * scale + minimum`, from the least to the greatest value of the group.
//!
//! For codes 0..=h, `rtn` takes s = (max w - min w) / h and m = min w, both rounded to their stored type, and
//! q = clip(round((w - m) / s), 0, h). Unlike a zero, a minimum need not be a multiple of the scale, so nothing keeps 0
//! exactly 0.
//!
//! For fixed codes the error Σ (w - q s - m)² is least where s and m are those of the regression line of w over q; it
//! lowers the error of the mean, Σ (w - mean w)², by cov(w, q)² / var(q). So `search`
//!
//! 1. tries ranges of which a little is cut off at both ends or at one, and keeps the codes with the greatest gain;
//! 2. alternates regression and nearest codes while the gain grows (Lloyd's iteration on a line);
//! 3. rounds the scale, then the minimum that fits it best, takes the nearest codes for those, fits the minimum once more,
//!    and keeps what decodes with the least error, `rtn`'s choice included.
//!
//! Steps 1 and 2 work on (w - min w) / (max w - min w), where no square over- or underflows.

use dwindle_schemes::FloatType;

use crate::Method;
use crate::float::round;
use crate::rtn::{LANES, clip, round_half_even};

/// Shares of the range that step 1 cuts off at an end: `FIRST`, `FIRST + STEP`, …; negative ones widen the range.
const FIRST: f32 = -0.02;
const STEP: f32 = 0.02;
const STEPS: u32 = 9;

/// Rounds of step 2 at most; nearly all groups are stationary before.
const ROUNDS: usize = 4;

/// What a group stores besides its codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    /// As stored; not finite where the type of scales cannot hold `unrounded.0`.
    pub scale: f32,
    /// As stored; not finite where the type of scales cannot hold `unrounded.1`.
    pub minimum: f32,
    /// Scale and minimum before they were rounded.
    pub unrounded: (f32, f32),
}

impl Choice {
    fn of(float: FloatType, scale: f32, minimum: f32) -> Choice {
        Choice { scale: round(float, scale), minimum: round(float, minimum), unrounded: (scale, minimum) }
    }
}

/// Chooses scale, minimum and codes of a group of finite values, at least one. `codes`, `normal` and `tried` are of the
/// same length; the latter two are scratch.
#[inline(always)]
pub(crate) fn encode_group(
    w: &[f32],
    bits: u32,
    float: FloatType,
    method: Method,
    codes: &mut [u8],
    normal: &mut [f32],
    tried: &mut [u8],
) -> Choice {
    let highest = ((1 << bits) - 1) as f32;
    let (least, greatest) = extremes(w);
    // Each by itself, because their difference may be infinite.
    let mut best = Choice::of(float, greatest / highest - least / highest, least);
    if best.scale == 0.0 || !best.scale.is_finite() || !best.minimum.is_finite() {
        codes.fill(0);
        return best;
    }
    nearest_codes(w, best, highest, codes);
    let range = greatest - least;
    if method == Method::Rtn || !range.is_finite() {
        return best;
    }
    for (normal, w) in normal.iter_mut().zip(w) {
        *normal = (w - least) / range;
    }
    let Some(line) = search(normal, highest) else { return best };
    let mut offered = Choice::of(float, line.scale * range, line.minimum * range + least);
    // Scales this small divide to beyond what rounding takes; `rtn`'s are as good there.
    if !offered.scale.is_finite() || offered.scale < f32::MIN_POSITIVE {
        return best;
    }
    let mut lowest_error = squared_error(w, codes, best);
    for _ in 0..2 {
        if !offered.minimum.is_finite() {
            break;
        }
        nearest_codes(w, offered, highest, tried);
        let error = squared_error(w, tried, offered);
        if error < lowest_error {
            (best, lowest_error) = (offered, error);
            codes.copy_from_slice(tried);
        }
        offered.minimum = round(float, best_minimum(w, tried, offered.scale));
    }
    best
}

/// The least and the greatest value.
#[inline(always)]
fn extremes(w: &[f32]) -> (f32, f32) {
    let (mut low, mut high) = ([w[0]; LANES], [w[0]; LANES]);
    let mut add = |lane: usize, w: f32| {
        low[lane] = if w < low[lane] { w } else { low[lane] };
        high[lane] = if w > high[lane] { w } else { high[lane] };
    };
    let (chunks, rest) = w.as_chunks::<LANES>();
    for w in chunks {
        w.iter().enumerate().for_each(|(lane, w)| add(lane, *w));
    }
    rest.iter().for_each(|w| add(0, *w));
    (low.into_iter().fold(w[0], f32::min), high.into_iter().fold(w[0], f32::max))
}

/// The codes nearest to (w - minimum) / scale, for a scale that is finite and positive.
#[inline(always)]
fn nearest_codes(w: &[f32], choice: Choice, highest: f32, codes: &mut [u8]) {
    for (code, w) in codes.iter_mut().zip(w) {
        *code = round_half_even(clip((w - choice.minimum) / choice.scale, 0.0, highest)) as i32 as u8;
    }
}

/// Σ (w - w')² of codes as they will be decoded.
#[inline(always)]
fn squared_error(w: &[f32], codes: &[u8], choice: Choice) -> f64 {
    let error = |w: f32, code: u8| {
        let decoded = f32::from(code) * choice.scale + choice.minimum;
        let error = f64::from(w) - f64::from(decoded);
        error * error
    };
    let mut sums = [0.0_f64; LANES];
    let ((w, w_rest), (codes, codes_rest)) = (w.as_chunks::<LANES>(), codes.as_chunks::<LANES>());
    for (w, codes) in w.iter().zip(codes) {
        for lane in 0..LANES {
            sums[lane] += error(w[lane], codes[lane]);
        }
    }
    sums.iter().sum::<f64>() + w_rest.iter().zip(codes_rest).map(|(w, code)| error(*w, *code)).sum::<f64>()
}

/// The minimum of least squared error for given codes and scale: the mean of what they leave.
#[inline(always)]
fn best_minimum(w: &[f32], codes: &[u8], scale: f32) -> f32 {
    let left = w.iter().zip(codes).map(|(w, code)| f64::from(*w) - f64::from(*code) * f64::from(scale));
    (left.sum::<f64>() / w.len() as f64) as f32
}

/// A line through values over codes.
#[derive(Clone, Copy)]
struct Line {
    scale: f32,
    minimum: f32,
    /// By how much it lowers the squared error of the mean.
    gain: f32,
}

/// The best line found for values `t` between 0 and 1, if any is better than the mean.
#[inline(always)]
fn search(t: &[f32], highest: f32) -> Option<Line> {
    let mut best: Option<Line> = None;
    let offer = |line: Option<Line>, best: &mut Option<Line>| {
        let better = line.is_some_and(|line| best.is_none_or(|best| line.gain > best.gain));
        if better {
            *best = line;
        }
        better
    };
    for step in 0..STEPS {
        let cut = FIRST + step as f32 * STEP;
        for (low, high) in [(cut, cut), (cut, 0.0), (0.0, cut)] {
            offer(regression(t, low, highest / (1.0 - low - high), highest), &mut best);
        }
    }
    for _ in 0..ROUNDS {
        let line = best?;
        if !offer(regression(t, line.minimum, 1.0 / line.scale, highest), &mut best) {
            break;
        }
    }
    best
}

/// The line of least squared error through `t` over the codes nearest to (t - `offset`) * `inverse`; `None` where all are
/// equal.
#[inline(always)]
fn regression(t: &[f32], offset: f32, inverse: f32, highest: f32) -> Option<Line> {
    // Codes less their centre are as often below as above 0, which keeps the sums of products exact enough in f32.
    let centre = highest / 2.0;
    let (mut ts, mut rs, mut tr, mut rr) = ([0.0; LANES], [0.0; LANES], [0.0; LANES], [0.0; LANES]);
    let mut add = |lane: usize, t: f32| {
        let r = round_half_even(clip((t - offset) * inverse, 0.0, highest)) - centre;
        ts[lane] += t;
        rs[lane] += r;
        tr[lane] += t * r;
        rr[lane] += r * r;
    };
    let (chunks, rest) = t.as_chunks::<LANES>();
    for t in chunks {
        t.iter().enumerate().for_each(|(lane, t)| add(lane, *t));
    }
    rest.iter().for_each(|t| add(0, *t));
    let sum = |lanes: [f32; LANES]| lanes.iter().sum::<f32>();
    let (ts, rs, tr, rr) = (sum(ts), sum(rs), sum(tr), sum(rr));
    let count = t.len() as f32;
    let (variance, covariance) = (rr - rs * rs / count, tr - ts * rs / count);
    if variance <= 0.0 || covariance <= 0.0 {
        return None;
    }
    let scale = covariance / variance;
    Some(Line { scale, minimum: (ts - scale * rs) / count - scale * centre, gain: covariance * scale })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(w: &[f32], method: Method) -> (Choice, Vec<u8>) {
        let (mut codes, mut tried, mut normal) = (vec![9; w.len()], vec![9; w.len()], vec![9.0; w.len()]);
        let choice = encode_group(w, 4, FloatType::F16, method, &mut codes, &mut normal, &mut tried);
        (choice, codes)
    }

    /// Scale and minimum by hand, also of lengths that are no whole lanes: nothing else is counted.
    #[test]
    fn ranges_become_scales_and_minimums() {
        let table: [(&[f32], f32, f32, &[u8]); 4] = [
            (&[-0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 7.0], 0.5, -0.5, &[0, 1, 2, 3, 4, 5, 6, 15]),
            (&[10.0, 11.0, 25.0], 1.0, 10.0, &[0, 1, 15]),
            (
                &[-25.0, -10.0, -12.0, -24.0, -20.0, -20.0, -20.0, -20.0, -20.0],
                1.0,
                -25.0,
                &[0, 15, 13, 1, 5, 5, 5, 5, 5],
            ),
            (&[3.0; 11], 0.0, 3.0, &[0; 11]),
        ];
        for (w, scale, minimum, codes) in table {
            for method in Method::ALL {
                let (choice, found) = encode(w, method);
                assert_eq!((choice.scale, choice.minimum, &found[..]), (scale, minimum, codes), "{method}: {w:?}");
            }
        }
    }

    #[test]
    fn numbers_beyond_their_type_are_shown() {
        let (choice, _) = encode(&[f32::MAX, f32::MIN, 0.0], Method::Search);
        assert!(choice.scale.is_infinite() && choice.unrounded.0.is_finite());
        let (choice, _) = encode(&[70000.0, 70001.0], Method::Search);
        assert!(choice.minimum.is_infinite() && choice.scale.is_finite());
        assert_eq!(choice.unrounded.1, 70000.0);
    }

    /// A line with one outlier on it: regression finds what the range misses.
    #[test]
    fn search_finds_lines() {
        let mut w: Vec<f32> = (0..32).map(|j| 0.25 * (j % 16) as f32 + 100.0).collect();
        w[5] = 104.0;
        let error = |method| {
            let (choice, codes) = encode(&w, method);
            squared_error(&w, &codes, choice)
        };
        // The outlier alone would cost so much.
        assert!(error(Method::Search) <= 0.25 * 0.25);
        assert!(error(Method::Rtn) > 2.0 * error(Method::Search));
    }
}
