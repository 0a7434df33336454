//! Rows of MLC's tensors: slices of the mapped shards, put in order where they are transposed.

use std::ops::Range;

use dwindle_quant::{decode_rows, read_floats, write_floats};
use dwindle_schemes::{FloatType, Grouped};

use super::index::{Index, Record};
use crate::checkpoint::import::Rows;

/// Where the rows of a tensor are.
#[derive(Debug)]
pub struct Tensor {
    /// Values of a row.
    pub columns: usize,
    /// Their form.
    pub content: Content,
}

/// The form of a tensor's rows.
#[derive(Debug)]
pub enum Content {
    /// Floats.
    Plain {
        /// The whole of which the tensor is a part.
        record: Record,
        /// Values of the whole before the part.
        start: usize,
        /// The type to hand out: the stored one, or f32.
        float: FloatType,
        /// The stored values are greater by one.
        minus_one: bool,
    },
    /// Codes and scales.
    Packed(PackedMatrix),
    /// Codes and scales, handed out as f32.
    Decoded(PackedMatrix),
}

/// A part of a packed matrix.
#[derive(Debug)]
pub struct PackedMatrix {
    codes: Record,
    scales: Record,
    grouped: Grouped,
    transposed: bool,
    first: usize,
    height: usize,
}

impl Content {
    /// The rows from `first` on of a matrix of `height` rows.
    pub fn packed(
        codes: &Record,
        scales: &Record,
        grouped: Grouped,
        transposed: bool,
        first: usize,
        height: usize,
    ) -> Content {
        let (codes, scales) = (codes.clone(), scales.clone());
        Content::Packed(PackedMatrix { codes, scales, grouped, transposed, first, height })
    }

    /// The same as floats.
    pub fn decoded(self) -> Content {
        match self {
            Content::Packed(matrix) => Content::Decoded(matrix),
            other => other,
        }
    }
}

impl Tensor {
    /// Replaces what is in `out` by some rows.
    pub fn read(&self, index: &Index, rows: Range<usize>, out: &mut Rows) -> Result<(), dwindle_quant::Error> {
        out.words.clear();
        out.floats.clear();
        match &self.content {
            Content::Plain { record, start, float, minus_one } => {
                let part = start + rows.start * self.columns..start + rows.end * self.columns;
                read_plain(index, record, part, *float, *minus_one, &mut out.floats)
            }
            Content::Packed(matrix) => {
                matrix.read(index, rows, self.columns, out);
                Ok(())
            }
            Content::Decoded(matrix) => {
                let values = rows.len() * self.columns;
                matrix.read(index, rows, self.columns, out);
                let mut scales = vec![0.0; out.floats.len() / matrix.grouped.scale.bytes()];
                read_floats(matrix.grouped.scale, &out.floats, &mut scales)?;
                let mut decoded = vec![0.0; values];
                decode_rows(&out.words, &scales, self.columns, &matrix.grouped, &mut decoded)?;
                out.words.clear();
                out.floats.resize(values * 4, 0);
                write_floats(FloatType::F32, &decoded, &mut out.floats)
            }
        }
    }
}

fn read_plain(
    index: &Index,
    record: &Record,
    part: Range<usize>,
    float: FloatType,
    minus_one: bool,
    out: &mut Vec<u8>,
) -> Result<(), dwindle_quant::Error> {
    let size = record.payload.bytes();
    let place = part.start * size..part.end * size;
    let bytes = &index.bytes(record)[place.clone()];
    let stored = record.payload.float().unwrap_or(FloatType::F32);
    if stored == float && !minus_one {
        out.extend_from_slice(bytes);
    } else {
        let mut values = vec![0.0; part.len()];
        read_floats(stored, bytes, &mut values)?;
        if minus_one {
            // Exact: f32 has room for all digits of a value of 16 bits and of one.
            values.iter_mut().for_each(|value| *value -= 1.0);
        }
        out.resize(values.len() * float.bytes(), 0);
        write_floats(float, &values, out)?;
    }
    index.release(record, place);
    Ok(())
}

impl PackedMatrix {
    /// Codes and scales of some rows of the part, which have `columns` values each.
    fn read(&self, index: &Index, rows: Range<usize>, columns: usize, out: &mut Rows) {
        let rows = self.first + rows.start..self.first + rows.end;
        let (words, groups) = (self.grouped.words(columns), self.grouped.groups(columns));
        out.words.resize(rows.len() * words, 0);
        self.each(index, &self.codes, rows.clone(), words, |at, bytes| {
            out.words[at] = u32::from_le_bytes(bytes);
        });
        let widened = self.scales.payload.float() != Some(self.grouped.scale);
        out.floats.resize(rows.len() * groups * self.grouped.scale.bytes(), 0);
        match (self.scales.payload.bytes(), widened) {
            (2, false) => self.each(index, &self.scales, rows, groups, |at, bytes: [u8; 2]| {
                out.floats[at * 2..][..2].copy_from_slice(&bytes);
            }),
            // A bf16 is the upper half of an f32.
            (2, true) => self.each(index, &self.scales, rows, groups, |at, bytes: [u8; 2]| {
                out.floats[at * 4 + 2..][..2].copy_from_slice(&bytes);
            }),
            _ => self.each(index, &self.scales, rows, groups, |at, bytes: [u8; 4]| {
                out.floats[at * 4..][..4].copy_from_slice(&bytes);
            }),
        }
    }

    /// Calls `take` with each element of `rows` that have `width` elements of `N` bytes, and its index in row-major order.
    fn each<const N: usize>(
        &self,
        index: &Index,
        record: &Record,
        rows: Range<usize>,
        width: usize,
        mut take: impl FnMut(usize, [u8; N]),
    ) {
        let bytes = index.bytes(record);
        if self.transposed {
            for column in 0..width {
                let run = &bytes[(column * self.height + rows.start) * N..][..rows.len() * N];
                for (row, element) in run.as_chunks().0.iter().enumerate() {
                    take(row * width + column, *element);
                }
            }
            return;
        }
        let place = rows.start * width * N..rows.end * width * N;
        for (at, element) in bytes[place.clone()].as_chunks().0.iter().enumerate() {
            take(at, *element);
        }
        // Rows of a transposed matrix lie between those of its other blocks, which would have to be read again.
        index.release(record, place);
    }
}
