//! Memory of native kernels besides their bindings: how long one row of prepared activations is, what a kernel needs for all of a
//! call's, and what each thread works in.

use crate::native::{Attention, BLOCK_ROWS, CODES_3BIT, NativeKernel, Storage};

/// Positions of the cache that one row's attention goes through at a time, each piece by itself.
pub const ATTENTION_PIECE: usize = 256;

/// Rows whose records may lie word by word beside each other; their number is rounded up to it.
pub const RECORD_ROWS: usize = 8;

/// Calls of at most so many rows round activations to 16 bits, as the sum of two records: weights come from memory then, and
/// products are not what takes time.
pub const FINE_ROWS: usize = 23;

/// Rows of a tile of activations in bf16.
pub const TILE_ROWS: usize = 16;

/// Values of a row of a tile.
pub const TILE_DEPTH: usize = 32;

/// Bytes of a tile.
pub const TILE_BYTES: usize = TILE_ROWS * TILE_DEPTH * 2;

/// Where the parts of a row of activations rounded to 8 bits are, in bytes from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Groups of the row.
    pub groups: usize,
    /// Values of a group.
    pub group: usize,
    /// Groups in one of the matrix: where those are long, activations have a scale for each 32 values all the same.
    pub split: usize,
    /// One for each group: `-zero * Σ q`, i32, or where groups of the matrix store a zero or a minimum, `scale * Σ q`, f32.
    pub sums: usize,
    /// f32, one for each group.
    pub scales: usize,
    /// From one row to the next.
    pub bytes: usize,
}

impl Record {
    /// For rows of `k` values and a matrix of codes of `bits` bits in groups of `group`, at least 1 each.
    pub fn new(k: u32, bits: u32, group: u32) -> Record {
        let unit = if bits == 3 { CODES_3BIT as u32 } else { 32 };
        let split = if group.is_multiple_of(unit) { group / unit } else { 1 };
        let (group, split) = ((group / split) as usize, split as usize);
        let groups = (k as usize).div_ceil(group * split) * split;
        let sums = (groups * group).next_multiple_of(64);
        let scales = sums + groups * 4;
        Record { groups, group, split, sums, scales, bytes: (scales + groups * 4).next_multiple_of(64) }
    }
}

/// Bytes of `rows` rows of `values` activations as tiles.
pub fn tile_bytes(rows: u64, values: u64) -> u64 {
    rows.div_ceil(TILE_ROWS as u64).saturating_mul(values.div_ceil(TILE_DEPTH as u64) * TILE_BYTES as u64)
}

impl NativeKernel {
    /// Memory that a step needs besides its bindings on any processor, for calls of at most `max_rows` rows. Constants that no
    /// kernel would take give some number.
    pub fn scratch_bytes(&self, max_rows: u32) -> u64 {
        match self {
            NativeKernel::MatMul(product) => {
                let rows = u64::from(product.rows.unwrap_or(max_rows));
                let k = product.matrix.k;
                match product.matrix.storage {
                    Storage::Grouped { bits, group, .. } => {
                        let record = Record::new(k, bits, group.max(1));
                        let values = (record.groups * record.group) as u64;
                        let records = match rows {
                            0 | 1 => 2 * rows,
                            _ => rows.max(2 * rows.min(FINE_ROWS as u64)).next_multiple_of(RECORD_ROWS as u64),
                        };
                        records.saturating_mul(record.bytes as u64).max(tile_bytes(rows, values))
                    }
                    Storage::Plain(_) if product.rms_norm.is_some() => rows.saturating_mul(u64::from(k) * 4),
                    Storage::Plain(_) => 0,
                }
            }
            NativeKernel::Attention(attention) => attention_bytes(attention),
            _ => 0,
        }
    }
}

/// The most that a kernel may take of each thread's own memory: far more than any real one.
pub const MAX_LOCAL_BYTES: u64 = 64 << 20;

impl NativeKernel {
    /// Memory that each thread works in while it does a step, on any processor, for calls of at most `max_rows` rows. An upper
    /// bound, from which kernels' own arrays of a fixed size are left out.
    pub fn local_bytes(&self, max_rows: u32) -> u64 {
        let padded = |values: u64| values.saturating_add(64).saturating_mul(4);
        let (lanes, piece) = (16_u64, 32_u64);
        match self {
            NativeKernel::MatMul(product) => {
                let rows = u64::from(product.rows.unwrap_or(max_rows));
                // A row, and its record; sums of a share's blocks; or a panel of unpacked weights and tiles of sums.
                let blocks = u64::from(product.matrix.n).div_ceil(BLOCK_ROWS as u64).min(SHARE_BYTES / 64);
                let sums = blocks.saturating_mul(lanes * RECORD_ROWS as u64 * 4);
                match product.matrix.storage {
                    Storage::Grouped { bits, group, .. } => {
                        let record = Record::new(product.matrix.k, bits, group.max(1));
                        let records = 2 * record.bytes as u64 + 8 * record.groups as u64;
                        let prepare = padded((record.groups * record.group) as u64).saturating_add(records);
                        let tiles = rows.div_ceil(TILE_ROWS as u64).saturating_mul(SHARE_TILES);
                        prepare.max(sums).max(tiles.saturating_add(PANEL_BYTES))
                    }
                    Storage::Plain(_) => padded(product.matrix.k.into()),
                }
            }
            NativeKernel::Attention(a) => {
                let width = padded(a.head_dim.into());
                width.saturating_mul(4 * piece).saturating_add(piece * piece * 4)
            }
            NativeKernel::Norm(n) => padded(n.columns.into()),
            NativeKernel::RopeWriteKv(r) => {
                let heads = u64::from(r.n_heads).saturating_add(2 * u64::from(r.n_kv_heads)).saturating_add(1);
                padded(heads.saturating_mul(r.head_dim.into()))
            }
            NativeKernel::Rope(r) => padded((u64::from(r.n_heads) + 1).saturating_mul(r.head_dim.into())),
            _ => 0,
        }
    }
}

/// Bytes of weights that a share of a product goes through, at most.
pub const SHARE_BYTES: u64 = 512 << 10;

/// Bytes of a share's unpacked weights, and of its sums for a tile of rows: eight blocks, of a piece of 512 columns.
const PANEL_BYTES: u64 = SHARE_TILES * 16;
const SHARE_TILES: u64 = 8 * TILE_BYTES as u64;

/// What each piece of the cache leaves of each query: greatest score, sum of weights, weighted sums.
fn attention_bytes(attention: &Attention) -> u64 {
    let pieces = u64::from(attention.kv_rows).div_ceil(ATTENTION_PIECE as u64);
    pieces.saturating_mul(u64::from(attention.n_heads)).saturating_mul((u64::from(attention.head_dim) + 2) * 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_begin_at_cache_lines() {
        for (k, bits, group, bytes) in
            [(100, 4, 32, 128 + 16 + 16 + 32), (64, 8, 32, 64 + 64), (1, 3, 40, 64 + 64), (256, 4, 128, 256 + 64)]
        {
            assert_eq!(Record::new(k, bits, group).bytes, bytes, "{k} values, {bits} bits, groups of {group}");
        }
    }

    #[test]
    fn long_groups_are_split() {
        let record = Record::new(256, 4, 128);
        assert_eq!((record.groups, record.group, record.split), (8, 32, 4));
    }

    #[test]
    fn tiles_are_whole() {
        assert_eq!(tile_bytes(1, 1), 1024);
        assert_eq!(tile_bytes(17, 33), 4 * 1024);
    }
}
