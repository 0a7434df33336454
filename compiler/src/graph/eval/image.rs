//! Pictures: patches of pixels as rows, and image rows in the place of embeddings.

use super::tensor::{Data, Tensor};

/// Whole windows of `patch * patch` pixels as rows, each in the order (channel, y, x).
pub fn patchify(pixels: &Tensor, height: usize, width: usize, patch: usize) -> Result<Tensor, String> {
    if pixels.columns() != height * width || patch == 0 || height < patch || width < patch {
        return Err(format!("{:?} in patches of {patch}", pixels.shape()));
    }
    let (channels, source) = (pixels.rows(), pixels.floats()?);
    let (rows, columns) = (height / patch, width / patch);
    let mut values = Vec::with_capacity(source.len());
    for window in 0..rows * columns {
        let (top, left) = (window / columns * patch, window % columns * patch);
        for channel in 0..channels {
            for y in top..top + patch {
                values.extend_from_slice(&source[(channel * height + y) * width + left..][..patch]);
            }
        }
    }
    Tensor::new(vec![rows * columns, channels * patch * patch], Data::F32(values))
}

/// Row t of x where `index[t, 0] < 0`, else `Σ_j weight[t, j] * rows[index[t, j]]`.
pub fn overlay_rows(x: &Tensor, rows: &Tensor, index: &Tensor, weight: &Tensor) -> Result<Tensor, String> {
    let columns = x.columns();
    let (table, mut values) = (rows.floats()?, x.floats()?.to_vec());
    let (indices, weights) = (index.indices()?.as_chunks::<4>().0, weight.floats()?.as_chunks::<4>().0);
    if indices.len() != x.rows() || weights.len() != x.rows() || rows.columns() != columns {
        return Err(format!("{:?} with indices {:?} into {:?}", x.shape(), index.shape(), rows.shape()));
    }
    for ((out, indices), weights) in values.chunks_exact_mut(columns).zip(indices).zip(weights) {
        if indices[0] < 0 {
            continue;
        }
        let mut sums = vec![0.0_f64; columns];
        for (&index, &weight) in indices.iter().zip(weights) {
            let row = usize::try_from(index).ok().and_then(|index| table.chunks_exact(columns).nth(index));
            let row = row.ok_or_else(|| format!("image row {index} of {}", rows.rows()))?;
            sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(weight) * f64::from(value));
        }
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum as f32);
    }
    Tensor::new(x.shape().to_vec(), Data::F32(values))
}
