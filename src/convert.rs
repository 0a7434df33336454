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
            let (model, report) = convert(&named.path, &options.output, &bars)?;
            report.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
            eprintln!("{report}");
            let output = options.output.display();
            match model.scheme() {
                Some(scheme) => {
                    eprintln!("packed already ({scheme}); next: dwindle compile {output} -o {output}.dwindle")
                }
                None => eprintln!("next: dwindle quantize {output} --scheme q4f16_1 -o {output}-q4f16_1"),
            }
            Ok(())
        }
        Source::ModelDir(named) => bail!("{} is a model directory already; quantize it next", named.path.display()),
        Source::Bundle(path) => bail!("{} is a file; convert reads the directory of a checkpoint", path.display()),
    }
}
