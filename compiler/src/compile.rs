//! Model directories to a bundle: graphs, passes, lowering, packing and the manifest.
//!
//! [`compile`] is what `dwindle compile` does; [`prepare::Prepared`] holds the stages of one model for whoever wants to look at
//! them. Weights stream from the mapped model directories into the file; the bundle appears under its name only when
//! it is complete. Entries, in this order: `models/<name>/tokenizer.json`, `…/chat_template.jinja`, `…/weights.<n>` of each model,
//! then `kernels/<name>.wgsl` with their translation beside.

mod ensemble;
mod inspect;
mod prepare;
mod report;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::path::Path;

use dwindle_bundle::{FORMAT_VERSION, Manifest, Model, Sink, Writer};

pub use ensemble::{DESCRIBE_PROMPT, HANDOVER};
pub use inspect::{Stage, UnknownStage, inspect};
pub use prepare::{Prepared, model_name};
pub use report::{FunctionReport, ModelReport, Report};

use crate::checkpoint::ModelDir;
use crate::error::{Error, Result};
use crate::graph::DType;
use crate::graph::{Stored, Tensors};
use crate::kernels::{Emitted, translate, validate};
use crate::lower::pack;
use crate::lower::{self, Lowered};
use crate::progress::Progress;
use crate::target::{Target, TargetName};

/// What a compilation decides by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileOptions {
    /// Limits, and the language of the kernels.
    pub target: Target,
    /// Positions of the KV caches; `None` is what the model was made for, 4096 at most.
    pub context: Option<u32>,
    /// The most tokens that one call takes.
    pub max_rows: u32,
    /// Functions also return what is between layers, to find where two implementations part.
    pub taps: bool,
    /// What the describing model of an ensemble is asked, once a picture.
    pub describe_prompt: String,
    /// Jinja template of the chat model's turn, given `descriptions` and `message`.
    pub handover: String,
}

impl CompileOptions {
    /// The defaults for a target.
    pub fn new(target: TargetName) -> Self {
        CompileOptions {
            target: Target::new(target),
            context: None,
            max_rows: 256,
            taps: false,
            describe_prompt: DESCRIBE_PROMPT.to_owned(),
            handover: HANDOVER.to_owned(),
        }
    }
}

/// Compiles one model, or one that sees and one that chats, into the bundle `out`.
///
/// # Errors
/// Models that are not quantized, do not belong together or share a name; configurations, operations and sizes that are not
/// supported; tensors and files that do not fit; writing. Nothing is left at `out` then but what was there before.
pub fn compile(models: &[ModelDir], options: &CompileOptions, out: &Path, progress: &dyn Progress) -> Result<Report> {
    let prepared = models.iter().map(|model| Prepared::open(model, options)).collect::<Result<Vec<_>>>()?;
    let ensemble = ensemble::ensemble(&prepared, options)?;
    let mut lowered = Vec::with_capacity(prepared.len());
    for model in &prepared {
        let this = model.lower(options)?;
        pack::check(&this.weights, &StoredTensors(model.directory))?;
        lowered.push(this);
    }
    let kernels = kernels(&lowered)?;

    let mut writer = Writer::create(out)?;
    let total = lowered.iter().flat_map(|l| &l.weights.segments).sum();
    progress.begin("compile", total);
    let written = write_models(&mut writer, &prepared, &lowered, progress)
        .and_then(|models| write_kernels(&mut writer, &kernels, &options.target).map(|()| models));
    progress.end();
    let contexts: Vec<_> = lowered.iter().zip(&prepared).map(|(l, p)| (l, p.context)).collect();
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        target: dwindle_bundle::Target {
            name: options.target.name.to_string(),
            needs: lower::needs(&contexts),
            features: Vec::new(),
        },
        models: written?,
        ensemble,
        entries: BTreeMap::new(),
    };
    let manifest = writer.finish(manifest)?;
    let bytes = std::fs::metadata(out).map_err(Error::io("read", out))?.len();
    Ok(Report::new(&manifest, &lowered, bytes))
}

/// The kernels of all models, each once.
fn kernels(models: &[Lowered]) -> Result<BTreeMap<&str, &Emitted>> {
    let mut kernels: BTreeMap<&str, &Emitted> = BTreeMap::new();
    for kernel in models.iter().flat_map(|model| &model.kernels) {
        let known = kernels.entry(&kernel.name).or_insert(kernel);
        if *known != kernel {
            let (first, second) = ("a kernel of one model".to_owned(), "a different kernel of another".to_owned());
            return Err(lower::LowerError::Conflict { name: kernel.name.clone(), first, second }.into());
        }
    }
    Ok(kernels)
}

fn write_models(
    writer: &mut Writer,
    prepared: &[Prepared<'_>],
    lowered: &[Lowered],
    progress: &dyn Progress,
) -> Result<Vec<Model>> {
    let mut models = Vec::with_capacity(prepared.len());
    for (model, lowered) in prepared.iter().zip(lowered) {
        let text = text::read(model, writer)?;
        for segment in 0..lowered.weights.segments.len() {
            writer.entry(&model.lower_options().weights_entry(segment), |sink: &mut Sink<'_>| {
                let mut write = |bytes: &[u8]| sink.write(bytes).map_err(Error::from);
                pack::pack(&lowered.weights, segment, &StoredTensors(model.directory), &mut write, progress)
            })?;
        }
        models.push(Model {
            name: model.name.clone(),
            about: model.about(),
            context: model.context,
            vocab_size: model.family.shape().vocab_size as u32,
            hidden_size: model.family.shape().hidden_size as u32,
            memory: lowered.plan.memory(),
            image: text::image(model)?,
            sampling: text::sampling(model.directory)?,
            text,
            plan: lowered.plan.clone(),
        });
    }
    Ok(models)
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

/// Tensors of a model directory as packing sees them.
struct StoredTensors<'a>(&'a ModelDir);

impl Tensors for StoredTensors<'_> {
    fn stored(&self, name: &str) -> Option<Stored<'_>> {
        use crate::checkpoint::safetensors::Element;
        let view = self.0.tensor(name)?;
        let dtype = match view.dtype {
            Element::F32 => DType::F32,
            Element::F16 => DType::F16,
            Element::Bf16 => DType::Bf16,
            Element::U32 => DType::U32,
            Element::I32 => DType::I32,
            // A model directory holds no others; one that does is refused when it is opened.
            _ => return None,
        };
        Some(Stored { dtype, shape: view.shape, bytes: view.bytes })
    }
}
