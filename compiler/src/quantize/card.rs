//! The quality card: what quantization made smaller, and what it cost.

use std::collections::BTreeMap;
use std::fmt;

use dwindle_schemes::{Format, Role};
use serde::{Deserialize, Serialize};

use crate::size::Size;

/// How many tensors the printed card names.
const SHOWN: usize = 5;

/// Sizes and errors of a quantized model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Name of the scheme.
    pub scheme: String,
    /// Name of the method.
    pub method: String,
    /// Weights of the model.
    pub weights: u64,
    /// Bytes of the tensors before.
    pub bytes_in: u64,
    /// Bytes of the tensors after.
    pub bytes_out: u64,
    /// Stored bits for each weight, scales, padding and plain tensors included.
    pub bits_per_weight: f64,
    /// Signal-to-noise ratio over all matrices that were quantized, in dB; absent if there is no error.
    pub snr_db: Option<f64>,
    /// The matrices that were quantized, by name.
    pub tensors: BTreeMap<String, TensorCard>,
}

/// Size and error of one matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorCard {
    /// What it is for.
    pub role: Role,
    /// The publisher's name of its type, of what was packed already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// How it is stored.
    pub format: Format,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// Stored bits for each weight.
    pub bits_per_weight: f64,
    /// `10 log10(Σ w² / Σ (w - w')²)`; absent if there is no error.
    pub snr_db: Option<f64>,
    /// Largest `|w - w'|`.
    pub max_error: f64,
}

impl Card {
    /// The tensors with the lowest signal-to-noise ratio, the worst first.
    pub fn worst(&self, count: usize) -> Vec<(&str, &TensorCard)> {
        let mut tensors: Vec<_> = self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let snr = |tensor: &TensorCard| tensor.snr_db.unwrap_or(f64::INFINITY);
        tensors.sort_by(|(_, a), (_, b)| snr(a).total_cmp(&snr(b)));
        tensors.truncate(count);
        tensors
    }
}

/// The matrices of one type of the source.
struct Kind {
    source: String,
    format: Format,
    matrices: usize,
    /// Of the matrix with the lowest ratio; absent if there is no error in any.
    snr_db: Option<f64>,
}

impl Card {
    /// What became of each type of the source; empty if it had no types.
    fn kinds(&self) -> Vec<Kind> {
        let mut kinds = BTreeMap::new();
        for tensor in self.tensors.values() {
            let Some(source) = &tensor.source else { continue };
            let key = (source.clone(), tensor.format.to_string());
            let kind = kinds.entry(key).or_insert_with(|| Kind {
                source: source.clone(),
                format: tensor.format,
                matrices: 0,
                snr_db: None,
            });
            kind.matrices += 1;
            kind.snr_db = match (kind.snr_db, tensor.snr_db) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        kinds.into_values().collect()
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} by {}: {:.3} bits per weight", self.scheme, self.method, self.bits_per_weight)?;
        let percent = self.bytes_out as f64 * 100.0 / self.bytes_in.max(1) as f64;
        writeln!(f, "{} -> {} ({percent:.1} %)", Size(self.bytes_in), Size(self.bytes_out))?;
        let kinds = self.kinds();
        for Kind { source, format, matrices, snr_db } in &kinds {
            let fate = match (snr_db, format) {
                (None, _) => "kept exactly".to_owned(),
                (Some(snr), Format::Plain(_)) => format!("rounded: {snr:.1} dB"),
                (Some(snr), Format::Grouped(_)) => format!("codes kept, scales rounded: {snr:.1} dB"),
            };
            writeln!(f, "{source:<7} as {:<11}  {fate}  ({matrices} matrices)", format.to_string())?;
        }
        if !kinds.is_empty() {
            return Ok(());
        }
        writeln!(f, "signal to noise {} over {} matrices; the worst:", decibel(self.snr_db), self.tensors.len())?;
        for (name, tensor) in self.worst(SHOWN) {
            let [rows, columns] = tensor.shape;
            let shape = format!("[{rows}, {columns}]");
            writeln!(
                f,
                "{:>9}  max error {:<9.2e}  {:<8}  {shape:<15} {name}",
                decibel(tensor.snr_db),
                tensor.max_error,
                tensor.format.to_string(),
            )?;
        }
        Ok(())
    }
}

fn decibel(snr: Option<f64>) -> String {
    snr.map_or_else(|| "exact".to_owned(), |snr| format!("{snr:.1} dB"))
}
