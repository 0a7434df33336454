//! `dwindle quantize`: a model directory becomes one with packed weights and a card of its quality.

use std::path::PathBuf;

use anyhow::Result;
use dwindle_compiler::checkpoint::ModelDir;
use dwindle_compiler::quantize::Quantization;
use dwindle_quant::Method;
use serde_json::json;

use crate::progress::Bars;
use crate::work::Announce;
use crate::{destination, output, schemes};

/// Options of `quantize`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// What `dwindle convert` made
    model_dir: PathBuf,

    /// Quantization scheme (see `dwindle schemes`), or the file of another one
    #[arg(long, value_name = "NAME|FILE.toml")]
    scheme: String,

    /// How codes are chosen: rtn (round to nearest) or search (least squared error, same size)
    #[arg(long, default_value = "rtn")]
    method: Method,

    /// The model directory to write
    #[arg(short, long, value_name = "MODEL_DIR")]
    output: PathBuf,

    #[command(flatten)]
    announce: Announce,
}

/// Quantizes.
pub fn run(options: Options) -> Result<()> {
    let scheme = schemes::named(&options.scheme)?;
    let model = ModelDir::open(&options.model_dir)?;
    destination::check(&options.output, destination::Kind::Directory, &[options.model_dir.as_path()])?;
    let quantization = Quantization::open(&model, &scheme, options.method)?;
    let work = quantization.work().clone();
    if !options.announce.begin(&work, &options.output)? {
        return Ok(());
    }
    let card = quantization.run(&options.output, &Bars::default())?;
    match options.announce.json {
        true => output::json(&format!("{:#}", json!({ "work": work, "card": card })))?,
        false => output::line(card)?,
    }
    Ok(())
}
