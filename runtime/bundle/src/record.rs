//! Prepared activations of native matrix products: how long one row is, and what a kernel needs for all of a call's.

use crate::native::{NativeKernel, Storage};

/// Where the parts of a row of activations rounded to 8 bits are, in bytes from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Groups of the row.
    pub groups: usize,
    /// Values of a group.
    pub group: usize,
    /// `-zero * Σ q`, i32, one for each group.
    pub sums: usize,
    /// f32, one for each group.
    pub scales: usize,
    /// From one row to the next.
    pub bytes: usize,
}

impl Record {
    /// For rows of `k` values in groups of `group`, at least 1 each.
    pub fn new(k: u32, group: u32) -> Record {
        let groups = k.div_ceil(group) as usize;
        let sums = (groups * group as usize).next_multiple_of(64);
        let scales = sums + groups * 4;
        Record { groups, group: group as usize, sums, scales, bytes: (scales + groups * 4).next_multiple_of(64) }
    }
}

impl NativeKernel {
    /// Memory that a step needs besides its bindings, for calls of at most `max_rows` rows. Constants that no kernel
    /// would take give some number.
    pub fn scratch_bytes(&self, max_rows: u32) -> u64 {
        let NativeKernel::MatMul(product) = self else { return 0 };
        let rows = u64::from(product.rows.unwrap_or(max_rows));
        let row_bytes = match product.matrix.storage {
            Storage::Grouped { group, .. } => Record::new(product.matrix.k, group.max(1)).bytes as u64,
            Storage::Plain(_) if product.rms_norm.is_some() => u64::from(product.matrix.k) * 4,
            Storage::Plain(_) => 0,
        };
        rows.saturating_mul(row_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_begin_at_cache_lines() {
        for (k, group, bytes) in [(100, 32, 128 + 16 + 16 + 32), (64, 64, 64 + 64), (1, 40, 64 + 64)] {
            assert_eq!(Record::new(k, group).bytes, bytes, "{k} in groups of {group}");
        }
    }
}
