//! How far decoded values are from the original ones.

use crate::wide::{self, Wide};

/// Sums over pairs of original and decoded values.
///
/// Sums of floats depend on their order: measure blocks of a fixed size and merge them in the order of the rows, and the
/// figures do not depend on the number of threads.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ErrorStats {
    /// Pairs.
    pub count: u64,
    /// Σ w².
    pub signal: f64,
    /// Σ (w - w')².
    pub error: f64,
    /// The greatest |w - w'|.
    pub max_abs: f32,
}

impl ErrorStats {
    /// Of the pairs of `values` and `decoded`, as many as the shorter slice has.
    pub fn of(values: &[f32], decoded: &[f32]) -> ErrorStats {
        wide::run(Pairs { values, decoded })
    }

    /// Adds what another block measured.
    pub fn merge(&mut self, below: &ErrorStats) {
        self.count += below.count;
        self.signal += below.signal;
        self.error += below.error;
        self.max_abs = self.max_abs.max(below.max_abs);
    }

    /// Mean squared error; 0 of no values.
    pub fn mean_squared_error(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.error / self.count as f64 }
    }

    /// Signal-to-noise ratio 10 log10(Σw² / Σ(w - w')²) in dB; infinite where nothing was lost.
    pub fn snr_db(&self) -> f64 {
        if self.error == 0.0 { f64::INFINITY } else { 10.0 * (self.signal / self.error).log10() }
    }
}

struct Pairs<'a> {
    values: &'a [f32],
    decoded: &'a [f32],
}

const LANES: usize = 8;

impl Wide for Pairs<'_> {
    type Output = ErrorStats;

    #[inline(always)]
    fn run(self) -> ErrorStats {
        let count = self.values.len().min(self.decoded.len());
        let (values, values_left) = self.values[..count].as_chunks::<LANES>();
        let (decoded, decoded_left) = self.decoded[..count].as_chunks::<LANES>();
        let mut sums = Sums::default();
        for (w, v) in values.iter().zip(decoded) {
            sums.add(w, v);
        }
        // Pairs of zeros add nothing.
        let (mut w, mut v) = ([0.0; LANES], [0.0; LANES]);
        w[..values_left.len()].copy_from_slice(values_left);
        v[..decoded_left.len()].copy_from_slice(decoded_left);
        sums.add(&w, &v);
        ErrorStats {
            count: count as u64,
            signal: sums.signal.iter().sum(),
            error: sums.error.iter().sum(),
            max_abs: sums.max_abs.into_iter().fold(0.0, f32::max),
        }
    }
}

#[derive(Default)]
struct Sums {
    signal: [f64; LANES],
    error: [f64; LANES],
    max_abs: [f32; LANES],
}

impl Sums {
    #[inline(always)]
    fn add(&mut self, w: &[f32; LANES], v: &[f32; LANES]) {
        for lane in 0..LANES {
            let signal = f64::from(w[lane]);
            let error = signal - f64::from(v[lane]);
            self.signal[lane] += signal * signal;
            self.error[lane] += error * error;
            let magnitude = error.abs() as f32;
            self.max_abs[lane] = if magnitude > self.max_abs[lane] { magnitude } else { self.max_abs[lane] };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        let values: Vec<f32> = (0..19).map(|i| i as f32).collect();
        let decoded: Vec<f32> = values.iter().map(|v| if *v == 18.0 { 15.5 } else { v + 0.5 }).collect();
        let stats = ErrorStats::of(&values, &decoded);
        assert_eq!(stats, ErrorStats { count: 19, signal: 2109.0, error: 18.0 * 0.25 + 6.25, max_abs: 2.5 });
        assert!((stats.snr_db() - 10.0 * (2109.0_f64 / 10.75).log10()).abs() < 1e-12);
        assert_eq!(stats.mean_squared_error(), 10.75 / 19.0);
    }

    #[test]
    fn merging_is_measuring_together() {
        let values: Vec<f32> = (0..64).map(|i| (i * i % 23) as f32).collect();
        let decoded: Vec<f32> = values.iter().map(|v| (v / 3.0).round() * 3.0).collect();
        let mut merged = ErrorStats::of(&values[..16], &decoded[..16]);
        merged.merge(&ErrorStats::of(&values[16..], &decoded[16..]));
        assert_eq!(merged, ErrorStats::of(&values, &decoded));
    }

    #[test]
    fn nothing_lost_is_infinitely_good() {
        for values in [&[][..], &[0.0, 0.0], &[1.0, 2.0]] {
            let stats = ErrorStats::of(values, values);
            assert_eq!((stats.snr_db(), stats.mean_squared_error()), (f64::INFINITY, 0.0));
        }
    }
}
