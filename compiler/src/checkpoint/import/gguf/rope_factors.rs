//! `rope_freqs.weight`: divisors of the rotations' frequencies, and the `llama3` scaling that they were computed from.
//!
//! llama.cpp's converter writes what Llama 3's scaling divides each frequency by (`LlamaModel.generate_extra_tensors`), not its
//! parameters. Of those, the factor is the greatest divisor. The other three only matter as two thresholds of wavelengths:
//! `positions / low` and `positions / high`. So they are found again, up to a common multiple, from two frequencies between the
//! thresholds; and what was found has to give all divisors.

use std::f64::consts::PI;

use serde_json::{Value, json};

/// Greatest relative difference between divisors that are the same: they were computed in f32.
const TOLERANCE: f64 = 1e-5;

/// Positions that Llama 3's first training had, and powers of two around them.
const POSITIONS: std::ops::RangeInclusive<u32> = 5..=20;

/// A scaling of the kind `llama3`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3 {
    pub factor: f64,
    pub low: f64,
    pub high: f64,
    pub positions: f64,
}

impl Llama3 {
    /// What the frequency `1 / theta^(2 i / dim)` is divided by.
    fn divisor(&self, frequency: f64) -> f64 {
        let wavelength = 2.0 * PI / frequency;
        if wavelength < self.positions / self.high {
            1.0
        } else if wavelength > self.positions / self.low {
            self.factor
        } else {
            let smooth = (self.positions / wavelength - self.low) / (self.high - self.low);
            1.0 / ((1.0 - smooth) / self.factor + smooth)
        }
    }

    /// Whether it gives these divisors.
    fn gives(&self, divisors: &[f32], theta: f64) -> bool {
        frequencies(theta, divisors.len())
            .zip(divisors)
            .all(|(frequency, divisor)| same(self.divisor(frequency), f64::from(*divisor)))
    }

    /// In transformers' words.
    fn config(&self) -> Value {
        json!({
            "factor": self.factor,
            "high_freq_factor": self.high,
            "low_freq_factor": self.low,
            "original_max_position_embeddings": self.positions as u64,
            "rope_type": "llama3",
        })
    }

    /// The scaling that `rope_scaling` tells, if it is of this kind.
    fn read(config: &Value) -> Option<Self> {
        let number = |key: &str| config.get(key).and_then(Value::as_f64);
        (config.get("rope_type").and_then(Value::as_str) == Some("llama3")).then_some(())?;
        Some(Llama3 {
            factor: number("factor")?,
            low: number("low_freq_factor")?,
            high: number("high_freq_factor")?,
            positions: number("original_max_position_embeddings")?,
        })
    }
}

fn frequencies(theta: f64, pairs: usize) -> impl Iterator<Item = f64> {
    (0..pairs).map(move |pair| theta.powf(-(pair as f64) / pairs as f64))
}

fn same(a: f64, b: f64) -> bool {
    (a - b).abs() <= TOLERANCE * b.abs()
}

/// The `rope_scaling` that gives these divisors of the frequencies of base `theta`: `Null` where all are 1, `None` where none does.
pub fn recover(divisors: &[f32], theta: f64) -> Option<Value> {
    if divisors.iter().all(|divisor| same(f64::from(*divisor), 1.0)) {
        return Some(Value::Null);
    }
    let factor = divisors.iter().map(|divisor| f64::from(*divisor)).fold(1.0, f64::max);
    if !factor.is_finite() {
        return None;
    }
    let usual = POSITIONS.map(|power| Llama3 { factor, low: 1.0, high: 4.0, positions: f64::from(1_u32 << power) });
    let found = usual.into_iter().find(|scaling| scaling.gives(divisors, theta));
    found
        .or_else(|| solve(divisors, theta, factor).filter(|scaling| scaling.gives(divisors, theta)))
        .map(|s| s.config())
}

/// The thresholds from the first and the last frequency between them: there, kept = (positions / wavelength - low) / (high - low).
fn solve(divisors: &[f32], theta: f64, factor: f64) -> Option<Llama3> {
    let between = frequencies(theta, divisors.len()).zip(divisors).filter_map(|(frequency, divisor)| {
        let kept = (1.0 / f64::from(*divisor) - 1.0 / factor) / (1.0 - 1.0 / factor);
        (1e-4..1.0 - 1e-4).contains(&kept).then_some((frequency / (2.0 * PI), kept))
    });
    let between: Vec<(f64, f64)> = between.collect();
    let ((x0, y0), (x1, y1)) = (*between.first()?, *between.last()?);
    let slope = (y1 - y0) / (x1 - x0);
    let low_over_range = slope * x0 - y0;
    if !slope.is_finite() || low_over_range <= 0.0 {
        return None;
    }
    // Rotations a position at both ends of the blend: low / positions and high / positions.
    let (least, most) = (low_over_range / slope, (1.0 + low_over_range) / slope);
    let positions = f64::from(1_u32 << 20);
    Some(Llama3 { factor, low: least * positions, high: most * positions, positions })
}

/// Whether a configuration's `rope_scaling` gives these divisors.
pub fn agrees(scaling: Option<&Value>, divisors: &[f32], theta: f64) -> bool {
    match scaling.filter(|value| !value.is_null()) {
        None => divisors.iter().all(|divisor| same(f64::from(*divisor), 1.0)),
        Some(config) => Llama3::read(config).is_some_and(|scaling| scaling.gives(divisors, theta)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divisors(scaling: &Llama3, theta: f64, pairs: usize) -> Vec<f32> {
        frequencies(theta, pairs).map(|frequency| scaling.divisor(frequency) as f32).collect()
    }

    #[test]
    fn scalings_are_found_again() {
        // Llama 3.1 and 3.2, and the golden checkpoint of 8 pairs.
        for (factor, positions, theta, pairs) in [(8.0, 8192.0, 5e5, 64), (32.0, 8192.0, 5e5, 32), (8.0, 64.0, 1e4, 8)]
        {
            let scaling = Llama3 { factor, low: 1.0, high: 4.0, positions };
            let divisors = divisors(&scaling, theta, pairs);
            let found = recover(&divisors, theta).unwrap();
            assert_eq!(Llama3::read(&found), Some(scaling));
            assert!(agrees(Some(&found), &divisors, theta));
            let other = Llama3 { factor: factor * 2.0, ..scaling }.config();
            assert!(!agrees(Some(&other), &divisors, theta) && !agrees(None, &divisors, theta));
        }
    }

    #[test]
    fn unusual_thresholds_are_solved_for() {
        let scaling = Llama3 { factor: 4.0, low: 1.5, high: 7.0, positions: 3000.0 };
        let divisors = divisors(&scaling, 1e5, 64);
        let found = Llama3::read(&recover(&divisors, 1e5).unwrap()).unwrap();
        assert!(found.gives(&divisors, 1e5), "{found:?}");
        assert!((found.high / found.low - 7.0 / 1.5).abs() < 1e-3, "{found:?}");
    }

    #[test]
    fn ones_scale_nothing_and_others_are_none_of_llama3s() {
        assert_eq!(recover(&[1.0; 8], 1e4), Some(Value::Null));
        assert!(agrees(None, &[1.0; 8], 1e4));
        assert_eq!(recover(&[1.0, 1.1, 1.5, 7.0, 3.0], 1e4), None);
        assert_eq!(recover(&[1.0, f32::INFINITY], 1e4), None);
        assert_eq!(recover(&[1.0, f32::NAN], 1e4), None);
    }
}
