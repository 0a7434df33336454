//! What a compilation made: sizes, memory, dispatches.

use std::collections::BTreeSet;
use std::fmt;

use dwindle_bundle::{Manifest, Memory, MemoryPlan, Moment};
use serde::Serialize;

use super::share::Division;
use super::{Build, Draft, sampling};
use crate::error::Result;
use crate::size::Size;

/// What is in a bundle, for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Size of the file.
    pub bytes: u64,
    /// What each target has, in order.
    pub targets: Vec<TargetReport>,
    /// Bytes that several targets use; absent for one target, and before the file is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_bytes: Option<u64>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// One target of a bundle.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TargetReport {
    /// Its name.
    pub target: String,
    /// Kernels in its plans.
    pub kernels: usize,
    /// The models.
    pub models: Vec<ModelReport>,
    /// What running it takes, moment by moment.
    pub memory: MemoryPlan,
    /// Bytes that no other target uses; absent for one target, and before the file is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own_bytes: Option<u64>,
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
    /// What a draft became: `manifest` in a file of `bytes` bytes.
    pub(super) fn new(draft: &Draft, manifest: &Manifest, bytes: u64) -> Result<Self> {
        let mut report = Report::planned(draft, bytes);
        for model in &manifest.models {
            match &model.text {
                None => report
                    .warnings
                    .push(format!("{} has no tokenizer.json: it can compute logits, but not chat", model.name)),
                Some(text) if text.chat_template.is_none() => report
                    .warnings
                    .push(format!("{} has no chat template: it completes texts, but has no turns", model.name)),
                Some(_) => {}
            }
        }
        for model in draft.prepared() {
            let left_out = sampling::not_done(&model.blueprint)?;
            if !left_out.is_empty() {
                report.warnings.push(format!(
                    "{}: generation_config.json asks for {}, which Dwindle does not do; answers may differ",
                    model.name(),
                    left_out.join(", ")
                ));
            }
        }
        if report.targets.len() > 1 {
            let division = Division::of(manifest);
            report.shared_bytes = Some(division.shared);
            for (target, own) in report.targets.iter_mut().zip(division.own) {
                target.own_bytes = Some(own);
            }
        }
        Ok(report)
    }

    /// What a draft will become, in a file of about `bytes` bytes.
    pub(super) fn planned(draft: &Draft, bytes: u64) -> Self {
        let targets = draft.builds().iter().map(|build| TargetReport::of(draft, build)).collect();
        Report { bytes, targets, shared_bytes: None, warnings: Vec::new() }
    }
}

impl TargetReport {
    fn of(draft: &Draft, build: &Build) -> Self {
        let mut models = Vec::new();
        let mut kernels = BTreeSet::new();
        for (prepared, lowered) in draft.prepared().iter().zip(&build.lowered) {
            kernels.extend(lowered.plan.kernels.iter().map(|kernel| &kernel.name));
            let about = prepared.about();
            let about = ["family", "scheme", "method"].iter().filter_map(|key| about.get(*key));
            let functions = lowered.plan.functions.iter().map(|(name, function)| FunctionReport {
                name: name.clone(),
                dispatches: function.steps.len(),
                max_rows: function.max_rows,
            });
            models.push(ModelReport {
                name: prepared.name().to_owned(),
                about: about.cloned().collect::<Vec<_>>().join(" "),
                context: prepared.context,
                memory: lowered.plan.memory(),
                scratch_lower_bound: lowered.scratch_lower_bound,
                functions: functions.collect(),
            });
        }
        let (target, memory) = (build.target.name.to_string(), build.memory.clone());
        TargetReport { target, kernels: kernels.len(), models, memory, own_bytes: None }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bundle of {}", Size(self.bytes))?;
        match self.targets.as_slice() {
            [target] => writeln!(f, ", {} kernels", target.kernels)?,
            targets => {
                writeln!(f, " for {} targets", targets.len())?;
                if let Some(shared) = self.shared_bytes {
                    writeln!(f, "  {:<8} {:>10}", "shared", Size(shared).to_string())?;
                    for target in targets {
                        let own = Size(target.own_bytes.unwrap_or(0)).to_string();
                        writeln!(f, "  {:<8} {own:>10}, {} kernels", target.target, target.kernels)?;
                    }
                }
            }
        }
        for (index, target) in self.targets.iter().enumerate() {
            if self.targets.len() > 1 {
                writeln!(f, "{}target {}", if index == 0 { "" } else { "\n" }, target.target)?;
            }
            write!(f, "{target}")?;
        }
        self.warnings.iter().try_for_each(|warning| write!(f, "\nwarning: {warning}"))
    }
}

impl fmt::Display for TargetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for model in &self.models {
            writeln!(f, "{} ({}), context {}", model.name, model.about, model.context)?;
            let memory = &model.memory;
            let work = memory.work();
            writeln!(
                f,
                "  buffers: {} = weights {} + caches {} + work {}",
                Size(memory.total()),
                Size(memory.weights),
                Size(memory.states),
                Size(work)
            )?;
            let functions = model.functions.iter().map(|function| match function.name.as_str() {
                "decode" => format!("decode {} a token", function.dispatches),
                name => format!("{name} {}", function.dispatches),
            });
            writeln!(f, "  dispatches: {}", functions.collect::<Vec<_>>().join(", "))?;
        }
        write!(f, "{}", Moments(&self.memory))
    }
}

/// A memory plan as a table, one line a moment, and the worst one.
pub struct Moments<'a>(pub &'a MemoryPlan);

impl fmt::Display for Moments<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.moments.iter().map(|moment| moment.what.len()).max().unwrap_or(0).max("memory while".len());
        type Part = fn(&Moment) -> u64;
        let columns: [(&str, Part); 8] = [
            ("weights", |m| m.weights),
            ("caches", |m| m.states),
            ("work", |m| m.work),
            ("tokenizers", |m| m.tokenizers),
            ("picture", |m| m.picture),
            ("staging", |m| m.staging),
            ("process", |m| m.process),
            ("total", Moment::total),
        ];
        write!(f, "{:<width$}", "memory while")?;
        columns.iter().try_for_each(|(name, _)| write!(f, "  {name:>10}"))?;
        for moment in &self.0.moments {
            write!(f, "\n{:<width$}", moment.what)?;
            columns.iter().try_for_each(|(_, bytes)| write!(f, "  {:>10}", Size(bytes(moment)).to_string()))?;
        }
        write!(f, "\npeak memory: {}", Size(self.0.peak))
    }
}
