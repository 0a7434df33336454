//! Operations on each element by itself: sums, products, activations, soft caps, gates.

use super::super::Activation;
use super::tensor::{Data, Tensor};

/// `f` of each element.
pub fn map(x: &Tensor, f: impl Fn(f32) -> f32) -> Result<Tensor, String> {
    Tensor::new(x.shape().to_vec(), Data::F32(x.floats()?.iter().map(|&x| f(x)).collect()))
}

/// `f` of the elements of a and b; b may be one row for all of a.
fn zip(a: &Tensor, b: &Tensor, f: impl Fn(f32, f32) -> f32) -> Result<Tensor, String> {
    let row = b.shape().len() == 1 && b.columns() == a.columns();
    if a.shape() != b.shape() && !row {
        return Err(format!("{:?} and {:?} do not fit", a.shape(), b.shape()));
    }
    let values = a.floats()?.iter().zip(b.floats()?.iter().cycle()).map(|(&a, &b)| f(a, b)).collect();
    Tensor::new(a.shape().to_vec(), Data::F32(values))
}

/// Sum; b may be one row.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor, String> {
    zip(a, b, |a, b| a + b)
}

/// Product; b may be one row.
pub fn mul(a: &Tensor, b: &Tensor) -> Result<Tensor, String> {
    zip(a, b, |a, b| a * b)
}

/// `cap * tanh(x / cap)`.
pub fn soft_cap(x: &Tensor, cap: f32) -> Result<Tensor, String> {
    map(x, |x| cap * (x / cap).tanh())
}

/// An activation of each element.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor, String> {
    map(x, |x| activation.apply(x))
}

/// `f(a[2i]) * a[2i + 1]` in each row.
pub fn glu(x: &Tensor, activation: Activation) -> Result<Tensor, String> {
    if !x.columns().is_multiple_of(2) {
        return Err(format!("{:?} has no pairs of columns", x.shape()));
    }
    let values = x.floats()?.as_chunks::<2>().0.iter().map(|[gate, up]| activation.apply(*gate) * up).collect();
    Tensor::new(vec![x.rows(), x.columns() / 2], Data::F32(values))
}

impl Activation {
    /// The function's value, computed in f64 and rounded.
    pub fn apply(self, x: f32) -> f32 {
        let x = f64::from(x);
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let y = match self {
            Activation::Gelu => x * 0.5 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
            Activation::GeluTanh => {
                let root = (2.0 / std::f64::consts::PI).sqrt();
                0.5 * x * (1.0 + (root * (x + 0.044715 * x * x * x)).tanh())
            }
            Activation::QuickGelu => x * sigmoid(1.702 * x),
            Activation::Silu => x * sigmoid(x),
        };
        y as f32
    }
}

/// The error function by its series of positive terms, `2/√π e^(-x²) Σ 2ⁿ x^(2n+1) / (2n+1)!!`
/// (Abramowitz and Stegun, 7.1.6).
fn erf(x: f64) -> f64 {
    if x.is_nan() || x.abs() > 6.0 {
        return if x.is_nan() { x } else { x.signum() };
    }
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > sum.abs() * 1e-17 {
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
        n += 1.0;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of Python's `math.erf`.
    #[test]
    fn error_function() {
        for (x, expected) in [
            (0.0, 0.0),
            (0.1, 0.1124629160182849),
            (-0.5, -0.5204998778130465),
            (1.0, 0.8427007929497149),
            (3.0, 0.9999779095030014),
            (-5.9, -1.0),
        ] {
            assert!((erf(x) - expected).abs() < 1e-15, "erf({x}) = {}", erf(x));
        }
        assert_eq!((erf(1e9), erf(-1e9)), (1.0, -1.0));
        assert!(erf(f64::NAN).is_nan());
    }

    /// From the formulas, to seven digits.
    #[test]
    fn activations() {
        let table = [
            (Activation::Gelu, 1.0, 0.841_344_8),
            (Activation::Gelu, -3.0, -0.004_049_69),
            (Activation::GeluTanh, 1.0, 0.841_192),
            (Activation::GeluTanh, -3.0, -0.003_637_39),
            (Activation::QuickGelu, 1.0, 0.845_795_8),
            (Activation::Silu, 1.0, 0.731_058_6),
            (Activation::Silu, -200.0, 0.0),
        ];
        for (activation, x, expected) in table {
            let found = activation.apply(x);
            assert!((found - expected).abs() < 1e-7, "{activation:?}({x}) = {found}");
        }
    }
}
