//! `dwindle compile`: model directories or checkpoints become one bundle.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, Result, bail};
use dwindle_bundle::Residency;
use dwindle_compiler::checkpoint::{ModelDir, Workplace};
use dwindle_compiler::compile::{Blueprint, CompileOptions, Draft, Report, StoredTensors};
use dwindle_compiler::fit::FitReport;
use dwindle_compiler::graph::Tensors;
use dwindle_compiler::size::Size;
use dwindle_compiler::target::TargetName;
use dwindle_compiler::work::Work;
use dwindle_schemes::{FloatType, Role, Scheme};
use serde_json::json;

use crate::destination;
use crate::device::{Device, Kind};
use crate::fit;
use crate::output;
use crate::progress::Bars;
use crate::schemes;
use crate::source::{Described, Preparation, Source};
use crate::termination::Temporary;

/// Options of `compile`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Model directories, checkpoints or hub ids: one model, or one that sees and one that chats
    #[arg(required = true)]
    models: Vec<String>,

    /// The bundle to write
    #[arg(short, long, value_name = "FILE.dwindle")]
    output: PathBuf,

    /// Choose context, caches, residency and schemes so that running the bundle takes at most this much memory, like 2GiB.
    /// Give a model several times in different schemes, or unquantized; --context is the least context then
    #[arg(long, value_name = "SIZE")]
    fit: Option<Size>,

    /// Print sizes and memory, and write nothing
    #[arg(long)]
    dry_run: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    preparation: Preparation,
}

/// What a bundle is compiled for, and how its models work together.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Target {
    /// Device to compile for: vulkan, metal or cpu; several for a bundle that runs on each, like cpu,vulkan
    /// [default: the platform's GPU, or cpu where there is none]
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    pub target: Vec<TargetName>,

    /// Positions of the KV caches [default: what the model allows, 4096 at most; more where a picture needs it]
    #[arg(long, value_name = "N")]
    pub context: Option<u32>,

    /// Type of the keys and values in the caches: f16 or f32 [default: what the scheme says]
    #[arg(long, value_name = "TYPE", value_parser = parse_kv)]
    pub kv: Option<FloatType>,

    /// What of an ensemble is in memory at a time: both models, or the one that works (swap), which takes less memory and more
    /// time at each picture [default: both]
    #[arg(long, value_name = "NAME")]
    pub residency: Option<Residency>,

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
        let target: Option<TargetName> = match kind {
            Kind::Cpu => Some(TargetName::Cpu),
            Kind::Gpu => Some(gpu_target()),
            Kind::Auto => device.names_gpu().then(gpu_target),
        };
        Target {
            target: Vec::from_iter(target),
            context: None,
            kv: None,
            residency: None,
            describe_prompt: None,
            handover: None,
        }
    }

    /// The one target that was named, if any was.
    ///
    /// # Errors
    /// Several were.
    pub fn only(&self) -> Result<Option<TargetName>> {
        match self.target.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(*only)),
            _ => bail!("name one target here, not several"),
        }
    }

    /// The target that was named, the first of several, or the best for this machine.
    pub fn name(&self) -> TargetName {
        self.target.first().copied().unwrap_or_else(default_target)
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

/// Caches hold one of the types that kernels read.
fn parse_kv(text: &str) -> Result<FloatType, String> {
    match text {
        "f16" => Ok(FloatType::F16),
        "f32" => Ok(FloatType::F32),
        _ => Err("expected f16 or f32".to_owned()),
    }
}

impl Target {
    /// What compilation decides by.
    pub fn options(&self) -> CompileOptions {
        let mut options = CompileOptions::new(self.name());
        options.also = self.target.iter().skip(1).copied().map(dwindle_compiler::target::Target::new).collect();
        options.context = self.context;
        options.kv = self.kv;
        options.residency = self.residency.unwrap_or_default();
        if let Some(prompt) = &self.describe_prompt {
            options.describe_prompt.clone_from(prompt);
        }
        if let Some(template) = &self.handover {
            options.handover.clone_from(template);
        }
        options
    }
}

/// Compiles.
pub fn run(options: Options) -> Result<()> {
    let bars = Bars::default();
    if let Some(twice) =
        (1..options.target.target.len()).find(|&i| options.target.target[..i].contains(&options.target.target[i]))
    {
        bail!("target {} is named twice", options.target.target[twice]);
    }
    if options.fit.is_some() {
        options.target.only().context("--fit fits a bundle for one target")?;
    }
    let revision = options.preparation.revision.as_deref();
    let resolve = |text: &String| Source::resolve(text, revision, &bars);
    let sources = options.models.iter().map(resolve).collect::<Result<Vec<_>>>()?;
    destination::check_beside(&options.output, destination::Kind::Bundle, &sources)?;
    let job = Job {
        sources: &sources,
        preparation: &options.preparation,
        target: &options.target,
        output: &options.output,
        bars: &bars,
        workplace: OnceCell::new(),
    };
    let planned = match options.fit {
        None => job.plan()?,
        Some(budget) => fit::plan(&job, budget)?,
    };
    if !options.dry_run {
        planned.work.check(&options.output)?;
    }
    if !options.json {
        planned.fit.iter().try_for_each(|table| output::line(format_args!("{table}\n")))?;
        output::line(&planned.work)?;
    }
    let report = match options.dry_run {
        true => planned.draft.report(planned.work.bytes_out),
        false => planned.write(job)?,
    };
    match options.json {
        true => output::json(&format!(
            "{:#}",
            json!({ "work": planned.work, "fit": planned.fit, "bundle": report, "written": !options.dry_run })
        ))?,
        false => output::line(report)?,
    }
    Ok(())
}

/// Models to compile, and where to.
pub struct Job<'a> {
    /// What the user named.
    pub sources: &'a [Source],
    /// How it is quantized where it is not.
    pub preparation: &'a Preparation,
    /// What for.
    pub target: &'a Target,
    /// The bundle.
    pub output: &'a Path,
    /// Progress.
    pub bars: &'a Bars,
    workplace: OnceCell<(Workplace, PathBuf, Temporary)>,
}

