//! Reading: a mapped file behind a checked header.

use std::path::{Path, PathBuf};

use dwindle_schemes::FloatType;

use super::element::Element;
use super::header::Header;
use super::sniff::sniff;
use crate::checkpoint::mapping::Mapping;
use crate::error::{Error, Result};

/// A safetensors file, mapped into memory.
#[derive(Debug)]
pub struct SafeTensors {
    path: PathBuf,
    mapping: Mapping,
    header: Header,
}

/// One tensor of a file.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// Name in the file.
    pub name: &'a str,
    /// Element type.
    pub dtype: Element,
    /// Element type as the file spells it, also where it is [`Element::Unknown`].
    pub dtype_name: &'a str,
    /// Dimensions, outermost first; row-major.
    pub shape: &'a [usize],
    /// Little-endian elements; not aligned to anything.
    pub bytes: &'a [u8],
}

impl SafeTensors {
    /// Maps the file and checks its header.
    ///
    /// # Errors
    /// The file cannot be read, is of another type, or its header does not describe it.
    pub fn open(path: &Path) -> Result<Self> {
        let mapping = Mapping::open(path)?;
        let header = Header::parse(&mapping).map_err(|reason| match sniff(&mapping) {
            Some((looks_like, hint)) => Error::WrongFileType { path: path.to_owned(), looks_like, hint },
            None => Error::Header { path: path.to_owned(), reason },
        })?;
        Ok(SafeTensors { path: path.to_owned(), mapping, header })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (name, entry) = self.header.get(name)?;
        Some(TensorView {
            name,
            dtype: entry.element,
            dtype_name: &entry.dtype,
            shape: &entry.shape,
            bytes: &self.mapping[entry.bytes.clone()],
        })
    }

    /// All names, ordered.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.header.iter().map(|(name, _)| name)
    }

    /// All tensors, ordered by name.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.names().filter_map(|name| self.tensor(name))
    }

    /// The whole file, header included.
    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Lets the kernel drop the pages of `bytes`, which must be a part of a view of this file.
    pub fn release(&self, bytes: &[u8]) {
        let start = bytes.as_ptr().addr().wrapping_sub(self.mapping.as_ptr().addr());
        if start.checked_add(bytes.len()).is_some_and(|end| end <= self.mapping.len()) {
            self.mapping.release(start..start + bytes.len());
        }
    }
}

impl<'a> TensorView<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The float type of a weight.
    ///
    /// # Errors
    /// The elements are no floats, or of a type that weights do not have here (`F64`, `F8_E4M3`).
    pub fn float(&self) -> Result<FloatType> {
        self.dtype.float().ok_or_else(|| Error::UnsupportedDtype {
            tensor: self.name.to_owned(),
            dtype: self.dtype_name.to_owned(),
            expected: "F32, F16 or BF16; save the checkpoint in one of them",
        })
    }

    /// Converts `values.len()` elements from index `start` on to f32, which is exact for all three float types.
    ///
    /// # Errors
    /// As [`float`](Self::float).
    ///
    /// # Panics
    /// The range goes beyond the tensor.
    pub fn read_f32(&self, start: usize, values: &mut [f32]) -> Result<()> {
        let float = self.float()?;
        let size = float.bytes();
        let bytes = &self.bytes[start * size..][..values.len() * size];
        dwindle_quant::read_floats(float, bytes, values).expect("as many bytes as the values take");
        Ok(())
    }

    /// All elements as f32.
    ///
    /// # Errors
    /// As [`float`](Self::float).
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        self.float()?;
        let mut values = vec![0.0; self.len()];
        self.read_f32(0, &mut values)?;
        Ok(values)
    }
}
