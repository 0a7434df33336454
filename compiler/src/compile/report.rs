//! What a compilation made: sizes, memory, dispatches.

use std::fmt;

use dwindle_bundle::{Manifest, Memory};
use serde::Serialize;

use crate::lower::Lowered;
use crate::size::Size;

/// What is in a bundle, for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Size of the file.
    pub bytes: u64,
    /// Kernels in the file.
    pub kernels: usize,
    /// The models.
    pub models: Vec<ModelReport>,
    /// Bytes on the device while all models are loaded.
    pub peak_bytes: u64,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// One model of a bundle.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelReport {
    /// Its name.
    pub name: String,
    /// Family, scheme, method.
    pub about: String,
    /// Positions of the KV cache.
    pub context: u32,
    /// Bytes on the device, by purpose.
    pub memory: Memory,
    /// Scratch bytes that no assignment of buffers could save.
    pub scratch_lower_bound: u64,
    /// Its functions.
    pub functions: Vec<FunctionReport>,
}

/// One function of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FunctionReport {
    /// Its name.
    pub name: String,
    /// Dispatches of a call; of `decode`, that is of a token.
    pub dispatches: usize,
    /// The most rows of a call.
    pub max_rows: u32,
}

impl Report {
    pub(super) fn new(manifest: &Manifest, lowered: &[Lowered], bytes: u64) -> Self {
        let mut warnings = Vec::new();
        let mut models = Vec::with_capacity(lowered.len());
        for (model, lowered) in manifest.models.iter().zip(lowered) {
            match &model.text {
                None => {
                    warnings.push(format!("{} has no tokenizer.json: it can compute logits, but not chat", model.name))
                }
                Some(text) if text.chat_template.is_none() => {
                    warnings.push(format!("{} has no chat template: it completes texts, but has no turns", model.name));
                }
                Some(_) => {}
            }
            let about = ["family", "scheme", "method"].iter().filter_map(|key| model.about.get(*key));
            let functions = model.plan.functions.iter().map(|(name, function)| FunctionReport {
                name: name.clone(),
                dispatches: function.steps.len(),
                max_rows: function.max_rows,
            });
            models.push(ModelReport {
                name: model.name.clone(),
                about: about.cloned().collect::<Vec<_>>().join(" "),
                context: model.context,
                memory: model.memory,
                scratch_lower_bound: lowered.scratch_lower_bound,
                functions: functions.collect(),
            });
        }
        let kernels = manifest.models.iter().flat_map(|model| &model.plan.kernels).map(|kernel| &kernel.name);
        let kernels = kernels.collect::<std::collections::BTreeSet<_>>().len();
        let peak_bytes = models.iter().map(|model| model.memory.total()).sum();
        Report { bytes, kernels, models, peak_bytes, warnings }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "bundle of {}, {} kernels", Size(self.bytes), self.kernels)?;
        for model in &self.models {
            writeln!(f, "{} ({}), context {}", model.name, model.about, model.context)?;
            let Memory { weights, states, scratch, ports } = model.memory;
            writeln!(
                f,
                "  memory: {} = weights {} + states {} + scratch {} + ports {}",
                Size(model.memory.total()),
                Size(weights),
                Size(states),
                Size(scratch),
                Size(ports)
            )?;
            let functions = model.functions.iter().map(|function| match function.name.as_str() {
                "decode" => format!("decode {} a token", function.dispatches),
                name => format!("{name} {}", function.dispatches),
            });
            writeln!(f, "  dispatches: {}", functions.collect::<Vec<_>>().join(", "))?;
        }
        write!(f, "peak device memory: {}", Size(self.peak_bytes))?;
        self.warnings.iter().try_for_each(|warning| write!(f, "\nwarning: {warning}"))
    }
}
