//! Products with a matrix, and rows of a table.

use rayon::prelude::*;

use super::tensor::{Data, Tensor};

/// `x wᵀ` with x `[T, k]` and w `[n, k]`.
pub fn matmul(x: &Tensor, w: &Tensor) -> Result<Tensor, String> {
    let (k, n) = (x.columns(), w.rows());
    if w.columns() != k {
        return Err(format!("{:?} times {:?} transposed", x.shape(), w.shape()));
    }
    let (a, b) = (x.floats()?, w.floats()?);
    let values = (0..x.rows() * n)
        .into_par_iter()
        .with_min_len(64)
        .map(|i| dot(&a[i / n * k..][..k], &b[i % n * k..][..k]) as f32)
        .collect();
    Tensor::new(vec![x.rows(), n], Data::F32(values))
}

/// `Σ a[i] b[i]` in f64, in four sums that the processor can work on at the same time.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    let ((a4, a), (b4, b)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let mut sums = [0.0_f64; 4];
    for (a, b) in a4.iter().zip(b4) {
        for lane in 0..4 {
            sums[lane] += f64::from(a[lane]) * f64::from(b[lane]);
        }
    }
    let rest: f64 = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    sums.iter().sum::<f64>() + rest
}

/// Row `tokens[t]` of the table, times `scale`.
pub fn embed(tokens: &Tensor, table: &Tensor, scale: f32) -> Result<Tensor, String> {
    let columns = table.columns();
    let rows = table.floats()?;
    let mut values = Vec::with_capacity(tokens.rows() * columns);
    for &token in tokens.words()? {
        let row = rows.chunks_exact(columns).nth(token as usize);
        let row = row.ok_or_else(|| format!("token {token} of {} rows", table.rows()))?;
        values.extend(row.iter().map(|x| x * scale));
    }
    Tensor::new(vec![tokens.rows(), columns], Data::F32(values))
}
