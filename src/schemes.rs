//! `dwindle schemes`: the list of quantization schemes.

use std::io::Write;

use anyhow::Result;
use dwindle_schemes::{Role, Scheme};

/// Options of `schemes`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the list.
pub fn run(options: Options) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let schemes = Scheme::all();
    if options.json {
        let list: Vec<_> = schemes
            .iter()
            .map(|s| {
                serde_json::json!({
                    "name": s.name,
                    "bits_per_weight": s.format(Role::Linear).bits_per_weight(TYPICAL_COLUMNS),
                    "linear": s.format(Role::Linear).to_string(),
                    "embedding": s.format(Role::Embedding).to_string(),
                    "vision": s.format(Role::VisionLinear).to_string(),
                    "kv": s.kv.name(),
                    "summary": s.summary,
                })
            })
            .collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&list)?)?;
        return Ok(());
    }
    writeln!(out, "{:<10} {:>6}  {:<10} {:<10} {:<4}  summary", "scheme", "bits/w", "linear", "vision", "kv")?;
    for scheme in schemes {
        let [linear, vision] = [Role::Linear, Role::VisionLinear].map(|role| scheme.format(role).to_string());
        let bits = scheme.format(Role::Linear).bits_per_weight(TYPICAL_COLUMNS);
        writeln!(
            out,
            "{:<10} {bits:>6.3}  {linear:<10} {vision:<10} {:<4}  {}",
            scheme.name,
            scheme.kv.name(),
            scheme.summary
        )?;
    }
    Ok(())
}

/// Columns of the row that bits per weight are given for: Gemma-2B's hidden size; groups that do not divide it are padded.
const TYPICAL_COLUMNS: usize = 2048;
