//! `dwindle synth`: a checkpoint of a real shape with random weights, to learn sizes and speeds before downloading a model.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use dwindle_compiler::synth;

use crate::progress::Bars;

/// Options of `synth`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The name of a published model (a wrong one lists all), or the config.json of another
    shape: String,

    /// The checkpoint's directory, which is made
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// Seed of the random weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// Writes the checkpoint.
pub fn run(options: Options) -> Result<()> {
    if options.output.exists() {
        bail!("{} exists; name a directory to make", options.output.display());
    }
    let config = match synth::preset(&options.shape) {
        Some(config) => config,
        None => {
            let text = std::fs::read(&options.shape).with_context(|| {
                let presets = synth::PRESETS.map(|(name, _)| name).join(", ");
                format!("{} is neither a preset ({presets}) nor a readable config.json", options.shape)
            })?;
            serde_json::from_slice(&text).with_context(|| format!("{} is no JSON object", options.shape))?
        }
    };
    Ok(synth::synthesize(&config, options.seed, &options.output, &Bars::default())?)
}
