//! Constant data of a plan: which tensors are packed, in which layout, and where they lie in the weight segments.
//!
//! A packed tensor is a range of rows of a recipe (or a few numbers that lowering itself knows, as RoPE's inverse
//! frequencies), each row padded with zeros as `kernels::spec` asks. Tensors are told apart by the recipe's canonical text,
//! row range and layout, so functions share what they both use. A matrix that exceeds one binding is packed as several
//! tensors of consecutive rows, so every part begins at an aligned offset, scales and biases included.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use dwindle_bundle::native::BLOCK_ROWS;

use crate::graph::{DType, Recipe};
use crate::target::Target;

/// Every packed tensor begins at a multiple of this many bytes: the binding alignment that each device accepts.
pub const TENSOR_ALIGNMENT: u64 = 256;

/// Ranges that kernels bind are whole multiples of this, so that a kernel may read `vec4<u32>`.
pub const BINDING_GRANULE: u64 = 16;

/// Where the data of a packed tensor comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A range of rows of constant data of the model directory; a vector has a row for each element.
    Recipe {
        /// The data.
        recipe: Recipe,
        /// Rows of it.
        rows: Range<usize>,
    },
    /// Numbers the compiler computed, packed as f32.
    Values(Vec<f32>),
}

/// `model.norm.weight`, `rows(a, b)[128..256]`, `f32[0.5, 0.25]`.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Recipe { recipe, rows } => write!(f, "{recipe}[{}..{}]", rows.start, rows.end),
            Source::Values(values) => write!(f, "f32{values:?}"),
        }
    }
}

/// How the rows of a packed tensor lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One after the other, each padded with zeros.
    Rows,
    /// In blocks of 16, as [`dwindle_bundle::native`] describes `rows16`.
    Rows16,
    /// The same, of words of codes of so many bits, which are arranged for kernels.
    Rows16Codes(u32),
}

/// One packed tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    /// What it holds.
    pub source: Source,
    /// Type of its elements, in the model directory as in the bundle.
    pub dtype: DType,
    /// Elements of a row.
    pub columns: usize,
    /// Elements of a row with the zeros after it.
    pub padded_columns: usize,
    /// Order of the elements.
    pub layout: Layout,
    /// Whether it is (a part of) a matrix of products or embeddings, which targets store in different layouts.
    pub matrix: bool,
    /// Index of its segment.
    pub segment: usize,
    /// First byte in the segment, a multiple of [`TENSOR_ALIGNMENT`].
    pub offset: u64,
    /// Bytes, a multiple of [`BINDING_GRANULE`]; what follows the last row is zero.
    pub bytes: u64,
}

impl Packed {
    /// What it holds and how: equal keys, equal bytes.
    fn key(&self) -> String {
        let Packed { source, dtype, columns, padded_columns, layout, .. } = self;
        format!("{source} {} {columns} {padded_columns} {layout:?}", dtype.name())
    }

    /// Rows it holds.
    pub fn rows(&self) -> usize {
        match &self.source {
            Source::Recipe { rows, .. } => rows.len(),
            Source::Values(_) => 1,
        }
    }

    /// Rows with those of zeros that fill the last block.
    pub fn padded_rows(&self) -> usize {
        match self.layout {
            Layout::Rows => self.rows(),
            Layout::Rows16 | Layout::Rows16Codes(_) => self.rows().next_multiple_of(BLOCK_ROWS),
        }
    }

    /// Bytes of a row, with the zeros after it.
    pub fn row_bytes(&self) -> usize {
        self.padded_columns * self.dtype.bytes()
    }
}

/// All constant data of a plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    /// In the order of first use.
    pub tensors: Vec<Packed>,
    /// Bytes of each segment, which is one buffer and one entry of the bundle.
    pub segments: Vec<u64>,
    index: BTreeMap<String, usize>,
}

