//! `dwindle convert`: a checkpoint becomes a model directory.

use std::path::PathBuf;

use anyhow::{Result, bail};
use dwindle_compiler::checkpoint::convert;

use crate::progress::Bars;
use crate::source::Source;

/// Options of `convert`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A local Hugging Face directory, or a hub id like google/gemma-2-2b-it
    source: String,

    /// The model directory to write
    #[arg(short, long, value_name = "MODEL_DIR")]
    output: PathBuf,

    /// Revision of a hub id: a branch, tag or commit
    #[arg(long)]
    revision: Option<String>,
}

/// Converts.
pub fn run(options: Options) -> Result<()> {
    let bars = Bars::default();
    match Source::resolve(&options.source, options.revision.as_deref(), &bars)? {
        Source::Checkpoint(named) => {
            let (_, report) = convert(&named.path, &options.output, &bars)?;
            report.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
            eprintln!("{report}");
            eprintln!("next: dwindle quantize {0} --scheme q4f16_1 -o {0}-q4f16_1", options.output.display());
            Ok(())
        }
        Source::ModelDir(named) => bail!("{} is a model directory already; quantize it next", named.path.display()),
        Source::Bundle(path) => bail!("{} is a file; convert reads the directory of a checkpoint", path.display()),
    }
}
