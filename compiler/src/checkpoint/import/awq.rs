//! AutoAWQ's checkpoints in the layout of its GEMM kernels.
//!
//! `X.qweight` is `[k, n / 8]`, `X.qzeros` `[k / group, n / 8]`: a word holds eight neighbouring rows of the layer, of which
//! row `j` is in nibble `4 (j mod 2) + j / 2` (AutoAWQ, `awq/utils/packing_utils.py`). Zeros are codes as they are. Other
//! versions of the method (`gemv`, `marlin`) order and pad codes for other kernels.

use std::ops::Range;

use serde_json::{Map, Value};

use super::linears::{Packing, Settings, Words, bits, group, scheme, unsupported};
use crate::error::Result;

/// Rows in a word.
const ROWS: usize = 8;

/// Reads `quantization_config`.
pub(super) fn settings(config: &Map<String, Value>) -> Result<Settings> {
    let bits = bits(config, &[4])?;
    let group = group(config, bits)?;
    let version = config.get("version").and_then(Value::as_str).unwrap_or("gemm");
    if !version.eq_ignore_ascii_case("gemm") {
        let reason = format!(
            "is \"{version}\"; the layout of `gemm` is imported: save the model with version=\"GEMM\", or convert the \
             unquantized checkpoint"
        );
        return Err(unsupported("version", reason));
    }
    Ok(Settings { scheme: scheme("awq", bits, group), bits, group, packing: Box::new(Gemm) })
}

/// The layout.
#[derive(Debug)]
struct Gemm;

/// The place of a row in its word, in bits.
const fn shift(row: usize) -> usize {
    let j = row % ROWS;
    4 * (4 * (j % 2) + j / 2)
}

impl Packing for Gemm {
    fn layer(&self, rows: usize, columns: usize) -> Option<(usize, usize)> {
        // Codes of a row come together in words.
        let whole = rows.is_multiple_of(ROWS);
        columns.checked_mul(ROWS).filter(|_| whole).map(|n| (n, rows))
    }

    fn codes(&self, qweight: Words<'_>, n: usize, rows: Range<usize>, words: usize, out: &mut [u32]) {
        let across = n / ROWS;
        for (word, eight) in qweight.chunks_exact(across * 8).enumerate() {
            for (row, out) in rows.clone().zip(out.chunks_exact_mut(words)) {
                let code = |column: usize| u32::from_le_bytes(eight[column * across + row / ROWS]) >> shift(row) & 0xf;
                out[word] = (0..8).fold(0, |word, column| word | code(column) << (4 * column));
            }
        }
    }

    fn zero(&self, qzeros: Words<'_>, row: usize) -> u32 {
        u32::from_le_bytes(qzeros[row / ROWS]) >> shift(row) & 0xf
    }
}