/// A bundle that is decided, and where the tensors of its models will come from.
pub struct Planned {
    /// What will be written.
    pub draft: Draft,
    /// By which it was decided.
    pub options: CompileOptions,
    /// Its models.
    pub origins: Vec<Origin>,
    /// What writing it takes.
    pub work: Work,
    /// How it was fitted into a budget.
    pub fit: Option<FitReport>,
}

/// Where the tensors of a model come from.
pub enum Origin {
    /// From model directories, of which `choice` says for each class of tensors which one.
    Quantized { variants: Vec<ModelDir>, choice: BTreeMap<Role, usize> },
    /// From a source that has yet to be quantized as `scheme`.
    Quantize { source: Source, scheme: Box<Scheme> },
}

impl Job<'_> {
    /// A folder beside the output for what has to be kept meanwhile; removed with the job. What a killed run has left there goes.
    ///
    /// # Errors
    /// The place is somebody else's, or cannot be written.
    pub fn work(&self) -> Result<&Path> {
        if let Some((_, folder, _)) = self.workplace.get() {
            return Ok(folder);
        }
        let workplace = Workplace::claim(self.output)?;
        let temporary = Temporary::new(workplace.path());
        workplace.clear("a bundle")?;
        let folder = workplace.new_path();
        std::fs::create_dir(&folder).with_context(|| format!("cannot write into {}", folder.display()))?;
        Ok(&self.workplace.get_or_init(|| (workplace, folder, temporary)).1)
    }

    /// Decides everything as the user says; nothing is written.
    fn plan(&self) -> Result<Planned> {
        let scheme = schemes::named(self.preparation.scheme())?;
        let mut blueprints = Vec::new();
        let mut origins = Vec::new();
        let (mut bytes_in, mut meanwhile, mut peak_memory) = (0, 0, 0);
        for source in self.sources {
            let (blueprint, origin) = match source.described(&scheme, self.preparation, &|| self.work(), self.bars)? {
                Described::Quantized(directory) => {
                    let blueprint = Blueprint::of(&directory)?;
                    (blueprint, Origin::Quantized { variants: vec![*directory], choice: BTreeMap::new() })
                }
                Described::Planned(blueprint, work) => {
                    meanwhile += work.disk();
                    peak_memory = peak_memory.max(work.peak_memory);
                    (*blueprint, Origin::Quantize { source: source.clone(), scheme: Box::new(scheme.clone()) })
                }
            };
            bytes_in += source.bytes()?;
            blueprints.push(blueprint);
            origins.push(origin);
        }
        let options = self.target.options();
        let draft = Draft::new(blueprints, &options)?;
        let work = draft.work(bytes_in, meanwhile)?;
        let work = Work { peak_memory: work.peak_memory.max(peak_memory), ..work };
        Ok(Planned { draft, options, origins, work, fit: None })
    }
}

impl Planned {
    /// Writes the bundle; what has to be quantized first is kept beside it meanwhile.
    fn write(&self, job: Job<'_>) -> Result<Report> {
        let folder = job.work()?;
        let mut made = Vec::new();
        for (index, origin) in self.origins.iter().enumerate() {
            made.push(match origin {
                Origin::Quantize { source, scheme } => {
                    Some(source.quantized_as(scheme, job.preparation, &folder.join(index.to_string()), job.bars)?)
                }
                Origin::Quantized { .. } => None,
            });
        }
        let mut blueprints = Vec::new();
        let mut stored = Vec::new();
        for ((origin, made), (model, _)) in self.origins.iter().zip(&made).zip(self.draft.models()) {
            let mut blueprint = model.blueprint.clone();
            stored.push(match (origin, made) {
                (Origin::Quantized { variants, choice }, _) => {
                    let role = |name: &str| variants[0].model.tensors.get(name).map(|info| info.role);
                    let number = |name: &str| role(name).and_then(|role| choice.get(&role)).copied().unwrap_or(0);
                    StoredTensors::mixed(&variants.iter().collect::<Vec<_>>(), number)
                }
                (Origin::Quantize { .. }, made) => {
                    let made = made.as_ref().context("each source was quantized")?;
                    // Now there are files and a card; the scheme may have a longer name for people.
                    let planned = std::mem::replace(&mut blueprint, Blueprint::of(made)?);
                    blueprint.name = planned.name;
                    blueprint.model.scheme = planned.model.scheme;
                    StoredTensors::of(made)
                }
            });
            blueprints.push(blueprint);
        }
        let draft = Draft::new(blueprints, &self.options)?;
        fit::check(&draft, self, job.output)?;
        let tensors: Vec<&dyn Tensors> = stored.iter().map(|tensors| tensors as &dyn Tensors).collect();
        let bundle = folder.join("bundle");
        let report = draft.write(&tensors, &bundle, job.bars)?;
        drop(tensors);
        drop(stored);
        let (workplace, _, _temporary) = job.workplace.into_inner().context("the workplace was claimed")?;
        workplace.commit(&bundle)?;
        Ok(report)
    }
}

/// Compiles whatever was named into `output`; what has to be quantized first is beside it only meanwhile.
pub fn compile_sources(
    sources: &[Source],
    preparation: &Preparation,
    target: &Target,
    output: &Path,
    bars: &Bars,
) -> Result<Report> {
    let job = Job { sources, preparation, target, output, bars, workplace: OnceCell::new() };
    let planned = job.plan()?;
    planned.work.check(output)?;
    planned.write(job)
}
