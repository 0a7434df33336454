//! A bundle that is decided but not written: plans, kernels, memory, and what writing it takes.

use std::collections::BTreeMap;
use std::path::Path;

use dwindle_bundle::{
    ENTRY_ALIGNMENT, Ensemble, FORMAT_VERSION, Manifest, Memory, MemoryPlan, Model, Plan, Sink, Writer,
};

use super::estimate::estimates;
use super::{Blueprint, CompileOptions, Prepared, Report, ensemble, text};
use crate::error::{Error, Result};
use crate::graph::Tensors;
use crate::kernels::{Emitted, translate, validate};
use crate::lower::{self, Lowered, pack};
use crate::progress::Progress;
use crate::target::{Target, TargetName};
use crate::work::Work;

/// Models lowered for a target, and how they work together.
pub struct Draft {
    target: Target,
    models: Vec<(Prepared, Lowered)>,
    ensemble: Option<Ensemble>,
    memory: MemoryPlan,
}

impl Draft {
    /// Decides everything; no tensor's data is needed.
    ///
    /// # Errors
    /// As [`compile`](super::compile), but those of tensors and files.
    pub fn new(blueprints: Vec<Blueprint>, options: &CompileOptions) -> Result<Self> {
        let prepare = |blueprint| Prepared::of(blueprint, options);
        let prepared = blueprints.into_iter().map(prepare).collect::<Result<Vec<_>>>()?;
        let ensemble = ensemble::ensemble(&prepared, options)?;
        let estimates = estimates(&prepared, options.target.name)?;
        let lower = |model: Prepared| model.lower(options).map(|lowered| (model, lowered));
        let models = prepared.into_iter().map(lower).collect::<Result<Vec<_>>>()?;
        let named: Vec<(&str, Memory)> = models.iter().map(|(p, l)| (p.name(), l.plan.memory())).collect();
        let memory = MemoryPlan::new(&named, ensemble.as_ref(), estimates);
        Ok(Draft { target: options.target.clone(), models, ensemble, memory })
    }

    /// What running the bundle will take.
    pub fn memory(&self) -> &MemoryPlan {
        &self.memory
    }

    /// The models, in the order in which they were given.
    pub fn models(&self) -> impl Iterator<Item = (&Prepared, &Lowered)> {
        self.models.iter().map(|(prepared, lowered)| (prepared, lowered))
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
        for (prepared, lowered) in &self.models {
            for name in ["tokenizer.json", "chat_template.jinja"] {
                if let Some(path) = prepared.blueprint.file(name) {
                    bytes_out += std::fs::metadata(&path).map_err(Error::io("read", &path))?.len();
                    entries += 1;
                }
            }
            bytes_out += lowered.weights.segments.iter().sum::<u64>() + written_bytes(&lowered.plan);
            entries += lowered.weights.segments.len() as u64;
        }
        for kernel in self.kernels()?.values().filter(|kernel| kernel.native.is_none()) {
            // A translation is about as long as the text.
            bytes_out += 2 * kernel.wgsl.len() as u64;
            entries += 2;
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
        for ((_, lowered), tensors) in self.models.iter().zip(tensors) {
            pack::check(&lowered.weights, *tensors)?;
        }
        let kernels = self.kernels()?;
        let mut writer = Writer::create(out)?;
        let total = self.models.iter().flat_map(|(_, lowered)| &lowered.weights.segments).sum();
        progress.begin("compile", total);
        let written = self
            .write_models(&mut writer, tensors, progress)
            .and_then(|models| write_kernels(&mut writer, &kernels, &self.target).map(|()| models));
        progress.end();
        let contexts: Vec<_> = self.models.iter().map(|(prepared, lowered)| (lowered, prepared.context)).collect();
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            target: dwindle_bundle::Target {
                name: self.target.name.to_string(),
                needs: lower::needs(&contexts),
                features: Vec::new(),
            },
            models: written?,
            ensemble: self.ensemble.clone(),
            memory: self.memory.clone(),
            entries: BTreeMap::new(),
        };
        let manifest = writer.finish(manifest)?;
        let bytes = std::fs::metadata(out).map_err(Error::io("read", out))?.len();
        Ok(Report::new(self, &manifest.models, bytes))
    }

    /// The kernels of all models, each once.
    fn kernels(&self) -> Result<BTreeMap<&str, &Emitted>> {
        let mut kernels: BTreeMap<&str, &Emitted> = BTreeMap::new();
        for kernel in self.models.iter().flat_map(|(_, lowered)| &lowered.kernels) {
            let known = kernels.entry(&kernel.name).or_insert(kernel);
            if *known != kernel {
                let (first, second) = ("a kernel of one model".to_owned(), "a different kernel of another".to_owned());
                return Err(lower::LowerError::Conflict { name: kernel.name.clone(), first, second }.into());
            }
        }
        Ok(kernels)
    }

    fn write_models(
        &self,
        writer: &mut Writer,
        tensors: &[&dyn Tensors],
        progress: &dyn Progress,
    ) -> Result<Vec<Model>> {
        let mut models = Vec::with_capacity(self.models.len());
        for ((model, lowered), tensors) in self.models.iter().zip(tensors) {
            let text = text::read(model, writer)?;
            for segment in 0..lowered.weights.segments.len() {
                writer.entry(&model.lower_options().weights_entry(segment), |sink: &mut Sink<'_>| {
                    let mut write = |bytes: &[u8]| sink.write(bytes).map_err(Error::from);
                    pack::pack(&lowered.weights, segment, *tensors, &mut write, progress)
                })?;
            }
            models.push(Model {
                name: model.name().to_owned(),
                about: model.about(),
                context: model.context,
                vocab_size: model.family.shape().vocab_size as u32,
                hidden_size: model.family.shape().hidden_size as u32,
                memory: lowered.plan.memory(),
                image: text::image(model)?,
                sampling: text::sampling(&model.blueprint)?,
                text,
                plan: lowered.plan.clone(),
            });
        }
        Ok(models)
    }
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

/// Validates each kernel and writes its text and its translation for the target; native kernels are in the plan already.
fn write_kernels(writer: &mut Writer, kernels: &BTreeMap<&str, &Emitted>, target: &Target) -> Result<()> {
    for (name, kernel) in kernels.iter().filter(|(_, kernel)| kernel.native.is_none()) {
        let valid = validate::validate(kernel, target)?;
        let (extension, translation) = match target.name {
            TargetName::Vulkan => {
                ("spv", translate::spirv(&valid)?.iter().flat_map(|word| word.to_le_bytes()).collect())
            }
            TargetName::Metal => ("metal", translate::msl(&valid)?.into_bytes()),
            TargetName::Cpu => continue,
        };
        let texts: [(&str, &[u8]); 2] = [("wgsl", kernel.wgsl.as_bytes()), (extension, &translation)];
        for (extension, contents) in texts {
            writer.entry(&format!("kernels/{name}.{extension}"), |sink| sink.write(contents))?;
        }
    }
    Ok(())
}
