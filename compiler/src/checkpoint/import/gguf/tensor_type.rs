//! ggml's tensor types: their sizes, and how the values of each are stored here.
//!
//! Numbers, block sizes and names are those of ggml (`ggml.h`, gguf-py's `GGML_QUANT_SIZES`).

use dwindle_schemes::{FloatType, Format, Grouped, Zero};

/// How the values of a type lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Floats, one after the other.
    Float(FloatType),
    /// Blocks of codes and scales.
    Packed(Packing),
    /// Not read.
    Other,
}

/// The layouts of blocks that are read; see [`blocks`](super::blocks).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
    Mxfp4,
}

use Encoding::{Float, Other, Packed};

/// Number, name, values of a block, bytes of a block, encoding.
const TYPES: &[(u32, &str, u64, u64, Encoding)] = &[
    (0, "F32", 1, 4, Float(FloatType::F32)),
    (1, "F16", 1, 2, Float(FloatType::F16)),
    (2, "Q4_0", 32, 18, Packed(Packing::Q4_0)),
    (3, "Q4_1", 32, 20, Packed(Packing::Q4_1)),
    (6, "Q5_0", 32, 22, Packed(Packing::Q5_0)),
    (7, "Q5_1", 32, 24, Packed(Packing::Q5_1)),
    (8, "Q8_0", 32, 34, Packed(Packing::Q8_0)),
    (9, "Q8_1", 32, 40, Other),
    (10, "Q2_K", 256, 84, Packed(Packing::Q2K)),
    (11, "Q3_K", 256, 110, Packed(Packing::Q3K)),
    (12, "Q4_K", 256, 144, Packed(Packing::Q4K)),
    (13, "Q5_K", 256, 176, Packed(Packing::Q5K)),
    (14, "Q6_K", 256, 210, Packed(Packing::Q6K)),
    (15, "Q8_K", 256, 292, Other),
    (16, "IQ2_XXS", 256, 66, Other),
    (17, "IQ2_XS", 256, 74, Other),
    (18, "IQ3_XXS", 256, 98, Other),
    (19, "IQ1_S", 256, 50, Other),
    (20, "IQ4_NL", 32, 18, Packed(Packing::Iq4Nl)),
    (21, "IQ3_S", 256, 110, Other),
    (22, "IQ2_S", 256, 82, Other),
    (23, "IQ4_XS", 256, 136, Packed(Packing::Iq4Xs)),
    (24, "I8", 1, 1, Other),
    (25, "I16", 1, 2, Other),
    (26, "I32", 1, 4, Other),
    (27, "I64", 1, 8, Other),
    (28, "F64", 1, 8, Other),
    (29, "IQ1_M", 256, 56, Other),
    (30, "BF16", 1, 2, Float(FloatType::Bf16)),
    // Q4_0 with the rows of several blocks interleaved; ggml no longer reads them either.
    (31, "Q4_0_4_4", 32, 18, Other),
    (32, "Q4_0_4_8", 32, 18, Other),
    (33, "Q4_0_8_8", 32, 18, Other),
    (34, "TQ1_0", 256, 54, Other),
    (35, "TQ2_0", 256, 66, Other),
    (39, "MXFP4", 32, 17, Packed(Packing::Mxfp4)),
    (40, "NVFP4", 64, 36, Other),
    (41, "Q1_0", 128, 18, Other),
];

/// A tensor type that ggml knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TensorType(usize);

impl TensorType {
    /// The type of this number.
    pub fn of(number: u32) -> Option<Self> {
        TYPES.iter().position(|(of, ..)| *of == number).map(TensorType)
    }

    /// ggml's name: `Q4_0`.
    pub fn name(self) -> &'static str {
        TYPES[self.0].1
    }

    /// Values that are stored together.
    pub fn block_values(self) -> u64 {
        TYPES[self.0].2
    }

    /// Bytes of as many values.
    pub fn block_bytes(self) -> u64 {
        TYPES[self.0].3
    }

    /// How its values lie in the file.
    pub fn encoding(self) -> Encoding {
        TYPES[self.0].4
    }

    /// The names of all types that are read, for messages.
    pub fn read_names() -> String {
        let read = TYPES.iter().filter(|(.., encoding)| *encoding != Other);
        read.map(|(_, name, ..)| *name).collect::<Vec<_>>().join(", ")
    }
}

