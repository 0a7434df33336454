//! A bundle that is decided but not written: plans, kernels, memory, and what writing it takes.

use std::collections::BTreeMap;
use std::path::Path;

use dwindle_bundle::{
    ENTRY_ALIGNMENT, Ensemble, FORMAT_VERSION, Manifest, Memory, MemoryPlan, Model, Plan, Sink, Text, Variant,
    VariantModel, Writer,
};

use super::estimate::estimates;
use super::share::{Share, shares};
use super::{Blueprint, CompileOptions, Prepared, Report, ensemble, sampling, text};
use crate::error::{Error, Result};
use crate::graph::Tensors;
use crate::kernels::{Emitted, translate, validate};
use crate::lower::{self, Lowered, pack};
use crate::progress::Progress;
use crate::target::{Target, TargetName};
use crate::work::Work;

/// Models lowered for one target or several, and how they work together.
pub struct Draft {
    models: Vec<Prepared>,
    ensemble: Option<Ensemble>,
    /// At least one.
    builds: Vec<Build>,
}

/// The models of a draft, lowered for one target.
pub struct Build {
    /// What for.
    pub target: Target,
    /// The models, in the order of the draft's.
    pub lowered: Vec<Lowered>,
    /// What running them will take.
    pub memory: MemoryPlan,
}

impl Build {
    fn new(models: &[Prepared], ensemble: Option<&Ensemble>, options: &CompileOptions) -> Result<Self> {
        let estimates = estimates(models, options.target.name)?;
        let lowered = models.iter().map(|model| model.lower(options)).collect::<Result<Vec<_>>>()?;
        let named: Vec<(&str, Memory)> =
            models.iter().zip(&lowered).map(|(model, lowered)| (model.name(), lowered.plan.memory())).collect();
        let memory = MemoryPlan::new(&named, ensemble, estimates);
        Ok(Build { target: options.target.clone(), lowered, memory })
    }

    /// The kernels of all models, each once.
    pub(super) fn kernels(&self) -> Result<BTreeMap<&str, &Emitted>, lower::LowerError> {
        let mut kernels: BTreeMap<&str, &Emitted> = BTreeMap::new();
        for kernel in self.lowered.iter().flat_map(|lowered| &lowered.kernels) {
            let known = kernels.entry(&kernel.name).or_insert(kernel);
            if *known != kernel {
                let (first, second) = ("a kernel of one model".to_owned(), "a different kernel of another".to_owned());
                return Err(lower::LowerError::Conflict { name: kernel.name.clone(), first, second });
            }
        }
        Ok(kernels)
    }

    fn needs(&self, models: &[Prepared]) -> dwindle_bundle::Target {
        let contexts: Vec<_> = self.lowered.iter().zip(models).map(|(l, prepared)| (l, prepared.context)).collect();
        let name = self.target.name.to_string();
        dwindle_bundle::Target { name, needs: lower::needs(&contexts), features: Vec::new() }
    }
}

impl Draft {
    /// Decides everything; no tensor's data is needed.
    ///
    /// # Errors
    /// As [`compile`](super::compile), but those of tensors and files.
    pub fn new(blueprints: Vec<Blueprint>, options: &CompileOptions) -> Result<Self> {
        let prepare = |blueprint| Prepared::of(blueprint, options);
        let models = blueprints.into_iter().map(prepare).collect::<Result<Vec<_>>>()?;
        let ensemble = ensemble::ensemble(&models, options)?;
        let targets = std::iter::once(&options.target).chain(&options.also);
        let build = |target: &Target| {
            Build::new(&models, ensemble.as_ref(), &CompileOptions { target: target.clone(), ..options.clone() })
        };
        let builds = targets.map(build).collect::<Result<Vec<_>>>()?;
        Ok(Draft { models, ensemble, builds })
    }

