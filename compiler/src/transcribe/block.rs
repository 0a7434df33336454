//! One block of rows of one tensor: read, encoded, measured and written.

use std::collections::BTreeMap;
use std::ops::Range;

use dwindle_quant::{Error as QuantError, ErrorStats, Method, decode_rows, encode_rows, read_floats, write_floats};
use dwindle_schemes::{FloatType, Format, Grouped, Role};

use super::Mode;
use crate::checkpoint::import::{Packed, Rows};
use crate::checkpoint::safetensors::{TensorView, TensorWriter};
use crate::checkpoint::{TensorInfo, matrix};
use crate::error::{Error, Result};

/// Values of a block, unless a single row has more: 1 MiB as f32.
const BLOCK_VALUES: usize = 1 << 18;

/// Memory of a step besides the buffers of blocks: the program itself, descriptions, threads.
const BASE_MEMORY: u64 = 24 << 20;

/// A tensor in a mapped file, and the name that it gets.
#[derive(Clone, Debug)]
pub(crate) struct Given<'a> {
    /// Name in transformers 4.
    pub name: String,
    /// The tensor under its own.
    pub view: TensorView<'a>,
}

/// Where the rows of a tensor come from.
#[derive(Clone, Copy)]
pub(super) enum Origin<'a> {
    /// All bytes, in a mapped file.
    Mapped(&'a [u8]),
    /// A source that hands out rows.
    Packed(&'a dyn Packed),
}

/// A tensor of the source, and how it is to be stored.
#[derive(Clone, Copy)]
pub(super) struct Tensor<'a> {
    /// Logical name.
    pub name: &'a str,
    offered: Format,
    info: &'a TensorInfo,
    origin: Origin<'a>,
    rows: usize,
    columns: usize,
}

/// Buffers that a worker keeps from block to block.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    given: Rows,
    values: Vec<f32>,
    decoded: Vec<f32>,
    words: Vec<u32>,
    scales: Vec<f32>,
    bytes: Vec<u8>,
}

/// Rows of a block of a matrix with so many columns.
fn rows_at_a_time(columns: usize) -> usize {
    (BLOCK_VALUES / columns.max(1)).max(1)
}

/// Bytes of one row of a matrix in some format.
fn row_bytes(format: Format, columns: usize) -> usize {
    match format {
        Format::Plain(float) => columns * float.bytes(),
        Format::Grouped(grouped) => grouped.words(columns) * 4 + grouped.scales(columns) * grouped.scale.bytes(),
    }
}

/// The most memory that a transcription takes on all threads; `offered` tells the formats of tensors that are read into memory
/// instead of being used where they are mapped.
pub(crate) fn peak_memory(tensors: &BTreeMap<String, TensorInfo>, offered: &BTreeMap<&str, Format>, mode: Mode) -> u64 {
    let of_block = |(name, info): (&String, &TensorInfo)| {
        let (rows, columns) = matrix(&info.shape);
        let rows = rows.min(rows_at_a_time(columns)) as u64;
        let read = offered.get(name.as_str()).map_or(0, |format| row_bytes(*format, columns));
        let kept = mode == Mode::Keep && offered.get(name.as_str()).is_none_or(|format| *format == info.format);
        // Values and decoded values as f32, scales as f32, and what is written.
        let scales = match info.format {
            Format::Plain(_) => 0,
            Format::Grouped(grouped) => grouped.scales(columns) * 4,
        };
        let encoded = if kept { 0 } else { 8 * columns + scales + row_bytes(info.format, columns) };
        rows * (read + encoded) as u64
    };
    let largest = tensors.iter().map(of_block).max().unwrap_or(0);
    BASE_MEMORY + largest * rayon::current_num_threads() as u64
}

impl<'a> Tensor<'a> {
    pub fn mapped(given: &'a Given<'a>, info: &'a TensorInfo) -> Result<Self> {
        let offered = Format::Plain(given.view.float()?);
        Ok(Self::new(&given.name, offered, info, Origin::Mapped(given.view.bytes)))
    }

    pub fn packed(name: &'a str, info: &'a TensorInfo, source: &'a dyn Packed) -> Self {
        Self::new(name, source.offers()[name].format, info, Origin::Packed(source))
    }

    fn new(name: &'a str, offered: Format, info: &'a TensorInfo, origin: Origin<'a>) -> Self {
        let (rows, columns) = matrix(&info.shape);
        Tensor { name, offered, info, origin, rows, columns }
    }

