//! Products of many rows with a grouped matrix in tile registers.
//!
//! Activations are rounded to bf16 and laid out as tiles of 16 rows and 32 values. A share is some blocks of 16 rows of the
//! matrix; its codes are turned into bf16 values, a piece of the columns at a time, once for all rows of activations. A piece is
//! small enough for two tiles' rows of it to stay in the first cache, and the share's part for the second. Sums are f32 and go on from
//! piece to piece, in the order of columns, so that they depend neither on the share nor on the rows beside.
//!
//! Rounding both factors to bf16 moves a product by 2⁻⁷ of itself at most and 0.22 % on average. Activations rounded to 8 bits
//! a group are as exact where they are as great as their group's greatest, and less exact where they are smaller.

use std::arch::x86_64::*;

use dwindle_bundle::native::{BLOCK_ROWS, CODES_3BIT, MatMul, ORDER_3BIT, Unit};

use super::block::{Block, Second, joined};
use super::finish::finish;
use super::{Bound, Run, borrow};
use crate::lanes::LANES;
use crate::lanes::amx::{TILE_BYTES, TILE_DEPTH, TILE_ROWS, Tiles};
use crate::lanes::avx512::Avx512;

/// Rows from which on unpacking the matrix to bf16 is worth it.
pub const LEAST_ROWS: usize = 24;

/// Blocks of a share, at most; an even number.
const SHARE_BLOCKS: usize = 8;

/// Values of a piece for 4 to 8 bits, and for 3 bits: whole units of codes and whole tiles.
const PIECE: usize = 512;
const PIECE_3BIT: usize = 480;

/// Tiles that a row of `values` values (whole groups) takes.
fn depth(values: usize) -> usize {
    values.div_ceil(TILE_DEPTH)
}

/// Row `t` as bf16 into tiles. `row` has `values` values and zeros up to whole tiles; the order of 3-bit codes is `rows16`'s.
///
/// # Safety
/// The processor has AVX-512 with bf16; `to` has the [`bytes`] of more than `t` rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn store_row(bits: u32, values: usize, row: &mut [f32], t: usize, to: *mut u8) {
    let depth = depth(values);
    assert!(row.len() >= depth * TILE_DEPTH, "a row is padded");
    if bits == 3 {
        for unit in row[..values].chunks_exact_mut(CODES_3BIT) {
            let mut ordered = [0.0; CODES_3BIT];
            for (to, &from) in ordered.iter_mut().zip(ORDER_3BIT.as_flattened()) {
                *to = unit[from];
            }
            unit.copy_from_slice(&ordered);
        }
    }
    // SAFETY: the row is as long as asserted, the rest is the caller's promise.
    unsafe {
        let mut to = to.add(t / TILE_ROWS * depth * TILE_BYTES + t % TILE_ROWS * 64);
        for line in row.as_chunks::<TILE_DEPTH>().0.iter().take(depth) {
            let (low, high) = (_mm512_loadu_ps(line.as_ptr()), _mm512_loadu_ps(line.as_ptr().add(LANES)));
            _mm512_storeu_si512(to.cast(), halves(low, high));
            to = to.add(TILE_BYTES);
        }
    }
}

/// Thirty-two bf16: those of `low`, then those of `high`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn halves(low: __m512, high: __m512) -> __m512i {
    let both = _mm512_cvtne2ps_pbh(high, low);
    // SAFETY: both types are 64 bytes for which all values are valid.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(both) }
}

/// Blocks of a share: an even number, such that the member with most work has the least, and then as many as there can be.
fn share_blocks(blocks: usize, members: usize) -> usize {
    let longest = |size: usize| blocks.div_ceil(size).div_ceil(members) * size;
    (1..=SHARE_BLOCKS / 2).rev().map(|pairs| 2 * pairs).min_by_key(|&size| longest(size)).unwrap_or(2)
}

/// A product whose activations were stored by [`store_row`].
pub struct Product<'a> {
    /// Its constants.
    pub spec: &'a MatMul,
    /// Its bindings.
    pub bound: &'a Bound,
    /// The step.
    pub run: &'a Run<'a>,
    /// Rows of activations.
    pub rows: usize,
    /// The code that stands for 0, where groups store nothing of the kind.
    pub zero: u32,
    /// Values of a group of the matrix.
    pub group: usize,
    /// The matrix; units are those of its groups.
    pub all: Block,
}

