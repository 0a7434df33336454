//! Softmax attention in one pass over the keys (online softmax, Milakov and Gimelshein 2018; tiles as Dao et al. 2022).
//!
//! Calls of one row go through the cache in pieces that members share ([`one_row`]); in calls of many rows members share
//! queries ([`many_rows`]). Pieces and tiles begin at fixed positions, and what a query does not see changes nothing for it, so a
//! result depends neither on the team nor on the queries beside it.

mod many_rows;
mod one_row;

use dwindle_bundle::native::{Attention, Columns, Float};

use super::Run;
use crate::lanes::{LANES, Lanes};

/// A score that is less than any other: of keys that a query does not see.
const UNSEEN: f32 = -1e30;

/// The kernel.
///
/// # Safety
/// See the module above.
#[inline(always)]
pub unsafe fn run<L: Lanes>(spec: &Attention, run: &Run<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match run.rows(spec.rows) {
            1 => one_row::run::<L>(spec, run),
            rows => many_rows::run::<L>(spec, run, rows),
        }
    }
}

/// Positions that a row sees.
fn seen(spec: &Attention, row: usize, position: usize) -> std::ops::Range<usize> {
    let end = if spec.causal { position + row + 1 } else { spec.kv_rows as usize };
    spec.window.map_or(0, |window| end.saturating_sub(window as usize))..end
}

/// Where a head of k or v lies.
#[derive(Clone, Copy)]
struct Cache {
    first: *const u8,
    float: Float,
    /// Elements from one row to the next.
    stride: usize,
    width: usize,
}

impl Cache {
    /// Of binding `binding`; its rows up to the call's end are within the binding, as `needs` and `check_call` found.
    fn new(spec: &Attention, run: &Run<'_>, binding: usize, view: Columns, head: usize) -> Cache {
        let width = spec.head_dim as usize;
        let first = run.pointer::<u8>(binding).cast_const();
        let skipped = (view.offset as usize + head * width) * spec.kv.bytes();
        Cache { first: first.wrapping_add(skipped), float: spec.kv, stride: view.stride as usize, width }
    }

    /// Asks for a row, which need not be there.
    #[inline(always)]
    unsafe fn prefetch<L: Lanes>(&self, row: usize) {
        let first = self.first.wrapping_add(row * self.stride * self.float.bytes());
        for byte in (0..self.width * self.float.bytes()).step_by(64) {
            // SAFETY: the caller has the instruction set; prefetches never fault.
            unsafe { L::prefetch(first.wrapping_add(byte)) };
        }
    }

    /// Sixteen values of a row from column `column` on, zeros beyond its width.
    #[inline(always)]
    unsafe fn load<L: Lanes>(&self, row: usize, column: usize) -> L::F {
        let at = row * self.stride + column;
        let there = LANES.min(self.width - column);
        // SAFETY: the row is within the cache, by the caller's promise; no element beyond it is read.
        unsafe {
            match self.float {
                Float::F32 if there == LANES => L::load(self.first.cast::<f32>().add(at)),
                Float::F16 if there == LANES => L::load_f16(self.first.cast::<u16>().add(at)),
                Float::F32 => {
                    let mut values = [0.0; LANES];
                    values.as_mut_ptr().copy_from_nonoverlapping(self.first.cast::<f32>().add(at), there);
                    L::load(values.as_ptr())
                }
                Float::F16 => {
                    let mut values = [0; LANES];
                    values.as_mut_ptr().copy_from_nonoverlapping(self.first.cast::<u16>().add(at), there);
                    L::load_f16(values.as_ptr())
                }
            }
        }
    }
}

/// Query heads of one key head, of one row of q.
fn query<'a>(spec: &Attention, run: &'a Run<'_>, row: usize, head: usize) -> &'a [f32] {
    let width = spec.head_dim as usize;
    &run.read::<f32>(0)[row * spec.q.stride as usize + spec.q.offset as usize + head * width..][..width]
}
