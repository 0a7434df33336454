//! `dwindle schemes`: the list of quantization schemes.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use dwindle_schemes::{Role, Scheme};

use crate::output;

/// Options of `schemes`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the list.
pub fn run(options: Options) -> Result<()> {
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
        return Ok(output::json(&serde_json::to_string_pretty(&list)?)?);
    }
    let mut text = format!("{:<10} {:>6}  {:<10} {:<10} {:<4}  summary", "scheme", "bits/w", "linear", "vision", "kv");
    for scheme in schemes {
        let [linear, vision] = [Role::Linear, Role::VisionLinear].map(|role| scheme.format(role).to_string());
        let bits = scheme.format(Role::Linear).bits_per_weight(TYPICAL_COLUMNS);
        let (name, kv, summary) = (&scheme.name, scheme.kv.name(), &scheme.summary);
        text += &format!("\n{name:<10} {bits:>6.3}  {linear:<10} {vision:<10} {kv:<4}  {summary}");
    }
    Ok(output::line(text)?)
}

/// Longest file of a scheme that is read, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// The scheme that a user named: a built-in one, or that of a file, which is written like `schemes/q4f16_1.toml`.
pub fn named(text: &str) -> Result<Scheme> {
    let path = Path::new(text);
    if path.extension().is_none_or(|extension| extension != "toml") {
        return Ok(Scheme::builtin(text)?);
    }
    let cannot_read = || format!("cannot read the scheme {text}");
    let length = path.metadata().with_context(cannot_read)?.len();
    ensure!(length <= MAX_BYTES, "{text} has {length} bytes: that is no scheme, which has {MAX_BYTES} at most");
    let scheme =
        Scheme::parse(&std::fs::read_to_string(path).with_context(cannot_read)?).with_context(|| text.to_owned())?;
    // A model tells its scheme by name alone; nobody may take one for the other.
    if let Ok(builtin) = Scheme::builtin(&scheme.name) {
        ensure!(
            builtin == scheme,
            "{text} calls itself {}, as a built-in scheme that is different: give it another name",
            scheme.name
        );
    }
    Ok(scheme)
}

/// Columns of the row that bits per weight are given for: Gemma-2B's hidden size; groups that do not divide it are padded.
const TYPICAL_COLUMNS: usize = 2048;
