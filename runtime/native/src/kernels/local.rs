//! Memory of a thread that kernels use from share to share: allocated once, at the beginning of a cache line.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

use crate::lanes::LANES;

/// Sixteen values in one cache line: no vector that begins at a multiple of 16 crosses into another.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

thread_local! {
    static LINES: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Values of this thread, which go back to it when they are dropped.
pub struct Local {
    lines: Vec<Line>,
    values: usize,
}

/// That many zeros.
pub fn borrow(values: usize) -> Local {
    let mut lines = LINES.take();
    lines.clear();
    lines.resize(values.div_ceil(LANES), Line([0.0; LANES]));
    Local { lines, values }
}

impl Deref for Local {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.values]
    }
}

impl DerefMut for Local {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.values]
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        LINES.set(std::mem::take(&mut self.lines));
    }
}
