//! Products of quantized rows with 16 rows of a grouped matrix: the loops that everything else waits for.

use std::ops::Range;

use dwindle_bundle::Record;

use super::super::super::lanes::{LANES, Lanes};
use super::ahead::Ahead;

/// 16 rows of a matrix.
#[derive(Clone, Copy)]
pub struct Block {
    /// Code words `[words, 16]`.
    pub codes: *const u32,
    /// Scales `[groups, 16]`, or scales and zeros `[groups, 2, 16]`.
    pub scales: *const u8,
    /// Whether scales are f16, or f32.
    pub half_scales: bool,
    /// Whether groups have zeros of their own.
    pub stored_zeros: bool,
    /// Words of a group of the record.
    pub words: usize,
    /// How far ahead of the reading they are asked for.
    pub ahead: Ahead,
}

impl Block {
    /// Bytes of a scale, or of a zero.
    #[inline(always)]
    pub fn scale_bytes(&self) -> usize {
        if self.half_scales { 2 } else { 4 }
    }

    /// Bytes of 16 scales, or of 16 zeros.
    #[inline(always)]
    fn lanes_bytes(&self) -> usize {
        LANES * self.scale_bytes()
    }

    /// Bytes of the scales and zeros of a group.
    #[inline(always)]
    pub fn group_bytes(&self) -> usize {
        if self.stored_zeros { 2 * self.lanes_bytes() } else { self.lanes_bytes() }
    }

    /// 16 scales or zeros.
    #[inline(always)]
    unsafe fn floats<L: Lanes>(&self, from: *const u8) -> L::F {
        // SAFETY: the caller's promise.
        unsafe {
            match self.half_scales {
                true => L::load_f16(from.cast()),
                false => L::load(from.cast()),
            }
        }
    }
}

/// Adds the products of 16 rows with each of `R` quantized rows to `out`, those of `groups`, which begins where a group of the matrix does. `WORDS` are
/// those of a group, or 0 where they vary. `MORE` unless the matrix has a constant zero and the record's groups.
///
/// `x` holds the records of the rows word by word: word i of row r at `i * R + r`, so that one address serves all rows.
///
/// For each group, 32-bit sums of codes times q begin at `-zero * Σ q`; as f32 they are multiplied with both scales and
/// added, group by group in order. Zeros of groups are multiplied with `-Σ q` and added to the sums as f32. How many rows or groups are done at once changes nothing for any of them.
///
/// # Safety
/// The processor has the instruction set of `L`; block and records are as large as `record` says.
#[allow(clippy::needless_range_loop, reason = "an index for several arrays says more than zipped iterators")]
#[inline(always)]
pub unsafe fn tile<L: Lanes, const BITS: u32, const WORDS: usize, const R: usize, const MORE: bool>(
    block: Block,
    record: Record,
    x: *const u8,
    groups: Range<usize>,
    mut out: [L::F; R],
) -> [L::F; R] {
    // SAFETY: every access is within block and records, by the caller's promise; prefetches may be beyond.
    unsafe {
        let words = if WORDS > 0 { WORDS } else { block.words };
        let mut codes = block.codes.add(groups.start * words * LANES);
        let mut at = groups.start * record.group;
        let (mut scales, mut left) =
            (block.scales.add(groups.start / record.split * block.group_bytes()), record.split);
        for g in groups {
            block.ahead.scales::<L, R>(scales);
            // The branch on their width stands before the products: behind it the compiler would put all of these, but none
            // of their loads, which then need more registers than there are.
            let scale = block.floats::<L>(scales);
            let start = |r: usize| x.add(R * record.sums).cast::<i32>().add(g * R + r).read();
            let mut begin = [0; R];
            if !MORE || !block.stored_zeros {
                for r in 0..R {
                    begin[r] = start(r);
                }
            }
            let mut sums = [L::splat_word(0); R];
            match BITS {
                3 => {
                    for _ in 0..words / 4 {
                        let products = four_words::<L, R>(codes, block.ahead, x, at, begin);
                        add::<L, R>(&mut sums, products, &mut begin);
                        codes = codes.add(64);
                        at += 40;
                    }
                }
                4 => {
                    for first in (0..words).step_by(4) {
                        let mut products = beginning::<L, R>(begin);
                        let mask = L::splat_word(0x0f0f_0f0f);
                        for _ in first..words.min(first + 4) {
                            let word = L::load_words(codes);
                            block.ahead.codes::<L, R>(codes);
                            let (low, high) = (L::and(word, mask), L::and(L::shift_right::<4>(word), mask));
                            for r in 0..R {
                                products[r] = L::dot4_small(products[r], low, four::<R>(x, at, r));
                                products[r] = L::dot4_small(products[r], high, four::<R>(x, at + 4, r));
                            }
                            codes = codes.add(16);
                            at += 8;
                        }
                        add::<L, R>(&mut sums, products, &mut begin);
                    }
                }
                _ => {
                    for r in 0..R {
                        sums[r] = L::splat_word(begin[r]);
                    }
                    for _ in 0..words {
                        let word = L::load_words(codes);
                        block.ahead.codes::<L, R>(codes);
                        for r in 0..R {
                            sums[r] = L::dot4(sums[r], word, four::<R>(x, at, r));
                        }
                        codes = codes.add(16);
                        at += 4;
                    }
                }
            }
            let mut sums = sums.map(|sums| L::to_f32(sums));
            if MORE && block.stored_zeros {
                let zero = block.floats::<L>(scales.add(block.lanes_bytes()));
                for r in 0..R {
                    sums[r] = L::fma(zero, L::splat(start(r) as f32), sums[r]);
                }
            }
            for r in 0..R {
                let x_scale = x.add(R * record.scales).cast::<f32>().add(g * R + r).read();
                out[r] = L::fma(L::mul(scale, L::splat(x_scale)), sums[r], out[r]);
            }
            left -= 1;
            if !MORE || left == 0 {
                scales = scales.add(block.group_bytes());
                left = record.split;
            }
        }
        out
    }
}

