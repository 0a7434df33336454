//! RMS norm (Zhang and Sennrich 2019) and layer norm (Ba et al. 2016); a share is a head of a row.

use dwindle_bundle::native::Norm;

use super::{Run, borrow};
use crate::lanes::{LANES, Lanes};

/// Σ (x - mean)², sixteen sums first.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
unsafe fn squares<L: Lanes>(row: &[f32], mean: f32) -> f32 {
    // SAFETY: chunks have 16 values.
    unsafe {
        let mut sums = L::splat(0.0);
        let chunks = row.chunks_exact(LANES);
        let mut rest = 0.0;
        for x in chunks.remainder() {
            rest += (x - mean) * (x - mean);
        }
        for chunk in chunks {
            let x = L::sub(L::load(chunk.as_ptr()), L::splat(mean));
            sums = L::fma(x, x, sums);
        }
        L::sum(sums) + rest
    }
}

/// Σ x, sixteen sums first.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
unsafe fn sum<L: Lanes>(row: &[f32]) -> f32 {
    // SAFETY: chunks have 16 values.
    unsafe {
        let chunks = row.chunks_exact(LANES);
        let rest = chunks.remainder().iter().sum::<f32>();
        let mut sums = L::splat(0.0);
        for chunk in chunks {
            sums = L::add(sums, L::load(chunk.as_ptr()));
        }
        L::sum(sums) + rest
    }
}

/// `1 / sqrt(mean(row²) + eps)`.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
pub unsafe fn rms_factor<L: Lanes>(row: &[f32], eps: f32) -> f32 {
    // SAFETY: the caller's promise.
    let mean = unsafe { squares::<L>(row, 0.0) } / row.len() as f32;
    (mean + eps).sqrt().recip()
}

/// `row * weight / sqrt(mean(row²) + eps)`, in place.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
pub unsafe fn rms<L: Lanes>(row: &mut [f32], weight: &[f32], eps: f32) {
    // SAFETY: the caller's promise.
    let factor = unsafe { rms_factor::<L>(row, eps) };
    for (x, weight) in row.iter_mut().zip(weight) {
        *x = *x * factor * weight;
    }
}

/// The kernel.
///
/// # Safety
/// See the module above.
#[inline(always)]
pub unsafe fn run<L: Lanes>(spec: &Norm, run: &Run<'_>) {
    let (rows, columns) = (run.rows(spec.rows) * spec.heads as usize, spec.columns as usize);
    let residual = 2 + usize::from(spec.layer);
    let y = residual + usize::from(spec.residual);
    let weight = &run.read::<f32>(1)[..columns];
    let mut row = borrow(columns);
    loop {
        let t = run.member.take();
        if t >= rows {
            break;
        }
        // SAFETY: row `t` of every binding belongs to this share; it is copied before y, which may be the same, is written.
        unsafe {
            row.as_mut_ptr().copy_from_nonoverlapping(run.pointer::<f32>(0).add(t * columns), columns);
            if spec.layer {
                let mean = sum::<L>(&row) / columns as f32;
                let factor = (squares::<L>(&row, mean) / columns as f32 + spec.eps).sqrt().recip();
                for ((x, weight), bias) in row.iter_mut().zip(weight).zip(run.read::<f32>(2)) {
                    *x = (*x - mean) * factor * weight + bias;
                }
            } else {
                rms::<L>(&mut row, weight, spec.eps);
            }
            let y = run.pointer::<f32>(y).add(t * columns);
            let residual = run.pointer::<f32>(residual).add(t * columns);
            for (i, x) in row.iter().enumerate() {
                y.add(i).write(if spec.residual { x + residual.add(i).read() } else { *x });
            }
        }
    }
}
