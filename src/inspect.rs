//! `dwindle inspect`: what is in a checkpoint, a model directory or a bundle, at any stage of compilation.

mod bundle;

use std::path::Path;

use anyhow::{Context, Result};
use dwindle_compiler::checkpoint::{Examination, ModelDir, Weights, examine, is_packed};
use dwindle_compiler::compile::{Stage, inspect};
use dwindle_compiler::size::Size;
use serde_json::json;

use crate::compile::Target;
use crate::hub::{self, Hub};
use crate::output;
use crate::progress::Bars;
use crate::source::{Preparation, Source, open_bundle};

/// Options of `inspect`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A checkpoint, a hub id, a model directory or a bundle
    source: String,

    /// Show this stage: graph, optimized, plan, kernels, memory or weights [default: an overview]
    #[arg(long)]
    stage: Option<Stage>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    preparation: Preparation,
}

/// Prints.
pub fn run(options: Options) -> Result<()> {
    let bars = Bars::default();
    let revision = options.preparation.revision.as_deref();
    let named_on_hub = !Path::new(&options.source).exists() && hub::is_id(&options.source);
    if options.stage.is_none() && named_on_hub {
        return print(&of_hub_id(&options, &bars)?, options.json);
    }
    let source = Source::resolve(&options.source, revision, &bars)?;
    let text = match &source {
        Source::Bundle(path) => {
            let bundle = open_bundle(path)?;
            bundle::of_bundle(&bundle, &options)?
        }
        Source::ModelDir(named) if options.stage.is_none() => overview(&ModelDir::open(&named.path)?, options.json)?,
        Source::Checkpoint(named)
            if options.stage.is_none() && !is_packed(&named.path, &options.preparation.ignored()) =>
        {
            told(&examine(&named.path, &options.preparation.ignored())?, options.json, "")?
        }
        Source::ModelDir(_) | Source::Checkpoint(_) => {
            let work = tempfile::tempdir().context("there is no directory for temporary files")?;
            of_source(&source, &options, work.path(), &bars)?
        }
    };
    print(&text, options.json)
}

fn print(text: &str, as_json: bool) -> Result<()> {
    match as_json {
        true => output::json(text)?,
        false => output::line(text.trim_end())?,
    }
    Ok(())
}

/// What the hub lists, and what the configuration says, of which alone is downloaded.
fn of_hub_id(options: &Options, bars: &Bars) -> Result<String> {
    let id = &options.source;
    let hub = Hub::from_env()?;
    let listing = hub.list(id, options.preparation.revision.as_deref())?;
    let directory = hub.fetch_configuration(&listing, bars)?;
    let mut text = format!("hub id     {id}, revision {}, commit {}\n", listing.revision, listing.commit);
    for file in &listing.files {
        text += &format!("  {:>10}  {}\n", Size(file.size).to_string(), file.name);
    }
    let total = listing.files.iter().map(|file| file.size).fold(0, u64::saturating_add);
    text += &format!("  {:>10}  in all\n\n", Size(total).to_string());
    let mut examination = examine(&directory, &options.preparation.ignored())?;
    if let Weights::Absent { reason } = &mut examination.weights {
        "the configuration is all that was downloaded".clone_into(reason);
    }
    told(&examination, options.json, &text)
}

fn told(examination: &Examination, as_json: bool, before: &str) -> Result<String> {
    match as_json {
        true => Ok(serde_json::to_string_pretty(examination)?),
        false => Ok(format!("{before}{examination}")),
    }
}

fn of_source(source: &Source, options: &Options, work: &Path, bars: &Bars) -> Result<String> {
    let Some(stage) = options.stage else {
        return overview(&source.converted(&options.preparation, work, bars)?, options.json);
    };
    let model = source.quantized(&options.preparation, work, bars)?;
    let text = inspect(&model, stage, &options.target.options())?;
    match options.json {
        true => Ok(serde_json::to_string_pretty(&json!({ "stage": stage.to_string(), "text": text }))?),
        false => Ok(text),
    }
}

/// Family, scheme, configuration, tensors and quality card of a model directory.
fn overview(directory: &ModelDir, as_json: bool) -> Result<String> {
    let model = &directory.model;
    if as_json {
        return Ok(serde_json::to_string_pretty(model)?);
    }
    let bytes: u64 = directory.tensors().tensors().map(|t| t.bytes.len() as u64).sum();
    let mut text = format!("family     {}\n", model.family);
    text += &format!("scheme     {}", model.scheme.as_deref().unwrap_or("not quantized"));
    text += &model.method.as_deref().map_or(String::new(), |method| format!(" ({method})"));
    text += &format!("\ntensors    {}, {}\n\nconfiguration\n", model.tensors.len(), Size(bytes));
    for (key, value) in &model.config {
        let value = value.to_string();
        let shown: String = value.chars().take(100).collect();
        text += &format!("  {key} = {shown}{}\n", if shown.len() < value.len() { " …" } else { "" });
    }
    text += "\ntensors\n";
    for (name, tensor) in &model.tensors {
        text += &format!("  {:<10} {:<20} {name}\n", tensor.format.to_string(), format!("{:?}", tensor.shape));
    }
    if let Some(card) = &model.card {
        text += &format!("\n{card}");
    }
    Ok(text)
}
