//! Packs weights: evaluates recipes row by row from mapped tensors and streams them into a bundle's entry.
//!
//! A block of rows is converted at a time (about 1 MiB, in parallel), so packing needs no memory for matrices, and its
//! bytes do not depend on the number of threads.

use std::ops::Range;

use dwindle_bundle::native::{self, BLOCK_ROWS, Unit};
use rayon::prelude::*;

use super::LowerError;
use super::weights::{Layout, Packed, Source, Weights};
use crate::graph::{DType, Recipe, Tensors};
use crate::progress::Progress;

/// Bytes that are converted at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// A recipe over tensors that were found and checked; every part has rows of the same number of bytes.
enum Rows<'a> {
    Stored(&'a [u8]),
    AddScalar(Box<Rows<'a>>, f32),
    Concat(Vec<(usize, Rows<'a>)>),
    Interleave(Box<[Rows<'a>; 2]>),
    Slice(Box<Rows<'a>>, usize),
}

impl<'a> Rows<'a> {
    /// Resolves a recipe whose rows have `columns` elements; returns its number of rows, too.
    fn resolve(
        recipe: &Recipe,
        dtype: DType,
        columns: usize,
        tensors: &'a dyn Tensors,
    ) -> Result<(usize, Self), LowerError> {
        let fail = |name: &str, why: String| LowerError::Tensor { name: name.to_owned(), why };
        match recipe {
            Recipe::Tensor(name) => {
                let stored =
                    tensors.stored(name).ok_or_else(|| fail(name, "missing in the model directory".to_owned()))?;
                let elements = stored.bytes.len() / dtype.bytes();
                let fits = stored.dtype == dtype
                    && columns > 0
                    && elements.is_multiple_of(columns)
                    // A vector is a row for each element, or one row.
                    && (stored.shape.first() == Some(&(elements / columns)) || *stored.shape == [columns]);
                if !fits {
                    let (found, shape) = (stored.dtype.name(), stored.shape);
                    return Err(fail(
                        name,
                        format!("{found}{shape:?} where rows of {columns} {} are expected", dtype.name()),
                    ));
                }
                Ok((elements / columns, Rows::Stored(stored.bytes)))
            }
            Recipe::AddScalar(inner, value) => {
                if dtype != DType::F32 {
                    return Err(fail(&recipe.to_string(), format!("a number is added to {} values", dtype.name())));
                }
                let (rows, inner) = Rows::resolve(inner, dtype, columns, tensors)?;
                Ok((rows, Rows::AddScalar(Box::new(inner), *value)))
            }
            Recipe::ConcatRows(parts) => {
                let mut resolved = Vec::with_capacity(parts.len());
                let mut end = 0;
                for part in parts {
                    let (rows, part) = Rows::resolve(part, dtype, columns, tensors)?;
                    end += rows;
                    resolved.push((end, part));
                }
                Ok((end, Rows::Concat(resolved)))
            }
            Recipe::InterleaveRows(pair) => {
                let (n, a) = Rows::resolve(&pair[0], dtype, columns, tensors)?;
                let (m, b) = Rows::resolve(&pair[1], dtype, columns, tensors)?;
                if n != m {
                    return Err(fail(&recipe.to_string(), format!("{n} rows are interleaved with {m}")));
                }
                Ok((n + m, Rows::Interleave(Box::new([a, b]))))
            }
            Recipe::SliceRows { of, start, len } => {
                let (rows, of) = Rows::resolve(of, dtype, columns, tensors)?;
                if start.checked_add(*len).is_none_or(|end| end > rows) {
                    return Err(fail(&recipe.to_string(), format!("it has {rows} rows")));
                }
                Ok((*len, Rows::Slice(Box::new(of), *start)))
            }
        }
    }

    /// Writes row `row` into `out`, which is as long as a row.
    fn write(&self, row: usize, out: &mut [u8]) {
        match self {
            Rows::Stored(bytes) => out.copy_from_slice(&bytes[row * out.len()..][..out.len()]),
            Rows::AddScalar(inner, value) => {
                inner.write(row, out);
                for element in out.as_chunks_mut::<4>().0 {
                    *element = (f32::from_le_bytes(*element) + value).to_le_bytes();
                }
            }
            Rows::Concat(parts) => {
                let index = parts.partition_point(|(end, _)| *end <= row);
                let before = if index == 0 { 0 } else { parts[index - 1].0 };
                parts[index].1.write(row - before, out);
            }
            Rows::Interleave(pair) => pair[row % 2].write(row / 2, out),
            Rows::Slice(of, start) => of.write(start + row, out),
        }
    }
}

/// Checks that each tensor of `weights` can be packed: its recipe resolves and has the rows it should.
///
/// # Errors
/// The first tensor that is missing or does not fit, by name.
pub fn check(weights: &Weights, tensors: &dyn Tensors) -> Result<(), LowerError> {
    weights.tensors.iter().try_for_each(|tensor| resolve(tensor, tensors).map(|_| ()))
}

/// The rows to pack and their range; `None` where the compiler knows the values.
fn resolve<'a>(tensor: &Packed, tensors: &'a dyn Tensors) -> Result<Option<(Range<usize>, Rows<'a>)>, LowerError> {
    let Source::Recipe { recipe, rows: range } = &tensor.source else { return Ok(None) };
    let (rows, resolved) = Rows::resolve(recipe, tensor.dtype, tensor.columns, tensors)?;
    if range.end > rows {
        let why = format!("rows {}..{} of {rows} are needed", range.start, range.end);
        return Err(LowerError::Tensor { name: recipe.to_string(), why });
    }
    Ok(Some((range.clone(), resolved)))
}

/// Gives the bytes of one segment to `sink`, in order.
///
/// # Errors
/// A tensor that is missing or does not fit, by name; the sink's errors.
pub fn pack<E: From<LowerError>>(
    weights: &Weights,
    segment: usize,
    tensors: &dyn Tensors,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    progress: &dyn Progress,
) -> Result<(), E> {
    let mut written = 0_u64;
    for tensor in weights.of_segment(segment) {
        zeros(sink, tensor.offset - written)?;
        let bytes = match (&tensor.source, resolve(tensor, tensors)?) {
            (_, Some((range, rows))) => pack_rows(tensor, range, &rows, sink, progress)?,
            (Source::Values(values), None) => {
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                sink(&bytes)?;
                bytes.len() as u64
            }
            (Source::Recipe { .. }, None) => 0,
        };
        zeros(sink, tensor.bytes - bytes)?;
        written = tensor.offset + tensor.bytes;
    }
    Ok(())
}

fn pack_rows<E>(
    tensor: &Packed,
    range: Range<usize>,
    rows: &Rows<'_>,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    progress: &dyn Progress,
) -> Result<u64, E> {
    if tensor.layout != Layout::Rows {
        return pack_blocks(tensor, range, rows, sink, progress);
    }
    let (row_bytes, data_bytes) = (tensor.row_bytes(), tensor.columns * tensor.dtype.bytes());
    let rows_per_block = (BLOCK_BYTES / row_bytes).max(1);
    // Bytes after a row's data are never written, so they stay zero through all blocks.
    let mut block = vec![0_u8; rows_per_block.min(range.len()) * row_bytes];
    for first in range.clone().step_by(rows_per_block) {
        let block = &mut block[..rows_per_block.min(range.end - first) * row_bytes];
        block
            .par_chunks_exact_mut(row_bytes)
            .enumerate()
            .with_min_len((16384 / row_bytes).max(1))
            .for_each(|(i, out)| rows.write(first + i, &mut out[..data_bytes]));
        sink(block)?;
        progress.advance(block.len() as u64);
    }
    Ok((range.len() * row_bytes) as u64)
}

/// Blocks of 16 rows, column by column.
fn pack_blocks<E>(
    tensor: &Packed,
    range: Range<usize>,
    rows: &Rows<'_>,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    progress: &dyn Progress,
) -> Result<u64, E> {
    let (size, row_bytes) = (tensor.dtype.bytes(), tensor.columns * tensor.dtype.bytes());
    let block_bytes = row_bytes * BLOCK_ROWS;
    let blocks = range.len().div_ceil(BLOCK_ROWS);
    let together = (BLOCK_BYTES / block_bytes).max(1);
    let mut buffer = vec![0_u8; together.min(blocks) * block_bytes];
    for first in (0..blocks).step_by(together) {
        let buffer = &mut buffer[..together.min(blocks - first) * block_bytes];
        buffer.par_chunks_exact_mut(block_bytes).enumerate().for_each_init(
            || vec![0_u8; row_bytes],
            |row, (i, out)| {
                let from = range.start + (first + i) * BLOCK_ROWS;
                out.fill(0);
                for lane in 0..BLOCK_ROWS.min(range.end - from) {
                    rows.write(from + lane, row);
                    if let Layout::Rows16Codes(bits) = tensor.layout {
                        arrange(bits, row);
                    }
                    for (column, element) in row.chunks_exact(size).enumerate() {
                        out[(column * BLOCK_ROWS + lane) * size..][..size].copy_from_slice(element);
                    }
                }
            },
        );
        sink(buffer)?;
        progress.advance(buffer.len() as u64);
    }
    Ok((blocks * block_bytes) as u64)
}

/// Arranges the words of a row of codes, whose groups are whole units, for kernels.
fn arrange(bits: u32, row: &mut [u8]) {
    let words = Unit::of(bits).map_or(1, |unit| unit.words);
    let mut unit = [0_u32; 8];
    let unit = &mut unit[..words];
    for bytes in row.chunks_exact_mut(4 * words) {
        for (word, bytes) in unit.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        native::arrange(bits, unit);
        for (word, bytes) in unit.iter().zip(bytes.as_chunks_mut::<4>().0) {
            *bytes = word.to_le_bytes();
        }
    }
}

fn zeros<E>(sink: &mut dyn FnMut(&[u8]) -> Result<(), E>, mut bytes: u64) -> Result<(), E> {
    const ZEROS: [u8; 256] = [0; 256];
    while bytes > 0 {
        let now = bytes.min(ZEROS.len() as u64);
        sink(&ZEROS[..now as usize])?;
        bytes -= now;
    }
    Ok(())
}
