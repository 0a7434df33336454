//! Matrix products: activations are prepared row by row, then 16 rows of the matrix at a time are multiplied.
//!
//! A share of the second phase is some blocks of 16 rows. For it, tiles of rows of activations are gone through, and for
//! each tile all its blocks, so that tile and blocks stay in the second cache.

use dwindle_bundle::Record;
use dwindle_bundle::native::{BLOCK_ROWS, Float, MatMul, Storage, Zero};

use super::super::lanes::isa::Work;
use super::super::lanes::{LANES, Lanes, math};
use super::quantize;
#[cfg(target_arch = "x86_64")]
use super::tiles;
use super::{Run, borrow, give_back, grouped, norm, plain};

/// Bytes of weights that a share goes through again for each tile of activations.
const SHARE_BYTES: usize = 512 << 10;

/// Bindings by role; optional ones are 0 where they are absent.
pub struct Bound {
    scales: usize,
    norm: usize,
    bias: usize,
    residual: usize,
    y: usize,
}

/// What the first phase makes of a row of activations.
#[derive(Clone, Copy)]
enum Prepared {
    /// f32, side by side.
    Plain,
    /// A record for codes of so many bits, with this zero.
    Quantized(Record, u32, i32),
    /// bf16 tiles, of `values` values a row, for codes of `bits` bits.
    #[cfg(target_arch = "x86_64")]
    Tiled { bits: u32, values: usize },
}

fn bindings(spec: &MatMul) -> Bound {
    let mut next = 1;
    let mut optional = |there: bool| {
        next += usize::from(there);
        if there { next } else { 0 }
    };
    let scales = optional(matches!(spec.matrix.storage, Storage::Grouped { .. }));
    let norm = optional(spec.rms_norm.is_some());
    let bias = optional(spec.bias);
    let residual = optional(spec.residual);
    Bound { scales, norm, bias, residual, y: optional(true) }
}

/// The kernel.
pub fn run(spec: &MatMul, run: &Run<'_>) {
    let bound = bindings(spec);
    let (rows, k) = (run.rows(spec.rows), spec.matrix.k as usize);
    let prepare = |padded, prepared| run.set.run(&Prepare { spec, bound: &bound, run, rows, padded, prepared });
    match spec.matrix.storage {
        Storage::Grouped { bits, group, scale, zero } => {
            let record = Record::new(spec.matrix.k, bits, group);
            let values = record.groups * record.group;
            let all = grouped::Block {
                codes: run.pointer::<u32>(1),
                scales: run.pointer::<u8>(bound.scales),
                half_scales: scale == Float::F16,
                stored_zeros: zero == Zero::Stored,
                words: record.group / (32 / bits) as usize,
            };
            let more = all.stored_zeros || record.split > 1;
            #[cfg(target_arch = "x86_64")]
            if run.set.has_tiles() && zero == Zero::Centered && !more && rows >= tiles::LEAST_ROWS {
                prepare(values, Prepared::Tiled { bits, values });
                let product = tiles::Product { spec, bound: &bound, run, rows, group: record.group, all };
                // SAFETY: `has_tiles` is true only where tiles are available; sizes are those that `needs` asks for.
                return unsafe {
                    match bits {
                        3 => product.run::<3>(),
                        4 => product.run::<4>(),
                        _ => product.run::<8>(),
                    }
                };
            }
            prepare(values, Prepared::Quantized(record, bits, zero.constant(bits).unwrap_or(1) as i32));
            let product = Grouped { spec, bound: &bound, run, rows, record, all };
            // What the built-in schemes use is compiled for itself.
            match (bits, all.words, more) {
                (3, 4, false) => run.set.run(&GroupedOf::<3, 4, false>(product)),
                (4, 4, false) => run.set.run(&GroupedOf::<4, 4, false>(product)),
                (8, 8, false) => run.set.run(&GroupedOf::<8, 8, false>(product)),
                (4, 4, true) => run.set.run(&GroupedOf::<4, 4, true>(product)),
                (3, ..) => run.set.run(&GroupedOf::<3, 0, true>(product)),
                (4, ..) => run.set.run(&GroupedOf::<4, 0, true>(product)),
                _ => run.set.run(&GroupedOf::<8, 0, true>(product)),
            }
        }
        Storage::Plain(float) => {
            let x = match spec.rms_norm {
                Some(_) => {
                    prepare(k, Prepared::Plain);
                    run.scratch.address().cast()
                }
                None => run.pointer::<f32>(0).cast_const(),
            };
            let product = Plain { spec, bound: &bound, run, rows, x };
            match float {
                Float::F16 => run.set.run(&PlainOf::<true>(product)),
                Float::F32 => run.set.run(&PlainOf::<false>(product)),
            }
        }
    }
}