impl Packing {
    /// The format that has a code for each of the block's codes, and scales of type `scale`.
    ///
    /// | type | format | kept |
    /// |---|---|---|
    /// | `Q4_0`, `Q5_0`, `Q8_0` | 4, 5 and 8 bits, groups of 32, a fixed zero | exactly |
    /// | `Q4_1`, `Q5_1` | 4 and 5 bits, groups of 32, a minimum | exactly |
    /// | `Q4_K`, `Q5_K` | 4 and 5 bits, groups of 32, a minimum | codes; scales and minimums, two factors in the file, rounded |
    /// | `Q6_K` | 6 bits, groups of 16, zero 32 | codes; scales rounded |
    /// | `Q3_K` | 4 bits (3 are no whole words of 16 codes), groups of 16, zero 4 | codes; scales rounded |
    /// | `Q2_K` | 4 bits, groups of 16, a minimum | codes; scales and minimums rounded |
    /// | `IQ4_NL` | 8 bits, groups of 32, zero 128 | exactly: the 16 values that codes stand for are bytes |
    /// | `IQ4_XS` | 8 bits, groups of 32, zero 128 | the values' bytes; scales rounded |
    /// | `MXFP4` | 5 bits, groups of 32, zero 12 | exactly: twice the values are whole numbers up to 12 |
    ///
    /// The values of `IQ4_NL` do not lie at equal distances. Six bits would come within 31 dB of them, which adds a tenth to
    /// the noise that four bits made; eight bits hold them.
    pub const fn grouped(self, scale: FloatType) -> Grouped {
        let (bits, group, zero) = match self {
            Packing::Q4_0 => (4, 32, Zero::Fixed(8)),
            Packing::Q5_0 => (5, 32, Zero::Fixed(16)),
            Packing::Q8_0 | Packing::Iq4Nl | Packing::Iq4Xs => (8, 32, Zero::Fixed(128)),
            Packing::Q4_1 | Packing::Q4K => (4, 32, Zero::Minimum),
            Packing::Q5_1 | Packing::Q5K => (5, 32, Zero::Minimum),
            Packing::Q6K => (6, 16, Zero::Fixed(32)),
            Packing::Q3K => (4, 16, Zero::Fixed(4)),
            Packing::Q2K => (4, 16, Zero::Minimum),
            Packing::Mxfp4 => (5, 32, Zero::Fixed(12)),
        };
        Grouped { bits, group, scale, zero }
    }
}

impl Encoding {
    /// How the values are stored here, with scales of 16 bits; `None` where they are not read.
    pub fn format(self) -> Option<Format> {
        match self {
            Float(float) => Some(Format::Plain(float)),
            Packed(packing) => Some(Format::Grouped(packing.grouped(FloatType::F16))),
            Other => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_each_type() {
        let formats = TYPES.iter().filter_map(|(number, name, .., encoding)| {
            assert_eq!(TensorType::of(*number).unwrap().name(), *name);
            Some(format!("{name} {}", encoding.format()?))
        });
        let formats: Vec<_> = formats.collect();
        let expected = [
            "F32 f32",
            "F16 f16",
            "Q4_0 q4g32f16z8",
            "Q4_1 q4g32f16m",
            "Q5_0 q5g32f16z16",
            "Q5_1 q5g32f16m",
            "Q8_0 q8g32f16z128",
            "Q2_K q4g16f16m",
            "Q3_K q4g16f16z4",
            "Q4_K q4g32f16m",
            "Q5_K q5g32f16m",
            "Q6_K q6g16f16z32",
            "IQ4_NL q8g32f16z128",
            "IQ4_XS q8g32f16z128",
            "BF16 bf16",
            "MXFP4 q5g32f16z12",
        ];
        assert_eq!(formats, expected);
        for number in [4, 5, 36, 1000, u32::MAX] {
            assert_eq!(TensorType::of(number), None, "{number}");
        }
    }

    /// A block is a whole number of groups, and its format is valid.
    #[test]
    fn blocks_are_whole_groups() {
        for index in 0..TYPES.len() {
            let kind = TensorType(index);
            if let Packed(packing) = kind.encoding() {
                let grouped = packing.grouped(FloatType::F16);
                assert!(grouped.is_valid(), "{}", kind.name());
                assert_eq!(kind.block_values() as usize % grouped.group, 0, "{}", kind.name());
            }
        }
    }
}
