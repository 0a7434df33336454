//! Products of quantized rows with 16 rows of a grouped matrix: the loops that everything else waits for.

use std::ops::Range;

use dwindle_bundle::Record;
use dwindle_bundle::native::{Unit, Zero};

use super::ahead::Ahead;
use crate::lanes::{LANES, Lanes};

/// The number that groups store after their scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Second {
    /// None: a constant code stands for 0.
    Nothing,
    /// The code that stands for 0.
    Zero,
    /// The value of code 0.
    Minimum,
}

impl Second {
    /// Of groups that begin so.
    pub fn of(zero: Zero) -> Second {
        match zero {
            Zero::Centered | Zero::Fixed(_) => Second::Nothing,
            Zero::Stored => Second::Zero,
            Zero::Minimum => Second::Minimum,
        }
    }
}

/// 16 rows of a matrix.
#[derive(Clone, Copy)]
pub struct Block {
    /// Code words `[words, 16]`.
    pub codes: *const u32,
    /// Scales `[groups, 16]`, or scales and second numbers `[groups, 2, 16]`.
    pub scales: *const u8,
    /// Whether scales are f16, or f32.
    pub half_scales: bool,
    /// What groups store beside their scales.
    pub second: Second,
    /// Units of a group of the record.
    pub units: usize,
    /// How far ahead of the reading they are asked for.
    pub ahead: Ahead,
}

impl Block {
    /// Bytes of 16 scales, or of 16 second numbers.
    #[inline(always)]
    fn lanes_bytes(&self) -> usize {
        LANES * if self.half_scales { 2 } else { 4 }
    }

    /// Bytes of the numbers of a group.
    #[inline(always)]
    pub fn group_bytes(&self) -> usize {
        if self.second == Second::Nothing { self.lanes_bytes() } else { 2 * self.lanes_bytes() }
    }

    /// The values of code 0 of a group with the scales `scale` at `scales`, where it stores a second number.
    #[inline(always)]
    pub unsafe fn first_values<L: Lanes>(&self, scale: L::F, scales: *const u8) -> L::F {
        // SAFETY: the caller's promise.
        unsafe {
            let second = self.floats::<L>(scales.add(self.lanes_bytes()));
            match self.second {
                Second::Minimum => second,
                _ => L::sub(L::splat(0.0), L::mul(scale, second)),
            }
        }
    }

    /// 16 scales or second numbers.
    #[inline(always)]
    pub unsafe fn floats<L: Lanes>(&self, from: *const u8) -> L::F {
        // SAFETY: the caller's promise.
        unsafe {
            match self.half_scales {
                true => L::load_f16(from.cast()),
                false => L::load(from.cast()),
            }
        }
    }
}

/// Words of a unit of codes of `bits` bits, which is one that formats have.
pub const fn unit_words(bits: u32) -> usize {
    match Unit::of(bits) {
        Some(unit) => unit.words,
        None => panic!("a format's bits"),
    }
}