impl Weights {
    /// The tensor's index; the same for equal data in an equal layout. `None` where the size overflows.
    pub(super) fn intern(
        &mut self,
        source: Source,
        dtype: DType,
        columns: usize,
        padded_columns: usize,
        layout: Layout,
    ) -> Option<usize> {
        let mut tensor =
            Packed { source, dtype, columns, padded_columns, layout, matrix: false, segment: 0, offset: 0, bytes: 0 };
        let row_bytes = (padded_columns as u64).checked_mul(dtype.bytes() as u64)?;
        let key = tensor.key();
        if let Some(&index) = self.index.get(&key) {
            return Some(index);
        }
        tensor.bytes = row_bytes.checked_mul(tensor.padded_rows() as u64)?.checked_next_multiple_of(BINDING_GRANULE)?;
        self.tensors.push(tensor);
        self.index.insert(key, self.tensors.len() - 1);
        Some(self.tensors.len() - 1)
    }

    /// Says that a tensor is (a part of) a matrix.
    pub(super) fn mark_matrix(&mut self, index: usize) {
        self.tensors[index].matrix = true;
    }

    /// Gives each tensor its place: first fit, in order of first use. `writable` tensors are those that some kernel
    /// binds as read-write (a position embedding in the place of a residual): they get segments of their own, because a
    /// GPU API tracks the usage of whole buffers. With `shares`, so do all tensors that are no matrices, ordered by what they
    /// hold: these segments are then the same for all targets.
    pub(super) fn place(&mut self, writable: &[bool], target: &Target, shares: bool) {
        let limit = target.max_storage_buffer_binding_size.min(target.max_buffer_size);
        let mut order: Vec<usize> = (0..self.tensors.len()).collect();
        if shares {
            let keys: Vec<_> =
                self.tensors.iter().map(|t| (t.matrix, if t.matrix { String::new() } else { t.key() })).collect();
            order.sort_by(|&a, &b| keys[a].cmp(&keys[b]));
        }
        let mut kinds = Vec::new();
        self.segments.clear();
        for index in order {
            let tensor = &mut self.tensors[index];
            let kind = (writable[index], shares && !tensor.matrix);
            let fits = |&(segment, &used): &(usize, &u64)| {
                kinds[segment] == kind && used.next_multiple_of(TENSOR_ALIGNMENT).saturating_add(tensor.bytes) <= limit
            };
            let found = self.segments.iter().enumerate().find(fits).map(|(segment, _)| segment);
            tensor.segment = found.unwrap_or_else(|| {
                self.segments.push(0);
                kinds.push(kind);
                self.segments.len() - 1
            });
            let used = &mut self.segments[tensor.segment];
            tensor.offset = used.next_multiple_of(TENSOR_ALIGNMENT);
            *used = tensor.offset + tensor.bytes;
        }
    }

    /// Tensors of a segment, in the order of their offsets.
    pub fn of_segment(&self, segment: usize) -> impl Iterator<Item = &Packed> {
        let mut tensors: Vec<&Packed> = self.tensors.iter().filter(|tensor| tensor.segment == segment).collect();
        tensors.sort_by_key(|tensor| tensor.offset);
        tensors.into_iter()
    }

    /// Whether a segment has the same bytes as one of `other`, both made of the same tensors.
    pub fn has_segment(&self, segment: usize, other: &Weights, others: usize) -> bool {
        let place = |tensor: &Packed| (tensor.key(), tensor.offset, tensor.bytes);
        self.segments[segment] == other.segments[others]
            && self.of_segment(segment).map(place).eq(other.of_segment(others).map(place))
    }
}