    /// What running the bundle will take, on the target where that is most.
    pub fn memory(&self) -> &MemoryPlan {
        let plans = self.builds.iter().map(|build| &build.memory);
        // The first of equals.
        plans.rev().max_by_key(|memory| memory.peak).expect("a draft has at least one build")
    }

    /// The models, in the order in which they were given, for the first target.
    pub fn models(&self) -> impl Iterator<Item = (&Prepared, &Lowered)> {
        self.models.iter().zip(self.builds.iter().flat_map(|build| &build.lowered))
    }

    /// The models, in the order in which they were given.
    pub(super) fn prepared(&self) -> &[Prepared] {
        &self.models
    }

    /// One for each target.
    pub fn builds(&self) -> &[Build] {
        &self.builds
    }

    /// How they work together.
    pub fn ensemble(&self) -> Option<&Ensemble> {
        self.ensemble.as_ref()
    }

    /// What writing the bundle takes, where `bytes_in` are read and `bytes_meanwhile` of files are kept beside it.
    ///
    /// # Errors
    /// A carried file that cannot be read.
    pub fn work(&self, bytes_in: u64, bytes_meanwhile: u64) -> Result<Work> {
        let mut bytes_out = 0;
        let mut entries = 1;
        for prepared in &self.models {
            for name in ["tokenizer.json", "chat_template.jinja"] {
                if let Some(path) = prepared.blueprint.file(name) {
                    bytes_out += std::fs::metadata(&path).map_err(Error::io("read", &path))?.len();
                    entries += 1;
                }
            }
        }
        for (build, share) in self.builds.iter().zip(shares(&self.models, &self.builds)?) {
            for (lowered, new) in build.lowered.iter().zip(&share.weights) {
                bytes_out += new.iter().map(|(segment, _)| lowered.weights.segments[*segment]).sum::<u64>();
                entries += new.len() as u64;
            }
            bytes_out += share.plans.iter().map(written_bytes).sum::<u64>();
            // A translation is about as long as the text.
            bytes_out += share.kernels.values().map(|(kernel, _)| 2 * kernel.wgsl.len() as u64).sum::<u64>();
            entries += 2 * share.kernels.len() as u64;
        }
        let threads = rayon::current_num_threads() as u64;
        Ok(Work {
            step: "compile",
            bytes_in,
            bytes_to_download: 0,
            bytes_out: bytes_out + entries * u64::from(ENTRY_ALIGNMENT),
            bytes_meanwhile,
            peak_memory: COMPILER + threads * THREAD,
        })
    }

    /// What will be written, for people; `bytes` is what [`Draft::work`] says.
    pub fn report(&self, bytes: u64) -> Report {
        Report::planned(self, bytes)
    }