#[inline(always)]
unsafe fn four<const R: usize>(x: *const u8, at: usize, r: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { x.add(at * R + 4 * r).cast::<i32>().read_unaligned() }
}

/// Products of which there are none yet, and which begin at `begin`.
#[inline(always)]
unsafe fn beginning<L: Lanes, const R: usize>(begin: [i32; R]) -> [L::P; R] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut products = [L::products(0); R];
        for r in 0..R {
            products[r] = L::products(begin[r]);
        }
        products
    }
}

/// Adds products that began at `begin` to `sums`; all further ones begin at 0.
#[inline(always)]
unsafe fn add<L: Lanes, const R: usize>(sums: &mut [L::W; R], products: [L::P; R], begin: &mut [i32; R]) {
    for r in 0..R {
        // SAFETY: the caller's promise.
        unsafe { sums[r] = L::add_words(sums[r], L::sums(products[r], begin[r])) };
        begin[r] = 0;
    }
}

/// Products of forty 3-bit codes in four words, as `rows16` arranges them; they begin at `begin`.
#[allow(clippy::needless_range_loop, reason = "an index for several arrays says more than zipped iterators")]
#[inline(always)]
unsafe fn four_words<L: Lanes, const R: usize>(
    codes: *const u32,
    ahead: Ahead,
    x: *const u8,
    at: usize,
    begin: [i32; R],
) -> [L::P; R] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut products = beginning::<L, R>(begin);
        let seven = L::splat_word(0x0707_0707);
        let mut words = [L::splat_word(0); 4];
        for w in 0..4 {
            words[w] = L::load_words(codes.add(16 * w));
            ahead.codes::<L, R>(codes.add(16 * w));
            let (low, middle) = (L::and(words[w], seven), L::and(L::shift_right::<3>(words[w]), seven));
            for r in 0..R {
                products[r] = L::dot4_small(products[r], low, four::<R>(x, at + 8 * w, r));
                products[r] = L::dot4_small(products[r], middle, four::<R>(x, at + 8 * w + 4, r));
            }
        }
        let (three, bit) = (L::splat_word(0x0303_0303), L::splat_word(0x0404_0404));
        let upper = words[1];
        let a = L::or(L::and(L::shift_right::<6>(words[0]), three), L::and(L::shift_right::<4>(upper), bit));
        let b = L::or(L::and(L::shift_right::<6>(words[2]), three), L::and(L::shift_right::<5>(upper), bit));
        for r in 0..R {
            products[r] = L::dot4_small(products[r], a, four::<R>(x, at + 32, r));
            products[r] = L::dot4_small(products[r], b, four::<R>(x, at + 36, r));
        }
        products
    }
}
