//! Frequencies of the rotary position embedding (Su et al. 2021) and their scalings for longer contexts.
//!
//! Pair i of a head of width d turns by `p / θ^(2i / d)` at position p. The scalings divide frequencies, as transformers'
//! `modeling_rope_utils.py` does:
//! - `linear`: all of them by the factor;
//! - `llama3` (Llama Team 2024, arXiv 2407.21783): those whose wavelength exceeds the positions of the first training over
//!   `low_freq_factor` by the factor; those below the positions over `high_freq_factor` not at all; between them a blend.

use std::f32::consts::PI;

use serde_json::Value;

use super::super::keys::Keys;
use crate::graph::Rope;

/// Greatest number of positions of a first training.
const MAX_POSITIONS: usize = 1 << 24;

/// How the frequencies of all heads come about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotary {
    /// Base of the frequencies.
    pub theta: f64,
    /// What is done to them.
    pub scaling: Scaling,
}

/// A scaling of the frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// None.
    Unscaled,
    /// All divided.
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// The low ones divided.
    Llama3 {
        /// The divisor.
        factor: f32,
        /// Positions over the shortest wavelength that is divided in full.
        low_freq_factor: f32,
        /// Positions over the longest wavelength that stays as it is.
        high_freq_factor: f32,
        /// Positions of the first training.
        positions: f32,
    },
}

/// `rope_type`s that are understood.
#[derive(Clone, Copy)]
enum Kind {
    Default,
    Linear,
    Llama3,
}

impl Rotary {
    /// Reads `rope_theta` and `rope_scaling`; `theta` is the family's default.
    pub fn read(keys: &mut Keys<'_>, theta: f64) -> Rotary {
        let theta = keys.float("rope_theta", theta);
        // The positions of the first training, where the scaling does not say (transformers' `standardize_rope_params`).
        let positions = keys.get("max_position_embeddings").and_then(Value::as_u64);
        let scaling = keys.nested("rope_scaling", |keys| Scaling::read(keys, positions));
        Rotary { theta, scaling: scaling.unwrap_or(Scaling::Unscaled) }
    }

    /// Frequencies of this base as they are.
    pub const fn unscaled(theta: f64) -> Rotary {
        Rotary { theta, scaling: Scaling::Unscaled }
    }

    /// Rotation of heads of this width. Numbers are rounded to f32 where transformers' f32 arithmetic rounds.
    pub fn rope(&self, head_dim: usize) -> Rope {
        let frequency = |i: usize| {
            let exponent = (2 * i) as f32 / head_dim as f32;
            self.scaling.apply(1.0 / self.theta.powf(f64::from(exponent)) as f32)
        };
        Rope { head_dim, inv_freq: (0..head_dim / 2).map(frequency).collect(), magnitude: 1.0 }
    }
}

impl Scaling {
    fn read(keys: &mut Keys<'_>, positions: Option<u64>) -> Scaling {
        let table = [("default", Kind::Default), ("linear", Kind::Linear), ("llama3", Kind::Llama3)];
        let before = keys.is_fine();
        let kind = keys.choice("rope_type", Kind::Default, &table);
        if before && !keys.is_fine() {
            // The parameters of an unknown scaling are no mistakes of their own.
            keys.harmless_all();
            return Scaling::Unscaled;
        }
        let factor = |keys: &mut Keys<'_>| keys.required_float("factor") as f32;
        let scaling = match kind {
            Kind::Default => Scaling::Unscaled,
            Kind::Linear => Scaling::Linear { factor: factor(keys) },
            Kind::Llama3 => {
                let factor = factor(keys);
                let low_freq_factor = keys.required_float("low_freq_factor") as f32;
                let high_freq_factor = keys.required_float("high_freq_factor") as f32;
                if keys.is_fine() && high_freq_factor <= low_freq_factor {
                    keys.refuse("high_freq_factor", format!("more than low_freq_factor, {low_freq_factor}"));
                }
                let told = keys.maybe_size("original_max_position_embeddings", MAX_POSITIONS);
                let positions = told.or(positions.and_then(|positions| usize::try_from(positions).ok()));
                if positions.is_none() {
                    keys.missing("original_max_position_embeddings");
                }
                let positions = positions.unwrap_or(1) as f32;
                Scaling::Llama3 { factor, low_freq_factor, high_freq_factor, positions }
            }
        };
        // What other scalings would read has no effect on this one.
        keys.note_rest();
        scaling
    }

    fn apply(self, frequency: f32) -> f32 {
        match self {
            Scaling::Unscaled => frequency,
            Scaling::Linear { factor } => frequency / factor,
            Scaling::Llama3 { factor, low_freq_factor, high_freq_factor, positions } => {
                let wavelength = 2.0 * PI / frequency;
                if wavelength > positions / low_freq_factor {
                    frequency / factor
                } else if wavelength < positions / high_freq_factor {
                    frequency
                } else {
                    let kept = (positions / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    (1.0 - kept) * frequency / factor + kept * frequency
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(scaling: Scaling, expected: [f32; 4]) {
        let rope = Rotary { theta: 10000.0, scaling }.rope(8);
        assert_eq!(rope.magnitude, 1.0);
        for (found, expected) in rope.inv_freq.iter().zip(expected) {
            assert!((found - expected).abs() <= expected * 1e-5, "{:?}", rope.inv_freq);
        }
    }

    /// Frequencies 1, 0.1, 0.01, 0.001 have wavelengths of 6.28, 62.8, 628 and 6283 positions.
    #[test]
    fn scalings() {
        check(Scaling::Unscaled, [1.0, 0.1, 0.01, 0.001]);
        check(Scaling::Linear { factor: 4.0 }, [0.25, 0.025, 0.0025, 0.00025]);
        // Kept below 25 positions, divided by 8 above 100; 100 / 62.83 - 1 = 0.59155 of the three steps between.
        let kept = (100.0 / (20.0 * PI) - 1.0) / 3.0;
        let blended = 0.1 * ((1.0 - kept) / 8.0 + kept);
        let llama3 = Scaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, positions: 100.0 };
        check(llama3, [1.0, blended, 0.01 / 8.0, 0.001 / 8.0]);
    }
}
