//! `dwindle logits`: what a model makes of given tokens, as a safetensors file anyone can compare.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dwindle_compiler::checkpoint::Workplace;
use dwindle_compiler::checkpoint::safetensors::{Element, Layout, TensorWriter};
use dwindle_runtime::Scorer;

use crate::destination;
use crate::device::{Device, Kind};
use crate::output::note;
use crate::run::pictures;
use crate::source::open_bundle;

/// Options of `logits`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A bundle
    bundle: PathBuf,

    /// Which model of the bundle, where there are several
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// Token ids, separated by commas
    #[arg(long, value_name = "1,2,3", value_delimiter = ',', required = true)]
    tokens: Vec<u32>,

    /// A picture for the image tokens among them; repeat for several
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,

    /// The file to write: an f32 tensor `logits` [tokens, vocab]
    #[arg(short, long, value_name = "OUT.safetensors")]
    output: PathBuf,

    /// Where to run, for bundles for several targets
    #[arg(long = "device", value_enum, value_name = "KIND", default_value_t)]
    kind: Kind,

    #[command(flatten)]
    device: Device,
}

/// Writes the logits.
pub fn run(options: Options) -> Result<()> {
    let bundle = open_bundle(&options.bundle)?;
    let read: Vec<&Path> = options.image.iter().chain([&options.bundle]).map(PathBuf::as_path).collect();
    destination::check(&options.output, destination::Kind::Tensors, &read)?;
    let bundle = options.device.select(&bundle, options.kind)?;
    let models = &bundle.manifest().models;
    let names = || models.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ");
    let model = match (&options.model, models.as_slice()) {
        (Some(name), _) => models
            .iter()
            .find(|m| m.name == *name)
            .with_context(|| format!("the bundle has no model {name}; it has {}", names()))?,
        (None, [model]) => model,
        (None, _) => bail!("the bundle has several models; choose one with --model: {}", names()),
    };
    let images = options.image.iter().map(|path| pictures::load(path)).collect::<Result<Vec<_>>>()?;
    let mut scorer = Scorer::open(&bundle, &model.name, &options.device.choice())?;
    let logits = scorer.score(&options.tokens, &images)?;
    // A placeholder may stand for all rows of its picture: then there are more positions than tokens.
    let vocab_size = model.vocab_size as usize;
    let shape = [logits.len() / vocab_size, vocab_size];
    write(&options.output, &shape, &logits)?;
    note!("wrote logits [{}, {}] to {}", shape[0], shape[1], options.output.display());
    Ok(())
}

fn write(path: &Path, shape: &[usize], logits: &[f32]) -> Result<()> {
    let layout = Layout::new(&[("logits".to_owned(), (Element::F32, shape.to_vec()))].into());
    let workplace = Workplace::claim(path)?;
    workplace.clear("logits")?;
    // A folder, which the next run removes with whatever a killed one left in it.
    let folder = workplace.new_path();
    std::fs::create_dir(&folder).with_context(|| format!("cannot write into {}", folder.display()))?;
    let new = folder.join("logits.safetensors");
    let writer = TensorWriter::create(&new, layout)?;
    let bytes: Vec<u8> = logits.iter().flat_map(|value| value.to_le_bytes()).collect();
    writer.write("logits", 0, &bytes)?;
    writer.finish()?;
    Ok(workplace.commit(&new)?)
}