/// Adds the products of 16 rows with each of `R` quantized rows to `out`, those of `groups`, which begin where a group of the
/// matrix does. `UNITS` are those of a group, or 0 where they vary. `MORE` unless the matrix has a constant zero and the
/// record's groups.
///
/// `x` holds the records of the rows word by word: word i of row r at `i * R + r`, so that one address serves all rows.
///
/// For each group, 32-bit sums of codes times q begin at `-zero * Σ q`; as f32 they are multiplied with both scales and
/// added, group by group in order. Where groups store a second number, sums begin at 0 and the value of code 0 times
/// `scale * Σ q` is added before. How many rows or groups are done at once changes nothing for any of them.
///
/// # Safety
/// The processor has the instruction set of `L`; block and records are as large as `record` says.
#[allow(clippy::needless_range_loop, reason = "an index for several arrays says more than zipped iterators")]
#[inline(always)]
pub unsafe fn tile<L: Lanes, const BITS: u32, const UNITS: usize, const R: usize, const MORE: bool>(
    block: Block,
    record: Record,
    x: *const u8,
    groups: Range<usize>,
    mut out: [L::F; R],
) -> [L::F; R] {
    // SAFETY: every access is within block and records, by the caller's promise; prefetches may be beyond.
    unsafe {
        let units = if UNITS > 0 { UNITS } else { block.units };
        let mut codes = block.codes.add(groups.start * units * const { unit_words(BITS) } * LANES);
        let mut at = groups.start * record.group;
        let (mut scales, mut left) =
            (block.scales.add(groups.start / record.split * block.group_bytes()), record.split);
        for g in groups {
            block.ahead.scales::<L, R>(scales);
            // The branch on their width stands before the products: behind it the compiler would put all of these, but none
            // of their loads, which then need more registers than there are.
            let scale = block.floats::<L>(scales);
            let sums = |r: usize| x.add(R * record.sums + (g * R + r) * 4);
            let mut products = [L::products(0); R];
            if !MORE || block.second == Second::Nothing {
                for r in 0..R {
                    products[r] = L::products(sums(r).cast::<i32>().read());
                }
            } else {
                let first = block.first_values::<L>(scale, scales);
                for r in 0..R {
                    out[r] = L::fma(first, L::splat(sums(r).cast::<f32>().read()), out[r]);
                }
            }
            let mut source = Source { codes, ahead: block.ahead, x, at };
            match BITS {
                4 => {
                    for first in (0..units).step_by(4) {
                        source.four_bits::<L, R>(units.min(first + 4) - first, &mut products);
                    }
                }
                // No closures: they are not compiled for the instruction set.
                _ => {
                    for _ in 0..units {
                        match BITS {
                            3 => source.three_bits::<L, R>(&mut products),
                            5 => source.five_bits::<L, R>(&mut products),
                            6 => source.six_bits::<L, R>(&mut products),
                            _ => source.eight_bits::<L, R>(&mut products),
                        }
                    }
                }
            }
            (codes, at) = (source.codes, source.at);
            for r in 0..R {
                let x_scale = x.add(R * record.scales).cast::<f32>().add(g * R + r).read();
                let sums = L::to_f32(L::sums(products[r]));
                out[r] = L::fma(L::mul(scale, L::splat(x_scale)), sums, out[r]);
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

/// Where the next unit of codes and its activations are.
#[derive(Clone, Copy)]
struct Source {
    codes: *const u32,
    ahead: Ahead,
    x: *const u8,
    at: usize,
}

/// Each function adds the products of a unit of codes (`four_bits` those of up to four) and goes on to the next.
///
/// # Safety
/// The processor has the instruction set of `L`; the unit is within the block, and its values within the records.
#[allow(clippy::needless_range_loop, reason = "an index for several arrays says more than zipped iterators")]
impl Source {
    /// The next word of 16 rows.
    #[inline(always)]
    unsafe fn word<L: Lanes, const R: usize>(&mut self) -> L::W {
        // SAFETY: the caller's promise.
        unsafe {
            let word = L::load_words(self.codes);
            self.ahead.codes::<L, R>(self.codes);
            self.codes = self.codes.add(LANES);
            word
        }
    }

    /// The next four activations of row `r`.
    #[inline(always)]
    unsafe fn four<const R: usize>(&self, after: usize, r: usize) -> i32 {
        // SAFETY: the caller's promise.
        unsafe { self.x.add((self.at + after) * R + 4 * r).cast::<i32>().read_unaligned() }
    }

    /// Multiplies two times four codes of at most 6 bits.
    #[inline(always)]
    unsafe fn eight<L: Lanes, const R: usize>(&mut self, products: &mut [L::P; R], codes: [L::W; 2]) {
        // SAFETY: the caller's promise.
        unsafe {
            for r in 0..R {
                products[r] = L::dot4_small(products[r], codes[0], self.four::<R>(0, r));
                products[r] = L::dot4_small(products[r], codes[1], self.four::<R>(4, r));
            }
        }
        self.at += 8;
    }

    /// Forty codes in four words.
    #[inline(always)]
    unsafe fn three_bits<L: Lanes, const R: usize>(&mut self, products: &mut [L::P; R]) {
        // SAFETY: the caller's promise.
        unsafe {
            let seven = L::splat_word(0x0707_0707);
            let mut words = [L::splat_word(0); 4];
            for w in 0..4 {
                words[w] = self.word::<L, R>();
                let middle = L::and(L::shift_right::<3>(words[w]), seven);
                self.eight::<L, R>(products, [L::and(words[w], seven), middle]);
            }
            let (three, bit) = (L::splat_word(0x0303_0303), L::splat_word(0x0404_0404));
            let upper = words[1];
            let a = L::or(L::and(L::shift_right::<6>(words[0]), three), L::and(L::shift_right::<4>(upper), bit));
            let b = L::or(L::and(L::shift_right::<6>(words[2]), three), L::and(L::shift_right::<5>(upper), bit));
            self.eight::<L, R>(products, [a, b]);
            settle::<L, R>(products);
        }
    }

    /// Eight codes in each of at most four words.
    #[inline(always)]
    unsafe fn four_bits<L: Lanes, const R: usize>(&mut self, words: usize, products: &mut [L::P; R]) {
        // SAFETY: the caller's promise.
        unsafe {
            for _ in 0..words {
                let nibbles = nibbles::<L>(self.word::<L, R>());
                self.eight::<L, R>(products, nibbles);
            }
            settle::<L, R>(products);
        }
    }

    /// Eight codes, of which word `W` of the unit has the nibbles.
    #[inline(always)]
    unsafe fn joined<L: Lanes, const BITS: u32, const W: usize, const R: usize>(
        &mut self,
        upper: L::W,
        products: &mut [L::P; R],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let codes = joined::<L, BITS, W>(self.word::<L, R>(), upper);
            self.eight::<L, R>(products, codes);
        }
    }

    /// The word after `words` words of nibbles.
    #[inline(always)]
    unsafe fn upper<L: Lanes, const R: usize>(&self, words: usize) -> L::W {
        // SAFETY: the caller's promise.
        unsafe { Source { codes: self.codes.add(words * LANES), ..*self }.word::<L, R>() }
    }

    /// Thirty-two codes: four words of nibbles, one of fifth bits.
    #[inline(always)]
    unsafe fn five_bits<L: Lanes, const R: usize>(&mut self, products: &mut [L::P; R]) {
        // SAFETY: the caller's promise.
        unsafe {
            // One by one: a loop would put all shifted words into memory.
            let upper = self.upper::<L, R>(4);
            self.joined::<L, 5, 0, R>(upper, products);
            self.joined::<L, 5, 1, R>(upper, products);
            settle::<L, R>(products);
            self.joined::<L, 5, 2, R>(upper, products);
            self.joined::<L, 5, 3, R>(upper, products);
            settle::<L, R>(products);
            self.codes = self.codes.add(LANES);
        }
    }

    /// Sixteen codes: two words of nibbles, one of upper bits.
    #[inline(always)]
    unsafe fn six_bits<L: Lanes, const R: usize>(&mut self, products: &mut [L::P; R]) {
        // SAFETY: the caller's promise.
        unsafe {
            let upper = self.upper::<L, R>(2);
            self.joined::<L, 6, 0, R>(upper, products);
            settle::<L, R>(products);
            self.joined::<L, 6, 1, R>(upper, products);
            settle::<L, R>(products);
            self.codes = self.codes.add(LANES);
        }
    }

    /// Four codes in a word.
    #[inline(always)]
    unsafe fn eight_bits<L: Lanes, const R: usize>(&mut self, products: &mut [L::P; R]) {
        // SAFETY: the caller's promise.
        unsafe {
            let word = self.word::<L, R>();
            for r in 0..R {
                products[r] = L::dot4(products[r], word, self.four::<R>(0, r));
            }
        }
        self.at += 4;
    }
}

/// The low halves of bytes, and the high ones.
#[inline(always)]
unsafe fn nibbles<L: Lanes>(word: L::W) -> [L::W; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let mask = L::splat_word(0x0f0f_0f0f);
        [L::and(word, mask), L::and(L::shift_right::<4>(word), mask)]
    }
}

/// Eight codes of 5 or 6 bits, the even ones and the odd ones: the nibbles of word `W` of a unit, with those bits above them that
/// the unit's last word `upper` has.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
pub unsafe fn joined<L: Lanes, const BITS: u32, const W: usize>(word: L::W, upper: L::W) -> [L::W; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let upper = match (BITS, W) {
            (5, 0) => [upper, L::shift_right::<1>(upper)],
            (5, 1) => [L::shift_right::<2>(upper), L::shift_right::<3>(upper)],
            (5, 2) => [L::shift_left::<4>(upper), L::shift_left::<3>(upper)],
            (5, _) => [L::shift_left::<2>(upper), L::shift_left::<1>(upper)],
            (_, 0) => [upper, L::shift_right::<2>(upper)],
            _ => [L::shift_left::<4>(upper), L::shift_left::<2>(upper)],
        };
        let mask = L::splat_word(if BITS == 5 { 0x1010_1010 } else { 0x3030_3030 });
        let [low, high] = nibbles::<L>(word);
        [L::or(low, L::and(upper[0], mask)), L::or(high, L::and(upper[1], mask))]
    }
}

/// Makes room for further products.
#[inline(always)]
unsafe fn settle<L: Lanes, const R: usize>(products: &mut [L::P; R]) {
    for products in products {
        // SAFETY: the caller's promise.
        *products = unsafe { L::settle(*products) };
    }
}
