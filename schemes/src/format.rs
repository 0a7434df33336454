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
    /// No code: each group stores its least value, `minimum`, after its scale, in the scales' type, and
    /// `value = code * scale + minimum`.
    Minimum,
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
/// `value = (code - zero) * scale`, or `code * scale + minimum` with [`Zero::Minimum`].
///
/// Codes are packed into `u32` words by whole *units* of [`unit_codes`](Self::unit_codes) codes and
/// [`unit_words`](Self::unit_words) words; a group is whole units. For 3, 4 and 8 bits a unit is one word, the lowest
/// bits first (3-bit words leave the two highest bits 0). A unit of 5 or 6 bits begins with the codes' lower four bits,
/// laid out like 4-bit words, followed by one word of their upper bits: bit `i` is code `i >> 4` for 5 bits, bits `2i` and
/// `2i + 1` for 6. Padding holds code 0, which does not decode to 0: readers bound `k`.
///
/// The scales of a row are one number a group, or with [`Zero::Stored`] and [`Zero::Minimum`] two: scale, zero, scale,
/// zero, ….
/// With 3, 4 or 8 bits and a centred zero the layout is MLC LLM's
/// (`python/mlc_llm/quantization/group_quantization.py`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Grouped {
    /// Bits of a code, one of [`BITS`](Self::BITS).
    pub bits: u32,
    /// Values that share a scale; a multiple of `unit_codes`.
    pub group: usize,
    /// Type of the stored scales, and of zeros and minimums.
    pub scale: FloatType,
    /// The code that stands for 0, or what takes its place.
    pub zero: Zero,
}

impl Grouped {
    /// All widths of codes.
    pub const BITS: [u32; 5] = [3, 4, 5, 6, 8];

    /// Values of a group at most.
    pub const MAX_GROUP: usize = 4096;

    /// Whether bits, group and zero belong together: bits of [`BITS`](Self::BITS), a group of whole units, not empty and
    /// of at most [`MAX_GROUP`](Self::MAX_GROUP) values, and a code as fixed zero.
    pub fn is_valid(&self) -> bool {
        Self::BITS.contains(&self.bits)
            && (1..=Self::MAX_GROUP).contains(&self.group)
            && self.group.is_multiple_of(self.unit_codes())
            && self.constant_zero().is_none_or(|zero| zero <= self.max_code())
    }

    /// Codes of a unit: 10, 8, 32, 16 and 4 for 3, 4, 5, 6 and 8 bits.
    pub const fn unit_codes(&self) -> usize {
        match self.bits {
            5 => 32,
            6 => 16,
            bits => (32 / bits) as usize,
        }
    }

    /// `u32` words of a unit: 5 and 3 for 5 and 6 bits, otherwise 1.
    pub const fn unit_words(&self) -> usize {
        match self.bits {
            5 => 5,
            6 => 3,
            _ => 1,
        }
    }

    /// The code that stands for 0 in all groups; `None` where each stores its own, or a minimum.
    pub const fn constant_zero(&self) -> Option<u32> {
        match self.zero {
            Zero::Centered => Some(centre(self.bits)),
            Zero::Fixed(code) => Some(code),
            Zero::Stored | Zero::Minimum => None,
        }
    }

    /// Numbers that a group has in the tensor of scales: 2 where zeros or minimums lie between them, else 1.
    pub const fn scales_per_group(&self) -> usize {
        match self.zero {
            Zero::Centered | Zero::Fixed(_) => 1,
            Zero::Stored | Zero::Minimum => 2,
        }
    }

    /// The greatest code that fits.
    pub const fn max_code(&self) -> u32 {
        (1 << self.bits) - 1
    }

    /// Groups in a row of `k` values.
    pub const fn groups(&self, k: usize) -> usize {
        k.div_ceil(self.group)
    }

    /// Numbers that a row of `k` values has in the tensor of scales: stored zeros and minimums included.
    pub const fn scales(&self, k: usize) -> usize {
        self.groups(k) * self.scales_per_group()
    }

    /// Words of a group.
    pub const fn words_per_group(&self) -> usize {
        self.group / self.unit_codes() * self.unit_words()
    }

    /// Words of a row of `k` values.
    pub const fn words(&self, k: usize) -> usize {
        self.groups(k) * self.words_per_group()
    }

    /// Code `index` of the row, group or unit that `words` begins with: the layout's definition, for readers of few codes.
    ///
    /// # Panics
    /// If `words` ends before it.
    pub fn code(&self, words: &[u32], index: usize) -> u32 {
        let unit = &words[index / self.unit_codes() * self.unit_words()..][..self.unit_words()];
        let index = index % self.unit_codes();
        match unit {
            [word] => word >> (index as u32 * self.bits) & self.max_code(),
            [low @ .., high] => {
                let upper = self.bits - 4;
                let low = low[index / 8] >> (4 * (index % 8)) & 15;
                low | (high >> (index as u32 * upper) & ((1 << upper) - 1)) << 4
            }
            [] => 0,
        }
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
    /// Codes and scales, and zeros or minimums between the scales where groups have their own.
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
/// are stored, `m` where minimums are.
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
                    Zero::Minimum => f.write_str("m"),
                }
            }
        }
    }
}