/// The first phase.
struct Prepare<'a> {
    spec: &'a MatMul,
    bound: &'a Bound,
    run: &'a Run<'a>,
    rows: usize,
    padded: usize,
    prepared: Prepared,
}

impl Work for Prepare<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(&self) {
        // SAFETY: the caller has the instruction set; `Program` checked the views.
        unsafe { prepare::<L>(self.spec, self.bound, self.run, self.rows, self.padded, self.prepared) };
    }
}

/// The second phase for codes.
struct Grouped<'a> {
    spec: &'a MatMul,
    bound: &'a Bound,
    run: &'a Run<'a>,
    rows: usize,
    record: Record,
    all: grouped::Block,
}

/// Of so many bits, with so many words a group; `MORE` as in [`grouped::tile`].
struct GroupedOf<'a, const BITS: u32, const WORDS: usize, const MORE: bool>(Grouped<'a>);

impl<const BITS: u32, const WORDS: usize, const MORE: bool> Work for GroupedOf<'_, BITS, WORDS, MORE> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(&self) {
        let Grouped { spec, bound, run, rows, record, all } = self.0;
        // SAFETY: as in the first phase, which is done.
        unsafe { grouped_blocks::<L, BITS, WORDS, MORE>(spec, bound, run, rows, record, all) };
    }
}

/// The second phase for floats.
struct Plain<'a> {
    spec: &'a MatMul,
    bound: &'a Bound,
    run: &'a Run<'a>,
    rows: usize,
    x: *const f32,
}

/// Of 16 bits, or of 32.
struct PlainOf<'a, const HALF: bool>(Plain<'a>);

impl<const HALF: bool> Work for PlainOf<'_, HALF> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(&self) {
        let Plain { spec, bound, run, rows, x } = self.0;
        // SAFETY: as in the first phase, which is done.
        unsafe { plain_blocks::<L, HALF>(spec, bound, run, rows, x) };
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
    let mut row = borrow(padded.next_multiple_of(2 * LANES) + LANES);
    loop {
        let t = run.member.take();
        if t >= rows {
            break;
        }
        row[..k].copy_from_slice(&x[t * k..][..k]);
        // SAFETY: row `t` of the scratch memory is written by this share alone; sizes are those of `NativeKernel::scratch_bytes`.
        unsafe {
            if let Some(eps) = spec.rms_norm {
                norm::rms::<L>(&mut row[..k], &run.read::<f32>(bound.norm)[..k], eps);
            }
            match prepared {
                Prepared::Quantized(record, bits, zero) => {
                    let to = scratch.cells::<u8>().as_ptr() as *mut u8;
                    quantize::quantize::<L>(record, bits, zero, &row, to.add(t * record.bytes));
                }
                Prepared::Plain => {
                    let to = scratch.cells::<f32>().as_ptr() as *mut f32;
                    to.add(t * k).copy_from_nonoverlapping(row.as_ptr(), k);
                }
                #[cfg(target_arch = "x86_64")]
                Prepared::Tiled { bits, values } => {
                    let to = scratch.cells::<u8>().as_ptr() as *mut u8;
                    tiles::store_row(bits, values, &mut row, t, to);
                    // Order of columns was changed beyond those that the next row overwrites.
                    row[k..].fill(0.0);
                }
            }
        }
    }
    give_back(row);
    run.member.barrier();
}

