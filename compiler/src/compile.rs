//! Model directories to a bundle: graphs, passes, lowering, packing and the manifest.
//!
//! [`compile`] is what `dwindle compile` does; [`prepare::Prepared`] holds the stages of one model for whoever wants to look at
//! them. Weights stream from the mapped model directories into the file; the bundle appears under its name only when
//! it is complete. Entries, in this order: `models/<name>/tokenizer.json`, `…/chat_template.jinja`, `…/weights.<n>` of each model,
//! then `kernels/<name>.wgsl` with their translation beside. Of further targets, only what differs is there, in folders of
//! their names: `models/<name>/<target>/weights.<n>`, `kernels/<target>/<name>.wgsl`.

mod blueprint;
mod draft;
pub(crate) mod ensemble;
mod estimate;
mod inspect;
mod prepare;
mod report;
mod sampling;
mod share;
mod tensors;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::path::Path;

use dwindle_bundle::Residency;
use dwindle_schemes::FloatType;

pub use blueprint::{Blueprint, model_name};
pub use draft::{Build, Draft};
pub use ensemble::{DESCRIBE_PROMPT, HANDOVER};
pub(crate) use estimate::estimates;
pub use inspect::{Stage, UnknownStage, inspect};
pub use prepare::Prepared;
pub(crate) use prepare::picture_context;
pub use report::{FunctionReport, ModelReport, Moments, Report, TargetReport};
pub use share::Division;
pub use tensors::StoredTensors;

use crate::checkpoint::ModelDir;
use crate::error::Result;
use crate::graph::Tensors;
use crate::progress::Progress;
use crate::target::{Target, TargetName};

/// What a compilation decides by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileOptions {
    /// Limits, and the language of the kernels.
    pub target: Target,
    /// Further targets of the same bundle.
    pub also: Vec<Target>,
    /// Positions of the KV caches; `None` is what the model was made for, 4096 at most.
    pub context: Option<u32>,
    /// The same for single models, by name; these go first.
    pub contexts: BTreeMap<String, u32>,
    /// Type of cached keys and values: `F16` or `F32`; `None` is what the scheme says.
    pub kv: Option<FloatType>,
    /// What of an ensemble's models is in memory at a time.
    pub residency: Residency,
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
            also: Vec::new(),
            context: None,
            contexts: BTreeMap::new(),
            kv: None,
            residency: Residency::Both,
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
    let blueprints = models.iter().map(Blueprint::of).collect::<Result<Vec<_>>>()?;
    let stored: Vec<_> = models.iter().map(StoredTensors::of).collect();
    let tensors: Vec<&dyn Tensors> = stored.iter().map(|tensors| tensors as &dyn Tensors).collect();
    Draft::new(blueprints, options)?.write(&tensors, out, progress)
}