/// What was not a [`Format`].
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is not a storage format: expected f32, f16, bf16, or bits, group and scale type as in q4g32f16 (3, 4, 5, 6 or 8 bits; groups are multiples of 10, 8, 32, 16 or 4 values, up to 4096), with the suffix z for stored zeros, z8 for zero code 8, m for stored minimums"
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
    let suffix = rest.find(['z', 'm']).unwrap_or(rest.len());
    let (scale, suffix) = rest.split_at(suffix);
    let bits = bits.parse().ok()?;
    let zero = match suffix {
        "" => Zero::Centered,
        "z" => Zero::Stored,
        "m" => Zero::Minimum,
        _ => match suffix.strip_prefix('z')?.parse().ok()? {
            code if Grouped::BITS.contains(&bits) => Zero::of(bits, code),
            _ => return None,
        },
    };
    let grouped = Grouped { bits, group: group.parse().ok()?, scale: float(scale)?, zero };
    grouped.is_valid().then_some(Format::Grouped(grouped))
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
    use expect_test::expect;

    use super::*;

    fn grouped(text: &str) -> Grouped {
        match text.parse().unwrap() {
            Format::Grouped(grouped) => grouped,
            Format::Plain(_) => panic!("{text} is plain"),
        }
    }

    #[test]
    fn text_round_trips() {
        let plain_and_centred = ["f32", "f16", "bf16", "q4g32f16", "q4g32f32", "q3g40f16", "q8g32f16"];
        let more_bits = ["q5g32f16", "q5g64f32", "q6g16f16", "q6g32f16", "q6g48f32"];
        let other_zeros = ["q4g32f16z8", "q4g32f16z0", "q8g32f16z128", "q4g128f16z", "q3g40f32z", "q4g16f16z4"];
        let more_zeros = ["q5g32f16z16", "q6g16f16z32", "q5g32f32z", "q6g4096f16z", "q5g32f16z31", "q6g16f16z0"];
        let minimums = ["q4g32f16m", "q5g32f16m", "q4g16f16m", "q6g16f32m", "q3g10f16m", "q8g4f16m"];
        let all = plain_and_centred.iter().chain(&more_bits).chain(&other_zeros).chain(&more_zeros).chain(&minimums);
        for text in all {
            assert_eq!(text.parse::<Format>().unwrap().to_string(), *text);
        }
        for text in ["", "q", "q4g30f16", "q4g0f16", "q3g32f16", "q4g32", "f64", "q4g32f16x", "q99g32f16", "q7g32f16"] {
            assert!(text.parse::<Format>().is_err(), "{text}");
        }
        for text in ["q4g32f16z16", "q4g32f16z-1", "q4g32f16zz", "q4g32z8", "f16z", "q4z8g32f16", "q4g32f16z8z"] {
            assert!(text.parse::<Format>().is_err(), "{text}");
        }
        let groups = ["q5g16f16", "q5g40f16", "q5g0f16", "q6g8f16", "q6g24f16", "q5g4128f16", "q2g32f16", "q0g32f16"];
        let suffixes = ["q5g32f16z32", "q6g16f16z64", "q4g32f16mz", "q4g32f16zm", "q4g32f16m0", "q4g32m", "f16m", "m"];
        for text in groups.into_iter().chain(suffixes).chain(["q33g32f16z0", "q0g32f16z0"]) {
            assert!(text.parse::<Format>().is_err(), "{text}");
        }
        for (text, short) in [("q4g32f16z7", "q4g32f16"), ("q5g32f16z15", "q5g32f16"), ("q6g16f16z31", "q6g16f16")] {
            assert_eq!(text.parse::<Format>().unwrap().to_string(), short, "one text for each format");
        }
        expect!["`q5g40f16` is not a storage format: expected f32, f16, bf16, or bits, group and scale type as in q4g32f16 (3, 4, 5, 6 or 8 bits; groups are multiples of 10, 8, 32, 16 or 4 values, up to 4096), with the suffix z for stored zeros, z8 for zero code 8, m for stored minimums"].assert_eq(&"q5g40f16".parse::<Format>().unwrap_err().to_string());
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
        let table =
            [("q5g32f16", 5.5), ("q6g32f16", 6.5), ("q6g16f16z32", 7.0), ("q4g32f16m", 5.0), ("q5g32f16m", 6.0)];
        for (text, bits) in table {
            assert_eq!(text.parse::<Format>().unwrap().bits_per_weight(4096), bits, "{text}");
        }
        // One value in a second group.
        assert_eq!(grouped("q5g32f16").words(33), 10);
        assert_eq!(grouped("q6g48f16").words(49), 18);
        assert_eq!(grouped("q5g32f16m").scales(33), 4);
    }

    /// Units written out by hand, and the second unit of a row.
    #[test]
    fn codes_of_words() {
        let q5 = grouped("q5g32f16");
        let words = [0x7654_3210, 0xfedc_ba98, 0x0000_0000, 0xffff_ffff, 0xff00_8001, 0x10, 0, 0, 0, 0x2];
        let codes: Vec<u32> = (0..34).map(|index| q5.code(&words, index)).collect();
        let upper = |index: usize| if index == 0 || index == 15 || index >= 24 { 16 } else { 0 };
        let low = |index: usize| [index, index, 0, 15][index / 8] as u32 + upper(index);
        assert_eq!(codes[..32], (0..32).map(low).collect::<Vec<_>>());
        assert_eq!(codes[32..], [0, 17]);
        let q6 = grouped("q6g16f16");
        let words = [0x7654_3210, 0xfedc_ba98, 0xe4e4_e4e4, 0xf, 0, 0x3];
        let codes: Vec<u32> = (0..17).map(|index| q6.code(&words, index)).collect();
        assert_eq!(codes[..16], (0..16).map(|index| index + 16 * (index % 4)).collect::<Vec<_>>());
        assert_eq!(codes[16], 63);
        let q3 = grouped("q3g10f16");
        assert_eq!([0, 1, 9, 10].map(|index| q3.code(&[0x3800_0011, 5], index)), [1, 2, 7, 5]);
    }
}
