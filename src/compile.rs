//! `dwindle compile`: model directories or checkpoints become one bundle.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dwindle_compiler::compile::{CompileOptions, Report, compile};
use dwindle_compiler::target::TargetName;

use crate::progress::Bars;
use crate::source::{Preparation, Source};

/// Options of `compile`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Model directories, checkpoints or hub ids: one model, or one that sees and one that chats
    #[arg(required = true)]
    models: Vec<String>,

    /// The bundle to write
    #[arg(short, long, value_name = "FILE.dwindle")]
    output: PathBuf,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    preparation: Preparation,
}

/// What a bundle is compiled for, and how its models work together.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Device to compile for: vulkan or metal
    #[arg(long, value_name = "NAME", default_value_t = default_target())]
    pub target: TargetName,

    /// Positions of the KV caches [default: what the model allows, 4096 at most]
    #[arg(long, value_name = "N")]
    pub context: Option<u32>,

    /// What the describing model of an ensemble is asked, once a picture
    #[arg(long, value_name = "TEXT")]
    pub describe_prompt: Option<String>,

    /// Jinja template of the chat model's turn, given `descriptions` and `message`
    #[arg(long, value_name = "TEMPLATE")]
    pub handover: Option<String>,
}

impl Target {
    /// What `run` compiles for.
    pub fn for_this_machine() -> Self {
        Target { target: default_target(), context: None, describe_prompt: None, handover: None }
    }
}

fn default_target() -> TargetName {
    if cfg!(target_vendor = "apple") { TargetName::Metal } else { TargetName::Vulkan }
}

/// Compiles.
pub fn run(options: Options) -> Result<()> {
    let bars = Bars::default();
    if options.output.is_dir() {
        bail!("{} is a directory; name the file to write", options.output.display());
    }
    let revision = options.preparation.revision.as_deref();
    let resolve = |text: &String| Source::resolve(text, revision, &bars);
    let sources = options.models.iter().map(resolve).collect::<Result<Vec<_>>>()?;
    let report = compile_sources(&sources, &options.preparation, &options.target, &options.output, &bars)?;
    println!("{report}");
    Ok(())
}

/// Compiles whatever was named into `output`; what has to be converted and quantized first is kept beside it only meanwhile.
pub fn compile_sources(
    sources: &[Source],
    preparation: &Preparation,
    target: &Target,
    output: &Path,
    bars: &Bars,
) -> Result<Report> {
    let folder = match output.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let work = tempfile::Builder::new()
        .prefix(".dwindle-work-")
        .tempdir_in(folder)
        .with_context(|| format!("cannot write into {}", folder.display()))?;
    let prepare = |source: &Source| source.quantized(preparation, work.path(), bars);
    let models = sources.iter().map(prepare).collect::<Result<Vec<_>>>()?;
    let mut options = CompileOptions::new(target.target);
    options.context = target.context;
    if let Some(prompt) = &target.describe_prompt {
        options.describe_prompt = prompt.clone();
    }
    if let Some(template) = &target.handover {
        options.handover = template.clone();
    }
    Ok(compile(&models, &options, output, bars)?)
}
