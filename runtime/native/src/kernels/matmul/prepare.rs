//! The first phase: rows of activations are normalised, then laid out as the second phase reads them.

use dwindle_bundle::Record;
use dwindle_bundle::native::MatMul;

#[cfg(target_arch = "x86_64")]
use super::tiles;
use super::{Bound, Run, borrow, norm, quantize};
use crate::lanes::isa::Work;
use crate::lanes::{LANES, Lanes};

/// What the first phase makes of a row of activations.
#[derive(Clone, Copy)]
pub enum Prepared {
    /// f32, side by side.
    Plain,
    /// As many records as `terms`, of which the second holds what rounding left of the first; for codes of `bits` bits, with
    /// this zero where groups store nothing of the kind.
    Quantized { record: Record, bits: u32, zero: Option<u32>, terms: usize },
    /// bf16 tiles, of `values` values a row, for codes of `bits` bits.
    #[cfg(target_arch = "x86_64")]
    Tiled { bits: u32, values: usize },
}

/// The first phase.
pub struct Prepare<'a> {
    pub spec: &'a MatMul,
    pub bound: &'a Bound,
    pub run: &'a Run<'a>,
    pub rows: usize,
    pub padded: usize,
    pub prepared: Prepared,
}

impl Work for Prepare<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(&self) {
        // SAFETY: the caller has the instruction set; `Program` checked the views.
        unsafe {
            match self.prepared {
                Prepared::Quantized { record, bits, zero, .. } if self.rows == 1 => {
                    prepare_one::<L>(self.spec, self.bound, self.run, record, bits, zero);
                }
                _ => prepare::<L>(self.spec, self.bound, self.run, self.rows, self.padded, self.prepared),
            }
        }
    }
}

/// First phase: rows are normalised if asked, then stored as `prepared` says; `padded` values of a row are used.
#[inline(always)]
unsafe fn prepare<L: Lanes>(
    spec: &MatMul,
    bound: &Bound,
    run: &Run<'_>,
    rows: usize,
    padded: usize,
    prepared: Prepared,
) {
    let k = spec.matrix.k as usize;
    let x = run.read::<f32>(0);
    let scratch = run.scratch;
    let values = padded.next_multiple_of(2 * LANES) + LANES;
    // Records of a tile lie word by word beside each other: they are made by one share.
    let (terms, side_by_side, record_words, groups) = match prepared {
        Prepared::Quantized { record, terms, .. } => (terms, L::ROWS, record.bytes / 4, record.groups),
        _ => (1, 1, 0, 0),
    };
    let mut local = borrow(values + record_words + 2 * groups);
    let (row, words) = local.split_at_mut(values);
    let (words, ranges) = words.split_at_mut(record_words);
    let ranges: &mut [quantize::Range] = bytemuck::cast_slice_mut(ranges);
    loop {
        let first = run.member.take() * side_by_side;
        if first >= rows * terms {
            break;
        }
        for t in first..first + side_by_side {
            // SAFETY: row `t` of the scratch memory is written by this share alone; sizes are those of `NativeKernel::scratch_bytes`.
            unsafe {
                if t % terms == 0 {
                    // The last tile is filled with its last row, whose further results are dropped.
                    let from = (t / terms).min(rows - 1);
                    row[..k].copy_from_slice(&x[from * k..][..k]);
                    if let Some(eps) = spec.rms_norm {
                        norm::rms::<L>(&mut row[..k], &run.read::<f32>(bound.norm)[..k], eps);
                    }
                }
                let to = scratch.cells::<u8>().as_ptr() as *mut u8;
                match prepared {
                    Prepared::Quantized { record, bits, zero, .. } => {
                        // The row is still what the first record was made of: shares have both records of a row.
                        match t % terms {
                            0 => quantize::ranges::<L>(record, row, ranges),
                            _ => quantize::keep_rest(record, row, ranges),
                        }
                        quantize::quantize::<L>(record, bits, zero, row, ranges, words.as_mut_ptr().cast());
                        let to = to.add(first * record.bytes).cast::<f32>().add(t - first);
                        for (i, &word) in words.iter().enumerate() {
                            to.add(i * side_by_side).write(word);
                        }
                    }
                    Prepared::Plain => to.cast::<f32>().add(t * k).copy_from_nonoverlapping(row.as_ptr(), k),
                    #[cfg(target_arch = "x86_64")]
                    Prepared::Tiled { bits, values } => {
                        tiles::store_row(bits, values, row, t, to);
                        // Order of columns was changed beyond those that the next row overwrites.
                        row[k..].fill(0.0);
                    }
                }
            }
        }
    }
    run.member.barrier();
}

/// Groups that a share has at least: less is not worth handing out.
const LEAST_GROUPS: usize = 16;

/// The first phase for one row, the two records of which lie word by word beside each other; a share is some of its groups.
///
/// One row's products wait for this, so all members take part.
#[inline(always)]
unsafe fn prepare_one<L: Lanes>(
    spec: &MatMul,
    bound: &Bound,
    run: &Run<'_>,
    record: Record,
    bits: u32,
    zero: Option<u32>,
) {
    let k = spec.matrix.k as usize;
    let x = &run.read::<f32>(0)[..k];
    let share = record.groups.div_ceil(run.member.members()).max(LEAST_GROUPS);
    let values = (share * record.group).next_multiple_of(2 * LANES) + LANES;
    let words = (share * record.group).div_ceil(4) + 2 * share;
    let mut local = borrow(values + 2 * words + 2 * share);
    let (row, rest) = local.split_at_mut(values);
    let (words, ranges) = rest.split_at_mut(2 * words);
    let (first_words, second_words) = words.split_at_mut(words.len() / 2);
    let ranges: &mut [quantize::Range] = bytemuck::cast_slice_mut(ranges);
    loop {
        let first = run.member.take() * share;
        if first >= record.groups {
            break;
        }
        let groups = share.min(record.groups - first);
        let from = first * record.group;
        let there = k.saturating_sub(from).min(groups * record.group);
        row[there..].fill(0.0);
        // A record of these groups alone, whose parts lie behind each other.
        let codes = groups * record.group / 4;
        let part = Record { groups, sums: 4 * codes, scales: 4 * (codes + groups), ..record };
        // SAFETY: these groups' words of the scratch memory are written by this share alone; sizes are those of
        // `NativeKernel::scratch_bytes`.
        unsafe {
            if there > 0 {
                row[..there].copy_from_slice(&x[from..][..there]);
                if let Some(eps) = spec.rms_norm {
                    let factor = norm::rms_factor::<L>(x, eps);
                    let weights = &run.read::<f32>(bound.norm)[from..][..there];
                    for (x, weight) in row.iter_mut().zip(weights) {
                        *x = *x * factor * weight;
                    }
                }
            }
            quantize::ranges::<L>(part, row, ranges);
            quantize::quantize::<L>(part, bits, zero, row, ranges, first_words.as_mut_ptr().cast());
            quantize::keep_rest(part, row, ranges);
            quantize::quantize::<L>(part, bits, zero, row, ranges, second_words.as_mut_ptr().cast());
            let scratch = run.scratch.cells::<u8>().as_ptr() as *mut [f32; 2];
            let mut at = 0;
            for (word, count) in
                [(from / 4, codes), (record.sums / 4 + first, groups), (record.scales / 4 + first, groups)]
            {
                let to = scratch.add(word);
                let pairs = first_words[at..][..count].iter().zip(&second_words[at..][..count]);
                for (i, (&a, &b)) in pairs.enumerate() {
                    to.add(i).write([a, b]);
                }
                at += count;
            }
        }
    }
    run.member.barrier();
}
