//! RMS norm (Zhang and Sennrich 2019) and layer norm (Ba et al. 2016) of each row, or of each head of a row.

use super::super::NormKind;
use super::tensor::{Data, Tensor};

/// `x / sqrt(mean(x²) + ε) * weight`, or `(x - mean) / sqrt(var + ε) * weight + bias`, of each of `heads` parts of a row.
pub fn norm(
    kind: NormKind,
    heads: usize,
    eps: f32,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor, String> {
    let columns = x.columns() / heads.max(1);
    let weight = weight.floats()?;
    let bias = bias.map(Tensor::floats).transpose()?;
    if columns * heads != x.columns() || weight.len() != columns || bias.is_some_and(|bias| bias.len() != columns) {
        return Err(format!("{} weights for {heads} heads in {} columns", weight.len(), x.columns()));
    }
    let mut values = Vec::with_capacity(x.floats()?.len());
    for row in x.floats()?.chunks_exact(columns) {
        let mean_of = |f: &dyn Fn(f64) -> f64| row.iter().map(|&x| f(f64::from(x))).sum::<f64>() / columns as f64;
        let mean = match kind {
            NormKind::Rms => 0.0,
            NormKind::Layer => mean_of(&|x| x),
        };
        let scale = (mean_of(&|x| (x - mean) * (x - mean)) + f64::from(eps)).sqrt().recip();
        values.extend(row.iter().enumerate().map(|(i, &x)| {
            let normed = ((f64::from(x) - mean) * scale) as f32;
            normed * weight[i] + bias.map_or(0.0, |bias| bias[i])
        }));
    }
    Tensor::new(x.shape().to_vec(), Data::F32(values))
}
