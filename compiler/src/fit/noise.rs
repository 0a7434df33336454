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

/// The relative noise of normally distributed weights: a group's greatest magnitude is about `√(2 ln g)` standard deviations,
/// which the code's largest number `m` stands for; rounding to whole numbers then has a variance of 1/12.
fn expected(format: Format) -> f64 {
    match format {
        Format::Plain(float) if float.bytes() == 4 => 0.0,
        // Half a unit in the last of 11 bits, and the same formula.
        Format::Plain(_) => 2_f64.powi(-22) / 12.0,
        Format::Grouped(grouped) => {
            let levels = f64::from((1_u32 << (grouped.bits - 1)) - 1);
            2.0 * (grouped.group.max(2) as f64).ln() / (12.0 * levels * levels)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_bits_make_more_noise() {
        let decibel = |format: &str| (-10.0 * expected(format.parse().unwrap()).log10()).round();
        let formats = ["f16", "q8g32f16", "q4g32f16", "q3g40f16"];
        assert_eq!(formats.map(decibel), [77.0, 44.0, 19.0, 12.0]);
        assert_eq!(expected("f32".parse().unwrap()), 0.0);
    }
}