    /// Writes the bundle, with the tensors of each model.
    ///
    /// # Errors
    /// Tensors that do not fit, kernels that are not valid, writing. Nothing is left at `out` then but what was there before.
    pub fn write(&self, tensors: &[&dyn Tensors], out: &Path, progress: &dyn Progress) -> Result<Report> {
        for (lowered, tensors) in self.builds.iter().flat_map(|build| build.lowered.iter().zip(tensors)) {
            pack::check(&lowered.weights, *tensors)?;
        }
        let shares = shares(&self.models, &self.builds)?;
        let mut writer = Writer::create(out)?;
        progress.begin("compile", self.packed_bytes(&shares));
        let written = self.write_entries(&mut writer, &shares, tensors, progress);
        progress.end();
        let texts = written?;
        let mut views = self.builds.iter().zip(shares).map(|(build, share)| (build, share.plans));
        let (first, plans) = views.next().expect("a draft has at least one build");
        let models = self.models.iter().zip(texts).zip(plans).map(|((model, text), plan)| describe(model, text, plan));
        let also = views.map(|(build, plans)| Variant {
            target: build.needs(&self.models),
            memory: build.memory.clone(),
            models: plans.into_iter().map(|plan| VariantModel { memory: plan.memory(), plan }).collect(),
        });
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            target: first.needs(&self.models),
            models: models.collect::<Result<_>>()?,
            ensemble: self.ensemble.clone(),
            memory: first.memory.clone(),
            also: also.collect(),
            entries: BTreeMap::new(),
        };
        let manifest = writer.finish(manifest)?;
        let bytes = std::fs::metadata(out).map_err(Error::io("read", out))?.len();
        Report::new(self, &manifest, bytes)
    }

    fn packed_bytes(&self, shares: &[Share<'_>]) -> u64 {
        let of_model = |(lowered, new): (&Lowered, &Vec<(usize, String)>)| -> u64 {
            new.iter().map(|(segment, _)| lowered.weights.segments[*segment]).sum()
        };
        let builds = self.builds.iter().zip(shares);
        builds.flat_map(|(build, share)| build.lowered.iter().zip(&share.weights)).map(of_model).sum()
    }

    /// Writes everything but the manifest, and gives each model's tokenizer and template.
    fn write_entries(
        &self,
        writer: &mut Writer,
        shares: &[Share<'_>],
        tensors: &[&dyn Tensors],
        progress: &dyn Progress,
    ) -> Result<Vec<Option<Text>>> {
        let mut texts = Vec::with_capacity(self.models.len());
        for (index, (model, tensors)) in self.models.iter().zip(tensors).enumerate() {
            texts.push(text::read(model, writer)?);
            for (build, share) in self.builds.iter().zip(shares) {
                for (segment, entry) in &share.weights[index] {
                    writer.entry(entry, |sink: &mut Sink<'_>| {
                        let mut write = |bytes: &[u8]| sink.write(bytes).map_err(Error::from);
                        pack::pack(&build.lowered[index].weights, *segment, *tensors, &mut write, progress)
                    })?;
                }
            }
        }
        for (build, share) in self.builds.iter().zip(shares) {
            write_kernels(writer, share, &build.target)?;
        }
        Ok(texts)
    }
}

/// A model as the manifest tells it, with its plan for the first target.
fn describe(model: &Prepared, text: Option<Text>, plan: Plan) -> Result<Model> {
    Ok(Model {
        name: model.name().to_owned(),
        about: model.about(),
        context: model.context,
        vocab_size: model.family.shape().vocab_size as u32,
        hidden_size: model.family.shape().hidden_size as u32,
        memory: plan.memory(),
        image: text::image(model)?,
        sampling: sampling::sampling(&model.blueprint)?,
        text,
        plan,
    })
}

/// Memory of compiling, beside the pages of mapped files: the program, graphs and plans of two models.
const COMPILER: u64 = 64 << 20;

/// Memory of a thread that packs: its stack and its rows.
const THREAD: u64 = 2 << 20;

/// Bytes of a plan in the manifest.
fn written_bytes(plan: &Plan) -> u64 {
    struct Counted(u64);
    impl std::io::Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counted = Counted(0);
    // Counting does not fail, and a plan is written the same way later.
    let _ = serde_json::to_writer(&mut counted, plan);
    counted.0
}

/// Validates each kernel and writes its text, unless another target did, and its translation for the target.
fn write_kernels(writer: &mut Writer, share: &Share<'_>, target: &Target) -> Result<()> {
    for (stem, (kernel, is_new)) in &share.kernels {
        let valid = validate::validate(kernel, target)?;
        let (extension, translation) = match target.name {
            TargetName::Vulkan => {
                ("spv", translate::spirv(&valid)?.iter().flat_map(|word| word.to_le_bytes()).collect())
            }
            TargetName::Metal => ("metal", translate::msl(&valid)?.into_bytes()),
            TargetName::Cpu => continue,
        };
        if *is_new {
            writer.entry(&format!("{stem}.wgsl"), |sink| sink.write(kernel.wgsl.as_bytes()))?;
        }
        writer.entry(&format!("{stem}.{extension}"), |sink| sink.write(&translation))?;
    }
    Ok(())
}