impl Product<'_> {
    /// Does the shares that this member gets.
    ///
    /// # Safety
    /// Tiles are available; the matrix and the scratch memory are as large as the constants say, with codes of `BITS` bits.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
    pub unsafe fn run<const BITS: u32>(&self) {
        let Product { spec, bound, run, rows, zero, group, all } = *self;
        let groups = (spec.matrix.k as usize).div_ceil(group);
        let unit = const { Unit::of(BITS).expect("a format's bits") };
        let block_words = groups * all.units * unit.words * LANES;
        let depth = depth(groups * group);
        let piece = if BITS == 3 { PIECE_3BIT } else { PIECE };
        let piece_depth = piece / TILE_DEPTH;
        let row_tiles = rows.div_ceil(TILE_ROWS);
        let blocks = (spec.matrix.n as usize).div_ceil(BLOCK_ROWS);
        let share = share_blocks(blocks, run.member.members());
        let panel_bytes = SHARE_BLOCKS * piece_depth * TILE_BYTES;
        let mut local = borrow((panel_bytes + row_tiles * SHARE_BLOCKS * TILE_BYTES) / 4);
        let x = run.scratch.address();
        // SAFETY: the panel has a piece of every block of a share, the sums a tile for each tile of rows and each block; operands
        // are as large as the caller promises.
        unsafe {
            let panel = local.as_mut_ptr().cast::<u8>();
            let sums = panel.add(panel_bytes);
            let tiles = Tiles::configure();
            loop {
                let first_block = run.member.take() * share;
                if first_block >= blocks {
                    break;
                }
                let count = share.min(blocks - first_block);
                for from in (0..depth).step_by(piece_depth) {
                    let length = piece_depth.min(depth - from);
                    for index in 0..count {
                        let block = Block {
                            codes: all.codes.add((first_block + index) * block_words),
                            scales: all.scales.add((first_block + index) * groups * all.group_bytes()),
                            ..all
                        };
                        let to = panel.add(index * length * TILE_BYTES);
                        let columns = Columns { zero, groups, first: from * TILE_DEPTH, depth: length };
                        unpack::<BITS>(block, columns, to);
                    }
                    let last = from + length == depth;
                    for tile in (0..row_tiles).step_by(2) {
                        let a = [
                            x.add((tile * depth + from) * TILE_BYTES),
                            x.add(((tile + 1) * depth + from) * TILE_BYTES),
                        ];
                        for pair in (0..count).step_by(2) {
                            let b = [pair, pair + 1].map(|index| panel.add(index * length * TILE_BYTES).cast_const());
                            let c = [tile, tile + 1].map(|t| sums.add((t * SHARE_BLOCKS + pair) * TILE_BYTES));
                            if tile + 1 < row_tiles {
                                tiles.multiply::<2>(c, a, b, length, from == 0);
                            } else {
                                tiles.multiply::<1>([c[0]], [a[0]], b, length, from == 0);
                            }
                            if last {
                                for t in tile..row_tiles.min(tile + 2) {
                                    for index in pair..count.min(pair + 2) {
                                        let c = sums.add((t * SHARE_BLOCKS + index) * TILE_BYTES);
                                        finish_tile(spec, bound, run, c.cast(), first_block + index, t, rows);
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What is done with a tile of sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
unsafe fn finish_tile(
    spec: &MatMul,
    bound: &Bound,
    run: &Run<'_>,
    c: *const f32,
    block: usize,
    tile: usize,
    rows: usize,
) {
    for half in 0..2 {
        let t = tile * TILE_ROWS + 8 * half;
        if t >= rows {
            return;
        }
        // SAFETY: a tile has 16 rows of 16 sums.
        unsafe {
            let sums = std::array::from_fn(|r| _mm512_loadu_ps(c.add((8 * half + r) * LANES)));
            finish::<Avx512, 8>(spec, bound, run, sums, block, t, 8.min(rows - t));
        }
    }
}

/// What is unpacked of a block.
#[derive(Clone, Copy)]
struct Columns {
    /// The constant zero.
    zero: u32,
    /// Groups of the block.
    groups: usize,
    /// First column, that of a unit.
    first: usize,
    /// Tiles.
    depth: usize,
}

/// Columns of a block as tiles of bf16; zeros where there are no more.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
unsafe fn unpack<const BITS: u32>(block: Block, columns: Columns, to: *mut u8) {
    let Columns { zero, groups, first, depth } = columns;
    let Unit { codes: values, words: words_of_unit } = const { Unit::of(BITS).expect("a format's bits") };
    let per_group = block.units;
    let last = (groups * per_group).min((first + depth * TILE_DEPTH) / values);
    let mut unit = first / values;
    // SAFETY: units are within the block, and what they give within the tiles, by the caller's promise.
    unsafe {
        let end = to.add(depth * TILE_BYTES);
        let mut to = to;
        let interleave = _mm512_loadu_si512(INTERLEAVE.as_ptr().cast());
        let codes = _mm512_loadu_ps(if BITS == 3 { CODES_OF_3.as_ptr() } else { CODES_OF_4.as_ptr() });
        while unit < last {
            let g = unit / per_group;
            let scales = block.scales.add(g * block.group_bytes());
            let scale = block.floats::<Avx512>(scales);
            let offset = match block.second {
                Second::Nothing => _mm512_mul_ps(scale, _mm512_set1_ps(-(zero as f32))),
                _ => block.first_values::<Avx512>(scale, scales),
            };
            // The pair of codes that are in the low bits of two registers' lanes.
            let mut put = |low: __m512i, high: __m512i| {
                let [low, high] = [low, high].map(|code| {
                    let code = match BITS {
                        // Four bits choose; of 3-bit codes the fourth makes no difference.
                        3 | 4 => _mm512_permutexvar_ps(code, codes),
                        _ => _mm512_cvtepi32_ps(_mm512_and_si512(code, _mm512_set1_epi32(0xff))),
                    };
                    _mm512_fmadd_ps(code, scale, offset)
                });
                _mm512_storeu_si512(to.cast(), _mm512_permutexvar_epi16(interleave, halves(low, high)));
                to = to.add(64);
            };
            for at in unit..last.min((g + 1) * per_group) {
                let words: [__m512i; 5] = std::array::from_fn(|w| {
                    _mm512_loadu_si512(block.codes.add((at * words_of_unit + w % words_of_unit) * LANES).cast())
                });
                for w in 0..words_of_unit {
                    // The same place of the next piece, which is wanted when all rows have seen this one.
                    let next = block
                        .codes
                        .wrapping_add((at * words_of_unit + w + depth * TILE_DEPTH / values * words_of_unit) * LANES);
                    _mm_prefetch::<_MM_HINT_T1>(next.cast());
                }
                let word = words[0];
                match BITS {
                    3 => {
                        for &word in &words[..4] {
                            put(word, _mm512_srli_epi32::<8>(word));
                            put(_mm512_srli_epi32::<16>(word), _mm512_srli_epi32::<24>(word));
                            put(_mm512_srli_epi32::<3>(word), _mm512_srli_epi32::<11>(word));
                            put(_mm512_srli_epi32::<19>(word), _mm512_srli_epi32::<27>(word));
                        }
                        let (three, four) = (_mm512_set1_epi32(0x0303_0303), _mm512_set1_epi32(0x0404_0404));
                        let join = |low: __m512i, bit: __m512i| {
                            let low = _mm512_and_si512(_mm512_srli_epi32::<6>(low), three);
                            _mm512_or_si512(low, _mm512_and_si512(bit, four))
                        };
                        let a = join(words[0], _mm512_srli_epi32::<4>(words[1]));
                        let b = join(words[2], _mm512_srli_epi32::<5>(words[1]));
                        for word in [a, b] {
                            put(word, _mm512_srli_epi32::<8>(word));
                            put(_mm512_srli_epi32::<16>(word), _mm512_srli_epi32::<24>(word));
                        }
                    }
                    4 => {
                        put(word, _mm512_srli_epi32::<4>(word));
                        put(_mm512_srli_epi32::<8>(word), _mm512_srli_epi32::<12>(word));
                        put(_mm512_srli_epi32::<16>(word), _mm512_srli_epi32::<20>(word));
                        put(_mm512_srli_epi32::<24>(word), _mm512_srli_epi32::<28>(word));
                    }
                    5 | 6 => {
                        let upper = words[words_of_unit - 1];
                        let mut put_eight = |[low, high]: [__m512i; 2]| {
                            put(low, high);
                            put(_mm512_srli_epi32::<8>(low), _mm512_srli_epi32::<8>(high));
                            put(_mm512_srli_epi32::<16>(low), _mm512_srli_epi32::<16>(high));
                            put(_mm512_srli_epi32::<24>(low), _mm512_srli_epi32::<24>(high));
                        };
                        put_eight(joined::<Avx512, BITS, 0>(words[0], upper));
                        put_eight(joined::<Avx512, BITS, 1>(words[1], upper));
                        if BITS == 5 {
                            put_eight(joined::<Avx512, BITS, 2>(words[2], upper));
                            put_eight(joined::<Avx512, BITS, 3>(words[3], upper));
                        }
                    }
                    _ => {
                        put(word, _mm512_srli_epi32::<8>(word));
                        put(_mm512_srli_epi32::<16>(word), _mm512_srli_epi32::<24>(word));
                    }
                }
            }
            unit = last.min((g + 1) * per_group);
        }
        while to < end {
            _mm512_storeu_si512(to.cast(), _mm512_setzero_si512());
            to = to.add(64);
        }
    }
}

/// Elements i and i + 16 side by side.
const INTERLEAVE: [u16; 32] = {
    let mut indices = [0; 32];
    let mut i = 0;
    while i < 32 {
        indices[i] = (i / 2 + 16 * (i % 2)) as u16;
        i += 1;
    }
    indices
};

const CODES_OF_4: [f32; 16] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];
const CODES_OF_3: [f32; 16] = [0., 1., 2., 3., 4., 5., 6., 7., 0., 1., 2., 3., 4., 5., 6., 7.];
