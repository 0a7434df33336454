//! `dwindle inspect`: what is in a checkpoint, a model directory or a bundle, at any stage of compilation.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use dwindle_bundle::Bundle;
use dwindle_compiler::checkpoint::{Examination, ModelDir, Weights, examine, is_packed};
use dwindle_compiler::compile::{CompileOptions, Stage, inspect};
use dwindle_compiler::lower::print_plan;
use dwindle_compiler::size::Size;
use serde_json::{Value, json};

use crate::compile::Target;
use crate::hub::{self, Hub};
use crate::progress::Bars;
use crate::source::{Preparation, Source};

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
        return print(&of_hub_id(&options.source, revision, options.json, &bars)?);
    }
    let source = Source::resolve(&options.source, revision, &bars)?;
    let text = match &source {
        Source::Bundle(path) => {
            let bundle = Bundle::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            of_bundle(&bundle, &options)?
        }
        Source::ModelDir(named) if options.stage.is_none() => overview(&ModelDir::open(&named.path)?, options.json)?,
        Source::Checkpoint(named) if options.stage.is_none() && !is_packed(&named.path) => {
            told(&examine(&named.path)?, options.json, "")?
        }
        Source::ModelDir(_) | Source::Checkpoint(_) => {
            let work = tempfile::tempdir().context("there is no directory for temporary files")?;
            of_source(&source, &options, work.path(), &bars)?
        }
    };
    print(&text)
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.trim_end().as_bytes())?;
    Ok(writeln!(out)?)
}

/// What the hub lists, and what the configuration says, of which alone is downloaded.
fn of_hub_id(id: &str, revision: Option<&str>, as_json: bool, bars: &Bars) -> Result<String> {
    let hub = Hub::from_env()?;
    let listing = hub.list(id, revision)?;
    let directory = hub.fetch_configuration(&listing, bars)?;
    let mut text = format!("hub id     {id}, revision {}, commit {}\n", listing.revision, listing.commit);
    for file in &listing.files {
        text += &format!("  {:>10}  {}\n", Size(file.size).to_string(), file.name);
    }
    let total = listing.files.iter().map(|file| file.size).fold(0, u64::saturating_add);
    text += &format!("  {:>10}  in all\n\n", Size(total).to_string());
    let mut examination = examine(&directory)?;
    if let Weights::Absent { reason } = &mut examination.weights {
        "the configuration is all that was downloaded".clone_into(reason);
    }
    told(&examination, as_json, &text)
}

fn told(examination: &Examination, as_json: bool, before: &str) -> Result<String> {
    match as_json {
        true => Ok(serde_json::to_string_pretty(examination)?),
        false => Ok(format!("{before}{examination}")),
    }
}

fn of_source(source: &Source, options: &Options, work: &Path, bars: &Bars) -> Result<String> {
    let Some(stage) = options.stage else {
        return overview(&source.converted(work, bars)?, options.json);
    };
    let model = source.quantized(&options.preparation, work, bars)?;
    let mut compile = CompileOptions::new(options.target.name());
    compile.context = options.target.context;
    let text = inspect(&model, stage, &compile)?;
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

fn of_bundle(bundle: &Bundle, options: &Options) -> Result<String> {
    let manifest = bundle.manifest();
    if options.stage.is_none() || options.stage == Some(Stage::Memory) {
        bundle.verify()?;
    }
    let text = match options.stage {
        None if options.json => return Ok(serde_json::to_string_pretty(manifest)?),
        None => bundle_overview(bundle),
        Some(Stage::Plan) => join(manifest.models.iter().map(|m| format!("model {}\n{}", m.name, print_plan(&m.plan)))),
        Some(Stage::Kernels) => {
            let names = manifest.entries.keys().filter(|name| name.ends_with(".wgsl"));
            let mut texts =
                names.map(|name| Ok(format!("// {name}\n{}", bundle.text(name)?))).collect::<Result<Vec<_>>>()?;
            for kernel in manifest.models.iter().flat_map(|model| &model.plan.kernels) {
                if let dwindle_bundle::Code::Native { name, constants } = &kernel.code {
                    texts.push(format!("// {}\n{name} {}\n", kernel.name, serde_json::to_string_pretty(constants)?));
                }
            }
            join(texts)
        }
        Some(Stage::Memory) => join(manifest.models.iter().map(|m| {
            let bytes = &m.memory;
            let parts = [
                ("weights", bytes.weights),
                ("states", bytes.states),
                ("scratch", bytes.scratch),
                ("ports", bytes.ports),
                ("total", bytes.total()),
            ];
            let lines = parts.map(|(what, bytes)| format!("  {what:<9} {:>12}", Size(bytes).to_string()));
            format!("model {}, {} positions\n{}", m.name, m.context, lines.join("\n"))
        })),
        Some(Stage::Weights) => join(manifest.models.iter().flat_map(|m| {
            let weights = m.plan.buffers.iter().filter(|b| matches!(b.kind, dwindle_bundle::BufferKind::Weights(_)));
            weights.map(move |b| format!("{} {}: {}", m.name, b.name, Size(b.bytes)))
        })),
        Some(stage @ (Stage::Graph | Stage::Optimized)) => {
            bail!("a bundle holds no graphs: name the model directory it was compiled from for --stage {stage}")
        }
    };
    match options.json {
        true => {
            Ok(serde_json::to_string_pretty(&json!({ "stage": options.stage.map(|s| s.to_string()), "text": text }))?)
        }
        false => Ok(text),
    }
}

fn join(parts: impl IntoIterator<Item = String>) -> String {
    parts.into_iter().collect::<Vec<_>>().join("\n")
}

fn bundle_overview(bundle: &Bundle) -> String {
    let manifest = bundle.manifest();
    let target = &manifest.target;
    let mut text = format!("bundle     {}, target {}, all hashes right\n", Size(bundle.file_bytes()), target.name);
    for (limit, needed) in &target.needs {
        text += &format!("  needs {limit} {needed}\n");
    }
    for model in &manifest.models {
        text += &format!("\nmodel      {}\n", model.name);
        for (key, value) in &model.about {
            text += &format!("  {key:<16} {value}\n");
        }
        text += &format!("  {:<16} {}\n", "context", model.context);
        text += &format!("  {:<16} {}\n", "memory", Size(model.memory.total()));
        text += &format!(
            "  {:<16} {}\n",
            "tokenizer",
            if model.text.is_some() { "yes" } else { "no: only `dwindle logits` works" }
        );
        text += &format!("  {:<16} {}\n", "pictures", if model.image.is_some() { "yes" } else { "no" });
        for (name, function) in &model.plan.functions {
            text += &format!("  {name:<16} {} dispatches\n", function.steps.len());
        }
    }
    if let Some(ensemble) = &manifest.ensemble {
        let quote = |text: &str| Value::from(text).to_string();
        text += &format!("\nensemble   {} describes, {} chats\n", ensemble.describe, ensemble.chat);
        text += &format!(
            "  describe prompt  {}\n  handover         {}\n",
            quote(&ensemble.describe_prompt),
            quote(&ensemble.handover)
        );
    }
    text
}
