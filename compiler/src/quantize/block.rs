//! One block of rows of one tensor: read, encoded, measured and written.

use std::ops::Range;

use dwindle_quant::{Error as QuantError, ErrorStats, Method, decode_rows, encode_rows, read_floats, write_floats};
use dwindle_schemes::{FloatType, Format, Grouped, Role};

use super::rows;
use crate::checkpoint::safetensors::{TensorView, TensorWriter};
use crate::checkpoint::{ModelDir, TensorInfo};
use crate::error::{Error, Result};

/// A tensor of the input, and how it is to be stored.
#[derive(Debug)]
pub(super) struct Tensor<'a> {
    /// Logical name.
    pub name: &'a str,
    /// As it is in the input.
    pub view: TensorView<'a>,
    /// As it will be.
    pub info: &'a TensorInfo,
    float: FloatType,
    rows: usize,
    columns: usize,
}

/// Buffers that a worker keeps from block to block.
#[derive(Default)]
pub(super) struct Scratch {
    values: Vec<f32>,
    decoded: Vec<f32>,
    words: Vec<u32>,
    scales: Vec<f32>,
    bytes: Vec<u8>,
}

impl<'a> Tensor<'a> {
    pub fn new(model: &'a ModelDir, name: &'a str, info: &'a TensorInfo) -> Result<Self> {
        let view = model.tensor(name).expect("an open model directory has the tensors that it names");
        let (rows, columns) = rows(&info.shape, info.format);
        Ok(Tensor { name, view, info, float: view.float()?, rows, columns })
    }

    /// Ranges of rows with about `values` values each.
    pub fn blocks(&self, values: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let step = (values / self.columns.max(1)).max(1);
        let rows = self.rows;
        (0..rows).step_by(step).map(move |start| start..rows.min(start + step))
    }

    /// The input's bytes of some rows.
    pub fn bytes(&self, rows: Range<usize>) -> &'a [u8] {
        let row = self.columns * self.float.bytes();
        &self.view.bytes[rows.start * row..rows.end * row]
    }

    /// Stores some rows and measures the error; that of vectors, which are stored as f32, is not measured.
    pub fn encode(
        &self,
        rows: Range<usize>,
        method: Method,
        writer: &TensorWriter,
        scratch: &mut Scratch,
    ) -> Result<ErrorStats> {
        let count = rows.len() * self.columns;
        scratch.values.resize(count, 0.0);
        read_floats(self.float, self.bytes(rows.clone()), &mut scratch.values)
            .map_err(|error| self.error(error, rows.start))?;
        let stored = match self.info.format {
            Format::Plain(float) => self.store_plain(float, rows.start, writer, scratch),
            Format::Grouped(grouped) => self.store_grouped(&grouped, method, rows, writer, scratch),
        };
        stored?;
        if self.info.role == Role::Vector {
            return Ok(ErrorStats::default());
        }
        Ok(ErrorStats::of(&scratch.values, &scratch.decoded))
    }

    fn store_plain(&self, float: FloatType, start: usize, writer: &TensorWriter, scratch: &mut Scratch) -> Result<()> {
        let Scratch { values, decoded, bytes, .. } = scratch;
        let mut store = || -> Result<(), QuantError> {
            bytes.resize(values.len() * float.bytes(), 0);
            write_floats(float, values, bytes)?;
            decoded.resize(values.len(), 0.0);
            read_floats(float, bytes, decoded)
        };
        store().map_err(|error| self.error(error, start))?;
        writer.write(self.name, (start * float.bytes()) as u64, bytes)
    }

    fn store_grouped(
        &self,
        grouped: &Grouped,
        method: Method,
        rows: Range<usize>,
        writer: &TensorWriter,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Scratch { values, decoded, words, scales, bytes } = scratch;
        let [row_words, row_scales] = [grouped.words(self.columns), grouped.scales(self.columns)];
        let mut store = || -> Result<(), QuantError> {
            words.resize(rows.len() * row_words, 0);
            scales.resize(rows.len() * row_scales, 0.0);
            encode_rows(values, self.columns, grouped, method, words, scales)?;
            decoded.resize(values.len(), 0.0);
            decode_rows(words, scales, self.columns, grouped, decoded)?;
            bytes.resize(scales.len() * grouped.scale.bytes(), 0);
            write_floats(grouped.scale, scales, bytes)
        };
        store().map_err(|error| self.error(error, rows.start))?;
        let scale_offset = rows.start * row_scales * grouped.scale.bytes();
        writer.write(&format!("{}.scales", self.name), scale_offset as u64, bytes)?;
        words.iter_mut().for_each(|word| *word = word.to_le());
        writer.write(&format!("{}.codes", self.name), (rows.start * row_words * 4) as u64, bytemuck::cast_slice(words))
    }

    /// The error of a block that begins at row `start`, as one of the whole tensor.
    fn error(&self, error: QuantError, start: usize) -> Error {
        match (&error, self.info.format) {
            (QuantError::NotFinite { .. }, _) => self.survey(FloatType::F32),
            (QuantError::Unstorable { .. }, Format::Plain(float)) => self.survey(float),
            _ => Error::Quantize { tensor: self.name.to_owned(), source: error.below(start) },
        }
    }

    /// Counts the values of the whole tensor that are not finite or, if all are, too large for `float`.
    fn survey(&self, float: FloatType) -> Error {
        let mut values = Vec::new();
        let (mut not_finite, mut count, mut largest) = (0, 0, 0.0_f32);
        for rows in self.blocks(super::BLOCK_VALUES) {
            values.resize(rows.len() * self.columns, 0.0);
            if let Err(source) = read_floats(self.float, self.bytes(rows), &mut values) {
                return Error::Quantize { tensor: self.name.to_owned(), source };
            }
            for value in &values {
                if !value.is_finite() {
                    not_finite += 1;
                } else if dwindle_quant::round(float, *value).is_infinite() {
                    count += 1;
                    largest = largest.max(value.abs());
                }
            }
        }
        let tensor = self.name.to_owned();
        if not_finite > 0 {
            return Error::NotFinite { tensor, count: not_finite };
        }
        Error::Overflow { tensor, count, largest, float }
    }
}