/// Cuts `rows` rows into parts of at most `limit` bytes, for the widest of the tensors that hold them.
///
/// Parts are of nearly equal size and begin at even rows (at multiples of 64 where they are large), so gated pairs stay together and
/// kernels keep whole tiles. `None` where not even two rows fit.
pub(super) fn split_rows(rows: usize, row_bytes: u64, limit: u64) -> Option<Vec<Range<usize>>> {
    if row_bytes.checked_mul(rows as u64)? <= limit {
        return Some(std::iter::once(0..rows).collect());
    }
    let most = usize::try_from(limit / row_bytes).ok()?;
    let granule = if most >= 64 { 64 } else { 2 };
    let most = most - most % granule;
    if most == 0 {
        return None;
    }
    let size = rows.div_ceil(rows.div_ceil(most)).next_multiple_of(granule);
    Some((0..rows).step_by(size).map(|first| first..(first + size).min(rows)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::target::TargetName;

    /// Gemma-2B's tied embedding: 262 MB of codes over bindings of 128 MiB.
    #[test]
    fn large_matrix_is_split_in_equal_parts() {
        assert_eq!(split_rows(256_000, 1024, 128 << 20), Some(vec![0..128_000, 128_000..256_000]));
        assert_eq!(split_rows(7, 100, 200), Some(vec![0..2, 2..4, 4..6, 6..7]));
        assert_eq!(split_rows(3, 100, 150), None);
        assert_eq!(split_rows(1, 100, 100), Some(std::iter::once(0..1).collect()));
    }

    proptest! {
        #[test]
        fn parts_cover_all_rows_and_fit(rows in 1_usize..5000, row_bytes in 1_u64..300, limit in 600_u64..40_000) {
            let parts = split_rows(rows, row_bytes, limit).unwrap();
            prop_assert_eq!(parts.first().unwrap().start, 0);
            prop_assert_eq!(parts.last().unwrap().end, rows);
            for pair in parts.windows(2) {
                prop_assert_eq!(pair[0].end, pair[1].start);
                prop_assert!(pair[0].end.is_multiple_of(2));
            }
            prop_assert!(parts.iter().all(|p| !p.is_empty() && p.len() as u64 * row_bytes <= limit));
        }

        #[test]
        fn tensors_do_not_overlap(sizes in prop::collection::vec((1_usize..300, any::<bool>()), 1..40)) {
            let mut target = Target::new(TargetName::Vulkan);
            target.max_storage_buffer_binding_size = 2048;
            let mut weights = Weights::default();
            for (i, &(n, _)) in sizes.iter().enumerate() {
                let source = Source::Recipe { recipe: Recipe::Tensor(format!("t{i}")), rows: 0..n };
                prop_assert_eq!(weights.intern(source, DType::F32, 1, 1, Layout::Rows), Some(i));
            }
            let writable: Vec<bool> = sizes.iter().map(|s| s.1).collect();
            weights.place(&writable, &target, false);
            for segment in 0..weights.segments.len() {
                let mut end = 0;
                for tensor in weights.of_segment(segment) {
                    prop_assert!(tensor.offset >= end && tensor.offset.is_multiple_of(TENSOR_ALIGNMENT));
                    end = tensor.offset + tensor.bytes;
                }
                prop_assert_eq!(end, weights.segments[segment]);
                prop_assert!(end <= 2048);
                let mut kinds = (0..sizes.len()).filter(|&i| weights.tensors[i].segment == segment).map(|i| writable[i]);
                let first = kinds.next();
                prop_assert!(kinds.all(|kind| Some(kind) == first));
            }
        }
    }

    #[test]
    fn equal_data_is_packed_once() {
        let mut weights = Weights::default();
        let source = |rows| Source::Recipe { recipe: Recipe::Tensor("w".to_owned()), rows };
        assert_eq!(weights.intern(source(0..4), DType::F16, 6, 8, Layout::Rows), Some(0));
        assert_eq!(weights.intern(source(0..2), DType::F16, 6, 8, Layout::Rows), Some(1));
        assert_eq!(weights.intern(source(0..4), DType::F16, 6, 6, Layout::Rows), Some(2));
        assert_eq!(weights.intern(source(0..4), DType::F16, 6, 8, Layout::Rows), Some(0));
        assert_eq!(weights.intern(Source::Values(vec![0.5]), DType::F32, 1, 1, Layout::Rows), Some(3));
        assert_eq!(weights.tensors.len(), 4);
        assert_eq!(weights.tensors[0].bytes, 64);
    }
}
