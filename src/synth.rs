//! `dwindle synth`: a checkpoint of a real shape with random weights, to learn sizes and speeds before downloading a model.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use dwindle_compiler::synth;
use serde_json::{Map, Value};

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

    /// Add a tokenizer of the vocabulary's size and a chat template, so that turns can be run
    #[arg(long)]
    tokenizer: bool,
}

/// Writes the checkpoint.
pub fn run(options: Options) -> Result<()> {
    if options.output.exists() {
        bail!("{} exists; name a directory to make", options.output.display());
    }
    let config = config(&options.shape)?;
    synth::synthesize(&config, options.seed, &options.output, &Bars::default())?;
    if options.tokenizer {
        synth::write_tokenizer(&config, &options.output)?;
    }
    Ok(())
}

/// The configuration that a user named: a preset's, or that of a file.
pub fn config(shape: &str) -> Result<Map<String, Value>> {
    if let Some(config) = synth::preset(shape) {
        return Ok(config);
    }
    let text = std::fs::read(shape).with_context(|| {
        let presets = synth::PRESETS.map(|(name, _)| name).join(", ");
        format!("{shape} is neither a preset ({presets}) nor a readable config.json")
    })?;
    serde_json::from_slice(&text).with_context(|| format!("{shape} is no JSON object"))
}
