//! What storing a class of tensors with fewer bits costs, in a number that can be compared: the noise of its weights.

use dwindle_schemes::{Format, Role};

use crate::checkpoint::matrix;
use crate::compile::Blueprint;

/// Noise and number of the weights of one class. A weight's noise is the square of its error relative to the square of the
/// weights of its matrix, summed over all weights.
#[derive(Clone, Copy, Debug, Default)]
pub struct Noise {
    /// Sum over the weights.
    pub sum: f64,
    /// Number of weights.
    pub weights: f64,
}

impl Noise {
    /// Of the tensors of `blueprint` that have this role: measured, where there is a quality card, else as
    /// [`expected`].
    pub fn of(blueprint: &Blueprint, role: Role) -> Noise {
        let mut noise = Noise::default();
        for (name, info) in blueprint.model.tensors.iter().filter(|(_, info)| info.role == role) {
            let (rows, columns) = matrix(&info.shape);
            let weights = rows as f64 * columns as f64;
            let card = blueprint.model.card.as_ref().and_then(|card| card.tensors.get(name));
            let relative = match card {
                Some(card) => card.snr_db.map_or(0.0, |snr| 10_f64.powf(-snr / 10.0)),
                None => expected(info.format),
            };
            noise.sum += weights * relative;
            noise.weights += weights;
        }
        noise
    }

    /// Signal to noise in dB.
    pub fn decibel(&self) -> f64 {
        -10.0 * (self.sum / self.weights).log10()
    }
}

/// The relative noise of normally distributed weights: the greatest magnitude of `n` is about `√(2 ln n)` standard
/// deviations, which the code's largest number `m` stands for; rounding to whole numbers then has a variance of 1/12.
///
/// Where a group spans from its least to its greatest value, half of its weights are on either side, and `m` is half of
/// the codes.
fn expected(format: Format) -> f64 {
    match format {
        Format::Plain(float) if float.bytes() == 4 => 0.0,
        // Half a unit in the last of 11 bits, and the same formula.
        Format::Plain(_) => 2_f64.powi(-22) / 12.0,
        Format::Grouped(grouped) => {
            let highest = grouped.max_code();
            let (values, levels) = match grouped.constant_zero() {
                Some(zero) => (grouped.group, f64::from(zero.min(highest - zero))),
                None => (grouped.group / 2, f64::from(highest) / 2.0),
            };
            // All weights as 0 have a noise of 1, and nothing has more.
            (2.0 * (values.max(2) as f64).ln() / (12.0 * levels * levels)).min(1.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use dwindle_schemes::Scheme;

    use super::*;
    use crate::fit::SCHEMES;

    fn decibel(format: &str) -> f64 {
        -10.0 * expected(format.parse().unwrap()).log10()
    }

    #[test]
    fn fewer_bits_make_more_noise() {
        let formats = ["f16", "q8g32f16", "q4g32f16", "q3g40f16"];
        assert_eq!(formats.map(|format| decibel(format).round()), [77.0, 44.0, 19.0, 12.0]);
        assert_eq!(expected("f32".parse().unwrap()), 0.0);
        assert_eq!(expected("q4g32f16z0".parse().unwrap()), 1.0);
    }

    /// What `dwindle-quant` measures for `rtn` (`schemes/README.md`): the formula is a little below for all of them, so
    /// differences, which decide, are right.
    #[test]
    fn differences_are_those_that_are_measured() {
        let measured = [
            ("q3g40f16", 12.8),
            ("q4g128f16z", 20.1),
            ("q4g32f16", 20.5),
            ("q4g32f16m", 22.3),
            ("q5g32f16", 27.1),
            ("q5g32f16m", 28.6),
            ("q6g32f16", 33.4),
            ("q8g32f16", 45.6),
        ];
        for (format, measured) in measured {
            let below = measured - decibel(format);
            assert!((0.8..1.6).contains(&below), "{format}: {below}");
        }
    }

    /// The list is what its comment says, and ordered.
    #[test]
    fn schemes_are_those_that_none_beats() {
        let price = |scheme: &Scheme| (scheme.bits_per_weight(), expected(scheme.format(Role::Linear)));
        let all: Vec<Scheme> = Scheme::all().into_iter().filter(|scheme| scheme.bits_per_weight() <= 8.5).collect();
        let beaten = |scheme: &Scheme| {
            let (bits, noise) = price(scheme);
            all.iter().map(price).any(|(b, n)| b <= bits && n <= noise && (b, n) != (bits, noise))
        };
        let best: Vec<&str> = all.iter().filter(|scheme| !beaten(scheme)).map(|scheme| scheme.name.as_str()).collect();
        assert_eq!(best, SCHEMES);
    }
}