    /// Ranges of rows of about [`BLOCK_VALUES`] values each.
    pub fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, step) = (self.rows, rows_at_a_time(self.columns));
        (0..rows).step_by(step).map(move |start| start..rows.min(start + step))
    }

    /// Bytes of some rows in the source.
    pub fn bytes(&self, rows: &Range<usize>) -> u64 {
        (rows.len() * row_bytes(self.offered, self.columns)) as u64
    }

    /// Bytes of all rows in the source.
    pub fn all_bytes(&self) -> u64 {
        self.bytes(&(0..self.rows))
    }

    /// Where some rows are mapped.
    pub fn mapped_bytes(&self, rows: &Range<usize>) -> &'a [u8] {
        let row = row_bytes(self.offered, self.columns);
        match self.origin {
            Origin::Mapped(bytes) => &bytes[rows.start * row..rows.end * row],
            Origin::Packed(_) => &[],
        }
    }

    /// Stores some rows and measures the error; that of vectors, which are stored as f32, is not measured.
    pub fn transcribe(
        &self,
        rows: &Range<usize>,
        mode: Mode,
        writer: &TensorWriter,
        scratch: &mut Scratch,
    ) -> Result<ErrorStats> {
        let mut given = std::mem::take(&mut scratch.given);
        let result = self.read(rows, &mut given).and_then(|()| match mode {
            Mode::Keep if self.offered == self.info.format => self.copy(rows, &mut given, writer),
            _ => self.encode(rows, mode, &given, writer, scratch),
        });
        scratch.given = given;
        result
    }

    /// Reads rows that are not mapped.
    fn read(&self, rows: &Range<usize>, given: &mut Rows) -> Result<()> {
        let Origin::Packed(source) = self.origin else { return Ok(()) };
        given.clear();
        source.read(self.name, rows.clone(), given)?;
        let bytes = (given.words.len() * 4 + given.floats.len()) as u64;
        assert_eq!(bytes, self.bytes(rows), "a source fills the rows that it is asked for");
        Ok(())
    }

    /// The bytes of the rows of a plain tensor.
    fn floats<'b>(&self, rows: &Range<usize>, given: &'b Rows) -> &'b [u8]
    where
        'a: 'b,
    {
        match self.origin {
            Origin::Mapped(_) => self.mapped_bytes(rows),
            Origin::Packed(_) => &given.floats,
        }
    }

    fn copy(&self, rows: &Range<usize>, given: &mut Rows, writer: &TensorWriter) -> Result<ErrorStats> {
        match self.info.format {
            Format::Plain(_) => {
                let offset = rows.start * row_bytes(self.offered, self.columns);
                writer.write(self.name, offset as u64, self.floats(rows, given))?;
            }
            Format::Grouped(grouped) => {
                self.write_grouped(&grouped, rows.start, &mut given.words, &given.floats, writer)?
            }
        }
        Ok(given.stats)
    }

    fn encode(
        &self,
        rows: &Range<usize>,
        mode: Mode,
        given: &Rows,
        writer: &TensorWriter,
        scratch: &mut Scratch,
    ) -> Result<ErrorStats> {
        let float = self.float();
        scratch.values.resize(rows.len() * self.columns, 0.0);
        read_floats(float, self.floats(rows, given), &mut scratch.values)
            .map_err(|error| self.error(error, rows.start))?;
        match (self.info.format, mode) {
            (Format::Plain(float), _) => self.store_plain(float, rows.start, writer, scratch)?,
            (Format::Grouped(grouped), Mode::Encode(method)) => {
                self.store_grouped(&grouped, method, rows, writer, scratch)?;
            }
            (Format::Grouped(_), Mode::Keep) => unreachable!("floats become groups only where a method encodes them"),
        }
        if self.info.role == Role::Vector {
            return Ok(ErrorStats::default());
        }
        Ok(ErrorStats::of(&scratch.values, &scratch.decoded))
    }

    /// The type of the floats that are encoded.
    fn float(&self) -> FloatType {
        match self.offered {
            Format::Plain(float) => float,
            Format::Grouped(_) => unreachable!("codes are never encoded a second time"),
        }
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
        writer.write(self.name, (start * self.columns * float.bytes()) as u64, bytes)
    }

    fn store_grouped(
        &self,
        grouped: &Grouped,
        method: Method,
        rows: &Range<usize>,
        writer: &TensorWriter,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Scratch { values, decoded, words, scales, bytes, .. } = scratch;
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
        self.write_grouped(grouped, rows.start, words, bytes, writer)
    }

    fn write_grouped(
        &self,
        grouped: &Grouped,
        start: usize,
        words: &mut [u32],
        scales: &[u8],
        writer: &TensorWriter,
    ) -> Result<()> {
        let [row_words, row_scales] = [grouped.words(self.columns), grouped.scales(self.columns)];
        let scale_offset = start * row_scales * grouped.scale.bytes();
        writer.write(&format!("{}.scales", self.name), scale_offset as u64, scales)?;
        words.iter_mut().for_each(|word| *word = word.to_le());
        writer.write(&format!("{}.codes", self.name), (start * row_words * 4) as u64, bytemuck::cast_slice(words))
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
        let (mut given, mut values) = (Rows::default(), Vec::new());
        let (mut not_finite, mut count, mut largest) = (0, 0, 0.0_f32);
        for rows in self.blocks() {
            values.resize(rows.len() * self.columns, 0.0);
            if let Err(error) = self.read(&rows, &mut given) {
                return error;
            }
            if let Err(source) = read_floats(self.float(), self.floats(&rows, &given), &mut values) {
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
