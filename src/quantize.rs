//! `dwindle quantize`: a model directory becomes one with packed weights and a card of its quality.

use std::path::PathBuf;

use anyhow::Result;
use dwindle_compiler::checkpoint::ModelDir;
use dwindle_compiler::quantize::quantize;
use dwindle_quant::Method;
use dwindle_schemes::Scheme;

use crate::progress::Bars;

/// Options of `quantize`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// What `dwindle convert` made
    model_dir: PathBuf,

    /// Quantization scheme (see `dwindle schemes`)
    #[arg(long)]
    scheme: String,

    /// How codes are chosen: rtn (round to nearest) or search (least squared error, same size)
    #[arg(long, default_value = "rtn")]
    method: Method,

    /// The model directory to write
    #[arg(short, long, value_name = "MODEL_DIR")]
    output: PathBuf,
}

/// Quantizes.
pub fn run(options: Options) -> Result<()> {
    let scheme = Scheme::builtin(&options.scheme)?;
    let model = ModelDir::open(&options.model_dir)?;
    let card = quantize(&model, &scheme, options.method, &options.output, &Bars::default())?;
    println!("{card}");
    Ok(())
}
