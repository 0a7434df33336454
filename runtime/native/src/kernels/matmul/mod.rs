//! Matrix products: activations are prepared row by row, then 16 rows of the matrix at a time are multiplied.
//!
//! A share of the second phase is some blocks of 16 rows. For it, tiles of rows of activations are gone through, and for
//! each tile all its blocks, so that blocks stay in the second cache. Where a tile's rows are long, a piece of their columns is done
//! for all blocks before the next, so that it stays in the first.

mod ahead;
mod block;
mod finish;
mod grouped;
mod plain;
mod prepare;
mod quantize;
#[cfg(target_arch = "x86_64")]
mod tiles;

use dwindle_bundle::native::{Float, MatMul, Storage, Unit};
use dwindle_bundle::{FINE_ROWS, Record};

use super::{Run, borrow, norm};
use ahead::Ahead;
use block::{Block, Second};
use grouped::Grouped;
use plain::Plain;
use prepare::{Prepare, Prepared};

/// Bytes of weights that a share goes through again for each tile of activations.
const SHARE_BYTES: usize = dwindle_bundle::SHARE_BYTES as usize;

/// Bindings by role; optional ones are 0 where they are absent.
pub struct Bound {
    scales: usize,
    norm: usize,
    bias: usize,
    residual: usize,
    y: usize,
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
            let unit = Unit::of(bits).expect("`needs` checks formats");
            let values = record.groups * record.group;
            let all = Block {
                codes: run.pointer::<u32>(1),
                scales: run.pointer::<u8>(bound.scales),
                half_scales: scale == Float::F16,
                second: Second::of(zero),
                units: record.group / unit.codes,
                ahead: Ahead::of_processor(),
            };
            #[cfg(target_arch = "x86_64")]
            if run.set.has_tiles() && rows >= tiles::LEAST_ROWS {
                prepare(values, Prepared::Tiled { bits, values });
                let all = Block { units: group as usize / unit.codes, ..all };
                let zero = zero.constant(bits).unwrap_or(0);
                let product = tiles::Product { spec, bound: &bound, run, rows, zero, group: group as usize, all };
                // SAFETY: `has_tiles` is true only where tiles are available; sizes are those that `needs` asks for.
                return unsafe {
                    match bits {
                        3 => product.run::<3>(),
                        4 => product.run::<4>(),
                        5 => product.run::<5>(),
                        6 => product.run::<6>(),
                        _ => product.run::<8>(),
                    }
                };
            }
            let terms = if rows <= FINE_ROWS { 2 } else { 1 };
            prepare(values, Prepared::Quantized { record, bits, zero: zero.constant(bits), terms });
            Grouped { spec, bound: &bound, run, rows, terms, record, all }.run(bits);
        }
        Storage::Plain(float) => {
            let x = match spec.rms_norm {
                Some(_) => {
                    prepare(k, Prepared::Plain);
                    run.scratch.address().cast()
                }
                None => run.pointer::<f32>(0).cast_const(),
            };
            Plain { spec, bound: &bound, run, rows, x }.run(float);
        }
    }
}

/// Blocks of a share, where one has `bytes` bytes.
fn share_blocks(blocks: usize, members: usize, bytes: usize) -> usize {
    (SHARE_BYTES / bytes.max(1)).min(blocks.div_ceil(members * 4)).max(1)
}
