//! ggml's types of tensors: sizes of all of them, and which become what here.
//!
//! Numbers, block sizes and names are those of ggml (`ggml.h`, gguf-py's `GGML_QUANT_SIZES`).

use dwindle_schemes::{FloatType, Format, Grouped, Zero};

/// Number, name, values of a block, bytes of a block.
const TYPES: &[(u32, &str, u64, u64)] = &[
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 40),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
];

/// A type of tensors that ggml knows.
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

    /// How its values are kept here, each as it is; `None` where they cannot be.
    pub fn format(self) -> Option<Format> {
        let grouped = |bits, zero| {
            Some(Format::Grouped(Grouped { bits, group: 32, scale: FloatType::F16, zero: Zero::Fixed(zero) }))
        };
        match self.name() {
            "F32" => Some(Format::Plain(FloatType::F32)),
            "F16" => Some(Format::Plain(FloatType::F16)),
            "BF16" => Some(Format::Plain(FloatType::Bf16)),
            "Q4_0" => grouped(4, 8),
            "Q8_0" => grouped(8, 128),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_as_it_is() {
        let kept = TYPES
            .iter()
            .filter_map(|(number, name, ..)| Some(format!("{name} {}", TensorType::of(*number)?.format()?)));
        let kept: Vec<_> = kept.collect();
        assert_eq!(kept, ["F32 f32", "F16 f16", "Q4_0 q4g32f16z8", "Q8_0 q8g32f16z128", "BF16 bf16"]);
        for number in [4, 5, 31, 36, 1000, u32::MAX] {
            assert_eq!(TensorType::of(number), None, "{number}");
        }
    }

    /// A block of each kept type holds codes and scale, and nothing else.
    #[test]
    fn blocks_are_as_large_as_their_formats() {
        for index in 0..TYPES.len() {
            let kind = TensorType(index);
            if let Some(format) = kind.format() {
                let values = kind.block_values() as usize;
                assert_eq!(format.bytes(1, values) as u64, kind.block_bytes(), "{}", kind.name());
            }
        }
    }
}
