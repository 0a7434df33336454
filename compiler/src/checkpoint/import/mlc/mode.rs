//! MLC's quantization modes (`python/mlc_llm/quantization/quantization.py`): those whose bytes are ours, and why the others are not.

use dwindle_schemes::{FloatType, Grouped, Zero};

use crate::error::{Error, Result};

/// How the weights of a model are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// MLC's name.
    pub name: &'static str,
    /// Codes and groups; `None` where weights are floats.
    pub packing: Option<Packing>,
    /// Type of the keys and values in the cache.
    pub kv: FloatType,
}

/// The form of packed matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Bits of a code.
    pub bits: u32,
    /// Values that share a scale.
    pub group: usize,
    /// Linear layers are stored as `[words, rows]` (`KN`), embeddings are not.
    pub transposed: bool,
}

impl Packing {
    /// The format of a matrix whose scales are read as `scale`.
    pub const fn grouped(self, scale: FloatType) -> Grouped {
        Grouped { bits: self.bits, group: self.group, scale, zero: Zero::Centered }
    }
}

const fn floats(name: &'static str, kv: FloatType) -> Mode {
    Mode { name, packing: None, kv }
}

const fn packed(name: &'static str, bits: u32, transposed: bool, kv: FloatType) -> Mode {
    let group = if bits == 3 { 40 } else { 32 };
    Mode { name, packing: Some(Packing { bits, group, transposed }), kv }
}

/// All modes that can be imported.
pub const MODES: [Mode; 11] = [
    floats("q0f16", FloatType::F16),
    floats("q0bf16", FloatType::F16),
    floats("q0f32", FloatType::F32),
    packed("q3f16_0", 3, true, FloatType::F16),
    packed("q3f16_1", 3, false, FloatType::F16),
    packed("q4f16_0", 4, true, FloatType::F16),
    packed("q4f16_1", 4, false, FloatType::F16),
    packed("q4f16_2", 4, false, FloatType::F16),
    packed("q4bf16_0", 4, true, FloatType::F16),
    packed("q4bf16_1", 4, false, FloatType::F16),
    packed("q4f32_1", 4, false, FloatType::F32),
];

impl Mode {
    /// The mode of this name.
    ///
    /// # Errors
    /// It is none whose codes can be taken as they are; says why, and which can.
    pub fn find(name: &str) -> Result<Mode> {
        if let Some(mode) = MODES.iter().find(|mode| mode.name == name) {
            return Ok(*mode);
        }
        let why = match name {
            "q4f16_autoawq" => {
                "has zero points in AutoAWQ's order; convert the AutoAWQ checkpoint that it was made from"
            }
            "q4f16_ft" | "q8f16_ft" => "holds codes in an order made for one generation of GPUs",
            _ if name.contains("e4m3") || name.contains("e5m2") => "has weights of 8-bit floats",
            _ => "is not known",
        };
        let known: Vec<_> = MODES.iter().map(|mode| mode.name).collect();
        let shown: String = name.chars().take(60).collect();
        let reason = format!("`{shown}` {why}; {} can be imported", known.join(", "));
        Err(Error::Config { key: "quantization".to_owned(), reason })
    }
}
