//! The second phase for codes and activations of 8 bits: shares, tiles of rows and pieces of columns.

use dwindle_bundle::Record;
use dwindle_bundle::native::{BLOCK_ROWS, MatMul};

use super::block::{self, Block, Second, unit_words};
use super::finish::finish;
use super::{Bound, Run, borrow, share_blocks};
use crate::lanes::isa::Work;
use crate::lanes::{LANES, Lanes};

/// Bytes of a tile's activations that a share goes through for all of its blocks before it goes on: half of a first cache.
const PIECE_BYTES: usize = 16 << 10;

/// The second phase for codes.
#[derive(Clone, Copy)]
pub struct Grouped<'a> {
    pub spec: &'a MatMul,
    pub bound: &'a Bound,
    pub run: &'a Run<'a>,
    pub rows: usize,
    /// Records of a row, whose products are added.
    pub terms: usize,
    pub record: Record,
    pub all: Block,
}

impl Grouped<'_> {
    /// Does the shares that this member gets, of codes of `bits` bits; the first phase is done.
    pub fn run(self, bits: u32) {
        let set = self.run.set;
        // What built-in schemes and GGUF files use is compiled for itself.
        match (bits, self.all.units, self.all.second != Second::Nothing || self.record.split > 1) {
            (3, 1, false) => set.run(&GroupedOf::<3, 1, false>(self)),
            (4, 2, false) => set.run(&GroupedOf::<4, 2, false>(self)),
            (4, 4, false) => set.run(&GroupedOf::<4, 4, false>(self)),
            (5, 1, false) => set.run(&GroupedOf::<5, 1, false>(self)),
            (6, 1, false) => set.run(&GroupedOf::<6, 1, false>(self)),
            (6, 2, false) => set.run(&GroupedOf::<6, 2, false>(self)),
            (8, 8, false) => set.run(&GroupedOf::<8, 8, false>(self)),
            (4, 2, true) => set.run(&GroupedOf::<4, 2, true>(self)),
            (4, 4, true) => set.run(&GroupedOf::<4, 4, true>(self)),
            (5, 1, true) => set.run(&GroupedOf::<5, 1, true>(self)),
            (3, ..) => set.run(&GroupedOf::<3, 0, true>(self)),
            (4, ..) => set.run(&GroupedOf::<4, 0, true>(self)),
            (5, ..) => set.run(&GroupedOf::<5, 0, true>(self)),
            (6, ..) => set.run(&GroupedOf::<6, 0, true>(self)),
            _ => set.run(&GroupedOf::<8, 0, true>(self)),
        }
    }
}

/// Of so many bits, with so many units a group; `MORE` as in [`block::tile`].
struct GroupedOf<'a, const BITS: u32, const UNITS: usize, const MORE: bool>(Grouped<'a>);

impl<const BITS: u32, const UNITS: usize, const MORE: bool> Work for GroupedOf<'_, BITS, UNITS, MORE> {
    const DOTS: bool = true;

    #[inline(always)]
    unsafe fn run<L: Lanes>(&self) {
        // SAFETY: as in the first phase, which is done.
        unsafe { grouped_blocks::<L, BITS, UNITS, MORE>(self.0) };
    }
}

#[inline(always)]
unsafe fn grouped_blocks<L: Lanes, const BITS: u32, const UNITS: usize, const MORE: bool>(product: Grouped<'_>) {
    let Grouped { spec, bound, run, rows, record, all, .. } = product;
    // SAFETY: blocks and records are within their bindings and the scratch memory.
    unsafe {
        let x = run.scratch.cells::<u8>().as_ptr() as *const u8;
        let words = record.groups * all.units * unit_words(BITS);
        let block = |index: usize| Block {
            codes: all.codes.add(index * words * LANES),
            scales: all.scales.add(index * (record.groups / record.split) * all.group_bytes()),
            ..all
        };
        let blocks = (spec.matrix.n as usize).div_ceil(BLOCK_ROWS);
        let share = share_blocks(blocks, run.member.members(), words * 64);
        loop {
            let first = run.member.take() * share;
            if first >= blocks {
                return;
            }
            let last = blocks.min(first + share);
            if rows == 1 {
                for index in first..last {
                    let none = [L::splat(0.0); 2];
                    let sums = block::tile::<L, BITS, UNITS, 2, MORE>(block(index), record, x, 0..record.groups, none);
                    finish::<L, 1>(spec, bound, run, [L::add(sums[0], sums[1])], index, 0, 1);
                }
                continue;
            }
            let blocks = first..last;
            match L::ROWS {
                8 => grouped_rows::<L, BITS, UNITS, 8, MORE>(product, blocks, block, x),
                // Where registers are few, units are gone through one by one: unrolled, a group's loads are all put first, and
                // spilled (measured: 1.1 to 1.3 times as fast with AVX2).
                4 => grouped_rows::<L, BITS, 0, 4, MORE>(product, blocks, block, x),
                _ => grouped_rows::<L, BITS, UNITS, 2, MORE>(product, blocks, block, x),
            }
        }
    }
}

#[inline(always)]
unsafe fn grouped_rows<L: Lanes, const BITS: u32, const UNITS: usize, const R: usize, const MORE: bool>(
    product: Grouped<'_>,
    blocks: std::ops::Range<usize>,
    block: impl Fn(usize) -> Block,
    x: *const u8,
) {
    let Grouped { spec, bound, run, rows, terms, record, .. } = product;
    // Groups of the matrix are not cut.
    let splits = record.groups / record.split;
    let most = (PIECE_BYTES / (R * record.split * (record.group + 8))).max(1);
    let piece = splits.div_ceil(splits.div_ceil(most).max(1)) * record.split;
    let mut local = borrow(blocks.len() * R * LANES);
    for t in (0..rows * terms).step_by(R) {
        for from in (0..record.groups).step_by(piece) {
            let to = record.groups.min(from + piece);
            for (index, partial) in blocks.clone().zip(local.chunks_exact_mut(R * LANES)) {
                // SAFETY: the caller's promise; partial sums are this thread's.
                unsafe {
                    let mut sums = [L::splat(0.0); R];
                    if from > 0 {
                        for (r, sums) in sums.iter_mut().enumerate() {
                            *sums = L::load(partial.as_ptr().add(r * LANES));
                        }
                    }
                    let x = x.add(t * record.bytes);
                    let sums = block::tile::<L, BITS, UNITS, R, MORE>(block(index), record, x, from..to, sums);
                    if to == record.groups {
                        let (sums, t) = if terms == 2 { (added::<L, R>(sums), t / 2) } else { (sums, t) };
                        finish::<L, R>(spec, bound, run, sums, index, t, (R / terms).min(rows - t));
                        continue;
                    }
                    for (r, &sums) in sums.iter().enumerate() {
                        L::store(partial.as_mut_ptr().add(r * LANES), sums);
                    }
                }
            }
        }
    }
}

/// Sums of pairs, in the first half.
#[inline(always)]
unsafe fn added<L: Lanes, const R: usize>(mut sums: [L::F; R]) -> [L::F; R] {
    for r in 0..R / 2 {
        // SAFETY: the caller's promise.
        sums[r] = unsafe { L::add(sums[2 * r], sums[2 * r + 1]) };
    }
    sums
}
