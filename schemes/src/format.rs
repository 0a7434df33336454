//! How the values of one matrix are stored: the vocabulary shared by quantizer, compiler and tests.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A floating-point type of stored values or scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FloatType {
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    Bf16,
    /// IEEE 754 binary32.
    F32,
}

impl FloatType {
    /// Bytes of one value.
    pub const fn bytes(self) -> usize {
        match self {
            FloatType::F16 | FloatType::Bf16 => 2,
            FloatType::F32 => 4,
        }
    }

    /// The name used in texts: `f16`, `bf16`, `f32`.
    pub const fn name(self) -> &'static str {
        match self {
            FloatType::F16 => "f16",
            FloatType::Bf16 => "bf16",
            FloatType::F32 => "f32",
        }
    }
}

impl fmt::Display for FloatType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Symmetric group quantization along the rows of a matrix `[rows, k]`.
///
/// A row is padded to a multiple of `group`; each group of consecutive values shares one scale.
/// `value = (code - zero) * scale` with `zero = 2^(bits-1) - 1`. Codes are packed into `u32` words, the lowest
/// bits first, [`codes_per_word`](Self::codes_per_word) in each (3-bit words leave the two highest bits 0), and a
/// group always fills whole words. Padding holds code 0, which does not decode to 0: readers bound `k`.
/// The layout is MLC LLM's (`python/mlc_llm/quantization/group_quantization.py`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Grouped {
    /// Bits of a code: 3, 4 or 8.
    pub bits: u32,
    /// Values that share a scale; a multiple of `codes_per_word`.
    pub group: usize,
    /// Type of the stored scales.
    pub scale: FloatType,
}

impl Grouped {
    /// Codes in a `u32` word: 10, 8 or 4.
    pub const fn codes_per_word(&self) -> usize {
        (32 / self.bits) as usize
    }

    /// The code that stands for 0, which is also the largest magnitude of a code after subtracting it.
    pub const fn zero(&self) -> u32 {
        (1 << (self.bits - 1)) - 1
    }

    /// The greatest code that fits.
    pub const fn max_code(&self) -> u32 {
        (1 << self.bits) - 1
    }

    /// Groups in a row of `k` values.
    pub const fn groups(&self, k: usize) -> usize {
        k.div_ceil(self.group)
    }

    /// Words of a group.
    pub const fn words_per_group(&self) -> usize {
        self.group / self.codes_per_word()
    }

    /// Words of a row of `k` values.
    pub const fn words(&self, k: usize) -> usize {
        self.groups(k) * self.words_per_group()
    }
}

/// How the values of one matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// One tensor of floats, as it is.
    Plain(FloatType),
    /// Codes and scales.
    Grouped(Grouped),
}

impl Format {
    /// Bytes that `rows` rows of `k` values take, without alignment between tensors.
    pub const fn bytes(&self, rows: usize, k: usize) -> usize {
        match self {
            Format::Plain(float) => rows * k * float.bytes(),
            Format::Grouped(g) => rows * (g.words(k) * 4 + g.groups(k) * g.scale.bytes()),
        }
    }

    /// Stored bits for each of the `k` values of a row.
    pub fn bits_per_weight(&self, k: usize) -> f64 {
        self.bytes(1, k) as f64 * 8.0 / k as f64
    }
}

/// `f32`, `f16`, or `q4g32f16`: bits, group and type of the scales.
impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Format::Plain(float) => float.fmt(f),
            Format::Grouped(g) => write!(f, "q{}g{}{}", g.bits, g.group, g.scale),
        }
    }
}

/// What was not a [`Format`].
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no storage format: expected f32, f16, bf16 or one like q4g32f16 (3, 4 or 8 bits; whole words a group)"
)]
pub struct ParseFormatError(String);

impl FromStr for Format {
    type Err = ParseFormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseFormatError(text.to_owned()))
    }
}

fn float(text: &str) -> Option<FloatType> {
    [FloatType::F16, FloatType::Bf16, FloatType::F32].into_iter().find(|f| f.name() == text)
}

fn parse(text: &str) -> Option<Format> {
    if let Some(float) = float(text) {
        return Some(Format::Plain(float));
    }
    let (bits, rest) = text.strip_prefix('q')?.split_once('g')?;
    let letters = rest.find(|c: char| !c.is_ascii_digit())?;
    let grouped =
        Grouped { bits: bits.parse().ok()?, group: rest[..letters].parse().ok()?, scale: float(&rest[letters..])? };
    let valid = matches!(grouped.bits, 3 | 4 | 8)
        && grouped.group > 0
        && grouped.group <= 4096
        && grouped.group.is_multiple_of(grouped.codes_per_word());
    valid.then_some(Format::Grouped(grouped))
}

impl Serialize for Format {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in ["f32", "f16", "bf16", "q4g32f16", "q4g32f32", "q3g40f16", "q8g32f16"] {
            assert_eq!(text.parse::<Format>().unwrap().to_string(), text);
        }
        for text in ["", "q", "q5g32f16", "q4g30f16", "q4g0f16", "q3g32f16", "q4g32", "f64", "q4g32f16x"] {
            assert!(text.parse::<Format>().is_err(), "{text}");
        }
    }

    /// Gemma-2B's embedding, and rows whose last group is padded.
    #[test]
    fn sizes() {
        let q4: Format = "q4g32f16".parse().unwrap();
        let q3: Format = "q3g40f16".parse().unwrap();
        assert_eq!(q4.bytes(256_000, 2048), 262_144_000 + 256_000 * 64 * 2);
        assert!((q3.bits_per_weight(896) - 3.696).abs() < 1e-3);
        assert!((q4.bits_per_weight(4304) - 4.517).abs() < 1e-3);
    }
}
