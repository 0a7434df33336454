//! Values of the metadata, by key and wanted type.

use std::collections::BTreeMap;

use super::header::{Kind, Value};

/// The metadata of a file; reading says what is wrong with a value, and with which.
#[derive(Clone, Copy)]
pub struct Metadata<'f> {
    /// The whole file.
    pub file: &'f [u8],
    /// Where values are.
    pub values: &'f BTreeMap<String, Value>,
}

/// What is wrong with a value.
type Wrong = String;

impl<'f> Metadata<'f> {
    /// Whether there is such a key.
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Items of an array.
    pub fn count(&self, key: &str) -> Option<u64> {
        match self.values.get(key)? {
            Value::Array(_, count, _) => Some(*count),
            _ => None,
        }
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<Option<&'f str>, Wrong> {
        let bytes = match self.values.get(key) {
            None => return Ok(None),
            Some(Value::Text(bytes)) => &self.file[bytes.clone()],
            Some(_) => return Err(unexpected(key, "a text")),
        };
        std::str::from_utf8(bytes).map(Some).map_err(|_| format!("metadata key `{key}` is not UTF-8"))
    }

    /// A whole number, 0 or more, of any integer type.
    pub fn size(&self, key: &str) -> Result<Option<u64>, Wrong> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let number = match value {
            Value::Scalar(kind, bytes) => integer(*kind, &self.file[bytes.clone()]),
            _ => None,
        };
        let number = number.and_then(|number| u64::try_from(number).ok());
        number.map(Some).ok_or_else(|| unexpected(key, "a whole number"))
    }

    /// As [`size`](Self::size), or an array of equal numbers, one for each layer.
    pub fn size_of_all(&self, key: &str) -> Result<Option<u64>, Wrong> {
        let Some(Value::Array(..)) = self.values.get(key) else { return self.size(key) };
        let numbers = self.integers(key)?.unwrap_or_default();
        let first = numbers.first().and_then(|first| u64::try_from(*first).ok());
        match numbers.iter().all(|number| Some(*number) == numbers.first().copied()) {
            true => first.map(Some).ok_or_else(|| unexpected(key, "a whole number")),
            false => Err(format!("metadata key `{key}` differs from layer to layer, which is not understood")),
        }
    }

    /// Whether the value is false, 0, or empty.
    pub fn is_nothing(&self, key: &str) -> bool {
        match self.values.get(key) {
            None => true,
            Some(Value::Scalar(Kind::Bool, bytes)) => self.file[bytes.start] == 0,
            Some(Value::Scalar(kind, bytes)) => {
                let bytes = &self.file[bytes.clone()];
                integer(*kind, bytes) == Some(0) || float(*kind, bytes) == Some(0.0)
            }
            Some(Value::Text(bytes)) => bytes.is_empty(),
            Some(Value::Array(_, count, _)) => *count == 0,
        }
    }

    /// A number, written as a floating-point or a whole one.
    pub fn float(&self, key: &str) -> Result<Option<f64>, Wrong> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let number = match value {
            Value::Scalar(kind, bytes) => {
                let bytes = &self.file[bytes.clone()];
                float(*kind, bytes).or_else(|| integer(*kind, bytes).map(|number| number as f64))
            }
            _ => None,
        };
        number.map(Some).ok_or_else(|| unexpected(key, "a finite number"))
    }

    /// True or false.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, Wrong> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Scalar(Kind::Bool, bytes)) => match self.file[bytes.start] {
                byte @ (0 | 1) => Ok(Some(byte == 1)),
                _ => Err(unexpected(key, "true or false")),
            },
            Some(_) => Err(unexpected(key, "true or false")),
        }
    }

    /// An array of texts.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&'f str>>, Wrong> {
        let (count, mut rest) = match self.values.get(key) {
            None => return Ok(None),
            Some(Value::Array(Kind::String, count, bytes)) => (*count, &self.file[bytes.clone()]),
            Some(_) => return Err(unexpected(key, "an array of texts")),
        };
        let mut texts = Vec::new();
        for index in 0..count {
            // Lengths were checked when the header was read.
            let (length, after) = rest.split_first_chunk().expect("the header was walked through");
            let (text, after) = after.split_at(u64::from_le_bytes(*length) as usize);
            let text =
                std::str::from_utf8(text).map_err(|_| format!("metadata key `{key}`: text {index} is not UTF-8"));
            texts.push(text?);
            rest = after;
        }
        Ok(Some(texts))
    }

    /// An array of floating-point numbers.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, Wrong> {
        let number = |kind, bytes: &[u8]| float(kind, bytes).map(|number| number as f32);
        self.numbers(key, number, "an array of finite numbers")
    }

    /// An array of whole numbers.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>, Wrong> {
        let number = |kind, bytes: &[u8]| integer(kind, bytes).and_then(|number| i64::try_from(number).ok());
        self.numbers(key, number, "an array of whole numbers")
    }

    /// An array of truth values; `None` also where the key is something else than an array.
    pub fn flags(&self, key: &str) -> Option<Vec<bool>> {
        match self.values.get(key) {
            Some(Value::Array(Kind::Bool, _, bytes)) => {
                Some(self.file[bytes.clone()].iter().map(|byte| *byte != 0).collect())
            }
            _ => None,
        }
    }

    fn numbers<T>(
        &self,
        key: &str,
        read: impl Fn(Kind, &[u8]) -> Option<T>,
        what: &str,
    ) -> Result<Option<Vec<T>>, Wrong> {
        let (kind, bytes) = match self.values.get(key) {
            None => return Ok(None),
            Some(Value::Array(kind, _, bytes)) => (*kind, &self.file[bytes.clone()]),
            Some(_) => return Err(unexpected(key, what)),
        };
        let size = kind.bytes().ok_or_else(|| unexpected(key, what))?;
        let numbers: Option<Vec<T>> = bytes.chunks_exact(size).map(|bytes| read(kind, bytes)).collect();
        numbers.map(Some).ok_or_else(|| unexpected(key, what))
    }
}

fn unexpected(key: &str, what: &str) -> Wrong {
    format!("metadata key `{key}` is not {what}")
}

fn integer(kind: Kind, bytes: &[u8]) -> Option<i128> {
    let unsigned = bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    Some(match kind {
        Kind::U8 | Kind::U16 | Kind::U32 | Kind::U64 => i128::from(unsigned),
        Kind::I8 => i128::from(unsigned as i8),
        Kind::I16 => i128::from(unsigned as i16),
        Kind::I32 => i128::from(unsigned as i32),
        Kind::I64 => i128::from(unsigned as i64),
        _ => return None,
    })
}

fn float(kind: Kind, bytes: &[u8]) -> Option<f64> {
    let number = match kind {
        // The shortest decimal that is this f32: 1e-6 shall not become 9.999999974752427e-7.
        Kind::F32 => f32::from_le_bytes(bytes.try_into().ok()?).to_string().parse().ok()?,
        Kind::F64 => f64::from_le_bytes(bytes.try_into().ok()?),
        _ => return None,
    };
    f64::is_finite(number).then_some(number)
}
