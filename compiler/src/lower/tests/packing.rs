//! Packing: recipes over tensors in memory, row by row, into bytes.

use super::*;
use crate::graph::{Stored, Tensors};
use crate::lower::pack::{check, pack};
use crate::lower::weights::{Layout, Source};
use crate::progress::Silent;

struct InMemory(Vec<(&'static str, DType, Vec<usize>, Vec<u8>)>);

impl Tensors for InMemory {
    fn stored(&self, name: &str) -> Option<Stored<'_>> {
        let (_, dtype, shape, bytes) = self.0.iter().find(|t| t.0 == name)?;
        Some(Stored { dtype: *dtype, shape, bytes })
    }
}

fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

fn tensors() -> InMemory {
    let wide = floats((0..3 * 40_000).map(|i| i as f32));
    InMemory(vec![
        ("a", DType::F32, vec![2, 3], floats([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
        ("b", DType::F32, vec![2, 3], floats([7.0, 8.0, 9.0, 10.0, 11.0, 12.0])),
        ("v", DType::F32, vec![3], floats([0.5, 1.5, 2.5])),
        ("wide", DType::F32, vec![40_000, 3], wide),
    ])
}

fn tensor(name: &str) -> Recipe {
    Recipe::Tensor(name.to_owned())
}

fn packed(weights: &Weights, threads: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let mut sink = |block: &[u8]| -> Result<(), LowerError> {
        bytes.extend_from_slice(block);
        Ok(())
    };
    pool.scope(|_| pack(weights, 0, &tensors(), &mut sink, &Silent)).unwrap();
    bytes
}

/// Packs `sources` of three columns into one segment and returns the values of each.
#[track_caller]
fn check_packed(recipe: Recipe, rows: std::ops::Range<usize>, expected: &[f32]) {
    let mut weights = Weights::default();
    let source = Source::Recipe { recipe, rows };
    weights.intern(source, DType::F32, 3, 4, Layout::Rows);
    weights.intern(Source::Values(vec![42.0]), DType::F32, 1, 1, Layout::Rows);
    weights.place(&[false, false], &vulkan(), false);
    check(&weights, &tensors()).unwrap();
    let bytes = packed(&weights, 1);
    assert_eq!(bytes.len() as u64, weights.segments[0]);
    assert_eq!(bytes[..weights.tensors[0].bytes as usize], floats(expected.iter().copied()));
    let second = weights.tensors[1].offset as usize;
    assert_eq!(bytes[second..second + 4], 42_f32.to_le_bytes());
}

#[test]
fn recipes() {
    check_packed(tensor("a"), 0..2, &[1.0, 2.0, 3.0, 0.0, 4.0, 5.0, 6.0, 0.0]);
    let concat = Recipe::ConcatRows(vec![tensor("a"), tensor("b")]);
    check_packed(concat, 1..3, &[4.0, 5.0, 6.0, 0.0, 7.0, 8.0, 9.0, 0.0]);
    let interleaved = Recipe::InterleaveRows(Box::new([tensor("a"), tensor("b")]));
    check_packed(interleaved, 1..4, &[7.0, 8.0, 9.0, 0.0, 4.0, 5.0, 6.0, 0.0, 10.0, 11.0, 12.0, 0.0]);
    check_packed(Recipe::AddScalar(Box::new(tensor("a")), 1.0), 1..2, &[5.0, 6.0, 7.0, 0.0]);
    let half = |start| Recipe::SliceRows { of: Box::new(tensor("a")), start, len: 1 };
    let swapped = Recipe::InterleaveRows(Box::new([half(1), half(0)]));
    check_packed(swapped, 0..2, &[4.0, 5.0, 6.0, 0.0, 1.0, 2.0, 3.0, 0.0]);
}

#[test]
fn same_bytes_from_one_and_two_threads() {
    let mut weights = Weights::default();
    let recipe = Recipe::AddScalar(Box::new(tensor("wide")), 0.5);
    weights.intern(Source::Recipe { recipe, rows: 7..39_999 }, DType::F32, 3, 4, Layout::Rows);
    weights.place(&[false], &vulkan(), false);
    let one = packed(&weights, 1);
    assert_eq!(one, packed(&weights, 2));
    assert_eq!(one[..16], floats([21.5, 22.5, 23.5, 0.0]));
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    for (recipe, dtype, columns, message) in [
        (tensor("no"), DType::F32, 3, "tensor `no`: missing in the model directory"),
        (tensor("a"), DType::U32, 3, "tensor `a`: f32[2, 3] where rows of 3 u32 are expected"),
        (tensor("a"), DType::F32, 2, "tensor `a`: f32[2, 3] where rows of 2 f32 are expected"),
        (
            Recipe::SliceRows { of: Box::new(tensor("a")), start: 1, len: 2 },
            DType::F32,
            3,
            "tensor `slice(a, 1, 2)`: it has 2 rows",
        ),
        (Recipe::ConcatRows(vec![tensor("v")]), DType::F32, 1, "tensor `rows(v)`: rows 0..4 of 3 are needed"),
    ] {
        let mut weights = Weights::default();
        weights.intern(Source::Recipe { recipe, rows: 0..4 }, dtype, columns, columns, Layout::Rows);
        assert_eq!(check(&weights, &tensors()).unwrap_err().to_string(), message);
    }
}

/// Blocks of 16 rows, column by column; the last is filled with zeros, and words of codes are arranged unit by unit.
#[test]
fn blocks_of_sixteen_rows() {
    for (layout, dtype, columns) in [
        (Layout::Rows16, DType::F32, 3),
        (Layout::Rows16, DType::F16, 6),
        (Layout::Rows16, DType::U32, 4),
        (Layout::Rows16Codes(3), DType::U32, 8),
        (Layout::Rows16Codes(5), DType::U32, 15),
        (Layout::Rows16Codes(6), DType::U32, 9),
    ] {
        let (rows, size) = (21, dtype.bytes());
        let elements: Vec<u32> =
            (0..rows * columns).map(|i| (i as u32).wrapping_mul(0x9E37_79B9) & 0x3fff_ffff).collect();
        let bytes = elements.iter().flat_map(|x| x.to_le_bytes()[..size].to_vec()).collect();
        let stored = InMemory(vec![("w", dtype, vec![rows, columns], bytes)]);
        let mut weights = Weights::default();
        let source = Source::Recipe { recipe: tensor("w"), rows: 1..20 };
        weights.intern(source, dtype, columns, columns, layout);
        weights.place(&[false], &Target::new(TargetName::Cpu), false);
        assert_eq!(weights.tensors[0].bytes as usize, 32 * columns * size);
        let mut packed = Vec::new();
        let mut sink = |block: &[u8]| -> Result<(), LowerError> {
            packed.extend_from_slice(block);
            Ok(())
        };
        pack(&weights, 0, &stored, &mut sink, &Silent).unwrap();
        assert_eq!(packed.len(), 32 * columns * size);
        for row in 0..32 {
            for column in 0..columns {
                let at = ((row / 16 * columns + column) * 16 + row % 16) * size;
                let mut expected = [0; 4];
                if row < 19 {
                    let from = &elements[(row + 1) * columns..][..columns];
                    let mut words = from[..columns].to_vec();
                    if let Layout::Rows16Codes(bits) = layout {
                        dwindle_bundle::native::arrange(bits, &mut words);
                        assert_ne!(words, from[..columns], "{bits} bits are arranged");
                    }
                    expected = words[column].to_le_bytes();
                }
                assert_eq!(packed[at..at + size], expected[..size], "{layout:?} row {row} column {column}");
            }
        }
    }
}
