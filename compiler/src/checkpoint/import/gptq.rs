//! GPTQ's checkpoints, as AutoGPTQ and GPTQModel write them.
//!
//! A word of `X.qweight`, `[k / c, n]`, holds `c` (8 of 4 bits, 4 of 8 bits) neighbouring columns of a row, the first in the lowest
//! bits; a word of `X.qzeros`, `[k / group, n / c]`, the zeros of `c` neighbouring rows. The first version of the format (`gptq`) holds
//! zeros less 1, the second (`gptq_v2`) as they are. A stored 15 (255) of the first means 16 (256), no code: kernels add the 1 after
//! unpacking. `X.g_idx` tells each column's group; other than in order, columns would have to be gathered.

use std::ops::Range;

use serde_json::{Map, Value};

use super::linears::{Packing, Settings, Words, bits, group, scheme, unsupported};
use crate::error::Result;

/// Keys that change what the tensors mean, and what leaves them at rest.
const IDLE: [(&str, &[&str]); 4] = [
    ("dynamic", &["null", "{}"]),
    ("is_marlin_format", &["null", "false"]),
    ("pack_dtype", &["null", "\"int32\""]),
    ("rotation", &["null"]),
];

/// Reads `quantization_config`.
pub(super) fn settings(config: &Map<String, Value>) -> Result<Settings> {
    let bits = bits(config, &[4, 8])?;
    let group = group(config, bits)?;
    for (key, idle) in IDLE {
        let value = config.get(key).unwrap_or(&Value::Null);
        if !idle.contains(&value.to_string().as_str()) {
            return Err(unsupported(
                key,
                format!("is {value}, which is not imported; convert the unquantized checkpoint"),
            ));
        }
    }
    let format =
        ["checkpoint_format", "format"].iter().find_map(|key| config.get(*key).filter(|value| !value.is_null()));
    let first = match format.map(|value| value.as_str().unwrap_or_default()) {
        None | Some("gptq") => 1,
        Some("gptq_v2") => 0,
        Some(_) => {
            let value = format.unwrap_or(&Value::Null);
            let reason =
                format!("is {value}; `gptq` and `gptq_v2` are imported, of others convert the unquantized checkpoint");
            return Err(unsupported("checkpoint_format", reason));
        }
    };
    Ok(Settings { scheme: scheme("gptq", bits, group), bits, group, packing: Box::new(Columns { bits, first }) })
}

/// The layout.
#[derive(Debug)]
struct Columns {
    bits: u32,
    /// The zero that is stored as 0.
    first: u32,
}

impl Packing for Columns {
    fn layer(&self, rows: usize, columns: usize) -> Option<(usize, usize)> {
        rows.checked_mul(32 / self.bits as usize).map(|k| (columns, k))
    }

    fn codes(&self, qweight: Words<'_>, n: usize, rows: Range<usize>, words: usize, out: &mut [u32]) {
        for (word, all) in qweight.chunks_exact(n).enumerate() {
            for (out, bytes) in out.chunks_exact_mut(words).zip(&all[rows.clone()]) {
                out[word] = u32::from_le_bytes(*bytes);
            }
        }
    }

    fn zero(&self, qzeros: Words<'_>, row: usize) -> u32 {
        let per_word = 32 / self.bits as usize;
        let stored = u32::from_le_bytes(qzeros[row / per_word]) >> (self.bits as usize * (row % per_word));
        (stored & ((1 << self.bits) - 1)) + self.first
    }
}
