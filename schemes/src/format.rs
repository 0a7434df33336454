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

/// Which code stands for 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Zero {
    /// `2^(bits-1) - 1`, so that as many codes are below it as above, but for the highest.
    #[default]
    Centered,
    /// This code in all groups; texts write the centre as [`Zero::Centered`].
    Fixed(u32),
    /// Each group's own, a number of the scales' type that is stored after the group's scale.
    Stored,
}

impl Zero {
    /// `code` in all groups of codes of `bits` bits, which has one name if it is the centre.
    pub const fn of(bits: u32, code: u32) -> Zero {
        if code == centre(bits) { Zero::Centered } else { Zero::Fixed(code) }
    }
}

/// Group quantization along the rows of a matrix `[rows, k]`.
///
/// A row is padded to a multiple of `group`; each group of consecutive values shares one scale.
/// `value = (code - zero) * scale`. Codes are packed into `u32` words, the lowest
/// bits first, [`codes_per_word`](Self::codes_per_word) in each (3-bit words leave the two highest bits 0), and a
/// group always fills whole words. Padding holds code 0, which does not decode to 0: readers bound `k`.
/// The scales of a row are one number a group, or with [`Zero::Stored`] two: scale, zero, scale, zero, ….
/// With a centred zero the layout is MLC LLM's (`python/mlc_llm/quantization/group_quantization.py`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Grouped {
    /// Bits of a code: 3, 4 or 8.
    pub bits: u32,
    /// Values that share a scale; a multiple of `codes_per_word`.
    pub group: usize,
    /// Type of the stored scales, and of zeros.
    pub scale: FloatType,
    /// The code that stands for 0.
    pub zero: Zero,
}

impl Grouped {
    /// Codes in a `u32` word: 10, 8 or 4.
    pub const fn codes_per_word(&self) -> usize {
        (32 / self.bits) as usize
    }

    /// The code that stands for 0 in all groups; `None` where each stores its own.
    pub const fn constant_zero(&self) -> Option<u32> {
        match self.zero {
            Zero::Centered => Some(centre(self.bits)),
            Zero::Fixed(code) => Some(code),
            Zero::Stored => None,
        }
    }

    /// Whether zeros lie between the scales.
    pub const fn stores_zeros(&self) -> bool {
        matches!(self.zero, Zero::Stored)
    }

    /// The greatest code that fits.
    pub const fn max_code(&self) -> u32 {
        (1 << self.bits) - 1
    }

    /// Groups in a row of `k` values.
    pub const fn groups(&self, k: usize) -> usize {
        k.div_ceil(self.group)
    }

    /// Numbers that a row of `k` values has in the tensor of scales: zeros, where stored, included.
    pub const fn scales(&self, k: usize) -> usize {
        if self.stores_zeros() { 2 * self.groups(k) } else { self.groups(k) }
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

const fn centre(bits: u32) -> u32 {
    (1 << (bits - 1)) - 1
}

/// How the values of one matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// One tensor of floats, as it is.
    Plain(FloatType),
    /// Codes and scales, and zeros between the scales where groups have their own.
    Grouped(Grouped),
}

impl Format {
    /// Bytes that `rows` rows of `k` values take, without alignment between tensors.
    pub const fn bytes(&self, rows: usize, k: usize) -> usize {
        match self {
            Format::Plain(float) => rows * k * float.bytes(),
            Format::Grouped(g) => rows * (g.words(k) * 4 + g.scales(k) * g.scale.bytes()),
        }
    }

    /// Stored bits for each of the `k` values of a row.
    pub fn bits_per_weight(&self, k: usize) -> f64 {
        self.bytes(1, k) as f64 * 8.0 / k as f64
    }
}

/// `f32`, `f16`, or `q4g32f16`: bits, group and type of the scales; then `z8` where 8 is the code of 0, `z` where zeros
/// are stored.
impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Format::Plain(float) => float.fmt(f),
            Format::Grouped(g) => {
                write!(f, "q{}g{}{}", g.bits, g.group, g.scale)?;
                match g.zero {
                    Zero::Centered => Ok(()),
                    Zero::Fixed(code) => write!(f, "z{code}"),
                    Zero::Stored => f.write_str("z"),
                }
            }
        }
    }
}

/// What was not a [`Format`].
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no storage format: expected f32, f16, bf16 or one like q4g32f16 or q4g128f16z (3, 4 or 8 bits; whole words a group; z for stored zeros, z8 for 8 as zero)"
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
    let (group, rest) = rest.split_at(letters);
    let (scale, zero) = rest.split_once('z').map_or((rest, None), |(scale, zero)| (scale, Some(zero)));
    let bits = bits.parse().ok()?;
    if !matches!(bits, 3 | 4 | 8) {
        return None;
    }
    let zero = match zero {
        None => Zero::Centered,
        Some("") => Zero::Stored,
        Some(code) => match code.parse().ok()? {
            code if code < 1 << bits => Zero::of(bits, code),
            _ => return None,
        },
    };
    let grouped = Grouped { bits, group: group.parse().ok()?, scale: float(scale)?, zero };
    let valid = grouped.group.is_multiple_of(grouped.codes_per_word()) && grouped.group > 0 && grouped.group <= 4096;
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
        let plain_and_centred = ["f32", "f16", "bf16", "q4g32f16", "q4g32f32", "q3g40f16", "q8g32f16"];
        let other_zeros = ["q4g32f16z8", "q4g32f16z0", "q8g32f16z128", "q4g128f16z", "q3g40f32z"];
        for text in plain_and_centred.into_iter().chain(other_zeros) {
            assert_eq!(text.parse::<Format>().unwrap().to_string(), text);
        }
        for text in ["", "q", "q5g32f16", "q4g30f16", "q4g0f16", "q3g32f16", "q4g32", "f64", "q4g32f16x", "q99g32f16"] {
            assert!(text.parse::<Format>().is_err(), "{text}");
        }
        for text in ["q4g32f16z16", "q4g32f16z-1", "q4g32f16zz", "q4g32z8", "f16z", "q4z8g32f16", "q4g32f16z8z"] {
            assert!(text.parse::<Format>().is_err(), "{text}");
        }
        let centred: Format = "q4g32f16z7".parse().unwrap();
        assert_eq!(centred.to_string(), "q4g32f16", "one text for each format");
    }

    /// Gemma-2B's embedding, and rows whose last group is padded.
    #[test]
    fn sizes() {
        let q4: Format = "q4g32f16".parse().unwrap();
        let q3: Format = "q3g40f16".parse().unwrap();
        assert_eq!(q4.bytes(256_000, 2048), 262_144_000 + 256_000 * 64 * 2);
        assert!((q3.bits_per_weight(896) - 3.696).abs() < 1e-3);
        assert!((q4.bits_per_weight(4304) - 4.517).abs() < 1e-3);
        let zeros: Format = "q4g128f16z".parse().unwrap();
        assert_eq!(zeros.bits_per_weight(4096), 4.25);
    }
}
