//! `dwindle compile`: model directories or checkpoints become one bundle.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, Result, bail};
use dwindle_compiler::checkpoint::Workplace;
use dwindle_compiler::compile::{CompileOptions, Report, compile};
use dwindle_compiler::target::TargetName;

use crate::device::{Device, Kind};
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
    /// Device to compile for: vulkan, metal or cpu [default: the platform's GPU, or cpu where there is none]
    #[arg(long, value_name = "NAME")]
    pub target: Option<TargetName>,

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
    /// What `run` compiles for: the kind of device that the user wants, or a GPU that the user names.
    pub fn for_device(kind: Kind, device: &Device) -> Self {
        let target = match kind {
            Kind::Cpu => Some(TargetName::Cpu),
            Kind::Gpu => Some(gpu_target()),
            Kind::Auto => device.names_gpu().then(gpu_target),
        };
        Target { target, context: None, describe_prompt: None, handover: None }
    }

    /// The target that was named, or the best for this machine.
    pub fn name(&self) -> TargetName {
        self.target.unwrap_or_else(default_target)
    }
}

fn gpu_target() -> TargetName {
    if cfg!(target_vendor = "apple") { TargetName::Metal } else { TargetName::Vulkan }
}

/// Native kernels are far faster than a driver that runs a GPU's on the processor.
fn default_target() -> TargetName {
    // Drivers are asked once: loading them takes time, and what they say does not change.
    static DEFAULT: LazyLock<TargetName> = LazyLock::new(|| match dwindle_runtime::device::gpu::is_there() {
        true => gpu_target(),
        false => TargetName::Cpu,
    });
    *DEFAULT
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

/// Compiles whatever was named into `output`; what has to be quantized first is beside it only meanwhile.
pub fn compile_sources(
    sources: &[Source],
    preparation: &Preparation,
    target: &Target,
    output: &Path,
    bars: &Bars,
) -> Result<Report> {
    // What a killed run has left is of no use; whether it is somebody else's, `claim` has found out.
    let workplace = Workplace::claim(output)?;
    workplace.clear("a bundle")?;
    let work = workplace.new_path();
    std::fs::create_dir(&work).with_context(|| format!("cannot write into {}", work.display()))?;
    let prepare =
        |(index, source): (usize, &Source)| source.quantized(preparation, &work.join(index.to_string()), bars);
    let models = sources.iter().enumerate().map(prepare).collect::<Result<Vec<_>>>()?;
    let mut options = CompileOptions::new(target.name());
    options.context = target.context;
    if let Some(prompt) = &target.describe_prompt {
        options.describe_prompt = prompt.clone();
    }
    if let Some(template) = &target.handover {
        options.handover = template.clone();
    }
    let bundle = work.join("bundle");
    let report = compile(&models, &options, &bundle, bars)?;
    workplace.commit(&bundle)?;
    Ok(report)
}