/// Blocks of a share, where one has `bytes` bytes.
fn share_blocks(blocks: usize, members: usize, bytes: usize) -> usize {
    (SHARE_BYTES / bytes.max(1)).min(blocks.div_ceil(members * 4)).max(1)
}

#[inline(always)]
unsafe fn grouped_blocks<L: Lanes, const BITS: u32, const WORDS: usize, const MORE: bool>(
    spec: &MatMul,
    bound: &Bound,
    run: &Run<'_>,
    rows: usize,
    record: Record,
    all: grouped::Block,
) {
    // SAFETY: blocks and records are within their bindings and the scratch memory.
    unsafe {
        let x = run.scratch.cells::<u8>().as_ptr() as *const u8;
        let block = |index: usize| grouped::Block {
            codes: all.codes.add(index * record.groups * all.words * LANES),
            scales: all.scales.add(index * (record.groups / record.split) * all.group_bytes()),
            ..all
        };
        let blocks = (spec.matrix.n as usize).div_ceil(BLOCK_ROWS);
        let share = share_blocks(blocks, run.member.members(), record.groups * all.words * 64);
        loop {
            let first = run.member.take() * share;
            if first >= blocks {
                return;
            }
            let last = blocks.min(first + share);
            if rows == 1 {
                for index in first..last {
                    let sums = grouped::tile::<L, BITS, WORDS, 1, MORE>(block(index), record, x);
                    finish::<L, 1>(spec, bound, run, sums, index, 0, 1);
                }
            } else if L::ROWS == 8 {
                grouped_rows::<L, BITS, WORDS, 8, MORE>(spec, bound, run, rows, record, first..last, block, x);
            } else {
                grouped_rows::<L, BITS, WORDS, 2, MORE>(spec, bound, run, rows, record, first..last, block, x);
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the body of one loop, once for each number of rows")]
#[inline(always)]
unsafe fn grouped_rows<L: Lanes, const BITS: u32, const WORDS: usize, const R: usize, const MORE: bool>(
    spec: &MatMul,
    bound: &Bound,
    run: &Run<'_>,
    rows: usize,
    record: Record,
    blocks: std::ops::Range<usize>,
    block: impl Fn(usize) -> grouped::Block,
    x: *const u8,
) {
    let words = record.bytes / 4;
    let mut local = borrow(words * R);
    for t in (0..rows).step_by(R) {
        for r in 0..R {
            // The last tile is filled with its last row, whose further results are dropped.
            // SAFETY: records are within the scratch memory, and written before the last barrier.
            let from =
                unsafe { std::slice::from_raw_parts(x.add((t + r).min(rows - 1) * record.bytes).cast::<f32>(), words) };
            for (to, &word) in local[r..].iter_mut().step_by(R).zip(from) {
                *to = word;
            }
        }
        for index in blocks.clone() {
            // SAFETY: the caller's promise.
            unsafe {
                let sums = grouped::tile::<L, BITS, WORDS, R, MORE>(block(index), record, local.as_ptr().cast());
                finish::<L, R>(spec, bound, run, sums, index, t, R.min(rows - t));
            }
        }
    }
    give_back(local);
}

#[inline(always)]
unsafe fn plain_blocks<L: Lanes, const HALF: bool>(
    spec: &MatMul,
    bound: &Bound,
    run: &Run<'_>,
    rows: usize,
    x: *const f32,
) {
    let k = spec.matrix.k as usize;
    let block_bytes = k * LANES * if HALF { 2 } else { 4 };
    let blocks = (spec.matrix.n as usize).div_ceil(BLOCK_ROWS);
    let share = share_blocks(blocks, run.member.members(), block_bytes);
    let values = run.pointer::<u8>(1).cast_const();
    loop {
        let first = run.member.take() * share;
        if first >= blocks {
            return;
        }
        let last = blocks.min(first + share);
        // SAFETY: blocks and rows are within their bindings.
        unsafe {
            if rows == 1 {
                for index in first..last {
                    let sums = plain::tile::<L, HALF, 1>(values.add(index * block_bytes), k, [x]);
                    finish::<L, 1>(spec, bound, run, sums, index, 0, 1);
                }
                continue;
            }
            for t in (0..rows).step_by(8) {
                let mut from = [x; 8];
                for (r, from) in from.iter_mut().enumerate() {
                    *from = x.add((t + r).min(rows - 1) * k);
                }
                for index in first..last {
                    let block = values.add(index * block_bytes);
                    if L::ROWS == 8 {
                        let sums = plain::tile::<L, HALF, 8>(block, k, from);
                        finish::<L, 8>(spec, bound, run, sums, index, t, 8.min(rows - t));
                        continue;
                    }
                    for half in (0..8.min(rows - t)).step_by(4) {
                        let from = [from[half], from[half + 1], from[half + 2], from[half + 3]];
                        let sums = plain::tile::<L, HALF, 4>(block, k, from);
                        finish::<L, 4>(spec, bound, run, sums, index, t + half, 4.min(rows - t - half));
                    }
                }
            }
        }
    }
}

/// Bias, activation, soft cap, residual: what is done with the sums of 16 rows for rows `t .. t + rows` of x.
///
/// # Safety
/// See the module above.
#[inline(always)]
pub unsafe fn finish<L: Lanes, const R: usize>(
    spec: &MatMul,
    bound: &Bound,
    run: &Run<'_>,
    mut sums: [L::F; R],
    block: usize,
    t: usize,
    rows: usize,
) {
    let n = spec.matrix.n as usize;
    let there = (n - block * BLOCK_ROWS).min(BLOCK_ROWS);
    // SAFETY: elements of y and of the residual that are touched belong to this block and these rows alone.
    unsafe {
        if spec.bias {
            let mut bias = [0.0; LANES];
            bias[..there].copy_from_slice(&run.read::<f32>(bound.bias)[block * BLOCK_ROWS..][..there]);
            for sums in &mut sums {
                *sums = L::add(*sums, L::load(bias.as_ptr()));
            }
        }
        match (spec.activation, spec.gated) {
            (Some(activation), true) => {
                // Gates and ups of one row fill half of the lanes: two rows are done at once.
                for r in (0..rows).step_by(2) {
                    let (gate, up) = L::deinterleave(sums[r], sums[if r + 1 < R { r + 1 } else { r }]);
                    let value = capped::<L>(spec, L::mul(math::activate::<L>(activation, gate), up));
                    let mut out = [0.0; LANES];
                    L::store(out.as_mut_ptr(), value);
                    let column = block * (BLOCK_ROWS / 2);
                    for (r, out) in (r..rows).zip(out.chunks_exact(BLOCK_ROWS / 2)) {
                        put(spec, bound, run, t + r, column, &out[..there / 2]);
                    }
                }
            }
            (activation, _) => {
                for (r, &sums) in sums.iter().enumerate().take(rows) {
                    let value = match activation {
                        Some(activation) => math::activate::<L>(activation, sums),
                        None => sums,
                    };
                    let mut out = [0.0; LANES];
                    L::store(out.as_mut_ptr(), capped::<L>(spec, value));
                    put(spec, bound, run, t + r, block * BLOCK_ROWS, &out[..there]);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn capped<L: Lanes>(spec: &MatMul, value: L::F) -> L::F {
    match spec.soft_cap {
        // SAFETY: the caller's promise.
        Some(cap) => unsafe { math::soft_cap::<L>(value, cap) },
        None => value,
    }
}

/// Adds the residual and writes columns `column ..` of this part into row `t` of y.
#[inline(always)]
unsafe fn put(spec: &MatMul, bound: &Bound, run: &Run<'_>, t: usize, column: usize, values: &[f32]) {
    let at = t * spec.out_columns as usize + spec.out_offset as usize + column;
    // SAFETY: within y and the residual, which have `out_columns` columns.
    unsafe {
        let y = run.pointer::<f32>(bound.y).add(at);
        if spec.residual {
            let residual = run.pointer::<f32>(bound.residual).add(at);
            for (i, value) in values.iter().enumerate() {
                y.add(i).write(value + residual.add(i).read());
            }
        } else {
            y.copy_from_nonoverlapping(values.as_ptr(), values.len());
        }
    }
}
